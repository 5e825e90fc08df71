"""Images that a pass over a pool could not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ymir_tmi.errors import counted


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that could not be read, and so has no result.

    Attributes:
        path: the picture file, as the pool names it.
        error: why.
    """

    path: str
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"path": self.path, "error": self.error}


def describe_failures(failed: Sequence[FailedImage]) -> list[str]:
    """Return a line for a person, or none if every image could be read."""
    if not failed:
        return []
    first = failed[0]
    return [f"{counted(len(failed), 'image', 'images')} could not be read, the first is {first.path}: {first.error}"]

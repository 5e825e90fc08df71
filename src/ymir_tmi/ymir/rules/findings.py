"""What is found while files are checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that the platform would reject: where (file and key) and what."""

    file: str
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.what}"


@dataclass
class Findings:
    """What was checked, and what is wrong in it."""

    problems: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    def add(self, file: Path | str, key: str, what: str) -> None:
        """Note a problem; `key` is "" where it is that of the whole file."""
        self.problems.append(Finding(str(file), key, what))


@dataclass(frozen=True)
class Expected:
    """What /in says of a task; None where nobody said.

    Attributes:
        object_type: 2 boxes, 3 semantic segmentation, 4 instance segmentation.
        class_names: as config.yaml has them.
        candidates: the lines of the list of candidates.
        sizes: (width, height) of candidates as the platform stores them, by base name, where they can be read.
        task_id: that of env.yaml.
    """

    object_type: int | None = None
    class_names: tuple[str, ...] | None = None
    candidates: tuple[str, ...] | None = None
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    task_id: str | None = None


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number from 0 on, of Python's own type."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

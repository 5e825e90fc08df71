"""What is found while files are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


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


def read_text(file: Path, found: Findings) -> str | None:
    """Return the text of a file; None where it cannot be read, which is noted."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        found.add(file, "", f"it cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        found.add(file, "", "it is not text in UTF-8")
    return None


def read_mapping(file: Path, parse: Callable[[str], Any], form: str, found: Findings) -> dict[str, Any] | None:
    """Return the keys and values of a file that `parse` reads; None where it has none, which is noted.

    Args:
        file: the file.
        parse: makes values of its text.
        form: what `parse` reads, for messages.
        found: where problems are noted.
    """
    text = read_text(file, found)
    if text is None:
        return None
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError) as error:
        found.add(file, "", f"it is not {form}: {' '.join(str(error).split())}")
        return None
    if isinstance(content, dict):
        return content
    found.add(file, "", "it does not hold keys and values")
    return None


def check_names(result: Path, key: str, names: Iterable[str], expected: Expected, found: Findings) -> None:
    """Note candidates that are missing among the base names of a result, and names of others."""
    if expected.candidates is None:
        return
    wanted, there = {PurePosixPath(path).name for path in expected.candidates}, set(names)
    for name in sorted(wanted - there):
        found.add(result, key, f"the candidate '{name}' is missing")
    for name in sorted(there - wanted):
        found.add(result, key, f"'{name}' is no candidate")


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number from 0 on, of Python's own type."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

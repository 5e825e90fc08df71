"""Every error that a user's mistake can raise.

    TmiError                    what is wrong, where, and how to put it right
    |-- ConfigError             a setting is unknown, mistyped or contradicts another
    |-- DataError               an annotation file, image list or class list is wrong
    |   `-- ImageError          one picture cannot be read
    |-- ModelError              a model name, model file or checkpoint does not fit
    |-- DownloadError           a file cannot be fetched, or is not what was asked for
    |-- RunError                a run folder cannot be used, or a run cannot go on
    |   `-- DivergedError       the training loss is no longer a finite number
    `-- DependencyError         a package or device is missing, or clashes with another

The command line prints a `TmiError` without a traceback and exits with status 2. Any other exception is a
bug of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class TmiError(Exception):
    """A mistake that the user can put right.

    Args:
        what: What is wrong, in one sentence.
        where: The file (with line or key) that it is wrong in.
        fix: What to do about it, in one sentence.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where is not None else ""
        remedy = f"\n  {self.fix}" if self.fix else ""
        return f"{place}{self.what}{remedy}"

    def one_line(self) -> str:
        """Return the whole message in one line."""
        text = str(TmiError(self.what, where=self.where))
        return " ".join((f"{text}. {self.fix}" if self.fix else text).split())

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (loader workers) by pickle, which forgets keyword arguments.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


class ConfigError(TmiError):
    """A setting is unknown, mistyped or contradicts another."""


class DataError(TmiError):
    """An annotation file, image list or class list is wrong."""


class ImageError(DataError):
    """One picture cannot be read."""


class ModelError(TmiError):
    """A model name, model file or checkpoint does not fit."""


class DownloadError(TmiError):
    """A file cannot be fetched, or is not what was asked for."""


class RunError(TmiError):
    """A run folder cannot be used, or a run cannot go on."""


class DivergedError(RunError):
    """The training loss is no longer a finite number."""


class DependencyError(TmiError):
    """A package or device is missing, or clashes with another."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest of `known`, or the list of them when nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(known)}." if known else ""


def counted(count: int, one: str, many: str) -> str:
    """Return the number and the word for it, of which there is one for 1 and one for all other numbers."""
    return f"{count:,} {one if count == 1 else many}"


def _rebuild(kind: type[TmiError], what: str, where: str | Path | None, fix: str | None) -> TmiError:
    return kind(what, where=where, fix=fix)

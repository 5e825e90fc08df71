"""What a reader hands over: an index, and what it could not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError

SHOWN = 5


class Rejected(NamedTuple):
    """One annotation that cannot be understood.

    Attributes:
        where: the file and, where there is one, the line.
        what: what is wrong with it.
    """

    where: str
    what: str


@dataclass
class Rejections:
    """How many annotations cannot be understood, and the first few of them."""

    count: int = 0
    first: list[Rejected] = field(default_factory=list)

    def add(self, path: str | Path, line: int | None, what: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Rejected(f"{path}, line {line}" if line else str(path), what))


@dataclass(frozen=True)
class Reading:
    """One source as it was found, boxes outside the picture and of no size included.

    Attributes:
        index: images and every annotation that can be understood.
        declares_classes: whether the source lists its classes, or they were gathered from its objects.
        rejections: annotations that cannot be understood.
        missing: names of pictures that are nowhere, by the paths that the index has for them.
        looked_in: folders that pictures were looked for in.
    """

    index: DatasetIndex
    declares_classes: bool = False
    rejections: Rejections = field(default_factory=Rejections)
    missing: Mapping[str, str] = field(default_factory=dict)
    looked_in: Sequence[str] = ()

    def require_sound(self, source: str) -> None:
        """Raise the first problem, if there is any.

        Raises:
            DataError: an annotation cannot be understood, or a picture is missing.
        """
        if self.missing:
            first = next(iter(self.missing.values()))
            raise DataError(
                f"{len(self.missing):,} of {len(self.index):,} pictures are missing, the first is '{first}'; looked in "
                f"{', '.join(self.looked_in)}",
                where=source,
                fix="Say by --images in which folder the pictures lie.",
            )
        if self.rejections.count:
            rejected, count = self.rejections.first[0], self.rejections.count
            raise DataError(
                rejected.what + (f" (the first of {count:,} bad annotations)" if count > 1 else ""),
                where=rejected.where,
                fix="`ymir-tmi check` lists more of them; `--format images` reads the pictures alone.",
            )


def label_lines(path: str, rejections: Rejections) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a label file that is not blank; a file that is no text is rejected."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123, once for each of a million pictures
            lines = file.read().splitlines()
    except UnicodeDecodeError:
        rejections.add(path, None, "this is not a text file")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line.strip()

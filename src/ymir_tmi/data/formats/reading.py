"""What a reader hands over: an index, and what it could not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.repair import FARTHEST
from ymir_tmi.errors import DataError
from ymir_tmi.geometry.ragged import offsets

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
        annotated: whether there are annotations to be read, if only of no objects; pictures alone have none.
    """

    index: DatasetIndex
    declares_classes: bool = False
    rejections: Rejections = field(default_factory=Rejections)
    missing: Mapping[str, str] = field(default_factory=dict)
    looked_in: Sequence[str] = ()
    annotated: bool = True

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


def read_text(path: Path, what: str) -> str:
    """Return the text of a file that a data set cannot do without; `what` it is, is for messages.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {what}: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is not a UTF-8 text file", where=path) from error


def label_lines(path: str, rejections: Rejections) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a label file that is not blank; a file that is no text is rejected.

    Raises:
        DataError: the system does not let the file be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123, once for each of a million pictures
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(f"cannot read this file: {error.strerror}", where=path) from error
    except UnicodeDecodeError:
        rejections.add(path, None, "this is not a text file")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line.strip()


def is_coordinate(number: float) -> bool:
    """Return whether a number can be a place in a picture, or an angle: it is finite and not too large."""
    return abs(number) < FARTHEST  # false of NaN


def read_lines(path: str, rejections: Rejections, add: Callable[[str], None]) -> None:
    """Give each line of a label file to `add`; those for which it raises ValueError are rejected with what it says.

    Raises:
        DataError: the system does not let the file be read.
    """
    for number, line in label_lines(path, rejections):
        try:
            add(line)
        except ValueError as error:
            rejections.add(path, number, f"{error}: '{line[:80]}'")


def make_index(
    class_names: Sequence[str],
    pictures: Sequence[str],
    counts: npt.ArrayLike,
    labels: npt.ArrayLike,
    boxes: Mapping[str, Any],
    *,
    flags: npt.ArrayLike | None = None,
    sizes: npt.ArrayLike | None = None,
) -> DatasetIndex:
    """Return an index of a format that has no ids.

    Args:
        class_names: K names.
        pictures: N files.
        counts: (N,) how many objects each picture has.
        labels: (M,) of the objects, picture after picture.
        boxes: The columns `boxes` and `areas`, and `rotated` or `segments` where there are such.
        flags: (M,); by default none is set.
        sizes: (N, 2) width and height of the pictures; by default they are unknown.
    """
    labels = np.asarray(labels, np.int32)
    return DatasetIndex(
        class_names=tuple(class_names),
        paths=Strings.pack(pictures),
        sizes=np.zeros((len(pictures), 2), np.int32) if sizes is None else np.asarray(sizes, np.int32).reshape(-1, 2),
        image_ids=np.arange(len(pictures)),
        starts=offsets(np.asarray(counts, np.int64)),
        labels=labels,
        flags=np.zeros(len(labels), np.uint8) if flags is None else np.asarray(flags, np.uint8),
        **boxes,
    )

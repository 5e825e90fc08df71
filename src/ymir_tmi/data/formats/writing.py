"""What the writers of folders share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from ymir_tmi.data.description import DESCRIPTION
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.pictures import common_names, picture_sizes, place_picture
from ymir_tmi.errors import DataError
from ymir_tmi.files.atomic import atomic_folder

Sizes = npt.NDArray[np.int32]

LinesOf = Callable[[DatasetIndex, slice, Sizes], Sequence[str]]
"""Makes the lines of some annotation rows of an index, all of one picture, whose (width, height) is given."""


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends without an error.

    Raises:
        DataError: `folder` exists and is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("this exists already", where=folder, fix="Choose another name; nothing is overwritten.")
    with atomic_folder(folder) as temporary:
        yield temporary


def label_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each picture's name with and without its suffix, the latter for its annotation file.

    Raises:
        DataError: two pictures would have the same annotation file.
    """
    stems: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]  # noqa: PTH122, a Path for each would be slow
        if stem in stems:
            raise DataError(f"'{stems[stem]}' and '{name}' would have one annotation file; rename one of them")
        stems[stem] = name
    return [(name, stem) for stem, name in stems.items()]


def write_label_folder(
    splits: Mapping[str, DatasetIndex], folder: Path, labels: str, lines_of: LinesOf, *, copy: bool
) -> None:
    """Write `images/SPLIT`, a text file for each picture in `LABELS/SPLIT`, and `data.yaml` with splits and classes.

    Args:
        splits: an index for each split, all with the same classes.
        folder: where to; it must not exist, or be empty.
        labels: name of the folder with the text files.
        lines_of: makes the lines of a text file.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: the folder exists, a picture occurs twice in a split, or is of another size than the annotation
            states, or is turned by EXIF although its boxes are not.
        ImageError: the size of a picture cannot be read.
    """
    names = next(iter(splits.values())).class_names
    description = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(names))}
    with new_folder(folder) as root:
        for split, index in splits.items():
            paths = [index.paths[image] for image in range(len(index))]
            sizes = actual_sizes(index)  # the formats do not state them: it has to be the picture as it is shown
            for image, (name, stem) in enumerate(label_names(common_names(paths))):
                file = root / labels / split / f"{stem}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                lines = lines_of(index, index.rows(image), sizes[image])
                file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
                place_picture(paths[image], root / "images" / split / name, copy=copy)
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
        (root / DESCRIPTION).write_text(text, encoding="utf-8")


def stated_sizes(index: DatasetIndex) -> Sizes:
    """Return (N, 2) the sizes that the index states, and those in the pictures' files where it states none.

    Raises:
        ImageError: the size of a picture cannot be read.
    """
    unknown = np.flatnonzero((index.sizes == 0).any(axis=1))
    sizes = index.sizes.copy()
    sizes[unknown] = _read_sizes(index, unknown)
    return sizes


def actual_sizes(index: DatasetIndex) -> Sizes:
    """Return (N, 2) the sizes in the pictures' files, for a format whose annotations do not state them.

    Raises:
        DataError: a picture has another size than the index states.
        ImageError: the size of a picture cannot be read.
    """
    sizes = _read_sizes(index, np.arange(len(index)))
    wrong = np.flatnonzero((index.sizes > 0).all(axis=1) & (index.sizes != sizes).any(axis=1))
    if len(wrong):
        first = int(wrong[0])
        (width, height), (actual_width, actual_height) = index.sizes[first], sizes[first]
        raise DataError(
            f"the annotation says {width} x {height} pixels, the picture as it is shown has "
            f"{actual_width} x {actual_height}, and this format has no place to say so",
            where=index.paths[first],
            fix="Correct the annotation, or save the picture upright and without an EXIF orientation.",
        )
    return sizes


def _read_sizes(index: DatasetIndex, images: npt.NDArray[np.int64]) -> Sizes:
    sizes, errors = picture_sizes([index.paths[image] for image in images])
    if errors:
        raise errors[min(errors)]
    return sizes

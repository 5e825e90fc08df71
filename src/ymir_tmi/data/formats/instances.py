"""Objects as pictures of their pixels, in two common forms, each in a folder parallel to that of the pictures.

images/a.jpg     masks/a/1.png  masks/a/2.png     a picture for each object, whose pixels are not 0
images/a.jpg     masks/a/cell/1.png               the same, in a folder for each class
a/images/a.png   a/masks/1.png                    the same, where every picture has a folder of its own
images/a.jpg     instances/a.png                  one picture whose values are objects: 0 is none of them

A value of the last form is the number of an object; where one of the data set is 1000 or more, all are
class * 1000 + number, and values below 1000 are no objects (as Cityscapes has it).
"""

# A Path object for each of a million objects would be slow:
# ruff: noqa: PTH122

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.formats.reading import Reading, Rejections
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.pictures import FolderListings, is_picture
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.ragged import offsets
from ymir_tmi.imaging import read_numbers

MASK_FOLDERS = ("masks", "instances")
"""Names of the folder beside `images`: with a folder for each picture, and with a picture for each."""

_ONLY_CLASS = "object"
_CLASS_STEP = 1000


class ObjectFile(NamedTuple):
    """The picture of one object; its class is "" where the folders do not say it."""

    path: str
    class_name: str


MaskFiles = list[ObjectFile] | str
"""The pictures of each object, or the one of all."""


def find_masks(pictures: Sequence[str]) -> list[MaskFiles | None]:
    """Return the files with the objects of each picture, or None where there are none."""
    listings = FolderListings()
    return [_find(picture, listings) for picture in pictures]


def without_masks(pictures: Sequence[str], folder: str) -> list[str]:
    """Return the pictures of a folder but for those in one of `MASK_FOLDERS` inside it that stands beside `images`."""
    listings, depth = FolderListings(), len(folder.rstrip("/").split("/"))
    return [picture for picture in pictures if not _lies_in_masks(picture.split("/")[:-1], depth, listings)]


def read_masks(
    pictures: Sequence[str], found: Sequence[MaskFiles | None], class_names: Sequence[str] | None
) -> Reading:
    """Read masks; their boxes are the smallest around them.

    Pictures without masks have no objects. The classes are the names of the folders, or else `object`, or the only one
    of `class_names`. Where values stand for classes, these are places in `class_names`, or called by their numbers.

    Rejected are files that cannot be read or are of another size than others of the picture, and values that stand for
    no class.

    Args:
        pictures: N pictures.
        found: what `find_masks` found for each.
        class_names: K names.

    Raises:
        DataError: some pictures have a mask for each object, and others one for all.
    """
    joint = next((files for files in found if isinstance(files, str)), None)
    if joint is not None and any(isinstance(files, list) for files in found):
        raise DataError("some pictures have a mask for each object, and others one for all", where=joint)
    with ThreadPoolExecutor() as threads:
        objects = list(threads.map(_read, found))
    rejections = Rejections()
    for problem in (problem for one in objects for problem in one.problems):
        rejections.add(str(problem.where), None, problem.what)
    names, labels = _classes(objects, class_names)
    index = DatasetIndex(
        class_names=names,
        paths=Strings.pack(pictures),
        sizes=np.array([one.masks.size for one in objects], np.int32).reshape(-1, 2),
        image_ids=np.arange(len(pictures)),
        starts=offsets(np.array([len(one.masks) for one in objects], np.int64)),
        boxes=np.concatenate([one.masks.hulls() for one in objects]),
        labels=labels,
        areas=np.concatenate([one.masks.areas() for one in objects]).astype(np.float32),
        flags=np.zeros(len(labels), np.uint8),
        segments=Strings.pack(_segment(entry) for one in objects for entry in one.masks.entries()),
    )
    for row in np.flatnonzero(labels >= len(names)):
        image = int(np.searchsorted(index.starts, row, side="right")) - 1
        what = f"an object is of class {labels[row]}, but there are classes 0 to {len(names) - 1} only"
        rejections.add(str(found[image]), None, what)
    return Reading(index.keep_annotations((labels >= 0) & (labels < len(names))), False, rejections)


class _Objects(NamedTuple):
    """The objects of one picture.

    Attributes:
        masks: n masks; of size (0, 0) where there are none.
        class_names: of each, "" where the folders do not say it; None where values say it.
        values: of each, in a picture of all.
        problems: with files that cannot be used.
    """

    masks: Masks
    class_names: Sequence[str] | None = None
    values: Sequence[int] = ()
    problems: Sequence[ImageError] = ()


def _find(picture: str, listings: FolderListings) -> MaskFiles | None:
    folder, _, name = picture.rpartition("/")
    stem, parts = os.path.splitext(name)[0], folder.split("/")
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            each, joint = ("/".join([*parts[:place], other, *parts[place + 1 :]]) for other in MASK_FOLDERS)
            files = _objects_in(f"{each}/{stem}", listings)
            if not files and place == len(parts) - 1 and listings.picture(each, stem) is None:
                alone = sum(map(is_picture, listings.names(folder))) == 1
                files = _objects_in(each, listings) if alone else []
            return files or listings.picture(joint, stem)
    return None


def _objects_in(folder: str, listings: FolderListings) -> list[ObjectFile]:
    """Return the pictures in a folder, and in those inside it, which are classes."""
    names = sorted(listings.names(folder))
    files = [ObjectFile(f"{folder}/{name}", "") for name in names if is_picture(name)]
    for name in names:
        if not is_picture(name) and not name.startswith("."):
            inside = sorted(filter(is_picture, listings.names(f"{folder}/{name}")))
            files.extend(ObjectFile(f"{folder}/{name}/{file}", name) for file in inside)
    return files


def _lies_in_masks(folders: Sequence[str], depth: int, listings: FolderListings) -> bool:
    return any(
        folders[place] in MASK_FOLDERS and "images" in listings.names("/".join(folders[:place]))
        for place in range(depth, len(folders))
    )


def _read(found: MaskFiles | None) -> _Objects:
    if found is None:
        return _Objects(Masks((0, 0), ()))
    if not isinstance(found, str):
        return _read_each(found)
    try:
        return _read_joint(found)
    except ImageError as error:
        return _Objects(Masks((0, 0), ()), problems=[error])


def _read_each(files: Sequence[ObjectFile]) -> _Objects:
    masks: list[Masks] = []
    names: list[str] = []
    problems: list[ImageError] = []
    for file in files:
        try:
            mask = Masks.encode(read_numbers(file.path)[None] != 0)
            if masks and mask.size != masks[0].size:
                sizes = [f"{width} x {height}" for width, height in (mask.size, masks[0].size)]
                raise ImageError(f"this mask is {sizes[0]} pixels, others of its picture {sizes[1]}", where=file.path)
        except ImageError as error:
            problems.append(error)
        else:
            masks.append(mask)
            names.append(file.class_name)
    return _Objects(Masks.concatenate(masks) if masks else Masks((0, 0), ()), names, problems=problems)


def _read_joint(path: str) -> _Objects:
    """Read one picture of all objects: sorted by their values, the pixels of one stand together."""
    values = read_numbers(path)
    height, width = values.shape
    flat = values.ravel()
    places = np.argsort(flat, kind="stable")
    numbers, first = np.unique(flat[places], return_index=True)
    parts = np.split(places, first[1:])
    windows = [_window(part, width) for number, part in zip(numbers, parts, strict=True) if number]
    return _Objects(Masks.from_windows(windows, (width, height)), values=numbers[numbers != 0].tolist())


def _window(places: npt.NDArray[np.int64], width: int) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """Return x, y and bitmap of the smallest window around pixels of a picture, given by their places in it."""
    rows, columns = np.divmod(places, width)
    x, y = int(columns.min()), int(rows.min())
    bitmap = np.zeros((rows.max() - y + 1, columns.max() - x + 1), np.bool_)
    bitmap[rows - y, columns - x] = True
    return x, y, bitmap


def _classes(
    objects: Sequence[_Objects], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """Return the classes and the label of each object; -1 for what is no object, and K and more for no class."""
    values = [value for one in objects for value in one.values]
    only = class_names[0] if class_names is not None and len(class_names) == 1 else _ONLY_CLASS
    if max(values, default=0) >= _CLASS_STEP:
        labels = np.array(values, np.int32) // _CLASS_STEP
        names = [str(label) for label in range(labels.max() + 1)] if class_names is None else class_names
        return tuple(names), np.where(np.array(values) < _CLASS_STEP, -1, labels).astype(np.int32)
    called = [name or only for one in objects for name in one.class_names or [""] * len(one.values)]
    names = sorted(set(called))
    return tuple(names), np.array([names.index(name) for name in called], np.int32)


def _segment(entry: dict[str, object]) -> str:
    counts = entry["counts"]
    assert isinstance(counts, bytes)
    return json.dumps({"size": entry["size"], "counts": counts.decode()})

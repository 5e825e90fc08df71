"""One way in: files, folders, globs and descriptions of any known format become one `DatasetIndex`."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ymir_tmi.config.schema import Format
from ymir_tmi.data.classes import align_classes
from ymir_tmi.data.description import find_description, read_description
from ymir_tmi.data.formats.coco import read_coco
from ymir_tmi.data.formats.dota import LABEL_FOLDERS, find_dota_labels, read_dota
from ymir_tmi.data.formats.folder import read_list, read_pictures
from ymir_tmi.data.formats.instances import MASK_FOLDERS, find_masks, read_masks, without_masks
from ymir_tmi.data.formats.masks import cityscapes_splits, find_label_pictures, pictures_folder, read_label_pictures
from ymir_tmi.data.formats.reading import Reading
from ymir_tmi.data.formats.voc import picture_folders, read_voc, voc_files, voc_splits
from ymir_tmi.data.formats.ymir import read_ymir
from ymir_tmi.data.formats.ymir_folder import list_beside
from ymir_tmi.data.formats.yolo import find_labels, read_yolo
from ymir_tmi.data.index import DatasetIndex, concatenate
from ymir_tmi.data.pictures import PictureFinder, is_picture, list_pictures
from ymir_tmi.data.repair import repair_boxes
from ymir_tmi.data.rotated import of_one_kind
from ymir_tmi.errors import DataError
from ymir_tmi.imaging import IMAGE_SUFFIXES

_PARALLEL = {"images": ("labels", *LABEL_FOLDERS, *MASK_FOLDERS), "img_dir": ("ann_dir",)}
ANNOTATION_PLACES = (
    "YOLO labels lie in 'labels', DOTA labels in 'labelTxt', beside 'images', or beside each picture; label pictures "
    "in 'masks' beside 'images', masks of objects in folders there, or in 'instances'."
)


def read_dataset(
    sources: Sequence[str],
    *,
    split: str | None = None,
    images: Sequence[Path] = (),
    format: Format = "auto",
    class_names: Sequence[str] | None = None,
) -> DatasetIndex:
    """Read one split of a data set.

    Boxes are clipped to their pictures, and those without width or height are dropped (`data.repair`); any other fault
    of an annotation, and any missing picture, is an error.

    Args:
        sources: Files, folders and globs that together are the split: COCO files (.json), a data set description
            (.yaml, see `data.description`) or a folder that has one, as that of a task of YMIR does, lists of pictures
            (.txt), VOC folders or XML files, lists of YMIR (.tsv), pictures and folders of pictures with or without
            YOLO or DOTA labels, label pictures or masks. Where the boxes of one are rotated, all become rotated.
        split: Which split of a description, of a VOC folder with `ImageSets/Main` or of Cityscapes; other sources have
            no splits.
        images: Folders to look for pictures in, before those beside the annotation file.
        format: Kind of annotations; "auto" looks at the files, "images" reads pictures without annotations.
        class_names: The classes in the order of their labels. Needed where the files do not name them (YOLO); where
            they do it sets the order and adds classes without objects.

    Raises:
        DataError: a file is missing or wrong, an annotation cannot be understood, a picture is missing, there are no
            pictures at all, or files have different classes.
        ConfigError: a data set description is wrong or has no such split.
    """
    readings = read_sources(sources, split=split, images=images, format=format, class_names=class_names)
    for source, reading in readings:
        reading.require_sound(source)
    return repair_boxes(merge_readings([reading for _, reading in readings]))


def list_splits(sources: Sequence[str], format: Format = "auto") -> dict[str, list[str]]:
    """Return the splits of a description, a VOC folder or Cityscapes by name, or one split `data` that is everything.

    Each value goes to `read_dataset` as `sources`, with its key as `split` and the same `format`.
    """
    if len(sources) == 1:
        (source,) = sources
        described = find_description(source, format)
        if described is not None:
            return {name: [source] for name in read_description(described).splits}
        names = voc_splits(Path(source)) or cityscapes_splits(Path(source))
        if names:
            return {name: [source] for name in names}
    return {"data": list(sources)}


def split_of(source: Path, split: str) -> Path:
    """Return what holds a split of a data set that one file stands for: the file, but of a list of YMIR the other list.

    Raises:
        DataError: there is no such list.
    """
    if source.suffix.lower() != ".tsv":
        return source
    other = list_beside(source, split)
    if other is None:
        raise DataError(
            f"this is one list of pictures, and there is no list to {split} on beside it",
            where=source,
            fix="Give --train and --val.",
        )
    return other


def _natural(name: str) -> tuple[int, str]:
    """Sort numbers, which stand for classes without names, by value and before all other names."""
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


class _Source(NamedTuple):
    """Something to read, with what is known about it."""

    paths: list[Path]  # several only if they are pictures
    images: tuple[Path, ...]
    format: Format
    class_names: Sequence[str] | None


def read_sources(
    sources: Sequence[str],
    *,
    split: str | None,
    images: Sequence[Path],
    format: Format,
    class_names: Sequence[str] | None,
) -> list[tuple[str, Reading]]:
    """Read each of several sources as it is; see `read_dataset`. Returns what was read and what came of it."""
    found: list[_Source] = []
    for described, names in groupby(sources, key=lambda name: find_description(name, format)):
        if described is not None:
            for name in names:
                found.extend(_described(name, described, split, images, format, class_names))
        else:
            found.extend(_expand(list(names), images, format, class_names))
    return [(str(source.paths[0]), _read_classes(source, split)) for source in found]


def merge_readings(readings: Sequence[Reading]) -> DatasetIndex:
    """Return one index over several readings.

    The classes are those that a source declares, or else those of all objects, sorted.

    Raises:
        DataError: there are no pictures, or the sources have different classes.
    """
    indexes = [reading.index for reading in readings]
    if not any(map(len, indexes)):
        raise DataError("there are no pictures in this split")
    declared = {reading.index.class_names for reading in readings if reading.declares_classes} - {()}
    if len(declared) > 1:
        first, second, *_ = sorted(declared)
        raise DataError(
            f"the files of one split have different classes: {', '.join(first)}; and {', '.join(second)}",
            fix="Give them one list of classes: 'names' in a data set description, or the same categories.",
        )
    gathered = {name for index in indexes for name in index.class_names}
    class_names = declared.pop() if declared else sorted(gathered, key=_natural)
    return concatenate([align_classes(index, class_names) for index in of_one_kind(indexes)])


def _described(
    source: str,
    path: Path,
    split: str | None,
    images: Sequence[Path],
    format: Format,
    class_names: Sequence[str] | None,
) -> list[_Source]:
    """Return the sources of a split of a description; what the caller says goes before what it says.

    A folder whose description has one split stands for this one, whichever is asked for: other folders have none.
    """
    description = read_description(path)
    whole = Path(source).is_dir() and len(description.splits) == 1
    return _expand(
        description.split(None if whole else split),
        (*images, *description.images),
        description.format if format == "auto" else format,
        description.names if class_names is None else class_names,
    )


def _expand(
    names: Sequence[str], images: Sequence[Path], format: Format, class_names: Sequence[str] | None
) -> list[_Source]:
    """Return one source for each file and folder; neighbouring pictures are one together."""
    paths = [path for name in names for path in _matches(name)]
    sources = []
    for single, group in groupby(paths, key=lambda path: is_picture(path.name) and not path.is_dir()):
        members = list(group)
        for chunk in [members] if single else [[path] for path in members]:
            sources.append(_Source(chunk, tuple(images), format, class_names))
    return sources


def parallel_folder(picture: str) -> Path | None:
    """Return a folder in which annotations of the pictures beside this one would lie, if it exists."""
    *parts, _ = Path(picture).parts
    for place in range(len(parts) - 1, -1, -1):
        for name in _PARALLEL.get(parts[place], ()):
            folder = Path(*parts[:place], name, *parts[place + 1 :])
            if folder.is_dir():
                return folder
    return None


def _matches(name: str) -> list[Path]:
    """Return the file or folder called `name`, or else those that match it as a glob, sorted."""
    if Path(name).exists():
        return [Path(name)]
    matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []  # noqa: PTH207, any folder
    if not matches:
        kind = "nothing matches this" if glob.has_magic(name) else "there is no such file or folder"
        raise DataError(kind, where=name, fix=_similar(Path(name)))
    return [Path(match) for match in matches]


def _similar(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    beside = [other.name for other in path.parent.iterdir() if not is_picture(other.name)]
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"Did you mean '{path.parent / near[0]}'?" if near else None


def _read_classes(source: _Source, split: str | None) -> Reading:
    """Read a source and bring its classes into the order that is asked for."""
    reading = _read(source, split)
    if source.class_names is None:
        return reading
    index = align_classes(reading.index, source.class_names, where=source.paths[0])
    return dataclasses.replace(reading, index=index, declares_classes=True)


def _read(source: _Source, split: str | None) -> Reading:
    path = source.paths[0]
    kind = "folder" if path.is_dir() else "picture" if is_picture(path.name) else path.suffix.lower()
    if kind == "folder":
        return _read_folder(source, split)
    if kind == "picture":
        return _read_pictures([str(path) for path in source.paths], source)
    beside = PictureFinder([*source.images, path.parent, path.parent / "images", path.parent.parent / "images"])
    if kind == ".json" and source.format in ("auto", "coco"):
        return read_coco(path, beside)
    if kind == ".xml" and source.format in ("auto", "voc"):
        return read_voc([path], PictureFinder([*source.images, *picture_folders(path.parent)]))
    if source.format == "ymir" or (kind == ".tsv" and source.format == "auto"):
        return read_ymir(path, beside, source.class_names)
    if kind == ".txt" and source.format in ("auto", "yolo", "dota", "masks", "instances", "images"):
        # A list is often made by a command that was run somewhere else than where the list is.
        finder = PictureFinder([*beside.folders, "."])
        reading = _read_pictures(read_list(path, finder), source)
        return dataclasses.replace(reading, missing=finder.missing, looked_in=finder.folders)
    raise DataError(
        "it is not clear how to read this file" + (f" as {source.format}" if source.format != "auto" else ""),
        where=path,
        fix="Known are COCO files (.json), descriptions (.yaml), lists of pictures (.txt), VOC files (.xml), lists of "
        "YMIR (.tsv), pictures and folders.",
    )


def _read_folder(source: _Source, split: str | None) -> Reading:
    folder = source.paths[0]
    files = voc_files(folder, split) if source.format in ("auto", "voc") else []
    if files:
        return read_voc(files, PictureFinder([*source.images, *picture_folders(files[0].parent)]))
    lacking = {
        "voc": "VOC annotations (.xml)",
        "coco": "COCO file: name the .json file itself",
        "ymir": "list of YMIR: name the .tsv file itself",
    }
    if source.format in lacking:
        raise DataError(f"this folder has no {lacking[source.format]}", where=folder)
    has_parts = (folder / "images").is_dir() and any((folder / name).is_dir() for name in _PARALLEL["images"])
    part = folder / "images" if has_parts else pictures_folder(folder, split)
    pictures = without_masks(list_pictures(folder), str(folder)) if part is None else list_pictures(part)
    if not pictures:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"there are no pictures ({known}) in this folder", where=folder)
    return _read_pictures(pictures, source)


def _read_pictures(pictures: Sequence[str], source: _Source) -> Reading:
    """Read pictures with the labels, label pictures or masks that some of them have, or without any annotations."""
    if source.format in ("auto", "yolo") and any(labels := find_labels(pictures)):
        return read_yolo(pictures, labels, source.class_names)
    if source.format in ("auto", "dota") and any(labels := find_dota_labels(pictures)):
        return read_dota(pictures, labels)
    if source.format in ("auto", "masks") and (found := find_label_pictures(pictures)):
        return read_label_pictures(pictures, found, source.class_names)
    if source.format in ("auto", "instances") and any(masks := find_masks(pictures)):
        return read_masks(pictures, masks, source.class_names)
    if source.format in ("auto", "images"):
        return read_pictures(pictures)
    raise DataError(
        f"there are no annotations in the format {source.format} for these pictures",
        where=source.paths[0],
        fix=ANNOTATION_PLACES,
    )

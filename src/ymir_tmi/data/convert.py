"""From any format that can be read to any that can be written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ymir_tmi.config.schema import Blank, Format, Target
from ymir_tmi.data.classes import ClassSelection, align_classes
from ymir_tmi.data.description import DESCRIPTION
from ymir_tmi.data.formats.coco import write_coco
from ymir_tmi.data.formats.dota import write_dota
from ymir_tmi.data.formats.masks import write_masks
from ymir_tmi.data.formats.voc import write_voc
from ymir_tmi.data.formats.writing import new_folder
from ymir_tmi.data.formats.yolo import write_yolo, write_yolo_seg
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.instances import as_instances
from ymir_tmi.data.pictures import common_names, place_picture
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.data.rotated import as_rotated, of_one_kind
from ymir_tmi.data.semantics import as_annotations, count_labels, semantic_splits
from ymir_tmi.errors import DataError, counted
from ymir_tmi.files.atomic import write_text

_LOST_POLYGONS = "Polygons are left out, and upright boxes written; --rotated makes rotated boxes of the polygons."
_MERGED_OBJECTS = "Label pictures say only which class a pixel has: the objects of one class in a picture are merged."


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        output: the folder.
        class_names: the classes.
        splits: the numbers of images and objects of each split.
        notes: what the user must know, in sentences.
    """

    output: Path
    class_names: tuple[str, ...]
    splits: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        counts = {name: {"images": images, "objects": objects} for name, (images, objects) in self.splits.items()}
        told = {"output": str(self.output), "class_names": list(self.class_names), "splits": counts}
        return {**told, "notes": list(self.notes)}

    def to_text(self) -> str:
        """Return a line for each split."""
        lines = [
            f"{name}: {counted(images, 'image', 'images')}, {counted(objects, 'object', 'objects')}"
            for name, (images, objects) in self.splits.items()
        ]
        return "\n".join([f"wrote {self.output}", *lines, *self.notes])


def convert(
    sources: Sequence[str],
    *,
    to: Target,
    output: Path,
    split: str | None = None,
    images: Sequence[Path] = (),
    format: Format = "auto",
    classes: Sequence[str] = (),
    rotated: bool = False,
    blank: Blank = "background",
    copy: bool = False,
) -> Conversion:
    """Write a data set in another format, pictures included, as a folder that stands by itself.

    The annotations are those that `read_dataset` gives. COCO gets a file for each split beside `images/SPLIT`, and a
    data.yaml that names them; see `write_voc`, `write_yolo`, `write_yolo_seg`, `write_dota` and `write_masks` for the
    others, and for what a format cannot keep. Rotated boxes stay rotated in those of boxes. Label pictures become one
    annotation for each class and picture in COCO; the formats of boxes and of objects have no place for them.

    Args:
        sources: As for `read_dataset`.
        to: The format.
        output: The folder; it must not exist, or be empty.
        split: The only split to convert; by default all.
        images: Folders to look for pictures in.
        format: The format of the sources.
        classes: Classes to keep, as `ClassSelection.parse` takes them; by default all.
        rotated: Whether polygons and upright boxes become rotated boxes; for DOTA they do in any case.
        blank: What pixels that no annotation covers are, for masks; see `semantic_splits`.
        copy: Whether pictures are copied, or linked to.

    Raises:
        DataError: the data set cannot be read or written, or the output exists.
        ConfigError: a description or a class is wrong.
    """
    splits = read_splits(sources, split=split, images=images, format=format, classes=classes)
    return write_data_set(splits, to=to, output=output, rotated=rotated, blank=blank, copy=copy)


def read_splits(
    sources: Sequence[str],
    *,
    split: str | None = None,
    images: Sequence[Path] = (),
    format: Format = "auto",
    classes: Sequence[str] = (),
) -> dict[str, DatasetIndex]:
    """Read every split of a data set, or one, with the same classes and category ids; see `convert`."""
    chosen = list_splits(sources, format) if split is None else {split: list(sources)}
    selection = ClassSelection.parse(classes)
    splits = {
        name: selection.apply(read_dataset(members, split=name, images=images, format=format))
        for name, members in chosen.items()
    }
    return _with_same_classes(splits)


def write_data_set(
    splits: Mapping[str, DatasetIndex],
    *,
    to: Target,
    output: Path,
    rotated: bool = False,
    blank: Blank = "background",
    copy: bool = False,
) -> Conversion:
    """Write splits of one data set, which have the same classes, as `convert` does.

    Raises:
        DataError: something cannot be written, or the output exists.
    """
    writers = {
        "coco": _write_coco_folder,
        "voc": write_voc,
        "yolo": write_yolo,
        "yolo-seg": write_yolo_seg,
        "dota": write_dota,
        "masks": write_masks,
    }
    if to == "masks":
        splits = semantic_splits(splits, blank=blank)
    else:
        splits = with_one_kind_of_boxes(_without_label_pictures(splits, to), rotated=rotated or to == "dota")
    if to == "yolo-seg":
        splits = {name: as_instances(index) for name, index in splits.items()}
    writers[to](splits, output, copy=copy)
    counts = {name: (len(index), _objects(index)) for name, index in splits.items()}
    return Conversion(output, next(iter(splits.values())).class_names, counts, tuple(_lost(splits, to)))


def _lost(splits: Mapping[str, DatasetIndex], to: str) -> Iterator[str]:
    """Yield what a user must know that the format cannot hold."""
    if to in ("voc", "yolo", "dota") and any(index.segments is not None for index in splits.values()):
        yield _LOST_POLYGONS
    if to == "masks" and any(map(_merges_objects, splits.values())):
        yield _MERGED_OBJECTS


def _merges_objects(index: DatasetIndex) -> bool:
    """Return whether some picture has several annotations of one class."""
    places = index.image_of_box() * index.num_classes + index.labels
    return len(np.unique(places)) < len(places)


def _objects(index: DatasetIndex) -> int:
    """Return the number of annotations, or of the classes in each label picture."""
    return len(index.boxes) if index.label_maps is None else int((count_labels(index).pixels > 0).sum())


def with_one_kind_of_boxes(splits: Mapping[str, DatasetIndex], *, rotated: bool) -> dict[str, DatasetIndex]:
    """Return splits that all have rotated boxes, where it is asked for or one of them has; else all are upright."""
    indexes = [as_rotated(index) for index in splits.values()] if rotated else splits.values()
    return dict(zip(splits, of_one_kind(indexes), strict=True))


def _without_label_pictures(splits: Mapping[str, DatasetIndex], to: Target) -> dict[str, DatasetIndex]:
    if to != "coco" and any(index.label_maps is not None for index in splits.values()):
        raise DataError(f"{to} has no place for the class of every pixel", fix="Write masks or coco.")
    return {name: as_annotations(index) for name, index in splits.items()}


def _with_same_classes(splits: Mapping[str, DatasetIndex]) -> dict[str, DatasetIndex]:
    """Give every split the classes of all, with the same category ids."""
    names = list(dict.fromkeys(name for index in splits.values() for name in index.class_names))
    aligned = {split: align_classes(index, names) for split, index in splits.items()}
    ids = next(iter(aligned.values())).category_ids
    return {split: dataclasses.replace(index, category_ids=ids) for split, index in aligned.items()}


def _write_coco_folder(splits: Mapping[str, DatasetIndex], output: Path, *, copy: bool = False) -> None:
    with new_folder(output) as root:
        for split, index in splits.items():
            paths = [index.paths[image] for image in range(len(index))]
            names = [f"{split}/{name}" for name in common_names(paths)]
            for path, name in zip(paths, names, strict=True):
                place_picture(path, root / "images" / name, copy=copy)
            write_coco(index, root / f"{split}.json", file_names=names)
        write_text(root / DESCRIPTION, yaml.safe_dump({split: f"{split}.json" for split in splits}, sort_keys=False))

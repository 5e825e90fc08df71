"""Label pictures: for every picture a PNG whose values say which class each pixel has.

images/a.jpg                        masks/a.png                         value k is class k; also img_dir/ and ann_dir/
leftImg8bit/x/x_1_leftImg8bit.png   gtFine/x/x_1_gtFine_labelIds.png    Cityscapes, also with _labelTrainIds.png

The value 255 stands for pixels that do not count. https://www.cityscapes-dataset.com says what Cityscapes' ids are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from ymir_tmi.data.description import DESCRIPTION
from ymir_tmi.data.formats.folder import read_pictures
from ymir_tmi.data.formats.reading import Reading, Rejections
from ymir_tmi.data.formats.writing import label_names, new_folder, stated_sizes
from ymir_tmi.data.index import IGNORED, NO_CLASS, DatasetIndex, Strings
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.pictures import FolderListings, common_names, picture_sizes, place_picture
from ymir_tmi.data.semantics import read_label_map
from ymir_tmi.errors import ImageError
from ymir_tmi.files.atomic import write_text
from ymir_tmi.imaging import read_values, write_values

# The 19 classes that are trained, in the order of their train ids, by the ids of labelIds.
_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_CITYSCAPES_IDS = 34

Table = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """Where the label picture of a picture is.

    Attributes:
        pictures: name of a folder on the way to the pictures.
        masks: name of the folder beside it.
        picture_end: how the names of pictures end, without their suffix.
        mask_end: how the names of label pictures end instead.
        values: the labels that their values stand for, where the layout says it.
    """

    pictures: str
    masks: str
    picture_end: str = ""
    mask_end: str = ".png"
    values: Table | None = None

    def find(self, picture: str, listings: FolderListings) -> str | None:
        """Return the label picture of a picture, or None where there is none."""
        folder, _, name = picture.rpartition("/")
        parts = folder.split("/")
        stem = os.path.splitext(name)[0].removesuffix(self.picture_end)  # noqa: PTH122, once for each picture
        for place in range(len(parts) - 1, -1, -1):
            if parts[place] == self.pictures:
                masks = "/".join([*parts[:place], self.masks, *parts[place + 1 :]])
                return f"{masks}/{stem}{self.mask_end}" if f"{stem}{self.mask_end}" in listings.names(masks) else None
        return None


def _table(labels: Mapping[int, int]) -> Table:
    """Return what each of 256 values stands for."""
    table = np.full(256, NO_CLASS, np.uint8)
    for value, label in {IGNORED: IGNORED, **labels}.items():
        table[value] = label
    return table


def _cityscapes(end: str, values: Table) -> Layout:
    return Layout("leftImg8bit", "gtFine", "_leftImg8bit", f"_gtFine_{end}.png", values)


LAYOUTS = (
    Layout("images", "masks"),
    Layout("img_dir", "ann_dir"),
    _cityscapes(
        "labelIds",
        _table(dict.fromkeys(range(_CITYSCAPES_IDS), IGNORED) | {key: n for n, key in enumerate(_CITYSCAPES)}),
    ),
    _cityscapes("labelTrainIds", _table({label: label for label in range(len(_CITYSCAPES))})),
)


@dataclass(frozen=True)
class LabelPictures:
    """The label pictures of N pictures.

    Attributes:
        layout: where they are.
        paths: N files, None where a picture has none.
    """

    layout: Layout
    paths: Sequence[str | None]


def find_label_pictures(pictures: Sequence[str]) -> LabelPictures | None:
    """Return the label pictures in the first layout in which any picture has one, or None."""
    listings = FolderListings()
    for layout in LAYOUTS:
        paths = [layout.find(picture, listings) for picture in pictures]
        if any(paths):
            return LabelPictures(layout, paths)
    return None


def pictures_folder(folder: Path, split: str | None) -> Path | None:
    """Return where the pictures of a whole data set are, of Cityscapes those of a split; None for other folders."""
    for layout in LAYOUTS:
        if (folder / layout.pictures).is_dir() and (folder / layout.masks).is_dir():
            pictures = folder / layout.pictures
            of_split = pictures / split if split and layout.values is not None else pictures
            return of_split if of_split.is_dir() else pictures
    return None


def cityscapes_splits(folder: Path) -> list[str]:
    """Return the splits of a folder with `leftImg8bit` and `gtFine`; none for other folders."""
    return [
        split
        for split in ("train", "val", "test")
        if all((folder / part / split).is_dir() for part in ("leftImg8bit", "gtFine"))
    ]


def read_label_pictures(pictures: Sequence[str], found: LabelPictures, class_names: Sequence[str] | None) -> Reading:
    """Return an index of pictures with label pictures, whose sizes are read from their headers.

    The classes are those of a `classes.txt` in a folder of the label pictures or beside the uppermost one, or else
    `class_names`, or else are called by the values that occur. Cityscapes has its own 19.

    Rejected are pictures without a label picture, and label pictures whose size cannot be read.
    """
    rejections = Rejections()
    present = [row for row, path in enumerate(found.paths) if path]
    for row in sorted(set(range(len(pictures))) - set(present)):
        rejections.add(pictures[row], None, f"it has no label picture in '{found.layout.masks}'")
    masks = [found.paths[row] or "" for row in present]
    sizes = np.zeros((len(pictures), 2), np.int32)
    sizes[present], errors = picture_sizes(masks)
    for row, error in errors.items():
        rejections.add(masks[row], None, error.what)
    names, table, declared = _classes(found.layout, masks, class_names)
    index = dataclasses.replace(
        read_pictures(pictures).index,
        class_names=names,
        category_ids=(),  # numbers them
        sizes=sizes,
        label_maps=Strings.pack(path or "" for path in found.paths),
        label_of_value=table,
    )
    return Reading(index, declared, rejections)


def write_masks(splits: Mapping[str, DatasetIndex], folder: Path, *, copy: bool = False) -> None:
    """Write `images/SPLIT`, `masks/SPLIT` with a palette, `classes.txt`, and `data.yaml` with the splits.

    Args:
        splits: an index for each split, all with the same classes, that has label maps (`data.semantics`).
        folder: where to; it must not exist, or be empty.
        copy: whether pictures are copied, or linked to.

    Raises:
        DataError: the folder exists, or a picture occurs twice in a split.
        ImageError: a label map cannot be made.
    """
    names = next(iter(splits.values())).class_names
    with new_folder(folder) as root:
        for split, index in splits.items():
            paths = [index.paths[row] for row in range(len(index))]
            sizes = stated_sizes(index).tolist()
            for row, (name, stem) in enumerate(label_names(common_names(paths))):
                file = root / "masks" / split / f"{stem}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_values(file, read_label_map(index, row, tuple(sizes[row])), class_colours(256))
                place_picture(paths[row], root / "images" / split / name, copy=copy)
        write_text(root / "classes.txt", "".join(f"{name}\n" for name in names))
        description = {**{split: f"images/{split}" for split in splits}, "format": "masks"}
        write_text(root / DESCRIPTION, yaml.safe_dump(description, sort_keys=False, allow_unicode=True))


def _classes(
    layout: Layout, masks: Sequence[str], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], Table, bool]:
    """Return names, what values stand for, and whether the names are given."""
    if layout.values is not None:
        return tuple(_CITYSCAPES.values()), layout.values, True
    names = _listed_classes(layout, masks[0]) or class_names
    declared = names is not None
    if names is None:
        names = [str(value) for value in range(_highest_value(masks) + 1)]
    return tuple(names), _table({label: label for label in range(min(len(names), NO_CLASS))}), declared


def _listed_classes(layout: Layout, mask: str) -> list[str] | None:
    """Return the lines of `classes.txt` in the folder of a label picture, or one above, up to that of the layout."""
    for folder in Path(mask).parents:
        for place in (folder, folder.parent) if folder.name == layout.masks else (folder,):
            file = place / "classes.txt"
            if file.is_file():
                return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if folder.name == layout.masks:
            break
    return None


def _highest_value(masks: Sequence[str]) -> int:
    """Return the highest value that stands for a class; label pictures that cannot be read have none."""

    def highest(path: str) -> int:
        try:
            values = read_values(path)
        except ImageError:
            return -1
        classes = values[values < NO_CLASS]
        return int(classes.max()) if classes.size else -1

    with ThreadPoolExecutor() as pool:
        return max(pool.map(highest, masks), default=-1)

"""A data set of large pictures, cut into patches to train on.

Source: docs/specs/rotated.md, section "Training recipe" (DOTA patches).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ymir_tmi.data.convert import Conversion, with_one_kind_of_boxes
from ymir_tmi.data.description import DESCRIPTION
from ymir_tmi.data.formats.coco import write_coco
from ymir_tmi.data.formats.writing import Sizes, label_names, new_folder, stated_sizes
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.pictures import common_names
from ymir_tmi.data.threads import Threads
from ymir_tmi.data.tiles import Objects, Tiling, Window, objects_in
from ymir_tmi.errors import DataError
from ymir_tmi.files.atomic import write_text
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.geometry.ragged import offsets
from ymir_tmi.imaging import Image, read_image, write_image

_FILL = (124, 116, 104)  # the mean colour of ImageNet
_MOST_THREADS = 16


@dataclass(frozen=True)
class _Patch:
    """A window that becomes a picture.

    Attributes:
        window: of the image.
        name: of its picture, with "/" between folders.
        size: (width, height) of its picture.
        objects: that it shows.
    """

    window: Window
    name: str
    size: tuple[int, int]
    objects: Objects


@dataclass(frozen=True)
class _Plan:
    """How a split is cut.

    Attributes:
        index: the split.
        sizes: (N, 2) width and height of its images.
        patches: of each image.
    """

    index: DatasetIndex
    sizes: Sizes
    patches: list[list[_Patch]]

    @property
    def all_patches(self) -> list[_Patch]:
        return [patch for patches in self.patches for patch in patches]


def cut_data_set(
    splits: Mapping[str, DatasetIndex],
    tilings: Sequence[Tiling],
    *,
    output: Path,
    rotated: bool = False,
    pad: bool = True,
    keep_empty: bool = True,
    jpeg_quality: int | None = None,
    quiet: bool = False,
) -> Conversion:
    """Write a folder of patches with a COCO file for each split, the pictures in `images/SPLIT`, and a data.yaml.

    A patch is called `IMAGE__SIZE__X___Y` by the upper left corner of its window. `tiles.objects_in` says which objects
    it has. Rotated boxes become polygons of four points.

    Patches that are mostly padding, which DOTA's devkit drops where an image has better ones, do not occur: windows lie
    inside the image, so all of one size show the same share of it.

    Args:
        splits: of one data set, with the same classes.
        tilings: windows, one or several scales; those of one size are cut once.
        output: the folder; it must not exist, or be empty.
        rotated: whether polygons and upright boxes become rotated boxes.
        pad: fill patches of images that are smaller than a window, right and below, up to its size.
        keep_empty: keep patches without objects, or with difficult ones only.
        jpeg_quality: 1 to 100 writes JPEG; None writes PNG.
        quiet: shows no progress.

    Raises:
        DataError: the output exists, two pictures of a split differ in their suffix alone, no patch is left of a
            split, or there are label pictures.
        ImageError: a picture cannot be read.
    """
    if any(index.label_maps is not None for index in splits.values()):
        raise DataError("label pictures cannot be cut into patches")
    splits = with_one_kind_of_boxes(splits, rotated=rotated)
    tilings = list({tiling.size: tiling for tiling in tilings}.values())
    suffix = ".png" if jpeg_quality is None else ".jpg"
    plans = {name: _plan(index, tilings, suffix, pad=pad, keep_empty=keep_empty) for name, index in splits.items()}
    total = sum(map(len, splits.values()))
    with new_folder(output) as root, ProgressReporter("tile", total, quiet=quiet) as progress:
        for split, plan in plans.items():
            _write_pictures(plan, root / "images" / split, jpeg_quality or 0, progress)
            names = [f"{split}/{patch.name}" for patch in plan.all_patches]
            write_coco(_as_index(plan, names), root / f"{split}.json", file_names=names)
        write_text(root / DESCRIPTION, yaml.safe_dump({split: f"{split}.json" for split in plans}, sort_keys=False))
    counts = {split: _counts(plan) for split, plan in plans.items()}
    return Conversion(output, next(iter(splits.values())).class_names, counts)


def _plan(index: DatasetIndex, tilings: Sequence[Tiling], suffix: str, *, pad: bool, keep_empty: bool) -> _Plan:
    sizes = stated_sizes(index)
    names = label_names(common_names([index.paths[image] for image in range(len(index))]))
    patches = []
    for image, (_, stem) in enumerate(names):
        of_image = [
            _Patch(
                window,
                f"{stem}__{tiling.size}__{window.x}___{window.y}{suffix}",
                size,
                objects_in(index, image, window, size),
            )
            for tiling in tilings
            for window in tiling.windows(*sizes[image].tolist())
            for size in [(tiling.size, tiling.size) if pad else (window.width, window.height)]
        ]
        patches.append([patch for patch in of_image if keep_empty or np.any(patch.objects.flags == 0)])
    if not any(patches):
        raise DataError(
            "no part of these pictures has an object, so nothing is left",
            where=index.paths[0],
            fix="Keep empty patches (--empty), or choose other classes.",
        )
    return _Plan(index, sizes, patches)


def _write_pictures(plan: _Plan, folder: Path, jpeg_quality: int, progress: ProgressReporter) -> None:
    """Write the pictures of all patches; every thread holds one image at a time."""
    index = plan.index

    def cut(image: int) -> None:
        if plan.patches[image]:
            pixels = read_image(index.paths[image], annotated_size=index.size(image))
            for patch in plan.patches[image]:
                write_image(folder / patch.name, _cut(pixels, patch), jpeg_quality=jpeg_quality)

    def weigh(image: int) -> int:
        return math.prod(plan.sizes[image].tolist())

    with Threads(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for _ in threads.map(cut, range(len(index)), weigh=weigh):
            progress.advance()


def _cut(pixels: Image, patch: _Patch) -> Image:
    x, y, width, height = patch.window
    shown = pixels[y : y + height, x : x + width]
    if patch.size == (width, height):
        return shown
    canvas = np.full((patch.size[1], patch.size[0], 3), _FILL, np.uint8)
    canvas[:height, :width] = shown
    return canvas


def _as_index(plan: _Plan, names: Sequence[str]) -> DatasetIndex:
    """Return the patches as a data set."""
    index, patches = plan.index, plan.all_patches
    objects = [patch.objects for patch in patches]
    rotated = None if index.rotated is None else np.concatenate([part.rotated for part in objects])
    segments = [part.segments for part in objects if part.segments is not None]
    return DatasetIndex(
        class_names=index.class_names,
        paths=Strings.pack(names),
        sizes=np.array([patch.size for patch in patches], np.int32).reshape(-1, 2),
        image_ids=np.arange(len(patches)),
        starts=offsets(np.array([len(patch.objects.labels) for patch in patches], np.int64)),
        boxes=np.concatenate([part.boxes for part in objects]),
        labels=np.concatenate([part.labels for part in objects]),
        areas=np.concatenate([part.areas for part in objects]),
        flags=np.concatenate([part.flags for part in objects]),
        rotated=rotated,
        segments=Strings.concatenate(segments) if segments else None,
        category_ids=index.category_ids,
    )


def _counts(plan: _Plan) -> tuple[int, int]:
    patches = plan.all_patches
    return len(patches), sum(len(patch.objects.labels) for patch in patches)

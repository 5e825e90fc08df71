"""From a row of the index to a training sample: read, augment, and what to do where that fails."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.colours import degrade, distort, jitter_hsv, scale_hsv
from ymir_tmi.data.copy_paste import copy_paste
from ymir_tmi.data.crops import crop_by_overlap, expand
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.mosaic import SampleCache, mixup_average, mixup_beta, mosaic, mosaic_of_nine
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.segments import OutlineReader
from ymir_tmi.data.shapes import batch_sizes, fit_shorter_side, pad_together
from ymir_tmi.data.transforms import (
    Range,
    clip_to_picture,
    drop_small_boxes,
    fit,
    flip_horizontal,
    flip_vertical,
    letterbox_square,
    pad,
    random_affine,
    random_resize_crop,
    resize,
    turn,
)
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.imaging import Image, Interpolation

# With at most a tenth of the images unreadable, as many failures in a row do not happen by chance.
_READ_ATTEMPTS = 10
_AUGMENT_ATTEMPTS = 10


def read_sample(index: DatasetIndex, row: int, *, masks: OutlineReader | None = None) -> Sample:
    """Read one picture and the objects to learn from it: neither crowds nor those marked as difficult.

    Args:
        index: the data set.
        row: which image.
        masks: reads the outlines of the objects, where these are wanted; every object then has one (`data.instances`).

    Raises:
        ImageError: the picture cannot be read, or a mask is of another size.
    """
    rows = index.rows(row)
    boxes = index.boxes[rows] if index.rotated is None else outlines(index.rotated[rows]).astype(np.float32)
    image = imaging.read_image(index.paths[row], annotated_size=index.size(row))
    sample = Sample(image, boxes, index.labels[rows].astype(np.int64))
    if masks is not None:
        try:
            sample = dataclasses.replace(sample, outlines=masks.read(row, sample.size))
        except DataError as error:  # only where the annotation does not state the picture's size
            raise ImageError(error.what, where=error.where) from error
    return clip_to_picture(sample.keep(index.flags[rows] == 0))


def read_or_another(
    read: Callable[[DatasetIndex, int], Sample],
    index: DatasetIndex,
    row: int,
    rng: np.random.Generator,
    failed: dict[str, str],
) -> Sample:
    """Read an image, or another one where that fails.

    Args:
        read: Reads a row of the index.
        index: The images.
        row: The image.
        rng: Chooses the others.
        failed: Is told what was wrong with each picture that could not be read, by its path.

    Raises:
        ImageError: many pictures in a row cannot be read.
    """
    for _ in range(_READ_ATTEMPTS):
        path = index.paths[row]
        try:
            return read(index, row)
        except ImageError as error:
            failed[path] = str(error)
            row = int(rng.integers(len(index)))
    raise ImageError(
        f"{_READ_ATTEMPTS} training images in a row cannot be read; the last problem: {failed[path]}",
        fix="Check that the pictures are where the annotations say, and that they are whole.",
    )


class Augmenter:
    """Makes training samples by a recipe (docs/specs/detectors.md, section 13).

    What a recipe never does draws no random numbers: a new kind of augmentation leaves all other samples as they were.
    What a call returns depends on its arguments and, where the recipe has caches, on the calls since the last
    `empty_caches`.

    Args:
        index: the training images.
        recipe: what is done to them.
        spec: what the network sees.
        masks: whether samples have outlines.

    Attributes:
        failed: what was wrong with each picture that could not be read, by its path.
    """

    def __init__(self, index: DatasetIndex, recipe: AugmentRecipe, spec: InputSpec, *, masks: bool = False) -> None:
        self._index = index
        self._masks = OutlineReader(index) if masks else None
        self._recipe = recipe
        self._spec = spec
        self._size = spec.size
        names = index.class_names
        self._right_angled = [names.index(name) for name in recipe.right_angle_classes if name in names]
        self.failed: dict[str, str] = {}
        self.empty_caches()

    def empty_caches(self) -> None:
        """Forget the pictures that mosaic and mixup could draw from."""
        self._tiles = SampleCache(self._recipe.mosaic_cache, self._recipe.cache_eviction)
        self._mixable = SampleCache(self._recipe.mixup_cache, self._recipe.cache_eviction)

    def sample(self, row: int, phase: Phase, rng: np.random.Generator) -> Sample:
        """Return a sample made of one image: square, but for `expand_crop` and `shorter_side`.

        An image that cannot be read is replaced by another one, and so is an image whose objects are all lost on the
        way. Images that have no objects to begin with stay: they teach what background is.

        Args:
            row: Row of the index.
            phase: `final` makes neither mosaic nor mixup.
            rng: Where all random draws come from.

        Raises:
            ImageError: many pictures in a row cannot be read.
        """
        recipe = self._recipe
        picture = self._picture(row, phase, rng)
        if phase != "final" and recipe.mixup_style == "beta" and rng.random() < recipe.mixup:
            # The partner has been through all of this itself.
            partners = self._mixable.draw(1, rng) or [self._picture(self._any_row(rng), phase, rng)]
            self._mixable.push(picture, rng)
            picture = mixup_beta(picture, partners[0], recipe.mixup_beta, rng)
        return picture

    def join(self, samples: Sequence[Sample], size: int, interpolation: Interpolation | None) -> list[Sample]:
        """Return the samples of a batch in one size.

        Args:
            samples: Results of `sample`.
            size: Width and height; for `shorter_side` they follow from the samples.
            interpolation: How samples come to this size, where that does not depend on each alone.
        """
        if self._recipe.geometry == "shorter_side":
            return pad_together(samples, self._spec)
        return [resize(sample, size, size, interpolation) for sample in samples]

    def _picture(self, row: int, phase: Phase, rng: np.random.Generator) -> Sample:
        """Do all but the mixup that comes last."""
        recipe, size = self._recipe, self._size
        for _ in range(_AUGMENT_ATTEMPTS):
            source = self._read(row, rng)
            picture = drop_small_boxes(self._place(source, phase, rng), recipe.min_box)
            if len(picture.boxes) or not len(source.boxes):
                break
            row = self._any_row(rng)
        if phase != "final" and recipe.mixup_style == "average" and rng.random() < recipe.mixup:
            (partner,) = self._partners(self._mixable, 1, rng)
            self._mixable.push(fit(source, size), rng)
            mixed = mixup_average(pad(picture, size, size), partner, recipe.mixup_scale, rng)
            picture = drop_small_boxes(mixed, recipe.min_box)
        picture = dataclasses.replace(picture, image=self._recolour(picture.image, rng))
        if rng.random() < recipe.flip:
            picture = flip_horizontal(picture)
        if recipe.flip_vertical and rng.random() < recipe.flip_vertical:
            picture = flip_vertical(picture)
        if recipe.rotation and rng.random() < recipe.rotation:
            picture = drop_small_boxes(turn(picture, self._angle(picture, rng)), recipe.min_box)
        return picture if recipe.geometry in ("expand_crop", "shorter_side") else pad(picture, size, size)

    def _angle(self, picture: Sample, rng: np.random.Generator) -> float:
        """Return by how many degrees a picture is turned: any, or a right angle for the sake of one of its objects."""
        if np.isin(picture.labels, self._right_angled).any():
            return float(rng.choice((90, 180, -90, -180)))
        return rng.uniform(-180, 180)

    def _recolour(self, image: Image, rng: np.random.Generator) -> Image:
        recipe = self._recipe
        change_hsv = scale_hsv if recipe.hsv_style == "multiply" else jitter_hsv
        return change_hsv(degrade(image, recipe.degrade, rng), recipe.hsv, rng)

    def _place(self, source: Sample, phase: Phase, rng: np.random.Generator) -> Sample:
        """Mosaic, then the recipe's geometry: what is seen of the picture, and how large."""
        recipe, size = self._recipe, self._size
        if recipe.geometry == "shorter_side":
            return fit_shorter_side(source, int(rng.choice(batch_sizes(recipe, self._spec))), self._spec)
        if recipe.geometry == "expand_crop":
            wide = expand(source, recipe.expand_largest, rng) if rng.random() < recipe.expand else source
            return crop_by_overlap(wide, rng)
        is_mosaic = phase != "final" and rng.random() < recipe.mosaic
        if is_mosaic:
            source = self._mosaic(source, rng)
        if recipe.geometry == "resize_crop":
            return random_resize_crop(source, 2 * size if is_mosaic else size, size, recipe.scale, rng)
        if not is_mosaic:
            return self._warp_whole(source, phase, rng)
        warped = self._warp(source, recipe.scale, rng)
        if recipe.mixup_style == "mosaics" and rng.random() < recipe.mixup:
            partner = self._warp(self._mosaic(self._read(self._any_row(rng), rng), rng), recipe.scale, rng)
            warped = mixup_beta(warped, partner, recipe.mixup_beta, rng)
        return warped

    def _mosaic(self, source: Sample, rng: np.random.Generator) -> Sample:
        nine = self._recipe.mosaic_nine > 0 and rng.random() < self._recipe.mosaic_nine
        tile = fit(source, self._size)
        tiles = [tile, *self._partners(self._tiles, 8 if nine else 3, rng)]
        self._tiles.push(tile, rng)
        joined = (mosaic_of_nine if nine else mosaic)(tiles, self._size, rng)
        return copy_paste(joined, self._recipe.copy_paste, rng) if self._recipe.copy_paste else joined

    def _warp_whole(self, source: Sample, phase: Phase, rng: np.random.Generator) -> Sample:
        """Warp a picture that is no mosaic; in closing epochs it may stay as it is."""
        whole = letterbox_square(source, self._size, centre=self._recipe.centre)
        scale = self._recipe.closing_scale if phase == "final" else self._recipe.scale
        return whole if scale is None else self._warp(whole, scale, rng)

    def _warp(self, source: Sample, scale: Range, rng: np.random.Generator) -> Sample:
        recipe = self._recipe
        return random_affine(
            source,
            self._size,
            scale=scale,
            rotate=recipe.rotate,
            shear=recipe.shear,
            translate=recipe.translate,
            perspective=recipe.perspective,
            min_area=recipe.min_area,
            max_aspect=recipe.max_aspect or math.inf,
            rng=rng,
        )

    def _partners(self, cache: SampleCache, count: int, rng: np.random.Generator) -> list[Sample]:
        """Draw pictures that fit into the target from a cache; read (and keep) those that it lacks."""
        partners = cache.draw(count, rng)
        while len(partners) < count:
            partners.append(fit(self._read(self._any_row(rng), rng), self._size))
            cache.push(partners[-1], rng)
        return partners

    def _read(self, row: int, rng: np.random.Generator) -> Sample:
        """Read an image, or another one where that fails, and distort its colours."""
        sample = read_or_another(partial(read_sample, masks=self._masks), self._index, row, rng, self.failed)
        return dataclasses.replace(sample, image=distort(sample.image, self._recipe.distort, rng))

    def _any_row(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self._index)))

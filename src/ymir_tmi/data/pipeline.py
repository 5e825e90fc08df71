"""From a row of the index to a training sample: read, augment, and what to do where that fails."""

from __future__ import annotations

import dataclasses

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.mosaic import SampleCache, mixup_average, mixup_beta, mosaic
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.transforms import (
    clip_to_picture,
    drop_small_boxes,
    fit,
    flip_horizontal,
    jitter_hsv,
    letterbox_square,
    pad,
    random_affine,
    random_resize_crop,
)
from ymir_tmi.errors import ImageError

# With at most a tenth of the images unreadable, as many failures in a row do not happen by chance.
_READ_ATTEMPTS = 10
_AUGMENT_ATTEMPTS = 10


def read_sample(index: DatasetIndex, row: int) -> Sample:
    """Read one picture and the objects to learn from it: neither crowds nor those marked as difficult.

    Raises:
        ImageError: the picture cannot be read.
    """
    rows = index.rows(row)
    ordinary = index.flags[rows] == 0
    return clip_to_picture(
        Sample(
            imaging.read_image(index.paths[row], annotated_size=index.size(row)),
            index.boxes[rows][ordinary],
            index.labels[rows][ordinary].astype(np.int64),
        )
    )


class Augmenter:
    """Makes training samples of one size by a recipe (docs/specs/detectors.md, section 13).

    What a call returns depends on its arguments and, where the recipe has caches, on the calls since the last
    `empty_caches`.

    Attributes:
        failed: what was wrong with each picture that could not be read, by its path.
    """

    def __init__(self, index: DatasetIndex, recipe: AugmentRecipe, size: int) -> None:
        self._index = index
        self._recipe = recipe
        self._size = size
        self.failed: dict[str, str] = {}
        self.empty_caches()

    def empty_caches(self) -> None:
        """Forget the pictures that mosaic and mixup could draw from."""
        self._tiles = SampleCache(self._recipe.mosaic_cache, self._recipe.cache_eviction)
        self._mixable = SampleCache(self._recipe.mixup_cache, self._recipe.cache_eviction)

    def sample(self, row: int, phase: Phase, rng: np.random.Generator) -> Sample:
        """Return a (size, size) sample made of one image.

        An image that cannot be read is replaced by another one, and so is an image whose objects are all lost on the
        way. Images that have no objects to begin with stay: they teach what background is.

        Args:
            row: Row of the index.
            phase: `final` makes neither mosaic nor mixup.
            rng: Where all random draws come from.

        Raises:
            ImageError: many pictures in a row cannot be read.
        """
        picture = self._picture(row, phase, rng)
        if phase != "final" and self._recipe.mixup_style == "beta" and rng.random() < self._recipe.mixup:
            # The partner has been through all of this itself.
            partners = self._mixable.draw(1, rng) or [self._picture(self._any_row(rng), phase, rng)]
            self._mixable.push(picture, rng)
            picture = mixup_beta(picture, partners[0], rng)
        return picture

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
        picture = dataclasses.replace(picture, image=jitter_hsv(picture.image, recipe.hsv, rng))
        if rng.random() < recipe.flip:
            picture = flip_horizontal(picture)
        return pad(picture, size, size)

    def _place(self, source: Sample, phase: Phase, rng: np.random.Generator) -> Sample:
        """Mosaic, then the recipe's geometry: what is seen of the picture, and how large."""
        recipe, size = self._recipe, self._size
        is_mosaic = phase != "final" and rng.random() < recipe.mosaic
        if is_mosaic:
            tile = fit(source, size)
            source = mosaic([tile, *self._partners(self._tiles, 3, rng)], size, rng)
            self._tiles.push(tile, rng)
        if recipe.geometry == "resize_crop":
            return random_resize_crop(source, 2 * size if is_mosaic else size, size, recipe.scale, rng)
        if phase == "final":
            return letterbox_square(source, size)
        return random_affine(
            source if is_mosaic else letterbox_square(source, size),
            size,
            scale=recipe.scale,
            rotate=recipe.rotate,
            shear=recipe.shear,
            translate=recipe.translate,
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
        """Read an image, or another one where that fails."""
        for _ in range(_READ_ATTEMPTS):
            path = self._index.paths[row]
            try:
                return read_sample(self._index, row)
            except ImageError as error:
                self.failed[path] = str(error)
                row = self._any_row(rng)
        raise ImageError(
            f"{_READ_ATTEMPTS} training images in a row cannot be read; the last problem: {self.failed[path]}",
            fix="Check that the pictures are where the annotations say, and that they are whole.",
        )

    def _any_row(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self._index)))

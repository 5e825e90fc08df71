"""From a row of the index to a training sample with the class of every pixel.

Source: docs/specs/segmentation.md, section "Data pipeline".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.colours import distort_stepwise
from ymir_tmi.data.index import IGNORED, DatasetIndex
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.pipeline import read_or_another
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.semantics import LabelMap, read_label_map
from ymir_tmi.data.shapes import crop_size
from ymir_tmi.imaging import Image, Interpolation

_FURTHER_DRAWS = 10


def read_semantic_sample(index: DatasetIndex, row: int) -> Sample:
    """Read one picture and the class of its pixels.

    Raises:
        ImageError: the picture or its label map cannot be read.
    """
    image = imaging.read_image(index.paths[row], annotated_size=index.size(row), label_picture=index.label_picture(row))
    return _sample(image, read_label_map(index, row, (image.shape[1], image.shape[0])))


class SemanticAugmenter:
    """Makes training samples by a recipe whose geometry is `ratio_crop`.

    Attributes:
        failed: what was wrong with each picture that could not be read, by its path.
    """

    def __init__(self, index: DatasetIndex, recipe: AugmentRecipe, spec: InputSpec) -> None:
        self._index = index
        self._recipe = recipe
        self._spec = spec
        self._crop = crop_size(recipe, spec)
        self.failed: dict[str, str] = {}

    def empty_caches(self) -> None:
        """Do nothing: no sample depends on those before it."""

    def sample(self, row: int, phase: Phase, rng: np.random.Generator) -> Sample:
        """Return a sample made of one image, or of another one where that cannot be read; all are of one size.

        Args:
            row: Row of the index.
            phase: Makes no difference.
            rng: Where all random draws come from.

        Raises:
            ImageError: many pictures in a row cannot be read.
        """
        recipe = self._recipe
        sample = read_or_another(read_semantic_sample, self._index, row, rng, self.failed)
        sample = resize_by_ratio(sample, rng.uniform(*recipe.ratio), self._spec)
        sample = crop_classes(sample, self._crop, recipe.category_limit, rng)
        if rng.random() < recipe.flip:
            sample = _sample(imaging.flip_horizontal(sample.image), imaging.flip_horizontal(_labels(sample)))
        if recipe.flip_vertical and rng.random() < recipe.flip_vertical:
            sample = _sample(imaging.flip_vertical(sample.image), imaging.flip_vertical(_labels(sample)))
        sample = dataclasses.replace(sample, image=distort_stepwise(sample.image, recipe.photometric, rng))
        return pad_right_below(sample, self._crop, mean_colour(self._spec))

    def join(self, samples: Sequence[Sample], size: int, interpolation: Interpolation | None) -> list[Sample]:
        """Return the samples of a batch, which are of one size already."""
        return list(samples)


def resize_by_ratio(sample: Sample, ratio: float, spec: InputSpec) -> Sample:
    """Resize to `ratio` times what the model's input is resized to: bilinear, and labels to the nearest pixel."""
    longest = None if spec.longest is None else int(spec.longest * ratio)
    larger = spec.model_copy(update={"size": int(spec.size * ratio), "longest": longest, "rounding": "nearest"})
    frame = plan_frame(*sample.size, larger)
    width, height = frame.resized_width, frame.resized_height
    return _sample(
        imaging.resize(sample.image, width, height, "bilinear"),
        imaging.resize_values(_labels(sample), width, height),
    )


def crop_classes(sample: Sample, size: tuple[int, int], limit: float, rng: np.random.Generator) -> Sample:
    """Cut out a random window in which no class has as much as `limit` of the counted pixels.

    Where it has, or is the only one, another window is drawn, up to ten times; the last one is taken whatever it shows.

    Args:
        sample: The picture.
        size: Height and width of the window in pixels; a side of the picture that is shorter stays as it is.
        limit: Part of the pixels that count; 1 takes the first window.
        rng: Where random draws come from.
    """
    labels = _labels(sample)
    height, width = (min(side, whole) for side, whole in zip(size, labels.shape, strict=True))

    def draw() -> tuple[slice, slice]:
        top, left = (int(rng.integers(labels.shape[axis] - side + 1)) for axis, side in enumerate((height, width)))
        return slice(top, top + height), slice(left, left + width)

    window = draw()
    if limit < 1:
        for _ in range(_FURTHER_DRAWS):
            if _is_varied(labels[window], limit):
                break
            window = draw()
    return _sample(sample.image[window], labels[window])


def mean_colour(spec: InputSpec) -> tuple[int, int, int]:
    """Return red, green and blue of what becomes nothing in the input of the network, but for the rounding."""
    first, second, third = (round(value) for value in spec.mean)
    return (first, second, third) if spec.channels == "rgb" else (third, second, first)


def pad_right_below(sample: Sample, size: tuple[int, int], fill: tuple[int, int, int]) -> Sample:
    """Put the picture into the upper left corner of one of `size` (height, width) pixels; the rest does not count."""
    width, height = sample.size
    if (height, width) == size:
        return sample
    image, labels = np.empty((*size, 3), np.uint8), np.full(size, IGNORED, np.uint8)
    image[:] = fill
    image[:height, :width], labels[:height, :width] = sample.image, _labels(sample)
    return _sample(image, labels)


def _is_varied(labels: LabelMap, limit: float) -> bool:
    counts = np.bincount(labels.ravel(), minlength=256)[:IGNORED]
    return bool((counts > 0).sum() > 1 and counts.max() / counts.sum() < limit)


def _sample(image: Image, label_map: LabelMap) -> Sample:
    return Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), label_map=label_map)


def _labels(sample: Sample) -> LabelMap:
    assert sample.label_map is not None
    return sample.label_map

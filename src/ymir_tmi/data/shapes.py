"""How large a training batch is, and how samples of different sizes become one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.transforms import pad, resize
from ymir_tmi.imaging import Interpolation

_INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "area")
# Photographs are rarely longer; what a family leaves open is bounded by this.
_LONGEST_ASPECT = 2


def batch_sizes(augment: AugmentRecipe, spec: InputSpec) -> tuple[int, ...]:
    """Return the sides in pixels that a batch (for `shorter_side`: a picture) may have: multiples of the stride."""
    if augment.multiscale is None:
        return (spec.size,)
    low, high = (round(part * spec.size) for part in augment.multiscale)
    sizes = tuple(size for size in range(spec.stride, high + 1, spec.stride) if size >= low)
    return sizes or (spec.size,)


def largest_batch(augment: AugmentRecipe, spec: InputSpec) -> tuple[int, int]:
    """Return height and width in pixels of the largest pictures in a batch."""
    if augment.geometry == "ratio_crop":
        return crop_size(augment, spec)
    size = max(batch_sizes(augment, spec))
    if augment.geometry != "shorter_side":
        return size, size
    longest = spec.longest or _LONGEST_ASPECT * size
    return size, -(-longest // spec.stride) * spec.stride


def crop_size(augment: AugmentRecipe, spec: InputSpec) -> tuple[int, int]:
    """Return height and width in pixels of every picture, for `ratio_crop`."""
    return augment.crop or (spec.size, spec.size)


def draw_interpolation(augment: AugmentRecipe, rng: np.random.Generator) -> Interpolation | None:
    """Return how the pictures of a batch come to its size; None where it depends on the picture alone."""
    return _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))] if augment.geometry == "expand_crop" else None


def fit_shorter_side(sample: Sample, size: int, spec: InputSpec) -> Sample:
    """Resize so that the shorter side is `size` pixels, or less where the longer would exceed `spec.longest`.

    The interpolation is that of the network's input.
    """
    frame = plan_frame(*sample.size, spec.model_copy(update={"size": size, "resize": "shorter"}))
    interpolation = spec.shrink if frame.resized_width < frame.width else spec.enlarge
    return resize(sample, frame.resized_width, frame.resized_height, interpolation)


def pad_together(samples: Sequence[Sample], spec: InputSpec) -> list[Sample]:
    """Pad all samples right and below to one size, the smallest whose sides are multiples of the stride."""
    width, height = (
        -(-max(side) // spec.stride) * spec.stride for side in zip(*(sample.size for sample in samples), strict=True)
    )
    return [pad(sample, width, height, fill=spec.fill) for sample in samples]

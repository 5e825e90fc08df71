"""Augmentation of one picture with its boxes (docs/specs/detectors.md, section 13).

Every function returns a new `Sample` and leaves its argument alone. Random draws come from the generator that is passed
in, and from nowhere else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.sample import Sample
from ymir_tmi.imaging import Image, Interpolation

FILL = 114
"""Grey value where there is no picture."""

Boxes = npt.NDArray[np.float32]
Range = tuple[float, float]


def clip_to_picture(sample: Sample) -> Sample:
    """Cut boxes at the border of the picture and drop those that lie outside it or are empty."""
    width, height = sample.size
    boxes = np.clip(sample.boxes, 0, np.asarray([width, height, width, height], np.float32))
    return _keep(Sample(sample.image, boxes, sample.labels), _shorter_side(boxes) > 0)


def drop_small_boxes(sample: Sample, smallest: float) -> Sample:
    """Drop boxes that are narrower or lower than `smallest` pixels."""
    return _keep(sample, _shorter_side(sample.boxes) >= smallest)


def resize(sample: Sample, width: int, height: int, interpolation: Interpolation | None = None) -> Sample:
    """Resize to exactly `width` x `height` pixels; by default bilinear, and by area to less than half."""
    if interpolation is None:
        image = _resize_window(sample.image, width, height, (0, 0, width, height))
    else:
        image = imaging.resize(sample.image, width, height, interpolation)
    return Sample(image, _scale(sample, width, height), sample.labels)


def fit(sample: Sample, size: int) -> Sample:
    """Resize so that the longer side is `size` pixels; the other one is truncated."""
    frame = plan_frame(*sample.size, InputSpec(size=size))
    return resize(sample, frame.resized_width, frame.resized_height)


def pad(
    sample: Sample, width: int, height: int, *, left: int = 0, top: int = 0, fill: int | tuple[int, int, int] = FILL
) -> Sample:
    """Put the picture at (left, top) of one of `width` x `height` pixels and one colour; by default that is grey."""
    if sample.size == (width, height):
        return sample
    image = np.full((height, width, 3), fill, np.uint8)
    image[top : top + sample.size[1], left : left + sample.size[0]] = sample.image
    return Sample(image, sample.boxes + np.asarray([left, top, left, top], np.float32), sample.labels)


def letterbox_square(sample: Sample, size: int, *, centre: bool = False) -> Sample:
    """Resize to fit into `size` x `size` pixels and pad right and below, or on all sides."""
    fitted = fit(sample, size)
    left, top = ((size - side) // 2 if centre else 0 for side in fitted.size)
    return pad(fitted, size, size, left=left, top=top)


def random_resize_crop(sample: Sample, fit_size: int, crop: int, scale: Range, rng: np.random.Generator) -> Sample:
    """Resize at random, keeping the aspect ratio, and cut out a random window (as RTMDet trains).

    The window is equally likely everywhere. Boxes are cut at its border, and those outside it are dropped.

    Args:
        sample: The picture.
        fit_size: Longer side in pixels that the picture is resized to at scale 1.
        crop: Width and height of the window in pixels; a side of the resized picture that is shorter stays as it is.
        scale: Range of the uniform scale.
        rng: Where random draws come from.
    """
    factor = rng.uniform(*scale) * fit_size / max(sample.size)
    width, height = (max(1, round(side * factor)) for side in sample.size)
    left, top = (int(rng.integers(max(side - crop, 0) + 1)) for side in (width, height))
    image = _resize_window(sample.image, width, height, (left, top, min(width, crop), min(height, crop)))
    boxes = _scale(sample, width, height) - np.asarray([left, top, left, top], np.float32)
    return clip_to_picture(Sample(image, boxes, sample.labels))


def random_affine(
    sample: Sample,
    size: int,
    *,
    scale: Range,
    rotate: float,
    shear: float,
    translate: float,
    rng: np.random.Generator,
    perspective: float = 0.0,
    min_area: float = 0.0,
    max_aspect: float = math.inf,
) -> Sample:
    """Warp about the picture's centre, which comes to lie near the centre of the result (as YOLOX and YOLOv5 train).

    The new box is the smallest upright one around the warped corners. Boxes are cut at the border. Those outside it are
    dropped, and those that `recognizable` says are too little to learn from.

    Args:
        sample: The picture.
        size: Width and height of the result in pixels.
        scale: Range of the uniform scale.
        rotate: Largest rotation in degrees, either way.
        shear: Largest shear of each axis in degrees, either way.
        translate: Largest shift of the centre as a part of `size`, either way.
        rng: Where random draws come from.
        perspective: Largest change of the scale for each pixel away from the centre, either way, on each axis.
        min_area: Part of its area that a box keeps at least.
        max_aspect: How many times longer than wide, or wider than long, a box may be.
    """
    angle = math.radians(rng.uniform(-rotate, rotate))
    shear_x, shear_y = (math.tan(math.radians(value)) for value in rng.uniform(-shear, shear, 2))
    factor = rng.uniform(*scale)
    centre = size * (0.5 + rng.uniform(-translate, translate, 2))

    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear, vanishing = np.eye(3), np.eye(3)
    linear[:2, :2] = np.array([[1, shear_x], [shear_y, 1]]) @ rotation * factor
    if perspective:
        vanishing[2, :2] = rng.uniform(-perspective, perspective, 2)
    warped = _warp(sample, _shift(centre) @ linear @ vanishing @ _shift(-np.asarray(sample.size) / 2), size)
    before, after = sample.boxes * np.float32(factor), np.clip(warped.boxes, 0, size)
    return clip_to_picture(_keep(warped, recognizable(before, after, min_area=min_area, max_aspect=max_aspect)))


def recognizable(before: Boxes, after: Boxes, *, min_area: float, max_aspect: float) -> npt.NDArray[np.bool_]:
    """Tell which boxes keep more than a part of their area and are not too long or too wide, strictly.

    Args:
        before: (n, 4) xyxy, as large as they would be if nothing were cut off.
        after: (n, 4) xyxy.
        min_area: Part of the area.
        max_aspect: Longer side divided by the shorter.
    """
    old, new = before[:, 2:] - before[:, :2], after[:, 2:] - after[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = new.max(axis=1) / new.min(axis=1)
    good: npt.NDArray[np.bool_] = (new.prod(axis=1) > min_area * old.prod(axis=1)) & (aspect < max_aspect)
    return good


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror left and right."""
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = sample.size[0] - sample.boxes[:, [2, 0]]
    return Sample(imaging.flip_horizontal(sample.image), boxes, sample.labels)


def flip_vertical(sample: Sample) -> Sample:
    """Turn upside down, without turning left and right."""
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = sample.size[1] - sample.boxes[:, [3, 1]]
    return Sample(imaging.flip_vertical(sample.image), boxes, sample.labels)


def _warp(sample: Sample, matrix: npt.NDArray[Any], size: int) -> Sample:
    """Map every point of the picture by a (3, 3) matrix in homogeneous coordinates; boxes are not cut."""
    # Pixel i covers [i, i + 1) for boxes, but is centred on i for OpenCV.
    pixels = _shift([-0.5, -0.5]) @ matrix @ _shift([0.5, 0.5])
    if matrix[2, :2].any():
        image = imaging.warp_perspective(sample.image, pixels, size, size, fill=FILL)
    else:
        image = imaging.warp_affine(sample.image, pixels, size, size, fill=FILL)
    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    x, y, depth = np.moveaxis(corners @ matrix[:, :2].T + matrix[:, 2], -1, 0)
    corners = np.stack([x / depth, y / depth], axis=-1)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    return Sample(image, boxes, sample.labels)


def _shift(offset: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the (3, 3) matrix that adds `offset` to every point."""
    matrix = np.eye(3)
    matrix[:2, 2] = offset
    return matrix


def _resize_window(image: Image, width: int, height: int, window: tuple[int, int, int, int]) -> Image:
    """Resize to `width` x `height` and return the window (left, top, width, height), without computing the rest."""
    left, top, window_width, window_height = window
    scale_x, scale_y = width / image.shape[1], height / image.shape[0]
    if max(scale_x, scale_y) < 0.5:  # bilinear interpolation would skip pixels
        return imaging.resize(image, width, height, "area")[top : top + window_height, left : left + window_width]
    if (window_width, window_height) == (width, height):
        return imaging.resize(image, width, height, "bilinear")
    shift_x, shift_y = 0.5 * scale_x - 0.5 - left, 0.5 * scale_y - 0.5 - top
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    return imaging.warp_affine(image, matrix, window_width, window_height, fill=None)


def _scale(sample: Sample, width: int, height: int) -> Boxes:
    factors = (width / sample.size[0], height / sample.size[1])
    return sample.boxes * np.asarray(factors * 2, np.float32)


def _shorter_side(boxes: Boxes) -> npt.NDArray[np.float32]:
    sides: npt.NDArray[np.float32] = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return sides


def _keep(sample: Sample, mask: npt.NDArray[np.bool_]) -> Sample:
    return sample if mask.all() else Sample(sample.image, sample.boxes[mask], sample.labels[mask])

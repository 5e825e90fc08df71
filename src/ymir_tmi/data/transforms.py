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
from ymir_tmi.imaging import Image

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


def resize(sample: Sample, width: int, height: int) -> Sample:
    """Resize to exactly `width` x `height` pixels."""
    window = (0, 0, width, height)
    return Sample(_resize_window(sample.image, width, height, window), _scale(sample, width, height), sample.labels)


def fit(sample: Sample, size: int) -> Sample:
    """Resize so that the longer side is `size` pixels; the other one is truncated."""
    frame = plan_frame(*sample.size, InputSpec(size=size))
    return resize(sample, frame.resized_width, frame.resized_height)


def pad(sample: Sample, width: int, height: int, *, left: int = 0, top: int = 0) -> Sample:
    """Put the picture at (left, top) of a grey one of `width` x `height` pixels; by default grey is right and below."""
    if sample.size == (width, height):
        return sample
    image = np.full((height, width, 3), FILL, np.uint8)
    image[top : top + sample.size[1], left : left + sample.size[0]] = sample.image
    return Sample(image, sample.boxes + np.asarray([left, top, left, top], np.float32), sample.labels)


def letterbox_square(sample: Sample, size: int) -> Sample:
    """Resize to fit into `size` x `size` pixels and pad right and below."""
    return pad(fit(sample, size), size, size)


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
) -> Sample:
    """Warp about the picture's centre, which comes to lie near the centre of the result (as YOLOX trains).

    The new box is the smallest upright one around the warped corners. Boxes are cut at the border, and those outside
    it are dropped.

    Args:
        sample: The picture.
        size: Width and height of the result in pixels.
        scale: Range of the uniform scale.
        rotate: Largest rotation in degrees, either way.
        shear: Largest shear of each axis in degrees, either way.
        translate: Largest shift of the centre as a part of `size`, either way.
        rng: Where random draws come from.
    """
    angle = math.radians(rng.uniform(-rotate, rotate))
    shear_x, shear_y = (math.tan(math.radians(value)) for value in rng.uniform(-shear, shear, 2))
    factor = rng.uniform(*scale)
    centre = size * (0.5 + rng.uniform(-translate, translate, 2))

    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear = np.array([[1, shear_x], [shear_y, 1]]) @ rotation * factor
    return _affine(sample, linear, centre - linear @ (np.asarray(sample.size) / 2), size)


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror left and right."""
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = sample.size[0] - sample.boxes[:, [2, 0]]
    return Sample(imaging.flip_horizontal(sample.image), boxes, sample.labels)


def jitter_hsv(image: Image, largest: tuple[float, float, float], rng: np.random.Generator) -> Image:
    """Add a random whole number to hue, saturation and value, each with probability 1/2.

    Hue goes round at 180; the others stop at 0 and 255.

    Args:
        image: (H, W, 3) uint8 RGB.
        largest: Largest change of hue (of 180), saturation and value (of 255), either way.
        rng: Where random draws come from.
    """
    offsets = (rng.uniform(-1, 1, 3) * largest).astype(int) * rng.integers(0, 2, 3)
    if not offsets.any():
        return image
    values = np.arange(256) + offsets[:, None]
    tables = np.stack([values[0] % 180, *values[1:].clip(0, 255)]).astype(np.uint8)
    return imaging.hsv_to_rgb(imaging.map_values(imaging.rgb_to_hsv(image), tables))


def _affine(sample: Sample, linear: npt.NDArray[Any], shift: npt.NDArray[Any], size: int) -> Sample:
    """Map every point p of the picture to `linear @ p + shift`."""
    # Pixel i covers [i, i + 1) for boxes, but is centred on i for OpenCV.
    pixel_shift = shift + linear @ [0.5, 0.5] - 0.5
    image = imaging.warp_affine(sample.image, np.column_stack([linear, pixel_shift]), size, size, fill=FILL)
    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ linear.T + shift
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    return clip_to_picture(Sample(image, boxes, sample.labels))


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

"""Augmentation of one picture with its objects (docs/specs/detectors.md, section 13).

Every function returns a new `Sample` and leaves its argument alone. Random draws come from the generator that is passed
in, and from nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.sample import Boxes, Sample
from ymir_tmi.geometry.outlines import bounds, outlines
from ymir_tmi.geometry.polygons import warp_points
from ymir_tmi.imaging import Image, Interpolation

FILL = 114
"""Grey value where there is no picture."""

Range = tuple[float, float]


def clip_to_picture(sample: Sample) -> Sample:
    """Cut boxes and outlines at the border of the picture and drop those that lie outside it or are empty.

    Rotated boxes are not cut; those whose centre lies outside are dropped.
    """
    if sample.is_rotated:
        centres = sample.boxes.mean(axis=1)
        return sample.keep(((centres >= 0) & (centres <= np.asarray(sample.size, np.float32))).all(axis=1))
    clipped = _cut_at_border(sample)
    return clipped.keep(clipped.shorter_sides > 0)


def _cut_at_border(sample: Sample) -> Sample:
    """Cut upright boxes and outlines; of what lies outside, nothing with a size is left."""
    if sample.outlines is None:
        size = np.asarray(sample.size, np.float32)
        return dataclasses.replace(sample, boxes=np.clip(sample.boxes, 0, np.tile(size, 2)))
    outlines = sample.outlines.clip(*sample.size)
    return dataclasses.replace(sample, boxes=outlines.hulls(), outlines=outlines)


def drop_small_boxes(sample: Sample, smallest: float) -> Sample:
    """Drop boxes that are narrower or lower than `smallest` pixels."""
    return sample.keep(sample.shorter_sides >= smallest)


def resize(sample: Sample, width: int, height: int, interpolation: Interpolation | None = None) -> Sample:
    """Resize to exactly `width` x `height` pixels; by default bilinear, and by area to less than half."""
    if interpolation is None:
        image = _resize_window(sample.image, width, height, (0, 0, width, height))
    else:
        image = imaging.resize(sample.image, width, height, interpolation)
    return sample.moved(image, 0, _factors(sample, width, height))


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
    return sample.moved(image, (left, top))


def letterbox_square(sample: Sample, size: int, *, centre: bool = False) -> Sample:
    """Resize to fit into `size` x `size` pixels and pad right and below, or on all sides."""
    fitted = fit(sample, size)
    left, top = ((size - side) // 2 if centre else 0 for side in fitted.size)
    return pad(fitted, size, size, left=left, top=top)


def random_resize_crop(sample: Sample, fit_size: int, crop: int, scale: Range, rng: np.random.Generator) -> Sample:
    """Resize at random, keeping the aspect ratio, and cut out a random window (as RTMDet trains).

    The window is equally likely everywhere. What becomes of boxes at its border, `clip_to_picture` says.

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
    return clip_to_picture(sample.moved(image, (-left, -top), _factors(sample, width, height)))


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

    The new box is the smallest upright one around the warped corners, or around what of the warped outline lies in the
    picture. Boxes are cut at the border. Those outside it are dropped, and those that `recognizable` says are too
    little to learn from. Rotated boxes keep their warped corners; those whose centre lies outside are dropped, and
    `min_area` and `max_aspect` mean nothing to them.

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
    matrix = _shift(centre) @ linear @ vanishing @ _shift(-np.asarray(sample.size) / 2)
    warped = _warp(sample, matrix, (size, size), FILL)
    if not sample.is_rotated:
        warped = _cut_at_border(warped)
        before = sample.boxes * np.float32(factor)
        warped = warped.keep(recognizable(before, warped.boxes, min_area=min_area, max_aspect=max_aspect))
    return clip_to_picture(warped)


def turn(sample: Sample, degrees: float) -> Sample:
    """Turn about the middle, clockwise on the screen, and keep the size of the picture; what comes in is black."""
    angle, middle = math.radians(degrees), np.asarray(sample.size) / 2
    rotation = np.eye(3)
    rotation[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return clip_to_picture(_warp(sample, _shift(middle) @ rotation @ _shift(-middle), sample.size, 0))


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
    return _mirror(sample, imaging.flip_horizontal(sample.image), 0)


def flip_vertical(sample: Sample) -> Sample:
    """Turn upside down, without turning left and right."""
    return _mirror(sample, imaging.flip_vertical(sample.image), 1)


def _mirror(sample: Sample, image: Image, axis: int) -> Sample:
    scale, offset = np.ones(2), np.zeros(2)
    scale[axis], offset[axis] = -1, sample.size[axis]
    mirrored = sample.moved(image, offset, scale)
    if not sample.is_rotated:
        mirrored.boxes[:, [axis, axis + 2]] = mirrored.boxes[:, [axis + 2, axis]]
    return mirrored


def _warp(sample: Sample, matrix: npt.NDArray[Any], size: tuple[int, int], fill: int) -> Sample:
    """Map every point of the picture by a (3, 3) matrix in homogeneous coordinates; objects are not cut.

    Args:
        sample: The picture.
        matrix: What points are multiplied by.
        size: (width, height) of the result.
        fill: Grey value where there is no picture.
    """
    # Pixel i covers [i, i + 1) for boxes, but is centred on i for OpenCV.
    pixels = _shift([-0.5, -0.5]) @ matrix @ _shift([0.5, 0.5])
    if matrix[2, :2].any():
        image = imaging.warp_perspective(sample.image, pixels, *size, fill=fill)
    else:
        image = imaging.warp_affine(sample.image, pixels, *size, fill=fill)
    if sample.outlines is not None:
        moved = sample.outlines.with_edges(warp_points(sample.outlines.edges, matrix))
        return Sample(image, moved.hulls(), sample.labels, moved)
    corners = sample.boxes if sample.is_rotated else outlines(sample.boxes)
    x, y, depth = np.moveaxis(corners @ matrix[:, :2].T + matrix[:, 2], -1, 0)
    corners = np.stack([x / depth, y / depth], axis=-1)
    boxes = corners if sample.is_rotated else bounds(corners)
    return Sample(image, boxes.astype(np.float32), sample.labels)


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


def _factors(sample: Sample, width: int, height: int) -> tuple[float, float]:
    return width / sample.size[0], height / sample.size[1]

"""Pictures and points in other places: resized, warped, mirrored."""

from __future__ import annotations

import math
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from ymir_tmi.imaging.arrays import Image, Values, as_image, size_of

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "antialias"]
"""`antialias`: bilinear as Pillow does it, over as many pixels as become one."""

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def resize(image: Image, width: int, height: int, interpolation: Interpolation) -> Image:
    """Resize to exactly `width` x `height` pixels."""
    if size_of(image) == (width, height):
        return image
    if interpolation == "antialias":
        return np.array(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR))
    return as_image(cv2.resize(image, (width, height), interpolation=_INTERPOLATION[interpolation]))


def resize_values(values: Values, width: int, height: int) -> Values:
    """Resize (H, W) numbers to exactly `width` x `height`: each is the one whose pixel the middle of the new one is in.

    So they lie where a picture lies that is resized bilinearly; OpenCV's other kind of "nearest" moves them by up to
    half a pixel.
    """
    return as_image(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def warp_affine(image: Image, matrix: npt.NDArray[Any], width: int, height: int, *, fill: int | None) -> Image:
    """Warp by a (2, 3) matrix that maps source to output pixels; bilinear.

    Outside is `fill`, or the nearest pixel of the border where `fill` is None.
    """
    return as_image(
        cv2.warpAffine(
            image,
            np.asarray(matrix, np.float64)[:2],
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
            borderValue=(fill or 0,) * 3,
        )
    )


def warp_perspective(image: Image, matrix: npt.NDArray[Any], width: int, height: int, *, fill: int) -> Image:
    """Warp by a (3, 3) matrix that maps source to output pixels in homogeneous coordinates; bilinear."""
    size = (width, height)
    return as_image(cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3))


def flip_horizontal(image: Image) -> Image:
    """Mirror left and right."""
    return as_image(cv2.flip(image, 1))


def flip_vertical(image: Image) -> Image:
    """Turn upside down, without turning left and right."""
    return as_image(cv2.flip(image, 0))


def smallest_rectangle(points: npt.NDArray[Any]) -> tuple[float, float, float, float, float]:
    """Return (cx, cy, w, h, angle) of the smallest rectangle around (n, 2) points; radians, not in any one form."""
    origin = points.mean(axis=0)  # OpenCV computes in float32
    (x, y), (w, h), degrees = cv2.minAreaRect((points - origin).astype(np.float32))
    return x + float(origin[0]), y + float(origin[1]), w, h, math.radians(degrees)


def simplify_outline(points: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.float32]:
    """Return (m, 2) some of the (n, 2) points of a closed line, which stays within `tolerance` of the line before."""
    return np.asarray(cv2.approxPolyDP(np.asarray(points, np.float32)[:, None], tolerance, True)[:, 0], np.float32)

"""Pictures in other colours, mixed and blurred."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ymir_tmi.imaging.arrays import Image, as_image


def blend(first: Image, second: Image, ratio: float) -> Image:
    """Return `ratio * first + (1 - ratio) * second`, rounded."""
    return as_image(cv2.addWeighted(first, ratio, second, 1 - ratio, 0))


def map_values(image: Image, tables: npt.NDArray[np.uint8]) -> Image:
    """Replace every value by its entry in the channel's table; `tables` is (3, 256)."""
    return as_image(cv2.LUT(image, np.ascontiguousarray(tables.T[None])))


def rgb_to_hsv(image: Image) -> Image:
    """Return hue in [0, 180), saturation and value in [0, 255]."""
    return as_image(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))


def hsv_to_rgb(image: Image) -> Image:
    """Invert `rgb_to_hsv`."""
    return as_image(cv2.cvtColor(image, cv2.COLOR_HSV2RGB))


def without_colour(image: Image) -> Image:
    """Return the luma of every pixel in all three channels."""
    return as_image(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def blur(image: Image, side: int) -> Image:
    """Replace every pixel by the mean of the `side` x `side` pixels around it; `side` is odd."""
    return as_image(cv2.blur(image, (side, side)))


def blur_by_median(image: Image, side: int) -> Image:
    """Replace every value by the median of the `side` x `side` values around it; `side` is odd."""
    return as_image(cv2.medianBlur(image, side))


def equalize(image: Image, limit: float) -> Image:
    """Stretch the lightness in each of 8 x 8 tiles, by at most `limit` times (CLAHE, Zuiderveld 1994)."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return as_image(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))

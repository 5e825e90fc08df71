"""Changes of colour, which leave every box where it is.

Sources: docs/specs/detectors.md, section 13; docs/specs/yolov5.md, section 11; docs/specs/segmentation.md, section
"Data pipeline".

Pictures are (H, W, 3) uint8 RGB and are not changed in place. Random draws come from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.imaging import Image

_BLUR_SIDES = (3, 5, 7)
_CLAHE_LIMITS = (1.0, 4.0)

_LUMA = np.array([0.299, 0.587, 0.114])
# Luma and two differences of colour, as the NTSC television standard mixes them.
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])

_SAME = np.arange(256, dtype=np.uint8)

_Floats = npt.NDArray[np.float32]


def jitter_hsv(image: Image, largest: tuple[float, float, float], rng: np.random.Generator) -> Image:
    """Add a random whole number to hue, saturation and value, each with probability 1/2, as YOLOX trains.

    Hue goes round at 180; the others stop at 0 and 255.

    Args:
        image: (H, W, 3) uint8 RGB.
        largest: Largest change of hue (of 180), saturation and value (of 255), either way.
        rng: Where random draws come from.
    """
    offsets = (rng.uniform(-1, 1, 3) * largest).astype(int) * rng.integers(0, 2, 3)
    if not offsets.any():
        return image
    return _map_hsv(image, np.arange(256) + offsets[:, None])


def scale_hsv(image: Image, largest: tuple[float, float, float], rng: np.random.Generator) -> Image:
    """Multiply hue, saturation and value by random factors, as YOLOv5 trains.

    Hue goes round at 180; the others stop at 255. Products are cut to whole numbers.

    Args:
        image: (H, W, 3) uint8 RGB.
        largest: Largest change of the factors from 1, either way.
        rng: Where random draws come from.
    """
    if not any(largest):
        return image
    return _map_hsv(image, np.arange(256) * (1 + rng.uniform(-1, 1, 3) * largest)[:, None])


def degrade(image: Image, probability: float, rng: np.random.Generator) -> Image:
    """Blur, blur by medians, take all colour away, and stretch contrast locally, each with this probability."""
    if not probability:
        return image
    blurred, median, grey, equalized = rng.random(4) < probability
    if blurred:
        image = imaging.blur(image, int(rng.choice(_BLUR_SIDES)))
    if median:
        image = imaging.blur_by_median(image, int(rng.choice(_BLUR_SIDES)))
    if grey:
        image = imaging.without_colour(image)
    if equalized:
        image = imaging.equalize(image, rng.uniform(*_CLAHE_LIMITS))
    return image


def distort(image: Image, probability: float, rng: np.random.Generator) -> Image:
    """Change brightness, contrast, saturation and hue in random order, each with this probability, as PP-YOLOE trains.

    The ranges are those that its weights were trained with: brightness rises by about one grey value, and hue
    turns by any angle.
    """
    if not probability:
        return image
    pixels = image.astype(np.float32)
    for step in rng.permutation(len(_DISTORTIONS)):
        if rng.random() < probability:
            pixels = _DISTORTIONS[step](pixels, rng)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def distort_stepwise(image: Image, probability: float, rng: np.random.Generator) -> Image:
    """Change brightness, contrast, saturation and hue, each with this probability, as segmenters are trained.

    Contrast is changed after brightness or at the very end, which is a toss of a coin. Every step is cut to whole
    numbers from 0 to 255.
    """
    if not probability:
        return image
    if rng.random() < probability:
        image = imaging.map_values(image, np.tile(_linear(1, rng.uniform(-32, 32)), (3, 1)))
    contrast_last = rng.random() < 0.5
    steps = (_scale_saturation, _shift_hue)
    for step in (*steps, _scale_contrast) if contrast_last else (_scale_contrast, *steps):
        if rng.random() < probability:
            image = step(image, rng)
    return image


def _scale_contrast(image: Image, rng: np.random.Generator) -> Image:
    return imaging.map_values(image, np.tile(_linear(rng.uniform(0.5, 1.5), 0), (3, 1)))


def _scale_saturation(image: Image, rng: np.random.Generator) -> Image:
    tables = np.stack([_SAME, _linear(rng.uniform(0.5, 1.5), 0), _SAME])
    return imaging.hsv_to_rgb(imaging.map_values(imaging.rgb_to_hsv(image), tables))


def _shift_hue(image: Image, rng: np.random.Generator) -> Image:
    hue = (np.arange(256) + rng.integers(-18, 18)) % 180
    tables = np.stack([hue.astype(np.uint8), _SAME, _SAME])
    return imaging.hsv_to_rgb(imaging.map_values(imaging.rgb_to_hsv(image), tables))


def _linear(factor: float, offset: float) -> npt.NDArray[np.uint8]:
    """Return what becomes of each of 256 values."""
    values = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return values.clip(0, 255).astype(np.uint8)


def _brighten(pixels: _Floats, rng: np.random.Generator) -> _Floats:
    return pixels + np.float32(rng.uniform(0.5, 1.5))


def _change_contrast(pixels: _Floats, rng: np.random.Generator) -> _Floats:
    return pixels * np.float32(rng.uniform(0.5, 1.5))


def _saturate(pixels: _Floats, rng: np.random.Generator) -> _Floats:
    factor = rng.uniform(0.5, 1.5)
    return _mix(pixels, factor * np.eye(3) + (1 - factor) * _LUMA)


def _turn_hue(pixels: _Floats, rng: np.random.Generator) -> _Floats:
    angle = rng.uniform(-18, 18) * math.pi
    turn = np.eye(3)
    turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return _mix(pixels, np.linalg.inv(_YIQ) @ turn @ _YIQ)


_DISTORTIONS: tuple[Callable[[_Floats, np.random.Generator], _Floats], ...] = (
    _brighten,
    _change_contrast,
    _saturate,
    _turn_hue,
)


def _mix(pixels: _Floats, matrix: npt.NDArray[np.float64]) -> _Floats:
    """Return each pixel's three values as mixed by the rows of `matrix`."""
    mixed: _Floats = pixels @ matrix.T.astype(np.float32)
    return mixed


def _map_hsv(image: Image, values: npt.NDArray[Any]) -> Image:
    """Replace hue, saturation and value by (3, 256) new values."""
    tables = np.stack([values[0] % 180, *values[1:].clip(0, 255)]).astype(np.uint8)
    return imaging.hsv_to_rgb(imaging.map_values(imaging.rgb_to_hsv(image), tables))

"""How a picture becomes a network input, and how boxes find their way back.

`InputSpec` is data: it is stored in every model file, and `letterbox` is the one function that carries it out, in
training's validation, `evaluate`, `infer`, `mine` and with exported models alike (spec: detectors.md, section 13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ymir_tmi import imaging
from ymir_tmi.imaging import Image, Interpolation


class InputSpec(BaseModel):
    """What a network wants to see."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = 640
    """Longer side of the resized picture, in pixels."""
    stride: int = 32
    """Width and height of the input are multiples of this."""
    rounding: Literal["floor", "nearest"] = "floor"
    """How the resized width and height become whole numbers."""
    shrink: Interpolation = "area"
    """Interpolation when the picture gets smaller; enlarging is always bilinear."""
    pad: Literal["center", "corner"] = "center"
    """Where the picture lies: in the middle, or in the upper left corner."""
    fill: int = 114
    """Grey value of the padding."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the network."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from 0..255 values, in the network's channel order."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divided by, after the mean is subtracted."""


@dataclass(frozen=True)
class Frame:
    """Where a picture of `width` x `height` pixels lies inside a network input.

    A point (x, y) of the picture is (x * scale_x + left, y * scale_y + top) in the input.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int
    resized_width: int
    resized_height: int
    input_width: int
    input_height: int

    def to_picture(self, boxes: Any) -> Any:
        """Map (..., 4) xyxy boxes (array or tensor) from the input to the picture; not clipped."""
        return (boxes - self._offset(boxes)) / self._scale(boxes)

    def to_input(self, boxes: Any) -> Any:
        """Map (..., 4) xyxy boxes (array or tensor) from the picture to the input."""
        return boxes * self._scale(boxes) + self._offset(boxes)

    def _scale(self, like: Any) -> Any:
        return _like([self.scale_x, self.scale_y, self.scale_x, self.scale_y], like)

    def _offset(self, like: Any) -> Any:
        return _like([self.left, self.top, self.left, self.top], like)


def plan_frame(width: int, height: int, spec: InputSpec, *, square: bool = False) -> Frame:
    """Return the frame that `letterbox` gives a picture of this size.

    The picture is scaled (also up) so that its longer side is `spec.size`; each side is then padded to the next
    multiple of `spec.stride`, or both to `spec.size` if `square`. The frame depends on nothing but the picture's own
    size, so a result never depends on the neighbours in a batch.
    """
    ratio = spec.size / max(width, height)
    nearest = spec.rounding == "nearest"
    resized = [max(1, math.floor(side * ratio + (0.5 if nearest else 1e-6))) for side in (width, height)]
    padded = [spec.size if square else math.ceil(side / spec.stride) * spec.stride for side in resized]
    center = spec.pad == "center"
    left, top = (
        round((whole - part) // 2 - 0.1) if center and whole > part else 0
        for whole, part in zip(padded, resized, strict=True)
    )
    return Frame(
        width=width,
        height=height,
        scale_x=resized[0] / width,
        scale_y=resized[1] / height,
        left=left,
        top=top,
        resized_width=resized[0],
        resized_height=resized[1],
        input_width=padded[0],
        input_height=padded[1],
    )


def letterbox(image: Image, spec: InputSpec, *, square: bool = False) -> tuple[Image, Frame]:
    """Resize and pad a picture for the network.

    Returns:
        The input, (input_height, input_width, 3) uint8 RGB, and where the picture lies in it.
    """
    frame = plan_frame(image.shape[1], image.shape[0], spec, square=square)
    shrinks = frame.resized_width < frame.width
    resized = imaging.resize(image, frame.resized_width, frame.resized_height, spec.shrink if shrinks else "bilinear")
    if resized.shape[:2] == (frame.input_height, frame.input_width):
        return resized, frame
    canvas = np.full((frame.input_height, frame.input_width, 3), spec.fill, np.uint8)
    canvas[frame.top : frame.top + frame.resized_height, frame.left : frame.left + frame.resized_width] = resized
    return canvas, frame


def _like(values: list[float], like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return np.asarray(values, like.dtype)
    return like.new_tensor(values)

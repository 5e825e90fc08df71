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
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.geometry import rotated
from ymir_tmi.imaging import Image, Interpolation


class InputSpec(BaseModel):
    """What a network wants to see."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = 640
    """Side of the resized picture that `resize` speaks of, in pixels."""
    resize: Literal["longer", "shorter", "stretch"] = "longer"
    """What `size` is: the longer side, the shorter side, or both, whatever the picture's aspect ratio."""
    longest: int | None = None
    """Largest longer side in pixels, for `shorter`; a picture that would exceed it is made smaller."""
    fixed: tuple[int, int] | None = None
    """Height and width of every input, of an exported network that takes no other; pictures are fitted into them."""
    stride: int = 32
    """Width and height of the input are multiples of this."""
    rounding: Literal["floor", "nearest"] = "floor"
    """How the resized width and height become whole numbers."""
    shrink: Interpolation = "area"
    """Interpolation when the picture gets smaller."""
    enlarge: Interpolation = "bilinear"
    """Interpolation when the picture gets larger."""
    pad: Literal["center", "corner"] = "center"
    """Where the picture lies: in the middle, or in the upper left corner."""
    fill: int | tuple[int, int, int] = 114
    """Colour of the padding: grey, or red, green and blue."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the network."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from 0..255 values, in the network's channel order."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divided by, after the mean is subtracted."""

    def with_size(self, size: int) -> InputSpec:
        """Return the same for another size; `longest` keeps its ratio to it."""
        longest = None if self.longest is None else round(self.longest * size / self.size)
        return self.model_copy(update={"size": size, "longest": longest})


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

    def rotated_to_picture(self, boxes: Tensor) -> Tensor:
        """Map (..., 5) rotated boxes from the input to the picture, in le90; not clipped."""
        moved = boxes - boxes.new_tensor([self.left, self.top, 0, 0, 0])
        return rotated.regularize(rotated.scale(moved, 1 / self.scale_x, 1 / self.scale_y))

    def _scale(self, like: Any) -> Any:
        return _like([self.scale_x, self.scale_y, self.scale_x, self.scale_y], like)

    def _offset(self, like: Any) -> Any:
        return _like([self.left, self.top, self.left, self.top], like)


def plan_frame(width: int, height: int, spec: InputSpec) -> Frame:
    """Return the frame that `letterbox` gives a picture of this size.

    The picture is scaled (also up) as `spec.resize` says; each side is then padded to the next multiple of
    `spec.stride`, or to `spec.fixed`. The frame depends on nothing but the picture's own size, so a result never
    depends on the neighbours in a batch.
    """
    nearest = spec.rounding == "nearest"
    resized = [
        max(1, math.floor(side * ratio + (0.5 if nearest else 1e-6)))
        for side, ratio in zip((width, height), _ratios(width, height, spec), strict=True)
    ]
    padded = [math.ceil(side / spec.stride) * spec.stride for side in resized]
    if spec.fixed is not None:
        padded = [spec.fixed[1], spec.fixed[0]]
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


def letterbox(image: Image, spec: InputSpec) -> tuple[Image, Frame]:
    """Resize and pad a picture for the network.

    Returns:
        The input, (input_height, input_width, 3) uint8 RGB, and where the picture lies in it.
    """
    frame = plan_frame(image.shape[1], image.shape[0], spec)
    shrinks = frame.resized_width < frame.width
    interpolation = spec.shrink if shrinks else spec.enlarge
    resized = imaging.resize(image, frame.resized_width, frame.resized_height, interpolation)
    if resized.shape[:2] == (frame.input_height, frame.input_width):
        return resized, frame
    canvas = np.full((frame.input_height, frame.input_width, 3), spec.fill, np.uint8)
    canvas[frame.top : frame.top + frame.resized_height, frame.left : frame.left + frame.resized_width] = resized
    return canvas, frame


def _ratios(width: int, height: int, spec: InputSpec) -> tuple[float, float]:
    """Return what width and height are multiplied with."""
    if spec.fixed is not None:
        across, down = spec.fixed[1] / width, spec.fixed[0] / height
        return (across, down) if spec.resize == "stretch" else (min(across, down),) * 2
    if spec.resize == "stretch":
        return spec.size / width, spec.size / height
    if spec.resize == "longer":
        ratio = spec.size / max(width, height)
    else:
        ratio = spec.size / min(width, height)
        if spec.longest is not None:
            ratio = min(ratio, spec.longest / max(width, height))
    return ratio, ratio


def _like(values: list[float], like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return np.asarray(values, like.dtype)
    return like.new_tensor(values)

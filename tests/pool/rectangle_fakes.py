"""Pictures with drawn rectangles, and a model that finds what it can see of each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pool_fakes import index_of
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import DenseDetections, HeadOutput, ModelSpec, PostprocessSpec

CLASSES = ("odd", "even")
SLOTS = 64


class RectangleRuntime:
    """Finds the visible part of every rectangle: all pixels of one colour, which is 256 * red + green, its number.

    The less it sees of an object the surer it is, so that NMS alone would keep the wrong boxes.
    """

    def __init__(self, *, size: int, rotated: bool = False, max_detections: int | None = 300) -> None:
        self.spec = ModelSpec(
            name="fake",
            family="fake",
            task="rotated" if rotated else "detection",
            class_names=CLASSES,
            input=InputSpec(size=size, fill=0, shrink="nearest", enlarge="nearest"),
            postprocess=PostprocessSpec(
                iou_threshold=0.1 if rotated else 0.65, max_detections=max_detections, clip="after_nms"
            ),
        )
        self.device = torch.device("cpu")
        self.class_groups = None
        self.has_raw = True
        self.runs: list[tuple[int, ...]] = []

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        self.runs.append(images.shape)
        scores = torch.zeros(len(images), len(CLASSES), 1, SLOTS)
        boxes = torch.zeros(len(images), self.spec.box_length, 1, SLOTS)
        for row, image in enumerate(images):
            numbers = image[..., 0].astype(np.int64) * 256 + image[..., 1]
            for slot, number in enumerate(np.unique(numbers[numbers > 0]).tolist()):
                y, x = np.nonzero(numbers == number)
                scores[row, 1 - number % 2, 0, slot] = 0.2 + 0.7 / (1 + len(x) / 500)
                boxes[row, :, 0, slot] = torch.tensor(self._box(x, y))
        return HeadOutput((scores,), (boxes,))

    def decode(self, raw: HeadOutput) -> DenseDetections:
        return DenseDetections(raw.reg[0].flatten(2).mT, raw.cls[0].flatten(2).mT, (SLOTS,))

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        return (raw.cls[0].unsqueeze(1),)

    def _box(self, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> tuple[float, ...]:
        if self.spec.task != "rotated":
            return float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)
        (cx, cy), (w, h), degrees = cv2.minAreaRect(np.stack([x, y], axis=1).astype(np.float32))
        return cx + 0.5, cy + 0.5, w + 1, h + 1, np.radians(degrees)


def scattered(
    size: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator, *, count: int = 400
) -> npt.NDArray[np.int64]:
    """Return (n, 4) rectangles with sides in a range, at least two pixels apart."""
    kept: list[list[int]] = []
    for _ in range(count):
        w, h = rng.integers(sides[0], sides[1] + 1, 2)
        x, y = rng.integers(0, size[0] - w + 1), rng.integers(0, size[1] - h + 1)
        if all(x > c + 2 or x + w + 2 < a or y > d + 2 or y + h + 2 < b for a, b, c, d in kept):
            kept.append([x, y, x + w, y + h])
    return np.array(kept)


def draw(size: tuple[int, int], corners: list[npt.NDArray[np.int64]]) -> Image:
    """Draw filled polygons (n, 2), each in the colour that is its number, from 1."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for number, polygon in enumerate(corners, 1):
        cv2.fillPoly(image, [polygon.astype(np.int32)], (number // 256, number % 256, 0))
    return image


def upright_corners(box: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the corners of an xyxy box for `draw`, which fills up to and with the last pixel."""
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2 - 1, y1], [x2 - 1, y2 - 1], [x1, y2 - 1]])


def write_images(folder: Path, images: list[Image]) -> DatasetIndex:
    """Write PNGs and return them as an index."""
    paths = []
    for number, image in enumerate(images):
        imaging.write_image(folder / f"{number:03}.png", image)
        paths.append(str(folder / f"{number:03}.png"))
    return index_of(paths)

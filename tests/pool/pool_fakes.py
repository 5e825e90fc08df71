"""A model whose answers follow from the pixels by simple rules, pictures to show it, and consumers that ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import DenseDetections, Detections, HeadOutput, ModelSpec, PostprocessSpec
from ymir_tmi.models.runtime.interface import ClassGroups
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Output, Row, View

CELL = 16
CLASSES = ("red", "green", "blue")


class FakeRuntime:
    """Finds in every cell of 16 pixels a box of that size; its score for a class is the colour's part of 255.

    Attributes:
        runs: the number of pictures of each call of `run`.
    """

    def __init__(self, *, size: int = 64, class_groups: ClassGroups | None = None) -> None:
        self.spec = ModelSpec(
            name="fake",
            family="fake",
            class_names=CLASSES,
            input=InputSpec(size=size, stride=CELL, fill=0),
            postprocess=PostprocessSpec(),
        )
        self.device = torch.device("cpu")
        self.class_groups = class_groups
        self.runs: list[int] = []

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        self.runs.append(len(images))
        colours = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), CELL) / 255
        return HeadOutput((colours,), (torch.zeros(len(images), 4, *colours.shape[2:]),))

    def decode(self, raw: HeadOutput) -> DenseDetections:
        scores = raw.cls[0].permute(0, 2, 3, 1).flatten(1, 2)
        height, width = raw.cls[0].shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        corners = torch.stack([x, y], dim=-1).flatten(0, 1).float() * CELL
        boxes = torch.cat([corners, corners + CELL], dim=1).expand(len(scores), -1, -1)
        return DenseDetections(boxes, scores, (height * width,))

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        return (raw.cls[0].unsqueeze(1),)


class Recording(Consumer):
    """Puts everything that it is shown into its rows."""

    name = "recording"

    def __init__(
        self,
        outputs: Sequence[Output] = ("detections",),
        views: Sequence[View] = (),
        min_score: float = 0.1,
        name: str = "recording",
    ) -> None:
        self.name = name  # type: ignore[misc]
        self._needs = Needs(frozenset(outputs), tuple(views), min_score)
        self.seen: list[int] = []

    @property
    def needs(self) -> Needs:
        return self._needs

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        self.seen += [result.position for result in batch]
        return [
            {
                "path": Path(result.path).name,
                "size": list(result.size),
                "seed": result.seed,
                "found": None if result.detections is None else as_lists(result.detections),
                "maps": None if result.class_maps is None else [level.tolist() for level in result.class_maps],
                "raw": None if result.raw is None else [level.tolist() for level in result.raw.cls],
                "views": {name: as_lists(found) for name, found in result.views.items()},
            }
            for result in batch
        ]


class Mirror(View):
    name = "mirror"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        return imaging.flip_horizontal(image)

    def map_boxes(self, boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        raise NotImplementedError


class Tall(View):
    """Makes pictures of another shape: twice as high, by a grey level that is drawn."""

    name = "tall"

    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        grey = np.random.default_rng(seed).integers(256)
        return np.concatenate([image, np.full_like(image, grey)])

    def map_boxes(self, boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        return boxes


def as_lists(found: Detections) -> list[list[float]]:
    rows = np.column_stack([found.boxes, found.scores, found.labels])
    return sorted(rows.tolist())


def write_pool(folder: Path, count: int, *, seed: int = 0, sizes: Sequence[tuple[int, int]] = ()) -> DatasetIndex:
    """Write PNGs of four shapes with blocks of colour, in two folders, and return them as an index."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        width, height = (sizes or ((64, 48), (48, 64), (64, 64), (100, 40)))[number % (len(sizes) or 4)]
        blocks = rng.integers(0, 256, (3, 4, 3), np.uint8)
        image = imaging.resize(blocks, width, height, "nearest")
        path = folder / ("a" if number % 2 else "b") / f"{number:04}.png"
        imaging.write_image(path, image)
        paths.append(str(path))
    return index_of(paths)


def index_of(paths: Sequence[str]) -> DatasetIndex:
    count = len(paths)
    return DatasetIndex(
        class_names=(),
        paths=Strings.pack(paths),
        sizes=np.zeros((count, 2), np.int32),
        image_ids=np.arange(count),
        starts=np.zeros(count + 1, np.int64),
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int32),
        areas=np.zeros(0, np.float32),
        flags=np.zeros(0, np.uint8),
    )

"""A detector, a loader and a training of them that take milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.batch import Phase, Targets, TrainingBatch
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.models.interface import DenseDetections, Detector, HeadOutput, Matches, ModelSpec, PostprocessSpec
from ymir_tmi.training.callbacks import SaveCheckpoint, UpdateEma
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.fit import fit
from ymir_tmi.training.history import History, HistoryFile
from ymir_tmi.training.losses import LossMonitor
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.plan import TrainingPlan

CLASSES = ("a", "b")


class FakeDetector(Detector):
    """One convolution, one batch norm; the loss pulls the mean of the maps to the number of objects."""

    strides = (8,)

    def __init__(self) -> None:
        spec = ModelSpec(
            name="fake", family="fake", class_names=CLASSES, input=InputSpec(size=32), postprocess=PostprocessSpec()
        )
        super().__init__(spec)
        self.conv = nn.Conv2d(3, 6, 8, stride=8, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> HeadOutput:
        maps = self.norm(self.conv(images / 255))
        return HeadOutput((maps[:, :2],), (maps[:, 2:],))

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        counts = torch.tensor([float(len(labels)) for labels in targets.labels])
        terms = {
            "loss_cls": (raw.cls[0].square().mean((1, 2, 3)) - counts).abs().mean(),
            "loss_bbox": raw.reg[0].abs().mean(),
        }
        return {**terms, "loss_l1": raw.reg[0].square().mean()} if phase == "final" else terms

    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        raise NotImplementedError

    def decode(self, raw: HeadOutput) -> DenseDetections:
        raise NotImplementedError

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def fuse(self) -> Self:
        raise NotImplementedError


class FakeLoader:
    """Batches that depend on nothing but the epoch; notes what it was asked for."""

    def __init__(self, steps: int = 5, batch: int = 4) -> None:
        self.steps, self.batch = steps, batch
        self.asked: list[tuple[int, Phase]] = []
        self.weighed_before: list[int] = []
        self.weights: list[npt.NDArray[np.float64]] = []
        self.epoch = -1

    def set_epoch(self, epoch: int, phase: Phase) -> None:
        self.epoch = epoch
        self.asked.append((epoch, phase))

    def set_weights(self, weights: npt.NDArray[np.float64]) -> None:
        self.weights.append(weights)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        self.weighed_before.append(len(self.weights))
        for step in range(self.steps):
            yield fake_batch(seed=1000 * self.epoch + step, size=self.batch)

    def close(self) -> None:
        pass


def fake_batch(seed: int, size: int = 4) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    counts = torch.randint(0, 3, (size,), generator=generator).tolist()
    boxes = [torch.tensor([[4.0, 4.0, 20.0, 24.0]]).repeat(count, 1) for count in counts]
    labels = [torch.arange(count) % len(CLASSES) for count in counts]
    return TrainingBatch(images, Targets(boxes, labels), tuple(range(size)))


RECIPE = Recipe(epochs=5, closing_epochs=2)


class Training:
    """A small training with every callback that keeps state, in a folder."""

    def __init__(self, folder: Path, recipe: Recipe = RECIPE, **loader: int) -> None:
        torch.manual_seed(0)
        self.layout = RunLayout(folder)
        self.module = NetworkModule(FakeDetector(), recipe, FakeLoader(**loader), total_batch=4, seed=0)
        self.ema = ModelEma(self.module.network, recipe.ema)
        self.history = History()

    def run(self, *more: Callback, resume: bool = False) -> None:
        callbacks = [
            self.history,
            LossMonitor(self.history, self.layout),
            UpdateEma(self.ema),
            *more,
            HistoryFile(self.history, self.layout.history),
            SaveCheckpoint(self.layout.checkpoint),
        ]
        settings = TrainSettings(device="cpu", precision="fp32")
        plan = TrainingPlan(settings, self.module.recipe, self.layout.root if resume else None)
        fit(self.module, callbacks, plan, Processes(rank=0, here=1, machines=1, gpus=()))

    def weights(self) -> dict[str, Tensor]:
        average = {f"ema.{name}": value for name, value in self.ema.model.state_dict().items()}
        return {**self.module.network.state_dict(), **average}

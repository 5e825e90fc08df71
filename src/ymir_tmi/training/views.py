"""What a person sees of a training: progress, TensorBoard, and pictures of what the network is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter

from ymir_tmi import imaging
from ymir_tmi.data.batch import Targets, TrainingBatch
from ymir_tmi.data.drawing import draw_box, draw_label_map, tint
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.imaging import Image
from ymir_tmi.training.history import History
from ymir_tmi.training.losses import LossMonitor
from ymir_tmi.training.module import NetworkModule

_PICTURES = 8
_COLOURS = ((230, 60, 60), (60, 180, 75), (70, 130, 255), (245, 190, 40), (190, 80, 220), (60, 200, 210))


class Progress(Callback):
    """Reports steps, losses, speed and the best AP or mIoU to the terminal and to `progress.jsonl`."""

    def __init__(self, history: History, losses: LossMonitor, events: Path) -> None:
        self._history = history
        self._losses = losses
        self._events = events
        self._reporter: ProgressReporter | None = None
        self._unreported = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start at the step that a resumed run goes on from."""
        assert isinstance(pl_module, NetworkModule)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self._reporter = ProgressReporter("train", pl_module.total_batches, done=done, events=self._events)
        self._reporter.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report whenever losses were read."""
        self._unreported += 1
        if self._losses.window is not None and self._reporter is not None:
            best = self._history.best()
            shown = {self._history.goal: best[self._history.goal]} if best else {}
            self._reporter.advance(self._unreported, epoch=trainer.current_epoch + 1, **self._losses.window, **shown)
            self._unreported = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close(None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar; the last event says that the run was stopped."""
        self._close(exception)

    def _close(self, error: BaseException | None) -> None:
        if self._reporter is not None:
            self._reporter.__exit__(type(error) if error else None, error, None)
            self._reporter = None


class TensorBoard(Callback):
    """Writes losses by step and the history by epoch as TensorBoard scalars."""

    def __init__(self, history: History, losses: LossMonitor, folder: Path) -> None:
        self._history = history
        self._losses = losses
        self._folder = folder
        self._writer: SummaryWriter | None = None

    @property
    def writer(self) -> SummaryWriter:
        """The open event file."""
        assert self._writer is not None
        return self._writer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open an event file; what a killed run wrote after its checkpoint is hidden."""
        self._writer = SummaryWriter(str(self._folder), purge_step=trainer.global_step or None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write losses and speed whenever they were read."""
        for name, value in (self._losses.window or {}).items():
            self.writer.add_scalar(f"step/{name}", value, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's numbers."""
        for name, value in self._history.row.items():
            self.writer.add_scalar(f"epoch/{name}", value, trainer.global_step)
        self.writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the event file."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class SamplePictures(Callback):
    """Draws the first batch of a run with its boxes, as the network is shown it."""

    def __init__(self, tensorboard: TensorBoard, folder: Path, class_names: tuple[str, ...]) -> None:
        self._tensorboard = tensorboard
        self._folder = folder
        self._class_names = class_names

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Write the pictures to files and to TensorBoard."""
        if trainer.global_step == 0 and batch_idx == 0:
            for number, picture in enumerate(draw_batch(batch, self._class_names)):
                imaging.write_image(self._folder / f"batch-{number}.jpg", picture)
                self._tensorboard.writer.add_image(f"batch/{number}", picture, 0, dataformats="HWC")


def draw_batch(batch: TrainingBatch, class_names: tuple[str, ...]) -> list[Image]:
    """Return the first pictures of a batch with boxes, or masks, or label maps, and class names drawn in."""
    pictures = []
    for row in range(min(_PICTURES, len(batch))):
        # A copy in any case: what is drawn must not reach the network.
        picture = np.array(batch.images[row].permute(1, 2, 0).cpu().numpy(), order="C")
        _draw_targets(picture, batch.targets, row, class_names)
        pictures.append(picture)
    return pictures


def _draw_targets(picture: Image, targets: Targets, row: int, class_names: tuple[str, ...]) -> None:
    """Draw what is to be learnt of one picture of a batch into it."""
    if targets.label_maps is not None:
        draw_label_map(picture, targets.label_maps[row].cpu().numpy(), class_names, text_scale=0.4)
        return
    boxes, labels = targets.boxes[row].cpu().numpy(), targets.labels[row].tolist()
    colours = [_COLOURS[label % len(_COLOURS)] for label in labels]
    if targets.masks is not None:
        full = F.interpolate(targets.masks[row][None, None].float(), picture.shape[:2])[0, 0].long().cpu().numpy()
        tint(picture, full > 0, np.array(colours).reshape(-1, 3)[full[full > 0] - 1])
    for box, label, colour in zip(boxes, labels, colours, strict=True):
        draw_box(picture, box, class_names[label], colour, thickness=2, text_scale=0.4)

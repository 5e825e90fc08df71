"""Watching the loss: its means, and that it stays a finite number."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ymir_tmi.data.batch import TrainingBatch
from ymir_tmi.errors import DivergedError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.training.history import History

_READ_INTERVALS = {"cuda": 20}  # reading a number makes the processor wait for the GPU


def is_finite(model: nn.Module) -> bool:
    """Return whether all weights and statistics of a model are finite numbers; waits for the GPU."""
    tensors = [tensor.detach() for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()]
    return bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all())


class LossMonitor(Callback):
    """Averages the loss terms, over a few steps for the eye and over the epoch for the history.

    Stops the run when a loss, or at the end of an epoch a weight, is not finite: nothing is saved after that.

    Args:
        history: Gets `lr`, `images_per_second`, `loss` and every term by epoch.
        layout: Named in the message that says where to go on from.

    Attributes:
        window: means since they were last read, right after the step that they were read at; else None.
    """

    def __init__(self, history: History, layout: RunLayout) -> None:
        self.window: dict[str, float] | None = None
        self._history = history
        self._layout = layout
        self._names: list[str] = []
        self._pending: list[Tensor] = []
        self._sums: Tensor = torch.zeros(0)
        self._steps = self._images = self._images_read = 0
        self._started = self._read = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before."""
        self._pending.clear()
        self._steps = self._images = self._images_read = 0
        self._started = self._read = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Note the terms of a step; read them every few steps."""
        terms: dict[str, Tensor] = outputs["terms"]
        self._names = list(terms)
        self._images += len(batch) * trainer.world_size
        self._pending.append(torch.stack(list(terms.values())))
        self.window = None
        interval = _READ_INTERVALS.get(pl_module.device.type, 1)
        if len(self._pending) >= interval or trainer.is_last_batch:
            self.window = self._take(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's means to the history."""
        if self._pending:  # a run given in iterations ends before the last batch of an epoch
            self.window = self._take(trainer)
        if not is_finite(pl_module):  # the last update may have spoilt the weights although its loss was finite
            raise self._diverged(trainer, "a weight", self._steps)
        self._history.row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._history.row["images_per_second"] = self._images / (self._read - self._started)
        self._history.row.update(self._with_total(self._sums / self._steps))

    def _take(self, trainer: Trainer) -> dict[str, float]:
        """Read what is pending (one wait for the GPU) and return its means over steps and processes."""
        block = torch.stack(self._pending).double()
        if trainer.world_size > 1:  # a loss that is not finite in one process stops all of them
            torch.distributed.all_reduce(block)
            block /= trainer.world_size
        block = block.cpu()
        finite = block.isfinite().all(dim=1)
        if not finite.all():
            first = int(finite.logical_not().nonzero()[0])
            raise self._diverged(trainer, "the loss", self._steps + first + 1)
        self._pending.clear()
        self._sums = block.sum(0) + (self._sums if self._steps else 0)
        self._steps += len(block)
        now = time.perf_counter()
        speed = (self._images - self._images_read) / (now - self._read)
        self._images_read, self._read = self._images, now
        return {"images_per_second": speed, **self._with_total(block.mean(0))}

    def _with_total(self, means: Tensor) -> dict[str, float]:
        return {"loss": float(means.sum()), **dict(zip(self._names, means.tolist(), strict=True))}

    def _diverged(self, trainer: Trainer, what: str, step: int) -> DivergedError:
        epoch, steps = trainer.current_epoch + 1, trainer.num_training_batches
        saved = f"the state before this epoch is in {self._layout.checkpoint.name}" if epoch > 1 else "nothing is saved"
        return DivergedError(
            f"{what} is no longer a finite number at step {step} of {steps} in epoch {epoch}; {saved}",
            where=self._layout.root,
            fix="Train again with a lower learning rate (--set optimizer.lr=...), clipped gradients "
            "(--set optimizer.clip_norm=10) or 32 bits (--precision fp32).",
        )

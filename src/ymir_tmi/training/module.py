"""The network as Lightning trains it: one step, its optimiser, and the loader of each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.data.batch import Phase, Targets, TrainingBatch
from ymir_tmi.models.interface import Network
from ymir_tmi.pool import ranks
from ymir_tmi.training.freeze import hold_still
from ymir_tmi.training.optim import build_optimizer, steps_per_update
from ymir_tmi.training.schedule import ScheduledRates, plan_schedule


class EpochLoader(Protocol):
    """Batches for one epoch at a time; the same for the same epoch, whatever came before."""

    def set_epoch(self, epoch: int, phase: Phase) -> None:
        """Choose the epoch (from 0) that the next iteration yields, and how its pictures are augmented."""
        ...

    def set_weights(self, weights: npt.NDArray[np.float64]) -> None:
        """Choose how likely each image is to be drawn in the epochs from now on; without weights each comes once."""
        ...

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield the batches of the epoch."""
        ...

    def close(self) -> None:
        """End what makes the batches."""
        ...


class NetworkModule(LightningModule):
    """Trains a network by its recipe.

    Args:
        network: What is trained.
        recipe: How.
        loader: Its training data, the part of this process.
        total_batch: Images per step, over all processes.
        seed: Of what the network draws at random, such as dropout.
    """

    def __init__(self, network: Network, recipe: Recipe, loader: EpochLoader, total_batch: int, seed: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.loader = loader
        self.total_batch = total_batch
        self.seed = seed

    def train(self, mode: bool = True) -> Self:
        """Put the network in training mode, but for what is frozen."""
        super().train(mode)
        hold_still(self.network, self.recipe.freeze)
        return self

    @property
    def phase(self) -> Phase:
        """The phase of the epoch in progress."""
        if self.current_epoch >= self.recipe.epochs - self.recipe.closing_epochs:
            return "final"
        return "warmup" if self.current_epoch < self.recipe.assignment_warmup else "main"

    @property
    def accumulate(self) -> int:
        """Batches of one optimiser step."""
        return steps_per_update(self.recipe.optimizer, self.recipe.batch)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last may see fewer batches than the others."""
        return math.ceil(len(self.loader) / self.accumulate)

    @property
    def total_batches(self) -> int:
        """Batches of the run; one that is given in iterations ends within its last epoch."""
        if self.recipe.iterations is None:
            return self.recipe.epochs * len(self.loader)
        epochs, steps = divmod(self.recipe.iterations, self.steps_per_epoch)
        return epochs * len(self.loader) + steps * self.accumulate

    def on_train_epoch_start(self) -> None:
        """Let what the network draws depend on epoch and process alone: a resumed run draws what the whole one does."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.current_epoch, ranks.rank()))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> dict[str, Any]:
        """Return the loss to minimise and, for the callbacks, its terms by name."""
        terms = loss_terms(self.network, batch.images, batch.targets, self.phase)
        # Lightning divides every loss by the number of batches that make one optimiser step.
        factor = self.accumulate if self.recipe.optimizer.accumulation == "sum" else 1
        return {"loss": total_loss(terms) * factor, "terms": {name: term.detach() for name, term in terms.items()}}

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        """End a run that is given in iterations; the trainer's `max_steps` would not go on from the end of an epoch."""
        if self.trainer.global_step == self.recipe.iterations:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser, and its schedule by optimiser steps."""
        optimizer = build_optimizer(self.network, self.recipe.optimizer, self.total_batch * self.accumulate)
        schedule = plan_schedule(self.recipe, self.steps_per_epoch)
        rates = ScheduledRates(optimizer, self.recipe, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the losses of each process go on with."""
        checkpoint["run_states"] = ranks.gather(self.network.run_state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Invert `on_save_checkpoint`."""
        self.network.load_run_state(checkpoint["run_states"][ranks.rank()])

    def train_dataloader(self) -> _CurrentEpoch:
        """Return an iterable over the epoch that Lightning is in when it asks for the first batch."""
        return _CurrentEpoch(self)

    def transfer_batch_to_device(
        self, batch: TrainingBatch, device: torch.device, dataloader_idx: int
    ) -> TrainingBatch:
        """Move a batch to the device."""
        return batch.to(device)


def loss_terms(network: Network, images: Tensor, targets: Targets, phase: Phase) -> dict[str, Tensor]:
    """Return the loss terms of (B, 3, H, W) uint8 images by name; the network in the arithmetic of autocast."""
    raw = network(network.normalize(images))
    with torch.autocast(images.device.type, enabled=False):  # sums over thousands of priors need float32
        return network.loss(raw, targets, phase)


def total_loss(terms: Mapping[str, Tensor]) -> Tensor:
    """Return what training minimises."""
    return torch.stack(list(terms.values())).sum()


class _CurrentEpoch:
    """Lightning makes the first iterator before it knows the epoch, so the epoch is set at the first batch."""

    def __init__(self, module: NetworkModule) -> None:
        self._module = module

    def __len__(self) -> int:
        return len(self._module.loader)

    def __iter__(self) -> Iterator[TrainingBatch]:
        module = self._module
        module.loader.set_epoch(module.current_epoch, module.phase)
        yield from module.loader

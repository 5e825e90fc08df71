"""What happens around the steps: averaging, validating, saving, stopping. One thing per callback.

Callbacks run in the order of the trainer's list, and a later one reads what an earlier one wrote to the history:
losses, then validation, then whatever saves or shows them; the checkpoint comes last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ymir_tmi.evaluation.results import write_evaluation
from ymir_tmi.evaluation.semantic_results import Evaluation
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.models.interface import Network
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.history import History
from ymir_tmi.training.losses import is_finite
from ymir_tmi.training.module import NetworkModule


class UpdateEma(Callback):
    """Updates the averaged weights after every optimiser step, and keeps them in the checkpoint."""

    def __init__(self, ema: ModelEma[Network]) -> None:
        self._ema = ema

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update, unless this step only added to the gradients."""
        assert isinstance(pl_module, NetworkModule)
        if trainer.global_step > self._ema.updates:
            self._ema.update(pl_module.network)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and how often they were updated."""
        return self._ema.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Invert `state_dict`."""
        self._ema.load_state_dict(state_dict)


class Validate(Callback):
    """Evaluates the averaged weights every `interval` epochs and after the last.

    Attributes:
        result: the latest evaluation; None before the first.
    """

    def __init__(
        self, history: History, ema: ModelEma[Network], evaluate: Callable[[Network], Evaluation], interval: int
    ) -> None:
        self.result: Evaluation | None = None
        self._history = history
        self._ema = ema
        self._evaluate = evaluate
        self._interval = interval

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the numbers of an evaluation to the history."""
        epoch = trainer.current_epoch + 1
        if epoch % self._interval and epoch != trainer.max_epochs:
            return
        self.result = self._evaluate(self._ema.model)
        # Of a val split that has nothing to measure by there is no such number.
        self._history.row.update({self._history.goal: 0.0, **self.result.scalars()})


class SaveWeights(Callback):
    """Writes the averaged weights as model files: `last` after every epoch, `best` when none was better."""

    def __init__(
        self, history: History, ema: ModelEma[Network], validate: Validate, layout: RunLayout, licence: str
    ) -> None:
        self._history = history
        self._ema = ema
        self._validate = validate
        self._layout = layout
        self._licence = licence

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch's weights; with the best ones, their evaluation."""
        self._save(self._layout.last_weights)
        if self._history.best() is self._history.row and self._validate.result is not None:
            self._save(self._layout.best_weights)
            write_evaluation(self._layout.evaluation, self._validate.result)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the weights of a first epoch that is interrupted: they are all there is."""
        interrupted = isinstance(exception, KeyboardInterrupt) and self._ema.updates > 0
        if interrupted and not self._layout.last_weights.exists() and is_finite(self._ema.model):
            self._save(self._layout.last_weights)

    def _save(self, path: Path) -> None:
        save_model(self._ema.model, path, licence=self._licence, extra={"metrics": json.dumps(self._history.row)})


class StopEarly(Callback):
    """Ends the run when the history's `goal` has not risen for `patience` epochs."""

    def __init__(self, history: History, patience: int) -> None:
        self._history = history
        self._patience = patience

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare this epoch, if it was validated, with the first that was as good as the best."""
        best, row, goal = self._history.best(), self._history.row, self._history.goal
        if best is not None and goal in row:
            risen = next(earlier["epoch"] for earlier in self._history.rows if earlier.get(goal) == best[goal])
            trainer.should_stop = row["epoch"] - risen >= self._patience


class SaveCheckpoint(Callback):
    """Writes all that a resumed run needs after every epoch, in place of the checkpoint before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write beside the old checkpoint, then rename: a run that is killed always leaves a whole one."""
        temporary = self._path.with_name(f".{self._path.name}")
        trainer.save_checkpoint(temporary)  # every process takes part, the first one writes
        if trainer.is_global_zero:
            temporary.replace(self._path)

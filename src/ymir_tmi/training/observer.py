"""Whoever runs a training and wants to do something with what every validated epoch leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import Callback, LightningModule, Trainer

from ymir_tmi.evaluation.semantic_results import Evaluation
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.training.callbacks import Validate
from ymir_tmi.training.history import History


@dataclass(frozen=True)
class ValidatedEpoch:
    """An epoch that was validated, and whose weights are saved.

    Attributes:
        number: from 1.
        evaluation: all numbers of its validation.
        layout: the run folder; `last_weights` are those of this epoch.
    """

    number: int
    evaluation: Evaluation
    layout: RunLayout


class Observer:
    """Is told by the first process of a training how it goes on; does nothing by itself."""

    def started(self, layout: RunLayout) -> None:
        """See the run folder before anything but `run.json` is written."""

    def validated(self, epoch: ValidatedEpoch) -> None:
        """See an epoch after its validation, when its files are written."""


class TellObservers(Callback):
    """Tells observers of every epoch that was validated."""

    def __init__(self, observers: Sequence[Observer], history: History, validate: Validate, layout: RunLayout) -> None:
        self._observers = observers
        self._history = history
        self._validate = validate
        self._layout = layout

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell them, if this epoch was validated."""
        result = self._validate.result
        if self._history.goal not in self._history.row or result is None:
            return
        epoch = ValidatedEpoch(trainer.current_epoch + 1, result, self._layout)
        for observer in self._observers:
            observer.validated(epoch)

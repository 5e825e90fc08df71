"""What every epoch came to: losses, speed and metrics, in memory, in the checkpoint and in `metrics.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ymir_tmi.files.atomic import write_text

Row = dict[str, float]


class History(Callback):
    """One row of numbers for every epoch; the last row is that of the epoch in progress.

    A row has `epoch` (from 1); other callbacks add their numbers to `row`.

    Attributes:
        goal: the number of a row by which epochs are compared: AP, which is that of masks where objects have such, or
            the mIoU of label maps.
    """

    def __init__(self, goal: str = "AP") -> None:
        self.rows: list[Row] = []
        self.goal = goal

    @property
    def row(self) -> Row:
        """The numbers of the epoch in progress."""
        return self.rows[-1]

    def best(self) -> Row | None:
        """Return the row with the highest `goal`, of equals the last; None if no epoch has one."""
        measured = [row for row in self.rows if self.goal in row]
        return max(measured, key=lambda row: (row[self.goal], row["epoch"]), default=None)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a row."""
        self.rows.append({"epoch": trainer.current_epoch + 1})

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows from a checkpoint."""
        self.rows = state_dict["rows"]


class HistoryFile(Callback):
    """Writes `metrics.csv` after every epoch. A number that an epoch lacks is an empty cell."""

    def __init__(self, history: History, path: Path) -> None:
        self._history = history
        self._path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all rows anew."""
        rows = self._history.rows
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
        write_text(self._path, text.getvalue())

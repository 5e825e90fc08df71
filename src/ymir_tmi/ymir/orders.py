"""What the parameters of an image come to: settings of ours, whatever the image was called and its keys were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """What a task runs on.

    Attributes:
        devices: GPUs of the task; 1 where it runs on the processor. Batches of the images are meant for one of them.
        gpu: whether they are GPUs.
        cores: of the processor, that this process may use; None where it does not matter.
    """

    devices: int = 1
    gpu: bool = False
    cores: int | None = None


@dataclass(frozen=True)
class StagePolicy:
    """Which evaluated epochs stay as model stages, besides the best one and the latest one.

    Attributes:
        keep: at most this many of the latest are kept; None are all, up to the platform's limit.
        every: one epoch out of so many is a candidate; None is each evaluated one.
        best_only: nothing stays but the best one and the latest one.
        file_patterns: comma separated regular expressions for the files of a stage; '' are all.
        best: so many of the best are kept, whatever their epoch; None are all, up to the platform's limit.
    """

    keep: int | None = None
    every: int | None = None
    best_only: bool = False
    file_patterns: str = ""
    best: int | None = 1


@dataclass(frozen=True)
class TrainingOrder:
    """A training.

    Attributes:
        values: fields of `config.schema.TrainSettings` that the parameters decide.
        stages: which epochs stay.
        opset: operator set of an ONNX file that is attached to the result; None attaches none.
        notes: sentences for the log.
    """

    values: dict[str, Any]
    stages: StagePolicy
    opset: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PassOrder:
    """Mining or inference.

    Attributes:
        values: fields of `config.schema.MineSettings` or `InferSettings` that the parameters decide.
        notes: sentences for the log.
    """

    values: dict[str, Any]
    notes: tuple[str, ...] = ()

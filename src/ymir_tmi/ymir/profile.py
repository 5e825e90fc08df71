"""An image: its object types, and the parameters of each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ymir_tmi.ymir.command_lines import CommandLine
from ymir_tmi.ymir.model_names import ConfigTable
from ymir_tmi.ymir.orders import Machine, PassOrder, TrainingOrder
from ymir_tmi.ymir.overrides import OverrideTable
from ymir_tmi.ymir.parameters import PLATFORM_KEYS, Job, Parameters, PassParameters, TrainingParameters
from ymir_tmi.ymir.values import Words, is_missing


@dataclass(frozen=True)
class Tasks:
    """The parameters of an image for one object type.

    Attributes:
        training: parameters of a training.
        mining: parameters of mining.
        infer: parameters of inference.
        names: the models that a training knows.
        args_options: what its `args_options` mean.
        cfg_options: what its `cfg_options` mean; None where the image has none.
    """

    training: type[TrainingParameters]
    mining: type[PassParameters]
    infer: type[PassParameters]
    names: ConfigTable
    args_options: CommandLine
    cfg_options: OverrideTable | None = None

    def named(self) -> dict[str, type[Parameters]]:
        """Return them by the names of their templates."""
        return {"training": self.training, "mining": self.mining, "infer": self.infer}


@dataclass(frozen=True)
class Profile:
    """An image.

    Attributes:
        name: of the image.
        title: what it is.
        tasks: the parameters, by object type: 2 boxes, 3 classes of pixels, 4 masks of objects.
    """

    name: str
    title: Words
    tasks: Mapping[int, Tasks]

    @property
    def object_types(self) -> tuple[int, ...]:
        """What it finds."""
        return tuple(self.tasks)

    def training(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> TrainingOrder:
        """Return what config.yaml asks of a training; `object_type` is one that this image knows.

        Raises:
            ConfigError: a key or a value is not allowed.
        """
        parameters = self.tasks[object_type].training.read(config)
        return parameters.order(_job(config, machine))

    def mining(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        """Return what config.yaml asks of mining; see `training`. It may hold parameters of inference as well."""
        tasks = self.tasks[object_type]
        return _read_pass(tasks.mining, config, machine, other=tasks.infer, switch="run_infer")

    def infer(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        """Return what config.yaml asks of inference; see `training`. It may hold parameters of mining as well."""
        tasks = self.tasks[object_type]
        return _read_pass(tasks.infer, config, machine, other=tasks.mining, switch="run_mining")


def _read_pass(
    kind: type[PassParameters], config: Mapping[str, Any], machine: Machine, *, other: type[PassParameters], switch: str
) -> PassOrder:
    """Read the parameters of a task from a config that may hold those of the other one too.

    Args:
        kind: parameters of the task.
        config: all of config.yaml.
        machine: what it runs on.
        other: parameters of the other task.
        switch: key that says whether the other task is part of the run.
    """
    others = {key for parameter in other.parameters() for key in parameter.keys}
    order = kind.read(config, others).order(_job(config, machine))
    if str(config.get(switch, True)).lower() not in ("false", "f", "0"):
        return order
    own = {key for parameter in kind.parameters() for key in parameter.keys}
    unused = [key for key in config if key in others - own - PLATFORM_KEYS and not is_missing(config[key])]
    notes = [f"{key} is not used: it belongs to a task that is not part of this run" for key in unused]
    return replace(order, notes=(*order.notes, *notes))


def _job(config: Mapping[str, Any], machine: Machine) -> Job:
    names = config.get("class_names")
    return Job(machine, tuple(map(str, names)) if isinstance(names, list | tuple) else ())

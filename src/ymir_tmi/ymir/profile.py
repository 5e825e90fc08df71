"""An image: its object types, and the parameters of each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.orders import Machine, PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Job, Parameters, PassParameters, TrainingParameters
from ymir_tmi.ymir.values import Words


@dataclass(frozen=True)
class Tasks:
    """The parameters of an image for one object type."""

    training: type[TrainingParameters]
    mining: type[PassParameters]
    infer: type[PassParameters]

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
        """Return what config.yaml asks of a training.

        Raises:
            ConfigError: a key or a value is not allowed, or this image does not know the object type.
        """
        parameters = self._tasks(object_type).training.read(config)
        return parameters.order(_job(config, machine))

    def mining(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        """Return what config.yaml asks of mining; see `training`. It may hold parameters of inference as well."""
        tasks = self._tasks(object_type)
        return _read_pass(tasks.mining, tasks.infer, config, machine)

    def infer(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        """Return what config.yaml asks of inference; see `training`. It may hold parameters of mining as well."""
        tasks = self._tasks(object_type)
        return _read_pass(tasks.infer, tasks.mining, config, machine)

    def _tasks(self, object_type: int) -> Tasks:
        if object_type not in self.tasks:
            known = " or ".join(map(str, self.object_types))
            raise ConfigError(
                f"the image {self.name} knows no object type {object_type}", where="object_type", fix=f"Known: {known}."
            )
        return self.tasks[object_type]


def _read_pass(
    kind: type[PassParameters], other: type[PassParameters], config: Mapping[str, Any], machine: Machine
) -> PassOrder:
    others = {key for parameter in other.parameters() for key in parameter.keys}
    return kind.read(config, others).order(_job(config, machine))


def _job(config: Mapping[str, Any], machine: Machine) -> Job:
    names = config.get("class_names")
    return Job(machine, tuple(map(str, names)) if isinstance(names, list | tuple) else ())

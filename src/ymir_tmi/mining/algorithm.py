"""What a mining algorithm is, and the table of those there are.

An algorithm is a consumer of a pass over the pool whose rows hold a score. Its score of an image depends on the image,
the model and the seed alone; a higher score always means: label it sooner.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.interface import Task
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row, WindowConsumer


class Algorithm(Consumer):
    """Turns what the model said about an image into a score.

    A row is `{"score": number, "components": {name: number}, "reason": one line that a labeller can read}`.
    """


class HeatMapAlgorithm(Algorithm, WindowConsumer):
    """An algorithm that can also say where in an image its score comes from."""

    @abstractmethod
    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (h, w) what each place of the picture contributes, at the resolution of the network input."""


@dataclass(frozen=True)
class Entry:
    """A row of the table of algorithms.

    Attributes:
        builder: "module:function"; the function takes the settings and the class names and returns an `Algorithm`.
        compat: earlier implementations whose numbers it can reproduce.
        options: settings that it reads and the others do not.
    """

    builder: str
    compat: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


ALGORITHMS: Mapping[str, Entry] = {
    "random": Entry("ymir_tmi.mining.scores.random:build_random"),
    "entropy": Entry("ymir_tmi.mining.scores.entropy:build_entropy", ("mmdet", "mmyolo", "yolov5"), ("aggregate",)),
    "aldd": Entry("ymir_tmi.mining.scores.aldd:build_aldd", ("mmdet", "yolov5"), ("class_weights",)),
    "cald": Entry("ymir_tmi.mining.scores.cald:build_cald", ("detectron2", "mmdet", "yolov5"), ("empty_first",)),
}


def create_algorithm(settings: MineSettings, class_names: Sequence[str], *, task: Task = "detection") -> Algorithm:
    """Return the algorithm that the settings ask for.

    Args:
        settings: its name, form and options.
        class_names: the classes of the results, in the order of their labels; none without a model.
        task: what the model finds.

    Raises:
        ConfigError: the algorithm does not have the form, or not for this task, or does not read an option that is set.
    """
    name = settings.algorithm
    entry = ALGORITHMS[name]
    if settings.compat is not None and settings.compat not in entry.compat:
        known = f"Known for {name}: {', '.join(entry.compat)}." if entry.compat else f"{name} has only its own form."
        raise ConfigError(f"algorithm '{name}' has no form '{settings.compat}'", where="compat", fix=known)
    if settings.compat is not None and task == "rotated":
        raise ConfigError(
            f"form '{settings.compat}' reproduces an implementation that knew upright boxes only, and this model finds "
            "rotated ones",
            where="compat",
            fix="Leave compat out: the algorithm's own form takes rotated boxes.",
        )
    for other, row in ALGORITHMS.items():
        for option in row.options if other != name else ():
            refuse_option(settings, option, f"'{name}' does not read it, only '{other}' does")
    module, _, function = entry.builder.partition(":")
    build: Callable[[MineSettings, Sequence[str]], Algorithm] = getattr(importlib.import_module(module), function)
    return build(settings, class_names)


def refuse_option(settings: MineSettings, option: str, why: str) -> None:
    """Raise if `option` is not at its default, so that no setting is ignored in silence.

    Raises:
        ConfigError: it is set; the message says `why` it must not be.
    """
    if getattr(settings, option) != MineSettings.model_fields[option].get_default():
        raise ConfigError(f"setting '{option}' has no effect here: {why}", where=option, fix=f"Leave {option} out.")


def score_row(result: ImageResult, score: float, components: Mapping[str, float], reason: str) -> Row:
    """Return the row of one image.

    Raises:
        ModelError: the score is not a finite number, so that the image has no place in a ranking.
    """
    if not math.isfinite(score):
        raise ModelError(
            f"the score of this image is {score}",
            where=result.path,
            fix="The model's outputs are not finite numbers; look at its training, or take --precision fp32.",
        )
    numbers = {name: float(value) for name, value in components.items()}
    return {"score": float(score) + 0.0, "components": numbers, "reason": reason}  # + 0.0 turns -0.0 into 0.0

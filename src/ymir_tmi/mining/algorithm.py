"""What a mining algorithm is, and the table of those there are.

An algorithm is a consumer of a pass over the pool whose rows hold a score. Its score of an image depends on the image,
the model and the seed alone; a higher score always means: label it sooner.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import Algorithm as Name
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.interface import Task
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row


class Algorithm(Consumer):
    """Turns what the model said about an image into a score.

    A row is `{"score": number, "components": {name: number}, "reason": one line that a labeller can read}`.
    """


class HeatMapAlgorithm(Algorithm):
    """An algorithm that can also say where in an image its score comes from."""

    @abstractmethod
    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (h, w) what each place of the picture contributes; none is negative, and any resolution will do."""


class PoolAlgorithm(Algorithm):
    """An algorithm that scores an image only when it has seen the whole pool: its rows hold what it needs for that."""

    @abstractmethod
    def conclude(self, rows: Callable[[], Iterable[Row]]) -> Callable[[Row], Row]:
        """Look at the rows of all images that could be read, and return what makes of each the row with its score.

        Args:
            rows: returns the rows of the pool, one at a time; may be called several times.
        """


class RegionAlgorithm(Algorithm):
    """An algorithm whose rows name regions of what it measures of the picture (`Needs.measure`)."""

    @abstractmethod
    def find_regions(self, measured: Any, regions: Sequence[Row]) -> tuple[npt.NDArray[np.bool_], list[Row]]:
        """Return (H, W) which pixels the `regions` of a row cover, and these with their run lengths (`rle`) added.

        Args:
            measured: what `Needs.measure` returns of the picture.
            regions: of the row of the picture.
        """


OBJECTS: tuple[Task, ...] = ("detection", "rotated", "instances")


@dataclass(frozen=True)
class Entry:
    """A row of the table of algorithms; an algorithm that differs between tasks has several.

    Attributes:
        name: of the algorithm.
        builder: "module:function"; the function takes the settings and the class names and returns an `Algorithm`.
        tasks: what the models find whose images it scores.
        compat: earlier implementations whose numbers it can reproduce.
        options: settings that not every algorithm reads, and this one does.
    """

    name: str
    builder: str
    tasks: tuple[Task, ...] = OBJECTS
    compat: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_SUPERPIXELS = ("superpixels", "max_superpixels", "region_size")

ALGORITHMS: tuple[Entry, ...] = (
    Entry("random", "ymir_tmi.mining.scores.random:build_random", (*OBJECTS, "semantics")),
    Entry(
        "entropy",
        "ymir_tmi.mining.scores.entropy:build_entropy",
        compat=("mmdet", "mmyolo", "yolov5"),
        options=("aggregate",),
    ),
    Entry("entropy", "ymir_tmi.mining.scores.pixel_entropy:build_pixel_entropy", ("semantics",)),
    Entry("aldd", "ymir_tmi.mining.scores.aldd:build_aldd", compat=("mmdet", "yolov5"), options=("class_weights",)),
    Entry(
        "cald",
        "ymir_tmi.mining.scores.cald:build_cald",
        compat=("detectron2", "mmdet", "yolov5"),
        options=("empty_first",),
    ),
    Entry("apis", "ymir_tmi.mining.scores.apis:build_apis", ("instances",), ("yolov5",), ("aggregate", "kept")),
    Entry(
        "maskal",
        "ymir_tmi.mining.scores.maskal:build_maskal",
        ("instances",),
        ("yolov5",),
        ("passes", "group_iou", "certainty", "kept"),
    ),
    Entry(
        "rsal",
        "ymir_tmi.mining.scores.rsal:build_rsal",
        ("semantics",),
        ("mmseg",),
        (*_SUPERPIXELS, "top_regions", "class_balance", "normalize", "kept"),
    ),
    Entry(
        "ripu",
        "ymir_tmi.mining.scores.ripu:build_ripu",
        ("semantics",),
        ("mmseg",),
        ("region_radius", "top_regions", "kept"),
    ),
)


def default_algorithm(task: Task) -> Name:
    """Return the algorithm that is taken for models of a task where none is named."""
    return "rsal" if task == "semantics" else "aldd"


def create_algorithm(settings: MineSettings, class_names: Sequence[str], *, task: Task = "detection") -> Algorithm:
    """Return the algorithm that the settings ask for.

    Args:
        settings: its name, form and options; without a name it is the default of the task.
        class_names: the classes of the results, in the order of their labels; none without a model.
        task: what the model finds.

    Raises:
        ConfigError: the algorithm does not exist for this task or does not have the form there, or does not read an
            option that is set.
        DependencyError: it needs a part of OpenCV that is not installed.
    """
    entry = _entry(settings.algorithm or default_algorithm(task), task)
    _check_form(entry, settings.compat, task)
    for option in sorted({option for other in ALGORITHMS for option in other.options} - set(entry.options)):
        readers = sorted({f"'{other.name}'" for other in ALGORITHMS if option in other.options})
        refuse_option(settings, option, f"'{entry.name}' does not read it here, only {' and '.join(readers)}")
    module, _, function = entry.builder.partition(":")
    build: Callable[[MineSettings, Sequence[str]], Algorithm] = getattr(importlib.import_module(module), function)
    return build(settings, class_names)


def _entry(name: str, task: Task) -> Entry:
    """Return the row of an algorithm for a task."""
    of_task = {entry.name: entry for entry in ALGORITHMS if task in entry.tasks}
    if name not in of_task:
        raise ConfigError(
            f"there is no algorithm '{name}' for models of task '{task}'",
            where="algorithm",
            fix=f"Take one of: {', '.join(of_task)}.",
        )
    return of_task[name]


def _check_form(entry: Entry, form: str | None, task: Task) -> None:
    if form is None:
        return
    if form not in entry.compat:
        known = f"Known for {entry.name}: {', '.join(entry.compat)}."
        raise ConfigError(
            f"algorithm '{entry.name}' has no form '{form}'",
            where="compat",
            fix=known if entry.compat else f"For this model, {entry.name} has only its own form.",
        )
    if task == "rotated":
        raise ConfigError(
            f"form '{form}' reproduces an implementation that knew upright boxes only, and this model finds "
            "rotated ones",
            where="compat",
            fix="Leave compat out: the algorithm's own form takes rotated boxes.",
        )


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
    require_finite(result, score)
    numbers = {name: float(value) for name, value in components.items()}
    return {"score": float(score) + 0.0, "components": numbers, "reason": reason}  # + 0.0 turns -0.0 into 0.0


def require_finite(result: ImageResult, score: float) -> None:
    """Raise if a score is not a finite number, so that its image has no place in a ranking.

    Raises:
        ModelError: it is not.
    """
    if not math.isfinite(score):
        raise ModelError(
            f"the score of this image is {score}",
            where=result.path,
            fix="The model's outputs are not finite numbers; look at its training, or take 32 bits (--precision fp32).",
        )

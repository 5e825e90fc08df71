"""Every model by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from ymir_tmi.errors import ModelError, did_you_mean
from ymir_tmi.models.interface import Activation, Anchors, Detector, ModelSpec, Task

_RTMDET = "ymir_tmi.models.families.rtmdet:RTMDet"
_YOLOX = "ymir_tmi.models.families.yolox:YOLOX"

# name: its class, parameters and millions of multiply-adds (80 classes, square input), longer side of the input in
# pixels, box AP on COCO val2017 that its authors' repository publishes.
_CATALOG: dict[str, tuple[str, int, int, int, float | None]] = {
    "rtmdet_tiny": (_RTMDET, 4_896_168, 8_036, 640, 41.0),
    "rtmdet_s": (_RTMDET, 8_886_924, 14_761, 640, 44.6),
    "rtmdet_m": (_RTMDET, 24_709_188, 39_066, 640, 49.3),
    "rtmdet_l": (_RTMDET, 52_315_804, 79_899, 640, 51.4),
    "rtmdet_x": (_RTMDET, 94_855_572, 141_190, 640, None),
    "rtmdet_tiny_mmdet": (_RTMDET, 4_896_168, 8_036, 640, None),
    "rtmdet_s_mmdet": (_RTMDET, 8_886_924, 14_761, 640, None),
    "rtmdet_m_mmdet": (_RTMDET, 24_709_188, 39_066, 640, None),
    "rtmdet_l_mmdet": (_RTMDET, 52_315_804, 79_899, 640, None),
    "rtmdet_x_mmdet": (_RTMDET, 94_855_572, 141_190, 640, None),
    "yolox_tiny": (_YOLOX, 5_055_855, 3_206, 416, 32.7),
    "yolox_s": (_YOLOX, 8_968_255, 13_343, 640, 40.8),
    "yolox_m": (_YOLOX, 25_326_495, 36_765, 640, None),
    "yolox_l": (_YOLOX, 54_208_895, 77_646, 640, None),
    "yolox_x": (_YOLOX, 99_071_455, 140_705, 640, None),
    "yolox_tiny_mmdet": (_YOLOX, 5_055_855, 3_206, 416, 32.0),
    "yolox_s_mmdet": (_YOLOX, 8_968_255, 13_343, 640, 40.5),
    "yolox_m_mmdet": (_YOLOX, 25_326_495, 36_765, 640, None),
    "yolox_l_mmdet": (_YOLOX, 54_208_895, 77_646, 640, 49.4),
    "yolox_x_mmdet": (_YOLOX, 99_071_455, 140_705, 640, 50.9),
}

# Names under which other programs know a model.
_ALIASES: dict[str, str] = {}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without building it.

    Attributes:
        name: as `create_model` takes it.
        family: the family it belongs to.
        task: what it is for.
        parameters: number of weights, with 80 classes.
        multiply_adds: multiplications (each with its addition) of all convolutions, for one picture of `input_size` x
            `input_size` pixels.
        input_size: longer side of its input in pixels.
        published_ap: box AP (0.50:0.95, percent) on COCO val2017 that the authors' repository publishes for weights of
            theirs, or None.
    """

    name: str
    family: str
    task: Task
    parameters: int
    multiply_adds: int
    input_size: int
    published_ap: float | None


class Family(Protocol):
    """What the class of a family can do besides being a `Detector`."""

    def __call__(self, spec: ModelSpec) -> Detector:
        """Build the network that `spec` describes, with new weights."""
        ...

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant of this family."""
        ...


def list_models() -> list[ModelInfo]:
    """Return one row per model. No network is built."""
    return [
        ModelInfo(
            name=name,
            family=name.split("_")[0],
            task="detection",
            parameters=parameters,
            multiply_adds=multiply_adds * 10**6,
            input_size=input_size,
            published_ap=published_ap,
        )
        for name, (_, parameters, multiply_adds, input_size, published_ap) in _CATALOG.items()
    ]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    activation: Activation | None = None,
    anchors: Anchors | None = None,
) -> Detector:
    """Build a model with new weights, in training mode.

    Args:
        name: Name of the model; `list_models` lists them.
        num_classes: Number of classes, which are then called class_0, class_1, ...; or give their names.
        class_names: Names of the classes; a label is a position in it.
        activation: Activation of the conv blocks, in place of the model's own; only YOLOv5 leaves a choice.
        anchors: Anchors of a model that has such, in place of its own.

    Raises:
        ModelError: the name is unknown; not exactly one of `num_classes` and `class_names` is given; there is no class,
            or two have the same name; the model leaves no choice of its activation.
    """
    spec = default_spec(name, class_names=_class_names(num_classes, class_names), activation=activation)
    if anchors is not None:
        spec = spec.model_copy(update={"anchors": anchors})
    return find_family(spec.name)(spec)


def default_spec(name: str, *, class_names: Sequence[str], activation: Activation | None = None) -> ModelSpec:
    """Return the specification of a new model; no network is built.

    Raises:
        ModelError: the name is unknown, or the model leaves no choice of its activation.
    """
    spec = find_family(name).default_spec(canonical_name(name), class_names)
    if activation is None:
        return spec
    if spec.activation is None:
        raise ModelError(f"'{name}' has its own activations; only YOLOv5 leaves a choice")
    return spec.model_copy(update={"activation": activation})


def canonical_name(name: str) -> str:
    """Return the name in `list_models` for one that other programs use, such as yolov5s; others are returned as is."""
    return _ALIASES.get(name, name)


def find_family(name: str, *, where: str | Path | None = None) -> Family:
    """Return the class that a model of this name is built by; `where` is the file that names it.

    Raises:
        ModelError: the name is unknown.
    """
    row = _CATALOG.get(canonical_name(name))
    if row is None:
        raise ModelError(f"there is no model '{name}'", where=where, fix=did_you_mean(name, [*_CATALOG, *_ALIASES]))
    module, _, attribute = row[0].partition(":")
    return cast(Family, getattr(importlib.import_module(module), attribute))


def _class_names(num_classes: int | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if (num_classes is None) == (class_names is None):
        raise ModelError("a model needs either a number of classes or their names, and not both")
    if class_names is None:
        class_names = [f"class_{number}" for number in range(num_classes or 0)]
    if not class_names:
        raise ModelError(f"a model needs at least one class, not {num_classes or 0}")
    if len(set(class_names)) < len(class_names):
        twice = sorted({name for name in class_names if list(class_names).count(name) > 1})
        raise ModelError(f"two classes have the same name: {', '.join(twice)}")
    return tuple(class_names)

"""Every model by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, cast

from ymir_tmi.errors import ModelError, did_you_mean
from ymir_tmi.models.interface import Activation, Anchors, ClassRows, ModelSpec, Network, Task

_FAST_SCNN = "ymir_tmi.models.families.fast_scnn:FastSCNN"
_FCN_HRNET = "ymir_tmi.models.families.fcn_hrnet:FCNHRNet"
_PPYOLOE = "ymir_tmi.models.families.ppyoloe:PPYOLOE"
_RETINANET = "ymir_tmi.models.families.retinanet:RetinaNet"
_RTMDET = "ymir_tmi.models.families.rtmdet:RTMDet"
_ROTATED_RTMDET = "ymir_tmi.models.families.rotated_rtmdet:RotatedRTMDet"
_YOLOV5 = "ymir_tmi.models.families.yolov5:YOLOv5"
_YOLOV5_SEG = "ymir_tmi.models.families.yolov5_seg:YOLOv5Seg"
_YOLOV6 = "ymir_tmi.models.families.yolov6:YOLOv6"
_YOLOV7 = "ymir_tmi.models.families.yolov7:YOLOv7"
_YOLOV8 = "ymir_tmi.models.families.yolov8:YOLOv8"
_YOLOX = "ymir_tmi.models.families.yolox:YOLOX"

# name: its class, parameters and millions of multiply-adds (80 classes, square input), side of the input in pixels.
_CATALOG: dict[str, tuple[str, int, int, int]] = {
    "fast_scnn": (_FAST_SCNN, 1_468_512, 3_751, 1024),
    "fcn_hrnet_w18_small": (_FCN_HRNET, 3_955_840, 39_508, 1024),
    "fcn_hrnet_w18": (_FCN_HRNET, 9_657_380, 74_780, 1024),
    "fcn_hrnet_w48": (_FCN_HRNET, 65_902_640, 376_635, 1024),
    "ppyoloe_plus_s": (_PPYOLOE, 8_084_594, 8_796, 640),
    "ppyoloe_plus_m": (_PPYOLOE, 24_134_904, 25_617, 640),
    "ppyoloe_plus_l": (_PPYOLOE, 54_078_574, 56_885, 640),
    "ppyoloe_plus_x": (_PPYOLOE, 102_331_508, 107_221, 640),
    "retinanet_r50_fpn": (_RETINANET, 37_915_572, 146_246, 800),
    "retinanet_r101_fpn": (_RETINANET, 56_855_476, 193_595, 800),
    "rtmdet_tiny": (_RTMDET, 4_896_168, 8_036, 640),
    "rtmdet_s": (_RTMDET, 8_886_924, 14_761, 640),
    "rtmdet_m": (_RTMDET, 24_709_188, 39_066, 640),
    "rtmdet_l": (_RTMDET, 52_315_804, 79_899, 640),
    "rtmdet_x": (_RTMDET, 94_855_572, 141_190, 640),
    "rtmdet_tiny_mmdet": (_RTMDET, 4_896_168, 8_036, 640),
    "rtmdet_s_mmdet": (_RTMDET, 8_886_924, 14_761, 640),
    "rtmdet_m_mmdet": (_RTMDET, 24_709_188, 39_066, 640),
    "rtmdet_l_mmdet": (_RTMDET, 52_315_804, 79_899, 640),
    "rtmdet_x_mmdet": (_RTMDET, 94_855_572, 141_190, 640),
    "rotated_rtmdet_tiny": (_ROTATED_RTMDET, 4_896_459, 20_574, 1024),
    "rotated_rtmdet_s": (_ROTATED_RTMDET, 8_887_311, 37_790, 1024),
    "rotated_rtmdet_m": (_ROTATED_RTMDET, 24_709_767, 100_013, 1024),
    "rotated_rtmdet_l": (_ROTATED_RTMDET, 52_316_575, 204_544, 1024),
    "yolov5_n": (_YOLOV5, 1_872_157, 2_234, 640),
    "yolov5_s": (_YOLOV5, 7_235_389, 8_217, 640),
    "yolov5_m": (_YOLOV5, 21_190_557, 24_436, 640),
    "yolov5_l": (_YOLOV5, 46_563_709, 54_497, 640),
    "yolov5_x": (_YOLOV5, 86_749_405, 102_724, 640),
    "yolov5_n6": (_YOLOV5, 3_246_940, 9_118, 1280),
    "yolov5_s6": (_YOLOV5, 12_626_620, 33_595, 1280),
    "yolov5_m6": (_YOLOV5, 35_731_932, 99_824, 1280),
    "yolov5_l6": (_YOLOV5, 76_770_172, 222_470, 1280),
    "yolov5_x6": (_YOLOV5, 140_794_780, 419_129, 1280),
    "yolov5_n_seg": (_YOLOV5_SEG, 1_991_549, 3_535, 640),
    "yolov5_s_seg": (_YOLOV5_SEG, 7_621_277, 13_178, 640),
    "yolov5_m_seg": (_YOLOV5_SEG, 21_990_397, 35_417, 640),
    "yolov5_l_seg": (_YOLOV5_SEG, 47_924_957, 73_856, 640),
    "yolov5_x_seg": (_YOLOV5_SEG, 88_819_517, 132_822, 640),
    "yolov6_n": (_YOLOV6, 4_737_532, 6_076, 640),
    "yolov6_t": (_YOLOV6, 10_628_988, 13_611, 640),
    "yolov6_s": (_YOLOV6, 18_868_988, 24_145, 640),
    "yolov6_m": (_YOLOV6, 37_127_124, 44_298, 640),
    "yolov6_l": (_YOLOV6, 58_531_625, 71_286, 640),
    "yolov6_v3_n": (_YOLOV6, 5_058_236, 6_187, 640),
    "yolov6_v3_t": (_YOLOV6, 11_348_892, 13_862, 640),
    "yolov6_v3_s": (_YOLOV6, 20_147_324, 24_590, 640),
    "yolov6_v3_m": (_YOLOV6, 37_740_948, 46_175, 640),
    "yolov6_v3_l": (_YOLOV6, 59_657_193, 74_733, 640),
    "yolov7_tiny": (_YOLOV7, 6_228_762, 6_850, 640),
    "yolov7_l": (_YOLOV7, 37_622_682, 52_885, 640),
    "yolov7_x": (_YOLOV7, 71_347_394, 94_837, 640),
    "yolov8_n": (_YOLOV8, 3_157_184, 4_371, 640),
    "yolov8_s": (_YOLOV8, 11_166_544, 14_301, 640),
    "yolov8_m": (_YOLOV8, 25_902_624, 39_468, 640),
    "yolov8_l": (_YOLOV8, 43_691_504, 82_574, 640),
    "yolov8_x": (_YOLOV8, 68_229_632, 128_902, 640),
    "yolox_tiny": (_YOLOX, 5_055_855, 3_206, 416),
    "yolox_s": (_YOLOX, 8_968_255, 13_343, 640),
    "yolox_m": (_YOLOX, 25_326_495, 36_765, 640),
    "yolox_l": (_YOLOX, 54_208_895, 77_646, 640),
    "yolox_x": (_YOLOX, 99_071_455, 140_705, 640),
    "yolox_tiny_mmdet": (_YOLOX, 5_055_855, 3_206, 416),
    "yolox_s_mmdet": (_YOLOX, 8_968_255, 13_343, 640),
    "yolox_m_mmdet": (_YOLOX, 25_326_495, 36_765, 640),
    "yolox_l_mmdet": (_YOLOX, 54_208_895, 77_646, 640),
    "yolox_x_mmdet": (_YOLOX, 99_071_455, 140_705, 640),
}

# What families are for that do not find upright boxes.
_TASKS: dict[str, Task] = {
    "rotated_rtmdet": "rotated",
    "yolov5_seg": "instances",
    "fast_scnn": "semantics",
    "fcn_hrnet": "semantics",
}

# Names under which other programs know a model.
_ALIASES: dict[str, str] = {
    f"{family}{size}": f"{family}_{size}"
    for family, _, size in (name.partition("_") for name in _CATALOG)
    if family in ("yolov5", "yolov6", "yolov8") and "_" not in size
} | {f"yolov5{size}-seg": f"yolov5_{size}_seg" for size in "nsmlx"}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without building it.

    Attributes:
        name: as `create_model` takes it.
        family: the family it belongs to.
        task: what it is for.
        parameters: number of weights, with 80 classes.
        multiply_adds: multiplications (each with its addition) of all convolutions, for one picture of `input_size` x
            `input_size` pixels. Where that is the shorter side, a picture of 4:3 takes a third more.
        input_size: longer side of its input in pixels; of RetinaNet and for the task `semantics`, the shorter one.
    """

    name: str
    family: str
    task: Task
    parameters: int
    multiply_adds: int
    input_size: int


class Family(Protocol):
    """What the class of a family can do besides being a `Network`."""

    class_layers: ClassVar[Mapping[str, ClassRows]]
    loss_fields: ClassVar[frozenset[str]]

    def __call__(self, spec: ModelSpec) -> Network:
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
            family=family,
            task=_TASKS.get(family, "detection"),
            parameters=parameters,
            multiply_adds=multiply_adds * 10**6,
            input_size=input_size,
        )
        for name, (place, parameters, multiply_adds, input_size) in _CATALOG.items()
        for family in [place.partition(":")[0].rpartition(".")[2]]
    ]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    activation: Activation | None = None,
    anchors: Anchors | None = None,
) -> Network:
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

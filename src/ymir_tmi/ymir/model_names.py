"""The names that the images know models by (config files, short names) and the model of ours behind each.

A name is found by its last part without suffix, whatever the folder before it and whatever its case: the path of a
config file, its address in the web and its name alone are one. A folder stands for the first of its configs. The names
of our own catalog are understood too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import list_models
from ymir_tmi.ymir.effects import nearest, one_of

_SUFFIXES = (".py", ".yaml", ".yml", ".pt")


@dataclass(frozen=True)
class ModelChoice:
    """What a name says.

    Attributes:
        model: name in the catalog.
        image_size: side of the network's input in pixels, as in `TrainSettings`.
        values: further fields of `TrainSettings`.
        note: a sentence for the log where the name leaves a choice, else empty.
    """

    model: str
    image_size: int | None
    values: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ConfigTable:
    """The names of one image.

    Attributes:
        key: of config.yaml, for messages.
        scope: what the image has, in words.
        configs: paths and short names, and the model that each means; in a folder the first is the one to start with.
        absent: names that the image's documents have and this package has not, and why.
    """

    key: str
    scope: str
    configs: Mapping[str, ModelChoice]
    absent: Mapping[str, str] = field(default_factory=dict)


def find_config(path: str, table: ConfigTable) -> ModelChoice:
    """Return what a config file, its folder or a short name means.

    Args:
        path: such as `configs/yolox/yolox_s_8x8_300e_coco.py`, its address in the web, `yolox_s_8x8_300e_coco`,
            `configs/yolox`, `yolov8_n` or `yolov5s.pt`.
        table: names of the image.

    Raises:
        ConfigError: the image has no such model, or the folder holds several families; with the nearest names.
    """
    name = _last_part(str(path))
    by_name = {choice.model: _choice(choice.model) for choice in table.configs.values()}
    by_name |= {_last_part(config): choice for config, choice in table.configs.items()}
    if name in by_name:
        return by_name[name]
    for absent, reason in table.absent.items():
        if name == _last_part(absent):
            raise ConfigError(f"'{path}': {reason}", where=table.key, fix=nearest(name, _shown(table)))
    inside = [config for config in table.configs if name in PurePosixPath(config.lower()).parent.parts]
    if inside:
        return _first_of(inside, str(path), table)
    fix = nearest(name, _shown(table))
    raise ConfigError(f"'{path}' is unknown; this image has {table.scope}", where=table.key, fix=fix)


def _first_of(configs: list[str], path: str, table: ConfigTable) -> ModelChoice:
    folders = list(dict.fromkeys(str(PurePosixPath(config).parent) for config in configs))
    if len(folders) > 1:
        raise ConfigError(f"'{path}' is a folder of several", where=table.key, fix=f"Give {one_of(folders)}.")
    choice, name = table.configs[configs[0]], PurePosixPath(configs[0]).name
    note = f"{table.key} '{path}' is a folder of {len(configs)} configs; the one to start with is taken: {name}."
    return ModelChoice(choice.model, choice.image_size, choice.values, note)


def _last_part(path: str) -> str:
    """Return the name in lower case without folders, the parts of a web address around it, and suffix."""
    text = urlsplit(path.strip().replace("\\", "/")).path.rstrip("/").lower()
    name = text.rpartition("/")[2]
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _shown(table: ConfigTable) -> list[str]:
    models = {choice.model for choice in table.configs.values()}
    return [*(PurePosixPath(config).name for config in table.configs), *sorted(models)]


@cache
def _input_sizes() -> dict[str, int]:
    return {info.name: info.input_size for info in list_models()}


def _choice(model: str, **values: Any) -> ModelChoice:
    return ModelChoice(model, _input_sizes()[model], values)


def _table(key: str, scope: str, rows: Iterable[tuple[str, ModelChoice]], **absent: str) -> ConfigTable:
    return ConfigTable(key, scope, dict(rows), absent)


def _mmyolo() -> list[tuple[str, ModelChoice]]:
    """Return the configs by family, the smallest size first, then the short names."""
    patterns = {
        "yolov8/yolov8_{}_syncbn_8xb16-500e_coco": "n s m l x",
        "yolov8/yolov8_{}_syncbn_fast_8xb16-500e_coco": "n s m l x",
        "yolov7/yolov7_{}_syncbn_fast_8x16b-300e_coco": "tiny l x",
        "yolov6/yolov6_{}_syncbn_fast_8xb32-400e_coco": "n t s m",
        "yolov6/yolov6_{}_syncbn_fast_8xb32-300e_coco": "m l",
        "yolov5/yolov5_{}-v61_syncbn_fast_8xb16-300e_coco": "n s m l x",
        "yolox/yolox_{}_8xb8-300e_coco": "tiny s m l x",
        "yolox/yolox_{}_fast_8xb8-300e_coco": "tiny s m l x",
        "ppyoloe/ppyoloe_plus_{}_fast_8xb8-80e_coco": "s m l x",
        "rtmdet/rtmdet_{}_syncbn_fast_8xb32-300e_coco": "tiny s m l x",
    }
    rows = []
    for pattern, sizes in patterns.items():
        family = PurePosixPath(pattern).name.partition("_{}")[0]
        rows += [(f"configs/{pattern.format(size)}.py", _choice(f"{family}_{size}")) for size in sizes.split()]
    for size in ["n", "s", "m", "l", "x"]:
        choice = _choice(f"yolov5_{size}6")
        rows += [(f"configs/yolov5/yolov5_{size}-p6-v62_syncbn_fast_8xb16-300e_coco.py", choice)]
        rows += [(f"yolov5_{size}-p6", choice)]
    return rows


def _mmrotate() -> list[tuple[str, ModelChoice]]:
    rows = []
    for size in ["tiny", "s", "m", "l"]:
        choice = _choice(f"rotated_rtmdet_{size}")
        folder = "configs/rotated_rtmdet/rotated_rtmdet"
        rows += [(f"{folder}_{size}-3x-dota.py", choice), (f"{folder}_{size}-3x-dota_ms.py", choice)]
        rows += [(f"rtmdet_{size}", choice)]
    return rows


def _mmseg() -> list[tuple[str, ModelChoice]]:
    fast_scnn = "configs/fastscnn/fast_scnn_lr0.12_8x4_160k_cityscapes.py"
    hrnets = [
        (f"configs/hrnet/fcn_hr{size}_512x1024_{length}_cityscapes.py", _choice(model, recipe=length))
        for length in ["40k", "80k", "160k"]
        for size, model in (
            ("18s", "fcn_hrnet_w18_small"),
            ("18", "fcn_hrnet_w18"),
            ("48", "fcn_hrnet_w48"),
        )
    ]
    return [(fast_scnn, _choice("fast_scnn")), *hrnets]


def _detectron2() -> list[tuple[str, ModelChoice]]:
    rows = (("R_50", "1x"), ("R_50", "3x"), ("R_101", "3x"))
    return [
        (
            f"configs/COCO-Detection/retinanet_{depth}_FPN_{length}.yaml",
            _choice(f"retinanet_{depth.replace('_', '').lower()}_fpn", recipe=length),
        )
        for depth, length in rows
    ]


_NANO = "YOLOX-nano has no published weights in mmdetection, and this package has no such model; the next is yolox_tiny"
_NOT_ROTATED = "this image has rotated RTMDet only; the document that names others is mmyolo's"

MMDET_CONFIGS = _table(
    "config_file",
    "YOLOX",
    [
        (f"configs/yolox/yolox_{size}_8x8_300e_coco.py", _choice(f"yolox_{size}_mmdet"))
        for size in ["tiny", "s", "m", "l", "x"]
    ],
    yolox_nano_8x8_300e_coco=_NANO,
    yolox_nano=_NANO,
)
MMYOLO_MODELS = _table(
    "model_name",
    "YOLOv5 to YOLOv8, YOLOX, PP-YOLOE+ and RTMDet",
    _mmyolo(),
)
MMROTATE_MODELS = _table(
    "model_name",
    "rotated RTMDet",
    _mmrotate(),
    **dict.fromkeys(("yolov8_n", "yolov7_tiny", "yolov5_m", "yolov6_t", "ppyoloe_plus_s"), _NOT_ROTATED),
)
DETECTRON2_CONFIGS = _table("config_file", "RetinaNet", _detectron2())
MMSEG_CONFIGS = _table("config_file", "FastSCNN and FCN-HRNet", _mmseg())
YOLOV5_MODELS = _table(
    "model",
    "YOLOv5",
    [(f"yolov5{size}{six}", _choice(f"yolov5_{size}{six}")) for six in ("", "6") for size in "nsmlx"],
)
YOLOV5_SEG_MODELS = _table(
    "model", "YOLOv5-seg", [(f"yolov5{size}-seg", _choice(f"yolov5_{size}_seg")) for size in "nsmlx"]
)

"""Checkpoints of other programs: which one wrote a file, and its tensors under that program's names.

Facts: docs/specs/yolov5.md, section 15, and docs/specs/retinanet.md. No code of a file is run (`pickle_machine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ymir_tmi.errors import ModelError
from ymir_tmi.models.convert.records import ArrayRecord, Record, RefusedError, TensorRecord
from ymir_tmi.models.convert.torch_file import OpenedFile, open_checkpoint

Kind = Literal["mm", "yolov5", "yolox", "detectron2", "caffe2", "state_dict"]

KINDS: dict[Kind, str] = {
    "mm": "mmengine or mmcv",
    "yolov5": "modules of YOLOv5 or its kin",
    "yolox": "YOLOX",
    "detectron2": "Detectron2",
    "caffe2": "Caffe2 backbone",
    "state_dict": "plain state dict",
}
"""What a person calls each kind."""

# Tensors may share their numbers, as those of the levels of an RTMDet head do, but not without end.
_MAX_SHARING = 4
_MAX_PARTS = 100_000  # modules, parameters and buffers
_MAX_PATH = 300  # characters of a parameter's name
_MAX_STRIDES = 200  # bytes


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What is of use in a checkpoint of another program.

    Attributes:
        path: the file.
        kind: the program that wrote it.
        tensors: the weights under that program's names; floating-point ones as float32.
        class_names: the classes, where the file names them.
        strides: pixels per cell of each level, where the file tells.
        activations: kinds of activation modules after convolutions, where the file holds modules.
        short_names: whether names are to be matched to the ends of a model's names (Detectron2's matching heuristics).
        notes: what a user should know of it.
        not_called: what the file asks to be called; it was not.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    strides: tuple[int, ...] | None = None
    activations: frozenset[str] = frozenset()
    short_names: bool = False
    notes: tuple[str, ...] = ()
    not_called: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """Where the weights are in what a file holds, and what was read beside them."""

    kind: Kind
    weights: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> ForeignCheckpoint:
    """Read the weights of a checkpoint that another program wrote.

    Raises:
        ModelError: the file is missing, is no checkpoint or of none of these kinds, is damaged, or is made to do harm.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError("this is a folder, not a file" if path.is_dir() else "there is no such file", where=path)
    try:
        with open_checkpoint(path) as opened:
            found = _recognise(opened)
            tensors = _read_tensors(found.weights, opened)
            if not tensors:
                raise RefusedError("holds no weights")
            return ForeignCheckpoint(path, found.kind, tensors, not_called=opened.not_called, **found.facts)
    except RefusedError as error:
        raise ModelError(f"this file {error}", where=path) from error
    except OSError as error:
        raise ModelError(f"cannot read this file: {error.strerror or error}", where=path) from error


def _recognise(opened: OpenedFile) -> _Found:
    content = opened.content
    if isinstance(content, Record):
        return _from_module(content, opened)
    if type(content) is not dict:
        raise RefusedError("holds no checkpoint that is known here")
    for key in ("ema", "model"):
        if isinstance(content.get(key), Record):
            return _from_module(content[key], opened)
    if type(content.get("state_dict")) is dict:
        return _from_mm(content)
    if type(content.get("model")) is dict:
        return _from_model_entry(content, opened)
    if opened.form == "pickle":
        blobs = content.get("blobs", content)
        return _Found("caffe2", blobs if type(blobs) is dict else {}, {"short_names": True})
    return _Found("state_dict", content)


def _from_mm(content: Mapping[str, Any]) -> _Found:
    """Take the weights of a checkpoint of mmengine or mmcv 1.

    Where weights were averaged, `state_dict` holds the averages: mmengine swaps the two when it saves, and mmcv keeps
    the others as buffers `ema_...` beside them.
    """
    weights = {key: value for key, value in content["state_dict"].items() if not str(key).startswith("ema_")}
    meta = content.get("meta")
    if type(meta) is not dict:
        return _Found("state_dict", weights)
    described = meta.get("dataset_meta")
    places = [described if type(described) is dict else {}, meta]
    names = [place[key] for place in places for key in ("classes", "CLASSES") if place.get(key)]
    return _Found("mm", weights, {"class_names": _as_names(names[0])} if names else {})


def _from_model_entry(content: Mapping[str, Any], opened: OpenedFile) -> _Found:
    """Take a state dict that lies under "model"; the names of the weights say whose it is."""
    weights = content["model"]
    if any(str(key).startswith(("backbone.backbone.", "module.backbone.backbone.")) for key in weights):
        return _Found("yolox", weights)
    if opened.form == "torch" and not any("backbone.bottom_up." in str(key) for key in weights):
        return _Found("state_dict", weights)
    facts: dict[str, Any] = {"short_names": bool(content.get("matching_heuristics"))}
    if content.get("__author__") == "torchvision":
        facts["notes"] = (
            "this backbone comes from torchvision: it was trained on RGB with other strides than a RetinaNet of "
            "Detectron2 has, and is a weaker start than one of Detectron2",
        )
    return _Found("detectron2", weights, facts)


def _from_module(module: Record, opened: OpenedFile) -> _Found:
    """Take the weights of a pickled module, and what YOLOv5 notes on it."""
    if not _group(module, "_modules"):
        raise RefusedError("holds no checkpoint that is known here")
    attributes = _attributes(module)
    weights: dict[str, Any] = {}
    activations: set[str] = set()
    for path, part in _walk(module):
        if path.endswith(".act."):
            activations.add(_activation(part))
        weights |= {path + name: value for name, value in _own_weights(part)}
    facts: dict[str, Any] = {"activations": frozenset(activations)}
    if attributes.get("names"):
        facts["class_names"] = _as_names(attributes["names"])
    stride = attributes.get("stride")
    if isinstance(stride, TensorRecord) and stride.bytes <= _MAX_STRIDES:
        facts["strides"] = tuple(_read_tensors({"stride": stride}, opened)["stride"].flatten().int().tolist())
    return _Found("yolov5", weights, facts)


def _walk(root: Record) -> Iterator[tuple[str, Record]]:
    """Yield a module and those inside it, with the paths that lead to them."""
    pending = [("", root)]
    left = _MAX_PARTS
    while pending:
        path, module = pending.pop()
        left -= 1 + sum(len(_group(module, name)) for name in ("_parameters", "_buffers", "_modules"))
        if left < 0 or len(path) > _MAX_PATH:
            raise RefusedError("has modules inside modules without end")
        yield path, module
        inner = _group(module, "_modules").items()
        pending += [(f"{path}{name}.", part) for name, part in inner if isinstance(part, Record)]


def _own_weights(module: Record) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and lasting buffers of one module."""
    fleeting = _attributes(module).get("_non_persistent_buffers_set")
    for name, value in [*_group(module, "_parameters").items(), *_group(module, "_buffers").items()]:
        if type(fleeting) is not set or name not in fleeting:
            yield str(name), value


def _attributes(module: Record) -> dict[Any, Any]:
    return module.state if type(module.state) is dict else {}


def _group(module: Record, name: str) -> dict[Any, Any]:
    """Return the parameters, buffers or modules of a module, by name."""
    group = _attributes(module).get(name)
    return group if type(group) is dict else {}


def _activation(module: Record) -> str:
    """Return the class of an activation module, with its slope where that is not the usual one."""
    name = str(module.kind).rpartition(".")[2]
    slope = _attributes(module).get("negative_slope", 0.1)
    return ascii(name if slope == 0.1 else f"{name} of another slope")[1:-1]


def _as_names(value: Any) -> tuple[str, ...] | None:
    """Return class names that are a list, or a dict by number; one class may be given by its bare name."""
    if type(value) is dict:
        if sorted(key for key in value if type(key) is int) != list(range(len(value))):
            return None
        value = [value[number] for number in range(len(value))]
    if type(value) is str:
        value = [value]
    if type(value) not in (list, tuple) or not all(type(name) in (str, int) for name in value):
        return None
    return tuple(str(name) for name in value)


def _read_tensors(weights: Mapping[Any, Any], opened: OpenedFile) -> dict[str, Tensor]:
    kept = {key: value for key, value in weights.items() if type(key) is str and _is_tensor(value)}
    if any(len(key) > _MAX_PATH or not key.isprintable() for key in kept):
        raise RefusedError("has names that are no names of weights")
    if sum(record.bytes for record in kept.values()) > _MAX_SHARING * opened.size:
        raise RefusedError("has more tensors than numbers to fill them")
    storages: dict[str, Tensor] = {}
    tensors = {key: _to_tensor(record, opened, storages) for key, record in kept.items()}
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RefusedError(f"has numbers that are not finite, in '{key}'")
    return tensors


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TensorRecord) or (isinstance(value, ArrayRecord) and value.dtype is not None)


def _to_tensor(record: TensorRecord | ArrayRecord, opened: OpenedFile, storages: dict[str, Tensor]) -> Tensor:
    """Return the tensor of a record, floating-point numbers as float32; `storages` are those read before."""
    tensor = _view(record, opened, storages) if isinstance(record, TensorRecord) else _from_array(record)
    return tensor.float() if tensor.is_floating_point() else tensor


def _view(record: TensorRecord, opened: OpenedFile, storages: dict[str, Tensor]) -> Tensor:
    key, kind = record.storage.key, getattr(torch, record.storage.type)
    if record.bytes == 0:
        return torch.empty(record.shape, dtype=kind)
    if key not in storages:
        storages[key] = torch.frombuffer(bytearray(opened.read(record.storage)), dtype=kind)
    return storages[key].as_strided(record.shape, record.stride, record.offset)


def _from_array(record: ArrayRecord) -> Tensor:
    numbers = np.frombuffer(record.data, np.dtype(record.dtype))
    shaped = numbers.reshape(record.shape, order="F" if record.fortran else "C")
    return torch.from_numpy(shaped.astype(shaped.dtype.newbyteorder("="), order="C", copy=True))

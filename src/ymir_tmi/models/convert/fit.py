"""From the checkpoint of another program to a model of this one: names, classes, and whether everything fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ymir_tmi.config.schema import Activation
from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import default_spec, find_family, list_models
from ymir_tmi.models.convert.caffe2 import from_caffe2
from ymir_tmi.models.convert.cityscapes import CITYSCAPES_CLASSES
from ymir_tmi.models.convert.coco import COCO_CLASSES
from ymir_tmi.models.convert.containers import KINDS, ForeignCheckpoint
from ymir_tmi.models.convert.dota import DOTA_CLASSES
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.convert.megvii import from_megvii
from ymir_tmi.models.interface import ClassRows, ModelSpec, Network, Task

_SHOWN = 4
_MAX_CLASSES = 20_000

# What checkpoints hold beside weights: momenta, anchors (they go into the specification), pixel means.
_ANCHORS = r"model\.\d+\.anchors"
_NO_WEIGHTS = re.compile(rf"{_ANCHORS}|model\.\d+\.anchor_grid|pixel_(mean|std)|(.+\.)?cell_anchors\.\d+|.+_momentum")
_COUNTER = "num_batches_tracked"

# Classes of official checkpoints for a task, where they are not those of COCO, and what they are called together.
_USUAL: dict[Task, tuple[tuple[str, ...], str]] = {
    "rotated": (DOTA_CLASSES, "DOTA v1.0"),
    "semantics": (CITYSCAPES_CLASSES, "Cityscapes"),
}

_ACTIVATIONS: dict[str, Activation] = {
    "SiLU": "silu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Hardswish": "hardswish",
}


@dataclass(frozen=True)
class FittedModel:
    """A model with the weights of a checkpoint.

    Attributes:
        model: in evaluation mode, on the CPU.
        loaded: tensors of the model that the file has.
        new: tensors of the model that the file lacks, and that keep the values of a new model.
        unused: tensors of the file that the model has no place for.
        notes: what a user should know.
    """

    model: Network
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]


class _Given(NamedTuple):
    """A tensor of the file, and what the file calls it."""

    key: str
    tensor: Tensor


def fit_checkpoint(
    checkpoint: ForeignCheckpoint, name: str, *, class_names: Sequence[str] = (), allow_partial: bool = False
) -> FittedModel:
    """Build the model `name` with the weights of a checkpoint.

    Args:
        checkpoint: what `read_checkpoint` returned.
        name: name of the model.
        class_names: the classes, in place of those that the file names.
        allow_partial: whether the file may lack weights, which then keep the values of a new model, or have others.

    Raises:
        ModelError: there is no such model, or the file does not fit it; the message says what differs.
    """
    family = find_family(name)
    plain_spec = default_spec(name, class_names=("any",))
    _require_form(checkpoint, plain_spec.name)
    _require_task(checkpoint, plain_spec)
    given = _rename(checkpoint, plain_spec)
    rows = _count_classes(given, family.class_layers)
    if rows is not None and rows > _MAX_CLASSES:
        raise ModelError(f"this file has rows for {rows} classes", where=checkpoint.path)
    names, notes = _choose_classes(checkpoint, class_names, rows, plain_spec.task)
    spec = _specify(checkpoint, name, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = family(spec).eval()
    if checkpoint.strides is not None and checkpoint.strides != model.strides:
        raise ModelError(
            f"the levels of this file have strides {checkpoint.strides}, those of {spec.name} {model.strides}",
            where=checkpoint.path,
        )
    comparison = _compare(model.state_dict(), given)
    if not (comparison.fits or (allow_partial and comparison.helps)):
        raise ModelError(comparison.describe(spec.name, checkpoint), where=checkpoint.path, fix=comparison.advice())
    state = model.state_dict()
    for own in comparison.loaded:
        state[own].copy_(given[own].tensor)
    return FittedModel(
        model,
        comparison.loaded,
        (*comparison.missing, *comparison.misshapen),
        (*comparison.unexpected, *(given[own].key for own in comparison.misshapen)),
        (*checkpoint.notes, *notes),
    )


def _require_form(checkpoint: ForeignCheckpoint, name: str) -> None:
    """Refuse a file of mmdet for a model in mmyolo's form, and the other way round.

    Names and shapes are the same here, but not what the numbers mean (docs/specs/detectors.md, section 9).
    """
    heads = [key for key in checkpoint.tensors if "bbox_head." in key]
    other = name.removesuffix("_mmdet") if name.endswith("_mmdet") else f"{name}_mmdet"
    if not heads or other not in {row.name for row in list_models()}:
        return
    of_mmdet = not any("bbox_head.head_module." in key for key in heads)
    if of_mmdet != name.endswith("_mmdet"):
        raise ModelError(
            f"this file is of {'mmdet' if of_mmdet else 'mmyolo'}, and '{name}' is not",
            where=checkpoint.path,
            fix=f"Choose the model {other} (--model).",
        )


def _require_task(checkpoint: ForeignCheckpoint, spec: ModelSpec) -> None:
    """Refuse a file of YOLOv5-seg for YOLOv5, and the other way round: rows of masks would be taken for classes."""
    if checkpoint.kind != "yolov5" or spec.family not in ("yolov5", "yolov5_seg"):
        return
    has_masks = any(".proto." in key for key in checkpoint.tensors)
    if has_masks != (spec.task == "instances"):
        other = f"{spec.name.removesuffix('6')}_seg" if has_masks else spec.name.removesuffix("_seg")
        raise ModelError(
            f"this file is of a model {'with' if has_masks else 'without'} masks, and '{spec.name}' is not",
            where=checkpoint.path,
            fix=f"Choose the model {other} (--model); training starts from what fits of it.",
        )


def _rename(checkpoint: ForeignCheckpoint, spec: ModelSpec) -> dict[str, _Given]:
    """Return the weights under our names.

    Raises:
        ModelError: two tensors that are one here differ.
    """
    rename = _renamer(checkpoint, spec)
    wrapped = all(key.startswith("module.") for key in checkpoint.tensors)
    found: dict[str, _Given] = {}
    for key, tensor in checkpoint.tensors.items():
        bare = key.removeprefix("module.") if wrapped else key
        if _NO_WEIGHTS.fullmatch(bare):
            continue
        given = _Given(key, tensor)
        first = found.setdefault(rename(bare), given)
        if first is not given and not torch.equal(first.tensor, tensor):
            raise ModelError(
                f"'{first.key}' and '{key}' are one tensor in this model and differ in the file", where=checkpoint.path
            )
    return found


def _renamer(checkpoint: ForeignCheckpoint, spec: ModelSpec) -> Callable[[str], str]:
    def official(key: str) -> str:
        return from_official(spec.family, key, spec.name)

    if checkpoint.kind == "yolox":
        return lambda key: official(from_megvii(key))
    if not checkpoint.short_names:
        return official
    # A name stands for the end of that of the model; all such files hold backbones.
    long = from_caffe2 if checkpoint.kind == "caffe2" else str
    return lambda key: official("backbone.bottom_up." + long(key).removeprefix("backbone.bottom_up."))


def _count_classes(given: Mapping[str, _Given], class_layers: Mapping[str, ClassRows]) -> int | None:
    """Return for how many classes the file has rows, or None where it has no layer with such."""
    for name, (_, tensor) in given.items():
        layout = next((rows for layer, rows in class_layers.items() if name.startswith(layer)), None)
        if layout is not None and name.endswith(".bias"):
            count = layout.count_classes(tensor.numel())
            return count if count > 0 else None
    return None


def _choose_classes(
    checkpoint: ForeignCheckpoint, chosen: Sequence[str], rows: int | None, task: Task
) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the classes, and what is to be said about them."""
    if chosen:
        if rows is not None and len(chosen) != rows:
            raise ModelError(
                f"{len(chosen)} classes are given, and this file has rows for {rows}", where=checkpoint.path
            )
        _require_usable(chosen, checkpoint)
        return tuple(chosen), []
    named = checkpoint.class_names
    if named is not None and (rows is None or len(named) == rows):
        _require_usable(named, checkpoint)
        return named, []
    notes = [f"the file names {len(named)} classes and has rows for {rows}, so its names are not used"] if named else []
    usual, origin = _USUAL.get(task, (COCO_CLASSES, "COCO"))
    if rows == len(usual):
        return usual, [*notes, f"the classes are taken to be the {rows} of {origin}"]
    unnamed = tuple(f"class_{number}" for number in range(rows or 1))
    return unnamed, [*notes, "the classes have no names in this file; --classes gives them some"]


def _require_usable(names: Sequence[str], checkpoint: ForeignCheckpoint) -> None:
    strange = [name for name in names if not name.isprintable() or not name or list(names).count(name) > 1]
    if strange:
        raise ModelError(
            f"a name of a class is empty, not printable or there twice: {strange[0][:40]!r}",
            where=checkpoint.path,
            fix="Give names by --classes.",
        )


def _specify(checkpoint: ForeignCheckpoint, name: str, class_names: tuple[str, ...]) -> ModelSpec:
    """Return the model's specification with the activation and the anchors that the file tells of."""
    spec = default_spec(name, class_names=class_names)
    activation = _activation(checkpoint) if spec.activation is not None else None
    anchors = _anchors(checkpoint, spec) if spec.anchors is not None else None
    return spec.model_copy(update={"activation": activation or spec.activation, "anchors": anchors or spec.anchors})


def _activation(checkpoint: ForeignCheckpoint) -> Activation | None:
    kinds = checkpoint.activations - {"Identity"}
    if not kinds:
        return None
    if len(kinds) > 1 or not kinds <= _ACTIVATIONS.keys():
        raise ModelError(
            f"the activations of this network are {', '.join(sorted(kinds))}; a model here has one kind, of "
            f"{', '.join(_ACTIVATIONS)}",
            where=checkpoint.path,
        )
    return _ACTIVATIONS[next(iter(kinds))]


def _anchors(checkpoint: ForeignCheckpoint, spec: ModelSpec) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    """Return the anchors in pixels; YOLOv5 keeps them in cells (docs/specs/yolov5.md, section 3)."""
    stored = next((value for key, value in checkpoint.tensors.items() if re.search(rf"{_ANCHORS}$", key)), None)
    if stored is None or spec.anchors is None:
        return None
    shape = (len(spec.anchors), len(spec.anchors[0]), 2)
    if stored.shape != shape:
        raise ModelError(
            f"the anchors of this file are {list(stored.shape)}, those of {spec.name} {list(shape)}",
            where=checkpoint.path,
        )
    strides = checkpoint.strides or [8 * 2**level for level in range(len(stored))]
    pixels = stored * torch.tensor(strides).view(-1, 1, 1)
    return tuple(tuple((width, height) for width, height in level) for level in pixels.tolist())


@dataclass(frozen=True)
class _Comparison:
    """Names of tensors: those that fit, those only the model has, those only the file has, those of another shape."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    shapes: Mapping[str, str]
    helps: bool
    """Whether a matrix or a kernel fits; a bias or a counter may do so by chance."""

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    def describe(self, name: str, checkpoint: ForeignCheckpoint) -> str:
        """Return what differs, the first few of each kind."""
        head = f"this file ({KINDS[checkpoint.kind]}) does not fit the model '{name}'"
        if not self.helps:
            head = f"nothing in this file ({KINDS[checkpoint.kind]}) fits the model '{name}'"
        shapes = [f"{key} {self.shapes[key]}" for key in self.misshapen]
        lines = [
            f"\n  {len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
            for what, names in (
                ("missing", list(self.missing)),
                ("not in the model", [key[:80] for key in self.unexpected]),
                ("of another shape", shapes),
            )
            if names
        ]
        return head + "".join(lines)

    def advice(self) -> str:
        if self.helps and not self.misshapen:
            return "Choose another --model, or take what fits by --partial."
        return "Choose another --model."


def _compare(own: Mapping[str, Tensor], given: Mapping[str, _Given]) -> _Comparison:
    """Compare names and shapes. Counters of batch norms may be missing, or be there for norms that count nothing."""
    both = [name for name in own if name in given]
    misshapen = [name for name in both if own[name].shape != given[name].tensor.shape]
    loaded = tuple(name for name in both if own[name].shape == given[name].tensor.shape)
    return _Comparison(
        loaded=loaded,
        missing=tuple(name for name in own if name not in given and not name.endswith(_COUNTER)),
        unexpected=tuple(value.key for name, value in given.items() if name not in own and not name.endswith(_COUNTER)),
        misshapen=tuple(misshapen),
        shapes={
            name: f"({list(given[name].tensor.shape)}, in the model {list(own[name].shape)})" for name in misshapen
        },
        helps=any(own[name].ndim > 1 for name in loaded),
    )

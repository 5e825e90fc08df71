"""Model files: one safetensors file that says itself what it is.

The metadata entry `ymir_tmi` is JSON: `{"format": 1, "spec": ModelSpec, "licence": str | null, "extra": {str: str}}`.
Reading one executes no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ymir_tmi.errors import ModelError
from ymir_tmi.files.atomic import atomic_path
from ymir_tmi.models.catalog import find_family
from ymir_tmi.models.interface import ClassRows, ModelSpec, Network

_FORMAT = 1
_ENTRY = "ymir_tmi"


@dataclass(frozen=True)
class ModelFileInfo:
    """What a model file says of itself.

    Attributes:
        spec: variant, classes, input and post-processing.
        licence: licence of the weights, as whoever saved them stated it, or None.
        extra: whatever else was stored with them.
    """

    spec: ModelSpec
    licence: str | None
    extra: Mapping[str, str]


@dataclass(frozen=True)
class TransferReport:
    """What `transfer_weights` did.

    Attributes:
        loaded: tensors that were copied whole.
        classes: classes whose classifier rows were copied.
        skipped: tensors of the model that keep their values, because the file has none of that name and shape.
    """

    loaded: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


def save_model(
    model: Network, path: str | Path, *, licence: str | None = None, extra: Mapping[str, str] | None = None
) -> None:
    """Write the weights of `model` and all that is needed to use them into one file, atomically.

    Args:
        model: any model but a fused one.
        path: the file, by convention *.safetensors.
        licence: licence of the weights.
        extra: more to store, e.g. where the weights came from.
    """
    content = {
        "format": _FORMAT,
        "spec": model.spec.model_dump(mode="json"),
        "licence": licence,
        "extra": dict(extra or {}),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"format": "pt", _ENTRY: json.dumps(content)})


def load_model(path: str | Path) -> Network:
    """Build the model that a file describes, with its weights, in evaluation mode, on the CPU.

    Raises:
        ModelError: the file is missing, is not a model file of this package, is damaged, or was written by a newer
            version.
    """
    info = read_model_info(path)
    model = find_family(info.spec.name, where=path)(info.spec)
    tensors = _read_tensors(Path(path))
    _check_shapes(model.state_dict(), tensors, Path(path))
    model.load_state_dict(tensors)
    return model.eval()


def read_model_info(path: str | Path) -> ModelFileInfo:
    """Read what a model file says of itself; the weights are not read.

    Raises:
        ModelError: as `load_model`.
    """
    path = Path(path)
    with _open(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
    if _ENTRY not in metadata:
        raise ModelError(
            "this safetensors file was not written by ymir-tmi, so it does not say which model it belongs to",
            where=path,
        )
    content = _parse(metadata[_ENTRY], path)
    if content["format"] > _FORMAT:
        raise ModelError(
            f"this model file has format {content['format']}, and this version reads formats up to {_FORMAT}",
            where=path,
            fix="Update ymir-tmi.",
        )
    try:
        spec = ModelSpec.model_validate(content.get("spec"))
    except ValidationError as error:
        raise ModelError(f"the specification in this model file is damaged: {error}", where=path) from error
    return ModelFileInfo(spec, content.get("licence"), content.get("extra", {}))


def transfer_weights(model: Network, path: str | Path) -> TransferReport:
    """Copy what fits from a model file into `model`, to train on from there.

    Tensors of the same name and shape are copied. Of the rows for classes, only those of classes that both know by the
    same name are; the others keep the values of a new model.

    Raises:
        ModelError: as `load_model`; or nothing fits.
    """
    path = Path(path)
    source_names = read_model_info(path).spec.class_names
    own_names = model.spec.class_names
    shared = [name for name in own_names if name in source_names]

    source = _read_tensors(path)
    loaded, skipped = [], []
    for name, own in model.state_dict().items():
        given = source.get(name)
        layout = next((rows for layer, rows in model.class_layers.items() if name.startswith(layer)), None)
        if given is not None and layout is not None and _fit_but_for_classes(given, own, layout, len(source_names)):
            rows = given.movedim(layout.dim, 0)[_rows(layout, source_names, shared)]
            own.movedim(layout.dim, 0)[_rows(layout, own_names, shared)] = rows.to(own)
        elif given is not None and given.shape == own.shape:
            own.copy_(given)
            loaded.append(name)
        else:
            skipped.append(name)
    if not loaded:
        raise ModelError(f"nothing in this file fits the model '{model.spec.name}'", where=path)
    return TransferReport(tuple(loaded), tuple(shared), tuple(skipped))


def _fit_but_for_classes(given: Tensor, own: Tensor, layout: ClassRows, classes: int) -> bool:
    """Return whether `given` has rows as the layout says, for so many classes; a model of another task has others."""
    (rows, *rest), (_, *own_rest) = (tensor.movedim(layout.dim, 0).shape for tensor in (given, own))
    return rest == own_rest and layout.count_classes(rows) == classes


def _rows(layout: ClassRows, class_names: Sequence[str], chosen: Sequence[str]) -> list[int]:
    """Return the rows of the chosen classes, and those of no class, in a layer for all of `class_names`."""
    end = layout.others + len(class_names)
    classes = (layout.others + class_names.index(name) for name in chosen)
    within = [*range(layout.others), *classes, *range(end, end + layout.behind)]
    return [anchor * (end + layout.behind) + row for anchor in range(layout.anchors) for row in within]


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ModelError("there is no such model file", where=path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"this is not a model file, or it is cut short: {error}",
            where=path,
            fix="Give a .safetensors file that `ymir-tmi train` or `ymir-tmi weights convert` wrote.",
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the description in this model file is damaged: {error}", where=path) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise ModelError("the description in this model file is damaged: it has no format number", where=path)
    return content


def _check_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Compare names and shapes, to report the first difference rather than all of them."""
    for name in [*own, *given]:
        want, have = (list(side[name].shape) if name in side else "nothing" for side in (own, given))
        if want != have:
            raise ModelError(f"the weights do not fit their model: '{name}' is {have}, expected {want}", where=path)

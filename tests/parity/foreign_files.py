"""Checkpoints as other programs write them, made from the lists of their keys; no original file is at hand."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import goldenlib
import pytest
import torch
from torch import Tensor, nn


def weights_for(keys: Iterable[tuple[str, Sequence[int]]]) -> dict[str, Tensor]:
    """Return generated weights for keys and shapes."""
    return {key: torch.from_numpy(goldenlib.tensor_for(key, tuple(shape))) for key, shape in keys}


def save_yolov5(
    path: Path,
    weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    *,
    names: Any,
    activation: type[nn.Module] = nn.SiLU,
    strides: Sequence[float] = (8, 16, 32),
) -> None:
    """Write weights as YOLOv5 does: a tree of modules in half precision, of classes that only its own code has."""
    kind = _foreign_class(monkeypatch, "models.yolo", "DetectionModel")
    model = kind()
    for key, tensor in weights.items():
        *path_to, name = key.split(".")
        part = model
        for inner in path_to:
            if inner not in part._modules:
                part.add_module(inner, kind())
            part = part._modules[inner]
        if "running" in name or "num_batches" in name or name == "anchors":
            part.register_buffer(name, tensor)
        else:
            part.register_parameter(name, nn.Parameter(tensor))
    for part in list(model.modules()):
        if "bn" in part._modules:
            part.add_module("act", activation())
            part.register_buffer("scratch", torch.zeros(7), persistent=False)
    model.half()
    model.names, model.stride, model.yaml = names, torch.tensor(strides), {"nc": len(names)}
    torch.save({"epoch": -1, "best_fitness": None, "model": model, "ema": None, "optimizer": None}, path)
    monkeypatch.undo()


def _foreign_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> type[nn.Module]:
    kind = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
    for part in ("models", module):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    setattr(sys.modules[module], name, kind)
    return kind


def save_mm(
    path: Path, weights: dict[str, Tensor], names: Sequence[str], *, old: bool = False, palette: Any = None
) -> None:
    """Write weights as mmengine does, or, `old`, as mmcv 1 does, with colours of the classes where there are some."""
    own = {"CLASSES": tuple(names), "PALETTE": palette} if palette else {"CLASSES": tuple(names)}
    meta = own if old else {"dataset_meta": {"classes": tuple(names)}, "epoch": 300}
    content = {"meta": meta, "state_dict": OrderedDict(weights)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)


def megvii_keys(classes: int, width: int, counts: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return keys and shapes of a YOLOX of its authors: `width` channels after the stem, `counts` blocks a stage."""
    keys: list[tuple[str, tuple[int, ...]]] = []

    def conv(name: str, before: int, after: int, kernel: int = 1) -> None:
        keys.append((f"{name}.conv.weight", (after, before, kernel, kernel)))
        keys.extend((f"{name}.bn.{part}", (after,)) for part in ("weight", "bias", "running_mean", "running_var"))
        keys.append((f"{name}.bn.num_batches_tracked", ()))

    def layer(name: str, before: int, after: int, count: int) -> None:
        conv(f"{name}.conv1", before, after // 2)
        conv(f"{name}.conv2", before, after // 2)
        conv(f"{name}.conv3", after, after)
        for number in range(count):
            conv(f"{name}.m.{number}.conv1", after // 2, after // 2)
            conv(f"{name}.m.{number}.conv2", after // 2, after // 2, 3)

    backbone, levels = "backbone.backbone", [4 * width, 8 * width, 16 * width]
    conv(f"{backbone}.stem.conv", 12, width, 3)
    for stage, count in enumerate(counts):
        before, after = width * 2**stage, width * 2 ** (stage + 1)
        conv(f"{backbone}.dark{stage + 2}.0", before, after, 3)
        if stage == 3:
            conv(f"{backbone}.dark5.1.conv1", after, after // 2)
            conv(f"{backbone}.dark5.1.conv2", 2 * after, after)
        layer(f"{backbone}.dark{stage + 2}.{2 if stage == 3 else 1}", after, after, count)
    conv("backbone.lateral_conv0", levels[2], levels[1])
    layer("backbone.C3_p4", 2 * levels[1], levels[1], counts[0])
    conv("backbone.reduce_conv1", levels[1], levels[0])
    layer("backbone.C3_p3", 2 * levels[0], levels[0], counts[0])
    conv("backbone.bu_conv2", levels[0], levels[0], 3)
    layer("backbone.C3_n3", 2 * levels[0], levels[1], counts[0])
    conv("backbone.bu_conv1", levels[1], levels[1], 3)
    layer("backbone.C3_n4", 2 * levels[1], levels[2], counts[0])
    for level, channels in enumerate(levels):
        conv(f"head.stems.{level}", channels, levels[0])
        for branch in ("cls", "reg"):
            conv(f"head.{branch}_convs.{level}.0", levels[0], levels[0], 3)
            conv(f"head.{branch}_convs.{level}.1", levels[0], levels[0], 3)
        for branch, rows in (("cls", classes), ("reg", 4), ("obj", 1)):
            keys.append((f"head.{branch}_preds.{level}.weight", (rows, levels[0], 1, 1)))
            keys.append((f"head.{branch}_preds.{level}.bias", (rows,)))
    return keys

"""Models that find something although they have learnt nothing, pictures, and what the model says about them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ymir_tmi import imaging
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.models.interface import DenseDetections, Detections, HeadOutput

CLASSES = ["cat", "dog", "owl"]
SIZES = [(64, 48), (48, 64), (90, 50), (64, 64), (33, 95)]  # width, height


QUICK = ("ppyoloe_plus_s", "rtmdet_tiny", "yolov5_n", "yolov8_n", "yolox_tiny")


def contract_models(quick: Sequence[str] = QUICK) -> list[Any]:
    """Parameters of a test for the models that the contract is tested with; all but some are marked as slow."""
    path = Path(__file__).parents[1] / "models" / "test_contract.py"
    spec = importlib.util.spec_from_file_location("contract", path)
    assert spec is not None and spec.loader is not None
    contract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contract)
    names = [name if isinstance(name, str) else name.values[0] for name in contract.NAMES]
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


def write_model(path: Path, name: str = "rtmdet_tiny") -> Path:
    """Write a model that has learnt nothing, and whose numbers all depend on the picture and on every layer."""
    torch.manual_seed(0)
    model = create_model(name, class_names=CLASSES).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 0.3)
            nn.init.normal_(module.bias, std=0.5)
            module.register_forward_pre_hook(_take_statistics)
        elif isinstance(module, PredictionConv):
            # As for a head that has been trained: not everything is unlikely.
            assert module.bias is not None
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
            module.bias.data.clamp_(min=-0.5)
    side = 3 * max(model.spec.input.stride, 32)
    with torch.no_grad():
        model(model.normalize(torch.from_numpy(some_inputs(32, side, side)).permute(0, 3, 1, 2)))
    save_model(model, path, licence="CC0-1.0")
    return path


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Let a batch norm take its statistics from what comes in, so that no layer's numbers fade away or grow."""
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance + variance.mean())


def write_pictures(folder: Path) -> list[Path]:
    """Write one picture of every size."""
    rng = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        patches = rng.integers(0, 256, (6, 8, 3), np.uint8)
        paths.append(folder / f"{number}.png")
        imaging.write_image(paths[-1], imaging.resize(patches, width, height, "bilinear"))
    return paths


def raw_of(model: Path, pictures: npt.NDArray[np.uint8]) -> HeadOutput:
    """What a model file says about letterboxed (B, H, W, 3) RGB pictures, by the shortest way."""
    network = load_model(model)
    with torch.no_grad():
        raw: HeadOutput = network(network.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        return raw


def dense_of(model: Path, pictures: npt.NDArray[np.uint8]) -> DenseDetections:
    return load_model(model).decode(raw_of(model, pictures))


def decoded(dense: DenseDetections) -> list[Tensor]:
    """The outputs of a file with decoded ones."""
    parts = dense.boxes, dense.scores, dense.coefficients, dense.prototypes
    return [part for part in parts if part is not None]


def flat(raw: HeadOutput) -> list[Tensor]:
    return [level for levels in raw for level in levels]


def some_inputs(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Coarse and fine patches of colour, (count, height, width, 3)."""
    rng = np.random.default_rng(height + width)
    patches = [rng.integers(0, 256, (6, 8, 3) if number % 2 else (18, 24, 3), np.uint8) for number in range(count)]
    return np.stack([imaging.resize(patch, width, height, "bilinear") for patch in patches])


def assert_near(given: Sequence[npt.NDArray[Any]], expected: Sequence[Tensor], tolerance: float = 1e-4) -> None:
    """Compare relative to the largest number of each array, or to 1."""
    assert len(given) == len(expected)
    for ours, theirs in zip(given, expected, strict=True):
        assert ours.shape == tuple(theirs.shape)
        scale = max(1.0, float(theirs.abs().max()))
        assert float((torch.from_numpy(ours) - theirs).abs().max()) <= tolerance * scale


def assert_same_detections(
    boxes: npt.NDArray[Any], scores: npt.NDArray[Any], labels: npt.NDArray[Any], expected: Detections
) -> None:
    """Compare scores to 1e-4 and boxes to 0.05 pixels, without regard to the order of (nearly) equal scores."""
    away = np.abs(boxes[:, None] - expected.boxes[None]).max(-1) / 500
    away = np.maximum(away, np.abs(scores[:, None] - expected.scores[None]))
    away[labels[:, None] != expected.labels[None]] = np.inf
    assert sorted(away.argmin(1).tolist()) == list(range(len(expected)))
    assert (away.min(1) < 1e-4).all()

"""The runtime computes what the model computes, in lower precision nearly so."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from ymir_tmi.config.schema import Activation
from ymir_tmi.models.blocks.conv import ConvBlock, DepthwiseSeparableConv, fuse_blocks
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.interface import Detector, HeadOutput
from ymir_tmi.models.runtime.onednn import has_onednn, replace_conv_blocks
from ymir_tmi.models.runtime.torch_runtime import load_runtime

NAMES = ["a", "b", "c"]


def lively(name: str, activation: Activation | None = None) -> Detector:
    """A model whose batch norms have seen something, so that folding them matters, and whose outputs differ."""
    torch.manual_seed(0)
    model = create_model(name, class_names=NAMES, activation=activation).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, PredictionConv) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.01)
    return model


MODELS = [
    "ppyoloe_plus_s",
    "rtmdet_tiny",
    "yolov5_n",
    "yolov5_n_seg",
    "yolov6_n",
    "yolov7_tiny",
    "yolov8_n",
    "yolox_tiny",
]


@pytest.fixture(
    scope="module", params=[*MODELS, ("yolov5_n", "relu"), ("yolov5_n", "hardswish"), ("yolov5_n", "prelu")], ids=str
)
def model(request: pytest.FixtureRequest) -> Detector:
    return lively(*([request.param] if isinstance(request.param, str) else request.param))


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)


@contextmanager
def pytorch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reference(model: Detector, images: npt.NDArray[np.uint8]) -> HeadOutput:
    """The model as it is trained, on a picture at a time."""
    with torch.no_grad():
        parts = [model(model.normalize(torch.from_numpy(image)[None].permute(0, 3, 1, 2))) for image in images]
    return HeadOutput(*(tuple(map(torch.cat, zip(*levels, strict=True))) for levels in zip(*parts, strict=True)))


def largest_difference(first: HeadOutput, second: HeadOutput) -> float:
    """Relative to the largest number of each level."""
    pairs = [pair for levels in zip(first, second, strict=True) for pair in zip(*levels, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def test_it_computes_what_the_model_computes(model: Detector, images: npt.NDArray[np.uint8]) -> None:
    raw = load_runtime(model, device="cpu", precision="fp32").run(images)
    assert all(level.dtype == torch.float32 for levels in raw for level in levels)
    assert largest_difference(raw, reference(model, images)) < 1e-4


def test_lower_precision_is_near(model: Detector, images: npt.NDArray[np.uint8]) -> None:
    runtime = load_runtime(model, device="cpu", precision="bf16")
    raw = runtime.run(images)
    assert all(level.dtype == torch.float32 for levels in raw for level in levels)
    assert 1e-5 < largest_difference(raw, reference(model, images)) < 0.1
    dense = runtime.decode(raw)
    assert dense.boxes.dtype == dense.scores.dtype == torch.float32


def test_neighbours_in_a_batch_make_no_difference(model: Detector, images: npt.NDArray[np.uint8]) -> None:
    runtime = load_runtime(model, device="cpu", precision="fp32")
    whole = runtime.run(images)
    for row in range(len(images)):
        alone = runtime.run(images[row : row + 1])
        part = HeadOutput(*(tuple(level[row : row + 1] for level in levels) for levels in whole))
        assert largest_difference(part, alone) < 1e-5


@pytest.mark.parametrize("count", [2, 5])
def test_side_by_side_gives_the_same(count: int, images: npt.NDArray[np.uint8]) -> None:
    model = lively("rtmdet_tiny")
    expected = reference(model, images[:count])
    with pytorch_threads(2):
        runtime = load_runtime(model, device="cpu", precision="fp32")
        # The number of threads is left alone, here and in threads to come.
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(torch.get_num_threads).result() == 2
        assert largest_difference(runtime.run(images[:count]), expected) < 1e-4


def test_the_model_is_not_changed(images: npt.NDArray[np.uint8]) -> None:
    model = lively("rtmdet_tiny").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_runtime(model, device="cpu", precision="bf16", image_size=320).run(images)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_settings_replace_those_of_the_model() -> None:
    model = lively("rtmdet_tiny")
    runtime = load_runtime(model, device="cpu", image_size=320, iou=0.4, max_dets=7, class_groups=[[0, 1]])
    assert runtime.spec.input == model.spec.input.model_copy(update={"size": 320})
    assert (runtime.spec.postprocess.iou_threshold, runtime.spec.postprocess.max_detections) == (0.4, 7)
    assert runtime.class_groups == [[0, 1]]
    assert load_runtime(model, device="cpu").spec == model.spec


def test_class_maps_are_those_of_the_model(model: Detector, images: npt.NDArray[np.uint8]) -> None:
    runtime = load_runtime(model, device="cpu", precision="fp32")
    expected = model.class_maps(reference(model, images))
    for level, other in zip(runtime.class_maps(runtime.run(images)), expected, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not has_onednn(), reason="this build of PyTorch has no oneDNN")
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(ConvBlock(3, 12, 3, stride=2), id="stem"),
        pytest.param(ConvBlock(12, 24, 3), id="3x3"),
        pytest.param(ConvBlock(24, 48), id="1x1"),
        pytest.param(ConvBlock(7, 5, 3, stride=2), id="odd channels"),
        pytest.param(DepthwiseSeparableConv(24, 5), id="depthwise and pointwise"),
        pytest.param(ConvBlock(12, 24, 3, activation="relu"), id="relu"),
        pytest.param(ConvBlock(12, 24, 3, activation="leaky_relu"), id="leaky relu"),
        pytest.param(ConvBlock(12, 24, 3, activation="hardswish"), id="hardswish"),
        pytest.param(ConvBlock(12, 24, 3, activation="relu6"), id="relu6"),
        pytest.param(ConvBlock(12, 24, 3, activation="prelu"), id="prelu"),
        pytest.param(ConvBlock(12, 24, 3, activation="elu"), id="elu"),
        pytest.param(ConvBlock(12, 24, 3, activation=None), id="no activation"),
    ],
)
def test_onednn_blocks_equal_conv_blocks(block: nn.Module) -> None:
    channels = block.conv.in_channels if isinstance(block, ConvBlock) else 24
    x = torch.randn(2, channels, 21, 18).contiguous(memory_format=torch.channels_last)
    network = nn.Sequential(block).eval().requires_grad_(False)
    expected = network(x)
    fuse_blocks(network)
    replace_conv_blocks(network)
    assert not any(isinstance(module, ConvBlock) for module in network.modules())
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_blocks_with_batch_norms_are_left_alone() -> None:
    network = nn.Sequential(ConvBlock(3, 3))
    replace_conv_blocks(network)
    assert isinstance(network[0], ConvBlock)

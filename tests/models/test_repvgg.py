from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock, activate, fuse_blocks
from ymir_tmi.models.blocks.repvgg import RepVGGBlock
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.runtime.onednn import OneDnnConvBlock, has_onednn, replace_conv_blocks

KINDS = [
    pytest.param({"identity": False, "activation": "silu"}, id="YOLOv7"),
    pytest.param({"identity": True, "activation": "relu"}, id="YOLOv6"),
    pytest.param({"identity": True, "activation": "relu", "stride": 2}, id="YOLOv6, stride 2"),
    pytest.param({"identity": False, "alpha": True, "activation": "silu"}, id="PP-YOLOE"),
    pytest.param({"identity": True, "alpha": True, "activation": None}, id="all at once"),
]


def build(**kind: object) -> RepVGGBlock:
    torch.manual_seed(0)
    block = RepVGGBlock(6, 6, **kind)  # type: ignore[arg-type]
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    if block.alpha is not None:
        nn.init.constant_(block.alpha, -0.3)
    return block.double().eval().requires_grad_(False)


def by_hand(block: RepVGGBlock, x: Tensor) -> Tensor:
    """The sum of the branches as section 2 of the specification writes it."""

    def norm(values: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.BatchNorm2d)
        return F.batch_norm(values, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)

    stride = block.dense.conv.stride
    assert block.pointwise is not None
    total = norm(F.conv2d(x, block.dense.conv.weight, stride=stride, padding=1), block.dense.bn)
    point = norm(F.conv2d(x, block.pointwise.conv.weight, stride=stride), block.pointwise.bn)
    total += point if block.alpha is None else block.alpha * point
    if block.identity is not None:
        total += norm(x, block.identity)
    return activate(total, block.activation)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_its_branches(kind: dict[str, object]) -> None:
    block, x = build(**kind), torch.randn(2, 6, 9, 8, dtype=torch.float64)
    assert (block.identity is not None) == (kind["identity"] and kind.get("stride", 1) == 1)
    torch.testing.assert_close(block(x), by_hand(block, x))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_it_is_one_convolution(kind: dict[str, object]) -> None:
    block, x = build(**kind), torch.randn(2, 6, 9, 8, dtype=torch.float64)
    expected = block(x)
    fuse_blocks(block)
    assert block.state_dict().keys() == {"dense.conv.weight", "dense.conv.bias"}
    torch.testing.assert_close(block(x), expected)
    fuse_blocks(block)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.skipif(not has_onednn(), reason="this build of PyTorch has no oneDNN")
@pytest.mark.parametrize("kind", KINDS)
def test_fused_it_runs_on_onednn(kind: dict[str, object]) -> None:
    block, x = build(**kind).float(), torch.randn(2, 6, 9, 8)
    expected = block(x)
    fuse_blocks(block)
    replace_conv_blocks(block)
    assert [type(module) for module in block.children()] == [OneDnnConvBlock]
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_all_branches_learn() -> None:
    block = RepVGGBlock(4, 4, identity=True, alpha=True, activation="relu")
    block(torch.randn(2, 4, 5, 5)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in block.parameters())


def test_gradients_of_a_stem_in_channels_last() -> None:
    block = RepVGGBlock(3, 16, stride=2, identity=True, activation="relu")
    images = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    def gradients(memory_format: torch.memory_format) -> list[Tensor]:
        block.to(memory_format=memory_format)
        out = block(images.contiguous(memory_format=memory_format))
        return list(torch.autograd.grad(out.square().mean(), list(block.parameters())))

    expected = gradients(torch.contiguous_format)
    for _ in range(5):
        for ours, other in zip(gradients(torch.channels_last), expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-5)


def test_only_blocks_that_can_keep_their_input_have_a_branch_for_it() -> None:
    assert RepVGGBlock(4, 8, identity=True, activation="relu").identity is None
    assert isinstance(RepVGGBlock(4, 8, identity=False, activation="relu").pointwise, ConvBlock)


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("backbone.stem.rbr_dense.conv.weight", "backbone.stem.dense.conv.weight"),
        ("backbone.stem.rbr_1x1.bn.bias", "backbone.stem.pointwise.bn.bias"),
        ("backbone.stage1.0.rbr_identity.running_var", "backbone.stage1.0.identity.running_var"),
    ],
)
def test_official_names(official: str, ours: str) -> None:
    assert from_official("rtmdet", official) == ours

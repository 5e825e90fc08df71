from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ymir_tmi.models.blocks.conv import ConvBlock, DepthwiseConv2d
from ymir_tmi.models.blocks.csp import SpatialPyramidPooling
from ymir_tmi.models.blocks.head import PredictionConv


def test_chained_pools_equal_the_parallel_ones_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = SpatialPyramidPooling(8).eval()
    x = torch.randn(2, 8, 20, 17)
    with torch.no_grad():
        half = layer.conv1(x)
        pools = [F.max_pool2d(half, size, stride=1, padding=size // 2) for size in (5, 9, 13)]
        assert torch.equal(layer(x), layer.conv2(torch.cat([half, *pools], dim=1)))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16 weights"])
@pytest.mark.parametrize(("stride", "height", "width"), [(1, 12, 9), (2, 6, 5)])
def test_depthwise_gradients_in_bfloat16(stride: int, height: int, width: int, autocast: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(6, 5, stride)
    x, gradient = torch.randn(3, 6, 12, 9), torch.randn(3, 6, height, width)

    def gradients(values: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = values.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and values.dtype == torch.bfloat16):
            out = layer(values)
        assert out.dtype == values.dtype
        return torch.autograd.grad(out, (values, layer.weight), upstream)

    exact = gradients(x, gradient)
    if not autocast:
        layer.bfloat16()
    for ours, expected in zip(gradients(x.bfloat16(), gradient.bfloat16()), exact, strict=True):
        torch.testing.assert_close(ours.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_a_depthwise_block_keeps_its_bias_after_folding() -> None:
    block = ConvBlock(4, 4, 5)
    block.conv = DepthwiseConv2d(4, 5)
    assert isinstance(block.bn, nn.BatchNorm2d)
    nn.init.constant_(block.bn.bias, 3.0)
    block.eval().fuse()
    block.bfloat16()
    x = torch.zeros(1, 4, 6, 6, dtype=torch.bfloat16, requires_grad=True)  # a gradient is recorded: the training path
    torch.testing.assert_close(block(x).float(), F.silu(torch.full((1, 4, 6, 6), 3.0)), rtol=0.01, atol=0.01)


def test_predictions_keep_their_digits_under_autocast() -> None:
    torch.manual_seed(0)
    layer, x = PredictionConv(16, 4), torch.randn(1, 16, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out, F.conv2d(x.float(), layer.weight, layer.bias))

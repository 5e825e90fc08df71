"""What a new RetinaNet is; what a trained one computes is compared in tests/parity/test_detectron2.py."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.families.retinanet import FrozenNorm, RetinaNet


def new_model(name: str, classes: int = 3) -> RetinaNet:
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes)
    assert isinstance(model, RetinaNet)
    return model


def test_new_weights_have_the_scales_of_the_specification() -> None:
    model = new_model("retinanet_r50_fpn", classes=80)
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        fan_in = layer.weight[0].numel()
        scale = {
            "backbone": math.sqrt(2 / (len(layer.weight) * layer.weight[0, 0].numel())),  # Kaiming normal of fan out
            "neck": 1 / math.sqrt(fan_in),  # uniform up to the square root of 3 / fan in
            "head": 0.01,
        }[name.split(".")[0]]
        if name.endswith("conv3"):
            assert not layer.weight.any()
        else:
            assert layer.weight.std().item() == pytest.approx(scale, rel=0.05), name
        if layer.bias is not None:
            expected = -math.log(99) if name == "head.cls_pred" else 0.0
            torch.testing.assert_close(layer.bias, torch.full_like(layer.bias, expected))


@pytest.mark.parametrize("name", ["retinanet_r50_fpn", "retinanet_r101_fpn"])
def test_new_networks_of_any_depth_do_not_amplify_pictures(name: str) -> None:
    model = new_model(name).eval()
    pictures = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        images = model.normalize(pictures)
        raw = model(images)
        assert max(float(level.std()) for level in model.backbone(images).values()) < images.std()
        assert model.decode(raw).scores.max() < 0.1


def test_frozen_norms_are_batch_norms_in_the_precision_of_their_input() -> None:
    torch.manual_seed(0)
    norm, x = FrozenNorm(8), torch.randn(2, 8, 5, 4)
    torch.testing.assert_close(norm(x), x)
    for values in (norm.weight, norm.running_var):
        nn.init.uniform_(values, 0.5, 1.5)
    for values in (norm.bias, norm.running_mean):
        nn.init.normal_(values)
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(norm.train()(x), expected)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    assert not list(norm.parameters())

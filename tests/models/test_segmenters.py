"""What every network that gives pixels a class promises, on the smallest of each family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.errors import ModelError
from ymir_tmi.models.blocks.pixels import average_cells
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model, transfer_weights
from ymir_tmi.models.interface import Network, PixelOutput, Targets
from ymir_tmi.models.pixel_losses import pixel_binary_cross_entropy, pixel_cross_entropy
from ymir_tmi.models.runtime.torch_runtime import load_runtime

STRIDES = {"fast_scnn": 8, "fcn_hrnet_w18_small": 4}


@pytest.fixture(params=STRIDES)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def build(name: str, classes: int = 3) -> Network:
    """Return a network whose batch norms are not the identity, and whose logits spread."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model


def some_images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def some_labels(count: int = 2, classes: int = 3, height: int = 64, width: int = 96) -> Targets:
    maps = torch.randint(0, classes, (count, height, width), generator=torch.Generator().manual_seed(2))
    maps[0, :8] = 255
    return Targets([], [], label_maps=maps.to(torch.uint8))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def logits_of(model: Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        raw: PixelOutput = model(images)
    (logits,) = raw.logits
    assert raw.auxiliary == ()
    return logits


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 131), (33, 40), (5, 3)])
def test_inputs_of_any_size(name: str, height: int, width: int) -> None:
    logits = logits_of(build(name).eval(), some_images(1, height, width))
    stride = STRIDES[name]
    assert logits.shape == (1, 3, -(-height // stride), -(-width // stride)) and logits.isfinite().all()


def test_every_parameter_has_a_gradient(name: str) -> None:
    model = build(name).train()
    losses = model.loss(model(some_images()), some_labels())
    assert all(value.ndim == 0 and value.isfinite() and value > 0 for value in losses.values())
    total(losses).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.any() for gradient in gradients if gradient is not None and gradient.ndim > 1)


def test_pictures_without_a_pixel_that_counts(name: str) -> None:
    model = build(name).train()
    nothing = Targets([], [], label_maps=torch.full((2, 64, 96), 255, dtype=torch.uint8))
    losses = model.loss(model(some_images()), nothing)
    total(losses).backward()
    assert all(value == 0 for value in losses.values())


def test_losses_are_those_of_the_plain_formula() -> None:
    """Pixel by pixel, at the size of the labels; pixels that do not count are in the mean."""
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = some_labels(2, 3, 8, 12).label_maps
    assert labels is not None
    full = F.interpolate(logits, (8, 12), mode="bilinear", align_corners=False).double()
    soft, binary = 0.0, 0.0
    for image, row, column in np.argwhere(labels.numpy() != 255):
        scores, label = full[image, :, row, column], int(labels[image, row, column])
        soft -= scores.log_softmax(0)[label].item()
        binary -= sum(F.logsigmoid(s if c == label else -s).item() for c, s in enumerate(scores))
    assert pixel_cross_entropy(logits, labels).item() == pytest.approx(soft / labels.numel(), rel=1e-5)
    assert pixel_binary_cross_entropy(logits, labels).item() == pytest.approx(binary / labels.numel() / 3, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (7, 13), (4, 5), (1, 1)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_means_of_cells_are_those_of_adaptive_pooling(cells: int, height: int, width: int) -> None:
    x = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(average_cells(x, cells), F.adaptive_avg_pool2d(x, cells))


def test_fused_equals_unfused(name: str) -> None:
    model = build(name).eval()
    fused = model.fuse()
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    expected = logits_of(model, some_images())
    assert_near(logits_of(fused, some_images()), expected, 1e-5)
    assert_near(logits_of(fused.fuse(), some_images()), expected, 1e-5)
    model.to(memory_format=torch.channels_last)
    assert_near(logits_of(model, some_images()), expected, 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_runtime_gives_the_logits_of_the_network(name: str, precision: str) -> None:
    model = build(name).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    expected = logits_of(model, model.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    (logits,) = load_runtime(model, device="cpu", precision=precision).run(pictures).logits  # type: ignore[arg-type]
    assert logits.dtype == torch.float32
    assert_near(logits, expected, 1e-4 if precision == "fp32" else 0.1)


def test_bfloat16_trains_alike(name: str) -> None:
    model = build(name).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    exact = model.loss(model(some_images()), some_labels())
    with torch.autocast("cpu", torch.bfloat16):
        raw = model(some_images())
    assert raw.logits[0].dtype == torch.float32
    rough = model.loss(raw, some_labels())
    assert total(rough).item() == pytest.approx(total(exact).item(), rel=0.05)


def test_save_and_load_give_the_same(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == model.spec and again.spec.task == "semantics"
    assert torch.equal(logits_of(again, some_images()), logits_of(model, some_images()))


def test_other_classes_keep_the_rows_that_both_know(name: str, tmp_path: Path) -> None:
    source = create_model(name, class_names=["road", "sky", "car"])
    for layer in source.class_layers:
        nn.init.normal_(dict(source.named_parameters())[f"{layer}bias"])
    save_model(source, tmp_path / "model.safetensors")
    model = create_model(name, class_names=["car", "tree", "road"])
    report = transfer_weights(model, tmp_path / "model.safetensors")
    assert report.classes == ("car", "road") and report.skipped == ()
    own, given = model.state_dict(), source.state_dict()
    assert len(source.class_layers) == {"fast_scnn": 3}.get(name, 1)
    for layer in source.class_layers:
        for part in ("weight", "bias"):
            rows, before = own[layer + part], given[layer + part]
            assert torch.equal(rows[0], before[2]) and torch.equal(rows[2], before[0])
            assert not torch.equal(rows[1], before[1])


def test_fast_scnn_refuses_to_train_with_a_single_image() -> None:
    model = build("fast_scnn").train()
    with pytest.raises(ModelError, match="one image at a time"):
        model(some_images(1))
    assert model.eval()(some_images(1)).logits[0].isfinite().all()


def drawn_pictures(count: int) -> tuple[Tensor, Targets]:
    """Return (count, 3, 64, 128) uint8 pictures, with a red (class 1) and a blue (class 2) rectangle on grey (0)."""
    random = np.random.default_rng(0)
    pictures = np.full((count, 64, 128, 3), 114, np.uint8)
    labels = np.zeros((count, 64, 128), np.uint8)
    for picture, label_map in zip(pictures, labels, strict=True):
        for label, colour in enumerate([(200, 30, 30), (30, 30, 200)], 1):
            height, width = random.integers(20, 40, 2)
            y, x = random.integers(0, 64 - height), random.integers(0, 64 - width) + 64 * (label - 1)
            picture[y : y + height, x : x + width] = colour
            label_map[y : y + height, x : x + width] = label
    labels[:, :, -4:] = 255
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), Targets([], [], label_maps=torch.from_numpy(labels))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("fast_scnn", 100), ("fcn_hrnet_w18_small", 60)])
def test_four_pictures_can_be_learnt_by_heart(name: str, steps: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).to(memory_format=torch.channels_last).train()
    pictures, targets = drawn_pictures(4)
    images = model.normalize(pictures)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    first = None
    for _ in range(steps):
        optimizer.zero_grad()
        losses = model.loss(model(images), targets)
        total(losses).backward()
        optimizer.step()
        schedule.step()
        loss = losses["loss_seg"].item()
        first = loss if first is None else first
    assert first is not None and loss < 0.15 * first
    with torch.no_grad():
        for module in model.modules():  # the running statistics become those of the final weights
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(images)
        logits = logits_of(model.eval(), images)
    best = F.interpolate(logits, (64, 128), mode="bilinear", align_corners=False).argmax(1)
    assert targets.label_maps is not None
    counts = targets.label_maps != 255
    assert (best == targets.label_maps)[counts].float().mean() > 0.95

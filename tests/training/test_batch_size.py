"""The batch of a training, where the user leaves it open."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from training_fakes import FakeDetector

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.geometry.rotated import hulls
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.interface import Matches
from ymir_tmi.training import batch_size
from ymir_tmi.training.batch_size import fit_to_memory, largest_that_fits, try_step
from ymir_tmi.training.plan import TrainingPlan


@dataclass
class SmallGpu:
    """Runs out of memory above a number of images."""

    limit: int
    tried: list[int] = field(default_factory=list)

    def step(self, batch: int, **_: object) -> None:
        self.tried.append(batch)
        if batch > self.limit:
            raise torch.OutOfMemoryError("too much")


@pytest.mark.parametrize(("limit", "tried"), [(100, [16]), (16, [16]), (9, [16, 8]), (1, [16, 8, 4, 2, 1])])
def test_halves_until_it_fits(limit: int, tried: list[int]) -> None:
    gpu = SmallGpu(limit)
    assert largest_that_fits(16, gpu.step) == tried[-1]
    assert gpu.tried == tried


def test_says_that_nothing_fits() -> None:
    with pytest.raises(ConfigError, match="no room for a step with 1 image"):
        largest_that_fits(6, SmallGpu(0).step)


def test_a_trial_computes_gradients_and_leaves_none() -> None:
    detector = FakeDetector()
    seen: list[torch.Size] = []
    detector.conv.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    detector.conv.weight.register_hook(lambda gradient: seen.append(gradient.shape))
    try_step(detector, 3, size=(64, 96), arithmetic="bf16")
    assert seen == [(3, 3, 64, 96), detector.conv.weight.shape]
    assert detector.conv.weight.grad is None


@pytest.mark.parametrize("name", ["rtmdet_tiny", "rotated_rtmdet_tiny"])
def test_a_trial_shows_boxes_as_the_model_takes_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(name, num_classes=2)
    found: list[Matches] = []
    assign = model.assign
    monkeypatch.setattr(model, "assign", lambda *args: found.append(assign(*args)) or found[-1])
    try_step(model, 1, size=(64, 96), arithmetic="fp32")
    hull = found[0].box[0] if model.spec.box_length == 4 else hulls(found[0].box[0])
    torch.testing.assert_close(hull, torch.tensor([0.0, 0.0, 48.0, 32.0]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_trial_shows_masks_to_a_model_that_has_such(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("yolov5_n_seg", num_classes=2)
    terms: list[str] = []
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda *args: terms.extend(found := loss(*args)) or found)
    try_step(model, 2, size=(64, 96), arithmetic="fp32")
    assert "loss_mask" in terms


@pytest.mark.parametrize(("device", "expected"), [("cuda", 4), ("cpu", 16)])
def test_the_plan_says_what_is_done(device: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, gpu = FakeDetector(), SmallGpu(5)
    monkeypatch.setattr(batch_size, "try_step", lambda _detector, batch, **more: gpu.step(batch, **more))
    monkeypatch.setattr(TrainingPlan, "device", torch.device(device))
    plan = TrainingPlan(TrainSettings(image_size=64, batch=16, precision="bf16"), Recipe(batch=16))
    if device == "cuda":
        with pytest.warns(UserWarning, match="no room for batches of 16; 4 are used"):
            fitted = fit_to_memory(plan, detector)
    else:
        fitted = fit_to_memory(plan, detector)
    assert (fitted.recipe.batch, fitted.settings.batch) == (expected, expected)

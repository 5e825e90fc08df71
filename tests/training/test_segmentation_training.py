"""How networks that give pixels a class are trained, against the published configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from ymir_tmi.errors import ConfigError, DataError, ModelError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.batch_size import try_step
from ymir_tmi.training.optim import build_optimizer
from ymir_tmi.training.recipes import fit_recipe, recipe_of
from ymir_tmi.training.schedule import ScheduledRates, plan_schedule
from ymir_tmi.training.start import require_batch

GOLDENS = Path(__file__).parents[1] / "goldens" / "mmseg"
PUBLISHED = [
    ("fast_scnn", None, "fastscnn/fast_scnn_lr0.12_8x4_160k_cityscapes.py", "fast_scnn"),
    ("fcn_hrnet_w18_small", None, "hrnet/fcn_hr18s_512x1024_40k_cityscapes.py", "fcn_hr18s"),
    ("fcn_hrnet_w18_small", "80k", "hrnet/fcn_hr18s_512x1024_80k_cityscapes.py", "fcn_hr18s"),
    ("fcn_hrnet_w18_small", "160k", "hrnet/fcn_hr18s_512x1024_160k_cityscapes.py", "fcn_hr18s"),
]


def family_of(variant: str) -> str:
    return "fast_scnn" if variant == "fast_scnn" else "fcn_hrnet"


@pytest.mark.parametrize(("variant", "name", "config", "golden"), PUBLISHED)
def test_recipes_are_the_published_ones(variant: str, name: str | None, config: str, golden: str) -> None:
    facts = json.loads((GOLDENS / f"{golden}.json").read_text())
    theirs, recipe = facts["schedules"][config], recipe_of(family_of(variant), variant, name)
    optimizer, schedule, augment = recipe.optimizer, recipe.schedule, recipe.augment
    assert recipe.iterations == theirs["max_iters"]
    assert theirs["optimizer"] == {
        "type": optimizer.name.upper(),
        "lr": optimizer.lr,
        "momentum": optimizer.momentum,
        "weight_decay": optimizer.weight_decay,
    }
    assert not optimizer.nesterov and not recipe.ema.enabled and schedule.warmup_iterations == 0
    assert optimizer.base_batch == facts["batch"]["gpus"] * facts["batch"]["samples_per_gpu"]
    policy = {"policy": schedule.curve, "power": schedule.power, "min_lr": schedule.final_lr, "by_epoch": False}
    assert theirs["lr_config"] == policy
    steps = {step["type"]: step for step in facts["train_pipeline"]}
    assert list(augment.ratio) == steps["Resize"]["ratio_range"]
    assert list(augment.crop or ()) == steps["RandomCrop"]["crop_size"]
    assert augment.category_limit == steps["RandomCrop"]["cat_max_ratio"]
    assert (augment.flip, augment.photometric) == (steps["RandomFlip"]["prob"], 0.5)


@pytest.mark.parametrize(("batch", "base"), [(32, 0.12), (8, 0.03)])
def test_the_rate_falls_as_poly_to_its_end(batch: int, base: float) -> None:
    changes = ["iterations=200", f"batch={batch}", "optimizer.name=sgd"]
    recipe = fit_recipe(recipe_of("fast_scnn", "fast_scnn"), changes, images=400)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, recipe.optimizer, batch)
    rates = ScheduledRates(optimizer, recipe, plan_schedule(recipe, 400 // batch))
    for step in range(200):
        expected = (base - 1e-4) * (1 - step / 200) ** 0.9 + 1e-4
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2), step
        optimizer.step()
        rates.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_everything_is_decayed() -> None:
    model = create_model("fast_scnn", num_classes=2)
    optimizer = build_optimizer(model, recipe_of("fast_scnn", "fast_scnn").optimizer, 32)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {4e-5}
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == len(list(model.parameters()))


def test_mosaic_has_no_place_here() -> None:
    with pytest.raises(ConfigError, match="leaves no place"):
        fit_recipe(recipe_of("fast_scnn", "fast_scnn"), ["augment.mosaic=0.5"])


@pytest.mark.parametrize(
    ("batch", "images", "error", "message"),
    [(1, 9, ConfigError, "the batch is 1"), (8, 1, DataError, "the data have 1 training image, and")],
)
def test_fast_scnn_cannot_be_trained_with_single_images(
    batch: int, images: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        require_batch(create_model("fast_scnn", num_classes=2), batch, images)
    require_batch(create_model("fcn_hrnet_w18_small", num_classes=2), batch, images)
    require_batch(create_model("fast_scnn", num_classes=2), 2, 2)


def test_a_trial_step_of_the_largest_batch() -> None:
    model = create_model("fast_scnn", num_classes=2).train()
    try_step(model, 2, size=(64, 96), arithmetic="fp32")
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ModelError, match="one image at a time"):
        try_step(model, 1, size=(64, 96), arithmetic="fp32")

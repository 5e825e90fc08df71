"""Recipes against the published configurations (docs/specs/detectors.md, section 13)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.shapes import batch_sizes
from ymir_tmi.errors import ConfigError
from ymir_tmi.models.blocks.conv import raise_norm_momentum
from ymir_tmi.models.catalog import create_model, list_models
from ymir_tmi.training.recipes import fit_recipe, prefer_adamw, recipe_of

MODELS = {info.name: info for info in list_models()}
GOLDENS = Path(__file__).parents[1] / "goldens"

RTMDET = {
    "epochs": 300,
    "closing_epochs": 20,
    "optimizer.name": "adamw",
    "optimizer.lr": 0.004,
    "optimizer.base_batch": 256,
    "optimizer.weight_decay": 0.05,
    "ema.momentum": 0.0002,
    "ema.ramp": 2000,
    "schedule.warmup_iterations": 1000,
    "schedule.warmup_start": 1e-5,
    "augment.mosaic": 1.0,
    "augment.geometry": "resize_crop",
    "augment.mixup_style": "beta",
    "augment.multiscale": None,
}
YOLOX = {
    "epochs": 300,
    "closing_epochs": 15,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
    "optimizer.base_batch": 64,
    "optimizer.weight_decay": 0.0005,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "ema.momentum": 0.0001,
    "augment.mosaic_cache": 0,
    "augment.mixup_cache": 0,
    "augment.geometry": "affine",
    "augment.mixup_style": "average",
}


def field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (
            "rtmdet_tiny",
            {
                **RTMDET,
                "augment.mosaic_cache": 20,
                "augment.mixup_cache": 10,
                "augment.mixup": 0.5,
                "augment.cache_eviction": "oldest",
                "augment.scale": (0.5, 2.0),
            },
        ),
        (
            "rtmdet_s_mmdet",
            {
                **RTMDET,
                "augment.mosaic_cache": 40,
                "augment.mixup_cache": 20,
                "augment.mixup": 1.0,
                "augment.cache_eviction": "random",
                "augment.scale": (0.5, 2.0),
            },
        ),
        ("rtmdet_m", {**RTMDET, "augment.mixup": 1.0, "augment.scale": (0.1, 2.0)}),
        ("rtmdet_x", {**RTMDET, "augment.mixup": 1.0, "augment.scale": (0.1, 2.0)}),
        ("yolox_tiny", {**YOLOX, "augment.mixup": 0.0, "augment.scale": (0.5, 1.5)}),
        (
            "yolox_l",
            {**YOLOX, "augment.mixup": 1.0, "augment.scale": (0.1, 2.0), "augment.multiscale": (0.75, 1.25)},
        ),
    ],
)
def test_recipe_is_the_published_one(variant: str, expected: dict[str, Any]) -> None:
    recipe = recipe_of(variant.split("_")[0], variant)
    assert {path: field(recipe, path) for path in expected} == expected


def test_yolox_tiny_batches_have_320_to_640_pixels() -> None:
    sizes = batch_sizes(recipe_of("yolox", "yolox_tiny").augment, InputSpec(size=416))
    assert (min(sizes), max(sizes)) == (320, 640)


def test_rotated_rtmdet_is_trained_as_the_reference_says() -> None:
    facts = json.loads((GOLDENS / "mmrotate" / "rotated_rtmdet_tiny.json").read_text())
    recipe = recipe_of("rotated_rtmdet", "rotated_rtmdet_tiny")
    optimizer, ema = facts["optimizer"]["optimizer"], facts["ema"][0]
    assert (recipe.epochs, recipe.batch) == (facts["max_epochs"], facts["batch_size"]["total"])
    assert (recipe.optimizer.name, recipe.optimizer.lr) == (optimizer["type"].lower(), optimizer["lr"])
    assert recipe.optimizer.weight_decay == optimizer["weight_decay"] and not recipe.optimizer.decay_biases
    assert recipe.optimizer.base_batch == recipe.batch, "the rate is meant for this batch"
    assert (recipe.ema.momentum, recipe.ema.ramp) == (ema["momentum"], 2000)
    warmup, cosine = facts["param_scheduler"]
    schedule = recipe.schedule
    assert (schedule.warmup, schedule.warmup_start, schedule.warmup_iterations) == (
        "linear",
        warmup["start_factor"],
        warmup["end"],
    )
    assert (schedule.curve, schedule.by_epoch) == ("cosine", not cosine["convert_to_iter_based"])
    assert schedule.flat * recipe.epochs == cosine["begin"] and cosine["end"] == recipe.epochs
    assert schedule.final_factor * optimizer["lr"] == pytest.approx(cosine["eta_min"])
    assert recipe.with_objects == facts["train_filter_empty_gt"]
    # Each of its three flips and none have a quarter: as two coins.
    (flip,) = (step for step in facts["train_pipeline_rr"] if step["type"] == "mmdet.RandomFlip")
    share = flip["prob"] / len(flip["direction"])
    horizontal, vertical = recipe.augment.flip, recipe.augment.flip_vertical
    assert horizontal * (1 - vertical) == vertical * (1 - horizontal) == horizontal * vertical == share
    assert (recipe.augment.mosaic, recipe.augment.mixup, recipe.augment.scale) == (0, 0, (1, 1))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_valid_recipe(name: str) -> None:
    recipe = recipe_of(MODELS[name].family, name)
    assert Recipe.model_validate(recipe.model_dump()) == recipe


FEW, MANY = 272, 100_000  # images: 40 epochs of batches of 16 are 680 and 250,000 updates


@pytest.mark.parametrize(
    ("family", "assignments", "images", "expected"),
    [
        ("yolox", [], FEW, ("adamw", 0.004, "sqrt", False)),
        ("yolox", [], MANY, ("sgd", 0.01, "linear", True)),
        ("yolox", [], None, ("sgd", 0.01, "linear", True)),  # not known yet
        ("yolox", ["epochs=588"], FEW, ("adamw", 0.004, "sqrt", False)),  # 17 steps an epoch: 9,996 updates
        ("yolox", ["epochs=589"], FEW, ("sgd", 0.01, "linear", True)),
        ("yolox", ["epochs=589", "optimizer.accumulate=2"], FEW, ("adamw", 0.004, "sqrt", False)),
        ("yolox", ["optimizer.weight_decay=0.1"], FEW, ("adamw", 0.004, "sqrt", False)),
        ("yolox", ["optimizer.lr=0.02"], FEW, ("sgd", 0.02, "linear", True)),  # a rate for SGD is not one for AdamW
        ("yolox", ["optimizer.lr =0.02"], FEW, ("sgd", 0.02, "linear", True)),
        ("yolox", ["optimizer.name=sgd"], FEW, ("sgd", 0.01, "linear", True)),
        ("yolox", ["schedule.hold_closing=true"], FEW, ("adamw", 0.004, "sqrt", True)),
        ("rtmdet", [], FEW, ("adamw", 0.004, "sqrt", False)),
        ("rtmdet", [], MANY, ("adamw", 0.004, "sqrt", False)),
    ],
)
def test_few_updates_are_made_by_adamw(
    family: str, assignments: list[str], images: int | None, expected: tuple[object, ...]
) -> None:
    recipe = fit_recipe(recipe_of(family, f"{family}_s"), ["epochs=40", *assignments], images)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.lr_scaling, recipe.schedule.hold_closing) == expected
    for text in assignments:
        path, value = text.split("=")
        assert str(field(recipe, path.strip())).lower() == value


@pytest.mark.parametrize(
    ("family", "assignments", "images", "momentum", "ramp"),
    [
        ("rtmdet", ["epochs=40"], FEW, 25 / 680, 13.6),
        ("rtmdet", ["batch=256"], 118_287, 0.0002, 2000),  # as its authors trained
        ("yolox", ["batch=64"], 118_287, 0.0001, 2000),
        ("rtmdet", ["epochs=1"], 5, 1.0, 0.02),  # a single update is copied
        ("rtmdet", ["epochs=40", "ema.momentum=0.001"], FEW, 0.001, 13.6),
        ("rtmdet", ["epochs=40"], None, 0.0002, 2000),
    ],
)
def test_short_runs_average_over_fewer_updates(
    family: str, assignments: list[str], images: int | None, momentum: float, ramp: float
) -> None:
    ema = fit_recipe(recipe_of(family, f"{family}_s"), assignments, images).ema
    assert (ema.momentum, ema.ramp) == pytest.approx((momentum, ramp))


@pytest.mark.parametrize(
    ("assignments", "images", "expected"),
    [
        (["epochs=40"], FEW, 25 / 680),
        (["epochs=4"], FEW, 0.1),
        (["batch=64"], 118_287, 25 / 554_700),  # below that of any network
        (["epochs=40", "norm_momentum=0.02"], FEW, 0.02),
        (["epochs=40"], None, 0.0),
    ],
)
def test_short_runs_let_batch_norms_follow_faster(assignments: list[str], images: int | None, expected: float) -> None:
    assert fit_recipe(recipe_of("yolox", "yolox_s"), assignments, images).norm_momentum == pytest.approx(
        expected, rel=2e-3
    )


@pytest.mark.parametrize(("least", "expected"), [(0.0, 0.03), (0.05, 0.05)])
def test_only_slower_batch_norms_are_changed(least: float, expected: float) -> None:
    model = create_model("yolox_tiny", num_classes=1)
    raise_norm_momentum(model, least)
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {expected}


@pytest.mark.parametrize(
    ("own", "assignments", "images", "iterations", "epochs"),
    [
        (None, [], FEW, None, 300),
        (None, ["iterations=100"], FEW, 100, 6),  # 17 updates an epoch
        (None, ["iterations=100", "optimizer.accumulate=2"], FEW, 100, 12),
        (None, ["iterations=102"], FEW, 102, 6),
        (90_000, [], 117_266, 90_000, 13),
        (90_000, [], FEW, 90_000, 5295),
        (90_000, [], None, 90_000, 300),  # not known yet
        (90_000, ["epochs=7"], FEW, None, 7),
        (90_000, ["iterations=3"], 1_000_000, 3, 1),
    ],
)
def test_iterations_are_counted_in_epochs(
    own: int | None, assignments: list[str], images: int | None, iterations: int | None, epochs: int
) -> None:
    recipe = recipe_of("rtmdet", "rtmdet_s").model_copy(update={"iterations": own})
    fitted = fit_recipe(recipe, assignments, images)
    assert (fitted.iterations, fitted.epochs) == (iterations, epochs)


def test_epochs_and_iterations_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="both 'epochs' and 'iterations'"):
        fit_recipe(recipe_of("rtmdet", "rtmdet_s"), ["epochs=3", "iterations=100"])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["augment.geometry=expand_crop"],
            "leaves no place for 'augment.mosaic'\n  Set augment.mosaic=0 and augment.mi",
        ),
        (["augment.geometry=shorter_side", "augment.mosaic=0"], "no place for 'augment.mixup'\n  Set augment.mixup=0."),
        (["augment.mixup_style=mosaics"], "needs 'augment.geometry=affine'"),
        (
            ["augment.geometry=ratio_crop", "augment.mosaic=0", "augment.mixup=0", "image_weights=true"],
            "'image_weights' counts objects",
        ),
    ],
)
def test_choices_that_exclude_each_other(assignments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_recipe(recipe_of("rtmdet", "rtmdet_s"), assignments)


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'weight_decay'"):
        fit_recipe(recipe_of("rtmdet", "rtmdet_s"), ["optimizer.weight_deca=0.1"])


def test_a_family_may_have_its_own_rate_for_short_runs() -> None:
    recipe = recipe_of("retinanet", "retinanet_r50_fpn")
    assert prefer_adamw(recipe, 100) == recipe  # starts from trained weights, of which it freezes a part
    optimizer = prefer_adamw(recipe.model_copy(update={"freeze": ()}), 100).optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 0.001, 0.05)


@pytest.mark.parametrize(
    ("assignments", "images", "new_weights", "rate"),
    [
        ([], FEW, True, 0.004 / 256**0.5),
        ([], FEW, False, 0.00025 / 8**0.5),  # as published, from a trained backbone
        ([], MANY, True, 0.00025 / 8**0.5),
        (["optimizer.lr=0.001"], FEW, True, 0.001 / 8**0.5),
    ],
)
def test_new_weights_have_their_own_rate_for_short_runs(
    assignments: list[str], images: int, new_weights: bool, rate: float
) -> None:
    recipe = recipe_of("rotated_rtmdet", "rotated_rtmdet_tiny")
    optimizer = fit_recipe(recipe, assignments, images, new_weights=new_weights).optimizer
    assert optimizer.lr / optimizer.base_batch**0.5 == pytest.approx(rate)
    assert optimizer.lr_scaling == "sqrt"

"""Recipes and schedules against numbers of the reference implementations (`goldens/training/published.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from ymir_tmi.config.load import override
from ymir_tmi.config.recipe import AugmentRecipe, Recipe
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.shapes import batch_sizes
from ymir_tmi.data.transforms import letterbox_square
from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.optim import build_optimizer, parameter_groups
from ymir_tmi.training.recipes import fit_recipe, recipe_of
from ymir_tmi.training.schedule import ScheduledRates, plan_schedule

PUBLISHED = json.loads((Path(__file__).parents[1] / "goldens" / "training" / "published.json").read_text())
YOLOV5, RETINANET, MMYOLO = PUBLISHED["yolov5"], PUBLISHED["retinanet"], PUBLISHED["mmyolo"]


def recipe_for(variant: str, name: str | None = None) -> Recipe:
    return recipe_of(variant.split("_")[0], variant, name)


@pytest.mark.parametrize("name", ["low", "med", "high"])
def test_yolov5_has_the_hyper_parameters_of_its_files(name: str) -> None:
    hyp = YOLOV5["hyp"][name]
    recipe = recipe_for("yolov5_s", name)
    optimizer, schedule, augment, loss = recipe.optimizer, recipe.schedule, recipe.augment, recipe.loss
    found = {
        "lr0": optimizer.lr,
        "lrf": schedule.final_factor,
        "momentum": optimizer.momentum,
        "weight_decay": optimizer.weight_decay,
        "warmup_epochs": schedule.warmup_epochs,
        "warmup_momentum": schedule.warmup_momentum,
        "warmup_bias_lr": schedule.warmup_bias_lr,
        "box": loss.box,
        "cls": loss.cls,
        "cls_pw": loss.cls_positive,
        "obj": loss.obj,
        "obj_pw": loss.obj_positive,
        "anchor_t": loss.anchor_ratio,
        "fl_gamma": loss.focal_gamma,
        "hsv_h": augment.hsv[0],
        "hsv_s": augment.hsv[1],
        "hsv_v": augment.hsv[2],
        "degrees": augment.rotate,
        "translate": augment.translate,
        "scale": (augment.scale[1] - augment.scale[0]) / 2,
        "shear": augment.shear,
        "perspective": augment.perspective,
        "flipud": augment.flip_vertical,
        "fliplr": augment.flip,
        "mosaic": augment.mosaic,
        "mixup": augment.mixup,
    }
    # `iou_t` is read by nothing; objects are not copied by their outlines.
    assert found == pytest.approx({key: value for key, value in hyp.items() if key not in ("iou_t", "copy_paste")})
    assert sum(augment.scale) == 2 and augment.hsv_style == "multiply"


@pytest.mark.parametrize("name", ["low", "med", "high"])
def test_yolov5_seg_is_trained_as_yolov5_is_but_for_what_outlines_make_possible(name: str) -> None:
    recipe, boxes = recipe_of("yolov5_seg", "yolov5_n_seg", name), recipe_for("yolov5_n", name)
    assert recipe.augment.copy_paste == YOLOV5["hyp"][name]["copy_paste"]
    assert (recipe.augment.min_area, boxes.augment.min_area) == (0.01, 0.1)
    same = {"copy_paste": 0.0, "min_area": 0.1}
    assert recipe.model_copy(update={"augment": recipe.augment.model_copy(update=same)}) == boxes


def test_variants_of_yolov5_seg_have_the_sets_of_yolov5() -> None:
    assert recipe_of("yolov5_seg", "yolov5_s_seg") == recipe_of("yolov5_seg", "yolov5_x_seg", "low")
    assert recipe_of("yolov5_seg", "yolov5_m_seg") == recipe_of("yolov5_seg", "yolov5_n_seg", "high")


@pytest.mark.parametrize(
    ("variant", "name", "same"),
    [
        ("yolov5_n", None, ("yolov5_x", "low")),
        ("yolov5_s6", None, ("yolov5_s", "low")),
        ("yolov5_m", None, ("yolov5_s", "high")),
        ("yolov5_x6", None, ("yolov5_s", "high")),
        ("yolov5_s", "high", ("yolov5_s", "med")),  # they differ in what is copied by its outline
        ("retinanet_r50_fpn", None, ("retinanet_r101_fpn", "1x")),
        ("retinanet_r101_fpn", None, ("retinanet_r50_fpn", "3x")),
    ],
)
def test_a_variant_has_its_own_recipe(variant: str, name: str | None, same: tuple[str, str]) -> None:
    assert recipe_for(variant, name) == recipe_for(*same)


@pytest.mark.parametrize(
    ("variant", "name", "message"),
    [
        ("yolov5_s", "hihg", "yolov5 has no recipe 'hihg'\n  Give low, med or high."),
        ("retinanet_r50_fpn", "2x", "Give 1x or 3x."),
        ("yolov8_n", "low", "yolov8 has no recipe 'low'\n  Leave --recipe out: there is only one."),
    ],
)
def test_unknown_recipe_is_answered_with_those_there_are(variant: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_for(variant, name)
    assert message in str(caught.value)


def operators(steps: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the steps of a pipeline by name; of those that are a choice, the steps of all alternatives."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        for alternative in step.get("choices", [[step]]):
            found |= {row["op"]: row for row in alternative} if "choices" in step else {step["op"]: step}
        if "choices" in step:
            found["choice"] = step
    return found


@pytest.mark.parametrize("variant", MMYOLO)
def test_optimiser_length_and_average_are_the_published_ones(variant: str) -> None:
    published, recipe = MMYOLO[variant], recipe_for(variant)
    optimizer, hook = published["optimizer"], published["schedule_hook"]
    for name in ("lr", "momentum", "weight_decay", "nesterov"):
        assert getattr(recipe.optimizer, name) == optimizer[name], name
    assert recipe.optimizer.name == "sgd" and recipe.optimizer.base_batch == 64
    if not variant.startswith("yolov5"):  # which clips in its own code (docs/specs/yolov5.md, section 10)
        clip = published["clip_grad"] or {"max_norm": None}
        assert recipe.optimizer.clip_norm == clip["max_norm"]
    assert recipe.epochs == published["epochs"]
    assert recipe.assignment_warmup == published["warmup_epochs_of_assigner"]
    assert (recipe.ema.momentum, recipe.ema.ramp) == (published["ema"]["momentum"], published["ema"]["gamma"])
    if "scheduler_type" in hook:
        assert (recipe.schedule.curve, recipe.schedule.final_factor) == (hook["scheduler_type"], hook["lr_factor"])
        assert recipe.schedule.by_epoch and recipe.schedule.warmup_epochs == 3
    else:
        assert recipe.schedule.horizon * recipe.epochs == hook["total_epochs"]
        assert recipe.schedule.final_factor == hook["min_lr_ratio"]
        assert recipe.schedule.warmup_epochs == hook["warmup_epochs"]
        assert recipe.schedule.warmup_iterations == hook["warmup_min_iter"]
        assert recipe.optimizer.decay_biases


YOLO = [variant for variant in MMYOLO if variant.startswith("yolov")]


@pytest.mark.parametrize("variant", YOLO)
def test_augmentation_of_the_yolo_families_is_the_published_one(variant: str) -> None:
    published, augment = MMYOLO[variant], recipe_for(variant).augment
    steps = operators(published["augmentation"])
    affine = steps["YOLOv5RandomAffine"]
    assert augment.scale == pytest.approx(affine["scaling_ratio_range"])
    assert augment.translate == affine.get("max_translate_ratio", 0.1)
    assert (augment.rotate, augment.shear) == (affine["max_rotate_degree"], affine["max_shear_degree"])
    # YOLOv5's own limit is 100 (docs/specs/yolov5.md, section 11).
    assert augment.max_aspect == (100 if variant.startswith("yolov5") else affine.get("max_aspect_ratio", 20))
    mixup = steps.get("YOLOv5MixUp", {"prob": 0})
    assert augment.mixup == mixup["prob"]
    assert augment.mixup_beta == mixup.get("alpha", 32)
    assert augment.mosaic_nine == (steps["choice"]["prob"][1] if "choice" in steps else 0)
    assert augment.degrade == (steps["Albu"]["transforms"][0]["p"] if "Albu" in steps else 0)
    assert (augment.mosaic, augment.flip) == (1, steps["RandomFlip"]["prob"])


@pytest.mark.parametrize("variant", YOLO)
def test_closing_epochs_are_the_published_ones(variant: str) -> None:
    published, recipe = MMYOLO[variant], recipe_for(variant)
    late = published["late_stage"]
    if late is None:
        assert recipe.closing_epochs == 0
        return
    assert recipe.closing_epochs == recipe.epochs - late["from_epoch"]
    steps = operators(late["augmentation"])
    assert recipe.augment.closing_scale == pytest.approx(steps["YOLOv5RandomAffine"]["scaling_ratio_range"])
    assert not {"Mosaic", "YOLOv5MixUp"} & set(steps)


@pytest.mark.parametrize("variant", [variant for variant in MMYOLO if variant.startswith("ppyoloe")])
def test_ppyoloe_batches_have_the_published_sizes(variant: str) -> None:
    (resize,) = MMYOLO[variant]["batch_augmentation"]
    augment = recipe_for(variant).augment
    low, high = resize["random_size_range"]
    assert batch_sizes(augment, InputSpec(size=640)) == tuple(range(low, high + 1, resize["size_divisor"]))
    assert augment.multiscale_interval == resize["interval"]
    steps = operators(MMYOLO[variant]["augmentation"])
    assert augment.flip == steps["RandomFlip"]["prob"]
    assert (augment.mosaic, augment.mixup, augment.distort, augment.expand) == (0, 0, 0.5, 0.5)


@pytest.mark.parametrize("row", YOLOV5["letterbox"], ids=lambda row: "x".join(map(str, row["image_hw"])))
def test_whole_pictures_lie_where_they_lie_in_yolov5(row: dict[str, list[int]]) -> None:
    height, width = row["image_hw"]
    box = np.array([[0, 0, width, height]], np.float32)
    sample = Sample(np.zeros((height, width, 3), np.uint8), box, np.array([0]))
    left, top, right, bottom = letterbox_square(sample, 640, centre=recipe_for("yolov5_s").augment.centre).boxes[0]
    assert ([top, bottom], [left, right]) == (row["image_rows"], row["image_cols"])


@pytest.mark.parametrize("curve", ["linear", "cosine"])
@pytest.mark.parametrize("epochs", [100, 300])
def test_rate_by_epochs_is_the_published_curve(epochs: int, curve: str) -> None:
    recipe = override(
        recipe_for("yolov5_s"), [f"epochs={epochs}", f"schedule.curve={curve}", "schedule.warmup_fraction=0"]
    )
    schedule = plan_schedule(recipe, 11)
    for epoch, factor in YOLOV5["lr_factor"][f"{epochs}_epochs_lrf0.01"][curve].items():
        for step in (0, 10):
            assert schedule.factor(int(epoch) * 11 + step) == pytest.approx(factor, rel=1e-12)


def test_warm_up_of_yolov5_is_the_published_one() -> None:
    example = YOLOV5["warmup_example"]
    # One step makes one update here: the reference changes its rates with every step, whether it updates or not.
    recipe = override(recipe_for("yolov5_s"), [f"epochs={example['epochs']}", "optimizer.accumulate=1"])
    schedule = plan_schedule(recipe, example["batches_per_epoch"])
    assert schedule.warmup_steps == example["warmup_iterations"]
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    optimizer = build_optimizer(model, recipe.optimizer, 64)
    rates = ScheduledRates(optimizer, recipe, schedule)
    for iteration in range(601):
        published = example["at_iteration"].get(str(iteration))
        for group in optimizer.param_groups:
            if published is not None:
                lr = published["lr_bias" if group["biases"] else "lr_other"]
                assert group["lr"] == pytest.approx(lr, rel=1e-9, abs=1e-12), iteration
                assert group["momentum"] == pytest.approx(published["momentum"], rel=1e-9)
        optimizer.step()
        rates.step()


@pytest.mark.parametrize("variant", ["yolov5_n", "yolov5_m", "yolov5_s6"])
def test_yolov5_has_the_published_parameter_groups(variant: str) -> None:
    published = YOLOV5["optimizer_groups"][variant.replace("_", "")]
    model = create_model(variant, num_classes=80)
    groups = parameter_groups(model, 0.0005)
    found = {(group["weight_decay"] > 0, group["biases"]): len(group["params"]) for group in groups}
    assert found == {
        (True, False): published["1 weights with decay"],
        (False, False): published["2 norm weights"],
        (False, True): published["0 biases"],
    }


@pytest.mark.parametrize(
    ("variant", "part"), [("yolov7_tiny", ".add."), ("yolov7_tiny", ".multiply."), ("ppyoloe_plus_s", ".alpha")]
)
def test_scales_are_trained_and_not_decayed(variant: str, part: str) -> None:
    model = create_model(variant, num_classes=2)
    scales = {id(parameter) for name, parameter in model.named_parameters() if part in name}
    groups = parameter_groups(model, 0.1, decay_biases=True)
    found = [group["weight_decay"] for group in groups for parameter in group["params"] if id(parameter) in scales]
    assert len(found) == len(scales) > 0 and set(found) == {0.0}


@pytest.mark.parametrize(("update", "decay"), [row for row in YOLOV5["ema_decay"].items() if row[0] != "1"])
def test_average_forgets_as_published_after_the_first_update_which_copies(update: str, decay: float) -> None:
    average = ModelEma(nn.Linear(1, 1), recipe_for("yolov5_s").ema)
    average.updates = int(update) - 1
    assert 1 - average.momentum() == pytest.approx(decay, rel=1e-9)


@pytest.mark.parametrize(("iteration", "lr"), RETINANET["solver"]["lr_at_iteration"].items())
def test_retinanet_rate_is_the_published_one(iteration: str, lr: float) -> None:
    recipe = fit_recipe(recipe_for("retinanet_r50_fpn"), ["batch=16"], images=117_266)
    assert recipe.iterations == RETINANET["solver"]["max_iter"]
    schedule = plan_schedule(recipe, 117_266 // 16)
    optimizer = build_optimizer(nn.Linear(1, 1), recipe.optimizer, 16)
    assert optimizer.param_groups[0]["lr"] * schedule.factor(int(iteration)) == pytest.approx(lr, rel=1e-9)


def test_retinanet_is_optimised_as_published() -> None:
    solver, optimizer = RETINANET["solver"], recipe_for("retinanet_r50_fpn").optimizer
    assert (optimizer.name, optimizer.clip_norm) == ("sgd", None)
    for ours, theirs in (("lr", "base_lr"), ("base_batch", "ims_per_batch")):
        assert getattr(optimizer, ours) == solver[theirs]
    for name in ("momentum", "nesterov", "weight_decay"):
        assert getattr(optimizer, name) == solver[name]
    three_times = plan_schedule(recipe_for("retinanet_r101_fpn"), 7329)
    assert three_times.milestones == (210_000, 250_000)
    assert recipe_for("retinanet_r101_fpn").iterations == 270_000


def test_retinanet_pictures_have_the_published_sizes() -> None:
    train = RETINANET["train"]
    spec = InputSpec(size=800, resize="shorter", longest=train["max_size"], rounding="nearest")
    augment = recipe_for("retinanet_r50_fpn").augment
    assert list(batch_sizes(augment, spec)) == train["short_edge_choices"]
    assert augment.flip == train["flip_probability"]
    for example in RETINANET["resize_examples"]:
        height, width = example["in_hw"]
        frame = plan_frame(width, height, spec.model_copy(update={"size": 640}))
        assert [frame.resized_height, frame.resized_width] == example["train640_out_hw"]


ONCE, FEW, MANY = 117_266, 500, 20_000


@pytest.mark.parametrize(
    ("variant", "assignments", "images", "expected"),
    [
        # As long as published: nothing is changed.
        ("yolov5_s", [], MANY, {"optimizer.name": "sgd", "schedule.warmup_epochs": 3, "schedule.by_epoch": True}),
        # 313 updates an epoch for 40 epochs: SGD, with a shorter warm-up.
        ("yolov5_s", ["epochs=40"], MANY, {"optimizer.name": "sgd", "schedule.warmup_epochs": 0.4}),
        # 8 updates an epoch: AdamW, without what the warm-up of SGD does.
        (
            "yolov5_s",
            [],
            FEW,
            {
                "optimizer.name": "adamw",
                "optimizer.accumulate": 1,
                "optimizer.accumulation": "mean",
                "schedule.by_epoch": False,
                "schedule.warmup_bias_lr": None,
                "schedule.warmup_momentum": None,
            },
        ),
        # AdamW makes an update of each step, so that the same number of them takes fewer epochs.
        ("yolov5_s", ["iterations=500"], FEW, {"optimizer.name": "adamw", "iterations": 500, "epochs": 17}),
        (
            "yolov5_s",
            ["iterations=500", "optimizer.name=sgd"],
            FEW,
            {"optimizer.accumulate": "auto", "iterations": 500, "epochs": 63},
        ),
        ("yolov6_s", ["epochs=100"], MANY, {"assignment_warmup": 1, "closing_epochs": 15}),
        ("yolov6_s", ["epochs=20"], MANY, {"assignment_warmup": 1, "closing_epochs": 5}),
        ("yolov6_v3_s", ["epochs=150"], MANY, {"assignment_warmup": 2, "closing_epochs": 15}),
        ("ppyoloe_plus_s", ["epochs=16"], MANY, {"assignment_warmup": 6, "schedule.warmup_epochs": 1.0}),
        ("ppyoloe_plus_s", ["epochs=100"], MANY, {"assignment_warmup": 30, "schedule.warmup_epochs": 5.0}),
        ("ppyoloe_plus_s", ["epochs=16", "assignment_warmup=3"], MANY, {"assignment_warmup": 3}),
        # A family that starts from trained weights keeps SGD in the shortest run.
        ("retinanet_r50_fpn", ["epochs=3"], FEW, {"optimizer.name": "sgd", "iterations": None, "epochs": 3}),
        ("retinanet_r50_fpn", ["iterations=500"], FEW, {"optimizer.name": "sgd", "iterations": 500, "epochs": 17}),
        ("retinanet_r50_fpn", [], ONCE, {"iterations": 90_000, "epochs": 13, "ema.enabled": False}),
    ],
)
def test_short_runs(variant: str, assignments: list[str], images: int, expected: dict[str, Any]) -> None:
    recipe = fit_recipe(recipe_for(variant), assignments, images)
    for path, value in expected.items():
        found: Any = recipe
        for name in path.split("."):
            found = getattr(found, name)
        assert found == (pytest.approx(value) if isinstance(value, float) else value), path


@pytest.mark.parametrize(("assignments", "updates"), [(["epochs=6"], 6 * 31), (["iterations=900"], 900)])
def test_steps_of_retinanet_come_at_the_same_part_of_a_short_run(assignments: list[str], updates: int) -> None:
    schedule = plan_schedule(fit_recipe(recipe_for("retinanet_r50_fpn"), assignments, images=FEW), 31)
    assert schedule.milestones == (round(updates * 2 / 3), round(updates * 8 / 9))
    assert schedule.warmup_steps == round(updates / 10)  # a thousand would be the whole run
    assert schedule.factor(updates - 1) == pytest.approx(0.01)


@pytest.mark.parametrize("variant", [*MMYOLO, "yolov5_x6", "yolov6_t", "yolov7_x", "yolov8_m", "retinanet_r101_fpn"])
def test_recipes_are_valid(variant: str) -> None:
    recipe = recipe_for(variant)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert fit_recipe(recipe, [], images=FEW)  # choices that exclude each other are refused here
    assert recipe.augment != AugmentRecipe()

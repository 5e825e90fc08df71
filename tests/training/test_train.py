"""The verb: what a training leaves behind, how it goes on, and what it says to mistakes."""

from __future__ import annotations

import csv
import json
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import CLASSES, write_rectangles

from ymir_tmi.config.schema import EvaluateSettings, TrainSettings
from ymir_tmi.data import pipeline
from ymir_tmi.data.pipeline import read_sample
from ymir_tmi.errors import ConfigError, DataError, ModelError, RunError, TmiError
from ymir_tmi.evaluation.results import read_evaluation
from ymir_tmi.evaluation.run import evaluate
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.models.catalog import create_model, default_spec
from ymir_tmi.models.checkpoint import load_model, read_model_info, save_model
from ymir_tmi.training import run as run_module
from ymir_tmi.training import start
from ymir_tmi.training.recipes import recipe_of
from ymir_tmi.training.run import train

# Learns the rectangles in some twenty steps.
FAST = [
    "optimizer.name=adamw",
    "optimizer.lr=0.005",
    "optimizer.lr_scaling=none",
    "augment.mosaic=0",
    "augment.multiscale=null",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rectangles(tmp_path_factory.mktemp("data"), train=16, val=8)


def settings(data_file: Path, output: Path, **changes: Any) -> TrainSettings:
    base = {"model": "rtmdet_tiny", "data": data_file, "output": output, "image_size": 64, "epochs": 5, "batch": 4}
    return TrainSettings.model_validate({**base, "workers": 0, "precision": "fp32", "device": "cpu", **changes})


def manifest(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RunLayout(run).manifest.read_text())
    return content


def history(run: Path) -> list[dict[str, str]]:
    rows = csv.DictReader(RunLayout(run).history.read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def validated(run: Path) -> list[dict[str, str]]:
    """Return the epochs that were validated."""
    return [row for row in history(run) if row["AP"]]


def assert_same_run(first: Path, second: Path) -> None:
    """Two runs have the same history and the same weights, bit by bit."""
    assert history(first) == history(second)
    for name in ("best_weights", "last_weights"):
        one, two = (load_file(getattr(RunLayout(run), name)) for run in (first, second))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(settings(data, run, model="yolox_tiny", epochs=6, val_interval=3, set=FAST))
    return run


def test_run_leaves_every_file(trained: Path) -> None:
    layout = RunLayout(trained)
    for path in (layout.history, layout.progress, layout.evaluation, layout.checkpoint):
        assert path.stat().st_size, path
    assert len(list(layout.samples.glob("*.jpg"))) == 4
    assert len(list(layout.tensorboard.glob("events*"))) == 1
    assert not list(trained.rglob(".*")), "temporary files are left"
    content = manifest(trained)
    assert (content["verb"], content["status"]) == ("train", "done")
    assert content["data"]["train"]["images"] == 16 and content["data"]["val"]["images"] == 8
    assert content["model"]["licence"] == "trained from random initial weights"
    assert content["model"]["transfer"] is None
    assert content["recipe"]["optimizer"]["lr"] == 0.005
    assert content["settings"]["epochs"] == 6


def test_history_has_every_epoch_and_the_validated_ones_their_ap(trained: Path) -> None:
    rows = history(trained)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [bool(row["AP"]) for row in rows] == [False, False, True, False, False, True]
    assert all(float(row["loss"]) > 0 and float(row["lr"]) > 0 for row in rows)
    assert [bool(row["loss_l1"]) for row in rows] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("name", ["best", "last"])
def test_model_file_says_what_it_is(trained: Path, name: str) -> None:
    path = trained / "weights" / f"{name}.safetensors"
    model = load_model(path)
    assert model.spec.class_names == CLASSES
    assert model.spec.input.size == 64
    metrics = json.loads(read_model_info(path).extra["metrics"])
    rows = validated(trained)
    row = rows[-1] if name == "last" else max(rows, key=lambda row: float(row["AP"]))
    assert metrics["epoch"] == int(row["epoch"])
    assert metrics["AP"] == pytest.approx(float(row["AP"]), abs=1e-6) and 0 < metrics["AP"] < 1


def test_evaluate_gives_the_numbers_of_the_training(trained: Path, data: Path, tmp_path: Path) -> None:
    model = RunLayout(trained).best_weights
    again = evaluate(
        EvaluateSettings(model=model, data=[str(data)], output=tmp_path / "e", precision="fp32", device="cpu")
    )
    in_training = read_evaluation(RunLayout(trained).evaluation)
    assert again.scalars() == pytest.approx(in_training.scalars(), abs=1e-6)
    ap = max(float(row["AP"]) for row in validated(trained))
    assert ap > 0.005
    assert ap == pytest.approx(again.coco.AP, abs=1e-6)


def test_progress_can_be_followed(trained: Path) -> None:
    events = [json.loads(line) for line in RunLayout(trained).progress.read_text().splitlines()]
    assert events[-1]["state"] == "done"
    assert events[-1]["done"] == events[-1]["total"] == 24
    assert {"epoch", "loss", "images_per_second", "AP"} <= events[-2].keys()


class StopError(Exception):
    pass


def stop_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the validation of an epoch fail, once."""
    measure = run_module.evaluate_model
    count = 0

    def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise error
        return measure(*arguments, **keywords)

    monkeypatch.setattr(run_module, "evaluate_model", failing)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_is_the_same_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    before = threading.enumerate()  # other tests' libraries leave some
    data = write_rectangles(tmp_path / "data", train=8, val=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(settings(data, whole, workers=workers, set=["optimizer.lr=0.05"]))
    stop_in_epoch(4, monkeypatch, StopError("out of luck"))
    with pytest.raises(StopError):
        train(settings(data, parts, workers=workers, set=["optimizer.lr=0.05"]))
    assert manifest(parts)["status"] == "failed" and manifest(parts)["error"] == "out of luck"
    assert len(history(parts)) == 3
    assert not multiprocessing.active_children()
    for thread in set(threading.enumerate()) - set(before):
        thread.join(10)  # those of queues end by themselves, soon after the processes
        assert not thread.is_alive()
    train(TrainSettings(resume=parts))
    assert manifest(parts)["status"] == "done" and "error" not in manifest(parts)
    assert_same_run(whole, parts)
    last = json.loads(RunLayout(parts).progress.read_text().splitlines()[-1])
    assert (last["state"], last["done"], last["total"]) == ("done", 10, 10)


def test_a_run_whose_epochs_are_parts_of_a_pass_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rectangles(tmp_path / "data", train=12, val=2)  # a pass has three steps
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"epochs": None, "set": ["iterations=5", "val_iterations=1", "optimizer.lr=0.05"]}
    train(settings(data, whole, **changes))
    assert [row["epoch"] for row in validated(whole)] == ["1", "2", "3", "4", "5"]
    stop_in_epoch(2, monkeypatch, StopError())
    with pytest.raises(StopError):
        train(settings(data, parts, **changes))
    train(TrainSettings(resume=parts))
    assert_same_run(whole, parts)


def test_ctrl_c_in_the_first_epoch_leaves_a_model_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rectangles(tmp_path / "data", train=8, val=2)
    run = tmp_path / "run"
    stop_in_epoch(1, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, run, epochs=2))
    assert manifest(run)["status"] == "interrupted"
    assert load_model(RunLayout(run).last_weights).spec.class_names == CLASSES
    train(TrainSettings(resume=run))
    train(settings(data, tmp_path / "whole", epochs=2))
    assert_same_run(tmp_path / "whole", run)


def test_resumed_run_needs_its_starting_weights_no_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.safetensors"
    save_model(create_model("rtmdet_tiny", class_names=CLASSES), start, licence="MIT")
    stop_in_epoch(2, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, tmp_path / "run", epochs=2, weights=start))
    start.unlink()
    result = train(TrainSettings(resume=tmp_path / "run"))
    assert read_model_info(result.weights).licence == "MIT"


@pytest.mark.slow
def test_run_of_iterations_validates_its_tenths_and_its_end(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=2, val=1)
    short = settings(data, tmp_path / "run", batch=2, set=[*FAST, "iterations=21"])
    train(short.model_copy(update={"epochs": None}))
    rows = history(tmp_path / "run")  # of one update each
    assert [int(row["epoch"]) for row in rows if row["AP"]] == [*range(2, 21, 2), 21]
    content = manifest(tmp_path / "run")
    assert (content["recipe"]["iterations"], content["recipe"]["epochs"]) == (21, 21)
    assert (content["settings"]["epochs"], content["settings"]["val_interval"]) == (None, 2)


def test_only_images_with_objects_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rectangles(tmp_path / "data", train=8, val=2)
    content = json.loads(data.with_name("train.json").read_text())
    annotations = [dict(row, iscrowd=int(row["image_id"] == 3)) for row in content["annotations"]]
    content["annotations"] = [row for row in annotations if row["image_id"] != 5]
    data.with_name("train.json").write_text(json.dumps(content))
    shown: list[str] = []
    monkeypatch.setattr(
        pipeline,
        "read_sample",
        lambda index, row, **how: (shown.append(index.paths[row]), read_sample(index, row, **how))[1],
    )
    train(settings(data, tmp_path / "run", epochs=1, batch=2, set=[*FAST, "with_objects=true", "augment.mixup=0"]))
    assert sorted(Path(path).stem for path in shown) == ["1", "2", "4", "6", "7", "8"]
    assert manifest(tmp_path / "run")["data"]["train"]["images"] == 8


def test_starting_weights_keep_the_classes_they_know(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start.safetensors"
    torch.manual_seed(1)
    given = create_model("rtmdet_tiny", class_names=["blue", "green"])
    save_model(given, start, licence="CC0-1.0")
    run = tmp_path / "run"
    # A learning rate of next to nothing: the weights stay what they were at the start.
    frozen = ["optimizer.lr=1e-12", "ema.enabled=false"]
    train(settings(data, run, epochs=1, weights=start, set=frozen))
    described = manifest(run)["model"]
    assert described["licence"] == "CC0-1.0"
    tensors = sum("cls_pred" not in key for key in given.state_dict())
    assert described["transfer"] == {"loaded": tensors, "classes": ["blue"], "skipped": []}
    told = f"starting weights: {tensors} tensors and 1 of {len(CLASSES)} classes taken over; new classes: "
    assert told in capsys.readouterr().err
    assert read_model_info(RunLayout(run).last_weights).licence == "CC0-1.0"
    model = load_model(RunLayout(run).last_weights)
    torch.testing.assert_close(model.backbone.stem[0].conv.weight, given.backbone.stem[0].conv.weight)
    blue = model.head.cls_pred[0].weight[CLASSES.index("blue")]
    torch.testing.assert_close(blue, given.head.cls_pred[0].weight[0])


def test_bf16_run_saves_float32_weights(data: Path, tmp_path: Path) -> None:
    result = train(settings(data, tmp_path / "run", epochs=1, precision="bf16"))
    assert all(value.isfinite().all() for value in load_file(result.weights).values())
    assert load_file(result.weights)["backbone.stem.0.conv.weight"].dtype == torch.float32
    exact = train(settings(data, tmp_path / "exact", epochs=1))
    loss, exact_loss = (float(history(run.run)[0]["loss"]) for run in (result, exact))
    assert loss != exact_loss
    assert loss == pytest.approx(exact_loss, rel=0.05)


def test_chosen_classes_are_learnt_under_their_new_name(data: Path, tmp_path: Path) -> None:
    result = train(settings(data, tmp_path / "run", epochs=1, classes=["blue=cold"]))
    assert load_model(result.weights).spec.class_names == ("cold",)


def test_result_reads_well(data: Path, tmp_path: Path) -> None:
    result = train(settings(data, tmp_path / "run", epochs=1))
    assert json.loads(json.dumps(result.to_dict()))["epochs"] == 1
    assert result.to_text().startswith("The best of 1 epochs is epoch 1: AP ")


def test_anchors_are_fitted_recorded_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, own = tmp_path / "run", default_spec("yolov5_n", class_names=CLASSES).anchors
    stop_in_epoch(2, monkeypatch, KeyboardInterrupt())
    # Hardly any of the rectangles is as close as this to one of the model's own anchors.
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, run, model="yolov5_n", epochs=2, set=[*FAST, "loss.anchor_ratio=1.2"]))
    record = manifest(run)["anchors"]
    assert record["recall_before"] < 0.4 and record["recall"] > 0.7
    for level in record["anchors"]:
        assert all(15 < side < 45 for anchor in level for side in anchor)  # the rectangles have sides of 20 to 35
    told = f"anchors: they fit {record['recall']:.1%} of the training objects in place of {record['recall_before']:.1%}"
    assert told in capsys.readouterr().err
    monkeypatch.setattr(start, "fit_anchors", lambda *_: pytest.fail("fitted again"))
    result = train(TrainSettings(resume=run))
    assert load_model(result.weights).spec.model_dump(mode="json")["anchors"] == record["anchors"]

    # A training that starts from these weights begins with their anchors, one that starts anew with the model's own.
    changes = {"model": "yolov5_n", "epochs": 1, "set": [*FAST, "auto_anchor=false"]}
    train(settings(data, tmp_path / "again", weights=result.weights, **changes))
    assert manifest(tmp_path / "again")["anchors"]["anchors"] == record["anchors"]
    result = train(settings(data, tmp_path / "anew", **changes))
    assert load_model(result.weights).spec.anchors == own
    assert manifest(tmp_path / "anew")["anchors"]["recall_before"] is None


@pytest.mark.slow
@pytest.mark.parametrize("sgd", [False, True], ids=["fitted", "sgd"])
@pytest.mark.parametrize(
    "name", ["yolov5_n", "yolov6_n", "yolov7_tiny", "yolov8_n", "ppyoloe_plus_s", "retinanet_r50_fpn"]
)
def test_every_family_trains_by_its_recipe_and_goes_on_bit_by_bit(
    name: str, sgd: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": name, "epochs": 3, "workers": 0 if sgd else 2, "set": ["optimizer.name=sgd"] if sgd else []}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(settings(data, whole, **changes))
    augment = recipe_of(name.split("_")[0], name).augment
    assert manifest(whole)["recipe"]["augment"] == augment.model_dump(mode="json")
    rows = history(whole)
    assert len(rows) == 3 and all(np.isfinite(float(row["loss"])) for row in rows)
    stop_in_epoch(2, monkeypatch, StopError("out of luck"))
    with pytest.raises(StopError):
        train(settings(data, parts, **changes))
    train(TrainSettings(resume=parts))
    assert_same_run(whole, parts)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": None}, ConfigError, "there is nothing to train on"),
        ({"data": None, "train": ["DATA"]}, ConfigError, "there is nothing to val on"),
        ({"train": ["DATA"]}, ConfigError, "both a data file and train or val"),
        ({"image_size": 100}, ConfigError, "image size 100 is not a multiple of 32"),
        ({"model": "rtmdet_tinny"}, ModelError, "Did you mean 'rtmdet_tiny'"),
        ({"set": ["optimizer.learning=1"]}, ConfigError, "there is no field 'learning'"),
        ({"set": ["auto_anchor=true"]}, ConfigError, "rtmdet_tiny has no anchors that are fitted"),
        ({"recipe": "low"}, ConfigError, "rtmdet has no recipe 'low'"),
        ({"set": ["freeze=[backbone.steem]"]}, ConfigError, "Did you mean 'backbone.stem'"),
        ({"classes": ["green"]}, ConfigError, "there is no class 'green'"),
        ({"weights": Path("nowhere.safetensors")}, ModelError, "no such model file"),
        ({"precision": "fp16"}, ConfigError, "fp16 needs a GPU"),
        ({"device": "tpu"}, ConfigError, "unknown device 'tpu'"),
    ],
)
def test_mistakes_are_named_before_a_folder_is_made(
    data: Path, tmp_path: Path, changes: dict[str, Any], error: type[TmiError], message: str
) -> None:
    given = {name: [str(data)] if value == ["DATA"] else value for name, value in changes.items()}
    with pytest.raises(error, match=message):
        train(settings(data, tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()


def test_split_without_objects_is_refused(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path, train=2, val=1)
    content = json.loads((tmp_path / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match="the val split has no objects"):
        train(settings(data, tmp_path / "run"))


def _change_data(run: Path, data: Path) -> TrainSettings:
    text = data.with_name("val.json").read_text()
    data.with_name("val.json").write_text(text.replace('"width": 64', '"width": 63', 1))
    return TrainSettings(resume=run)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (lambda run, data: TrainSettings(resume=data.parent), RunError, "this is not a run folder"),
        (lambda run, data: TrainSettings(resume=run, epochs=9), ConfigError, "also given: epochs"),
        (_change_data, RunError, "the val split is not what it was"),
    ],
)
def test_run_is_not_resumed_as_something_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: Callable[[Path, Path], TrainSettings],
    error: type[TmiError],
    message: str,
) -> None:
    data = write_rectangles(tmp_path / "data", train=4, val=2)
    stop_in_epoch(1, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, tmp_path / "run"))
    with pytest.raises(error, match=message):
        train(request_(tmp_path / "run", data))


def test_finished_run_is_not_resumed(trained: Path) -> None:
    with pytest.raises(RunError, match="this training is done"):
        train(TrainSettings(resume=trained))

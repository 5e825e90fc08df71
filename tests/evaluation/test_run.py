"""The verb `evaluate`, and that every way to the numbers gives the same ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ymir_tmi.config.schema import EvaluateSettings, InferSettings, RunSettings
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ConfigError, DataError, RunError, TmiError
from ymir_tmi.evaluation.detected import detect_images
from ymir_tmi.evaluation.results import EvaluationResult, read_evaluation
from ymir_tmi.evaluation.run import evaluate, evaluate_model
from ymir_tmi.imaging import Image, write_image
from ymir_tmi.inference.run import infer
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.models.interface import Detector
from ymir_tmi.models.runtime.torch_runtime import load_runtime

NAMES = ("coin", "tile", "star")
MODEL: dict[str, Any] = {"device": "cpu", "precision": "fp32", "image_size": 96}
LOADING: dict[str, Any] = {"batch": 2, "workers": 1}
NO_PASS: dict[str, Any] = {**dict.fromkeys((*MODEL, *LOADING), "auto"), "image_size": None, "model": None}


@dataclass(frozen=True)
class Job:
    """A model with new weights, pictures, and annotations of which it finds some."""

    model: Path
    pictures: Path
    data: Path
    result: EvaluationResult

    def settings(self, output: Path, **changed: Any) -> EvaluateSettings:
        """Return the settings that gave `result`, with some of them changed."""
        return EvaluateSettings.model_validate(
            {"model": self.model, "data": [str(self.data)], "output": output, **MODEL, **LOADING, **changed}
        )


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate([(12, 12), (12, 8), (8, 12), (15, 11), (12, 8), (12, 12)]):
        write_image(folder / "images" / f"{number}.png", noise(rng, width, height))
    save_model(lively_model(rng), folder / "model.safetensors")

    (folder / "data.json").write_text(json.dumps(annotate(folder / "model.safetensors", folder / "images", rng)))
    job = Job(folder / "model.safetensors", folder / "images", folder / "data.json", None)  # type: ignore[arg-type]
    return Job(job.model, job.pictures, job.data, evaluate(job.settings(folder / "run")))


def noise(rng: np.random.Generator, width: int, height: int) -> Image:
    """Return a picture of coloured squares of 8 x 8 pixels."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def lively_model(rng: np.random.Generator) -> Detector:
    """Return a model whose scores and boxes differ from place to place, which those of a new model do not."""
    torch.manual_seed(0)
    model = create_model("rtmdet_tiny", class_names=NAMES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = np.stack([noise(rng, 12, 12) for _ in range(8)]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        model(model.normalize(torch.from_numpy(images)))  # the batch norms take the statistics of these pictures
        for name, parameter in model.head.named_parameters():
            if "cls_pred" in name and name.endswith("weight"):
                parameter.normal_(0, 0.03)
            elif "reg_pred" in name:
                parameter.normal_(1 if name.endswith("bias") else 0, 0.003)
    return model


def annotate(model: Path, pictures: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return a data set whose objects lie near what the model finds; the third image has none, ids have gaps."""
    index = read_dataset([str(pictures)])
    runtime = load_runtime(load_model(model), max_dets=100, **MODEL)
    data: dict[str, Any] = {"images": [], "categories": [], "annotations": []}
    data["categories"] = [{"id": 3 * label + 7, "name": name} for label, name in enumerate(NAMES)]
    for image, row in enumerate(detect_images(runtime, NAMES, index, conf=0.001, **LOADING).rows):
        name = Path(index.paths[image]).name
        data["images"].append({"id": 50 - image, "file_name": name, "width": row["size"][0], "height": row["size"][1]})
        for each in rng.choice(15, 0 if image == 2 else 4, replace=False):
            x1, y1, x2, y2 = row["boxes"][each]
            box = [x1 + rng.normal(), y1 + rng.normal(), max(4, x2 - x1), max(4, y2 - y1)]
            annotation = {"id": len(data["annotations"]), "image_id": 50 - image, "bbox": box, "area": box[2] * box[3]}
            data["annotations"].append({**annotation, "category_id": 3 * row["labels"][each] + 7, "iscrowd": 0})
    return data


def assert_same_numbers(first: EvaluationResult, second: EvaluationResult) -> None:
    """Compare everything but the settings, to 1e-6."""

    def compare(one: Any, other: Any) -> None:
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                compare(one[key], other[key])
        elif isinstance(one, list):
            assert len(one) == len(other)
            for left, right in zip(one, other, strict=True):
                compare(left, right)
        else:
            assert one == (pytest.approx(other, abs=1e-6) if isinstance(other, float) else other)

    for result in (first, second):
        assert result.warnings == []
    compare(*({**result.to_dict(), "settings": None} for result in (first, second)))


def test_the_model_finds_something(job: Job) -> None:
    assert job.result.coco.AP is not None
    assert 0.05 < job.result.coco.AP < 0.95
    assert job.result.overall.true_positives > 3
    assert job.result.settings.model_dump() == {
        "conf": 0.001, "iou": 0.65, "max_dets": 100, "image_size": 96, "precision": "fp32",
        "tile": None, "overlap": None,
    }  # fmt: skip


def test_validation_of_a_training_gives_the_same_numbers(job: Job) -> None:
    index = read_dataset([str(job.data)])
    result = evaluate_model(load_model(job.model), index, RunSettings(**MODEL, **LOADING))
    assert result.to_dict() == job.result.to_dict()


def test_predictions_of_large_images_read_back_give_the_same_numbers(job: Job, tmp_path: Path) -> None:
    """Both ways count more detections than where images are taken whole."""
    tiles = {"tile": 64, "overlap": 16}
    direct = evaluate(job.settings(tmp_path / "direct", **tiles))
    assert direct.settings.max_dets == 2000
    assert json.loads((tmp_path / "direct" / "run.json").read_text())["settings"]["max_dets"] == 2000
    changed = {**NO_PASS, "predictions": tmp_path / "direct" / "predictions.json"}
    assert_same_numbers(evaluate(job.settings(tmp_path / "saved", **changed)), direct)


def test_predictions_read_back_give_the_same_numbers(job: Job, tmp_path: Path) -> None:
    settings = {"data": [str(job.pictures)], "model": job.model, "conf": 0.001, "output": tmp_path / "infer"}
    infer(InferSettings.model_validate({**settings, **MODEL, **LOADING}))
    for folder in (tmp_path / "infer", job.data.parent / "run"):
        predictions = folder / "predictions.json"
        changed = {**NO_PASS, "predictions": predictions}
        result = evaluate(job.settings(tmp_path / f"from-{folder.name}", **changed))
        assert_same_numbers(result, job.result)


def test_run_folder(job: Job) -> None:
    folder = job.data.parent / "run"
    assert read_evaluation(folder / "evaluation.json").to_dict() == job.result.to_dict()
    assert job.result.to_text().endswith(f"\n{folder}")
    manifest = json.loads((folder / "run.json").read_text())
    assert (manifest["verb"], manifest["status"]) == ("evaluate", "done")
    assert manifest["metrics"]["AP"] == job.result.coco.AP
    assert (manifest["data"]["val"]["images"], manifest["data"]["val"]["objects"]) == (6, 20)
    assert manifest["model"]["name"] == "rtmdet_tiny"
    predictions = json.loads((folder / "predictions.json").read_text())
    assert [image["id"] for image in predictions["images"]] == [50, 49, 48, 47, 46, 45]
    assert [(row["id"], row["name"]) for row in predictions["categories"]] == [(7, "coin"), (10, "tile"), (13, "star")]
    with pytest.raises(RunError, match="exists already"):
        evaluate(job.settings(folder))


def test_tiles_are_in_the_numbers(job: Job, tmp_path: Path) -> None:
    as_large = evaluate(job.settings(tmp_path / "large", tile=128, overlap=8, max_dets=100))
    assert (as_large.settings.tile, as_large.settings.overlap) == (128, 8)
    assert as_large.coco == job.result.coco  # no picture is larger
    cut = evaluate(job.settings(tmp_path / "cut", tile=64, overlap=32))
    assert cut.coco != job.result.coco
    assert (job.result.settings.tile, job.result.settings.overlap) == (None, None)


def test_an_unreadable_picture_counts_as_empty(job: Job, tmp_path: Path) -> None:
    for path in job.pictures.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if path.name != "1.png" else b"no picture")
    (tmp_path / "data.json").write_bytes(job.data.read_bytes())
    result = evaluate(job.settings(tmp_path / "run", data=[str(tmp_path / "data.json")]))
    assert [(row.position, Path(row.path).name) for row in result.unreadable] == [(1, "1.png")]
    assert result.images == 6
    assert result.overall.recall is not None and result.overall.true_positives + result.overall.missed == 20
    again = evaluate(
        EvaluateSettings(
            predictions=tmp_path / "run" / "predictions.json",
            data=[str(tmp_path / "data.json")],
            output=tmp_path / "again",
        )
    )
    assert_same_numbers(again, result)


@pytest.mark.parametrize(
    "classes, names, objects",
    [
        (["tile"], ["tile"], None),
        (["star", "coin"], ["star", "coin"], None),
        (["coin=thing", "star=thing"], ["thing"], None),
    ],
)
def test_chosen_classes(job: Job, tmp_path: Path, classes: list[str], names: list[str], objects: None) -> None:
    result = evaluate(job.settings(tmp_path / "run", classes=classes))
    assert [row.name for row in result.classes] == names
    before = {row.name: row for row in job.result.classes}
    if "thing" in names:
        assert result.objects == before["coin"].objects + before["star"].objects
    else:
        assert [row.objects for row in result.classes] == [before[name].objects for name in names]
    assert result.warnings == []


@pytest.mark.parametrize(
    "idle",
    [
        {"iou": 0.5},
        {"overlap": 8},
        {"tile": 64, "overlap": 8},
        {"window": 64, "window_stride": 32},
        {"flip_test": True},
        {"scales": [0.5, 1]},
        {"device": "cpu", "precision": "fp32", "batch": 2, "workers": 0},
    ],
)
def test_predictions_refuse_what_only_a_model_reads(job: Job, tmp_path: Path, idle: dict[str, Any]) -> None:
    names = " and ".join(f"'{name}'" for name in idle)
    with pytest.raises(ConfigError, match=f"^{names} cannot be applied to predictions"):
        evaluate(job.settings(tmp_path / "run", **{**NO_PASS, "predictions": tmp_path / "p.json", **idle}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"model": None}, ConfigError, "either --model or --predictions"),
        ({"predictions": "p.json"}, ConfigError, "either --model or --predictions"),
        ({"model": None, "predictions": "p.json"}, ConfigError, "'image_size' and 'device' .* applied to predictions"),
        ({"tile": 64}, ConfigError, "windows of 64 pixels cannot overlap by 200"),
        ({"classes": ["tiel"]}, ConfigError, "have a class 'tiel'"),
        ({"classes": ["coin=moon"], "data": "moonless"}, DataError, "there are no objects"),
        ({"data": "strange"}, DataError, r"\(coin, tile, star\) is a class of the data \(moon\)"),
        ({"data": "empty"}, DataError, "there are no objects"),
    ],
)
def test_mistakes(job: Job, tmp_path: Path, changed: dict[str, Any], error: type[TmiError], message: str) -> None:
    data = json.loads(job.data.read_text())
    for image in data["images"]:
        image["file_name"] = str(job.pictures / image["file_name"])
    moon = {**data, "categories": [{"id": 7, "name": "moon"}], "annotations": data["annotations"][:1]}
    moon["annotations"] = [{**moon["annotations"][0], "category_id": 7}]
    without_coins = [row for row in data["annotations"] if row["category_id"] != 7]
    files = {"strange": moon, "empty": {**data, "annotations": []}, "moonless": {**data, "annotations": without_coins}}
    if changed.get("data") in files:
        (tmp_path / "data.json").write_text(json.dumps(files[changed["data"]]))
        changed = {**changed, "data": [str(tmp_path / "data.json")]}
    with pytest.raises(error, match=message):
        evaluate(job.settings(tmp_path / "run", **changed))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_count_every_image_once(job: Job, tmp_path: Path) -> None:
    settings = job.settings(tmp_path / "run").model_dump_json()
    code = (
        "import sys; from ymir_tmi.config.schema import EvaluateSettings\n"
        "from ymir_tmi.evaluation.run import evaluate\n"
        "evaluate(EvaluateSettings.model_validate_json(sys.argv[1]))"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, sys.executable, "-c", code, settings], check=True, env=environment, timeout=120)
    assert read_evaluation(tmp_path / "run" / "evaluation.json").to_dict() == job.result.to_dict()

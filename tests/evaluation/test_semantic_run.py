"""A semantic model through `evaluate` and `infer`: the numbers are those of the label maps that are written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from evaluation_data import make_index
from torch import nn

from ymir_tmi import imaging
from ymir_tmi.config.schema import EvaluateSettings, InferSettings, RunSettings
from ymir_tmi.data.index import IGNORED
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.evaluation.label_maps import PixelCounter, confused_pixels
from ymir_tmi.evaluation.run import evaluate, evaluate_model
from ymir_tmi.evaluation.semantic_results import SemanticResult, read_any_evaluation
from ymir_tmi.evaluation.semantics import SemanticEvaluator
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.inference.run import infer
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.pool import shards
from ymir_tmi.pool.consumer import ImageResult

NAMES = ("road", "sky", "tree")
SIZES = [(96, 64), (64, 64), (64, 96)]
COMMON: dict[str, Any] = {"device": "cpu", "precision": "fp32", "image_size": 64, "batch": 2, "workers": 1}


def write_model(path: Path) -> Path:
    """Write a network whose answers differ from pixel to pixel."""
    torch.manual_seed(0)
    model = create_model("fast_scnn", class_names=NAMES)
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.from_numpy(rng.integers(0, 256, (4, 3, 64, 64), np.uint8))
    with torch.no_grad():
        model(model.normalize(images))
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and len(parameter) == len(NAMES):
                parameter.zero_()
            elif parameter.shape[:1] == (len(NAMES),):
                parameter.normal_(0, 1)
    save_model(model, path, licence="CC0-1.0")
    return path


@dataclasses.dataclass(frozen=True)
class Job:
    model: Path
    data: Path
    truth: list[np.ndarray]

    def evaluate(self, output: Path, **changed: Any) -> SemanticResult:
        values = {"model": self.model, "data": [str(self.data)], "output": output, **COMMON, **changed}
        result = evaluate(EvaluateSettings.model_validate(values))
        assert isinstance(result, SemanticResult)
        return result

    def infer(self, output: Path, **changed: Any) -> Any:
        values = {"model": self.model, "data": [str(self.data / "images")], "output": output, **COMMON, **changed}
        return infer(InferSettings.model_validate(values))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("semantics")
    rng = np.random.default_rng(1)
    truth = []
    for number in range(7):
        width, height = SIZES[number % 3]
        pixels = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        imaging.write_image(
            folder / "data" / "images" / f"{number}.png", imaging.resize(pixels, width, height, "nearest")
        )
        labels = np.kron(rng.integers(0, 3, (height // 16, width // 16)).astype(np.uint8), np.ones((16, 16), np.uint8))
        labels[:4] = IGNORED
        (folder / "data" / "masks").mkdir(exist_ok=True)
        PIL.Image.fromarray(labels).save(folder / "data" / "masks" / f"{number}.png")
        truth.append(labels)
    (folder / "data" / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return Job(write_model(folder / "model.safetensors"), folder / "data", truth)


def read_map(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        assert picture.mode == "P"
        palette = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
        assert palette[:3].tolist() == class_colours(3).tolist()
        return np.asarray(picture).copy()


def test_numbers_are_those_of_the_label_maps(job: Job, tmp_path: Path) -> None:
    result = job.evaluate(tmp_path / "evaluate")
    job.infer(tmp_path / "infer", formats=["masks", "coco"], pictures=True)
    predicted = [read_map(tmp_path / "infer" / "label_maps" / f"{number}.png") for number in range(7)]
    assert all(len(np.unique(each)) > 1 for each in predicted)
    evaluator = SemanticEvaluator(read_dataset([str(job.data)]))
    for position, maps in enumerate(zip(predicted, job.truth, strict=True)):
        evaluator.update(position, *maps)
    expected = evaluator.compute()
    assert result.to_dict() == {**expected.to_dict(), "settings": {"image_size": 64, "precision": "fp32"}}
    assert read_any_evaluation(tmp_path / "evaluate" / "evaluation.json") == result.model_copy(update={"run": None})
    manifest = json.loads((tmp_path / "evaluate" / "run.json").read_text())
    assert manifest["metrics"] == result.scalars() and manifest["status"] == "done"
    # The best and the worst are kept for the report.
    for number in range(7):
        assert np.array_equal(read_map(tmp_path / "evaluate" / "label_maps" / f"{number}.png"), predicted[number])

    content = json.loads((tmp_path / "infer" / "predictions.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    covered = {key: np.zeros((height, width), int) for key, (width, height) in sizes.items()}
    for annotation in content["annotations"]:
        assert "score" not in annotation
        size = sizes[annotation["image_id"]]
        mask = Masks.from_segmentation(annotation["segmentation"], size).decode()[0]
        label = [row["id"] for row in content["categories"]].index(annotation["category_id"])
        position = [image["id"] for image in content["images"]].index(annotation["image_id"])
        assert np.array_equal(mask, predicted[position] == label) and annotation["area"] == mask.sum()
        covered[annotation["image_id"]] += mask
    assert all((each == 1).all() for each in covered.values())
    drawn = imaging.read_image(tmp_path / "infer" / "pictures" / "0.png")
    assert drawn.shape[:2] == job.truth[0].shape
    assert (tmp_path / "infer" / "classes.txt").read_text().split() == list(NAMES)


def test_training_measures_the_same(job: Job, tmp_path: Path) -> None:
    index = read_dataset([str(job.data)])
    result = evaluate_model(load_model(job.model), index, RunSettings.model_validate(COMMON))
    assert result.to_dict() == job.evaluate(tmp_path / "run").to_dict()


def test_a_stopped_run_goes_on(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SMALLEST_SHARD", 2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    job.infer(whole, formats=["masks"])
    write = shards.FileRows.write

    def stop(self: Any, shard: int, rows: Any) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        write(self, shard, rows)

    monkeypatch.setattr(shards.FileRows, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        job.infer(stopped, formats=["masks"])
    assert not RunLayout(stopped).label_maps.exists()
    monkeypatch.setattr(shards.FileRows, "write", write)
    result = job.infer(stopped, formats=["masks"], resume=stopped)
    assert result.images == 7 and "label maps of 7 images" in result.to_text()
    for number in range(7):
        name = Path("label_maps") / f"{number}.png"
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.parametrize("formats", ["yolo", "voc", "dota"])
def test_files_that_hold_no_label_maps_are_refused(job: Job, tmp_path: Path, formats: str) -> None:
    with pytest.raises(ConfigError, match=f"'{formats}' cannot hold classes of pixels"):
        job.infer(tmp_path / "run", formats=formats)
    assert not (tmp_path / "run").exists()


def test_tiles_are_refused(job: Job, tmp_path: Path) -> None:
    for run in (job.infer, job.evaluate):
        with pytest.raises(ConfigError, match="'tile' is for models that find objects"):
            run(tmp_path / "run", tile=64, overlap=8)


def test_classes_that_one_side_lacks(job: Job, tmp_path: Path) -> None:
    """The model's `tree` is called `bush` in the data: what it takes for a tree is of another class."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part in ("images", "masks"):
        (folder / part).symlink_to(job.data / part)
    (folder / "classes.txt").write_text("sky\nroad\nbush\n")
    other = dataclasses.replace(job, data=folder).evaluate(tmp_path / "other")
    same = job.evaluate(tmp_path / "same")
    assert len(other.warnings) == 2
    # Value 0 is "sky" there, so what the model calls sky is compared with value 0.
    assert other.confusion.names == ["sky", "road", "bush", "other"]
    rows = np.array(same.confusion.matrix)
    assert np.array(other.confusion.matrix)[:, [1, 0, 3]].tolist() == rows.tolist()
    renamed = dataclasses.replace(job, data=folder).evaluate(tmp_path / "renamed", classes=["road", "sky", "tree=bush"])
    assert renamed.warnings == [] and renamed.confusion.names == ["road", "sky", "bush"]


def test_broken_pictures_and_label_maps_are_named(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
        for file in sorted((job.data / part).iterdir())[:4]:
            (folder / part / file.name).write_bytes(file.read_bytes())
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "images" / "1.png").write_bytes(b"no picture")
    PIL.Image.fromarray(np.full(job.truth[2].shape, 77, np.uint8)).save(folder / "masks" / "2.png")
    result = dataclasses.replace(job, data=folder).evaluate(tmp_path / "run")
    assert [row.position for row in result.unreadable] == [1, 2]
    assert "77" in result.unreadable[1].error
    assert sorted(row.position for row in result.ranking) == [0, 3]


def test_boxes_are_no_label_maps(job: Job, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": str(job.data / "images" / "0.png"), "width": 96, "height": 64}]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": images, "categories": [{"id": 1, "name": "road"}], "annotations": [box]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="do not say which class a pixel has"):
        dataclasses.replace(job, data=tmp_path / "boxes.json").evaluate(tmp_path / "run")


def test_the_counter_asks_for_the_truth_at_the_size_of_the_picture() -> None:
    asked: list[Any] = []

    def read(index: Any, row: int, size: tuple[int, int]) -> np.ndarray:
        asked.append((row, size))
        return np.zeros((size[1], size[0]), np.uint8)

    counter = PixelCounter(make_index([[], []]), np.arange(256, dtype=np.uint8), read)
    label_map = np.array([[0, 0, 1], [1, 1, IGNORED]], np.uint8)
    (row,) = counter.consume([ImageResult(1, "1.png", (3, 2), None, 0, label_map=label_map)])
    counts = confused_pixels(json.loads(json.dumps(row)))
    assert asked == [(1, (3, 2))]
    assert dict(zip(counts.predicted.tolist(), counts.pixels.tolist(), strict=True)) == {0: 2, 1: 3, 2: 1}

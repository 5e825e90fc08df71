"""From images to files, whole runs and stopped ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference_data import CLASSES, CONF, IMAGE_SIZE, write_coco_file, write_model, write_pictures

from ymir_tmi import imaging
from ymir_tmi.config.schema import InferSettings
from ymir_tmi.data.letterbox import letterbox
from ymir_tmi.errors import ConfigError, DataError, ModelError, RunError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.inference.run import infer
from ymir_tmi.models.checkpoint import load_model
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.torch_runtime import load_runtime
from ymir_tmi.pool import shards
from ymir_tmi.pool.consumer import ImageResult, Row
from ymir_tmi.pool.predictions import read_predictions
from ymir_tmi.pool.recorder import DetectionRecorder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "pictures")


def settings(model: Path, tmp_path: Path, **changes: Any) -> InferSettings:
    values: dict[str, Any] = {
        "model": model,
        "data": [str(tmp_path / "pictures")],
        "output": tmp_path / "run",
        "image_size": IMAGE_SIZE,
        "conf": CONF,
        "precision": "fp32",
        "device": "cpu",
        **changes,
    }
    return InferSettings(**values)


def manifest(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RunLayout(run).manifest.read_text())
    return content


def test_detections_are_those_of_the_model_one_picture_at_a_time(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    result = infer(settings(model, tmp_path, batch=3))
    read = read_predictions(RunLayout(result.run).predictions)
    assert read.class_names == tuple(CLASSES)
    assert [Path(image.file_name or "") for image in read.images] == pictures
    assert result.images == 10 and result.failed == []
    assert result.detections == sum(len(image.detections) for image in read.images) > 50

    runtime = load_runtime(load_model(model), device="cpu", precision="fp32", image_size=IMAGE_SIZE, max_dets=100)
    spec = runtime.spec.postprocess.model_copy(update={"score_threshold": CONF})
    for path, image in zip(pictures, read.images, strict=True):
        pixels, frame = letterbox(imaging.read_image(path), runtime.spec.input)
        found = detect(runtime.decode(runtime.run(pixels[None])), [frame], spec)[0]
        assert np.array_equal(np.sort(image.detections.labels), np.sort(found.labels))
        np.testing.assert_allclose(image.detections.scores, found.scores, atol=1e-6)


def test_the_manifest_says_what_was_done(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    result = infer(settings(model, tmp_path))
    content = manifest(result.run)
    assert (content["verb"], content["status"]) == ("infer", "done")
    assert content["model"] == {"name": "rtmdet_tiny", "weights": str(model), "licence": "CC0-1.0"}
    assert content["data"]["val"]["images"] == 10
    assert content["metrics"]["detections"] == result.detections
    assert not RunLayout(result.run).shards.exists()
    events = [json.loads(line) for line in RunLayout(result.run).progress.read_text().splitlines()]
    assert (events[-1]["state"], events[-1]["done"], events[-1]["total"]) == ("done", 10, 10)
    json.dumps(result.to_dict())
    assert "10 images" in result.to_text()


@pytest.mark.parametrize("choice, kept", [({}, 100), ({"tile": 64, "overlap": 16}, 2000), ({"max_dets": 3}, 3)])
def test_the_number_of_detections_that_are_kept_is_on_record(
    choice: dict[str, int], kept: int, model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    layout = RunLayout(infer(settings(model, tmp_path, **choice)).run)
    assert manifest(layout.root)["settings"]["max_dets"] == kept
    assert json.loads(layout.predictions.read_text())["info"]["max_dets"] == kept
    assert read_predictions(layout.predictions).max_dets == kept


def test_ids_are_those_of_the_annotation_file(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    file = write_coco_file(tmp_path / "val.json", pictures)
    result = infer(settings(model, tmp_path, data=[str(file)]))
    content = json.loads(RunLayout(result.run).predictions.read_text())
    assert [image["id"] for image in content["images"]] == list(range(100, 90, -1))
    assert {one["name"]: one["id"] for one in content["categories"]} == {"cat": 44, "owl": 33, "dog": 56}


def test_chosen_classes_are_merged(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    plain = infer(settings(model, tmp_path, output=tmp_path / "plain", conf=0.001, iou=1.0, max_dets=10_000))
    merged = infer(
        settings(model, tmp_path, conf=0.001, iou=1.0, max_dets=10_000, classes=["owl", "cat=pet", "dog=pet"])
    )
    read, other = (read_predictions(RunLayout(one.run).predictions) for one in (plain, merged))
    assert other.class_names == ("owl", "pet")
    for before, after in zip(read.images, other.images, strict=True):
        pets = before.detections.scores[before.detections.labels != 2]
        best = np.sort(after.detections.scores[after.detections.labels == 1])
        assert len(best) == len(pets) / 2
        np.testing.assert_allclose(best.max(), pets.max(), atol=1e-6)
        owls = np.sort(before.detections.scores[before.detections.labels == 2])
        np.testing.assert_allclose(np.sort(after.detections.scores[after.detections.labels == 0]), owls, atol=1e-6)


def test_unreadable_images_are_reported(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    pictures[2].write_bytes(b"")
    pictures[7].write_bytes(pictures[7].read_bytes()[:80])
    result = infer(settings(model, tmp_path, formats=["coco", "yolo", "voc"], pictures=True))
    assert [Path(failed.path) for failed in result.failed] == [pictures[2], pictures[7]]
    assert "2 images could not be read" in result.to_text()
    content = json.loads(RunLayout(result.run).predictions.read_text())
    errors = {image["file_name"]: image["error"] for image in content["images"] if "error" in image}
    assert errors == {failed.path: failed.error for failed in result.failed} and all(errors.values())
    layout = RunLayout(result.run)
    for folder in (layout.labels, layout.annotations, layout.pictures):
        assert sum(path.is_file() for path in folder.rglob("*")) == 8
    assert manifest(result.run)["metrics"]["failed"] == 2


class _Stopped:
    """Stands in for the recorder's `consume` and raises at one image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, at: int = -1) -> None:
        self.seen: list[int] = []
        real = DetectionRecorder.consume

        def consume(recorder: DetectionRecorder, batch: Sequence[ImageResult]) -> list[Row]:
            self.seen += [result.position for result in batch]
            if error is not None and at in self.seen:
                raise error
            return real(recorder, batch)

        monkeypatch.setattr(DetectionRecorder, "consume", consume)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (OSError("disk full"), "failed")])
def test_a_stopped_run_goes_on(
    error: BaseException,
    status: str,
    model: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "SHARD_IMAGES", 3)
    infer(settings(model, tmp_path, output=tmp_path / "whole", batch=2))
    with monkeypatch.context() as stop:
        _Stopped(stop, error, at=7)
        with pytest.raises(type(error)):
            infer(settings(model, tmp_path, batch=2))
    run = tmp_path / "run"
    assert manifest(run)["status"] == status
    assert not RunLayout(run).predictions.exists()

    watch = _Stopped(monkeypatch)
    result = infer(settings(model, tmp_path, resume=run, output=None, batch=2))
    assert sorted(watch.seen) == [6, 7, 8, 9]
    assert result.run == run and manifest(run)["status"] == "done" and "error" not in manifest(run)
    assert RunLayout(run).predictions.read_bytes() == RunLayout(tmp_path / "whole").predictions.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conf": 0.6}, "conf was 0.52 and is now 0.6"),
        ({"classes": ["cat"]}, "classes"),
        ({"data": []}, "images was"),
        ({"tile": 64, "overlap": 16}, "tile was None and is now 64"),
    ],
)
def test_a_run_does_not_go_on_with_something_else(
    change: dict[str, Any],
    words: str,
    model: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as stop:
        _Stopped(stop, KeyboardInterrupt(), at=1)
        with pytest.raises(KeyboardInterrupt):
            infer(settings(model, tmp_path))
    change = {"data": [str(tmp_path / "pictures" / "a")]} if "data" in change else change
    with pytest.raises(RunError, match=words):
        infer(settings(model, tmp_path, resume=tmp_path / "run", **change))
    assert manifest(tmp_path / "run")["status"] == "interrupted"


def test_large_images_are_cut(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    infer(settings(model, tmp_path))
    infer(settings(model, tmp_path, tile=64, overlap=32, output=tmp_path / "tiled"))
    whole, tiled = (
        {str(image.file_name): image.detections for image in read_predictions(run / "predictions.json").images}
        for run in (tmp_path / "run", tmp_path / "tiled")
    )
    for picture in pictures:
        width, height = imaging.image_size(picture)
        same = np.array_equal(whole[str(picture)].boxes, tiled[str(picture)].boxes)
        assert same == (max(width, height) <= 64)
        found = tiled[str(picture)].boxes
        assert len(found) and (found.min(0) >= 0).all() and (found[:, 2:].max(0) <= [width, height]).all()
    assert max(found.boxes[:, 0].max() for found in tiled.values()) > 64


def test_a_finished_run_cannot_go_on(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    infer(settings(model, tmp_path))
    with pytest.raises(RunError, match="done"):
        infer(settings(model, tmp_path, resume=tmp_path / "run"))


def test_an_existing_run_is_never_overwritten(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        infer(settings(model, tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": Path("none.safetensors")}, ModelError),
        ({"data": ["nowhere"]}, DataError),
        ({"classes": ["cow"]}, ConfigError),
        ({"device": "gpu"}, ConfigError),
        ({"tile": 64, "overlap": 64}, ConfigError),
    ],
)
def test_a_mistake_leaves_no_run_folder(
    change: dict[str, Any], kind: type[Exception], model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(kind):
        infer(settings(**{"model": model, "tmp_path": tmp_path, **change}))
    assert not (tmp_path / "run").exists()


def test_pictures_that_would_share_a_file_are_refused_before_the_pass(model: Path, tmp_path: Path) -> None:
    for name in ("same.png", "same.jpg"):
        imaging.write_image(tmp_path / "pictures" / name, np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="one annotation file"):
        infer(settings(model, tmp_path, formats=["yolo"]))
    # Neither predictions.json nor drawn pictures are one file for both.
    result = infer(settings(model, tmp_path, pictures=True))
    assert {path.name for path in RunLayout(result.run).pictures.iterdir()} == {"same.png", "same.jpg"}

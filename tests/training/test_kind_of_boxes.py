"""A model learns from the kind of boxes that it finds, whatever the data have."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.segments import image_outlines
from ymir_tmi.training import datasets

CORNERS = [22, 26.5, 28, 18.5, 48, 33.5, 42, 41.5]  # 25 x 10, turned by atan(3 / 4)


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    """Trains on DOTA labels and validates on the same as COCO polygons."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labelTxt" / "a.txt").write_text(" ".join(map(str, [*CORNERS, "ship", 0])))
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [22, 18.5, 26, 23], "segmentation": [CORNERS]}
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "ship"}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    return TrainSettings(model="rtmdet_tiny", train=[str(tmp_path)], val=[str(tmp_path / "val.json")])


def test_a_model_for_upright_boxes(settings: TrainSettings) -> None:
    data = datasets.read_training_data(settings)
    assert data.train.rotated is None and data.val.rotated is None
    np.testing.assert_allclose(data.train.boxes, [[22, 18.5, 48, 41.5]], atol=1e-4)  # DOTA states no size to cut at
    np.testing.assert_allclose(data.val.boxes, [[22, 18.5, 48, 40]], atol=1e-4)
    assert data.note is not None and data.note.startswith("the annotations are rotated boxes")


def test_a_model_for_rotated_boxes(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "default_spec", lambda name, class_names: SimpleNamespace(task="rotated"))
    data = datasets.read_training_data(settings)
    assert data.note is None
    for index in (data.train, data.val):
        assert index.rotated is not None
        np.testing.assert_allclose(index.rotated, [[35, 30, 25, 10, np.arctan2(3, 4)]], atol=1e-5)


def test_a_model_for_masks(settings: TrainSettings) -> None:
    data = datasets.read_training_data(settings.model_copy(update={"model": "yolov5_n_seg"}))
    for index in (data.train, data.val):
        assert index.rotated is None
        assert image_outlines(index, 0).areas() == pytest.approx([250], abs=0.1)


def test_rotated_boxes_from_upright_ones_are_told(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(Path(settings.val[0]).read_text())
    del content["annotations"][0]["segmentation"]
    Path(settings.val[0]).write_text(json.dumps(content))
    settings = settings.model_copy(update={"train": settings.val})
    assert datasets.read_training_data(settings).note is None
    monkeypatch.setattr(datasets, "default_spec", lambda name, class_names: SimpleNamespace(task="rotated"))
    assert (
        datasets.read_training_data(settings).note
        == "the annotations are upright boxes, so there are no angles in them"
    )

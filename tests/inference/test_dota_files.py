"""The files for DOTA's server, by their published layout."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from inference_data import CLASSES, CONF, IMAGE_SIZE, write_model, write_pictures

from ymir_tmi.config.schema import InferSettings
from ymir_tmi.errors import DataError
from ymir_tmi.inference.dota import picture_names, write_dota
from ymir_tmi.inference.run import infer
from ymir_tmi.pool.predictions import read_predictions

NAMES = ("small-vehicle", "ship", "harbor")


def test_a_line_is_picture_score_and_corners(tmp_path: Path) -> None:
    rows = [
        {
            "size": [64, 48],
            "boxes": [[20.0, 10.0, 8.0, 4.0, 0.0], [20.0, 10.0, 8.0, 4.0, math.pi / 6]],
            "scores": [0.875, 0.25],
            "labels": [1, 1],
        },
        {"error": "this file is empty"},
        {"size": [64, 48], "boxes": [], "scores": [], "labels": []},
        {"size": [64, 48], "boxes": [[0.0, 0.0, 2.0, 2.0, 0.5]], "scores": [0.5], "labels": [0]},
    ]
    write_dota(tmp_path / "dota", ["P0003", "P0004", "P0005", "P0006"], NAMES, rows)
    assert sorted(path.name for path in (tmp_path / "dota").iterdir()) == [
        "Task1_harbor.txt",
        "Task1_ship.txt",
        "Task1_small-vehicle.txt",
    ]
    assert (tmp_path / "dota" / "Task1_harbor.txt").read_text() == ""
    lines = [line.split() for line in (tmp_path / "dota" / "Task1_ship.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["P0003", "P0003"]
    numbers = np.array([line[1:] for line in lines], float)
    assert numbers[:, 0].tolist() == [0.875, 0.25]
    level, turned = numbers[:, 1:].reshape(2, 4, 2) - [20, 10]
    # One after the other around the box.
    assert sorted(map(tuple, level)) == [(-4, -2), (-4, 2), (4, -2), (4, 2)]
    assert np.abs(np.diff(level, axis=0)).sum(1).tolist() in ([8, 4, 8], [4, 8, 4])
    turn = np.array([[math.cos(math.pi / 6), math.sin(math.pi / 6)], [-math.sin(math.pi / 6), math.cos(math.pi / 6)]])
    np.testing.assert_allclose(turned, level @ turn, atol=1e-6)
    assert (tmp_path / "dota" / "Task1_small-vehicle.txt").read_text().startswith("P0006 0.5 ")


def test_infer_writes_them(tmp_path: Path) -> None:
    """Upright boxes have corners too."""
    write_model(tmp_path / "model.safetensors")
    write_pictures(tmp_path / "pictures", count=4)
    values = {"model": tmp_path / "model.safetensors", "image_size": IMAGE_SIZE, "conf": CONF, "device": "cpu"}
    settings = InferSettings(data=[str(tmp_path / "pictures" / "a")], formats=["coco", "dota"], **values)
    result = infer(settings.model_copy(update={"output": tmp_path / "run"}))
    found = {
        (Path(image.file_name or "").stem, CLASSES[label], *np.round(box, 2).tolist())
        for image in read_predictions(result.run / "predictions.json").images
        for box, label in zip(image.detections.boxes, image.detections.labels.tolist(), strict=True)
    }
    written = set()
    for name in CLASSES:
        for line in (result.run / "dota" / f"Task1_{name}.txt").read_text().splitlines():
            picture, _, *corners = line.split()
            x, y = np.array(corners, np.float32).reshape(4, 2).T
            written.add((picture, name, *np.round([x.min(), y.min(), x.max(), y.max()], 2).tolist()))
    assert written == found and len(found) > 10

    with pytest.raises(DataError, match="are the same picture in DOTA's files"):
        infer(settings.model_copy(update={"data": [str(tmp_path / "pictures")], "output": tmp_path / "other"}))
    assert not (tmp_path / "other").exists()


def test_names_that_no_file_can_have_are_refused() -> None:
    assert picture_names(["a/P0001.png", "P0002.tif"], ["ship"]) == ["P0001", "P0002"]
    with pytest.raises(DataError, match=r"'Task1_car/van\.txt' cannot be the name of a file"):
        picture_names([], ["car/van"])

"""result.tsv and infer-result.json: exactly what the platform parses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from ymir_tmi import imaging
from ymir_tmi.data.formats.ymir import read_ymir
from ymir_tmi.data.index import Strings
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.errors import ModelError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry import rotated
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.ranking import write_scores
from ymir_tmi.ymir.results import turned_box, whole_box, write_boxes, write_masks, write_ranking

IMAGE = {"width": 60, "height": 40}


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ((10.4, 5.6, 9.3, 4.2), (10, 6, 10, 4)),
        ((-3.0, -2.0, 10.0, 10.0), (0, 0, 7, 8)),  # beyond the upper left corner
        ((50.0, 30.0, 30.0, 30.0), (50, 30, 10, 10)),  # and the lower right one
        ((59.9, 39.9, 0.05, 0.05), (59, 39, 1, 1)),  # thinner than a pixel, at the edge
        ((10.0, 10.0, 0.2, 0.2), (10, 10, 1, 1)),
    ],
)
def test_boxes_are_whole_numbers_inside_the_picture(box: tuple[float, ...], whole: tuple[int, ...]) -> None:
    found = whole_box(box, IMAGE)
    assert tuple(found.values()) == whole and all(type(value) is int for value in found.values())


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, math.pi / 2])
def test_a_rotated_box_is_read_back_as_it_was_written(tmp_path: Path, angle: float) -> None:
    """Through det-ark, whose xmax = x + w - 1: of whole pixels nothing is lost, else less than a pixel."""
    for cx, cy, w, h, allowed in ((50.0, 30.0, 20.0, 10.0, 1e-4), (50.3, 30.9, 21.4, 9.6, 1.0)):
        box = turned_box((cx, cy, w, h, angle))
        right, bottom = box["x"] + box["w"] - 1, box["y"] + box["h"] - 1
        line = f"0, {box['x']}, {box['y']}, {right}, {bottom}, -1.0, {box['rotate_angle'] or 1e-9}\n"
        (tmp_path / "a.txt").write_text(line)
        imaging.write_image(tmp_path / "a.png", np.zeros((80, 100, 3), np.uint8))
        (tmp_path / "a.tsv").write_text("a.png\ta.txt\n")
        read = read_ymir(tmp_path / "a.tsv", PictureFinder([tmp_path]), ("a",)).index.rotated
        assert read is not None
        corners, again = (rotated.corners(torch.tensor(values)) for values in ((cx, cy, w, h, angle), read[0].tolist()))
        assert torch.cdist(corners, again).amin(1).max() <= allowed


def predictions(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], *names: str) -> Path:
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 5)]
    content = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


def test_every_picture_once_by_its_base_name(tmp_path: Path) -> None:
    names = ["/in/assets/aa/b c – 图.jpg", "/in/assets/bb/2.png", "/in/assets/cc/3.png"]
    images = [{"id": number, "file_name": name, **IMAGE} for number, name in enumerate(names)]
    boxes = [
        {"image_id": 0, "category_id": 5, "bbox": [1.2, 2.2, 3.0, 3.0], "score": 0.9},
        {"image_id": 0, "category_id": 6, "bbox": [1.2, 2.2, 3.0, 3.0], "score": 0.8},
        {"image_id": 2, "category_id": 5, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.7, "rotated_box": [9, 8, 6, 4, 0.5]},
    ]
    source = predictions(tmp_path / "predictions.json", images, boxes, "Cat ", "background")
    write_boxes(tmp_path / "out.json", source, ["cat", "dog"])
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["detection"]
    assert found == {
        "b c – 图.jpg": {"boxes": [{"box": {"x": 1, "y": 2, "w": 3, "h": 3}, "class_name": "cat", "score": 0.9}]},
        "2.png": {"boxes": []},
        "3.png": {
            "boxes": [{"box": {"x": 6, "y": 6, "w": 6, "h": 4, "rotate_angle": 0.5}, "class_name": "cat", "score": 0.7}]
        },
    }
    write_boxes(tmp_path / "old.json", source, ["cat", "dog"], key="annotations")
    assert "annotations" in json.loads((tmp_path / "old.json").read_text())["detection"]["2.png"]


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    source = predictions(tmp_path / "predictions.json", [{"id": 1, "file_name": "a.png", **IMAGE}], [], "cow")
    with pytest.raises(ModelError, match="the model knows cow, and the task asks for cat"):
        write_boxes(tmp_path / "out.json", source, ["cat"])
    assert not (tmp_path / "out.json").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")
def test_masks_are_coco_of_the_stored_size(tmp_path: Path) -> None:
    bitmaps = np.zeros((3, 40, 60), bool)
    bitmaps[0, 5:15, 10:30] = True
    bitmaps[1, 20:22, 0:60] = True
    masks = Masks.encode(bitmaps)
    segments = [{"size": [40, 60], "counts": counts.decode()} for counts in masks.counts]
    entries = [
        {"image_id": 1, "category_id": 5, "bbox": [10, 5, 20, 10], "area": 200, "score": 0.9},
        {"image_id": 1, "category_id": 6, "bbox": [0, 20, 60, 2], "area": 120},
        {"image_id": 1, "category_id": 5, "bbox": [0, 0, 0, 0], "area": 0, "score": 0.5},
    ]
    annotations = [{**entry, "segmentation": segment} for entry, segment in zip(entries, segments, strict=True)]
    images = [{"id": number, "file_name": f"/in/assets/{number}.jpg", **IMAGE} for number in (1, 2)]
    write_masks(
        tmp_path / "out.json", predictions(tmp_path / "p.json", images, annotations, "dog", "cat"), ["cat", "dog"]
    )
    found = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["1.jpg", "2.jpg"]
    assert {item["id"]: item["name"] for item in found["categories"]} == {1: "cat", 2: "dog"}
    assert [item["category_id"] for item in found["annotations"]] == [2, 1], "an empty mask is left out"
    for item, bitmap in zip(found["annotations"], bitmaps, strict=False):
        segment = {**item["segmentation"], "counts": item["segmentation"]["counts"].encode()}
        np.testing.assert_array_equal(reference.decode(segment).astype(bool), bitmap)
        rows, columns = np.nonzero(bitmap)
        x, y = int(columns.min()), int(rows.min())
        assert item["bbox"] == [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
        assert item["area"] == bitmap.sum()
        assert item["iscrowd"] == 0
    assert "confidence" in found["annotations"][0] and "confidence" not in found["annotations"][1]


def test_the_ranking_has_every_candidate_as_it_was_given(tmp_path: Path) -> None:
    names = ["/in/assets/a b.jpg", "/in/assets/kaputt.jpg", "/in/assets/图.jpg", "/in/assets/gleich.jpg"]
    (tmp_path / "candidates.tsv").write_text("".join(f"{name}\t\n" for name in names), encoding="utf-8")
    layout = RunLayout(tmp_path)
    write_scores(layout, Strings.pack(names), np.array([-0.5, np.nan, 2.0, -0.5]))
    write_ranking(tmp_path / "result.tsv", tmp_path / "candidates.tsv", layout)
    rows = [line.split("\t") for line in (tmp_path / "result.tsv").read_text(encoding="utf-8").splitlines()]
    assert [name for name, _ in rows] == [names[2], names[0], names[3], names[1]]
    scores = [float(score) for _, score in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] < scores[-2]

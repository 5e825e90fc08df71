"""Drawn tasks are what the platform would hand out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ymir_tmi import imaging
from ymir_tmi.data.read import read_dataset
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES, draw_scenes
from ymir_tmi.ymir.sample_task import TaskOrder, as_passed_on, write_sample_task


def training(folder: Path, form: str, **values: object) -> Path:
    order = TaskOrder(("training",), template={"export_format": f"{form}:raw"}, **values)  # type: ignore[arg-type]
    return write_sample_task(folder, order).input


@pytest.mark.parametrize("form", ["ark", "voc", "seg-coco"])
def test_every_form_of_annotation_says_the_same(tmp_path: Path, form: str) -> None:
    folder = training(tmp_path, form)
    index = read_dataset([str(folder / "train-index.tsv")], class_names=CLASS_NAMES)
    pictures = [Path(line.split("\t")[0]).name for line in (folder / "train-index.tsv").read_text().splitlines()]
    assert [Path(index.paths[row]).name for row in range(len(index))] == pictures
    for row, scene in enumerate(draw_scenes(0, 6, rotated=False)):
        wanted = sorted((CLASS_NAMES[item.label], *item.box) for item in scene.objects)
        boxes, labels = index.boxes[index.rows(row)], index.labels[index.rows(row)]
        got = sorted(
            (index.class_names[label], x1, y1, x2 - x1, y2 - y1)
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels, strict=True)
        )
        assert [name for name, *_ in got] == [name for name, *_ in wanted]
        # Boxes around masks are those of whole pixels: a corner of a triangle may have none on either side.
        tolerance = 2 if form == "seg-coco" else 0
        assert (
            np.abs(np.array([box[1:] for box in got]) - np.array([box[1:] for box in wanted])).max(initial=0)
            <= tolerance
        )


def test_files_are_where_and_what_the_platform_says(tmp_path: Path) -> None:
    folder = training(tmp_path, "seg-coco")
    lines = (folder / "train-index.tsv").read_text().splitlines()
    others = (folder / "val-index.tsv").read_text().splitlines()
    for line in lines + others:
        picture, annotation = line.split("\t")
        key = hashlib.sha1(Path(picture).read_bytes()).hexdigest()
        assert picture.endswith(f"/in/assets/{key[-2:]}/{key}.jpg")
        assert Path(annotation) == folder / "annotations" / "coco-annotations.json"
    content = json.loads((folder / "annotations" / "coco-annotations.json").read_text())
    assert len(content["images"]) == len(lines) + len(others)
    assert {category["id"] for category in content["categories"]} == {0, 1, 2} != set(range(len(CLASS_NAMES)))
    kinds = {type(item["segmentation"]): item["iscrowd"] for item in content["annotations"]}
    assert kinds == {dict: 1, list: 0}
    assert (folder / "assets").is_symlink()
    assert len(list((folder / "assets").resolve().rglob("*.jpg"))) > len(lines) + len(others)


def test_turned_objects_lie_where_their_numbers_say(tmp_path: Path) -> None:
    # Turned back about the centre of its box, an object covers the middle of each side of the box, just inside.
    for scene in draw_scenes(3, 5, rotated=True):
        for item in scene.objects:
            if CLASS_NAMES[item.label] != "square":
                continue
            x, y, w, h = item.box
            for dx, dy in ((w / 2 - 2, 0), (2 - w / 2, 0), (0, h / 2 - 2), (0, 2 - h / 2)):
                # clockwise on the screen: from x towards y, which points down
                column = x + w / 2 + np.cos(item.angle) * dx - np.sin(item.angle) * dy
                row = y + h / 2 + np.sin(item.angle) * dx + np.cos(item.angle) * dy
                assert item.bitmap[int(row), int(column)]
            assert item.bitmap.sum() == pytest.approx(w * h, rel=0.05)


def test_values_reach_the_image_as_the_web_page_sends_them() -> None:
    template = {"learning_rate": 1e-05, "args_options": "", "conf_threshold": 0.0, "pin_memory": False, "epochs": 3}
    assert as_passed_on(template, ("training",)) == {
        "learning_rate": "1e-05",
        "conf_threshold": 0.0,
        "pin_memory": False,
        "epochs": 3,
    }
    assert as_passed_on(template, ("mining",)) == {"learning_rate": "1e-05", "epochs": 3}


def test_paths_are_those_of_a_container(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    order = TaskOrder(("mining", "infer"), protocol=None, files=[weights], uploaded=True)
    task = write_sample_task(tmp_path / "task", order, mounted=True)
    environment = yaml.safe_load(task.env_file.read_text())
    assert "protocol_version" not in environment and environment["output"]["root_dir"] == "/out"
    config = yaml.safe_load((task.input / "config.yaml").read_text())
    assert config["model_params_path"] == ["/in/models/best/model.safetensors"]
    assert config["run_mining"] and config["run_infer"] and config["class_names"] == list(CLASS_NAMES)
    for line in (task.input / "candidate-index.tsv").read_text().splitlines():
        assert line.startswith("/in/assets/ein Bild")
        assert imaging.read_image(task.input / line.removeprefix("/in/")).shape == (120, 160, 3)

"""Pages about masks, label maps and regions: what is drawn is what was found."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ymir_tmi import imaging
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.read import read_dataset
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationSettings, write_evaluation
from ymir_tmi.evaluation.semantics import SemanticEvaluator
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.predictions import write_predictions
from ymir_tmi.report.run import report

WIDTH, HEIGHT = 200, 120


def disc(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(columns - x, rows - y) < radius


def write_manifest(folder: Path, verb: str, **settings: Any) -> RunLayout:
    content = {"verb": verb, "status": "done", "started": "2026-03-01T08:00:00+00:00", "settings": settings}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(content))
    return RunLayout(folder)


def text_of(mask: np.ndarray) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": Masks.encode(mask[None]).counts[0].decode()}


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """Two pictures: three objects in the first, none in the second."""
    for number in range(2):
        imaging.write_image(tmp_path / f"{number}.png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(2)]
    discs = [disc(50, 60, 30), disc(130, 60, 30), disc(185, 20, 8)]
    rows = [
        {"id": n, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 9, "segmentation": text_of(mask)}
        for n, mask in enumerate(discs)
    ]
    content = {"images": images, "categories": [{"id": 1, "name": "nucleus"}], "annotations": rows}
    (tmp_path / "data.json").write_text(json.dumps(content))
    return tmp_path / "data.json"


def found_masks() -> list[Detections]:
    """Return what was found: two of the objects, and a false one in each picture."""
    parts = [[disc(52, 60, 30), disc(130, 61, 29), disc(90, 10, 9)], [disc(100, 60, 20)]]
    return [
        Detections(masks.hulls(), scores, np.zeros(len(masks), np.int64), np.zeros((len(masks), 1)), masks)
        for masks, scores in ((Masks.encode(np.array(each)), np.linspace(0.9, 0.7, len(each))) for each in parts)
    ]


def row_of(found: Detections) -> dict[str, Any]:
    assert found.masks is not None
    masks = [counts.decode() for counts in found.masks.counts]
    columns = {name: getattr(found, name).tolist() for name in ("boxes", "scores", "labels")}
    return {"size": [WIDTH, HEIGHT], **columns, "masks": masks}


def paths_of(page: str, style: str) -> list[np.ndarray]:
    """Return the outlines of the masks that are drawn in a style, (n, 2) points each."""
    groups = re.findall(rf'<g class="{style}"[^>]*><title>[^<]*</title><path class="casing" d="([^"]*)"', page)
    return [np.array([part.split(",") for part in re.findall(r"[\d.]+,[\d.]+", group)], float) for group in groups]


def test_masks_that_were_found_missed_and_false(nuclei: Path, tmp_path: Path) -> None:
    index = read_dataset([str(nuclei)])
    evaluator = DetectionEvaluator(index, EvaluationSettings(max_dets=500), masks=True)
    for position, found in enumerate(found_masks()):
        evaluator.update(position, found)
    layout = write_manifest(tmp_path / "run", "evaluate", data=[str(nuclei)], conf=0.001)
    result = evaluator.compute()
    write_evaluation(layout.evaluation, result)
    rows = [row_of(found) for found in found_masks()]
    write_predictions(layout.predictions, index, [(1, "nucleus")], lambda: rows, description="")
    page = report(layout.root).read_text()
    assert result.masks is not None
    for part in (
        "Mask AP",
        "Box AP",
        "Average precision of boxes",
        f"{result.masks.AP:.3f}",
        "the masks&#39; IoU 0.50",
    ):
        assert part in page
    assert "<polygon" not in page
    hulls = [(points.min(0) + points.max(0)) / 2 for points in paths_of(page, "found")]
    assert sorted(np.round(hulls, -1).tolist()) == [[50, 60], [130, 60]]
    (missed,) = paths_of(page, "missed")
    np.testing.assert_allclose([*missed.min(0), *missed.max(0)], [178, 13, 193, 28], atol=1)
    (false,) = paths_of(page, "false")  # the other one scores less than the threshold
    np.testing.assert_allclose([*false.min(0), *false.max(0)], [81, 41, 120, 80], atol=1)


def test_inferred_masks_are_drawn(nuclei: Path, tmp_path: Path) -> None:
    layout = write_manifest(tmp_path / "run", "infer", data=[str(nuclei)], conf=0.25)
    rows = [row_of(found) for found in found_masks()]
    write_predictions(layout.predictions, read_dataset([str(nuclei)]), [(1, "nucleus")], lambda: rows, description="")
    page = report(layout.root).read_text()
    assert len(paths_of(page, "detection")) == 4
    assert "Point at a mask" in page and "at most" not in page


@pytest.mark.parametrize("algorithm", ["apis", "maskal", "rsal", "ripu"])
def test_regions_of_a_ranking(nuclei: Path, tmp_path: Path, algorithm: str) -> None:
    layout = write_manifest(tmp_path / "run", "mine", algorithm=algorithm, model="model")
    superpixel = disc(60, 40, 25)
    row = {"rank": 1, "path": str(nuclei.parent / "0.png"), "score": 1.0, "components": {}, "reason": "why"}
    row["regions"] = [{"box": [10, 20, 42, 52]}, {"rle": text_of(superpixel)}]
    layout.ranking_json.write_text(json.dumps({"algorithm": algorithm, "images": 1, "ranking": [row], "failed": []}))
    page = report(layout.root).read_text()
    (path,) = paths_of(page, "detection")
    np.testing.assert_allclose([*path.min(0), *path.max(0)], Masks.encode(superpixel[None]).hulls()[0], atol=1)
    assert re.search(r'<polygon class="edge" points="42.0,52.0 42.0,20.0 10.0,20.0 10.0,52.0', page)
    assert "regions to label" in page


NAMES = ("road", "sky", "tree")


def write_road(folder: Path) -> tuple[Path, list[np.ndarray], list[np.ndarray]]:
    """Write three pictures with label pictures; return also what a model would say, worse from one to the next."""
    truth, predicted = [], []
    for number in range(3):
        imaging.write_image(folder / "images" / f"{number}.png", np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[:60], labels[:, 150:] = 1, 2
        labels[110:] = 255
        guess = np.where(labels == 255, 0, labels).astype(np.uint8)
        guess[20 : 40 + 10 * number, 20:60] = 2
        (folder / "masks").mkdir(exist_ok=True)
        PIL.Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
        truth.append(labels)
        predicted.append(guess)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder, truth, predicted


def pictures_of(page: str) -> dict[str, np.ndarray]:
    """Return the pictures of a page by what they say they show."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"[^>]*alt="([^"]*)"', page)
    return {alt: imaging.decode_image(base64.b64decode(data), where="page").astype(int) for data, alt in found}


def test_label_maps_and_where_they_differ(tmp_path: Path) -> None:
    data, truth, predicted = write_road(tmp_path / "data")
    evaluator = SemanticEvaluator(read_dataset([str(data)]))
    layout = write_manifest(tmp_path / "run", "evaluate", data=[str(data)])
    for position, maps in enumerate(zip(predicted, truth, strict=True)):
        evaluator.update(position, *maps)
        if position < 2:
            imaging.write_values(layout.label_maps / f"{position}.png", maps[0], class_colours(256))
    result = evaluator.compute()
    write_evaluation(layout.evaluation, result)
    page = report(layout.root).read_text()
    for part in ("mIoU", "Confusion matrix", "Worst", *NAMES, f"{result.mIoU:.3f}", f"{result.classes[1].IoU:.3f}"):
        assert part in page
    assert page.count("What the model says") == page.count("Where they differ") == 2  # one was not kept
    assert page.count("What the data says") == 3
    pictures = pictures_of(page)
    path = str(data / "images" / "1.png")
    shown = pictures[f"{path}: the data&#39;s classes"]
    expected = (120 + class_colours(3).astype(int)) / 2
    for label, (y, x) in enumerate([(80, 30), (10, 30), (30, 180)]):
        assert abs(shown[y, x] - expected[label]).max() < 12
    assert abs(shown[115, 30] - 120).max() < 12  # does not count
    assert abs(pictures[f"{path}: the model&#39;s classes"][30, 40] - expected[2]).max() < 12
    wrong = pictures[f"{path}: wrong pixels"]
    assert wrong[30, 40, 0] > 200 > 100 > wrong[30, 40, 1]
    assert abs(wrong[80, 100] - 60).max() < 12


def test_a_page_without_the_data_says_so(tmp_path: Path) -> None:
    data, truth, predicted = write_road(tmp_path / "data")
    evaluator = SemanticEvaluator(read_dataset([str(data)]))
    evaluator.update(0, predicted[0], truth[0])
    layout = write_manifest(tmp_path / "run", "evaluate", data=[str(tmp_path / "gone")])
    write_evaluation(layout.evaluation, evaluator.compute())
    page = report(layout.root).read_text()
    assert "No label maps of the data" in page and "What the data says" not in page


def test_inferred_label_maps(tmp_path: Path) -> None:
    data, _, predicted = write_road(tmp_path / "data")
    layout = write_manifest(tmp_path / "run", "infer", data=[str(data)])
    rows = []
    for each in predicted:
        masks = Masks.encode(np.stack([each == label for label in range(3)]))
        texts = [counts.decode() for counts in masks.counts]
        rows.append({"size": [WIDTH, HEIGHT], "labels": [0, 1, 2], "masks": texts})
    categories = list(enumerate(NAMES, 1))
    write_predictions(layout.predictions, read_dataset([str(data)]), categories, lambda: rows, description="")
    page = report(layout.root).read_text()
    share = np.mean([(each == 1).mean() for each in predicted])
    assert f"{share:.1%}" in page and "road, sky, tree" in page
    (first, *_) = pictures_of(page).values()
    assert abs(first[10, 10] - (120 + class_colours(3)[1].astype(int)) / 2).max() < 12


def test_curves_of_a_training(tmp_path: Path) -> None:
    layout = write_manifest(tmp_path / "run", "train", data=None)
    layout.history.write_text("epoch,lr,loss,loss_seg,mIoU,mAcc,aAcc\n1,0.1,2,2,0.2,0.3,0.5\n2,0.1,1,1,0.4,0.5,0.6\n")
    page = report(layout.root).read_text()
    assert "IoU and accuracy in validation" in page and "best mIoU 0.400 in epoch 2" in page
    assert page.count("loss_seg") == 1 and "AP in validation" not in page

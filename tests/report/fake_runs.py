"""Run folders of every verb, as a run would leave them: pictures, annotations, and detections that are partly wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.demo.scenes import CLASS_NAMES, INFORMATIVE, PLAIN, draw_scene
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult, EvaluationSettings, write_evaluation
from ymir_tmi.files.atomic import write_json, write_text
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.outlines import outlines, upright
from ymir_tmi.mining.heatmaps import paint
from ymir_tmi.models.interface import Detections

AWKWARD_CLASS = '<b>"bold" & co</b>'
"""A name that breaks a page which does not escape it; no object has it."""
AWKWARD_NAME = 'it\'s "quoted" <1> & 你好.jpg'


@dataclass(frozen=True)
class Pool:
    """Pictures with objects, and what a model found in each."""

    folder: Path
    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    size: tuple[int, int]
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    found: tuple[Detections, ...]

    @property
    def annotations(self) -> Path:
        return self.folder / "val.json"


def draw_pool(folder: Path, *, images: int = 14, seed: int = 0) -> Pool:
    """Draw pictures, write them with their COCO file, and guess at them; the second picture has an awkward name."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, INFORMATIVE if number % 4 == 3 else PLAIN) for number in range(images)]
    paths = [folder / "images" / (AWKWARD_NAME if number == 1 else f"{number:03d}.jpg") for number in range(images)]
    for path, scene in zip(paths, scenes, strict=True):
        imaging.write_image(path, scene.image)
    boxes = [np.asarray(scene.boxes, np.float32).reshape(-1, 4) for scene in scenes]
    labels = [np.asarray(scene.labels, np.int64) for scene in scenes]
    height, width = scenes[0].image.shape[:2]
    names = (*CLASS_NAMES, AWKWARD_CLASS)
    found = [guess(rng, *truth, (width, height), len(names)) for truth in zip(boxes, labels, strict=True)]
    pool = Pool(folder, names, tuple(paths), (width, height), tuple(boxes), tuple(labels), tuple(found))
    write_json(pool.annotations, _coco(pool, [(b, n, None) for b, n in zip(boxes, labels, strict=True)]))
    return pool


def turn(pool: Pool) -> Pool:
    """Return the pool with rotated boxes, those of objects and of what was found, with a file of their corners."""
    found = tuple(dataclasses.replace(each, boxes=_turned(each.boxes)) for each in pool.found)
    turned = dataclasses.replace(
        pool, folder=pool.folder / "turned", boxes=tuple(map(_turned, pool.boxes)), found=found
    )
    rows = [(boxes, labels, None) for boxes, labels in zip(turned.boxes, turned.labels, strict=True)]
    write_json(turned.annotations, _coco(turned, rows))
    return turned


def _turned(boxes: np.ndarray) -> np.ndarray:
    """Turn boxes by their place, so that those of an object and of what was found of it are turned nearly the same."""
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return np.column_stack([middle, sides, middle[:, 0] / 60 % math.pi - math.pi / 2]).astype(np.float32)


def guess(
    rng: np.random.Generator, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int], classes: int
) -> Detections:
    """Return what a middling model would find: most objects, some of the wrong class, some where there is nothing."""
    kept = rng.random(len(boxes)) < 0.85
    sides = (boxes[:, 2:] - boxes[:, :2])[kept]
    near = boxes[kept] + rng.normal(0, 0.05, (int(kept.sum()), 4)) * np.tile(sides, 2)
    wrong = rng.random(len(near)) < 0.12
    guessed = np.where(wrong, rng.integers(0, classes - 1, len(near)), labels[kept])
    corners = rng.uniform(0, 0.8, (int(rng.integers(0, 4)), 2)) * size
    nothing = np.hstack([corners, corners + rng.uniform(0.08, 0.2, corners.shape) * size])
    every = np.clip(np.vstack([near, nothing]), 0, [*size, *size]).astype(np.float32)
    scores = np.concatenate([rng.beta(6, 2, len(near)), rng.beta(2, 4, len(nothing))]).astype(np.float32)
    every_label = np.concatenate([guessed, rng.integers(0, classes - 1, len(nothing))]).astype(np.int64)
    order = np.argsort(-scores)
    return Detections(every[order], scores[order], every_label[order], np.zeros((len(order), classes), np.float32))


def index_of(pool: Pool) -> DatasetIndex:
    counts = [len(boxes) for boxes in pool.boxes]
    given = np.concatenate(pool.boxes)
    boxes = upright(given).astype(np.float32)
    return DatasetIndex(
        class_names=pool.class_names,
        paths=Strings.pack(map(str, pool.paths)),
        sizes=np.full((len(counts), 2), pool.size, np.int32),
        image_ids=np.arange(len(counts)) + 1,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=np.concatenate(pool.labels).astype(np.int32),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        flags=np.zeros(len(boxes), np.uint8),
        rotated=given if given.shape[1] == 5 else None,
    )


def write_evaluate_run(folder: Path, pool: Pool) -> EvaluationResult:
    layout = RunLayout(folder)
    result = _evaluate(pool)
    write_evaluation(layout.evaluation, result)
    write_json(layout.predictions, predictions_of(pool))
    settings = {"data": [str(pool.annotations)], "conf": 0.001, "max_dets": 100, "split": "val"}
    _write_manifest(layout, "evaluate", settings, pool, metrics=result.scalars())
    return result


def write_train_run(folder: Path, pool: Pool, *, epochs: int = 30) -> EvaluationResult:
    layout = RunLayout(folder)
    result = _evaluate(pool)
    write_evaluation(layout.evaluation, result)
    write_json(layout.predictions, predictions_of(pool))
    write_text(layout.history, _history(epochs, result))
    for number, path in enumerate(pool.paths[:6]):
        image = imaging.read_image(path)
        for box in pool.boxes[number]:
            imaging.draw_polygon(image, outlines(box[None])[0], (86, 180, 233), 1)
        imaging.write_image(layout.samples / f"epoch1-{number}.jpg", image)
    data = {"train": [str(pool.annotations)], "val": [str(pool.annotations)]}
    settings = {"model": "rtmdet_tiny", **data, "epochs": epochs, "conf": 0.001, "seed": 0}
    recipe = {"epochs": epochs, "optimizer": {"name": "adamw", "lr": 0.004}, "augment": {"hsv": [5, 30, 30]}}
    _write_manifest(layout, "train", settings, pool, metrics=result.scalars(), recipe=recipe)
    return result


def write_infer_run(folder: Path, pool: Pool) -> dict[str, Any]:
    layout = RunLayout(folder)
    content = predictions_of(pool)
    content["images"].append(
        {"id": 999, "file_name": str(pool.folder / "images" / "broken.jpg"), "error": "this JPEG is cut short"}
    )
    write_json(layout.predictions, content)
    _write_manifest(layout, "infer", {"model": "best.safetensors", "data": ["pool"], "conf": 0.25}, pool)
    return content


def write_mine_run(
    folder: Path, pool: Pool, *, algorithm: str = "entropy", gallery: int = 24, top_k: int | None = None
) -> dict[str, Any]:
    layout = RunLayout(folder)
    rows = []
    for number, (path, found) in enumerate(zip(pool.paths, pool.found, strict=True)):
        uncertainty = -(found.scores * np.log2(found.scores) + (1 - found.scores) * np.log2(1 - found.scores))
        row = {
            "path": str(path),
            "score": float(uncertainty.sum()),
            "components": {"detections": len(found), "highest": float(uncertainty.max(initial=0))},
            "reason": f"{len(found)} detections, {int((uncertainty > 0.8).sum())} of them doubtful",
        }
        if algorithm == "aldd":
            row["heatmap"] = _heatmap(layout, pool, number)
        rows.append(row)
    broken = pool.folder / "images" / "broken.jpg"
    lines = ["path,score", *(f"{row['path']},{row['score']}" for row in rows), f"{broken},"]
    write_text(layout.scores, "".join(f"{line}\n" for line in lines))
    rows.sort(key=lambda row: -row["score"])
    content = {
        "algorithm": algorithm,
        "compat": None,
        "model": "best.safetensors",
        "seed": 0,
        "images": len(pool.paths) + 1,
        "ranking": [{"rank": rank, **row} for rank, row in enumerate(rows[:top_k], 1)],
        "failed": [{"path": str(broken), "error": "this file is empty"}],
    }
    write_json(layout.ranking_json, content)
    write_json(layout.predictions, predictions_of(pool))
    settings = {"model": "best.safetensors", "data": ["pool"], "algorithm": algorithm, "gallery": gallery, "conf": 0.1}
    _write_manifest(layout, "mine", settings, pool)
    return content


def predictions_of(pool: Pool) -> dict[str, Any]:
    truths = [(found.boxes, found.labels, found.scores) for found in pool.found]
    return {"info": {}, **_coco(pool, truths)}


def _evaluate(pool: Pool) -> EvaluationResult:
    settings = EvaluationSettings(conf=0.001, iou=0.65, max_dets=100, image_size=320, precision="fp32")
    evaluator = DetectionEvaluator(index_of(pool), settings)
    for position, found in enumerate(pool.found):
        evaluator.update(position, found)
    return evaluator.compute()


def _coco(pool: Pool, rows: list[tuple[Any, Any, Any]]) -> dict[str, Any]:
    width, height = pool.size
    annotations: list[dict[str, Any]] = []
    for image, (boxes, labels, scores) in enumerate(rows):
        for row, (box, label) in enumerate(zip(boxes, labels.tolist(), strict=True)):
            entry = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": label + 1, "iscrowd": 0}
            entry |= _box_of(box)
            annotations.append(entry if scores is None else entry | {"score": float(scores[row])})
    return {
        "images": [
            {"id": number, "file_name": str(path), "width": width, "height": height}
            for number, path in enumerate(pool.paths, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(pool.class_names, 1)],
        "annotations": annotations,
    }


def _box_of(box: np.ndarray) -> dict[str, Any]:
    """Return what an annotation says of a box; of a rotated one also its corners and its five numbers."""
    x1, y1, x2, y2 = upright(box[None])[0].tolist()
    entry = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
    if len(box) == 5:
        corners = outlines(box[None])[0].flatten().tolist()
        entry |= {"area": float(box[2] * box[3]), "segmentation": [corners], "rotated_box": box.tolist()}
    return entry


def _history(epochs: int, result: EvaluationResult) -> str:
    lines = ["epoch,lr,images_per_second,loss,loss_cls,loss_box,AP,AP50"]
    rng = np.random.default_rng(1)
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        classes, boxes = (scale * (0.25 + math.exp(-4 * done)) + rng.normal(0, 0.02) for scale in (1.0, 1.6))
        rise = 1 - math.exp(-4 * done)
        measures = f"{(result.coco.AP or 0) * rise:.6f},{(result.coco.AP50 or 0) * rise:.6f}" if epoch % 2 == 0 else ","
        lr = 0.002 * (1 + math.cos(math.pi * done))
        lines.append(
            f"{epoch},{lr:.6g},{120 + rng.normal(0, 3):.1f},{classes + boxes:.5f},{classes:.5f},{boxes:.5f},{measures}"
        )
    return "\n".join(lines) + "\n"


def _heatmap(layout: RunLayout, pool: Pool, number: int) -> str:
    image = imaging.read_image(pool.paths[number])
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
    heat = np.zeros(image.shape[:2], np.float32)
    for x1, y1, x2, y2 in pool.found[number].boxes:
        heat += np.exp(-(((xs - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1)) ** 2) * 4)
    name = f"heatmaps/{number + 1:04d}.png"
    imaging.write_image(layout.root / name, paint(heat, pool.size))
    return name


def _write_manifest(layout: RunLayout, verb: str, settings: dict[str, Any], pool: Pool, **more: Any) -> None:
    objects = sum(map(len, pool.boxes))
    content = {
        "verb": verb,
        "status": "done",
        "started": "2026-03-01T08:00:00+00:00",
        "finished": "2026-03-01T09:12:30+00:00",
        "settings": settings,
        "versions": {"python": "3.11.9", "ymir-tmi": "0.1.0", "torch": "2.11.0"},
        "command": ["ymir-tmi", verb, "--output", str(layout.root)],
        "data": {"val": {"images": len(pool.paths), "objects": objects, "fingerprint": "0123456789abcdef"}},
        "model": {"name": "rtmdet_tiny", "weights": "best.safetensors", "licence": "Apache-2.0"},
        **more,
    }
    layout.root.mkdir(parents=True, exist_ok=True)
    layout.manifest.write_text(json.dumps(content), encoding="utf-8")

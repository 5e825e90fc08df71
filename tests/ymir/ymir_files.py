"""Results that the platform accepts, to be changed by tests, and pictures that EXIF turns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

RUN_LENGTHS = "132"  # 1 pixel outside, 3 inside, 2 outside, of 3 x 2


def turned_by_exif(jpeg: bytes) -> bytes:
    """Return a JPEG whose EXIF says that it is to be turned by a quarter; the platform does not do so."""
    tags = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags + jpeg[2:]


def training_result(epochs: Iterable[int] = (1, 2)) -> dict[str, Any]:
    names = [f"epoch_{epoch}" for epoch in epochs]
    stages = {
        name: {
            "stage_name": name,
            "files": ["model.safetensors"],
            "timestamp": 1661328921,
            "mAP": 0.25,
            "AP": -1,  # keys that the platform does not know are ignored
            "tp": 3,
            "fp": 0,
            "fn": 2,
        }
        for name in names
    }
    evaluation = {"iou_thr": 0.5, "conf_thr": 0.005}
    return {"model_stages": stages, "best_stage_name": names[-1], "mAP": 0.25, "evaluate_config": evaluation}


def boxes_result() -> dict[str, Any]:
    found = {"box": {"x": 30, "y": 30, "w": 50, "h": 50}, "class_name": "circle", "score": 0.8}
    return {"detection": {"a b.jpg": {"boxes": [found]}, "é.jpg": {"boxes": []}}}


def masks_result() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 3, "height": 2}],
        "categories": [{"id": 0, "name": "circle"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 0,
                "bbox": [0, 0, 2, 2],
                "area": 3,
                "iscrowd": 0,
                "confidence": 0.9,
                "segmentation": {"size": [2, 3], "counts": RUN_LENGTHS},
            }
        ],
    }


def monitor_line(task: str = "task") -> str:
    return f"{task}\t1661328921.123456\t1.000000\t2\n"


def write_out(
    folder: Path,
    *,
    training: dict[str, Any] | None = None,
    mining: str | None = None,
    infer: dict[str, Any] | None = None,
    monitor: str | None = None,
) -> None:
    """Write an /out with these results, and the files that those of a training name."""
    folder.mkdir(exist_ok=True)
    if training is not None:
        models = folder / "models"
        for name in training["model_stages"] if isinstance(training.get("model_stages"), dict) else ():
            (models / name).mkdir(parents=True, exist_ok=True)
            (models / name / "model.safetensors").write_bytes(b"weights")
        models.mkdir(exist_ok=True)
        (models / "result.yaml").write_text(yaml.safe_dump(training))
        (folder / "tensorboard").mkdir(exist_ok=True)
        (folder / "tensorboard" / "events.out.tfevents.1").write_bytes(b"event")
    if mining is not None:
        (folder / "result.tsv").write_text(mining, encoding="utf-8")
    if infer is not None:
        (folder / "infer-result.json").write_text(json.dumps(infer), encoding="utf-8")
    (folder / "monitor.txt").write_text(monitor or monitor_line())

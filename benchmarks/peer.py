"""Runs ultralytics' command line in its own environment and reads the files that it writes; imports nothing of it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import measure

ROUNDS = 5
"""How often the pictures are shown where the start of a program must not count."""


@dataclass(frozen=True)
class Trained:
    """A run folder, and what it cost to make it."""

    folder: Path
    cost: measure.Cost


@dataclass(frozen=True)
class Times:
    """Milliseconds an image, as `predict` prints them; reading files is not in them."""

    preprocess: float
    inference: float
    postprocess: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.preprocess + self.inference + self.postprocess


@dataclass(frozen=True)
class Peer:
    """An environment with ultralytics, and a folder for what it writes.

    Attributes:
        yolo: its `yolo` command.
        work: folder for runs and settings.
    """

    yolo: Path
    work: Path

    def run(self, log: str, *arguments: str, folder: Path | None = None) -> measure.Cost:
        """Run `yolo ARGUMENTS` offline and return what it cost; its output goes to the file `log` in `work`."""
        environment = {"YOLO_OFFLINE": "True", "YOLO_CONFIG_DIR": str(self.work / "settings")}
        return measure.run([str(self.yolo), *arguments, f"project={self.work}"], self.work / log, environment, folder)

    def train(self, data: Path, name: str, *, size: int, epochs: int, batch: int, seed: int, validate: bool) -> Trained:
        """Train YOLOv8n from scratch. Without `validate` only the end is validated."""
        cost = self.run(
            f"{name}.log", "detect", "train", "model=yolov8n.yaml", "pretrained=False", f"data={data}", f"imgsz={size}",
            f"epochs={epochs}", f"batch={batch}", f"seed={seed}", "device=cpu", "workers=2", "plots=False",
            f"val={validate}", f"name={name}", "exist_ok=True",
        )  # fmt: skip
        return Trained(self.work / name, cost)

    def validate(self, weights: Path, data: Path, name: str, *, size: int) -> Path:
        """Predict the validation images at its lowest threshold; return the predictions file."""
        self.run(
            f"{name}.log", "detect", "val", f"model={weights}", f"data={data}", f"imgsz={size}", "device=cpu",
            "save_json=True", "plots=False", f"name={name}", "exist_ok=True",
        )  # fmt: skip
        return self.work / name / "predictions.json"

    def predict(self, model: str, pictures: str, *, size: int, batch: int) -> Times:
        """Predict a folder of pictures by a network with new weights, or by an export of one."""
        self.run(
            "predict.log", "detect", "predict", f"model={model}", f"source={pictures}", f"imgsz={size}",
            f"batch={batch}", "device=cpu", "save=False",
        )  # fmt: skip
        log = (self.work / "predict.log").read_text()
        parts = re.findall(r"([\d.]+)ms (?:preprocess|inference|postprocess)", log)
        return Times(*map(float, parts[-3:]))

    def files_to_results(self, model: str, pictures: Sequence[Path], *, size: int) -> float:
        """Return images per second from files to results: how much longer all rounds of the pictures take than one."""
        walls = []
        for rounds in (1, ROUNDS):
            listed = self.work / "pictures.txt"
            listed.write_text("\n".join(map(str, list(pictures) * rounds)))
            cost = self.run(
                "predict.log", "detect", "predict", f"model={model}", f"source={listed}", f"imgsz={size}",
                "device=cpu", "save=False",
            )  # fmt: skip
            walls.append(cost.wall_s)
        return (ROUNDS - 1) * len(pictures) / (walls[1] - walls[0])

    def export_openvino(self, model: str, *, size: int) -> Path:
        """Export a network with new weights; return the folder that it wrote."""
        self.run(
            "export.log", "detect", "export", f"model={model}", "format=openvino", f"imgsz={size}", folder=self.work
        )
        return self.work / f"{Path(model).stem}_openvino_model"


def images_per_second(run: Path, images: int) -> float:
    """Return the speed of fitting without validation, from the times after each epoch in its `results.csv`.

    The first epoch holds the start, the last one a validation in any case.
    """
    with (run / "results.csv").open() as file:
        times = [float(row["time"]) for row in csv.DictReader(file, skipinitialspace=True)]
    return images * (len(times) - 2) / (times[-2] - times[0])


def to_coco_results(predictions: Path, annotations: Path, output: Path) -> Path:
    """Rewrite its predictions in the ids of a COCO annotation file: file stems and class positions become ids.

    Its category ids are positions in the class list, counted from 1.
    """
    truth = json.loads(annotations.read_text())
    images = {Path(image["file_name"]).stem: image["id"] for image in truth["images"]}
    categories = sorted(category["id"] for category in truth["categories"])
    rows = json.loads(predictions.read_text())
    results = [
        {
            "image_id": images[Path(row["file_name"]).stem],
            "category_id": categories[row["category_id"] - 1],
            "bbox": row["bbox"],
            "score": row["score"],
        }
        for row in rows
    ]
    output.write_text(json.dumps(results))
    return output

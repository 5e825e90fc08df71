"""Runs ultralytics' command line in its own environment and reads the files that it writes; imports nothing of it."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import yaml

ROUNDS = 5
"""How often the pictures are shown where the start of a program must not count."""


@dataclass(frozen=True)
class Network:
    """A network that it trains.

    Attributes:
        task: what its command line calls what the network does.
        model: the network's name.
        gmac: multiply-adds of a 640 x 640 input in units of 1e9, half of the GFLOPs that it prints.
    """

    task: str
    model: str
    gmac: float


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

    def train(
        self, network: Network, data: Path, name: str, *,
        size: int, epochs: int, batch: int | None, seed: int, validate: bool,
    ) -> measure.Cost:  # fmt: skip
        """Train from scratch, by default with its own batch. Without `validate` only the end is validated."""
        return self.run(
            f"{name}.log", network.task, "train", f"model={network.model}.yaml", "pretrained=False", f"data={data}",
            f"imgsz={size}", f"epochs={epochs}", *([f"batch={batch}"] if batch else []), f"seed={seed}", "device=cpu",
            "workers=2", "plots=False", f"val={validate}", f"name={name}", "exist_ok=True",
        )  # fmt: skip

    def is_trained(self, name: str, *, size: int, epochs: int) -> bool:
        """Return whether a run of this name is complete; one that was made otherwise ends the benchmark."""
        run = self.work / name
        if not (run / "results.csv").exists():
            return False
        settings = yaml.safe_load((run / "args.yaml").read_text())
        if (settings["epochs"], settings["imgsz"]) != (epochs, size):
            sys.exit(f"{run} was made with other epochs or another image size; give another --output")
        return len(epoch_ends(run)) == epochs

    def validate(
        self, network: Network, weights: Path, data: Path, name: str, *, size: int, max_dets: int | None
    ) -> Path:
        """Predict the validation images at its lowest threshold; return the predictions file."""
        predictions = self.work / name / "predictions.json"
        predictions.unlink(missing_ok=True)
        self.run(
            f"{name}.log", network.task, "val", f"model={weights}", f"data={data}", f"imgsz={size}", "device=cpu",
            "save_json=True", "plots=False", f"name={name}", "exist_ok=True",
            *([f"max_det={max_dets}"] if max_dets else []),
        )  # fmt: skip
        return predictions

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
    """Return the speed of fitting without validation.

    The first epoch holds the start, the last one a validation in any case.
    """
    times = epoch_ends(run)
    return images * (len(times) - 2) / (times[-2] - times[0])


def epoch_ends(run: Path) -> list[float]:
    """Return the seconds from the start to the end of each epoch so far, from its `results.csv`."""
    with (run / "results.csv").open() as file:
        return [float(row["time"]) for row in csv.DictReader(file, skipinitialspace=True)]


def to_coco_predictions(predictions: Path, annotations: Path, output: Path) -> Path:
    """Rewrite its predictions as a COCO annotation file with scores: file stems and class positions become ids.

    Its category ids are positions in the class list, counted from 1. It writes no file where it finds nothing.
    """
    truth = json.loads(annotations.read_text())
    images = {Path(image["file_name"]).stem: image["id"] for image in truth["images"]}
    categories = sorted(category["id"] for category in truth["categories"])
    rows = json.loads(predictions.read_text()) if predictions.exists() else []
    found = [
        {
            "image_id": images[Path(row["file_name"]).stem],
            "category_id": categories[row["category_id"] - 1],
            "score": row["score"],
            **where(row),
        }
        for row in rows
    ]
    output.write_text(json.dumps({**truth, "annotations": found}))
    return output


def where(row: Mapping[str, Any]) -> dict[str, object]:
    """Return what COCO says of the place of one of its predictions: a box, a rotated one, or a mask with its box."""
    if "poly" in row:
        return corners_of(row["poly"])
    return {name: row[name] for name in ("bbox", "segmentation") if name in row}


def corners_of(polygon: Sequence[float]) -> dict[str, object]:
    """Return a rotated box as COCO has it: its four corners, x and y in turns, and the upright box around them."""
    xs, ys = polygon[::2], polygon[1::2]
    return {"segmentation": [polygon], "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]}

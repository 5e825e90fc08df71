"""Trains FastSCNN and FCN-HRNet from scratch on a data set with a class for every pixel: mIoU over the course of a run.

    python benchmarks/label_maps.py --data FOLDER --output FOLDER

Prints a table of mIoU at some epochs, the updates by then, and images per second of fitting, validation out.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path

import measure

MODELS = ("fast_scnn", "fcn_hrnet_w18_small")
ROWS = 6  # of the table for each model


def train(model: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return rows of the table; a run that is there already is not repeated."""
    run = options.output / model
    if not (run / "evaluation.json").exists():
        command = [
            sys.executable, "-m", "ymir_tmi.cli", "train", "--model", model, "--epochs", str(options.epochs),
            "--image-size", str(options.size), "--batch", str(options.batch), "--seed", str(options.seed),
            "--train", str(options.data / "train.json"), "--val", str(options.data / "val.json"), "--output", str(run),
        ]  # fmt: skip
        measure.run(command, run.with_suffix(".log"))
    with (run / "metrics.csv").open() as file:
        epochs = [row for row in csv.DictReader(file) if row["mIoU"]]
    speed = statistics.median(float(row["images_per_second"]) for row in epochs)
    shown = sorted({round((part + 1) * len(epochs) / ROWS) - 1 for part in range(ROWS)})
    updates = options.images // options.batch
    return [
        {
            "model": model,
            "updates": int(row["epoch"]) * updates,
            **{name: float(row[name]) for name in ("mIoU", "mAcc", "aAcc")},
            "images/s": speed,
        }
        for row in (epochs[number] for number in shown)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
    parser.add_argument("--output", type=Path, required=True, help="folder for runs; complete ones in it are kept")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.images = len(json.loads((options.data / "train.json").read_text())["images"])
    print(measure.table([row for model in options.models for row in train(model, options)]))


if __name__ == "__main__":
    main()

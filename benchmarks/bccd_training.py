"""Trains RTMDet-tiny and YOLOX-tiny on BCCD from scratch, beside YOLOv8n of ultralytics on the same images.

    python benchmarks/bccd_training.py --data BCCD_FOLDER --output FOLDER [--yolo /path/to/bin/yolo]

Accuracy: every model is trained for each seed and measured on the validation images by our evaluator, from its own
predictions at its lowest threshold. Speed: images per second of fitting, augmentation in, validation out.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import measure
import peer

TRAIN = ("train.json", "pool.json")


def ymir_tmi(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ymir_tmi.cli", *arguments]


def train_ours(model: str, seed: int, options: argparse.Namespace) -> dict[str, object]:
    run = options.output / f"{model}-{seed}"
    cost = measure.run(
        ymir_tmi(
            "train", "--model", model, "--seed", str(seed),
            "--epochs", str(options.epochs), "--batch", str(options.batch),
            "--image-size", str(options.size), *(f"--train={options.data / name}" for name in TRAIN),
            "--val", str(options.data / "val.json"), "--output", str(run), *options.option,
        ),
        run.with_suffix(".log"),
    )  # fmt: skip
    with (run / "metrics.csv").open() as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    evaluation = json.loads((run / "evaluation.json").read_text())
    return {
        "model": model,
        "seed": seed,
        "AP": evaluation["coco"]["AP"],
        "AP50": evaluation["coco"]["AP50"],
        "images/s": statistics.median(speeds),
        "peak MB": cost.peak_mb,
    }


def train_peer(seed: int, yolo: peer.Peer, options: argparse.Namespace) -> dict[str, object]:
    data = options.output / "yolo" / "data.yaml"
    images = sum(len(json.loads((options.data / name).read_text())["images"]) for name in TRAIN)
    trained = yolo.train(
        data, f"v8n-{seed}", size=options.size, epochs=options.epochs, batch=options.batch, seed=seed, validate=True
    )
    # Its own times hold the validation, so the speed is that of a short run without.
    timed = yolo.train(
        data, f"v8n-{seed}-speed", size=options.size, epochs=5, batch=options.batch, seed=seed, validate=False
    )
    predictions = yolo.validate(trained.folder / "weights" / "best.pt", data, f"v8n-{seed}-val", size=options.size)
    results = peer.to_coco_results(predictions, options.data / "val.json", options.output / f"v8n-{seed}.json")
    done = subprocess.run(
        ymir_tmi("evaluate", "--predictions", str(results), "--data", str(options.data / "val.json"), "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    coco = json.loads(done.stdout)["coco"]
    return {
        "model": "ultralytics yolov8n",
        "seed": seed,
        "AP": coco["AP"],
        "AP50": coco["AP50"],
        "images/s": peer.images_per_second(timed.folder, images),
        "peak MB": trained.cost.peak_mb,
    }


def write_yolo_data(options: argparse.Namespace) -> None:
    """Write the same images in the peer's layout."""
    folder = options.output / "yolo"
    if folder.exists():
        return
    for split, names in (("train", TRAIN), ("val", ("val.json",))):
        sources = [str(options.data / name) for name in names]
        subprocess.run(ymir_tmi("convert", *sources, "--to", "yolo", "--output", str(folder / split)), check=True)
    categories = json.loads((options.data / "val.json").read_text())["categories"]
    names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    (folder / "data.yaml").write_text(
        json.dumps({"path": str(folder.resolve()), "train": "train/images", "val": "val/images", "names": names})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train.json, pool.json, val.json and images/"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for runs and results.json")
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    parser.add_argument("--models", nargs="*", default=["rtmdet_tiny", "yolox_tiny"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--option", action="append", default=[], help="further option of `ymir-tmi train`")
    options = parser.parse_args()

    rows = [train_ours(model, seed, options) for model in options.models for seed in options.seeds]
    if options.yolo:
        write_yolo_data(options)
        environment = peer.Peer(options.yolo, (options.output / "peer").resolve())
        rows += [train_peer(seed, environment, options) for seed in options.seeds]
    (options.output / "results.json").write_text(json.dumps(rows, indent=2))
    print(measure.table(rows))


if __name__ == "__main__":
    main()

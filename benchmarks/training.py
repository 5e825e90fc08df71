"""Trains ours from scratch on a data set, beside a network of ultralytics on the same images.

    python benchmarks/training.py bccd --data FOLDER --output FOLDER [--yolo /path/to/bin/yolo]
    python benchmarks/training.py hituav_obb --data FOLDER --output FOLDER [--yolo /path/to/bin/yolo]
    python benchmarks/training.py nuclei --data FOLDER --output FOLDER [--yolo /path/to/bin/yolo]

Accuracy: every model is trained for each seed and measured on the validation images by our evaluator, from its own
predictions at its lowest threshold. Speed: images per second of fitting, augmentation in, validation out, and times the
multiply-adds of a 640 x 640 input. Trainings that are in the output folder already are not repeated, and those that
were interrupted start again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import measure
import peer

from ymir_tmi import list_models

TRAIN = ("train.json", "pool.json")
SPEED_EPOCHS = 5  # of the peer's run that is timed


@dataclass(frozen=True)
class Case:
    """A data set, and what is trained on it.

    Attributes:
        models: names of ours.
        network: the peer's.
        size: longer side of the network input in pixels.
        epochs: passes over the training images.
        batch: images a step; None leaves each its default.
        convert: options of `ymir-tmi convert` that write what the peer learns from.
        max_dets: detections of an image that are measured; None leaves each its default.
        numbers: the part of evaluation.json that is shown.
        figures: heading and name of each number.
    """

    models: tuple[str, ...]
    network: peer.Network
    size: int
    epochs: int
    batch: int | None
    convert: tuple[str, ...]
    max_dets: int | None
    numbers: str
    figures: Mapping[str, str]


CASES = {
    "bccd": Case(
        models=("rtmdet_tiny", "yolox_tiny"),
        network=peer.Network("detect", "yolov8n", gmac=4.35),
        size=320,
        epochs=40,
        batch=16,
        convert=("--to", "yolo"),
        max_dets=None,
        numbers="coco",
        figures={"AP": "AP", "AP50": "AP50"},
    ),
    "hituav_obb": Case(
        models=("rotated_rtmdet_tiny",),
        network=peer.Network("obb", "yolov8n-obb", gmac=4.2),
        size=512,
        epochs=36,
        batch=None,
        convert=("--rotated", "--to", "yolo"),
        max_dets=None,
        numbers="dota",
        figures={"mAP50:95": "AP", "mAP50": "AP50", "mAP75": "AP75"},
    ),
    "nuclei": Case(
        models=("yolov5_n_seg",),
        network=peer.Network("segment", "yolov8n-seg", gmac=5.75),
        size=384,
        epochs=40,
        batch=16,
        convert=("--to", "yolo-seg"),
        max_dets=500,
        numbers="masks",
        figures={"mask AP": "AP", "mask AP50": "AP50"},
    ),
}


def ymir_tmi(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ymir_tmi.cli", *arguments]


def train_ours(model: str, seed: int, options: argparse.Namespace) -> dict[str, object]:
    run = options.output / f"{model}-{seed}"
    batch = [f"--batch={options.batch}"] if options.batch else []
    command = ymir_tmi(
        "train", "--model", model, "--seed", str(seed), "--epochs", str(options.epochs), *batch,
        "--image-size", str(options.size), *(f"--train={options.data / name}" for name in TRAIN),
        "--val", str(options.data / "val.json"), "--output", str(run), *max_dets(options), *options.option,
    )  # fmt: skip
    peak = train_once(run, is_trained(run, options), lambda: measure.run(command, run.with_suffix(".log")))
    with (run / "metrics.csv").open() as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    info = next(info for info in list_models() if info.name == model)
    gmac = info.multiply_adds * (640 / info.input_size) ** 2 / 1e9
    speed = statistics.median(speeds)
    evaluation = json.loads((run / "evaluation.json").read_text())
    return {"model": model, "seed": seed, **figures(evaluation, options), **cost(speed, gmac, peak)}


def is_trained(run: Path, options: argparse.Namespace) -> bool:
    """Return whether one of our run folders is complete; one that was made otherwise ends the benchmark."""
    path = run / "run.json"
    content = json.loads(path.read_text()) if path.exists() else {"status": "none"}
    if content["status"] != "done":
        return False
    settings = content["settings"]
    if (settings["epochs"], settings["image_size"]) != (options.epochs, options.size):
        sys.exit(f"{run} was made with other epochs or another image size; give another --output")
    return True


def train_peer(seed: int, yolo: peer.Peer, options: argparse.Namespace) -> dict[str, object]:
    network, name, size = options.case.network, f"v8n-{seed}", options.size

    def train(name: str, epochs: int, validate: bool) -> float | None:
        done = yolo.is_trained(name, size=size, epochs=epochs)
        return train_once(
            yolo.work / name,
            done,
            lambda: yolo.train(
                network, data, name, size=size, epochs=epochs, batch=options.batch, seed=seed, validate=validate
            ),
        )

    data, truth = options.output / "yolo" / "data.yaml", options.data / "val.json"
    peak = train(name, options.epochs, True)
    # Its own times hold the validation, so the speed is that of a short run without.
    train(f"{name}-speed", SPEED_EPOCHS, False)
    images = sum(len(json.loads((options.data / part).read_text())["images"]) for part in TRAIN)
    speed = peer.images_per_second(yolo.work / f"{name}-speed", images)
    found = yolo.validate(
        network,
        yolo.work / name / "weights" / "best.pt",
        data,
        f"{name}-val",
        size=size,
        max_dets=options.case.max_dets,
    )
    predictions = peer.to_coco_predictions(found, truth, options.output / f"{name}.json")
    done = subprocess.run(
        ymir_tmi("evaluate", "--predictions", str(predictions), "--data", str(truth), *max_dets(options), "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    numbers = figures(json.loads(done.stdout), options)
    return {"model": f"ultralytics {network.model}", "seed": seed, **numbers, **cost(speed, network.gmac, peak)}


def train_once(run: Path, done: bool, train: Callable[[], measure.Cost]) -> float | None:
    """Make a run folder anew unless it is `done`; return the peak memory of that in MB, None if it is not known."""
    record = run.with_suffix(".cost.json")
    if not done:
        shutil.rmtree(run, ignore_errors=True)
        record.write_text(json.dumps(asdict(train())))
    return json.loads(record.read_text())["peak_mb"] if record.exists() else None


def figures(evaluation: dict[str, dict[str, object] | None], options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of the case from the content of evaluation.json."""
    # Where nothing at all was found, nothing says that boxes are rotated.
    numbers = evaluation[options.case.numbers] or {}
    return {heading: numbers.get(name, 0.0) for heading, name in options.case.figures.items()}


def cost(speed: float, gmac: float, peak_mb: float | None) -> dict[str, object]:
    return {"images/s": speed, "GMAC/s": speed * gmac, "peak MB": "-" if peak_mb is None else peak_mb}


def max_dets(options: argparse.Namespace) -> list[str]:
    return [] if options.case.max_dets is None else ["--max-dets", str(options.case.max_dets)]


def write_yolo_data(options: argparse.Namespace) -> None:
    """Write the same images in the peer's layout."""
    folder = options.output / "yolo"
    if (folder / "data.yaml").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for split, names in (("train", TRAIN), ("val", ("val.json",))):
        sources = [str(options.data / name) for name in names]
        subprocess.run(
            ymir_tmi("convert", *options.case.convert, *sources, "--output", str(folder / split)),
            check=True,
        )
    categories = json.loads((options.data / "val.json").read_text())["categories"]
    names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    (folder / "data.yaml").write_text(
        json.dumps({"path": str(folder.resolve()), "train": "train/images", "val": "val/images", "names": names})
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES, help="data set")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train.json, pool.json, val.json and images/"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for runs and results.json; complete runs in it are kept"
    )
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--models", nargs="*", help="ours; this and what follows is by default that of the case")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--option", action="append", default=[], help="further option of `ymir-tmi train`")
    options = parser.parse_args()
    options.case = CASES[options.case]
    for name in ("models", "epochs", "batch", "size"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(options.case, name))
    return options


def main() -> None:
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = [train_ours(model, seed, options) for model in options.models for seed in options.seeds]
    if options.yolo:
        write_yolo_data(options)
        environment = peer.Peer(options.yolo, (options.output / "peer").resolve())
        environment.work.mkdir(exist_ok=True)
        rows += [train_peer(seed, environment, options) for seed in options.seeds]
    (options.output / "results.json").write_text(json.dumps(rows, indent=2))
    print(measure.table(rows))


if __name__ == "__main__":
    main()

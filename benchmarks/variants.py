"""The forward pass of every model on the CPU, two threads, default settings, beside the peer where it has the model.

    python benchmarks/variants.py --data PICTURES [--models NAME ...] [--openvino] [--yolo /path/to/bin/yolo]

All networks have new weights, which find nothing: what is compared is the network. Inputs have the shape of the first
picture at `--size`, and GMAC are those of this input. The peer's figure is the time of "inference" that its `predict`
prints, by its own defaults (fp32). With `--openvino` both export what both have, for square inputs as is the default of
both, and run it from files to results.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import measure
import numpy as np
import peer
import torch

from ymir_tmi import ExportSettings, InferSettings, create_model, export, infer, list_models
from ymir_tmi.data.letterbox import Frame, plan_frame
from ymir_tmi.data.read import read_dataset
from ymir_tmi.imaging import image_size
from ymir_tmi.models.catalog import ModelInfo
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.models.runtime.torch_runtime import TorchRuntime, load_runtime

BATCHES = (1, 8)
SECONDS = 3.0
CLASSES = 80
# Ours, and what the peer calls a network of the same size; its YOLOv5 has YOLOv8's head.
PEERS = {f"{ours}_{size}": f"{ours}{size}.yaml" for ours in ("yolov5", "yolov8") for size in "nsmlx"} | {
    f"yolov5_{size}6": f"yolov5{size}-p6.yaml" for size in "nsmlx"
}


def measure_model(info: ModelInfo, options: argparse.Namespace) -> dict[str, object]:
    """Return a row of the table: images per second of one model, ours and theirs."""
    runtime = load_runtime(create_model(info.name, num_classes=CLASSES).eval(), device="cpu", image_size=options.size)
    frame = plan_frame(*options.picture, runtime.spec.input)
    area = frame.input_height * frame.input_width / info.input_size**2
    row: dict[str, object] = {"model": info.name, "GMAC": info.multiply_adds * area / 1e9}
    for batch in BATCHES:
        row[f"batch {batch}"] = forward_speed(runtime, frame, batch)
    theirs = PEERS.get(info.name) if options.yolo else None
    for batch in BATCHES:
        row[f"peer, batch {batch}"] = peer_speed(theirs, options, batch) if theirs else "-"
    if options.openvino:
        row["OpenVINO"] = openvino_speed(info.name, options) if info.name in PEERS else "-"
        row["peer, OpenVINO"] = peer_openvino_speed(theirs, options) if theirs else "-"
    return row


def forward_speed(runtime: TorchRuntime, frame: Frame, batch: int) -> float:
    """Return images per second of the network alone, by its default precision."""
    images = np.full((batch, frame.input_height, frame.input_width, 3), 114, np.uint8)
    runtime.run(images)
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        started = time.perf_counter()
        runtime.run(images)
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times)


def peer_speed(model: str, options: argparse.Namespace, batch: int) -> float:
    """Return images per second of the peer's network alone, by its default precision."""
    with tempfile.TemporaryDirectory() as folder:
        times = peer.Peer(options.yolo, Path(folder)).predict(model, options.data, size=options.size, batch=batch)
    return 1000 / times.inference


def openvino_speed(name: str, options: argparse.Namespace) -> float:
    """Return images per second of `infer` with an exported model, from files to written results."""
    with tempfile.TemporaryDirectory() as folder:
        model, exported = Path(folder) / "model.safetensors", Path(folder) / "model.xml"
        save_model(create_model(name, num_classes=CLASSES).eval(), model)
        export(ExportSettings(model=model, to="openvino", output=exported, image_size=options.size))
        pictures = link_pictures(options.paths * peer.ROUNDS, Path(folder) / "pictures")
        settings = {"model": exported, "data": [pictures], "format": "images", "device": "cpu"}
        runs = [
            infer(InferSettings.model_validate({**settings, "output": Path(folder) / f"run-{number}"}))
            for number in range(3)
        ]
    return statistics.median(run.images_per_second for run in runs)


def peer_openvino_speed(model: str, options: argparse.Namespace) -> float:
    """Return images per second of the peer's export, from files to results."""
    with tempfile.TemporaryDirectory() as folder:
        its = peer.Peer(options.yolo, Path(folder))
        exported = its.export_openvino(model, size=options.size)
        return its.files_to_results(str(exported), options.paths, size=options.size)


def link_pictures(paths: list[Path], folder: Path) -> str:
    """Fill a folder with links to pictures, which may be there several times; return it."""
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        (folder / f"{number}-{path.name}").symlink_to(path)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--models", nargs="*", help="names of models; by default all")
    parser.add_argument("--openvino", action="store_true", help="export the models that the peer has as well")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--pictures", type=int, default=32, help="how many of the folder")
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    options = parser.parse_args()
    torch.set_num_threads(2)
    paths = read_dataset([options.data], format="images").paths
    options.paths = [Path(paths[row]).absolute() for row in range(min(len(paths), options.pictures))]
    options.picture = image_size(options.paths[0])

    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        options.data = link_pictures(options.paths, Path(folder))
        for info in list_models():
            if options.models is None or info.name in options.models:
                rows.append(measure_model(info, options))
                print(rows[-1], flush=True)
    print(measure.table(rows))


if __name__ == "__main__":
    main()

"""The forward pass of every model on the CPU, two threads, default settings, beside the peer where it has the model.

    python benchmarks/variants.py --data PICTURES [--models NAME ...] [--openvino NAME ...] [--yolo /path/to/bin/yolo]

All networks have new weights, which find nothing: what is compared is the network. Inputs have the shape of the first
picture at `--size`. The peer's figure is the time of "inference" that its `predict` prints, by its own defaults (fp32).
With `--openvino` the models named are exported by both, and the times from files to results are compared.
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
from ymir_tmi.data.letterbox import plan_frame
from ymir_tmi.data.read import read_dataset
from ymir_tmi.imaging import image_size
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.models.runtime.torch_runtime import load_runtime

BATCHES = (1, 8)
SECONDS = 3.0
CLASSES = 80
# Ours, and what the peer calls a network of the same size; its YOLOv5 has YOLOv8's head.
PEERS = {f"{ours}_{size}": f"{ours}{size}.yaml" for ours in ("yolov5", "yolov8") for size in "nsmlx"}


def forward_speed(name: str, picture: tuple[int, int], size: int, batch: int) -> float:
    """Return images per second of the network alone, by its default precision."""
    runtime = load_runtime(create_model(name, num_classes=CLASSES).eval(), device="cpu", image_size=size)
    frame = plan_frame(*picture, runtime.spec.input)
    images = np.full((batch, frame.input_height, frame.input_width, 3), 114, np.uint8)
    runtime.run(images)
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        started = time.perf_counter()
        runtime.run(images)
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times)


def openvino_speed(name: str, pictures: str, size: int) -> float:
    """Return images per second of `infer` with an exported model, from files to written results."""
    with tempfile.TemporaryDirectory() as folder:
        model, exported = Path(folder) / "model.safetensors", Path(folder) / "model.xml"
        save_model(create_model(name, num_classes=CLASSES).eval(), model)
        export(ExportSettings(model=model, to="openvino", output=exported, image_size=size))
        settings = {"model": exported, "data": [pictures], "format": "images", "device": "cpu"}
        speeds = [
            infer(
                InferSettings.model_validate({**settings, "output": Path(folder) / f"run-{number}"})
            ).images_per_second
            for number in range(3)
        ]
    return statistics.median(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--models", nargs="*", help="names of models; by default all")
    parser.add_argument("--openvino", nargs="*", default=[], help="models to export as well")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    options = parser.parse_args()
    torch.set_num_threads(2)
    picture = image_size(read_dataset([options.data], format="images").paths[0])

    rows: list[dict[str, object]] = []
    for info in list_models():
        if options.models is not None and info.name not in options.models:
            continue
        row: dict[str, object] = {"model": info.name, "GMAC": info.multiply_adds / 1e9}
        for batch in BATCHES:
            row[f"batch {batch}"] = forward_speed(info.name, picture, options.size, batch)
        for batch in BATCHES:
            row[f"peer, batch {batch}"] = "-"
            if options.yolo and info.name in PEERS:
                with tempfile.TemporaryDirectory() as folder:
                    its = peer.Peer(options.yolo, Path(folder))
                    times = its.predict(PEERS[info.name], options.data, size=options.size, batch=batch)
                row[f"peer, batch {batch}"] = 1000 / times.inference
        print(row, flush=True)
        rows.append(row)
    print(measure.table(rows))

    for name in options.openvino:
        print(f"{name}, OpenVINO: {openvino_speed(name, options.data, options.size):.1f} images/s", flush=True)
        if options.yolo and name in PEERS:
            with tempfile.TemporaryDirectory() as folder:
                its = peer.Peer(options.yolo, Path(folder))
                exported = its.export_openvino(PEERS[name], size=options.size)
                times = its.predict(str(exported), options.data, size=options.size, batch=1)
            print(f"its {PEERS[name]}, OpenVINO, files not counted: {1000 / times.total:.1f} images/s", flush=True)


if __name__ == "__main__":
    main()

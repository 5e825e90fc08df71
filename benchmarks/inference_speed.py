"""Inference on the CPU: the pure forward pass and files to results, in images per second.

    python benchmarks/inference_speed.py --model MODEL.safetensors --data PICTURES --annotations ANNOTATIONS \\
        [--exported MODEL.xml MODEL.onnx] [--yolo /path/to/bin/yolo]

GMAC/s is images/s times the multiply-adds of a square input of that size. Files to results is what `infer` reports of
itself: decoding, network, NMS and writing, without start-up. The peer's figure is the sum of the times per image
(preprocess, inference, postprocess) that its `predict` prints; reading files is not in it. Exported files are run at
the size that they were exported with.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import measure
import numpy as np
import peer
import torch

from ymir_tmi import EvaluateSettings, InferSettings, evaluate, infer, list_models
from ymir_tmi.config.schema import Precision
from ymir_tmi.data.letterbox import plan_frame
from ymir_tmi.data.read import read_dataset
from ymir_tmi.imaging import image_size
from ymir_tmi.models.checkpoint import read_model_info
from ymir_tmi.models.runtime.open import open_model

ROUNDS = 5
PEER_GMAC = 4.35  # YOLOv8n, 640 x 640


def settings_for(options: argparse.Namespace, model: Path, precision: Precision) -> dict[str, Any]:
    """Return what every verb is given for a model file or an exported one."""
    size = options.size if model == options.model else None
    return {"model": model, "data": [options.data], "image_size": size, "device": "cpu", "precision": precision}


def forward_speed(options: argparse.Namespace, model: Path, precision: Precision, batch: int) -> float:
    """Return images per second of the network alone, on inputs of the shape of the first picture."""
    first = read_dataset([options.data], format="images").paths[0]
    runtime, _ = open_model(model, InferSettings(**settings_for(options, model, precision)))
    frame = plan_frame(*image_size(first), runtime.spec.input)
    images = np.full((batch, frame.input_height, frame.input_width, 3), 114, np.uint8)
    runtime.run(images)
    times = []
    for _ in range(4 * ROUNDS):
        started = time.perf_counter()
        runtime.run(images)
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times)


def pipeline_speed(
    options: argparse.Namespace, model: Path, precision: Precision, batch: int | Literal["auto"]
) -> float:
    """Return images per second from files to written results."""
    speeds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            done = infer(
                InferSettings(
                    **settings_for(options, model, precision), format="images", batch=batch, output=Path(folder) / "run"
                )
            )
            speeds.append(done.images_per_second)
    return statistics.median(speeds)


def peer_speed(options: argparse.Namespace) -> float:
    """Return images per second of the peer's default prediction on the same files, from its own log."""
    with tempfile.TemporaryDirectory() as folder:
        its = peer.Peer(options.yolo, Path(folder))
        return 1000 / its.predict("yolov8n.yaml", options.data, size=options.size, batch=1).total


def ap(options: argparse.Namespace, precision: Precision) -> float:
    """Return AP on annotated images at the model's own input size."""
    with tempfile.TemporaryDirectory() as folder:
        result = evaluate(
            EvaluateSettings(
                model=options.model, data=[options.annotations], device="cpu", precision=precision,
                output=Path(folder) / "run",
            )
        )  # fmt: skip
        assert result.coco.AP is not None
        return result.coco.AP


def rows_of(options: argparse.Namespace, model: Path) -> Iterator[dict[str, object]]:
    """Yield a row of the table for each precision and batch."""
    precisions: tuple[Precision, ...] = ("fp32",) if model.suffix == ".onnx" else ("fp32", "bf16")
    for precision, batch in itertools.product(precisions, options.batch):
        forward = forward_speed(options, model, precision, batch)
        pipeline = pipeline_speed(options, model, precision, batch)
        yield {
            "infer": f"{model.name}, {precision}, batch {batch}",
            "network alone, images/s": forward,
            "files to results, images/s": pipeline,
            "kept": pipeline / forward,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--annotations", help="annotations of pictures, to measure what the precision costs")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--exported", type=Path, nargs="*", default=[], help="exported files of the model")
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    options = parser.parse_args()
    torch.set_num_threads(2)

    name = read_model_info(options.model).spec.name
    info = next(info for info in list_models() if info.name == name)
    gmac = info.multiply_adds / 1e9 * (options.size / info.input_size) ** 2
    if options.yolo:
        speed = peer_speed(options)
        print(f"ultralytics yolov8n, its default: {speed:.1f} images/s, {speed * PEER_GMAC:.0f} GMAC/s", flush=True)
    for model in (options.model, *options.exported):
        default = pipeline_speed(options, model, "auto", "auto")
        print(f"{name}, {model.name}, our default: {default:.1f} images/s, {default * gmac:.0f} GMAC/s", flush=True)
    if options.annotations:
        print("AP:", {precision: round(ap(options, precision), 4) for precision in ("fp32", "bf16")}, flush=True)

    print(measure.table([row for model in (options.model, *options.exported) for row in rows_of(options, model)]))


if __name__ == "__main__":
    main()

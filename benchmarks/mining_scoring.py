"""CPU time per image of scoring alone, one thread: `python benchmarks/mining_scoring.py --baselines baselines.json`.

The file holds what other implementations took: `{"results": {name: {"median_cpu_s": seconds}}}`. Without it only the
times measured here are shown. No network is run and no file is read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ymir_tmi.mining.jensen_gap import Region, class_scores
from ymir_tmi.mining.scores.aldd import all_channels_score
from ymir_tmi.mining.scores.cald import Cald
from ymir_tmi.mining.scores.entropy import one_sided_entropy
from ymir_tmi.models.interface import Detections, HeadOutput
from ymir_tmi.pool.consumer import ImageResult

SIZE = (640, 640)
WHOLE = Region(0, 0, 640, 640)
PICTURE = (1280, 720)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=Path, help="JSON with the figures to compare with")
    path = parser.parse_args().baselines
    references = json.loads(path.read_text())["results"] if path else {}
    torch.set_num_threads(1)
    print(f"{'scoring of one image':38} {'here':>10} {'reference':>10} {'faster':>8}")
    for name, reference_name, run in cases():
        seconds = cpu_seconds(run)
        reference = references.get(reference_name, {}).get("median_cpu_s")
        compared = f"{1e3 * reference:8.3f} ms {reference / seconds:7.1f}x" if reference else f"{'-':>10} {'-':>8}"
        print(f"{name:38} {1e3 * seconds:8.3f} ms {compared}", flush=True)


def cases() -> list[tuple[str, str, Callable[[], object]]]:
    """Return (what, name of the figure to compare with, what to run)."""
    rng = np.random.default_rng(0)
    objectness = rng.random(25200, np.float32)
    dense, sparse = (anchor_maps(3, 3, *logits) for logits in ((-3, 1, 0), (-10, -6, 5)))
    dense80, sparse80 = (anchor_maps(3, 80, *logits) for logits in ((-3, 1, 0), (-10, -6, 10)))
    free80 = anchor_maps(1, 80, -10, -6, 10)
    head = HeadOutput(*(tuple(torch.randn(1, n, s, s) for s in (80, 40, 20)) for n in (80, 4, 1)))
    image = rng.integers(0, 256, (PICTURE[1], PICTURE[0], 3), np.uint8)
    cald, result = cald_result(rng)
    return [
        ("entropy, 25200 objectnesses", "entropy_25200_objectness", lambda: one_sided_entropy(objectness).sum()),
        ("aldd, 3 classes, dense", "aldd_yolov5_640_nc3", lambda: class_scores(dense, SIZE, WHOLE)),
        ("aldd, 3 classes, sparse", "aldd_yolov5_640_nc3", lambda: class_scores(sparse, SIZE, WHOLE)),
        ("aldd, 80 classes, dense", "aldd_yolov5_640_nc80", lambda: class_scores(dense80, SIZE, WHOLE)),
        ("aldd, 80 classes, sparse", "aldd_yolov5_640_nc80", lambda: class_scores(sparse80, SIZE, WHOLE)),
        ("aldd, 80 classes, one prior per cell", "", lambda: class_scores(free80, SIZE, WHOLE)),
        ("aldd, form mmdet, 80 classes", "aldd_mmdet_640_nc80", lambda: all_channels_score(head, SIZE)),
        ("cald, copies", "cald_augment_1280x720_20boxes", lambda: make_copies(cald, image, result)),
        ("cald, consistency", "cald_consistency_20boxes", lambda: cald.consume([result])),
        (
            "cald, both",
            "cald_total_1280x720_20boxes",
            lambda: (make_copies(cald, image, result), cald.consume([result])),
        ),
    ]


def anchor_maps(anchors: int, classes: int, low: float, high: float, peaks: int) -> list[Tensor]:
    """Return maps of strides 8, 16, 32: uniform logits of objectness and classes, and a few sure cells per level."""
    draw = torch.Generator().manual_seed(0)
    maps = []
    for side in (80, 40, 20):
        logits = torch.rand(anchors, classes + 1, side, side, generator=draw) * (high - low) + low
        for _ in range(peaks):
            anchor, c, y, x = (int(torch.randint(n, (1,), generator=draw)) for n in (anchors, classes, side, side))
            logits[anchor, [c, classes], y, x] = 2.0
        p = logits.sigmoid()
        maps.append(p[:, :classes] * p[:, classes:])
    return maps


def cald_result(rng: np.random.Generator) -> tuple[Cald, ImageResult]:
    """Return an algorithm and a picture with 20 detections, about 17 of which are found again in each copy."""
    cald = Cald([str(label) for label in range(80)], min_score=0.1, empty_first=False)
    corner = rng.uniform(0, 0.8, (20, 2)) * PICTURE
    found = detections(rng, np.concatenate([corner, corner + rng.uniform(30, 200, (20, 2))], axis=1))
    views = {}
    for view in cald.needs.views:
        kept = view.map_boxes(found.boxes, PICTURE)[rng.random(20) < 0.85]
        views[view.name] = detections(rng, kept + rng.normal(0, 4, kept.shape))
    return cald, ImageResult(0, "picture.jpg", PICTURE, None, 0, detections=found, views=views)


def detections(rng: np.random.Generator, boxes: np.ndarray) -> Detections:
    scores = rng.uniform(0.2, 1, (len(boxes), 80)).astype(np.float32)
    return Detections(boxes.astype(np.float32), scores.max(1), scores.argmax(1), scores)


def make_copies(cald: Cald, image: np.ndarray, result: ImageResult) -> None:
    assert result.detections is not None
    for view in cald.needs.views:
        view.apply(image, result.detections, result.seed)


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the median processor time of `run` over a second or two, the first run not counted."""
    run()
    times: list[float] = []
    started = time.process_time()
    while len(times) < 3 or (time.process_time() - started < 1.5 and len(times) < 200):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return statistics.median(times)


if __name__ == "__main__":
    main()

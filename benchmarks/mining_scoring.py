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
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.jensen_gap import Region, class_scores
from ymir_tmi.mining.pixels import top_two
from ymir_tmi.mining.scores.aldd import all_channels_score
from ymir_tmi.mining.scores.apis import Apis
from ymir_tmi.mining.scores.cald import Cald
from ymir_tmi.mining.scores.entropy import one_sided_entropy
from ymir_tmi.mining.scores.maskal import MaskAl
from ymir_tmi.mining.scores.ripu import Ripu
from ymir_tmi.mining.superpixels import SuperpixelSpec, superpixel_means
from ymir_tmi.models.interface import Detections, HeadOutput
from ymir_tmi.pool.consumer import ImageResult

SIZE = (640, 640)
WHOLE = Region(0, 0, 640, 640)
PICTURE = (1280, 720)
# A figure that the file has in parts.
PARTS = {
    "maskal_720x1280_20inst_10it": ["maskal_grouping_720x1280_20inst_10it", "maskal_uncertainty_720x1280_20inst_10it"]
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=Path, help="JSON with the figures to compare with")
    path = parser.parse_args().baselines
    references = json.loads(path.read_text())["results"] if path else {}
    torch.set_num_threads(1)
    print(f"{'scoring of one image':38} {'here':>10} {'reference':>10} {'faster':>8}")
    for name, reference_name, run in cases():
        seconds = cpu_seconds(run)
        reference = sum(
            references[part]["median_cpu_s"]
            for part in PARTS.get(reference_name, [reference_name])
            if part in references
        )
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
        *instance_cases(rng),
        *semantic_cases(),
    ]


def instance_cases(rng: np.random.Generator) -> list[tuple[str, str, Callable[[], object]]]:
    coefficients, prototypes = torch.randn(20, 32), torch.randn(32, 160, 160)
    corner = rng.uniform(0, 440, (20, 2))
    found = detections(rng, np.concatenate([corner, corner + rng.uniform(60, 200, (20, 2))], axis=1))
    frame = Frame(640, 640, 1.0, 1.0, 0, 0, 640, 640, 640, 640)
    apis = Apis([str(label) for label in range(80)], min_score=0.1, aggregate="mean")

    def score_masks() -> None:
        maps = torch.einsum("nk,khw->nhw", coefficients, prototypes).sigmoid()
        apis.consume([ImageResult(0, "picture.jpg", (640, 640), frame, 0, detections=found, mask_maps=maps)])

    maskal = MaskAl([str(label) for label in range(80)], min_score=0.1, passes=10, group_iou=0.5, worst=False)
    outlines = [pass_outlines(number) for number in range(10)]

    def observe() -> None:  # from polygons on, as the reference does it
        passes = [
            replace(boxes, masks=Masks.from_polygons([[polygon] for polygon in polygons], PICTURE))
            for boxes, polygons in outlines
        ]
        maskal.consume([ImageResult(0, "picture.jpg", PICTURE, None, 0, passes=passes)])

    return [
        ("apis, 20 objects, with masks", "apis_640_20inst", score_masks),
        ("maskal, 20 objects, 10 passes", "maskal_720x1280_20inst_10it", observe),
    ]


def pass_outlines(number: int) -> tuple[Detections, list[list[float]]]:
    """Return 20 detections of one pass and the polygons of their masks, which differ a little from pass to pass."""
    rng, noise = np.random.default_rng(1), np.random.default_rng(number + 2)
    centre, radius = rng.uniform(0.15, 0.85, (20, 1, 2)) * PICTURE, rng.uniform(40, 90, (20, 1, 1))
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    rim = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = centre + noise.normal(0, 2, (20, 1, 2)) + rim * radius * noise.uniform(0.95, 1.05, (20, 48, 1))
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
    return detections(noise, boxes), [polygon.ravel().tolist() for polygon in points]


def semantic_cases() -> list[tuple[str, str, Callable[[], object]]]:
    """Return cases of pixels with smooth probabilities of 19 classes, as from a network at an eighth of the size."""
    logits = 4 * torch.randn(1, 19, 128, 256, generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.interpolate(logits, (1024, 2048), mode="bilinear")[0]
    probabilities = logits.softmax(0)
    cells = np.arange(32 * 32, dtype=np.int32).reshape(32, 32)
    grid = cells.repeat(32, axis=0).repeat(64, axis=1)
    result = ImageResult(0, "picture.png", (2048, 1024), None, 0, probabilities=probabilities)
    ripu = {radius: Ripu(radius=radius, count=3) for radius in (1, 2)}
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    picture = imaging.resize(noise, 2048, 1024, "bicubic")

    def score_grid() -> None:
        top = top_two(probabilities)
        superpixel_means(grid, top.ratio, top.classes, 19)

    return [
        ("rsal, 1024 superpixels", "rsal_scoring_1024x2048_grid1024_balance", score_grid),
        *(
            (f"rsal, cut into {method}", f"rsal_superpixel_{method}_1024x2048_max1024", partial(cut, method, picture))
            for method in ("slico", "slic", "seeds")
        ),
        ("ripu, radius 1", "ripu_1024x2048_c19_r1", lambda: ripu[1].consume([result])),
        ("ripu, radius 2", "ripu_1024x2048_c19_r2", lambda: ripu[2].consume([result])),
    ]


def cut(method: imaging.SuperpixelMethod, picture: imaging.Image) -> None:
    SuperpixelSpec(method).cut(picture)


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

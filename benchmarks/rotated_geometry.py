"""Overlaps of 2000 x 2000 rotated boxes, and NMS of 5000: ours, torchvision's kernel, OpenCV and shapely.

    python benchmarks/rotated_geometry.py

Milliseconds with one and with two threads, the median of a few runs. Boxes lie scattered over a picture of 1024 x 1024
pixels with sides of 10 to 100, as objects do, or crowd around a hundred such objects, as a network finds them. Errors
are those beside shapely in float64: the largest one of an overlap, and how many boxes NMS keeps or drops differently.

* shapely: overlaps of the pairs that a tree of the boxes finds, which threads share; NMS goes through these pairs.
* OpenCV: overlaps pair by pair in a loop of Python, only ten of the boxes with all others, and the time of that scaled
  to all. Its NMS takes a box inside of another one for the same, however small it is.
* torchvision: it has no rotated NMS, so NMS goes through all overlaps of its kernel. Releases without it are left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import measure
import numpy as np
import numpy.typing as npt
import shapely
import torch
from torch import Tensor

from ymir_tmi.geometry.nms import rotated_nms
from ymir_tmi.geometry.rotated import corners, pairwise_rotated_iou

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SIDE = 1024
OBJECTS = 100
OPENCV_ROWS = 10
NMS_IOU = 0.1
SECONDS = 2.0
THREADS = (1, 2)


def scattered(count: int, rng: np.random.Generator) -> Tensor:
    """Return (count, 5) boxes anywhere."""
    centres, sides = rng.uniform(0, SIDE, (count, 2)), rng.uniform(10, 100, (count, 2))
    boxes = np.column_stack([centres, sides, rng.uniform(-math.pi / 2, math.pi / 2, count)])
    return torch.from_numpy(boxes).float()


def crowded(count: int, rng: np.random.Generator) -> Tensor:
    """Return (count, 5) boxes that are each much like one of a few objects."""
    boxes = scattered(OBJECTS, rng).numpy()[rng.integers(0, OBJECTS, count)]
    boxes[:, :2] += rng.normal(0, 0.1, (count, 2)) * boxes[:, 2:4]
    boxes[:, 2:4] *= rng.uniform(0.8, 1.25, (count, 2))
    boxes[:, 4] += rng.normal(0, 0.1, count)
    return torch.from_numpy(boxes)


def shapely_iou(first: Tensor, second: Tensor) -> Array:
    one, other = polygons(first), polygons(second)
    row, column = shapely.STRtree(other).query(one, predicate="intersects")
    overlaps = np.zeros((len(first), len(second)))
    overlaps[row, column] = polygon_overlaps(one[row], other[column])
    return overlaps


def shapely_nms(boxes: Tensor, scores: Tensor) -> list[int]:
    order = scores.argsort(descending=True)
    ranked = polygons(boxes[order])
    better, worse = shapely.STRtree(ranked).query(ranked, predicate="intersects")
    once = better < worse
    better, worse = better[once], worse[once]
    overlap = polygon_overlaps(ranked[better], ranked[worse]) > NMS_IOU
    return order[greedy(len(boxes), better[overlap], worse[overlap])].tolist()


def polygons(boxes: Tensor) -> npt.NDArray[np.object_]:
    return shapely.polygons(corners(boxes.double()).numpy())


def polygon_overlaps(one: npt.NDArray[np.object_], other: npt.NDArray[np.object_]) -> Array:
    """Return the overlap of each pair, computed by as many threads as PyTorch has."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        shared = pool.map(
            lambda *pair: shapely.area(shapely.intersection(*pair)),
            np.array_split(one, threads),
            np.array_split(other, threads),
        )
        area = np.concatenate(list(shared))
    return area / (shapely.area(one) + shapely.area(other) - area)


def greedy(count: int, better: Rows, worse: Rows) -> list[int]:
    """Return which of `count` boxes, best first, are left when each drops those it is paired with.

    `better` is ascending.
    """
    starts = np.searchsorted(better, np.arange(count + 1))
    dropped = np.zeros(count, bool)
    kept = []
    for row in range(count):
        if not dropped[row]:
            kept.append(row)
            dropped[worse[starts[row] : starts[row + 1]]] = True
    return kept


def torchvision_iou(first: Tensor, second: Tensor) -> Array:
    return torch.ops.torchvision.box_iou_rotated(in_degrees(first, -1), in_degrees(second, -1)).numpy()


def torchvision_nms(boxes: Tensor, scores: Tensor) -> list[int]:
    order = scores.argsort(descending=True)
    overlap = torchvision_iou(boxes[order], boxes[order]) > NMS_IOU
    return order[greedy(len(boxes), *np.nonzero(np.triu(overlap, 1)))].tolist()


def in_degrees(boxes: Tensor, direction: int) -> Tensor:
    """Return boxes with angles in degrees, clockwise on the screen (1) or counter-clockwise (-1)."""
    return torch.cat([boxes[:, :4], direction * torch.rad2deg(boxes[:, 4:])], dim=1)


def opencv_iou(first: Tensor, second: Tensor) -> Array:
    others = opencv_boxes(second)
    return np.array([[opencv_overlap(one, other) for other in others] for one in opencv_boxes(first)])


def opencv_boxes(boxes: Tensor) -> list[tuple[tuple[float, float], tuple[float, float], float]]:
    return [((cx, cy), (w, h), angle) for cx, cy, w, h, angle in in_degrees(boxes, 1).tolist()]


def opencv_overlap(one: tuple, other: tuple) -> float:
    _, shared = cv2.rotatedRectangleIntersection(one, other)
    if shared is None:
        return 0.0
    area = cv2.contourArea(cv2.convexHull(shared))
    return area / (one[1][0] * one[1][1] + other[1][0] * other[1][1] - area)


def opencv_nms(boxes: Tensor, scores: Tensor) -> list[int]:
    return cv2.dnn.NMSBoxesRotated(opencv_boxes(boxes), scores.tolist(), 0.0, NMS_IOU).ravel().tolist()


def our_iou(first: Tensor, second: Tensor) -> Array:
    return pairwise_rotated_iou(first, second).numpy()


def our_nms(boxes: Tensor, scores: Tensor) -> list[int]:
    return rotated_nms(boxes, scores, None, NMS_IOU).tolist()


def milliseconds(run: Callable[[], object]) -> dict[str, object]:
    """Return the median time by the number of threads, the first run not counted."""
    found: dict[str, object] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        run()
        times: list[float] = []
        while len(times) < 3 or sum(times) < SECONDS:
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        found[f"ms, threads: {threads}"] = 1e3 * statistics.median(times)
    return found


def measure_iou(kind: str, first: Tensor, second: Tensor, methods: dict[str, Callable]) -> list[dict[str, object]]:
    """Return a row of the table for each method."""
    exact = shapely_iou(first, second)
    rows = []
    for name, method in methods.items():
        count = OPENCV_ROWS if method is opencv_iou else len(first)
        times = milliseconds(lambda: method(first[:count], second))  # noqa: B023
        scaled = {column: value * len(first) / count for column, value in times.items()}
        error = np.abs(method(first[:count], second) - exact[:count]).max()
        rows.append({"overlaps": name, "boxes": kind, **scaled, "largest error": f"{error:.0e}"})
    return rows


def measure_nms(kind: str, boxes: Tensor, scores: Tensor, methods: dict[str, Callable]) -> list[dict[str, object]]:
    """Return a row of the table for each method."""
    exact = set(shapely_nms(boxes, scores))
    rows = []
    for name, method in methods.items():
        times = milliseconds(lambda: method(boxes, scores))  # noqa: B023
        kept = set(method(boxes, scores))
        rows.append({"NMS": name, "boxes": kind, **times, "kept": len(kept), "otherwise": len(kept ^ exact)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlaps", type=int, default=2000, help="boxes whose overlaps with as many are computed")
    parser.add_argument("--nms", type=int, default=5000, help="boxes of NMS")
    options = parser.parse_args()
    overlaps = {"ymir-tmi": our_iou, "OpenCV": opencv_iou, "shapely": shapely_iou}
    nms = {"ymir-tmi": our_nms, "OpenCV": opencv_nms, "shapely": shapely_nms}
    if hasattr(torch.ops.torchvision, "box_iou_rotated"):
        overlaps["torchvision"], nms["torchvision"] = torchvision_iou, torchvision_nms

    rng = np.random.default_rng(0)
    kinds = {"scattered": scattered, "crowded": crowded}
    iou_rows: list[dict[str, object]] = []
    nms_rows: list[dict[str, object]] = []
    for kind, draw in kinds.items():
        # Both halves of the crowd are of the same objects.
        first, second = draw(2 * options.overlaps, rng).chunk(2)
        iou_rows += measure_iou(kind, first, second, overlaps)
        scores = torch.from_numpy(rng.permutation(options.nms) + 1.0).float() / options.nms
        nms_rows += measure_nms(kind, draw(options.nms, rng), scores, nms)
    print(measure.table(iou_rows), measure.table(nms_rows), sep="\n\n")


if __name__ == "__main__":
    main()

"""Mining with rotated boxes: copies against drawn pictures, CALD against a slow version, and against upright boxes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from mining_data import make_detections, make_result
from scipy.spatial.distance import jensenshannon
from shapely import Polygon
from shapely.affinity import affine_transform, rotate, translate
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ConfigError
from ymir_tmi.imaging import Image
from ymir_tmi.mining import run
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.mining.views import Boxes, Cutout, Flip, Rotate, Shrink, choose_holes
from ymir_tmi.models.interface import DenseDetections, Detections, HeadOutput, ModelSpec, PostprocessSpec, Task
from ymir_tmi.pool.consumer import Row, View
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows

SIZES = [(200, 120), (120, 200), (160, 160), (201, 77)]
ANGLES = [-1.5, -0.8, -0.2, 0.0, 0.3, math.pi / 4, 1.2]
COPIES = ("flip", "cutout", "rotate", "resize")
NOTHING = Detections.empty(1, box_length=5)


def polygon(box: npt.NDArray[Any]) -> Polygon:
    """The rectangle, by shapely's own turn; its y points down here, so that a positive angle is clockwise."""
    cx, cy, w, h, angle = (float(value) for value in box)
    upright = Polygon([(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)])
    return translate(rotate(upright, angle, origin=(0, 0), use_radians=True), cx, cy)


def overlap(first: Polygon, second: Polygon) -> float:
    shared = first.intersection(second).area
    return float(shared / (first.area + second.area - shared))


def draw(box: npt.NDArray[Any], size: tuple[int, int]) -> Image:
    """Draw a filled rectangle, white on black; a pixel is as bright as it is covered, by 8 x 8 points in it."""
    width, height = size
    y, x = (np.mgrid[: height * 8, : width * 8] + 0.5) / 8
    cx, cy, w, h, angle = (float(value) for value in box)
    along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
    inside = (abs(along) <= w / 2) & (abs(across) <= h / 2)
    covered = inside.reshape(height, 8, width, 8).mean((1, 3))
    return np.repeat((covered * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def find(image: Image) -> Polygon:
    """Return the smallest rectangle around what is brighter than half, to an eighth of a pixel."""
    fine = imaging.resize(image, image.shape[1] * 8, image.shape[0] * 8, "bilinear")
    y, x = np.nonzero(fine[..., 0] > 127)
    (cx, cy), (w, h), degrees = cv2.minAreaRect(np.stack([x, y], axis=1).astype(np.float32) + 0.5)
    return polygon(np.array([cx / 8, cy / 8, w / 8, h / 8, math.radians(degrees)]))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", [Flip(), Rotate(), Shrink()], ids=lambda view: view.name)
def test_rotated_boxes_follow_the_picture(view: View, size: tuple[int, int], angle: float) -> None:
    box = np.array([size[0] * 0.45, size[1] * 0.55, 48, 19, angle], np.float32)
    [mapped] = view.map_boxes(box[None], size)
    seen = find(view.apply(draw(box, size), NOTHING, 0))
    assert mapped.dtype == np.float32
    assert polygon(mapped).hausdorff_distance(seen) < 0.6
    assert mapped[2] >= mapped[3] and -math.pi / 2 <= mapped[4] < math.pi / 2


@pytest.mark.parametrize("view", [Flip(), Rotate(), Shrink()], ids=lambda view: view.name)
def test_turned_square_is_the_same_box_however_it_is_written(view: View) -> None:
    box = np.array([[60, 50, 30, 20, 0.4], [60, 50, 20, 30, 0.4 + math.pi / 2], [60, 50, 30, 20, 0.4 - math.pi]])
    first, *others = (polygon(mapped) for mapped in view.map_boxes(box.astype(np.float32), (130, 90)))
    assert all(first.equals_exact(other, 1e-3) or overlap(first, other) > 0.9999 for other in others)


@pytest.mark.parametrize("seed", range(4))
def test_holes_partly_cover_the_upright_box_around(seed: int) -> None:
    boxes = np.array([[60, 50, 50, 18, 0.7], [120, 70, 44, 30, -0.4]], np.float32)
    hulls = np.array([polygon(box).bounds for box in boxes])
    image = np.full((120, 200, 3), 200, np.uint8)
    covered = Cutout(lambda plain: plain.boxes).apply(image, make_detections(boxes, [0.9, 0.8]), seed)
    expected = image.copy()
    holes = choose_holes(hulls, (200, 120), seed)
    assert len(holes) == 2
    for x1, y1, x2, y2 in holes:
        expected[y1:y2, x1:x2] = 0
    np.testing.assert_array_equal(covered, expected)
    np.testing.assert_array_equal(Cutout(lambda plain: plain.boxes).map_boxes(boxes, (200, 120)), boxes)


def test_views_of_nothing() -> None:
    for view in (Flip(), Rotate(), Shrink(), Cutout(lambda plain: plain.boxes)):
        assert view.map_boxes(NOTHING.boxes, (64, 48)).shape == (0, 5)
    image = np.full((48, 64, 3), 9, np.uint8)
    np.testing.assert_array_equal(Cutout(lambda plain: plain.boxes).apply(image, NOTHING, 0), image)


def random_rotated(rng: np.random.Generator, count: int) -> Boxes:
    sides = rng.uniform(40, 300, (count, 2))
    numbers = [rng.uniform(200, 800, (count, 2)), sides, rng.uniform(-math.pi / 2, math.pi / 2, (count, 1))]
    return np.hstack(numbers).astype(np.float32)


def detections(boxes: npt.NDArray[Any], rng: np.random.Generator) -> Detections:
    class_scores = rng.uniform(0.01, 0.9, (len(boxes), 3))
    class_scores = class_scores[np.argsort(-class_scores.max(1))]
    return make_detections(boxes, class_scores.max(1), class_scores.argmax(1), class_scores)


def moved(shape: Polygon, copy: str, size: tuple[int, int]) -> Polygon:
    """Where a rectangle lies in a copy, by what docs/mining.md says of the copies."""
    width, height = size
    if copy == "flip":
        return affine_transform(shape, [-1, 0, 0, 1, width, 0])
    if copy == "resize":
        return affine_transform(shape, [0.8, 0, 0, 0.8, 0, 0]).minimum_rotated_rectangle  # 0.8 of the size is whole
    if copy == "rotate":
        canvas = rotate(Polygon([(0, 0), (width, 0), (width, height), (0, height)]), -5, origin="center")
        left, top, right, bottom = canvas.bounds
        turned = rotate(shape, -5, origin=(width / 2, height / 2))
        across, down = width / (right - left), height / (bottom - top)
        return affine_transform(turned, [across, 0, 0, down, -left * across, -top * down]).minimum_rotated_rectangle
    return shape


def slow_distance(originals: Detections, found: Detections, copy: str, size: tuple[int, int]) -> float:
    """The smallest |M - 1.3| of the originals with their counterparts, one at a time."""
    distances = []
    for row in range(len(originals)):
        here = moved(polygon(originals.boxes[row]), copy, size)
        overlaps = [overlap(here, polygon(box)) for box in found.boxes]
        best = int(np.argmax(overlaps))
        divergence = jensenshannon(originals.class_scores[row], found.class_scores[best]) ** 2
        confidence = (float(originals.scores[row]) + float(found.scores[best])) / 2
        distances.append(abs(overlaps[best] + confidence * (1 - divergence) - 1.3))
    return min(1.0, min(distances))


@pytest.mark.parametrize("seed", range(6))
def test_cald_equals_the_slow_version(seed: int) -> None:
    rng, size = np.random.default_rng(seed), (1000, 700)
    originals = detections(random_rotated(rng, 8), rng)
    views = {}
    for copy, view in zip(COPIES, (Flip(), Cutout(lambda _: originals.boxes), Rotate(), Shrink()), strict=True):
        near = view.map_boxes(originals.boxes, size) + rng.normal(0, [15, 15, 10, 10, 0.2], (8, 5)).astype(np.float32)
        views[copy] = detections(np.vstack([near, random_rotated(rng, 3)]), rng)
    settings = MineSettings.model_validate({"data": [], "algorithm": "cald", "conf": 0})
    algorithm = create_algorithm(settings, ["a", "b", "c"], task="rotated")
    [row] = algorithm.consume([make_result(size=size, detections=originals, views=views)])
    expected = [slow_distance(originals, views[copy], copy, size) for copy in COPIES]
    assert [row["components"][copy] for copy in COPIES] == pytest.approx(expected, abs=1e-6)
    assert row["score"] == pytest.approx(-np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_angle_zero_scores_as_upright_boxes_do(seed: int) -> None:
    """In all copies but the turned one, where an upright box can only be put around the turned one."""
    rng, size = np.random.default_rng(seed), (1003, 701)
    corners = rng.uniform(100, 500, (8, 2))
    boxes = np.hstack([corners, corners + rng.uniform(30, 180, (8, 2))])
    originals = detections(boxes, rng)
    views = {
        copy: detections(view.map_boxes(originals.boxes, size) + rng.normal(0, 8, (8, 4)).astype(np.float32), rng)
        for copy, view in zip(COPIES, (Flip(), Cutout(lambda _: boxes), Rotate(), Shrink()), strict=True)
    }
    settings = MineSettings.model_validate({"data": [], "algorithm": "cald", "conf": 0})
    rows = []
    for change, task in ((lambda found: found, "detection"), (as_rotated, "rotated")):
        seen = {copy: change(found) for copy, found in views.items()}
        result = make_result(size=size, detections=change(originals), views=seen)
        rows += create_algorithm(settings, ["a", "b", "c"], task=task).consume([result])
    for copy in ("flip", "cutout", "resize"):
        assert rows[0]["components"][copy] == pytest.approx(rows[1]["components"][copy], abs=1e-5)
    image = np.full((701, 1003, 3), 90, np.uint8)
    cutout = Cutout(lambda plain: plain.boxes)
    np.testing.assert_array_equal(
        cutout.apply(image, originals, seed), cutout.apply(image, as_rotated(originals), seed)
    )


def as_rotated(found: Detections) -> Detections:
    """The same rectangles as (centre, sides, 0)."""
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    boxes = np.hstack([(low + high) / 2, high - low, np.zeros((len(found), 1))]).astype(np.float32)
    return Detections(boxes, found.scores, found.labels, found.class_scores)


class Cells:
    """Finds in every cell of 16 pixels a box with the sides of the cell; its scores are the parts of the colours."""

    def __init__(self, task: Task) -> None:
        self.spec = ModelSpec(
            name="cells",
            family="cells",
            task=task,
            class_names=("red", "green", "blue"),
            input=InputSpec(size=64, stride=16, fill=0),
            postprocess=PostprocessSpec(clip="never"),
        )
        self.device = torch.device("cpu")
        self.class_groups = None

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        colours = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), 16) / 255
        blank = torch.zeros(len(images), 4, *colours.shape[2:])
        return HeadOutput((colours,), (blank,), angle=(blank[:, :1],) if self.spec.task == "rotated" else ())

    def decode(self, raw: HeadOutput) -> DenseDetections:
        scores = raw.cls[0].permute(0, 2, 3, 1).flatten(1, 2)
        height, width = raw.cls[0].shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        corners = torch.stack([x, y], dim=-1).flatten(0, 1).float() * 16
        boxes = torch.cat([corners, corners + 16], dim=1)
        if self.spec.task == "rotated":
            boxes = torch.cat([corners + 8, torch.full_like(corners, 16), torch.zeros(len(corners), 1)], dim=1)
        return DenseDetections(boxes.expand(len(scores), -1, -1), scores, (height * width,))

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        return (raw.cls[0].unsqueeze(1),)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate([(64, 48), (48, 64), (64, 64), (100, 40), (90, 70)]):
        blocks = rng.integers(0, 256, (3, 4, 3), np.uint8)
        imaging.write_image(folder / f"{number}.png", imaging.resize(blocks, width, height, "nearest"))
    return read_dataset([str(folder)], format="images")


def scored(pool: DatasetIndex, algorithm: str, task: Task) -> list[Row]:
    settings = MineSettings.model_validate({"data": [], "algorithm": algorithm})
    consumer, store = create_algorithm(settings, ["red", "green", "blue"], task=task), MemoryRows()
    run_pool(pool, [consumer], store, runtime=Cells(task), batch=2)
    return list(store.rows(consumer.name))


@pytest.mark.parametrize("algorithm", ["random", "entropy", "aldd", "cald"])
def test_a_pass_with_a_model_of_rotated_boxes(algorithm: str, pool: DatasetIndex) -> None:
    rows = scored(pool, algorithm, "rotated")
    assert len(rows) == 5 and all(row.keys() == {"score", "components", "reason"} for row in rows)
    upright = scored(pool, algorithm, "detection")
    if algorithm == "cald":
        for row, other in zip(rows, upright, strict=True):
            for copy in ("flip", "cutout", "resize"):
                assert row["components"][copy] == pytest.approx(other["components"][copy], abs=1e-5)
    else:  # what these look at are scores, and the classes' maps
        assert rows == upright


def test_earlier_forms_are_refused_before_a_folder_is_made(
    pool: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "open_model", lambda *_: (Cells("rotated"), ("red", "green", "blue")))
    data = {"data": [str(Path(pool.paths[0]).parent)], "model": "model.safetensors", "output": tmp_path / "run"}
    with pytest.raises(ConfigError, match="upright boxes only"):
        run.mine(MineSettings.model_validate({**data, "algorithm": "cald", "compat": "mmdet"}))
    assert not (tmp_path / "run").exists()

"""The pages of runs with rotated boxes draw them turned."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pytest
import shapely
from fake_runs import Pool

from ymir_tmi.evaluation.matching import Found, Matches
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.report import examples
from ymir_tmi.report.predictions import read_predictions
from ymir_tmi.report.run import report

POLYGON = re.compile(r'<polygon class="edge" points="([^"]*)"')


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return fake_runs.turn(fake_runs.draw_pool(tmp_path_factory.mktemp("pool")))


def shown(page: Path) -> list[shapely.Polygon]:
    """Return every box of a page, in pixels of the thumbnails, which are the pictures' own here."""
    texts = POLYGON.findall(page.read_text(encoding="utf-8"))
    return [shapely.Polygon([tuple(map(float, point.split(","))) for point in text.split()]) for text in texts]


@pytest.mark.parametrize("write", [fake_runs.write_infer_run, fake_runs.write_mine_run], ids=["infer", "mine"])
def test_detections_are_drawn_by_their_corners(write: Callable[[Path, Pool], Any], pool: Pool, tmp_path: Path) -> None:
    write(tmp_path / "run", pool)
    boxes = shown(report(tmp_path / "run"))
    expected = {tuple(corners.round(1).flatten()) for found in pool.found for corners in outlines(found.boxes)}
    assert len(boxes) > 30
    for box in boxes:
        points = np.array(box.exterior.coords)[:4].flatten()
        assert min(np.abs(points - np.array(other)).max() for other in expected) < 0.15
    angles = [abs(math.remainder(math.atan2(y, x), math.pi / 2)) for box in boxes for x, y in [_side(box)]]
    assert max(angles) > 0.6, "some stand at an angle"


def _side(box: shapely.Polygon) -> tuple[float, float]:
    (x1, y1), (x2, y2), *_ = box.exterior.coords
    return x2 - x1, y2 - y1


def test_predictions_are_read_with_their_angles(pool: Pool, tmp_path: Path) -> None:
    fake_runs.write_infer_run(tmp_path, pool)
    predictions = read_predictions(tmp_path / "predictions.json")
    for row, found in enumerate(pool.found):
        np.testing.assert_array_equal(predictions.of(row).boxes, found.boxes)
    assert predictions.of(-1).boxes.shape == (0, 5)


def test_every_outcome_is_drawn_turned(pool: Pool) -> None:
    """One object is found, the others are missed, and a detection is false."""
    objects = fake_runs.index_of(pool).take([3])
    assert objects.rotated is not None and len(objects.rotated) > 2
    near = objects.rotated[:1] + np.array([1, 1, 0, 0, 0.05])
    boxes = np.vstack([near, [[50, 150, 30, 10, 1.0]]])
    found = Found(np.zeros(2, np.int64), boxes, np.array([0.9, 0.8]), np.zeros(2, np.int64))
    matches = Matches(np.array([0, -1]), np.array([0.9, 0]), np.array([True, False]), np.array([False, False]))
    [marks] = examples._outcome_marks(objects, found, matches)
    drawn = {style: [mark.box for mark in marks if mark.style == style] for style in ("false", "missed", "found")}
    np.testing.assert_allclose(drawn["false"], found.boxes[1:])
    np.testing.assert_allclose(drawn["missed"], objects.rotated[1:])
    np.testing.assert_allclose(drawn["found"], found.boxes[:1])
    [alone] = examples._object_marks(objects)
    np.testing.assert_allclose([mark.box for mark in alone], objects.rotated)

"""Rotated boxes against reference numbers, against shapely, and by what must hold for any box."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ymir_tmi.geometry.nms import rotated_nms
from ymir_tmi.geometry.rotated import (
    aligned_rotated_iou,
    corners,
    from_corners,
    from_upright,
    hulls,
    neighbours,
    pairwise_rotated_iou,
    regularize,
)

with np.load(Path(__file__).parents[1] / "goldens" / "mmrotate" / "geometry.npz") as _file:
    GOLDEN = {name: torch.from_numpy(_file[name]) for name in _file.files if _file[name].dtype.kind != "U"}
    KINDS = _file["iou/kind"]

sides = st.floats(1e-3, 1e3)
places = st.floats(-1e4, 1e4)
angles = st.floats(-10, 10)
boxes = st.tuples(places, places, sides, sides, angles)


def double(name: str) -> Tensor:
    return GOLDEN[name].double()


def polygon(box: Any) -> shapely.Polygon:
    """Return the rectangle by its definition: the side w is turned from x towards y."""
    cx, cy, w, h, angle = (float(value) for value in box)
    cos, sin = math.cos(angle), math.sin(angle)
    signs = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
    return shapely.Polygon(
        [
            (cx + i * w / 2 * cos - j * h / 2 * sin, cy + i * w / 2 * sin + j * h / 2 * cos)
            for i, j in signs
        ]
    )  # fmt: skip


def exact_iou(first: Any, second: Any) -> float:
    a, b = polygon(first), polygon(second)
    shared = a.intersection(b).area
    return float(shared / (a.area + b.area - shared))


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_overlap_is_exact_for_every_kind_of_pair(kind: str) -> None:
    rows = torch.from_numpy(kind == KINDS)
    ours = aligned_rotated_iou(double("iou/boxes1")[rows], double("iou/boxes2")[rows])
    torch.testing.assert_close(ours, GOLDEN["iou/exact"][rows], rtol=0, atol=1e-9)


def test_gradient_of_the_overlap() -> None:
    pred = double("iou_grad/pred").requires_grad_()
    aligned_rotated_iou(pred, double("iou_grad/target")).sum().backward()
    torch.testing.assert_close(pred.grad, double("iou_grad/d_pred"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_gradient_is_finite_for_every_kind_of_pair(kind: str) -> None:
    rows = torch.from_numpy(kind == KINDS)
    pred = GOLDEN["iou/boxes1"][rows].requires_grad_()
    aligned_rotated_iou(pred, GOLDEN["iou/boxes2"][rows]).sum().backward()
    assert pred.grad is not None and pred.grad.isfinite().all()


@settings(max_examples=300, deadline=None)
@given(boxes, st.tuples(st.floats(-1, 1), st.floats(-1, 1), sides, sides, angles))
def test_overlap_equals_that_of_polygons(first: Any, offset: Any) -> None:
    reach = max(first[2], first[3])
    second = (first[0] + offset[0] * reach, first[1] + offset[1] * reach, *offset[2:])
    ours = aligned_rotated_iou(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64))
    # Both subtract places up to 1e4 pixels from the origin, of boxes down to a thousandth of a pixel.
    assert float(ours) == pytest.approx(exact_iou(first, second), abs=1e-6)


@given(boxes, st.integers(-3, 3), st.booleans())
def test_a_rectangle_in_other_numbers_is_the_same(box: Any, turns: int, swap: bool) -> None:
    cx, cy, w, h, angle = box
    other = (cx, cy, h, w, angle + math.pi / 2) if swap else box
    pair = torch.tensor([box, (*other[:4], other[4] + turns * math.pi)], dtype=torch.float64)
    assert float(aligned_rotated_iou(pair[0], pair[1])) == pytest.approx(1, abs=1e-6)


@given(st.tuples(places, places, st.floats(1, 1e3), st.floats(1, 1e3), angles), st.floats(0.01, 1), st.floats(0.01, 1))
def test_nested_boxes_overlap_by_their_areas(box: Any, narrower: float, lower: float) -> None:
    cx, cy, w, h, angle = box
    pair = torch.tensor([box, (cx, cy, w * narrower, h * lower, angle)], dtype=torch.float64)
    assert float(aligned_rotated_iou(pair[0], pair[1])) == pytest.approx(narrower * lower, abs=1e-6)


@given(st.tuples(places, places, st.floats(1, 1e3), st.floats(1, 1e3), angles), st.integers(0, 3), st.floats(0, 1))
def test_boxes_that_only_touch_do_not_overlap(box: Any, side: int, along: float) -> None:
    cx, cy, w, h, angle = box
    right, down = [(w, along * h), (-w, along * h), (along * w, h), (along * w, -h)][side]
    moved_x = cx + right * math.cos(angle) - down * math.sin(angle)
    moved_y = cy + right * math.sin(angle) + down * math.cos(angle)
    pair = torch.tensor([box, (moved_x, moved_y, w, h, angle)], dtype=torch.float64)
    assert float(aligned_rotated_iou(pair[0], pair[1])) == pytest.approx(0, abs=1e-6)


def test_boxes_without_area_overlap_nothing() -> None:
    point, line, square = torch.tensor([[5.0, 5, 0, 0, 0], [5, 5, 4, 0, 1], [5, 5, 10, 10, 0.3]])
    for first, second in ((point, point), (line, line), (point, square), (line, square)):
        assert float(aligned_rotated_iou(first, second)) == 0


def test_pairs_are_compared_as_they_are_one_by_one() -> None:
    first, second = GOLDEN["nms/boxes"][:80], GOLDEN["nms/boxes"][80:200]
    table = pairwise_rotated_iou(first, second)
    torch.testing.assert_close(table, aligned_rotated_iou(first[:, None], second), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        pairwise_rotated_iou(GOLDEN["nms/boxes"], GOLDEN["nms/boxes"]), GOLDEN["nms/iou_exact"], rtol=0, atol=1e-6
    )


def test_neighbours_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = GOLDEN["nms/boxes"]
    whole = neighbours(found, found)
    monkeypatch.setattr("ymir_tmi.geometry.rotated._MAX_PAIRS", 700)
    for once, blocks in zip(whole, neighbours(found, found), strict=True):
        assert torch.equal(once, blocks)
    assert [len(rows) for rows in neighbours(found[:0], found)] == [0, 0]
    assert [len(rows) for rows in neighbours(found, found[:0])] == [0, 0]


@pytest.mark.parametrize(("form", "golden"), [("le90", "le90"), ("le135", "le135"), ("opencv", "oc")])
def test_forms(form: Any, golden: str) -> None:
    ours, theirs = regularize(double("convert/rbox"), form), double(f"convert/rbox_{golden}")
    low = {"le90": -math.pi / 2, "le135": -math.pi / 4, "opencv": -math.pi / 2}[form]
    high = low + (math.pi / 2 if form == "opencv" else math.pi)
    assert ((ours[:, 4] >= low) & (ours[:, 4] < high)).all()
    # Where an angle is a border of its range, rounding decides on which one it ends.
    torch.testing.assert_close(aligned_rotated_iou(ours, theirs), torch.ones(len(ours)).double(), rtol=0, atol=1e-5)
    inside = ((theirs[:, 4] - low).abs() > 1e-5) & ((theirs[:, 4] - high).abs() > 1e-5)
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=0, atol=1e-5)
    assert inside.sum() > 300


def test_corners_and_hulls() -> None:
    rectangles = double("convert/rbox")
    torch.testing.assert_close(corners(rectangles).flatten(1), double("convert/rbox_to_qbox"), rtol=0, atol=1e-4)
    torch.testing.assert_close(hulls(rectangles), double("convert/rbox_to_hbox"), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        from_upright(double("convert/hbox")), regularize(double("convert/hbox_to_rbox")), rtol=0, atol=1e-4
    )


def test_corners_come_back_in_any_order() -> None:
    rectangles = double("convert/rbox")
    order = torch.tensor([2, 0, 3, 1])
    back = from_corners(corners(rectangles)[:, order])
    torch.testing.assert_close(aligned_rotated_iou(back, rectangles), torch.ones(len(back)).double(), rtol=0, atol=1e-7)


def test_smallest_rectangle_around_four_corners() -> None:
    corners_given = double("convert/quad").view(-1, 4, 2)
    ours = from_corners(corners_given)
    for box, points in zip(ours, corners_given, strict=True):
        best = shapely.MultiPoint(points.numpy()).minimum_rotated_rectangle
        assert float(box[2] * box[3]) == pytest.approx(best.area, rel=1e-6)
        assert polygon(box).buffer(1e-6).covers(shapely.MultiPoint(points.numpy()))


def test_corners_of_one_point_or_line() -> None:
    flat = torch.tensor([[[1.0, 2], [1, 2], [1, 2], [1, 2]], [[0, 0], [3, 4], [3, 4], [0, 0]]])
    point, line = from_corners(flat)
    assert point[:4].tolist() == [1, 2, 0, 0]
    torch.testing.assert_close(line, torch.tensor([1.5, 2, 5, 0, math.atan2(4, 3)]))


@pytest.mark.parametrize("threshold", [0.1, 0.65])
@pytest.mark.parametrize("per_class", [False, True])
def test_suppression(threshold: float, per_class: bool) -> None:
    labels = GOLDEN["nms/labels"] if per_class else None
    kept = rotated_nms(GOLDEN["nms/boxes"], GOLDEN["nms/scores"], labels, threshold)
    golden = GOLDEN[f"nms/keep_{threshold}{'_per_class' if per_class else ''}"]
    assert torch.equal(kept, golden)
    some = rotated_nms(GOLDEN["nms/boxes"], GOLDEN["nms/scores"], labels, threshold, limit=20)
    assert torch.equal(some, golden[:20])


def test_suppression_of_nested_and_of_no_boxes() -> None:
    nested = torch.tensor([[50.0, 50, 100, 100, 0.2], [50, 50, 10, 10, 0.2]])
    assert rotated_nms(nested, torch.tensor([0.9, 0.8]), None, 0.3).tolist() == [0, 1]
    assert rotated_nms(nested[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.3).tolist() == []

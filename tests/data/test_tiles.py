"""Windows cover a picture, and their objects are those that lie in them for the most part."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from ymir_tmi.config.schema import InferSettings
from ymir_tmi.data.index import DIFFICULT, DatasetIndex, Strings
from ymir_tmi.data.tiles import Tiling, Window, objects_in
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.geometry.masks import Masks


def index_with(boxes: list[list[float]], *, rotated: list[list[float]] | None = None) -> DatasetIndex:
    """One picture of 200 x 100 pixels."""
    upright = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(upright)
    return DatasetIndex(
        class_names=("a", "b"),
        paths=Strings.pack(["picture.png"]),
        sizes=np.array([[200, 100]], np.int32),
        image_ids=np.array([7]),
        starts=np.array([0, count]),
        boxes=upright,
        labels=np.arange(count, dtype=np.int32) % 2,
        areas=(upright[:, 2:] - upright[:, :2]).prod(1),
        flags=np.zeros(count, np.uint8),
        rotated=None if rotated is None else np.array(rotated, np.float32).reshape(-1, 5),
    )


def rotated_index(boxes: list[list[float]]) -> DatasetIndex:
    hulls = [list(polygon_of(one).bounds) for one in boxes]
    return index_with(hulls, rotated=boxes)


def polygon_of(rotated: list[float]) -> Polygon:
    cx, cy, w, h, angle = rotated
    u = np.array([math.cos(angle), math.sin(angle)]) * w / 2
    v = np.array([-math.sin(angle), math.cos(angle)]) * h / 2
    return Polygon([(cx, cy) + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])


@pytest.mark.parametrize(
    ("side", "starts"),
    [
        pytest.param(700, [0], id="smaller than a window"),
        pytest.param(1024, [0], id="as large as a window"),
        pytest.param(1025, [0, 1], id="one pixel more"),
        pytest.param(1848, [0, 824], id="two windows exactly"),
        pytest.param(2000, [0, 824, 976], id="the last one is moved back"),
    ],
)
def test_windows_of_dota(side: int, starts: list[int]) -> None:
    tiling, other = Tiling(1024, 200), min(side, 1024)
    assert tiling.windows(side, 1024) == [Window(start, 0, other, 1024) for start in starts]
    assert tiling.windows(1024, side) == [Window(0, start, 1024, other) for start in starts]
    assert tiling.is_enough(side, 300) == (len(starts) == 1)


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.integers(1, 150),
    overlap=st.integers(0, 149),
)
def test_windows_cover_every_pixel_and_overlap(width: int, height: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    windows = Tiling(size, overlap).windows(width, height)
    if len(windows) > 2000:
        return
    shown = np.zeros((height, width), bool)
    for x, y, w, h in windows:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        assert (w, h) == (min(size, width), min(size, height))
        shown[y : y + h, x : x + w] = True
    assert shown.all()
    assert len(set(windows)) == len(windows)
    for starts in (sorted({window.x for window in windows}), sorted({window.y for window in windows})):
        assert all(second - first <= size - overlap for first, second in pairwise(starts))


def test_rates_are_those_of_dota() -> None:
    sizes = [Tiling(1024, 500).at_rate(rate) for rate in (0.5, 1.0, 1.5)]
    assert sizes == [Tiling(2048, 1000), Tiling(1024, 500), Tiling(682, 333)]


@pytest.mark.parametrize(("size", "overlap"), [(100, 100), (100, 300)])
def test_an_overlap_as_large_as_the_window_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match=f"windows of {size} pixels cannot overlap by {overlap}"):
        Tiling(size, overlap)


def test_settings_say_whether_images_are_cut() -> None:
    assert Tiling.of(InferSettings(model="m", data=["d"])) is None
    assert Tiling.of(InferSettings(model="m", data=["d"], tile=640, overlap=100)) == Tiling(640, 100)
    with pytest.raises(ConfigError, match="images are taken whole"):
        Tiling.of(InferSettings(model="m", data=["d"], overlap=100))


def test_windows_of_a_few_pixels_are_refused() -> None:
    assert Tiling(64, 16).at_rate(2) == Tiling(32, 8)
    with pytest.raises(ConfigError, match=r"at rate 2\.5 windows of 64 pixels have 25, and 32 are the least"):
        Tiling(64, 16).at_rate(2.5)


WINDOW = Window(100, 0, 100, 100)


@pytest.mark.parametrize(
    ("box_", "expected", "difficult"),
    [
        pytest.param([120, 10, 140, 30], [20, 10, 40, 30], False, id="inside"),
        pytest.param([97, 10, 107, 20], [0, 10, 7, 20], False, id="70 % inside"),
        pytest.param([96, 10, 106, 20], [0, 10, 6, 20], True, id="60 % inside"),
        pytest.param([20, 10, 101, 20], [0, 10, 1, 20], True, id="a strip"),
        pytest.param([190, 90, 200, 100], [90, 90, 100, 100], False, id="at the corner"),
        pytest.param([120, 10, 120.5, 10.5], [20, 10, 20.5, 10.5], False, id="a tiny object"),
    ],
)
def test_upright_boxes_are_cut(box_: list[float], expected: list[float], difficult: bool) -> None:
    found = objects_in(index_with([box_]), 0, WINDOW)
    assert found.boxes.tolist() == [expected]
    assert found.flags.tolist() == [DIFFICULT if difficult else 0]
    x1, y1, x2, y2 = expected
    assert found.areas.tolist() == pytest.approx([(x2 - x1) * (y2 - y1)])
    assert found.rotated is None


@pytest.mark.parametrize("box_", [[10, 10, 100, 30], [0, 0, 50, 50], [90, 10, 100.2, 14]])
def test_objects_of_which_nothing_is_seen_are_left_out(box_: list[float]) -> None:
    assert not len(objects_in(index_with([box_]), 0, WINDOW).labels)


def test_labels_and_marks_are_kept() -> None:
    index = index_with([[0, 0, 10, 10], [110, 0, 120, 10], [130, 0, 140, 10]])
    index.flags[2] = DIFFICULT
    found = objects_in(index, 0, WINDOW)
    assert found.labels.tolist() == [1, 0]
    assert found.flags.tolist() == [0, DIFFICULT]


def test_rotated_boxes_are_kept_whole_and_count_by_their_area() -> None:
    rng = np.random.default_rng(3)
    boxes = np.column_stack(
        [rng.uniform(80, 120, 200), rng.uniform(-5, 105, 200), *rng.uniform(4, 40, (2, 200)), rng.uniform(-2, 2, 200)]
    ).tolist()
    index = rotated_index(boxes)
    found = objects_in(index, 0, WINDOW)
    frame = box(100, 0, 200, 100)
    shares = [polygon_of(one).intersection(frame).area / polygon_of(one).area for one in boxes]
    kept = [
        row for row, share in enumerate(shares) if share >= 0.7 or polygon_of(boxes[row]).intersection(frame).area >= 1
    ]
    assert 20 < len(kept) < 200
    assert found.rotated is not None
    np.testing.assert_allclose(found.rotated, np.array(boxes)[kept] - [100, 0, 0, 0, 0], atol=1e-4)
    assert found.flags.tolist() == [0 if shares[row] >= 0.7 else DIFFICULT for row in kept]
    np.testing.assert_allclose(found.boxes, index.boxes[kept] - [100, 0, 100, 0], atol=1e-4)
    np.testing.assert_array_equal(found.areas, index.areas[kept])


def test_a_rotated_box_whose_corner_only_is_near_is_no_object() -> None:
    # Its hull reaches 12 pixels into the window, the box itself does not.
    assert not len(objects_in(rotated_index([[90, 90, 60, 4, -math.pi / 4 * 3]]), 0, Window(100, 0, 100, 75)).labels)


STAR = [[60.0, 5, 130, 30, 190, 10, 150, 60, 170, 95, 110, 70, 40, 90, 80, 40]]


@pytest.mark.parametrize("window", [WINDOW, Window(50, 20, 60, 60), Window(0, 0, 70, 30), Window(30, 0, 170, 100)])
def test_polygons_are_cut_as_shapely_cuts_them(window: Window) -> None:
    shape = Polygon(np.reshape(STAR, (-1, 2)))
    index = index_with([list(shape.bounds), [60, 60, 90, 90]])
    index = replace(index, segments=Strings.pack([json.dumps(STAR), ""]))
    found = objects_in(index, 0, window)
    x, y, width, height = window
    shown = shape & box(x, y, x + width, y + height)
    assert found.segments is not None
    rings = [np.reshape(ring, (-1, 2)) + np.array([x, y]) for ring in json.loads(found.segments[0])]
    assert sum(Polygon(ring).area for ring in rings) == pytest.approx(shown.area, rel=1e-4)
    assert all((Polygon(ring) - shown).area < 0.1 for ring in rings)
    np.testing.assert_allclose(found.boxes[0] + [x, y, x, y], shown.bounds, atol=1e-3)
    assert bool(found.flags[0]) == (shown.area < 0.7 * shape.area)
    assert found.areas[0] == pytest.approx(index.areas[0] * shown.area / shape.area, rel=1e-4)
    assert all(found.segments[row] == "" for row in range(1, len(found.labels)))


def test_masks_are_cut_to_the_pixel_and_grow_with_the_picture() -> None:
    rng = np.random.default_rng(0)
    bitmap = rng.random((100, 200)) < 0.5
    [entry] = Masks.encode(bitmap[None]).entries()
    text = json.dumps({"size": entry["size"], "counts": entry["counts"].decode()})
    index = replace(index_with([[0, 0, 200, 100]]), segments=Strings.pack([text]))
    found = objects_in(index, 0, Window(130, 40, 70, 60), (80, 90))
    assert found.segments is not None
    cut = json.loads(found.segments[0])
    assert cut["size"] == [90, 80]
    seen = Masks((80, 90), (cut["counts"].encode(),)).decode()[0]
    np.testing.assert_array_equal(seen[:60, :70], bitmap[40:, 130:])
    assert seen.sum() == bitmap[40:, 130:].sum()


def test_a_wrong_mask_is_named() -> None:
    index = replace(index_with([[110, 0, 120, 10]]), segments=Strings.pack(["[[1,2,3]]"]))
    with pytest.raises(DataError, match="a polygon has an x without a y"):
        objects_in(index, 0, WINDOW)

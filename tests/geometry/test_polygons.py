"""Outlines against bitmaps, a slow test of each pixel's centre, and shapely."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from faster_coco_eval import mask as coco_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.polygons import Polygons, warp_points
from ymir_tmi.geometry.runs import Counts, unpack

WIDTH, HEIGHT = 40, 30

# A hole, two pieces that touch by a corner, a ring around a pixel, and a comb whose teeth stand on the border.
SHAPES = {
    "one pixel": ["...", ".#.", "..."],
    "a hole": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "corner to corner": ["#..#", ".##.", ".##.", "#..#"],
    "a comb": ["#.#.#.#", "#.#.#.#", "#######"],
    "everything": ["###", "###"],
    "nothing": ["...", "..."],
}


def drawn(rows: list[str]) -> npt.NDArray[np.bool_]:
    return np.array([[character == "#" for character in row] for row in rows])


def traced(bitmaps: npt.NDArray[np.bool_]) -> Polygons:
    return Polygons.from_run_lengths(unpack(Masks.encode(bitmaps).counts), bitmaps.shape[1])


def star(rng: np.random.Generator, corners: int = 9) -> list[float]:
    """Return a polygon that does not cross itself and may reach out of the picture."""
    angles = (np.arange(corners) + rng.random(corners)) * 2 * np.pi / corners
    lengths = rng.uniform(2, 25, corners)
    centre = rng.uniform(-5, 45, 2)
    points = centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.astype(np.float32).astype(float).ravel().tolist()


def shape_of(rings: list[list[float]]) -> shapely.Geometry:
    return shapely.union_all([shapely.Polygon(np.reshape(ring, (-1, 2))) for ring in rings])


def inside(polygon: list[float], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Count for each pixel's centre the edges to its right, one by one."""
    corners = np.reshape(polygon, (-1, 2))
    result = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in pairwise([*corners, corners[0]]):
                if (y1 < y) != (y2 < y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) > x:
                    result[row, column] ^= True
    return result


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_a_mask_comes_back_to_the_pixel(rows: list[str]) -> None:
    bitmap = drawn(rows)
    outline = traced(bitmap[None])
    np.testing.assert_array_equal(outline.bitmap(bitmap.shape[1], bitmap.shape[0]), bitmap)
    assert outline.areas().tolist() == [bitmap.sum()]
    np.testing.assert_array_equal(outline.hulls(), Masks.encode(bitmap[None]).hulls())


@given(arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))))
@settings(deadline=None)
def test_any_masks_come_back_to_the_pixel(bitmaps: npt.NDArray[np.bool_]) -> None:
    outlines = traced(bitmaps)
    for row, bitmap in enumerate(bitmaps):
        np.testing.assert_array_equal(outlines.take([row]).bitmap(bitmaps.shape[2], bitmaps.shape[1]), bitmap)
    np.testing.assert_array_equal(outlines.areas(), bitmaps.sum(axis=(1, 2)))


@given(st.lists(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=9), min_size=1, max_size=4))
@settings(deadline=None)
def test_compressed_run_lengths_are_read_as_coco_writes_them(lengths: list[list[int]]) -> None:
    entries = [
        coco_mask.frPyObjects({"counts": counts, "size": [1, sum(counts)]}, 1, sum(counts)) for counts in lengths
    ]
    counts = unpack([entry["counts"] for entry in entries])
    assert counts.numbers.tolist() == list(map(len, lengths))
    assert counts.values.tolist() == [length for one in lengths for length in one]
    assert counts.totals.tolist() == list(map(sum, lengths))


@pytest.mark.parametrize("text", [b"0 1", b"o", b"0\x7f", b"oooooooooooooooooo0"])
def test_what_is_no_run_lengths_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        unpack([b"61", text])


def test_lists_of_run_lengths_may_have_empty_runs() -> None:
    counts = Counts(np.array([0, 2, 0, 3, 1]), np.array([5]))
    assert Polygons.from_run_lengths(counts, 3).bitmap(2, 3).T.ravel().tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("seed", range(20))
def test_pixels_are_those_whose_centre_is_inside(seed: int) -> None:
    polygon = star(np.random.default_rng(seed))
    outline = Polygons.from_rings([[polygon]])
    np.testing.assert_array_equal(outline.bitmap(WIDTH, HEIGHT), inside(polygon, WIDTH, HEIGHT))


@pytest.mark.parametrize("seed", range(20))
def test_measures_and_cuts_are_those_of_shapely(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = [[star(rng) for _ in range(parts)] for parts in (1, 1, 2, 1)]
    outlines = Polygons.from_rings(objects)
    cut = outlines.clip(WIDTH, HEIGHT)
    for row, rings in enumerate(objects):
        whole, shown = shape_of(rings), shape_of(rings) & shapely.box(0, 0, WIDTH, HEIGHT)
        np.testing.assert_allclose(outlines.hulls()[row], whole.bounds, atol=1e-4)
        np.testing.assert_allclose(cut.hulls()[row], (0, 0, 0, 0) if shown.is_empty else shown.bounds, atol=1e-4)
        if len(rings) == 1:
            assert outlines.areas()[row] == pytest.approx(whole.area, abs=1e-2)
            assert cut.areas()[row] == pytest.approx(shown.area, abs=1e-2)
            written = [ring for part in cut.rings(row) for ring in part]
            assert (shape_of(written) ^ shown).area < 1e-2
        np.testing.assert_array_equal(cut.take([row]).bitmap(WIDTH, HEIGHT), outlines.take([row]).bitmap(WIDTH, HEIGHT))


def test_pieces_that_a_border_separates_are_no_longer_joined_along_it() -> None:
    # A bracket "[" whose back is out of the picture: what is left are its two arms, not a line between them.
    bracket = [-9, -20, 10, -20, 10, -15, -5, -15, -5, 20, 10, 20, 10, 24, -9, 24]
    cut = Polygons.from_rings([[bracket]]).clip(WIDTH, HEIGHT)
    assert cut.hulls().tolist() == [[0, 20, 10, 24]]
    assert cut.areas().tolist() == [40]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((0, 0, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT), id="just as large"),
        pytest.param((-9, -9, 90, 90), (0, 0, WIDTH, HEIGHT), id="larger"),
        pytest.param((5, 5, 9, 9), (5, 5, 9, 9), id="inside"),
        pytest.param((-5, 5, 0, 9), (0, 5, 0, 9), id="touches from outside"),
        pytest.param((-5, 5, -1, 9), (0, 0, 0, 0), id="outside"),
    ],
)
def test_cutting_boxes(box: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x1, y1, x2, y2 = box
    cut = Polygons.from_rings([[[x1, y1, x2, y1, x2, y2, x1, y2]]]).clip(WIDTH, HEIGHT)
    assert cut.hulls().tolist() == [list(expected)]
    assert cut.areas().tolist() == [(expected[2] - expected[0]) * (expected[3] - expected[1])]


def test_parts_are_joined_and_holes_are_not_filled() -> None:
    overlapping = [[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]]
    assert Polygons.from_rings([overlapping]).bitmap(20, 20).sum() == 175
    frame = np.ones((9, 9), bool)
    frame[3:6, 3:6] = False
    assert traced(frame[None]).bitmap(9, 9).sum() == 72


def test_objects_are_taken_in_any_order_and_joined_again() -> None:
    rng = np.random.default_rng(0)
    outlines = Polygons.from_rings([[star(rng)], [], [star(rng), star(rng)], [[1, 2, 3, 4]], [star(rng)]])
    some = outlines.take([4, 2, 1])
    np.testing.assert_array_equal(some.hulls(), outlines.hulls()[[4, 2, 1]])
    again = Polygons.concatenate([outlines.take(slice(0, 2)), outlines.take(np.arange(5) >= 2)])
    for name in ("edges", "parts", "objects"):
        np.testing.assert_array_equal(getattr(again, name), getattr(outlines, name))
    assert len(outlines.take([])) == 0 and outlines.take([]).hulls().shape == (0, 4)


def test_small_objects_lie_on_top_and_none_is_lost() -> None:
    boxes = np.array([[4, 4, 9, 9], [0, 0, 20, 20], [5.6, 5.6, 5.9, 5.9], [30, 0, 40, 10]], float)
    outlines = Polygons.from_corners(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
    seen, order = outlines.index_map(WIDTH, HEIGHT)
    assert order.tolist() == [1, 3, 0, 2]
    assert [seen[10, 10], seen[5, 35], seen[8, 8], seen[5, 5], seen[29, 39]] == [1, 2, 3, 4, 0]
    assert np.bincount(seen.ravel()).tolist() == [WIDTH * HEIGHT - 500, 375, 100, 24, 1]


@pytest.mark.parametrize("perspective", [0.0, 0.004127])
def test_warped_outlines_stay_closed_and_lie_where_every_point_of_them_goes(perspective: float) -> None:
    rng = np.random.default_rng(1)
    bitmaps = np.kron(rng.random((5, 6, 8)) < 0.5, np.ones((1, 5, 5))).astype(bool)
    # Such that no centre of a pixel comes from the border of another one.
    matrix = np.array([[0.9137, -0.3071, 8.3131], [0.4173, 0.8219, 1.7177], [perspective, 0, 1]])
    outlines = traced(bitmaps)
    warped = outlines.with_edges(warp_points(outlines.edges, matrix))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    back = warp_points(np.stack([x, y], -1), np.linalg.inv(matrix))
    column, row = np.floor(back).astype(int).transpose(2, 0, 1)
    known = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    for number, bitmap in enumerate(bitmaps):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[known] = bitmap[row[known], column[known]]
        np.testing.assert_array_equal(warped.take([number]).bitmap(WIDTH, HEIGHT), expected)


def test_no_objects() -> None:
    for none in (Polygons.from_rings([]), Polygons.from_corners(np.zeros((0, 4, 2))), traced(np.zeros((0, 5, 5)))):
        assert len(none) == 0 and none.areas().shape == (0,) and len(none.clip(3, 3)) == 0
        seen, order = none.index_map(4, 3)
        assert not seen.any() and seen.shape == (3, 4) and not len(order)

"""Thumbnails, and boxes and labels on them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from ymir_tmi import imaging
from ymir_tmi.errors import ImageError
from ymir_tmi.report.pictures import Mark, PlacedMark, load_picture, mark_layout

SIZE = (400, 300)
FONT = 12.0


def lay_out(*boxes: tuple[float, ...], text: str = "car 0.92") -> tuple[PlacedMark, ...]:
    return mark_layout([Mark(box, text, "#56b4e9") for box in boxes], SIZE, (1.0, 1.0), FONT)


def hull(mark: PlacedMark) -> tuple[float, float, float, float]:
    """x, y, width and height of the upright box around a mark."""
    xs, ys = zip(*mark.outline, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def intersect(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first, second
    return x1 + w1 > x2 and x2 + w2 > x1 and y1 + h1 > y2 and y2 + h2 > y1


def test_label_stands_above_its_box() -> None:
    (mark,) = lay_out((100, 100, 200, 200))
    assert mark.label is not None
    assert mark.label[0] == 100
    assert mark.label[1] + mark.label[3] == pytest.approx(100, abs=0.2)


PLACES = [
    # box, what its label must be
    ((100, 0, 200, 100), lambda box, label: label[1] == pytest.approx(box[3], abs=0.2)),  # no room above: below
    ((0, 0, 400, 300), lambda box, label: label[:2] == (0, 0)),  # the whole picture: inside at the top
    ((380, 100, 400, 200), lambda box, label: label[0] + label[2] <= SIZE[0]),  # at the right edge: moved to the left
]


@pytest.mark.parametrize(("box", "fits"), PLACES, ids=["top", "whole", "right"])
def test_label_stays_in_the_picture(box, fits) -> None:  # type: ignore[no-untyped-def]
    (mark,) = lay_out(box)
    assert mark.label is not None
    assert fits(box, mark.label)


def test_labels_never_cover_one_another_and_leave_objects_visible() -> None:
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 0.8, (60, 2)) * SIZE
    boxes = np.hstack([corners, corners + rng.uniform(15, 90, (60, 2))])
    marks = lay_out(*map(tuple, boxes))
    labels = [mark.label for mark in marks if mark.label is not None]
    assert 5 < len(labels) <= 15
    assert not any(intersect(first, second) for first, second in itertools.combinations(labels, 2))
    for (x, y, width, height), mark in itertools.product(labels, marks):
        left, top, across, down = hull(mark)
        shared_x = min(x + width, left + across) - max(x, left)
        shared_y = min(y + height, top + down) - max(y, top)
        if shared_x > 0 and shared_y > 0:
            assert shared_x * shared_y <= 0.32 * max(across * down, 1)


def test_first_mark_gets_the_label() -> None:
    box = (100.0, 100.0, 110.0, 110.0)
    marks = mark_layout([Mark(box, f"{rank}", "#56b4e9") for rank in range(12)], SIZE, (1.0, 1.0), FONT)
    labelled = [mark.text for mark in marks if mark.label is not None]
    assert labelled[0] == "0" and len(labelled) < 12


def test_small_boxes_lie_on_top_of_large_ones() -> None:
    marks = lay_out((120, 120, 140, 140), (50, 50, 350, 250))
    assert [hull(mark)[2] for mark in marks] == [300, 20]
    thin, square = (200, 150, 300, 10, 0.8), (200, 150, 80, 80, 0.1)  # the thin one has the larger upright box around
    assert [hull(mark)[2] < 100 for mark in lay_out(thin, square)] == [True, False]


def test_boxes_are_scaled_and_cut_to_the_picture() -> None:
    mark = Mark((-20, 100, 1000, 400), "", "#56b4e9")
    (placed,) = mark_layout([mark], SIZE, (0.5, 0.5), FONT)
    assert hull(placed) == (0, 50, 400, 150)


def test_rotated_boxes_keep_their_corners_in_a_thumbnail_of_another_shape() -> None:
    mark = Mark((100, 80, 60 * math.sqrt(2), 20 * math.sqrt(2), math.pi / 4), "", "#56b4e9")
    (placed,) = mark_layout([mark], SIZE, (0.5, 0.25), FONT)
    corners = [(120, 120), (140, 100), (80, 40), (60, 60)]
    np.testing.assert_allclose(sorted(placed.outline), sorted((x * 0.5, y * 0.25) for x, y in corners), atol=0.06)
    (beyond,) = lay_out((10, 10, 100, 40, 0.5))
    assert hull(beyond)[0] < 0, "a corner outside the picture is not moved, which would bend the box"


ROTATED_PLACES = [
    # angle, x of the corner at which the label starts
    (math.pi / 4, lambda xs, ys: xs[ys.argmin()]),
    (-math.pi / 4, lambda xs, ys: xs[ys.argmin()]),
    (0.03, lambda xs, ys: xs.min()),
]


@pytest.mark.parametrize(("angle", "start"), ROTATED_PLACES)
def test_label_stands_on_the_upper_corner_of_a_rotated_box(angle, start) -> None:  # type: ignore[no-untyped-def]
    (mark,) = lay_out((200, 150, 120, 50, angle))
    xs, ys = np.array(mark.outline).T
    assert mark.label is not None
    assert mark.label[0] == pytest.approx(start(xs, ys), abs=3)
    assert mark.label[1] + mark.label[3] == pytest.approx(ys.min(), abs=4)


def test_wide_scripts_get_wider_labels() -> None:
    (latin,), (chinese,) = lay_out((100, 100, 300, 200), text="abcd"), lay_out((100, 100, 300, 200), text="红色汽车")
    assert latin.label and chinese.label
    assert chinese.label[2] > 1.4 * latin.label[2]


def test_long_names_are_shortened_but_told_in_full() -> None:
    name = "a class with a name that is much too long 0.87"
    (mark,) = lay_out((10, 100, 390, 290), text=name)
    assert mark.text == name
    assert len(mark.short_text) <= 28 and mark.short_text.endswith(" 0.87")


@pytest.mark.parametrize(
    ("width", "height", "shown"), [(960, 640, (480, 320)), (300, 900, (160, 480)), (64, 48, (64, 48))]
)
def test_thumbnail_keeps_the_shape(tmp_path: Path, width: int, height: int, shown: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    imaging.write_image(path, np.full((height, width, 3), 90, np.uint8))
    picture = load_picture(path, "grey")
    assert (picture.width, picture.height) == shown


def test_unreadable_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        load_picture(tmp_path / "none.jpg", "none")

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import shapely.affinity

from ymir_tmi.data.drawing import draw_box

COLOUR = (200, 120, 40)
BOXES = [
    [60.0, 70.0, 140.0, 110.0],
    [100.0, 80.0, 90.0, 30.0, 0.6],
    [100.5, 80.25, 70.0, 24.0, -1.1],
    [100.0, 80.0, 60.0, 60.0, math.pi / 4],
]


def outline(box: list[float]) -> shapely.LinearRing:
    if len(box) == 4:
        return shapely.box(*box).exterior
    cx, cy, w, h, angle = box  # y points down, so that shapely's positive angle is clockwise
    upright = shapely.box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return shapely.affinity.rotate(upright, angle, use_radians=True).exterior


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("thickness", [1, 3])
def test_the_outline_is_drawn_and_nothing_else(box: list[float], thickness: int) -> None:
    image = np.zeros((160, 200, 3), np.uint8)
    draw_box(image, np.array(box, np.float32), "", COLOUR, thickness=thickness, text_scale=0.4)
    y, x = np.mgrid[:160, :200]
    distance = shapely.distance(outline(box), shapely.points(x, y))  # OpenCV counts from the centres of pixels
    label = (y <= outline(box).bounds[1] + 1) & (y > outline(box).bounds[1] - 20)  # an empty one still has a thin plate
    assert (image[(distance < 0.5) & ~label].max(1) > 90).all()
    assert not image[(distance > thickness + 1) & ~label].any()


@pytest.mark.parametrize("box", BOXES)
def test_the_label_stands_above_the_uppermost_corner(box: list[float]) -> None:
    plain, labelled = (np.zeros((160, 200, 3), np.uint8) for _ in range(2))
    for image, text in ((plain, ""), (labelled, "car 0.9")):
        draw_box(image, np.array(box, np.float32), text, COLOUR, thickness=1, text_scale=0.4)
    y, x = np.nonzero((plain != labelled).any(2))
    corners = np.array(outline(box).coords)
    top = corners[:, 1].min()
    assert y.max() == pytest.approx(top, abs=1.5)
    assert x.min() == pytest.approx(corners[np.isclose(corners[:, 1], top)][:, 0].min(), abs=1.5)
    assert 5 < np.ptp(y) < 20 < np.ptp(x)

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ymir_tmi.geometry import rotated
from ymir_tmi.geometry.outlines import LOWER_LEFT, LOWER_RIGHT, UPPER_LEFT, UPPER_RIGHT, farthest, outlines, upright

RNG = np.random.default_rng(0)
ROTATED = np.hstack([RNG.uniform(-50, 900, (40, 2)), RNG.uniform(1, 200, (40, 2)), RNG.uniform(-2, 2, (40, 1))])
UPRIGHT = np.array([[10.0, 20.0, 50.0, 45.0], [-3.5, 0.25, 8.0, 9.0]])


def test_upright_boxes_have_the_corners_of_unturned_ones() -> None:
    low, high = UPRIGHT[:, :2], UPRIGHT[:, 2:]
    unturned = np.hstack([(low + high) / 2, high - low, np.zeros((2, 1))])
    np.testing.assert_array_equal(outlines(UPRIGHT), outlines(unturned))
    assert {tuple(corner) for corner in outlines(UPRIGHT)[0].tolist()} == {(10, 20), (50, 20), (50, 45), (10, 45)}


def test_upright_boxes_around_rotated_ones() -> None:
    np.testing.assert_allclose(upright(ROTATED), rotated.hulls(torch.from_numpy(ROTATED)).numpy(), atol=1e-9)
    assert upright(UPRIGHT) is UPRIGHT


@pytest.mark.parametrize("length", [4, 5])
def test_nothing_has_no_corners(length: int) -> None:
    nothing = np.zeros((0, length), np.float32)
    assert outlines(nothing).shape == (0, 4, 2) and upright(nothing).shape == (0, 4)


def test_farthest_corners() -> None:
    [box] = outlines(UPRIGHT[:1])
    directions = (UPPER_LEFT, UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT)
    assert [farthest(box, each).tolist() for each in directions] == [[10, 20], [50, 20], [10, 45], [50, 45]]
    [diamond] = outlines(np.array([[0, 0, 10, 10, math.pi / 4]]))
    for each in directions:
        np.testing.assert_allclose(farthest(diamond, each), [0, math.copysign(math.sqrt(50), each[1])], atol=1e-9)

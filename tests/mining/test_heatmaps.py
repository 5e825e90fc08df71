from __future__ import annotations

import numpy as np
import pytest

from ymir_tmi.mining.heatmaps import paint


@pytest.mark.parametrize(
    "size, expected",
    [
        ((500, 200), (200, 500, 3)),  # as large as the picture
        ((1280, 720), (360, 640, 3)),  # at most 640 pixels long
        ((3000, 2), (1, 640, 3)),
    ],
)
def test_size(size: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert paint(np.random.default_rng(0).random((40, 100), np.float32), size).shape == expected


def test_brighter_means_more() -> None:
    ramp = np.repeat(np.linspace(0, 3, 256, dtype=np.float32)[None], 8, axis=0)
    picture = paint(ramp, (256, 8))
    assert picture[0, 0].tolist() == [0, 0, 4]
    brightness = picture[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) >= -1).all() and brightness[-1] > 240
    np.testing.assert_array_equal(picture, paint(ramp / 1024, (256, 8)))


def test_nothing_is_black() -> None:
    assert (paint(np.zeros((8, 8), np.float32), (8, 8)) == [0, 0, 4]).all()

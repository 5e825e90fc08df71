"""The views that PP-YOLOE trains with, on drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import COLOURS, draw, measure

from ymir_tmi.data import crops
from ymir_tmi.data.sample import Sample

SCENE = draw(120, 80, [(40, 20, 90, 60), (0, 10, 25, 40), (100, 50, 120, 80), (60, 66, 68, 74)])


@pytest.mark.parametrize("seed", range(10))
def test_expanded_picture_lies_in_a_border_of_one_colour(seed: int) -> None:
    result = crops.expand(SCENE, 4.0, np.random.default_rng(seed))
    width, height = result.size
    assert 120 <= width <= 480 and width / height == pytest.approx(1.5, rel=0.02)
    border = (result.image == (124, 116, 104)).all(axis=2)
    assert border.sum() == width * height - 120 * 80
    for box, label in zip(result.boxes, result.labels, strict=True):
        np.testing.assert_array_equal(measure(result.image, label), box)
    assert result.labels.tolist() == [0, 1, 2, 3]


def test_expanded_picture_may_be_any_size_and_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    seen = [crops.expand(SCENE, 4.0, rng) for _ in range(300)]
    ratios = [sample.size[0] / 120 for sample in seen]
    assert (min(ratios), max(ratios)) == pytest.approx((1, 4), abs=0.05)
    assert np.mean(ratios) == pytest.approx(2.5, abs=0.2)
    places = [sample.boxes[1, 0] / (sample.size[0] - 119) for sample in seen]  # left edge of the picture
    assert np.mean(places) == pytest.approx(0.5, abs=0.06)


def iou(box: np.ndarray, window: tuple[int, int, int, int]) -> float:
    """Count pixels of a box of whole numbers."""
    canvas = np.zeros((2, 80, 120), bool)
    for layer, (x1, y1, x2, y2) in enumerate((box.astype(int), window)):
        canvas[layer, y1:y2, x1:x2] = True
    return canvas.all(axis=0).sum() / canvas.any(axis=0).sum()


def window_of(result: Sample) -> tuple[int, int, int, int]:
    """Find the window by the coordinates that the first two channels of `COORDINATES` hold."""
    (left, top), (right, bottom) = result.image[0, 0, :2].tolist(), result.image[-1, -1, :2].tolist()
    return left, top, right + 1, bottom + 1


COORDINATES = Sample(
    np.stack([*np.meshgrid(np.arange(120), np.arange(80)), np.zeros((80, 120))], axis=2).astype(np.uint8),
    SCENE.boxes,
    SCENE.labels,
)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3, 0.5, 0.7])
def test_window_overlaps_an_object_and_keeps_what_is_centred_in_it(
    overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "_OVERLAPS", (overlap,))
    monkeypatch.setattr(crops, "_TRIES", 1000)
    cropped, whole = 0, 0
    for seed in range(60):
        result = crops.crop_by_overlap(COORDINATES, np.random.default_rng(seed))
        if result.image.shape == COORDINATES.image.shape:
            whole += 1
            continue
        cropped += 1
        window = x1, y1, x2, y2 = window_of(result)
        np.testing.assert_array_equal(result.image, COORDINATES.image[y1:y2, x1:x2])
        assert max(iou(box, window) for box in SCENE.boxes) >= overlap
        expected = []
        for box, label in zip(SCENE.boxes, SCENE.labels, strict=True):
            if x1 < (box[0] + box[2]) / 2 < x2 and y1 < (box[1] + box[3]) / 2 < y2:
                cut = np.clip(box, (x1, y1, x1, y1), (x2, y2, x2, y2)) - (x1, y1, x1, y1)
                expected.append((label, cut.tolist()))
        assert expected
        assert list(zip(result.labels, result.boxes.tolist(), strict=True)) == expected
        scale = np.sqrt((x2 - x1) * (y2 - y1) / (120 * 80))
        aspect = (x2 - x1) / (y2 - y1) / 1.5
        assert 0.27 < scale < 1 and 0.47 < aspect < 2.1
    assert cropped >= 15 and whole >= 15  # one of two choices is to leave the picture alone


def test_every_threshold_and_no_window_are_equally_likely() -> None:
    # One object as large as the picture: a window's IoU with it is its part of the area, at most 1.
    scene = Sample(COORDINATES.image, np.array([[0, 0, 120, 80]], np.float32), np.array([0]))
    rng = np.random.default_rng(0)
    areas = [np.prod(crops.crop_by_overlap(scene, rng).size) / 9600 for _ in range(700)]
    whole = np.mean(np.array(areas) == 1)
    assert whole == pytest.approx(1 / 7, abs=0.04)
    # A window of less than a tenth of the picture is let through by the threshold 0 alone, one in seven.
    assert 0 < np.mean(np.array(areas) < 0.1) < 1 / 7


def test_picture_without_objects_is_left_alone() -> None:
    empty = draw(50, 40, [])
    assert crops.crop_by_overlap(empty, np.random.default_rng(0)) is empty


def test_window_of_a_tiny_picture() -> None:
    tiny = draw(2, 1, [(0, 0, 2, 1)], [0])
    for seed in range(20):
        result = crops.crop_by_overlap(tiny, np.random.default_rng(seed))
        assert result.image.size and len(result.boxes) == 1
        assert (result.image == COLOURS[0]).all()

from __future__ import annotations

import numpy as np
import pytest
from drawn import COLOURS, draw, measure

from ymir_tmi.data import mosaic as module
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.transforms import FILL


def plain(width: int, height: int, value: int) -> Sample:
    return Sample(np.full((height, width, 3), value, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


@pytest.mark.parametrize("seed", range(10))
def test_mosaic_puts_each_picture_into_its_corner(seed: int) -> None:
    size = 64
    tiles = [
        Sample(np.broadcast_to(COLOURS[label].astype(np.uint8), (height, width, 3)), box, np.array([label]))
        for label, (width, height) in enumerate([(64, 48), (30, 64), (64, 20), (64, 64)])
        for box in [np.array([[0, 0, width, height]], np.float32)]
    ]
    result = module.mosaic(tiles, size, np.random.default_rng(seed))
    assert result.image.shape == (2 * size, 2 * size, 3)
    assert result.labels.tolist() == [0, 1, 2, 3]
    boxes = dict(zip(result.labels.tolist(), result.boxes, strict=True))

    centre_x, centre_y = boxes[0][2], boxes[0][3]
    assert 0.5 * size - 1 < centre_x < 1.5 * size and 0.5 * size - 1 < centre_y < 1.5 * size
    assert boxes[1][[0, 3]].tolist() == [centre_x, centre_y]
    assert boxes[2][[2, 1]].tolist() == [centre_x, centre_y]
    assert boxes[3][[0, 1]].tolist() == [centre_x, centre_y]
    for label, box in boxes.items():
        np.testing.assert_array_equal(measure(result.image, label), box)
        width, height = tiles[label].size
        assert box[2] - box[0] <= width and box[3] - box[1] <= height
    covered = sum(int((box[2] - box[0]) * (box[3] - box[1])) for box in boxes.values())
    assert (result.image == FILL).all(axis=2).sum() == (2 * size) ** 2 - covered


def test_mosaic_cuts_and_drops_boxes_with_their_picture() -> None:
    size = 100
    # The left one is on the canvas only if the centre is far to the right, the wide one is always at least in part.
    tile = draw(100, 100, [(0, 40, 10, 50), (0, 60, 100, 70)], [0, 1])
    seen = []
    for seed in range(40):
        result = module.mosaic(
            [tile, plain(9, 9, 0), plain(9, 9, 0), plain(9, 9, 0)], size, np.random.default_rng(seed)
        )
        left_edge = result.boxes[result.labels == 1][0, 2] - 100
        seen.append(0 in result.labels)
        assert seen[-1] == (left_edge + 10 > 0)
        assert result.boxes.min() >= 0
    assert 5 < sum(seen) < 35


def whole_of_nine(tiles: list[Sample], size: int) -> np.ndarray:
    """Draw all nine on the large canvas, each where its neighbours in the middle row and column leave it room."""
    canvas = np.full((5 * size, 5 * size, 3), FILL, np.uint8)
    (width, height) = tiles[0].size
    left, top = size + (3 * size - width) // 2, size + (3 * size - height) // 2
    xs, ys = [left, left + width], [top, top + height]
    order = [(x, y) for y in range(3) for x in range(3) if (x, y) != (1, 1)]
    for (column, row), tile in [((1, 1), tiles[0]), *zip(order, tiles[1:], strict=True)]:
        image = tile.image[: height if row == 1 else None, : width if column == 1 else None]
        x = (xs[0] - image.shape[1], xs[0], xs[1])[column]
        y = (ys[0] - image.shape[0], ys[0], ys[1])[row]
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas[size:-size, size:-size]


SIDES = [(64, 48), (30, 64), (64, 20), (64, 64), (11, 12), (50, 60), (64, 64), (20, 50), (33, 33)]


@pytest.mark.parametrize("seed", range(10))
def test_mosaic_of_nine_is_a_window_of_nine_pictures(seed: int) -> None:
    size = 64
    rng = np.random.default_rng(seed)
    tiles = [
        Sample(rng.integers(0, 250, (height, width, 3), dtype=np.uint8), box, np.array([label]))
        for label, (width, height) in enumerate(rng.permutation(SIDES).tolist())
        for box in [np.array([[0, 0, width, height]], np.float32)]
    ]
    result = module.mosaic_of_nine(tiles, size, np.random.default_rng(seed))
    assert result.image.shape == (2 * size, 2 * size, 3)
    whole = whole_of_nine(tiles, size)
    x, y = np.random.default_rng(seed).integers(size + 1, size=2)
    np.testing.assert_array_equal(result.image, whole[y : y + 2 * size, x : x + 2 * size])
    covered = np.zeros((2 * size, 2 * size), int)
    for x1, y1, x2, y2 in result.boxes.astype(int):
        covered[y1:y2, x1:x2] += 1
    np.testing.assert_array_equal(covered, (result.image != FILL).any(axis=2))  # each box on its picture, none on two
    assert set(result.labels) <= set(range(9)) and 0 in result.labels


def test_the_centre_is_uniform() -> None:
    tile = draw(10, 10, [(0, 0, 10, 10)])
    rng = np.random.default_rng(0)
    centres = np.array([module.mosaic([tile] * 4, 10, rng).boxes[0, 2:] for _ in range(400)])
    assert centres.min() == 5 and centres.max() == 14
    assert centres.mean() == pytest.approx(9.5, abs=0.4)


@pytest.mark.parametrize(
    ("capacity", "eviction", "pushed", "kept"),
    [
        (0, "oldest", 5, []),
        (0, "random", 5, []),
        (3, "oldest", 2, [0, 1]),
        (3, "oldest", 5, [2, 3, 4]),
        (3, "random", 3, [0, 1, 2]),
    ],
)
def test_cache(capacity: int, eviction: str, pushed: int, kept: list[int]) -> None:
    rng = np.random.default_rng(0)
    cache = module.SampleCache(capacity, eviction)
    for value in range(pushed):
        cache.push(plain(1, 1, value), rng)
    assert len(cache) == len(kept)
    assert sorted(int(sample.image[0, 0, 0]) for sample in cache.draw(9, rng)) == kept


def test_random_eviction_keeps_the_newest_and_any_of_the_others() -> None:
    survivors = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cache = module.SampleCache(4, "random")
        for value in range(5):
            cache.push(plain(1, 1, value), rng)
        survivors += [int(sample.image[0, 0, 0]) for sample in cache.draw(4, rng)]
    counts = np.bincount(survivors)
    assert counts[4] == 60
    assert all(30 < count < 57 for count in counts[:4])


def test_partners_are_different_and_any() -> None:
    rng = np.random.default_rng(0)
    cache = module.SampleCache(6, "oldest")
    for value in range(6):
        cache.push(plain(1, 1, value), rng)
    drawn = [[int(sample.image[0, 0, 0]) for sample in cache.draw(3, rng)] for _ in range(100)]
    assert all(len(set(values)) == 3 for values in drawn)
    assert set(np.concatenate(drawn)) == set(range(6))


def test_mixup_beta_blends_by_a_ratio_near_one_half() -> None:
    first, second = draw(40, 30, [(0, 0, 20, 20)], [0]), draw(40, 30, [(10, 10, 40, 30)], [1])
    black, white = (
        Sample(np.full((30, 40, 3), v, np.uint8), s.boxes, s.labels) for v, s in ((0, first), (200, second))
    )
    rng = np.random.default_rng(0)
    ratios = [1 - module.mixup_beta(black, white, 32, rng).image[0, 0, 0] / 200 for _ in range(600)]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.01)
    assert np.std(ratios) == pytest.approx((4 * 65) ** -0.5, rel=0.1)  # the standard deviation of Beta(32, 32)

    narrow = [1 - module.mixup_beta(black, white, 8, rng).image[0, 0, 0] / 200 for _ in range(600)]
    assert np.std(narrow) == pytest.approx((4 * 17) ** -0.5, rel=0.1)

    mixed = module.mixup_beta(first, second, 32, np.random.default_rng(7))
    ratio = np.random.default_rng(7).beta(32, 32)
    expected = ratio * first.image.astype(float) + (1 - ratio) * second.image
    np.testing.assert_allclose(mixed.image, expected, atol=0.51)
    np.testing.assert_array_equal(mixed.boxes, [[0, 0, 20, 20], [10, 10, 40, 30]])
    assert mixed.labels.tolist() == [0, 1]


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.0, 1.0), (1.6, 1.6), (0.8, 1.6)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_mixup_average_moves_the_boxes_of_the_second_picture(scale: tuple[float, float], seed: int) -> None:
    first = Sample(np.zeros((100, 100, 3), np.uint8), np.array([[1, 2, 3, 4]], np.float32), np.array([5]))
    second = draw(100, 60, [(30, 20, 60, 50)], [2])
    result = module.mixup_average(first, second, scale, np.random.default_rng(seed))
    assert result.image.shape == (100, 100, 3)
    assert result.boxes[0].tolist() == [1, 2, 3, 4] and result.labels[0] == 5
    seen = measure(np.minimum(result.image.astype(int) * 2, 255).astype(np.uint8), 2)
    if seen is None:
        assert result.labels.tolist() == [5]
    else:
        np.testing.assert_allclose(result.boxes[1], seen, atol=1.6)


def test_mixup_average_mirrors_half_of_the_time_and_shifts() -> None:
    first = plain(100, 100, 0)
    second = draw(100, 100, [(0, 0, 20, 20)], [2])
    rng = np.random.default_rng(0)
    whole = np.array([module.mixup_average(first, second, (1, 1), rng).boxes[0] for _ in range(200)])
    assert set(whole[:, 0]) == {0, 80}
    assert np.mean(whole[:, 0] == 0) == pytest.approx(0.5, abs=0.12)
    small = np.array([module.mixup_average(first, second, (0.5, 0.5), rng).boxes[0] for _ in range(200)])
    assert (small[:, 1].min(), small[:, 1].max()) == pytest.approx((0, 50), abs=1)

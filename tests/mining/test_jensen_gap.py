from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from mining_data import class_maps, golden, golden_facts, yolo_logits
from torch import Tensor

from ymir_tmi.mining.jensen_gap import Region, class_scores, gap_bound, heat_map

GOLDEN = golden("aldd_yolov5")
FACTS = golden_facts("aldd_yolov5")
CASES = sorted(key.removesuffix("/score") for key in GOLDEN if key.endswith("/score") and not key.startswith("big640"))


def slow_gap(maps: list[Tensor], input_size: tuple[int, int], region: Region) -> Tensor:
    """Return (C, h, w) as section 3.1 of the spec says it, in float64, one class at a time."""
    rows, columns = slice(region.top, region.top + region.height), slice(region.left, region.left + region.width)
    gaps = []
    for c in range(maps[0].shape[1]):
        enlarged = [F.interpolate(level[None, :, c].double(), input_size, mode="bilinear") for level in maps]
        p = torch.cat(enlarged, 1)[:, :, rows, columns]
        entropy_of_mean = binary_entropy(mean_of_window(p)).sum(1)
        gaps.append(entropy_of_mean - mean_of_window(binary_entropy(p)).sum(1))
    return torch.cat(gaps)


def slow_scores(maps: list[Tensor], input_size: tuple[int, int], region: Region) -> npt.NDArray[np.float64]:
    gaps = slow_gap(maps, input_size, region)
    cell = (min(32, region.height), min(32, region.width))
    scores: npt.NDArray[np.float64] = F.max_pool2d(gaps, cell).mean((1, 2)).numpy()
    return scores


def mean_of_window(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False)


def binary_entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p) + torch.special.entr(1 - p)


def random_maps(
    input_size: tuple[int, int], anchors: int, classes: int, low: float, high: float, *, peaks: int = 0, seed: int = 0
) -> list[Tensor]:
    """Return maps of strides 8, 16, 32 with uniform logits, and a few sure cells."""
    draw = torch.Generator().manual_seed(seed)
    maps = []
    for stride in (8, 16, 32):
        height, width = input_size[0] // stride, input_size[1] // stride
        logits = torch.rand(anchors, classes, height, width, generator=draw) * (high - low) + low
        for _ in range(peaks):
            cell = [int(torch.randint(n, (1,), generator=draw)) for n in logits.shape]
            logits[tuple(cell)] = 2.0
        maps.append(logits.sigmoid())
    return maps


def whole(input_size: tuple[int, int]) -> Region:
    return Region(0, 0, input_size[1], input_size[0])


@pytest.mark.parametrize("case", CASES)
def test_equals_golden(case: str) -> None:
    shape = FACTS[case]["net_input_shape"]
    size = (shape, shape) if isinstance(shape, int) else tuple(shape)
    weights = GOLDEN[f"{case}/weights_used"].astype(np.float64)
    for image, expected in enumerate(GOLDEN[f"{case}/score"]):
        maps = [class_maps(GOLDEN[f"{case.split('/')[0]}/logits{level}"][image]) for level in range(3)]
        scores = class_scores(maps, size, whole(size), weights)
        assert scores @ weights == pytest.approx(float(expected), rel=1e-4)
        if (weights == 1).all():
            np.testing.assert_allclose(scores, GOLDEN[f"{case}/per_class"][image], atol=1e-5)


def test_equals_golden_at_640_pixels() -> None:
    logits = [yolo_logits(f"aldd/big640/{level}", 3, side, side, 3) for level, side in enumerate((80, 40, 20))]
    digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in logits]
    assert digests == FACTS["big640/inputs"]["sha256"]
    scores = class_scores([class_maps(array[0]) for array in logits], (640, 640), whole((640, 640)))
    np.testing.assert_allclose(scores, GOLDEN["big640/w=none/per_class"][0], atol=1e-5)
    assert scores.sum() == pytest.approx(float(GOLDEN["big640/w=none/score"][0]), rel=1e-4)


def test_equals_golden_of_a_map_that_needs_no_enlarging() -> None:
    p = torch.from_numpy(GOLDEN["heatmap/p"][0])[:, None]
    [score] = class_scores([p], (70, 101), whole((70, 101)))
    assert score == pytest.approx(float(GOLDEN["heatmap/calc_unc_val"][0]), rel=1e-4)


@pytest.mark.parametrize(
    "low, high, peaks",
    [
        (-3, 1, 0),  # nothing can be left out
        (-10, -6, 3),  # a trained detector: little but a few objects
        (-18, -13, 1),  # most cells can be left out
        (-40, -30, 0),  # nothing anywhere
    ],
)
@pytest.mark.parametrize("anchors, classes", [(3, 2), (1, 20)])
def test_equals_the_obvious_way(low: float, high: float, peaks: int, anchors: int, classes: int) -> None:
    size = (192, 256)
    maps = random_maps(size, anchors, classes, low, high, peaks=peaks)
    scores, expected = class_scores(maps, size, whole(size)), slow_scores(maps, size, whole(size))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.sum() == pytest.approx(expected.sum(), rel=1e-4, abs=1e-12)


def test_weights_do_not_spoil_the_bound_on_what_is_left_out() -> None:
    size = (192, 256)
    strong, weak = (random_maps(size, 1, 1, low, low + 4, peaks=1, seed=int(-low)) for low in (-3.0, -16.0))
    maps = [torch.cat(pair, 1) for pair in zip(strong, weak, strict=True)]
    weights = np.array([0.0, 1.0])
    expected = slow_scores(weak, size, whole(size))
    assert class_scores(maps, size, whole(size), weights)[1] == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.parametrize(
    "region",
    [
        Region(0, 40, 256, 112),  # bars above and below
        Region(29, 0, 199, 192),  # bars left and right, of odd widths
        Region(0, 100, 256, 9),  # lower than a cell
        Region(5, 7, 3, 4),  # smaller than a window
    ],
)
def test_scores_a_region_only(region: Region) -> None:
    size = (192, 256)
    maps = random_maps(size, 2, 3, -4, 1)
    np.testing.assert_allclose(class_scores(maps, size, region), slow_scores(maps, size, region), atol=1e-6)


def test_what_lies_in_the_bars_is_not_scored() -> None:
    size, region = (192, 256), Region(0, 64, 256, 64)
    maps = random_maps(size, 1, 2, -6, -2)
    changed = [level.clone() for level in maps]
    for level, stride in zip(changed, (8, 16, 32), strict=True):
        level[:, :, : 64 // stride - 1] = 0.5  # the last row of cells above the picture still meets its first pixels
        level[:, :, 128 // stride + 1 :] = 0.9
    np.testing.assert_array_equal(class_scores(maps, size, region), class_scores(changed, size, region))
    assert not np.allclose(class_scores(maps, size, whole(size)), class_scores(changed, size, whole(size)))


def test_the_maps_are_left_as_they_are() -> None:
    maps = random_maps((128, 128), 1, 3, -3, 1)
    before = [level.clone() for level in maps]
    first = class_scores(maps, (128, 128), whole((128, 128)))
    heat_map(maps, (128, 128), whole((128, 128)))
    assert all(torch.equal(level, copy) for level, copy in zip(maps, before, strict=True))
    np.testing.assert_array_equal(class_scores(maps, (128, 128), whole((128, 128))), first)


@pytest.mark.parametrize("region", [Region(0, 0, 160, 128), Region(0, 12, 160, 99)])
def test_heat_map_is_the_weighted_gap_at_every_pixel(region: Region) -> None:
    maps = random_maps((128, 160), 2, 3, -4, 1)
    weights = np.array([1.0, 0.5, 2.0])
    expected = torch.einsum("c,chw->hw", torch.from_numpy(weights), slow_gap(maps, (128, 160), region))
    values = heat_map(maps, (128, 160), region, weights)
    assert values.shape == (region.height, region.width)
    np.testing.assert_allclose(values, expected.numpy(), atol=2e-6)


def test_heat_map_is_brightest_where_sure_and_unsure_meet() -> None:
    level = torch.full((1, 1, 16, 16), 1e-4)
    level[0, 0, 4, 12] = 0.99
    values = heat_map([level], (128, 128), whole((128, 128)))
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert abs(y - 36) < 10 and abs(x - 100) < 10  # the cell's centre, in pixels
    assert values[80:, :60].max() < 1e-3


@pytest.mark.parametrize("largest", [1e-6, 1e-3, 0.03, 0.2, 0.5, 0.9, 1.0])
def test_no_gap_exceeds_its_bound(largest: float) -> None:
    # The largest gap of values in [0, largest] is that of a mixture of the two ends.
    share = torch.linspace(0, 1, 20001, dtype=torch.float64)
    gap = binary_entropy(share * largest) - share * binary_entropy(torch.tensor(largest, dtype=torch.float64))
    assert gap.max() <= gap_bound(torch.tensor(largest, dtype=torch.float64))


def test_a_flat_map_has_no_score() -> None:
    maps = [torch.full((1, 2, side, side), 0.3) for side in (16, 8)]
    np.testing.assert_allclose(class_scores(maps, (128, 128), whole((128, 128))), 0, atol=1e-6)

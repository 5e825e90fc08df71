from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import golden, make_result

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.mining.scores.ripu import Ripu, region_scores, separate_peaks
from ymir_tmi.pool.consumer import ImageResult, Row

GOLDEN = golden("ripu")
CASES = [(case, radius) for case in ("c2", "c5", "c19") for radius in (1, 2)]


def result_of(probabilities: npt.NDArray[np.float32]) -> ImageResult:
    size = (probabilities.shape[2], probabilities.shape[1])
    return replace(make_result(size=size), probabilities=torch.from_numpy(probabilities))


def row_of(probabilities: npt.NDArray[np.float32], **settings: object) -> Row:
    asked = MineSettings.model_validate({"data": [], "algorithm": "ripu", **settings})
    names = [str(number) for number in range(len(probabilities))]
    [row] = create_algorithm(asked, names, task="semantics").consume([result_of(probabilities)])
    return row


@pytest.mark.parametrize("case, radius", CASES)
def test_maps_equal_golden(case: str, radius: int) -> None:
    for image, probabilities in enumerate(GOLDEN[f"{case}/prob"]):
        p = torch.from_numpy(probabilities)
        golden_maps = (GOLDEN[f"{case}/r{radius}/{name}"][image, 0] for name in ("score_map", "spec_score_map"))
        for expected, zero_padding in zip(golden_maps, (True, False), strict=True):
            ours = region_scores(p, radius, zero_padding=zero_padding)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case, radius", CASES)
def test_squares_equal_golden(case: str, radius: int) -> None:
    for image, probabilities in enumerate(GOLDEN[f"{case}/prob"]):
        row = row_of(probabilities, region_radius=radius)
        expected = GOLDEN[f"{case}/r{radius}/spec_greedy_y_x_score"][image]
        height, width = probabilities.shape[1:]
        for region, (y, x, value) in zip(row["regions"], expected, strict=True):
            left, top, right, bottom = region["box"]
            assert (left, right) == (max(0, x - radius), min(width, x + radius + 1))
            assert (top, bottom) == (max(0, y - radius), min(height, y + radius + 1))
            assert region["score"] == pytest.approx(value, abs=1e-5)
        assert row["score"] == pytest.approx(GOLDEN[f"{case}/r{radius}/spec_image_score_top3"][image], abs=3e-5)
        port = row_of(probabilities, region_radius=radius, compat="mmseg")
        assert port["score"] == pytest.approx(GOLDEN[f"{case}/r{radius}/image_score_top3"][image], abs=3e-5)


@pytest.mark.parametrize("case", ["uniform", "onehot"])
def test_constant_maps_score_nothing_and_never_less(case: str) -> None:
    [probabilities] = GOLDEN[f"{case}/prob"]
    np.testing.assert_allclose(region_scores(torch.from_numpy(probabilities), 1), 0, atol=1e-9)
    assert row_of(probabilities)["score"] == 0


def two_junctions() -> npt.NDArray[np.float32]:
    """Sure of class 0, but for two places where three unsure classes meet; the first is the less sure one."""
    p = np.tile(np.float32([0.98, 0.01, 0.01]), (40, 60, 1))
    p[9:11, 9:11], p[10, 10] = [0.34, 0.35, 0.31], [0.33, 0.33, 0.34]
    p[29:31, 44:46], p[30, 45] = [0.38, 0.37, 0.25], [0.4, 0.2, 0.4001]
    return np.ascontiguousarray(p.transpose(2, 0, 1))


def test_regions_are_not_neighbours_of_one_peak() -> None:
    p = two_junctions()
    regions = row_of(p, top_regions=2)["regions"]
    assert [region["box"][0] // 20 for region in regions] == [0, 2]
    peaks = region_scores(torch.from_numpy(p), 1, zero_padding=True).flatten().topk(2).indices.numpy()
    assert {int(peak) % 60 // 20 for peak in peaks} == {0}  # as earlier programs chose


@pytest.mark.parametrize("radius", [1, 3])
def test_squares_do_not_overlap(radius: int) -> None:
    covered = np.zeros((48, 64), int)
    row = row_of(GOLDEN["c5/prob"][0], region_radius=radius, top_regions=40)
    for region in row["regions"]:
        left, top, right, bottom = region["box"]
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1 and len(row["regions"]) > 10


def test_the_border_counts_like_the_middle() -> None:
    """A map whose places are all alike, once in the middle and once in the corner."""
    values = np.indices((30, 30)).sum(0) % 2
    p = np.stack([np.where(values, 0.6, 0.4), np.where(values, 0.4, 0.6)]).astype(np.float32)
    ours, port = (region_scores(torch.from_numpy(p), 1, zero_padding=padding) for padding in (False, True))
    assert float(ours[0, 0]) == pytest.approx(float(ours[15, 15]), rel=0.02)
    assert float(port[0, 0]) == pytest.approx(float(ours[0, 0]) * 4 / 9, rel=1e-5)


def test_one_class_scores_nothing() -> None:
    assert row_of(np.ones((1, 8, 8), np.float32))["score"] == 0
    assert row_of(np.ones((1, 8, 8), np.float32), compat="mmseg")["score"] == 0


def test_more_squares_than_there_is_room_for() -> None:
    p = GOLDEN["c5/prob"][0][:, :4, :4].copy()
    row = row_of(p, top_regions=100)
    assert 1 <= len(row["regions"]) <= 4 and np.isfinite(row["score"])
    assert np.isfinite(row_of(p, top_regions=100, compat="mmseg")["score"])


def test_ambiguous_images_come_first() -> None:
    sure = np.zeros((3, 40, 60), np.float32)
    sure[0, :, :30], sure[1, :, 30:] = 1, 1  # two classes meet, and there is no doubt where
    blurred = 0.9 * sure + 0.1 / 3
    noisy = np.random.default_rng(0).dirichlet([1, 1, 1], (40, 60)).transpose(2, 0, 1).astype(np.float32)
    scores = [row_of(p)["score"] for p in (noisy, two_junctions(), blurred, sure)]
    assert scores == sorted(scores, reverse=True) and scores[2] > scores[3] == 0


def test_heat_is_the_score_of_the_square_around_a_pixel() -> None:
    ripu = Ripu(radius=1, count=3)
    heat = ripu.heat_map(result_of(two_junctions()))
    assert heat.shape == (40, 60) and heat.min() >= 0
    assert separate_peaks(heat, 1, 2)[0].value == row_of(two_junctions())["regions"][0]["score"]
    assert not heat[:, 20:40].any()


def test_numbers_that_are_none_are_refused() -> None:
    p = GOLDEN["c5/prob"][0].copy()
    p[2, 3, 4] = np.nan
    with pytest.raises(ModelError, match="the score of this image is nan"):
        row_of(p)


def test_the_form_chooses_no_regions() -> None:
    with pytest.raises(ConfigError, match="kept"):
        row_of(GOLDEN["c2/prob"][0], compat="mmseg", kept=3)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mining_data import golden, golden_facts, make_result

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.tiles import Tile, Window
from ymir_tmi.errors import ConfigError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.algorithm import Algorithm, HeatMapAlgorithm, create_algorithm
from ymir_tmi.mining.objects import ObjectAlgorithm
from ymir_tmi.mining.scores.maskal import (
    Observations,
    certainty_of,
    class_certainty,
    class_certainty_of_port,
    observe,
    port_certainty_of,
    spatial_certainty,
)
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult

UNCERTAINTY = golden("maskal_uncertainty")
OBSERVATIONS = golden("maskal_observations")
CONSTANTS = golden_facts("maskal_uncertainty")["constants"]
WIDTH, HEIGHT = CONSTANTS["W"], CONSTANTS["H"]
CASES = sorted({key.split("/")[0] for key in UNCERTAINTY if "/g0/" in key})


def found_with(
    bitmaps: npt.NDArray[Any], class_scores: npt.NDArray[Any], boxes: npt.NDArray[Any] | None = None
) -> Detections:
    masks = Masks.encode(np.asarray(bitmaps, np.uint8))
    scores = np.asarray(class_scores, np.float32).reshape(len(masks), -1)
    return Detections(
        masks.hulls() if boxes is None else boxes.astype(np.float32), scores.max(1), scores.argmax(1), scores, masks
    )


def golden_group(case: str, group: int) -> Detections:
    packed = UNCERTAINTY[f"{case}/g{group}/masks_packed"]
    bitmaps = np.unpackbits(packed, axis=1)[:, : WIDTH * HEIGHT].reshape(-1, HEIGHT, WIDTH)
    arrays = (UNCERTAINTY[f"{case}/g{group}/{name}"] for name in ("conf", "boxes"))
    return found_with(bitmaps, *arrays)


def golden_observations(case: str) -> Observations:
    groups = sorted(key.split("/")[1] for key in UNCERTAINTY if key.startswith(f"{case}/g") and key.endswith("/conf"))
    parts = [golden_group(case, number) for number in range(len(groups))]
    masks = Masks.concatenate([part.masks for part in parts if part.masks is not None])
    joined = Detections(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")),  # type: ignore[arg-type]
        class_scores=np.concatenate([part.class_scores for part in parts]),
    )
    owners = np.repeat(range(len(parts)), [len(part) for part in parts])
    return Observations(joined, masks, np.concatenate([np.arange(len(part)) for part in parts]), owners)


@pytest.mark.parametrize("case", CASES)
def test_terms_of_the_form_equal_golden(case: str) -> None:
    terms = UNCERTAINTY[f"{case}/terms_usem_umask_ubox_uspl_un_uh"]
    certainty = port_certainty_of(golden_observations(case), CONSTANTS["iterations"])
    spatial = certainty.masks * certainty.boxes
    ours = [certainty.semantic, certainty.masks, certainty.boxes, spatial, certainty.occurrence, certainty.total]
    np.testing.assert_allclose(np.stack(ours, axis=1), terms, rtol=1e-5, atol=1e-7)
    for join in ("min", "mean", "max"):
        expected = UNCERTAINTY[f"{case}/score_{join}"][0]
        assert getattr(certainty.total, join)() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def golden_passes(case: str) -> tuple[list[Detections], npt.NDArray[np.int64]]:
    """Return the detections of a golden's passes without those of two corners, and the group of every row."""
    groups = OBSERVATIONS[f"{case}/group_of_iter_det"]
    passes = []
    for number, of_pass in enumerate(groups):
        rows = np.flatnonzero(of_pass >= 0)
        detections, polygons = (OBSERVATIONS[f"{case}/it{number}/{name}"] for name in ("dets", "polygons"))
        masks = Masks.from_polygons([[polygons[row].ravel().tolist()] for row in rows], (WIDTH, HEIGHT))
        scores = detections[rows, 4:8]
        passes.append(Detections(detections[rows, :4], scores.max(1), scores.argmax(1), scores, masks))
    return passes, groups


@pytest.mark.parametrize("case", sorted(golden_facts("maskal_observations")))
def test_groups_of_the_form_equal_golden(case: str) -> None:
    facts = golden_facts("maskal_observations")[case]
    passes, groups = golden_passes(case)
    seen = observe(passes, facts["iou_thres"], worst_first=True)
    assert seen is not None
    expected = np.concatenate([of_pass[of_pass >= 0][::-1] for of_pass in groups])
    np.testing.assert_array_equal(seen.groups, expected)
    firsts = [int(np.flatnonzero(seen.groups == group)[0]) for group in range(facts["groups"])]
    np.testing.assert_array_equal(seen.masks.areas()[firsts], OBSERVATIONS[f"{case}/first_mask_area"])


def test_masks_without_pixels_are_left_out() -> None:
    bitmaps = np.zeros((2, HEIGHT, WIDTH))
    bitmaps[1, :9, :9] = 1
    seen = observe([found_with(bitmaps, np.ones((2, 1))), found_with(bitmaps[:1], np.ones((1, 1)))], 0.5)
    assert seen is not None and len(seen.found) == len(seen.masks) == 1
    assert observe([found_with(bitmaps[:1], np.ones((1, 1)))], 0.5) is None
    assert observe([], 0.5) is None


def test_spatial_certainty_equals_a_slow_version() -> None:
    seen = golden_observations("three_mixed")
    masks, boxes = spatial_certainty(seen)
    bitmaps = seen.masks.decode()
    for group in range(3):
        members = seen.groups == group
        mean = bitmaps[members].mean(0) >= 0.25
        expected = np.mean([(mask & mean).sum() / (mask | mean).sum() for mask in bitmaps[members]])
        assert masks[group] == pytest.approx(expected)
        x1, y1, x2, y2 = seen.found.boxes[members].astype(np.float64).mean(0)
        overlaps = []
        for a1, b1, a2, b2 in seen.found.boxes[members].astype(np.float64):
            shared = max(0, min(a2, x2) - max(a1, x1) + 1) * max(0, min(b2, y2) - max(b1, y1) + 1)
            overlaps.append(shared / ((a2 - a1 + 1) * (b2 - b1 + 1) + (x2 - x1 + 1) * (y2 - y1 + 1) - shared))
        assert boxes[group] == pytest.approx(np.mean(overlaps))


def test_one_class_can_be_told_apart() -> None:
    scores = np.array([[0.5], [0.9], [0.99]], np.float32)
    assert (class_certainty_of_port(scores) == 0).all()
    ours = class_certainty(scores)
    assert ours[0] == pytest.approx(0, abs=1e-6) and (np.diff(ours) > 0.1).all()


def test_low_confidence_is_not_certain() -> None:
    one_of_four = np.array([[0.9, 0, 0, 0], [0.1, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(class_certainty_of_port(one_of_four), 1)
    sure, unsure = class_certainty(one_of_four)
    assert sure == pytest.approx(1 - (-0.9 * np.log(0.9) - 0.1 * np.log(0.1)) / np.log(5))
    assert class_certainty(np.array([[0.5, 0, 0, 0]], np.float32))[0] < sure
    assert unsure == pytest.approx(sure)  # certain of the background; such detections are below the threshold


def disc(x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(columns - x, rows - y) < radius)


def image_of(passes: Sequence[Sequence[tuple[npt.NDArray[np.bool_], Sequence[float]]]]) -> ImageResult:
    """Return a result from a list of (bitmap, class scores) for each pass."""
    found = [
        found_with(np.stack([bitmap for bitmap, _ in one]), np.array([scores for _, scores in one]))
        if one
        else replace(Detections.empty(2), masks=Masks((WIDTH, HEIGHT), ()))
        for one in passes
    ]
    return replace(make_result(size=(WIDTH, HEIGHT)), passes=found)


def maskal(passes: int = 4, **settings: object) -> Algorithm:
    asked = {"data": [], "algorithm": "maskal", "passes": passes, **settings}
    return create_algorithm(MineSettings.model_validate(asked), ["cat", "dog"], task="instances")


def score(result: ImageResult, **settings: object) -> float:
    [row] = maskal(**settings).consume([result])  # type: ignore[arg-type]
    value: float = row["score"]
    return value


STEADY = image_of([[(disc(30, 30, 12), [0.97, 0.01])]] * 4)
WOBBLING = image_of([[(disc(30 + 4 * number, 30, 12 - 2 * number), [0.6, 0.4])] for number in range(4)])
RARE = image_of([[(disc(30, 30, 12), [0.97, 0.01])], [], [], []])
NOTHING = image_of([[], [], [], []])


def test_what_the_model_is_certain_of_comes_last() -> None:
    scores = [score(result) for result in (WOBBLING, STEADY, NOTHING)]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    assert score(RARE) > score(STEADY) > 0 > score(NOTHING)
    upside_down = [score(result, compat="yolov5") for result in (WOBBLING, STEADY)]
    assert upside_down == sorted(upside_down)


def test_occurrence_counts_passes_not_detections() -> None:
    twice = image_of([[(disc(30, 30, 12), [0.9, 0.0]), (disc(30, 30, 11), [0.9, 0.0])], [], [], []])
    seen = observe(list(twice.passes), 0.5)
    assert seen is not None and len(seen.found) == 2
    np.testing.assert_allclose(certainty_of(seen, 4).occurrence, [0.25])
    np.testing.assert_allclose(port_certainty_of(seen, 4).occurrence, [0.5])


def test_the_number_of_passes_is_that_of_the_settings() -> None:
    eight = image_of([*([[(disc(30, 30, 12), [0.97, 0.01])]] * 4), *([[]] * 4)])
    assert score(eight, passes=8) > score(STEADY, passes=4)
    assert score(eight, passes=8, compat="yolov5") == pytest.approx(score(STEADY, passes=4, compat="yolov5") / 2)


def test_the_least_certain_object_or_their_mean() -> None:
    two = image_of(
        [[(disc(20, 20, 10), [0.97, 0.01]), (disc(60, 40, 12 - 2 * number), [0.6, 0.4])] for number in range(4)]
    )
    [mean], [worst] = maskal().consume([two]), maskal(certainty="min").consume([two])
    objects = mean["regions"]
    assert mean["score"] == pytest.approx(np.mean([region["score"] for region in objects]))
    assert worst["score"] == objects[0]["score"] > objects[1]["score"]
    assert objects[0]["box"] == pytest.approx(np.mean([of_pass.boxes[1] for of_pass in two.passes], axis=0), abs=1e-4)
    assert "2 objects, the least certain a 'cat', seen in 4 of 4 passes" in mean["reason"]


def test_grouping_has_a_threshold_of_its_own() -> None:
    apart = image_of([[(disc(30 + 6 * number, 30, 12), [0.9, 0.0])] for number in range(4)])
    [together], [alone] = (maskal(group_iou=iou).consume([apart]) for iou in (0.3, 0.9))
    assert together["components"]["objects"] == 1 and alone["components"]["objects"] == 4


def test_heat_is_where_objects_are_unsure() -> None:
    algorithm = maskal()
    assert isinstance(algorithm, HeatMapAlgorithm)
    heat = algorithm.heat_map(RARE)
    assert heat.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(heat, disc(30, 30, 12) * score(RARE), rtol=1e-6)
    assert not algorithm.heat_map(NOTHING).any()


def test_where_objects_overlap_the_less_certain_one_is_seen() -> None:
    bitmaps = np.stack([disc(30, 30, 20), disc(45, 30, 18), disc(70, 40, 9)])
    passes = [found_with(bitmaps[: 1 + number % 3], [[0.9], [0.6], [0.7]][: 1 + number % 3]) for number in range(4)]
    result = replace(RARE, passes=passes)
    algorithm = maskal()
    assert isinstance(algorithm, ObjectAlgorithm) and isinstance(algorithm, HeatMapAlgorithm)
    objects = sorted(algorithm.objects(result), key=lambda region: region["box"][0])
    assert len(objects) == 3
    expected = (bitmaps * np.array([region["score"] for region in objects])[:, None, None]).max(0)
    np.testing.assert_allclose(algorithm.heat_map(result), expected, rtol=1e-6)


def test_objects_of_windows_are_joined_in_the_picture() -> None:
    algorithm = maskal()
    assert isinstance(algorithm, ObjectAlgorithm)
    windows = [
        replace(result, tile=Tile(Window(x, 7, WIDTH, HEIGHT), (200, 100))) for result, x in ((RARE, 0), (STEADY, 50))
    ]
    rows = algorithm.consume(windows)
    joined = algorithm.join(make_result(size=(200, 100)), rows)
    assert joined["score"] == pytest.approx((score(RARE) + score(STEADY)) / 2)
    left, top, *_ = STEADY.passes[0].boxes[0]
    assert joined["regions"][1]["box"][:2] == pytest.approx([left + 50, top + 7])


def test_the_form_has_no_options_of_its_own() -> None:
    for option in ({"certainty": "min"}, {"kept": 7}):
        with pytest.raises(ConfigError, match="has no effect here"):
            maskal(compat="yolov5", **option)  # type: ignore[arg-type]

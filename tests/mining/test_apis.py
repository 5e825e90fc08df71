from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import golden, make_detections, make_result, square_frame

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.tiles import Tile, Window
from ymir_tmi.errors import ConfigError
from ymir_tmi.mining.algorithm import Algorithm, HeatMapAlgorithm, create_algorithm
from ymir_tmi.mining.objects import ObjectAlgorithm
from ymir_tmi.mining.scores.apis import cells_inside
from ymir_tmi.pool.consumer import ImageResult, Row

GOLDEN = golden("apis")
CASES = ["n0", "n1", "n5", "n20"]


def golden_result(case: str) -> ImageResult:
    found = torch.from_numpy(GOLDEN[f"{case}/det"])
    maps = torch.einsum("nk,khw->nhw", found[:, 6:], torch.from_numpy(GOLDEN["proto"])).sigmoid()
    detections = make_detections(found[:, :4].tolist(), found[:, 4].tolist())
    return replace(make_result(size=(160, 160), frame=square_frame(160, 160), detections=detections), mask_maps=maps)


def apis(**settings: object) -> Algorithm:
    asked = MineSettings.model_validate({"data": [], "algorithm": "apis", "conf": 0, **settings})
    return create_algorithm(asked, ["cat"], task="instances")


def row_of(result: ImageResult, **settings: object) -> Row:
    [row] = apis(**settings).consume([result])
    return row


@pytest.mark.parametrize("case", CASES)
def test_the_form_equals_golden(case: str) -> None:
    assert row_of(golden_result(case), compat="yolov5")["score"] == pytest.approx(
        float(GOLDEN[f"{case}/score"]), rel=1e-4
    )


@pytest.mark.parametrize("case", CASES[1:])
def test_default_equals_golden(case: str) -> None:
    row = row_of(golden_result(case))
    assert row["score"] == pytest.approx(float(GOLDEN[f"{case}/spec_score"]), rel=1e-4)
    expected = sorted(GOLDEN[f"{case}/spec_per_instance_mean_entropy"], reverse=True)
    assert [region["score"] for region in row["regions"]] == pytest.approx(expected, rel=1e-4)
    for aggregate, value in (("max", max(expected)), ("sum", sum(expected))):
        assert row_of(golden_result(case), aggregate=aggregate)["score"] == pytest.approx(float(value), rel=1e-4)


def image_of(maps: Sequence[npt.NDArray[np.float32]], boxes: Sequence[Sequence[float]]) -> ImageResult:
    """A picture of 80 x 60 pixels that is enlarged twice; masks have a quarter of the input's resolution."""
    frame = plan_frame(80, 60, InputSpec(size=160))
    assert (frame.input_width, frame.input_height, frame.top) == (160, 128, 4)
    detections = make_detections(boxes, [0.9] * len(boxes))
    stacked = torch.from_numpy(np.array(maps, np.float32).reshape(-1, 32, 40))
    return replace(make_result(size=(80, 60), frame=frame, detections=detections), mask_maps=stacked)


def blob(x: float, y: float, sharpness: float) -> npt.NDArray[np.float32]:
    """Return the probabilities of a disc of 8 cells around a place of the map, the outline as sharp as asked for."""
    rows, columns = np.mgrid[:32, :40]
    logits = np.clip(sharpness * (4.1 - np.hypot(columns - x, rows - y)), -80, 80)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


BOX = [12.0, 10.0, 32.0, 30.0]  # around the disc at cell (11, 11)


def test_sure_objects_score_nothing_however_many() -> None:
    one, twenty = (image_of([blob(11, 11, 1000)] * count, [BOX] * count) for count in (1, 20))
    assert row_of(one)["score"] == row_of(twenty)["score"] == pytest.approx(0, abs=1e-6)
    apart = image_of([blob(11, 11, 1000), blob(29, 11, 1000)], [BOX, [48.0, 10.0, 68.0, 30.0]])
    assert row_of(apart, compat="yolov5")["score"] > 100  # earlier programs took their mean for doubt
    assert row_of(apart)["score"] == pytest.approx(0, abs=1e-6)


def test_blurred_outlines_come_first() -> None:
    scores = [row_of(image_of([blob(11, 11, sharpness)], [BOX]))["score"] for sharpness in (0.3, 1, 3)]
    assert scores == sorted(scores, reverse=True) and scores[2] > 0.01
    nothing = row_of(image_of([], []))
    assert nothing["score"] == 0 and nothing["regions"] == [] and nothing["reason"] == "nothing found"
    assert row_of(image_of([], []), compat="yolov5")["score"] == -10


def test_the_point_is_where_the_model_is_least_sure() -> None:
    doubt = blob(11, 11, 1000)
    doubt[8, 13] = 0.45  # cell (13, 8) is (26, 14) in the picture
    doubt[25, 30] = 0.5  # outside of the box
    [region] = row_of(image_of([doubt], [BOX]))["regions"]
    assert region == {"box": BOX, "point": [27, 15], "label": "cat", "score": pytest.approx(region["score"])}
    x, y = np.array(region["point"]) + 0.5
    assert (int(x * 2 / 4), int((y * 2 + 4) / 4)) == (13, 8)


def test_cells_of_boxes() -> None:
    boxes = np.array([[2.0, 1.5, 5.0, 4.5], [-3, -3, 99, 99], [7.2, 7.2, 7.4, 7.4], [30, 30, 40, 40]])
    assert cells_inside(boxes, (8, 10)).tolist() == [[2, 2, 5, 5], [0, 0, 10, 8], [8, 7, 9, 8], [9, 7, 10, 8]]


def test_detections_below_the_threshold_do_not_count() -> None:
    result = image_of([blob(11, 11, 0.3), blob(29, 11, 3)], [BOX, [48.0, 10.0, 68.0, 30.0]])
    assert result.detections is not None
    weak = replace(result.detections, scores=np.float32([0.05, 0.9]))
    strong = image_of([blob(29, 11, 3)], [[48.0, 10.0, 68.0, 30.0]])
    assert row_of(replace(result, detections=weak), conf=0.1) == row_of(strong, conf=0.1)


def test_heat_lies_on_the_outline() -> None:
    algorithm = apis()
    assert isinstance(algorithm, HeatMapAlgorithm)
    heat = algorithm.heat_map(image_of([blob(11, 11, 2)], [BOX]))
    assert heat.shape == (120, 160)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert np.hypot(x / 4 - 11.5, (y + 4) / 4 - 11.5) == pytest.approx(4, abs=1)
    assert heat.max() > 0.5 and not heat[:, 80:].any()
    assert not algorithm.heat_map(image_of([], [])).any()


def test_objects_of_windows_are_joined_in_the_picture() -> None:
    algorithm = apis()
    assert isinstance(algorithm, ObjectAlgorithm)
    left, right = (
        replace(image_of([blob(11, 11, sharpness)], [BOX]), tile=Tile(Window(x, 5, 80, 60), (140, 65)))
        for x, sharpness in ((0, 3), (60, 1))
    )
    joined = algorithm.join(make_result(size=(140, 65)), algorithm.consume([left, right]))
    alone = [row_of(image_of([blob(11, 11, sharpness)], [BOX]))["score"] for sharpness in (3, 1)]
    assert joined["score"] == pytest.approx(np.mean(alone))
    [first, second] = joined["regions"]
    assert first["box"] == [72, 15, 92, 35] and second["box"] == [12, 15, 32, 35]
    assert first["point"][0] - second["point"][0] in range(40, 81)


@pytest.mark.parametrize("option", [{"aggregate": "max"}, {"kept": 3}])
def test_the_form_has_no_options(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="has no effect here"):
        apis(compat="yolov5", **option)

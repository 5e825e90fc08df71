from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import generator, golden, make_detections, make_result

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.pool.consumer import ImageResult

GOLDEN = golden("entropy")
LISTS = sorted(key.split("/")[0] for key in GOLDEN if key.endswith("/scores"))


def result_of(confidences: npt.NDArray[np.float32]) -> ImageResult:
    found = make_detections(np.zeros((len(confidences), 4)).tolist(), confidences.tolist())
    objectness = torch.logit(torch.from_numpy(confidences).double()).view(1, 1, 1, -1)
    return replace(make_result(detections=found), raw=HeadOutput((), (), (objectness,)))


def score(result: ImageResult, **settings: object) -> float:
    asked = MineSettings.model_validate({"data": [], "algorithm": "entropy", **settings})
    [row] = create_algorithm(asked, ["thing"]).consume([result])
    value: float = row["score"]
    return value


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("aggregate", ["sum", "max"])
def test_default_equals_golden_where_all_detections_count(case: str, aggregate: str) -> None:
    confidences = GOLDEN[f"{case}/scores"]
    expected = GOLDEN[f"{case}/spec_binary_entropy_{aggregate}"]
    assert score(result_of(confidences), aggregate=aggregate, conf=0) == pytest.approx(float(expected), rel=1e-5)


def test_mean_is_the_sum_by_the_number() -> None:
    result = result_of(GOLDEN["hundred/scores"])
    assert score(result, aggregate="mean", conf=0) == pytest.approx(score(result, conf=0) / 100)


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("form, column", [("mmdet", "mmdet"), ("mmyolo", "mmyolo_thr0.1")])
def test_forms_on_detections_equal_golden(case: str, form: str, column: str) -> None:
    expected = float(GOLDEN[f"{case}/{column}"])
    if np.isnan(expected):  # a confidence of 0: an implementation that says NaN cannot be ranked
        expected = 0.5
    assert score(result_of(GOLDEN[f"{case}/scores"]), compat=form) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", ["one", "sure", "five", "hundred", "with_one", "below_thr"])
def test_form_yolov5_sums_objectness(case: str) -> None:
    expected = float(GOLDEN[f"{case}/yolov5"])
    assert score(result_of(GOLDEN[f"{case}/scores"]), compat="yolov5") == pytest.approx(expected, rel=1e-5)


def test_form_yolov5_takes_every_prior() -> None:
    logits = 1.5 * generator("entropy/raw25200").standard_normal(25200) - 5
    confidences = (1 / (1 + np.exp(-logits))).astype(np.float32)
    assert hashlib.sha256(confidences.tobytes()).hexdigest()[:16] == str(GOLDEN["raw25200/sha_of_float32"])
    expected = float(GOLDEN["raw25200/yolov5"])
    assert score(result_of(confidences), compat="yolov5") == pytest.approx(expected, rel=1e-5)


def test_form_yolov5_refuses_a_model_without_objectness() -> None:
    result = replace(make_result(), raw=HeadOutput((), ()))
    with pytest.raises(ModelError, match="no objectness"):
        score(result, compat="yolov5")


def test_background_does_not_count() -> None:
    sure = result_of(np.array([0.9], np.float32))
    with_background = result_of(np.array([0.9] + [0.1] * 1000, np.float32))
    assert score(with_background) == score(sure)


@pytest.mark.parametrize(
    "less, more",
    [
        ([], [0.9]),  # an image without detections is the least informative
        ([0.99], [0.5]),
        ([0.2], [0.4]),  # -c log2 c alone would say the opposite beyond 0.37
        ([0.6], [0.5]),
        ([0.5], [0.5, 0.5]),
    ],
)
def test_unsure_detections_rank_higher(less: list[float], more: list[float]) -> None:
    assert score(result_of(np.array(less, np.float32))) < score(result_of(np.array(more, np.float32)))


def test_certainty_has_no_entropy_and_no_nan() -> None:
    assert score(result_of(np.array([1.0, 1.0], np.float32))) == pytest.approx(0, abs=1e-9)


def test_empty_image_scores_zero() -> None:
    assert score(result_of(np.zeros(0, np.float32))) == 0


def test_rows_do_not_depend_on_neighbours() -> None:
    results = [result_of(GOLDEN[f"{case}/scores"]) for case in LISTS]
    algorithm = create_algorithm(MineSettings(data=[], algorithm="entropy"), ["thing"])
    together = algorithm.consume(results[::-1])[::-1]
    assert together == [algorithm.consume([result])[0] for result in results]


def test_reason_names_the_least_sure_detection() -> None:
    found = make_detections([[0, 0, 1, 1]] * 3, [0.9, 0.55, 0.2], [0, 1, 0], np.full((3, 2), 0.5))
    algorithm = create_algorithm(MineSettings(data=[], algorithm="entropy"), ["dog", "cat"])
    [row] = algorithm.consume([make_result(detections=found)])
    assert row["reason"] == "3 detections, the least sure 'cat' at 0.55"
    assert row["components"]["detections"] == 3


def test_aggregate_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ConfigError, match="'aggregate' has no effect"):
        create_algorithm(MineSettings(data=[], algorithm="entropy", aggregate="max", compat="mmdet"), ["thing"])

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mining_data import golden, golden_facts, make_detections, make_result
from scipy.spatial.distance import jensenshannon

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.mining.algorithm import Algorithm, create_algorithm
from ymir_tmi.mining.consistency import BETA, agreement, best_matches, jensen_shannon, two_way
from ymir_tmi.mining.scores.cald import evenly_spaced
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult

GOLDEN = golden("cald_consistency")
FACTS = golden_facts("cald_consistency")
SCENARIOS = sorted(FACTS)
COPIES = ("flip", "cutout", "rotate", "resize")


def cald(names: tuple[str, ...] = ("thing",), **settings: object) -> Algorithm:
    asked = MineSettings.model_validate({"data": [], "algorithm": "cald", **settings})
    return create_algorithm(asked, names)


def scenario(name: str) -> ImageResult:
    size = (FACTS[name]["width"], FACTS[name]["height"])
    views = {
        copy: make_detections(GOLDEN[f"{name}/{copy}/pred_boxes"], GOLDEN[f"{name}/{copy}/pred_conf"])
        for copy in COPIES
    }
    detections = make_detections(GOLDEN[f"{name}/boxes"], GOLDEN[f"{name}/conf"])
    return make_result(size=size, detections=detections, views=views)


def score(result: ImageResult, **settings: object) -> float:
    value: float = cald(**settings).consume([result])[0]["score"]  # type: ignore[arg-type]
    return value


def seen_again(found: Detections, **changed: Detections) -> ImageResult:
    """An image whose every copy shows the same detections, but for the changed copies; boxes far from the borders."""
    size = (1000, 1000)
    algorithm = cald()
    views = {view.name: replace(found, boxes=view.map_boxes(found.boxes, size)) for view in algorithm.needs.views}
    return make_result(size=size, detections=found, views={**views, **changed})


@pytest.mark.parametrize("form", ["yolov5", "mmdet", "detectron2"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_forms_equal_golden(name: str, form: str) -> None:
    expected = float(GOLDEN[f"{name}/{form}/score"])
    assert score(scenario(name), compat=form, conf=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "no_detection"])
def test_form_yolov5_adds_up_as_golden(name: str) -> None:
    [row] = cald(compat="yolov5", conf=0).consume([scenario(name)])
    totals = np.cumsum([row["components"][copy] for copy in COPIES])
    np.testing.assert_allclose(totals, GOLDEN[f"{name}/yolov5/running_total"], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "no_detection"])
def test_the_papers_metric_equals_golden(name: str) -> None:
    """The golden maps boxes as the ports do, so that its mapped boxes are given here."""
    originals = scenario(name).detections
    assert originals is not None
    distances = []
    for copy in COPIES:
        found = scenario(name).views[copy]
        mapped = GOLDEN[f"{name}/{copy}/aug_boxes"].astype(int)
        if len(found):
            gaps = np.abs(agreement(originals, found, best_matches(mapped, found.boxes)) - BETA)
            distances.append(min(1.0, gaps.min()))
        else:
            distances.append(0.0)
    np.testing.assert_allclose(distances, GOLDEN[f"{name}/spec_paper/per_aug"], rtol=1e-5)
    assert -np.mean(distances) == pytest.approx(float(GOLDEN[f"{name}/spec_paper/score"]), rel=1e-5)


@pytest.mark.parametrize("case", ["yolov4_0", "yolov4_2", "yolov4_3"])
def test_the_metric_on_class_vectors_equals_golden(case: str) -> None:
    before, now = GOLDEN[f"{case}/orig_cls"], GOLDEN[f"{case}/aug_cls"]
    originals = make_detections(GOLDEN[f"{case}/orig_boxes"], before.max(1), before.argmax(1), before)
    found = make_detections(GOLDEN[f"{case}/aug_boxes"], now.max(1), now.argmax(1), now)
    match = best_matches(originals.boxes, found.boxes)
    np.testing.assert_allclose(match.ious, GOLDEN[f"{case}/ious"].max(0), atol=1e-6)
    distance = np.abs(agreement(originals, found, match) - BETA).min()
    assert distance == pytest.approx(float(GOLDEN[f"{case}/consistency"]), rel=1e-5)


def test_divergence_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(7, 0.3), (2, 50))
    np.testing.assert_allclose(jensen_shannon(p, q), jensenshannon(p, q, axis=1) ** 2, atol=1e-12)
    assert jensen_shannon(two_way(np.array([0.0, 1.0])), two_way(np.array([1.0, 1.0]))) == pytest.approx([np.log(2), 0])


def test_the_most_informative_image_ranks_first() -> None:
    box = [[300, 300, 500, 500]]
    sure = seen_again(make_detections(box, [0.95]))  # agrees perfectly: M = 1.95
    unsure = seen_again(make_detections(box, [0.35]))  # M = 1.35, near 1.3
    assert score(sure) < score(unsure) < 0
    assert score(sure, compat="yolov5") > score(unsure, compat="yolov5"), "the ports ranked the other way round"


def test_the_number_of_boxes_is_not_what_is_scored() -> None:
    one = make_detections([[300, 300, 500, 500]], [0.9])
    many = make_detections([[300, 300, 500, 500]] * 20, [0.9] * 20)
    assert score(seen_again(many)) == pytest.approx(score(seen_again(one)))
    assert score(seen_again(many), compat="mmdet") > 5 * score(seen_again(one), compat="mmdet")


def test_a_changed_class_is_a_disagreement() -> None:
    sure = np.array([[0.9, 0.02]])
    dog = make_detections([[300, 300, 500, 500]], [0.9], [0], sure)
    stays = seen_again(dog)
    cat = replace(stays.views["flip"], labels=np.array([1]), class_scores=sure[:, ::-1])
    [unchanged, changed] = cald(("dog", "cat")).consume([stays, seen_again(dog, flip=cat)])
    divergence = jensenshannon(sure[0] / sure.sum(), sure[0, ::-1] / sure.sum()) ** 2
    assert unchanged["components"]["flip"] == pytest.approx(0.6)
    assert changed["components"]["flip"] == pytest.approx(abs(1 + 0.9 * (1 - divergence) - BETA))
    assert changed["score"] > unchanged["score"]


@pytest.mark.parametrize(
    "copy, distance",
    [
        (Detections.empty(1), 0.0),  # everything vanished: as informative as can be
        (make_detections([[0, 0, 5, 5]], [0.9]), 0.4),  # nothing overlaps: |0.9 - 1.3|
    ],
)
def test_a_copy_without_counterparts(copy: Detections, distance: float) -> None:
    found = make_detections([[300, 300, 500, 500]], [0.9])
    [row] = cald().consume([seen_again(found, rotate=copy)])
    assert row["components"]["rotate"] == pytest.approx(distance, abs=1e-6)


def test_a_distance_is_at_most_one() -> None:
    found = make_detections([[300, 300, 500, 500]], [0.15])
    nowhere = make_detections([[0, 0, 5, 5]], [0.15])
    [row] = cald().consume([seen_again(found, flip=nowhere)])
    assert row["components"]["flip"] == 1.0


def test_images_without_detections_rank_last_or_first() -> None:
    empty = scenario("no_detection")
    others = [score(scenario(name)) for name in SCENARIOS if name != "no_detection"]
    assert score(empty) == -BETA < min(others)
    assert score(empty, empty_first=True) == 0.0 >= max(others)


def test_unlikely_boxes_do_not_count() -> None:
    box = [300, 300, 500, 500]
    alone = make_detections([box], [0.9])
    crowded = make_detections([box] * 31, [0.9] + [0.05] * 30)
    assert score(seen_again(crowded)) == score(seen_again(alone))


def test_other_consumers_do_not_change_the_holes() -> None:
    """Another consumer of the pass may ask for detections of low scores; cutout must not see them."""
    image = np.full((100, 100, 3), 200, np.uint8)
    found = make_detections([[20, 20, 60, 60]], [0.9])
    with_more = make_detections([[20, 20, 60, 60], [70, 70, 99, 99]], [0.9, 0.05])
    [cutout] = [view for view in cald().needs.views if view.name == "cutout"]
    np.testing.assert_array_equal(cutout.apply(image, found, 1), cutout.apply(image, with_more, 1))


@pytest.mark.parametrize("count, kept", [(0, 0), (40, 40), (50, 50), (51, 50), (300, 50)])
def test_many_boxes_are_thinned_evenly(count: int, kept: int) -> None:
    found = make_detections(np.zeros((count, 4)), np.linspace(1, 0, count))
    rows = (1 - evenly_spaced(found).scores) * max(1, count - 1)
    assert len(rows) == kept
    if kept:
        assert rows[0] == 0 and rows[-1] == pytest.approx(count - 1)
        assert np.ptp(np.diff(rows)) <= 1.001


def test_rows_do_not_depend_on_neighbours() -> None:
    results = [scenario(name) for name in SCENARIOS]
    together = cald().consume(results[::-1])[::-1]
    assert together == [cald().consume([result])[0] for result in results]


def test_reason_tells_the_decisive_copy() -> None:
    found = make_detections([[300, 300, 500, 500]], [0.9])
    [row] = cald().consume([seen_again(found, rotate=make_detections([[300, 300, 400, 500]], [0.5]))])
    assert row["reason"].startswith("in the copy 'rotate', 'thing' 0.90 overlaps 'thing' 0.50 by 4")
    [row] = cald().consume([seen_again(found, resize=Detections.empty(1))])
    assert row["reason"] == "nothing is found in the copy 'resize'"


def test_empty_first_is_refused_where_the_form_has_none() -> None:
    with pytest.raises(ConfigError, match="'empty_first' has no effect"):
        cald(compat="mmdet", empty_first=True)


def test_the_reversed_ranking_is_worse() -> None:
    """A toy pool: the shakier a detector is on an image, the more its label would teach."""
    rng = np.random.default_rng(7)
    shakiness = rng.uniform(0, 1, 200)
    scores = np.array([score(shaky_image(float(s), rng)) for s in shakiness])
    ported = np.array([score(shaky_image(float(s), rng), compat="yolov5") for s in shakiness])
    taught = [shakiness[np.argsort(-ranking, kind="stable")[:40]].mean() for ranking in (scores, -scores, ported)]
    assert taught[0] > 0.6 > 0.4 > taught[1]
    assert taught[2] < 0.5, "the ports' ranking is worse than drawing at random"


def shaky_image(shakiness: float, rng: np.random.Generator) -> ImageResult:
    """Three objects; in each copy a box moves, and its confidence falls, the more the shakier the detector is."""
    boxes = np.array([[100, 100, 300, 300], [400, 120, 600, 320], [500, 600, 800, 850]], np.float32)
    found = make_detections(boxes, 0.95 - 0.4 * shakiness * rng.uniform(0.5, 1, 3))
    result = seen_again(found)
    views = {
        name: make_detections(
            view.boxes + rng.normal(0, 60 * shakiness, (3, 4)),
            np.clip(view.scores - 0.4 * shakiness * rng.uniform(0, 1, 3), 0.11, 1),
        )
        for name, view in result.views.items()
    }
    return replace(result, views=views)

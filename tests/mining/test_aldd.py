from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import golden, golden_facts, make_result, square_frame
from torch import Tensor

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.mining.algorithm import Algorithm, create_algorithm
from ymir_tmi.mining.jensen_gap import Region, class_scores
from ymir_tmi.mining.scores.aldd import all_channels_score, parse_class_weights
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.pool.consumer import ImageResult

GOLDEN = golden("aldd_mmdet")
FACTS = golden_facts("aldd_mmdet")


def algorithm(class_names: list[str], **settings: object) -> Algorithm:
    asked = MineSettings.model_validate({"data": [], "algorithm": "aldd", **settings})
    return create_algorithm(asked, class_names)


def random_maps(height: int, width: int, classes: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(1, classes, height // stride, width // stride, generator=draw) ** 4 for stride in (8, 16, 32)]


def head_output(case: str, image: int) -> HeadOutput:
    """Split the golden's channels [reg 4, obj 1, cls C]."""
    levels = [torch.from_numpy(GOLDEN[f"{case}/maps{level}"][image : image + 1]) for level in range(3)]
    reg, obj, cls = zip(*(level.split([4, 1, level.shape[1] - 5], dim=1) for level in levels), strict=True)
    return HeadOutput(cls=cls, reg=reg, obj=obj)


@pytest.mark.parametrize("case", sorted(FACTS))
def test_form_mmdet_equals_golden(case: str) -> None:
    size = tuple(FACTS[case]["resize_shape"])
    for image, expected in enumerate(GOLDEN[f"{case}/score"]):
        assert all_channels_score(head_output(case, image), size) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("case", sorted(FACTS))
def test_default_on_the_same_head_equals_golden(case: str) -> None:
    height, width = FACTS[case]["resize_shape"]
    names = [str(c) for c in range(FACTS[case]["num_classes"])]
    for image, expected in enumerate(GOLDEN[f"{case}/spec_yolov5_style_score"]):
        raw = head_output(case, image)
        maps = [(c.sigmoid() * o.sigmoid()) for c, o in zip(raw.cls, raw.obj, strict=True)]
        [row] = algorithm(names).consume([make_result(maps=maps, frame=square_frame(width, height))])
        assert row["score"] == pytest.approx(float(expected), rel=1e-4)


def test_form_mmdet_needs_objectness() -> None:
    result = replace(make_result(), raw=HeadOutput((), ()))
    with pytest.raises(ModelError, match="no objectness"):
        algorithm(["a"], compat="mmdet").consume([result])


def test_bars_are_scored_in_the_form_yolov5_only() -> None:
    frame = plan_frame(256, 100, InputSpec(size=256))  # 14 rows of bars above and below
    maps = random_maps(frame.input_height, frame.input_width, 2)
    result = make_result(maps=maps, frame=frame)
    size = (frame.input_height, frame.input_width)
    picture = class_scores(maps, size, Region(frame.left, frame.top, 256, 100)).sum()
    everything = class_scores(maps, size, Region(0, 0, frame.input_width, frame.input_height)).sum()
    assert frame.top > 0 and picture != everything
    assert algorithm(["a", "b"]).consume([result])[0]["score"] == picture
    assert algorithm(["a", "b"], compat="yolov5").consume([result])[0]["score"] == everything


def test_rows_do_not_depend_on_neighbours_or_their_order() -> None:
    results = [make_result(position=n, maps=random_maps(64, 96, 3, seed=n)) for n in range(4)]
    aldd = algorithm(["a", "b", "c"])
    together = aldd.consume(results[::-1])[::-1]
    assert together == [aldd.consume([result])[0] for result in results]


def test_components_are_the_weighted_scores_of_the_classes() -> None:
    maps = random_maps(64, 96, 3)
    frame = square_frame(96, 64)
    plain = class_scores(maps, (64, 96), Region(0, 0, 96, 64))
    [row] = algorithm(["a", "b", "c"], class_weights=["b=3", "c=0"]).consume([make_result(maps=maps, frame=frame)])
    assert row["components"] == {"a": pytest.approx(plain[0]), "b": pytest.approx(3 * plain[1])}
    assert row["score"] == pytest.approx(plain[0] + 3 * plain[1])
    assert row["reason"].startswith("neighbouring places disagree most about 'b' (")


def test_an_image_without_anything_likely_scores_zero() -> None:
    empty = [torch.zeros(1, 2, 8, 12)]
    [row] = algorithm(["a", "b"]).consume([make_result(maps=empty)])
    assert row == {"score": 0.0, "components": {}, "reason": "no class is likely anywhere"}


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    maps = random_maps(64, 96, 2)
    maps[0][0, 1, 3, 4] = torch.nan
    with pytest.raises(ModelError, match=r"0\.jpg: the score of this image is nan"):
        algorithm(["a", "b"]).consume([make_result(maps=maps)])


@pytest.mark.parametrize(
    "assignments, weights",
    [
        ([], [1, 1]),
        (["dog=0.5"], [1, 0.5]),
        (["cat=2", "dog=0"], [2, 0]),
    ],
)
def test_class_weights(assignments: list[str], weights: list[float]) -> None:
    parsed: npt.NDArray[np.float64] = parse_class_weights(assignments, ["cat", "dog"])
    assert parsed.tolist() == weights


def test_class_weight_of_a_name_with_an_equals_sign() -> None:
    assert parse_class_weights(["a=b=3"], ["a=b"]).tolist() == [3]


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("dgo=1", "Did you mean 'dog'"),
        ("dog", "NAME=NUMBER"),
        ("dog=much", "'much' is not a number of 0 or more"),
        ("dog=-1", "'-1' is not a number of 0 or more"),
        ("dog=nan", "'nan' is not a number of 0 or more"),
    ],
)
def test_wrong_class_weights_are_explained(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_class_weights([assignment], ["cat", "dog"])


def test_class_weights_are_refused_where_the_form_has_none() -> None:
    with pytest.raises(ConfigError, match="'class_weights' has no effect"):
        algorithm(["a"], compat="mmdet", class_weights=["a=2"])


def test_heat_map_has_the_shape_of_the_resized_picture() -> None:
    frame = plan_frame(500, 200, InputSpec(size=256))
    maps = random_maps(frame.input_height, frame.input_width, 2)
    values = algorithm(["a", "b"]).heat_map(make_result(size=(500, 200), maps=maps, frame=frame))
    assert values.shape == (frame.resized_height, frame.resized_width)


def gpu_result(result: ImageResult) -> ImageResult:
    assert result.class_maps is not None
    return replace(result, class_maps=tuple(level.cuda() for level in result.class_maps))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_scores_and_heat_maps() -> None:
    names = [str(c) for c in range(20)]
    result = make_result(size=(256, 192), maps=random_maps(192, 256, 20))
    aldd = algorithm(names)
    [here], [there] = aldd.consume([result]), aldd.consume([gpu_result(result)])
    assert there["score"] == pytest.approx(here["score"], rel=1e-5)
    np.testing.assert_allclose(aldd.heat_map(gpu_result(result)), aldd.heat_map(result), atol=1e-5)

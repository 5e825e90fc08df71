from __future__ import annotations

import typing

import numpy as np
import pytest
from mining_data import make_result

from ymir_tmi.config.schema import Algorithm as AlgorithmName
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.mining.algorithm import ALGORITHMS, create_algorithm, score_row
from ymir_tmi.models.interface import Task

FORMS = [(entry.name, form, task) for entry in ALGORITHMS for task in entry.tasks for form in (None, *entry.compat)]
OF_TASK = {
    "detection": "random, entropy, aldd, cald",
    "rotated": "random, entropy, aldd, cald",
    "instances": "random, entropy, aldd, cald, apis, maskal",
    "semantics": "random, entropy, rsal, ripu",
}


def test_the_table_has_what_the_settings_offer() -> None:
    assert {entry.name for entry in ALGORITHMS} == set(typing.get_args(AlgorithmName))
    assert {option for entry in ALGORITHMS for option in entry.options} <= set(MineSettings.model_fields)


@pytest.mark.parametrize("name, form, task", [case for case in FORMS if case[2] != "rotated"])
def test_every_row_of_the_table_can_be_built(name: str, form: str | None, task: Task) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": name, "compat": form})
    algorithm = create_algorithm(settings, ["cat", "dog"], task=task)
    assert algorithm.name == name
    assert algorithm.consume([]) == []


@pytest.mark.parametrize("name", typing.get_args(AlgorithmName))
@pytest.mark.parametrize("task", OF_TASK)
def test_each_task_has_its_algorithms(name: str, task: Task) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": name})
    if name in OF_TASK[task].split(", "):
        assert create_algorithm(settings, ["cat"], task=task).name == name
    else:
        message = (
            f"algorithm: there is no algorithm '{name}' for models of task '{task}'\n  Take one of: {OF_TASK[task]}."
        )
        with pytest.raises(ConfigError) as error:
            create_algorithm(settings, ["cat"], task=task)
        assert str(error.value) == message


def test_pixels_have_their_own_entropy_without_forms() -> None:
    for wrong in ({"compat": "yolov5"}, {"aggregate": "max"}):
        settings = MineSettings.model_validate({"data": [], "algorithm": "entropy", **wrong})
        with pytest.raises(ConfigError, match=r"no form 'yolov5'|does not read it here, only 'apis' and 'entropy'"):
            create_algorithm(settings, ["road"], task="semantics")


@pytest.mark.parametrize(
    "name, message",
    [
        ("aldd", "'aldd' has no form 'yolo5'(.|\n)*Known for aldd: mmdet, yolov5"),
        ("random", "For this model, random has only its own form"),
    ],
)
def test_an_unknown_form_is_answered_with_the_known_ones(name: str, message: str) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": name, "compat": "yolo5"})
    with pytest.raises(ConfigError, match=message):
        create_algorithm(settings, [])


@pytest.mark.parametrize(
    "name, option",
    [
        ("random", {"aggregate": "max"}),
        ("aldd", {"aggregate": "mean"}),
        ("entropy", {"class_weights": ["dog=2"]}),
        ("aldd", {"empty_first": True}),
        ("entropy", {"passes": 5}),
        ("aldd", {"superpixels": "slic"}),
        ("cald", {"kept": 10}),
    ],
)
def test_an_option_of_another_algorithm_is_refused(name: str, option: dict[str, object]) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": name, **option})
    with pytest.raises(ConfigError, match="has no effect here"):
        create_algorithm(settings, ["dog"])


@pytest.mark.parametrize("name, form", [case[:2] for case in FORMS if case[2] == "rotated"])
def test_rotated_boxes_have_no_earlier_forms(name: str, form: str | None) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": name, "compat": form})
    if form is None:
        assert create_algorithm(settings, ["cat", "dog"], task="rotated").name == name
    else:
        with pytest.raises(ConfigError, match=rf"compat: form '{form}' (.|\n)*upright boxes only"):
            create_algorithm(settings, ["cat", "dog"], task="rotated")


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_names_its_image(score: float) -> None:
    with pytest.raises(ModelError, match=r"pool/7\.jpg: the score"):
        score_row(make_result(position=7), score, {}, "")


def test_rows_hold_plain_numbers() -> None:
    row = score_row(make_result(), np.float32(-0.0), {"a": np.int64(3)}, "why")
    assert str(row) == "{'score': 0.0, 'components': {'a': 3.0}, 'reason': 'why'}"

"""Settings from YAML and `key=value`, and what a mistake is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from ymir_tmi.config.load import build, override, read_yaml
from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import InferSettings, TrainSettings
from ymir_tmi.errors import ConfigError

ACCEPTED = [
    ("optimizer.lr=0.002", ("optimizer", "lr"), 0.002),
    ("optimizer.lr=2e-3", ("optimizer", "lr"), 0.002),  # YAML 1.1 reads this as text
    ("ema.enabled=false", ("ema", "enabled"), False),
    ("augment.scale=[0.1, 2]", ("augment", "scale"), (0.1, 2.0)),
    ("optimizer.clip_norm=null", ("optimizer", "clip_norm"), None),
    ("epochs=12", ("epochs",), 12),
]


@pytest.mark.parametrize(("assignment", "path", "value"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_override_changes_one_field(assignment: str, path: tuple[str, ...], value: object) -> None:
    before = Recipe().model_dump()
    after = override(Recipe(), [assignment]).model_dump()
    place = before
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert after == before


REFUSED = [
    ("optimiser.lr=1", "Did you mean 'optimizer'?"),
    ("optimizer.learning_rate=1", "there is no field 'learning_rate'"),
    ("optimizer.lr", "not of the form field=value"),
    ("optimizer=3", "'optimizer' is a group of fields"),
    ("epochs.lr=3", "'epochs' has no fields of its own"),
    ("optimizer.lr=-1", "greater than 0"),
    ("optimizer.name=adam", "'adamw' or 'sgd'"),
]


@pytest.mark.parametrize(("assignment", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_wrong_override_is_explained(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("?", r"\?")):
        override(Recipe(), [assignment])


def test_union_reports_every_allowed_form() -> None:
    with pytest.raises(ConfigError) as caught:
        build(TrainSettings, {"batch": "big"})
    assert "'batch' is 'big'" in str(caught.value)
    assert "integer" in str(caught.value) and "'auto'" in str(caught.value)


def test_unknown_setting_names_the_nearest_and_the_file() -> None:
    with pytest.raises(ConfigError, match=r"job.yaml: unknown setting 'epoch'\n  Did you mean 'epochs'\?"):
        build(TrainSettings, {"epoch": 3}, where="job.yaml")


def test_one_value_stands_for_a_list() -> None:
    settings = build(InferSettings, {"model": "m", "data": "a folder, with a comma", "classes": "cat, dog=pet"})
    assert settings.data == ["a folder, with a comma"]
    assert settings.classes == ["cat", "dog=pet"]


BROKEN_YAML = [
    (b"epochs: 3\nmodel: [a\n", "line 3"),
    (b"- a\n- b\n", "does not hold 'key: value' lines"),
    (b"\xff\xfe\x00", "not a text file"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN_YAML, ids=["unclosed list", "a list", "binary"])
def test_broken_yaml_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "job.yaml" in str(caught.value)


def test_empty_yaml_means_no_settings(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "job.yaml") == {}

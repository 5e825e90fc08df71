"""What a task is given: the kind of objects, and the file of weights that is used."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.weights import table
from ymir_tmi.ymir.codes import ObjectTypeError
from ymir_tmi.ymir.inputs import choose_weights, given_files, model_of_task, official_file, read_object_type


def profile(*types: int) -> Any:
    return SimpleNamespace(name="some", object_types=types)


@pytest.mark.parametrize(
    ("config", "types", "found"), [({"object_type": 3}, (2, 3), 3), ({"object_type": "2"}, (2,), 2), ({}, (2,), 2)]
)
def test_object_types(config: dict[str, Any], types: tuple[int, ...], found: int) -> None:
    assert read_object_type(config, profile(*types)) == found


@pytest.mark.parametrize(
    ("config", "types"), [({}, (2, 3)), ({"object_type": 4}, (2, 3)), ({"object_type": "box"}, (2,))]
)
def test_wrong_object_types(config: dict[str, Any], types: tuple[int, ...]) -> None:
    with pytest.raises(ObjectTypeError, match="object_type"):
        read_object_type(config, profile(*types))


def test_files_are_absolute_or_below_the_models(tmp_path: Path) -> None:
    names = ["/elsewhere/b.pth", "a.pth"]
    found = given_files({"model_params_path": names}, "model_params_path", tmp_path)
    assert found == [Path("/elsewhere/b.pth"), tmp_path / "a.pth"]
    assert given_files({"model_params_path": "a.pth"}, "model_params_path", tmp_path) == [tmp_path / "a.pth"]
    assert given_files({"pretrained_model_params": []}, "pretrained_model_params", tmp_path) is None
    with pytest.raises(ConfigError, match="pretrained_model_params"):
        given_files({"pretrained_model_params": 3}, "pretrained_model_params", tmp_path)


def choose(files: list[Path], folder: Path, **more: Any) -> tuple[Path, list[str]]:
    said: list[str] = []
    options = {"key": "model_params_path", "model": "yolox_tiny", "class_names": ["a"], "partial": False, **more}
    return choose_weights(files, folder, say=said.append, **options), said


def test_ours_come_first_then_the_best_then_the_newest(tmp_path: Path) -> None:
    model = create_model("yolox_tiny", class_names=["a"])
    files = [
        tmp_path / name for name in ("z.safetensors", "a.safetensors", "best_map.safetensors", "best.pth", "x.yaml")
    ]
    for age, file in enumerate(files):
        save_model(model, file)
        os.utime(file, (1000 - age, 1000 - age))
    assert choose(files, tmp_path)[0].name == "best_map.safetensors"
    assert choose([*files[:2], files[3]], tmp_path)[0].name == "z.safetensors"
    files[2].write_bytes(b"cut short")
    found, said = choose(files, tmp_path)
    assert found.name == "z.safetensors" and "best_map.safetensors" in said[0]


def test_a_checkpoint_of_another_program_is_converted(tmp_path: Path) -> None:
    model = create_model("yolox_tiny", class_names=["cat", "dog"])
    file = tmp_path / "best_bbox_mAP_epoch_3.pth"
    torch.save({"state_dict": OrderedDict(model.state_dict()), "meta": {"CLASSES": ("cat", "dog")}}, file)
    found, said = choose([tmp_path / "config.py", file], tmp_path / "out", class_names=["cat", "dog"])
    assert load_model(found).spec.class_names == ("cat", "dog") and str(file) in said[-1]
    # A training takes the rows of other classes as well: it finds out itself which of them it can use.
    again, _ = choose([file], tmp_path / "again", class_names=["dog", "cow", "owl"], partial=True)
    assert load_model(again).spec.class_names == ("cat", "dog")
    with pytest.raises(ModelError, match="does not say which model"):
        choose([file], tmp_path / "none", model=None)


@pytest.mark.parametrize("files", [[], ["config.py"], ["broken.pth"], ["broken.safetensors"]])
def test_no_weights_that_can_be_read(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(ModelError):
        choose([tmp_path / name for name in files], tmp_path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.py").touch()
    with pytest.raises(ModelError, match=r"files of the model: config\.py, best\.pth \(which is not there\)"):
        choose([tmp_path / "config.py", tmp_path / "best.pth"], tmp_path)


def test_official_weights_are_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YMIR_TMI_CACHE", str(tmp_path))
    said: list[str] = []
    assert official_file("yolox_tiny", tmp_path, said.append) is None and "from scratch" in said[0]
    row = next(row for row in table.official_weights() if row.model == "yolox_tiny")
    (tmp_path / row.file).write_bytes(b"cut short")
    assert official_file("yolox_tiny", tmp_path, said.append) is None
    assert "cannot use the official weights" in said[1]


def test_the_model_of_a_checkpoint_is_that_of_its_training(tmp_path: Path) -> None:
    assert model_of_task(tmp_path, lambda config: config["model"]) is None
    (tmp_path / "ymir-info.yaml").write_text("executor_config: {model: yolox_s}\n")
    assert model_of_task(tmp_path, lambda config: config["model"]) == "yolox_s"

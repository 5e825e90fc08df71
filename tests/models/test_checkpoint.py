from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, read_model_info, save_model, transfer_weights
from ymir_tmi.models.interface import Detector


def some_model(name: str = "rtmdet_tiny", classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return create_model(name, class_names=classes)


@pytest.mark.parametrize("name", ["rtmdet_tiny", "yolox_tiny_mmdet"])
def test_a_model_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    model = some_model(name).to(memory_format=torch.channels_last)
    smaller = model.spec.input.model_copy(update={"size": 320})
    model.spec = model.spec.model_copy(update={"input": smaller})
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == model.spec
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(some_model(classes=("Löwe", "猫")), path, licence="CC-BY-4.0", extra={"source": "runs/train-1"})
    info = read_model_info(path)
    assert info.spec.name == "rtmdet_tiny"
    assert info.spec.class_names == ("Löwe", "猫")
    assert (info.licence, dict(info.extra)) == ("CC-BY-4.0", {"source": "runs/train-1"})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(some_model(seed=1), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_model(some_model(seed=2), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def _rewrite(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return a function that changes the description and the tensors of a model file."""

    def damage(path: Path) -> None:
        save_model(some_model(), path)
        tensors = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["ymir_tmi"])
        change(content, tensors)
        safetensors.torch.save_file(tensors, path, {"ymir_tmi": json.dumps(content)})

    return damage


def _truncate(path: Path) -> None:
    save_model(some_model(), path)
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: None, "no such model file", id="missing"),
        pytest.param(lambda path: path.mkdir(), "no such model file", id="a folder"),
        pytest.param(lambda path: path.write_bytes(b""), "not a model file", id="empty"),
        pytest.param(
            lambda path: path.write_bytes(b"PK\x03\x04" * 1000), "not a model file", id="another kind of file"
        ),
        pytest.param(_truncate, "cut short", id="truncated"),
        pytest.param(
            lambda path: safetensors.torch.save_file({"a": torch.zeros(1)}, path),
            "not written by ymir-tmi",
            id="safetensors of another program",
        ),
        pytest.param(_rewrite(lambda content, _: content.update(format=2)), "Update ymir-tmi", id="newer format"),
        pytest.param(_rewrite(lambda content, _: content.pop("format")), "no format number", id="no format"),
        pytest.param(_rewrite(lambda content, _: content.pop("spec")), "damaged", id="no specification"),
        pytest.param(
            _rewrite(lambda content, _: content["spec"].update(name="rtmdet_huge")),
            "no model 'rtmdet_huge'",
            id="model that this version does not have",
        ),
        pytest.param(
            _rewrite(lambda _, tensors: tensors.update({"head.cls_pred.0.bias": torch.zeros(7)})),
            "'head.cls_pred.0.bias' is [7], expected [2]",
            id="wrong shape",
        ),
        pytest.param(
            _rewrite(lambda _, tensors: tensors.pop("head.cls_pred.0.bias")),
            "'head.cls_pred.0.bias' is nothing",
            id="a tensor is missing",
        ),
        pytest.param(
            _rewrite(lambda _, tensors: tensors.update(extra=torch.zeros(1))), "'extra' is [1]", id="one too many"
        ),
    ],
)
def test_damaged_files(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    damage(path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_transfer_copies_the_rows_of_classes_of_the_same_name(tmp_path: Path) -> None:
    source = some_model(classes=("cat", "dog", "cow"), seed=1)
    model = some_model(classes=("dog", "horse", "cat"), seed=2)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(source, tmp_path / "model.safetensors")
    report = transfer_weights(model, tmp_path / "model.safetensors")
    given, now = source.state_dict(), model.state_dict()
    for key in now:
        if key.startswith("head.cls_pred."):
            assert torch.equal(now[key][[0, 2]], given[key][[1, 0]])
            assert torch.equal(now[key][1], fresh[key][1])
        else:
            assert torch.equal(now[key], given[key])
    assert report.classes == ("dog", "cat")
    assert report.skipped == ()
    assert len(report.loaded) == sum(not key.startswith("head.cls_pred.") for key in now)


def test_transfer_copies_the_rows_of_every_anchor(tmp_path: Path) -> None:
    source = some_model("retinanet_r50_fpn", classes=("cat", "dog"), seed=1)
    model = some_model("retinanet_r50_fpn", classes=("dog", "horse"), seed=2)
    torch.nn.init.normal_(source.get_parameter("head.cls_pred.bias"))
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(source, tmp_path / "model.safetensors")
    transfer_weights(model, tmp_path / "model.safetensors")
    for key in ("head.cls_pred.weight", "head.cls_pred.bias"):
        given, now, before = (
            state[key].unflatten(0, (9, 2)) for state in (source.state_dict(), model.state_dict(), fresh)
        )
        assert torch.equal(now[:, 0], given[:, 1])
        assert torch.equal(now[:, 1], before[:, 1])


def test_transfer_copies_the_rows_behind_those_of_classes(tmp_path: Path) -> None:
    source = some_model("yolov5_n_seg", classes=("cat", "dog"), seed=1)
    model = some_model("yolov5_n_seg", classes=("dog", "horse", "cow"), seed=2)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(source, tmp_path / "model.safetensors")
    assert transfer_weights(model, tmp_path / "model.safetensors").skipped == ()
    for key in ("head.pred.0.weight", "head.pred.2.bias"):
        given = source.state_dict()[key].unflatten(0, (3, 5 + 2 + 32))
        now, before = (state[key].unflatten(0, (3, 5 + 3 + 32)) for state in (model.state_dict(), fresh))
        assert torch.equal(now[:, :5], given[:, :5]) and torch.equal(now[:, 5], given[:, 6])
        assert torch.equal(now[:, 6:8], before[:, 6:8])
        assert torch.equal(now[:, 8:], given[:, 7:])


@pytest.mark.parametrize(("ours", "theirs"), [("yolov5_n_seg", "yolov5_n"), ("yolov5_n", "yolov5_n_seg")])
def test_transfer_between_boxes_and_masks_leaves_the_predictions_out(ours: str, theirs: str, tmp_path: Path) -> None:
    save_model(some_model(theirs, seed=1), tmp_path / "model.safetensors")
    model = some_model(ours, seed=2)
    report = transfer_weights(model, tmp_path / "model.safetensors")
    heads = [name for name in model.state_dict() if name.startswith("head.")]
    assert list(report.skipped) == heads and report.loaded


def test_transfer_reports_what_does_not_fit(tmp_path: Path) -> None:
    save_model(some_model("rtmdet_s"), tmp_path / "model.safetensors")
    model = some_model("rtmdet_tiny")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = transfer_weights(model, tmp_path / "model.safetensors")
    assert "backbone.stem.0.conv.weight" in report.skipped
    assert torch.equal(model.state_dict()["backbone.stem.0.conv.weight"], before["backbone.stem.0.conv.weight"])


def test_transfer_from_a_file_of_which_nothing_fits(tmp_path: Path) -> None:
    source = some_model()
    save_model(source, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ModelError, match="nothing in this file fits"):
        transfer_weights(some_model(), tmp_path / "model.safetensors")

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from weight_servers import some_weights

from ymir_tmi.cli import app
from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, read_model_info, transfer_weights
from ymir_tmi.models.convert.coco import COCO_CLASSES
from ymir_tmi.models.convert.containers import read_checkpoint
from ymir_tmi.models.convert.fit import fit_checkpoint
from ymir_tmi.models.interface import Detector
from ymir_tmi.weights import convert as convert_module
from ymir_tmi.weights.convert import convert_checkpoint

MODEL = "yolox_tiny"


def some_model(classes: int = 3) -> Detector:
    torch.manual_seed(5)
    return create_model(MODEL, num_classes=classes)


def save(path: Path, model: Detector, *, meta: dict | None = None, **changes: torch.Tensor | None) -> Path:
    """Save a model under names that are the same here and there, with tensors replaced or, by None, left out."""
    state = OrderedDict(model.state_dict()) | {name.replace("__", "."): value for name, value in changes.items()}
    state = OrderedDict((name, value) for name, value in state.items() if value is not None)
    torch.save({"state_dict": state, "meta": meta or {}}, path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "a.pth", some_model(), meta={"CLASSES": ("cat", "dog", "cow")})


def test_what_is_written(source: Path, tmp_path: Path) -> None:
    converted = convert_checkpoint(source, tmp_path / "new" / "a.safetensors", model=MODEL)
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()
    assert converted.output == tmp_path / "new" / "a.safetensors"
    assert (converted.model, converted.class_names) == (MODEL, ("cat", "dog", "cow"))
    assert (converted.source, converted.source_sha256, converted.licence) == ("a.pth", checksum, None)
    assert (converted.new, converted.unused, converted.notes) == (0, 0, ())
    info = read_model_info(converted.output)
    assert info.licence is None
    assert info.extra == {"source": "a.pth", "source_sha256": checksum, "source_kind": "mmengine or mmcv"}
    expected = some_model().state_dict()
    for key, value in load_model(converted.output).state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert "licence of the weights: not stated" in converted.to_text()
    assert json.loads(json.dumps(converted.to_dict()))["class_names"] == ["cat", "dog", "cow"]


def test_official_weights_say_their_model_and_licence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = some_weights("https://nowhere.invalid/a.pth", source.read_bytes(), model=MODEL, file="a.pth")
    monkeypatch.setattr(convert_module, "official_weights", lambda: (row,))
    for name, given in (("by file", source), ("by name", "some")):
        converted = convert_checkpoint(given, tmp_path / f"{name}.safetensors", cache=tmp_path)
        assert (converted.model, converted.licence) == (MODEL, "MIT")
        assert read_model_info(converted.output).licence == "MIT"


def test_a_file_that_only_has_the_name_of_official_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "official_weights", lambda: (some_weights("", file="a.pth", model=MODEL),))
    with pytest.raises(ModelError, match="Give --model"):
        convert_checkpoint(source, tmp_path / "a.safetensors")
    converted = convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)
    assert converted.licence is None
    assert "another checksum" in converted.notes[0]


def test_official_weights_that_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights download yolox_s` fetches"):
        convert_checkpoint("yolox_s", tmp_path / "a.safetensors", cache=tmp_path)
    with pytest.raises(ModelError, match=r"Get yolov5n.pt yourself"):
        convert_checkpoint("yolov5n", tmp_path / "a.safetensors", cache=tmp_path)


def test_an_output_that_exists_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(ModelError, match="exists already"):
        convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)
    assert (tmp_path / "a.safetensors").read_text() == "mine"
    with pytest.raises(ModelError, match=r"ends in .safetensors"):
        convert_checkpoint(source, tmp_path / "a.pth2", model=MODEL)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neck__out__0__conv__weight": None}, "1 missing: neck.out.0.conv.weight"),
        ({"more": torch.zeros(1)}, "1 not in the model: more"),
        (
            {"neck__out__0__conv__weight": torch.zeros(5, 1)},
            "1 of another shape: neck.out.0.conv.weight ([5, 1], in the model [96, 96, 1, 1])",
        ),
    ],
)
def test_differences_are_told(changes: dict, message: str, tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", some_model(), **changes)
    with pytest.raises(ModelError) as caught:
        convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)
    assert "does not fit the model 'yolox_tiny'" in caught.value.what
    assert message in caught.value.what
    assert not (tmp_path / "a.safetensors").exists()


def test_weights_of_another_size(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        convert_checkpoint(source, tmp_path / "a.safetensors", model="yolox_s")
    assert "of another shape: backbone.stem.conv.conv.weight ([24, 12, 3, 3], in the model [32, 12, 3, 3])" in str(
        caught.value
    )
    assert ", ...\n" in str(caught.value)
    assert len(str(caught.value)) < 1500
    with pytest.raises(ModelError, match="nothing in this file"):
        convert_checkpoint(source, tmp_path / "a.safetensors", model="rtmdet_m")
    with pytest.raises(ModelError, match="Did you mean 'yolox_tiny'"):
        convert_checkpoint(source, tmp_path / "a.safetensors", model="yolox_tinny")


def test_a_backbone_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    backbone = {key: value for key, value in some_model().state_dict().items() if key.startswith("backbone.")}
    torch.save(backbone, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="--partial"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=MODEL)
    converted = convert_checkpoint(
        tmp_path / "a.pth", tmp_path / "a.safetensors", model=MODEL, class_names=["cat"], allow_partial=True
    )
    counted = [key for key in some_model().state_dict() if not key.endswith("num_batches_tracked")]
    assert converted.loaded == len(backbone)
    assert converted.new == sum(not key.startswith("backbone.") for key in counted)
    assert f"partial: {converted.new} tensors start anew, 0 of the checkpoint have no place" in converted.to_text()
    state = load_model(converted.output).state_dict()
    assert all(torch.equal(state[key], value) for key, value in backbone.items())
    again = fit_checkpoint(read_checkpoint(tmp_path / "a.pth"), MODEL, class_names=["cat"], allow_partial=True)
    assert torch.equal(again.model.state_dict()["head.cls_pred.0.weight"], state["head.cls_pred.0.weight"])
    with pytest.raises(ModelError, match="nothing in this file"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors", model="rtmdet_m", allow_partial=True)


def test_counters_of_batch_norms_may_be_missing_or_too_many(tmp_path: Path) -> None:
    source = save(
        tmp_path / "a.pth",
        some_model(),
        backbone__stem__conv__bn__num_batches_tracked=None,
        head__cls_pred__0__num_batches_tracked=torch.tensor(7),
    )
    assert not convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL).unused


# Classes


def test_classes_that_are_given(source: Path, tmp_path: Path) -> None:
    converted = convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL, class_names=["x", "y", "z"])
    assert converted.class_names == ("x", "y", "z")
    with pytest.raises(ModelError, match="2 classes are given, and this file has rows for 3"):
        convert_checkpoint(source, tmp_path / "b.safetensors", model=MODEL, class_names=["x", "y"])
    with pytest.raises(ModelError, match="there twice: 'x'"):
        convert_checkpoint(source, tmp_path / "b.safetensors", model=MODEL, class_names=["x", "y", "x"])


@pytest.mark.parametrize(
    ("meta", "names", "note"),
    [
        ({"CLASSES": ["cat", "dog", "cow"]}, ("cat", "dog", "cow"), None),
        ({"dataset_meta": {"classes": ("a", "b", "c")}, "CLASSES": None}, ("a", "b", "c"), None),
        ({"dataset_meta": {"CLASSES": {0: "a", 1: "b", 2: "c"}}}, ("a", "b", "c"), None),
        ({}, ("class_0", "class_1", "class_2"), "no names in this file"),
        ({"CLASSES": ("cat", "dog")}, ("class_0", "class_1", "class_2"), "names 2 classes and has rows for 3"),
        ({"CLASSES": {3: "a"}}, ("class_0", "class_1", "class_2"), "no names in this file"),
        ({"CLASSES": 7}, ("class_0", "class_1", "class_2"), "no names in this file"),
    ],
)
def test_classes_of_the_file(meta: dict, names: tuple[str, ...], note: str | None, tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", some_model(), meta=meta)
    converted = convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)
    assert converted.class_names == names
    assert (note or "") in "; ".join(converted.notes)
    assert bool(converted.notes) == bool(note)


@pytest.mark.parametrize("names", [("cat", "cat", "dog"), ("cat", "", "dog"), ("cat", "\x1b[31mdog", "cow")])
def test_class_names_that_are_of_no_use(names: tuple[str, ...], tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", some_model(), meta={"CLASSES": names})
    with pytest.raises(ModelError, match="--classes"):
        convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)


def test_one_class_by_its_bare_name(tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", some_model(1), meta={"CLASSES": "person"})
    assert convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL).class_names == ("person",)


def test_eighty_classes_without_names_are_those_of_coco(tmp_path: Path) -> None:
    source = save(tmp_path / "a.pth", some_model(80))
    assert convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL).class_names == COCO_CLASSES


def test_names_of_coco_are_those_of_torchvision() -> None:
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    names = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert list(COCO_CLASSES) == [name for name in names if name not in ("__background__", "N/A")]


# Training on


def test_training_on_from_a_converted_file(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "a.safetensors", model=MODEL)
    model = create_model(MODEL, class_names=["cow", "horse", "cat"])
    report = transfer_weights(model, tmp_path / "a.safetensors")
    assert (report.classes, report.skipped) == (("cow", "cat"), ())
    given = some_model().state_dict()["head.cls_pred.1.weight"]
    assert torch.equal(model.state_dict()["head.cls_pred.1.weight"][[0, 2]], given[[2, 0]])


def test_a_checkpoint_that_was_not_converted_says_how(source: Path) -> None:
    with pytest.raises(ModelError, match="ymir-tmi weights convert"):
        load_model(source)


# The command line


def test_commands(source: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["weights", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    output = tmp_path / "a.safetensors"
    text = run("convert", str(source), "--model", MODEL, "--output", str(output), "--classes", "x,y,z")
    assert text.startswith(f"wrote {output}\nmodel: yolox_tiny, ") and "classes: 3 (x, y, z)" in text
    content = run("convert", str(source), "--model", MODEL, "--output", str(tmp_path / "b.safetensors"), "--json")
    assert json.loads(content)["class_names"] == ["cat", "dog", "cow"]
    assert run("list").count("\n") == 54
    assert len(json.loads(run("list", "--json"))["weights"]) == 53
    assert "no downloaded weights" in run("verify", "--cache", str(tmp_path))


def test_verify_exits_with_1_when_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "model_final_bfca0b.pkl").write_bytes(b"unchecked")
    done = CliRunner().invoke(app, ["weights", "verify", "--cache", str(tmp_path)])
    assert (done.exit_code, "no checksum" in done.stdout) == (0, True)
    done = CliRunner().invoke(app, ["weights", "verify", "yolox_s", "--cache", str(tmp_path), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)

"""Files that cannot be run, exports that go wrong, and libraries that are missing: one message, and nothing left."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exporting_data import write_model
from torch import nn

from ymir_tmi.config.schema import EvaluateSettings, ExportSettings, InferSettings, RunSettings
from ymir_tmi.errors import ConfigError, DataError, DependencyError, ModelError
from ymir_tmi.evaluation.run import evaluate
from ymir_tmi.exporting import onnx as onnx_files
from ymir_tmi.exporting.run import export
from ymir_tmi.inference.run import infer
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.models.runtime.open import describe_file, open_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and files that were exported from it."""
    folder = tmp_path_factory.mktemp("files")
    model = write_model(folder / "model.safetensors")
    for name, settings in {
        "good.onnx": {},
        "plain.onnx": {"outputs": "plain"},
        "detections.onnx": {"outputs": "detections"},
        "good.xml": {"to": "openvino"},
        "good.torchscript": {"to": "torchscript"},
    }.items():
        export(ExportSettings(model=model, image_size=64, output=folder / name, **settings))
    return folder


def cut(source: Path, target: Path, size: int) -> Path:
    target.write_bytes(source.read_bytes()[:size])
    return target


def relabelled(source: Path, target: Path, text: str | None) -> Path:
    model = onnx.load(source)
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key="ymir_tmi", value=text)
    onnx.save(model, target)
    return target


def without_weights(folder: Path, target: Path) -> Path:
    shutil.copy(folder / "good.xml", target)
    return target


def with_weights(folder: Path, target: Path, size: int) -> Path:
    cut(folder / "good.bin", target.with_suffix(".bin"), size)
    return without_weights(folder, target)


def foreign(folder: Path, target: Path) -> Path:
    text = (folder / "good.xml").read_text().replace("ymir_tmi", "somebody_else")
    target.write_text(text)
    shutil.copy(folder / "good.bin", target.with_suffix(".bin"))
    return target


def no_network(folder: Path, target: Path) -> Path:
    target.write_text("<annotation><object/></annotation>")
    target.with_suffix(".bin").write_bytes(b"")
    return target


Maker = Callable[[Path, Path], Path]

WRONG: dict[str, tuple[Maker, str]] = {
    "missing.onnx": (lambda folder, new: new / "none.onnx", "there is no such model file"),
    "cut.onnx": (lambda folder, new: cut(folder / "good.onnx", new / "cut.onnx", 100_000), "or it is cut short"),
    "empty.onnx": (lambda folder, new: cut(folder / "good.onnx", new / "empty.onnx", 0), "or it is cut short"),
    "foreign.onnx": (
        lambda folder, new: relabelled(folder / "good.onnx", new / "foreign.onnx", None),
        "was not written by `ymir-tmi export`",
    ),
    "damaged.onnx": (
        lambda folder, new: relabelled(folder / "good.onnx", new / "damaged.onnx", '{"format": 1'),
        "the description in this file is damaged",
    ),
    "incomplete.onnx": (
        lambda folder, new: relabelled(folder / "good.onnx", new / "incomplete.onnx", '{"format": 1}'),
        "the description in this file is damaged: version: Field required",
    ),
    "newer.onnx": (
        lambda folder, new: relabelled(folder / "good.onnx", new / "newer.onnx", '{"format": 2}'),
        "this file has format 2",
    ),
    "plain.onnx": (lambda folder, new: folder / "plain.onnx", "outputs 'plain', which are for other programs"),
    "detections.onnx": (
        lambda folder, new: folder / "detections.onnx",
        "outputs 'detections', which are for other programs",
    ),
    "no weights.xml": (lambda folder, new: without_weights(folder, new / "lone.xml"), "lone.bin: there is no such"),
    "cut weights.xml": (lambda folder, new: with_weights(folder, new / "cut.xml", 100_000), "or it is cut short"),
    "empty weights.xml": (lambda folder, new: with_weights(folder, new / "empty.xml", 0), "or it is cut short"),
    "foreign.xml": (lambda folder, new: foreign(folder, new / "foreign.xml"), "was not written by `ymir-tmi export`"),
    "annotation.xml": (lambda folder, new: no_network(folder, new / "annotation.xml"), "was not written by"),
    "script.torchscript": (lambda folder, new: folder / "good.torchscript", "TorchScript files are for other programs"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_cannot_be_run(kind: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = WRONG[kind]
    with pytest.raises(ModelError) as raised:
        open_model(make(folder, tmp_path), RunSettings())
    assert message in str(raised.value)
    written = capfd.readouterr()
    assert written.out == written.err == "", "the libraries have nothing to add"


def test_a_wrong_file_leaves_no_run(folder: Path, tmp_path: Path) -> None:
    for run, kind in ((infer, InferSettings), (evaluate, EvaluateSettings)):
        write_annotations(tmp_path)
        with pytest.raises(ModelError):
            run(  # type: ignore[operator]
                kind(model=folder / "plain.onnx", data=[str(tmp_path / "val.json")], output=tmp_path / "run")
            )
        assert not (tmp_path / "run").exists()


def write_annotations(folder: Path) -> None:
    from ymir_tmi import imaging

    imaging.write_image(folder / "0.png", np.zeros((32, 32, 3), np.uint8))
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    image = {"id": 1, "file_name": "0.png", "width": 32, "height": 32}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("library", "extra", "action"),
    [
        ("onnxruntime", "export", lambda folder: open_model(folder / "good.onnx", RunSettings())),
        ("openvino", "openvino", lambda folder: describe_file(folder / "good.xml")),
        ("onnx", "export", lambda folder: export(ExportSettings(model=folder / "model.safetensors", image_size=64))),
        (
            "onnxscript",
            "export",
            lambda folder: export(ExportSettings(model=folder / "model.safetensors", opset=18, image_size=64)),
        ),
        (
            "openvino",
            "openvino",
            lambda folder: export(ExportSettings(model=folder / "model.safetensors", to="openvino", image_size=64)),
        ),
    ],
)
def test_a_missing_library_is_named(
    library: str, extra: str, action: Callable[[Path], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyError) as raised:
        action(folder)
    assert library in str(raised.value) and f"pip install 'ymir-tmi[{extra}]'" in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "none.safetensors"}, ModelError, "there is no such model file"),
        ({"data": ["nowhere"]}, DataError, "nowhere"),
        ({"opset": 999}, ConfigError, "opset is 999"),
        ({"output": "model.safetensors/file.onnx"}, ConfigError, "cannot write this file"),
    ],
)
def test_mistakes(settings: dict[str, Any], error: type[Exception], message: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    values = {"model": "model.safetensors", "image_size": 64, **settings}
    for name in ("model", "output"):
        if name in values:
            values[name] = folder / values[name]
    with pytest.raises(error, match=message):
        export(ExportSettings(**values))
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_computes_something_else_is_not_left(
    there: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if an exporter had got one weight wrong."""
    real = onnx_files.build_onnx

    def wrong(*arguments: Any) -> Any:
        model = real(*arguments)
        weights = next(
            tensor for tensor in model.graph.initializer if tensor.name.endswith("stage3.1.final_conv.conv.weight")
        )
        values = onnx.numpy_helper.to_array(weights).copy()
        values.flat[7] += 1
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        return model

    monkeypatch.setattr(onnx_files, "build_onnx", wrong)
    path = tmp_path / "deep" / "file.onnx"
    if there:
        path.parent.mkdir()
        path.write_text("the file of yesterday")
    with pytest.raises(ModelError) as raised:
        export(ExportSettings(model=folder / "model.safetensors", outputs="raw", image_size=[64, 96], output=path))
    message = str(raised.value)
    assert "picture 1 of 4 (input of 64 x 96 pixels, height x width)" in message
    assert "'cls_" in message and "0.001 is allowed" in message
    if there:
        assert [entry.name for entry in path.parent.iterdir()] == ["file.onnx"]
        assert path.read_text() == "the file of yesterday"
    else:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript"])
def test_an_interrupted_export_leaves_nothing(
    to: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ymir_tmi.exporting.run.check_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(ExportSettings(model=folder / "model.safetensors", to=to, image_size=64, output=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_has_diverged_is_refused(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model.safetensors")
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    nn.init.constant_(first.weight, float("nan"))
    save_model(model, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match="the outputs of this model are not numbers"):
        export(ExportSettings(model=tmp_path / "nan.safetensors", image_size=64))
    assert [path.name for path in tmp_path.iterdir()] == ["nan.safetensors"]


def test_what_pytorch_cannot_export_is_said_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **options: Any) -> None:
        raise torch.onnx.errors.UnsupportedOperatorError("aten::mystery", 17, None)

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ModelError, match=r"cannot export this model to opset 17: .*aten::mystery"):
        export(ExportSettings(model=folder / "model.safetensors", image_size=64, output=tmp_path))
    assert list(tmp_path.iterdir()) == []

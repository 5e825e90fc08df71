"""Rotated boxes in exported files: the same detections as the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from exporting_data import dense_of, raw_of, some_inputs, write_model, write_pictures

from ymir_tmi.config.schema import ExportSettings, InferSettings, RunSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting import check
from ymir_tmi.exporting.detections import MismatchError
from ymir_tmi.exporting.run import export
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.rotated import aligned_rotated_iou, from_corners
from ymir_tmi.inference.run import infer
from ymir_tmi.models.interface import Detections
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.onnx_runtime import OnnxFile
from ymir_tmi.models.runtime.open import open_model

SIZE = 96
FORMS = [f"{outputs}.{suffix}" for outputs in ("raw", "decoded") for suffix in ("onnx", "xml")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and files that were exported from it, for inputs of any size and number."""
    folder = tmp_path_factory.mktemp("files")
    model = write_model(folder / "model.safetensors", "rotated_rtmdet_tiny")
    for form in FORMS:
        outputs, suffix = form.split(".")
        to = "openvino" if suffix == "xml" else "onnx"
        settings: dict[str, Any] = {"to": to, "outputs": outputs, "output": folder / form}
        export(ExportSettings(model=model, image_size=SIZE, dynamic_size=True, dynamic_batch=True, **settings))
    return folder


def assert_same_rotated(ours: Detections, theirs: Detections) -> None:
    """Find for every detection of theirs another one of ours, without regard to how the box is written."""
    overlap = aligned_rotated_iou(torch.from_numpy(ours.boxes)[:, None], torch.from_numpy(theirs.boxes)).numpy()
    away = np.maximum(1 - overlap, np.abs(ours.scores[:, None] - theirs.scores))
    away[ours.labels[:, None] != theirs.labels] = np.inf
    assert sorted(away.argmin(1).tolist()) == list(range(len(theirs)))
    assert away.min(1).max() < 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 160)])
def test_a_file_finds_what_the_model_finds(form: str, height: int, width: int, folder: Path) -> None:
    images = some_inputs(3, height, width)
    runtime = open_model(folder / form, RunSettings(precision="fp32", device="cpu"))[0]
    expected = dense_of(folder / "model.safetensors", images)
    raw = runtime.run(images)
    dense = runtime.decode(raw)
    assert dense.boxes.shape == expected.boxes.shape == (3, height * width * 21 // 1024, 5)
    assert dense.level_sizes == expected.level_sizes
    frames = [plan_frame(width, height, InputSpec(size=max(height, width)))] * 3
    found = detect(dense, frames, runtime.spec.postprocess)
    theirs = detect(expected, frames, runtime.spec.postprocess)
    assert min(len(each) for each in theirs) > 20
    for one, other in zip(found, theirs, strict=True):
        assert one.is_rotated
        assert_same_rotated(one, other)
    assert [level.shape[1:3] for level in runtime.class_maps(raw)] == [(1, 3)] * 3


def infer_detections(model: Path, output: Path, pictures: Path) -> list[Detections]:
    """Return what the verb writes for each picture."""
    size = {"image_size": SIZE, "precision": "fp32", "device": "cpu"}
    done = infer(InferSettings(model=model, data=[str(pictures)], output=output, conf=0.1, **size))
    content = json.loads(RunLayout(done.run).predictions.read_text())
    rows: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for row in content["annotations"]:
        rows[row["image_id"]].append(row)
    return [
        Detections(
            from_corners(torch.tensor([row["segmentation"][0] for row in found]).view(-1, 4, 2)).numpy(),
            np.array([row["score"] for row in found], np.float32),
            np.array([row["category_id"] for row in found]),
            np.zeros((len(found), 3), np.float32),
        )
        for found in rows.values()
    ]


@pytest.mark.parametrize("form", ["raw.onnx", "decoded.xml"])
def test_infer_writes_what_it_writes_with_the_model(form: str, folder: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    expected = infer_detections(folder / "model.safetensors", tmp_path / "model", tmp_path / "pictures")
    found = infer_detections(folder / form, tmp_path / "file", tmp_path / "pictures")
    assert sum(len(each) for each in expected) > 50
    for one, other in zip(found, expected, strict=True):
        assert_same_rotated(one, other)


def test_raw_outputs_have_names_and_the_angle_is_among_them(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "raw.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == [f"{kind}_{level}" for kind in ("cls", "reg", "angle") for level in range(3)]
    images = some_inputs(1, SIZE, SIZE)
    arrays = session.run(["angle_1"], {"images": images.transpose(0, 3, 1, 2).astype(np.float32)})
    expected = raw_of(folder / "model.safetensors", images).angle[1]
    assert expected.shape == (1, 1, 6, 6)
    np.testing.assert_allclose(arrays[0], expected.numpy(), atol=1e-4)


def test_plain_maps_are_written_too(folder: Path, tmp_path: Path) -> None:
    settings = {"outputs": "plain", "output": tmp_path / "plain.onnx"}
    done = export(ExportSettings(model=folder / "model.safetensors", image_size=SIZE, **settings))
    assert done.info.output_names[-3:] == ("angle_0", "angle_1", "angle_2")


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript"])
def test_detections_are_refused(to: str, folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"to": to, "outputs": "detections", "output": tmp_path}
    with pytest.raises(ConfigError, match="no form has an NMS for rotated boxes") as caught:
        export(ExportSettings(model=folder / "model.safetensors", **settings))
    assert "--outputs decoded" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def compare(given: list[float], expected: list[float], folder: Path) -> float:
    info = OnnxFile.read_info(folder / "decoded.onnx")
    arrays = [np.array([[given]], np.float32), np.zeros((1, 1, 3), np.float32)]
    tensors = (torch.tensor([[expected]]), torch.zeros(1, 1, 3))
    return check._compare(info, arrays, tensors, 1e-3)["boxes"]


def test_the_check_knows_that_half_a_turn_is_none(folder: Path) -> None:
    assert compare([9.0, 8.0, 7.0, 6.0, -1.57079], [9.0, 8.0, 7.0, 6.0, 1.57079], folder) < 1e-5
    assert compare([9.0, 8.0, 7.0, 6.0, 0.4], [9.0, 8.0, 7.0, 6.0, 0.4], folder) == 0
    with pytest.raises(MismatchError, match="boxes"):
        compare([9.0, 8.0, 7.0, 6.0, 0.4], [9.0, 8.0, 7.0, 6.0, 0.5], folder)
    with pytest.raises(MismatchError, match="boxes"):
        compare([9.0, 8.0, 7.0, 6.0, -1.57], [9.0, 8.0, 7.0, 6.0, 0.0], folder)

"""Masks from exported files: the same as the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from exporting_data import dense_of, raw_of, some_inputs, write_model

from ymir_tmi.config.schema import ExportSettings, RunSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting.run import export
from ymir_tmi.exporting.torchscript import TorchScriptFile
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.open import open_model

SIZE = 96
FORMS = [f"{outputs}.{suffix}" for outputs in ("raw", "decoded") for suffix in ("onnx", "xml")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and files that were exported from it, for inputs of any size and number."""
    folder = tmp_path_factory.mktemp("files")
    model = write_model(folder / "model.safetensors", "yolov5_n_seg")
    for form in FORMS:
        outputs, suffix = form.split(".")
        to = "openvino" if suffix == "xml" else "onnx"
        settings: dict[str, Any] = {"to": to, "outputs": outputs, "output": folder / form}
        export(ExportSettings(model=model, image_size=SIZE, dynamic_size=True, dynamic_batch=True, **settings))
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 160)])
def test_a_file_finds_the_masks_that_the_model_finds(form: str, height: int, width: int, folder: Path) -> None:
    images = some_inputs(3, height, width)
    runtime = open_model(folder / form, RunSettings(precision="fp32", device="cpu"))[0]
    expected = dense_of(folder / "model.safetensors", images)
    raw = runtime.run(images)
    dense = runtime.decode(raw)
    assert runtime.passes is None and dense.level_sizes == expected.level_sizes
    assert dense.coefficients is not None and dense.prototypes is not None
    assert dense.coefficients.shape == (3, height * width * 63 // 1024, 32)
    assert dense.prototypes.shape == (3, 32, height // 4, width // 4)
    frames = [plan_frame(2 * width, 2 * height, InputSpec(size=max(height, width)))] * 3
    # Of boxes that do not overlap, so that rounding does not decide which of them are kept.
    spec = runtime.spec.postprocess.model_copy(update={"iou_threshold": 0.1, "max_detections": 20})
    found, theirs = (detect(each, frames, spec, masks=True) for each in (dense, expected))
    filled = 0
    for one, other in zip(found, theirs, strict=True):
        assert one.masks is not None and other.masks is not None and len(one) == len(other) > 5
        away = np.abs(one.boxes[:, None] - other.boxes).max(-1) / 100 + np.abs(one.scores[:, None] - other.scores)
        away[one.labels[:, None] != other.labels] = np.inf
        partner = away.argmin(1)
        assert sorted(partner.tolist()) == list(range(len(other))) and (away.min(1) < 1e-3).all()
        differing = (one.masks.decode() != other.masks[partner].decode()).sum((1, 2))
        assert (differing <= 3 + 0.005 * other.masks[partner].areas()).all()
        filled += int((other.masks.areas() > 20).sum())
    assert filled > 5
    assert [level.shape[1:3] for level in runtime.class_maps(raw)] == [(3, 3)] * 3


def test_raw_outputs_have_names_and_prototypes_are_among_them(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "raw.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    per_level = [f"{kind}_{level}" for kind in ("cls", "reg", "obj", "coefficients") for level in range(3)]
    assert names == [*per_level, "prototypes_0"]
    images = some_inputs(1, SIZE, SIZE)
    (prototypes,) = session.run(["prototypes_0"], {"images": images.transpose(0, 3, 1, 2).astype(np.float32)})
    expected = raw_of(folder / "model.safetensors", images).prototypes[0]
    np.testing.assert_allclose(prototypes, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ("decoded", ["boxes", "scores", "coefficients", "prototypes"]),
        ("raw", ["cls_0", "cls_1", "cls_2", "reg_0", "reg_1", "reg_2", "obj_0", "obj_1", "obj_2"]),
    ],
)
def test_torchscript(outputs: str, names: list[str], folder: Path, tmp_path: Path) -> None:
    """The verb itself has compared it with the model."""
    settings: dict[str, Any] = {"to": "torchscript", "outputs": outputs, "output": tmp_path / "a.torchscript"}
    done = export(ExportSettings(model=folder / "model.safetensors", image_size=SIZE, **settings))
    assert list(done.info.output_names[: len(names)]) == names
    assert max(done.agreement.largest.values()) < 1e-3
    arrays = TorchScriptFile(done.path).run(np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert arrays[-1].shape == (1, 32, SIZE // 4, SIZE // 4)


def test_plain_maps_hold_the_prototypes(folder: Path, tmp_path: Path) -> None:
    """The reference leaves them out, so that no masks can be made (docs/specs/yolov5.md, section 14)."""
    settings = {"outputs": "plain", "output": tmp_path / "plain.onnx"}
    done = export(ExportSettings(model=folder / "model.safetensors", image_size=SIZE, **settings))
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    shapes = {output.name: output.shape for output in session.get_outputs()}
    heads = {f"head_{level}": [1, 3 * (5 + 3 + 32), side, side] for level, side in enumerate((12, 6, 3))}
    assert shapes == {"prototypes_0": [1, 32, 24, 24], **heads}


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript"])
def test_detections_are_refused(to: str, folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"to": to, "outputs": "detections", "output": tmp_path}
    with pytest.raises(ConfigError, match="masks are made from what NMS leaves") as caught:
        export(ExportSettings(model=folder / "model.safetensors", **settings))
    assert "--outputs decoded" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_an_early_opset(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"opset": 12, "outputs": "decoded", "output": tmp_path / "a.onnx"}
    done = export(ExportSettings(model=folder / "model.safetensors", image_size=SIZE, **settings))
    assert torch.tensor(list(done.agreement.largest.values())).max() < 1e-3

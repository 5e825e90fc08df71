"""ONNX files compute what their models compute, in every form; read and run here by the onnx libraries alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from exporting_data import (
    QUICK,
    assert_near,
    assert_same_detections,
    contract_models,
    decoded,
    dense_of,
    flat,
    raw_of,
    some_inputs,
    write_model,
    write_pictures,
)

from ymir_tmi.config.schema import ExportSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ModelError
from ymir_tmi.exporting.run import ExportResult, export
from ymir_tmi.models.checkpoint import load_model
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.exported import ENTRY, parse_info


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def write(model: Path, **settings: Any) -> ExportResult:
    return export(ExportSettings(model=model, **settings))


def run(path: Path, inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    arrays: list[npt.NDArray[Any]] = session.run(None, {wanted.name: inputs})
    return arrays


def planes(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)


def opset(path: Path) -> int:
    return next(entry.version for entry in onnx.load(path).opset_import if not entry.domain)


@pytest.mark.parametrize("name", contract_models())
def test_any_size_and_any_number_of_pictures(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    stride = load_model(model).spec.input.stride
    free = {"dynamic_size": True, "dynamic_batch": True, "image_size": 4 * stride}
    raw = write(model, outputs="raw", output=tmp_path / "raw.onnx", **free)
    written = write(model, outputs="decoded", output=tmp_path / "decoded.onnx", **free)
    assert opset(raw.path) == opset(written.path) == 17
    for count, height, width in [(1, 2, 4), (3, 3, 2)]:
        pictures = some_inputs(count, height * stride, width * stride)
        assert_near(run(raw.path, planes(pictures)), flat(raw_of(model, pictures)))
        dense = dense_of(model, pictures)
        assert_near(run(written.path, planes(pictures)), decoded(dense))
        sizes = [rows * columns for rows, columns in written.info.level_sizes(height * stride, width * stride)]
        assert [written.info.anchors * size for size in sizes] == list(dense.level_sizes)


@pytest.mark.parametrize("number", [11, 13])
def test_early_opsets(number: int, model: Path, tmp_path: Path) -> None:
    result = write(model, opset=number, image_size=[64, 96], output=tmp_path)
    assert result.opset == opset(result.path) == number
    pictures = some_inputs(1, 64, 96)
    dense = dense_of(model, pictures)
    assert_near(run(result.path, planes(pictures)), [dense.boxes, dense.scores])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "retinanet_r50_fpn", "yolov5_n_seg", "yolov6_n", "yolov7_tiny"])
def test_the_exporter_for_late_opsets(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    stride = load_model(model).spec.input.stride
    result = write(model, opset=18, dynamic_size=True, dynamic_batch=True, image_size=4 * stride, output=tmp_path)
    assert result.opset == opset(result.path) == 18
    pictures = some_inputs(3, 2 * stride, 3 * stride)
    dense = dense_of(model, pictures)
    assert_near(run(result.path, planes(pictures)), decoded(dense))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "outputs"), [(20, "decoded"), (22, "raw"), (24, "plain")])
def test_late_opsets(number: int, outputs: str, model: Path, tmp_path: Path) -> None:
    result = write(model, opset=number, outputs=outputs, image_size=[64, 96], output=tmp_path)
    assert result.opset == opset(result.path) == number
    assert "Swish" not in {node.op_type for node in onnx.load(result.path).graph.node} or outputs != "plain"


def test_another_opset_than_asked_for_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.onnx.export

    def obstinate(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, **{**options, "opset_version": 16})

    monkeypatch.setattr(torch.onnx, "export", obstinate)
    with pytest.raises(ModelError, match="has written opset 16 in place of 12"):
        write(model, opset=12, image_size=64, output=tmp_path / "out" / "file.onnx")
    assert not (tmp_path / "out").exists()


def test_a_fixed_batch(model: Path, tmp_path: Path) -> None:
    result = write(model, batch=2, image_size=[64, 96], outputs="raw", output=tmp_path)
    pictures = some_inputs(2, 64, 96)
    assert_near(run(result.path, planes(pictures)), flat(raw_of(model, pictures)))
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions"):
        run(result.path, planes(some_inputs(1, 64, 96)))


@pytest.mark.parametrize(
    ("name", "number", "heads"),
    [("rtmdet_tiny", 12, "cls reg"), ("yolox_tiny", 17, "cls reg obj"), ("yolov8_n", 11, "cls dist")],
)
def test_plain_files_are_convolutions_with_names(name: str, number: int, heads: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    result = write(model, outputs="plain", opset=number, image_size=[64, 96], output=tmp_path)
    network, pictures = load_model(model), some_inputs(1, 64, 96)
    normalised = network.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)).contiguous().numpy()
    raw = raw_of(model, pictures)._asdict()
    assert_near(run(result.path, normalised), [level for kind in heads.split() for level in raw[kind]])
    assert result.info.output_names == tuple(f"{kind}_{level}" for kind in heads.split() for level in range(3))
    assert (result.info.input.channels, result.info.input.normalised) == (network.spec.input.channels, True)
    assert_plain(onnx.load(result.path).graph)


@pytest.mark.parametrize("name", ["yolov5_n", "yolov7_tiny"])
def test_plain_files_of_heads_with_anchors_have_one_map_a_level(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    result = write(model, outputs="plain", opset=12, image_size=[64, 96], output=tmp_path)
    network, pictures = load_model(model), some_inputs(1, 64, 96)
    normalised = network.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)).contiguous().numpy()
    maps = run(result.path, normalised)
    assert result.info.output_names == ("head_0", "head_1", "head_2")
    # For each of 3 anchors: 4 numbers of the box, objectness, the classes.
    assert [level.shape for level in maps] == [(1, 3 * (5 + 3), 64 // stride, 96 // stride) for stride in (8, 16, 32)]
    raw = raw_of(model, pictures)
    for level, joint in enumerate(maps):
        parts = joint.reshape(1, 3, 8, *joint.shape[2:])
        split = parts[:, :, 5:], parts[:, :, :4], parts[:, :, 4:5]
        given = [part.reshape(1, -1, *joint.shape[2:]) for part in split]
        assert_near(given, [raw.cls[level], raw.reg[level], raw.obj[level]])
    assert_plain(onnx.load(result.path).graph)


def assert_plain(graph: Any) -> None:
    used = Counter(node.op_type for node in graph.node)
    assert not used.keys() & {"Reshape", "Transpose", "Swish", "Cast", "Gather", "Exp", "Shape", "Identity"}
    assert used["Mul"] >= used["Sigmoid"], "SiLU is x * sigmoid(x)"
    last = {output.name for output in graph.output}
    assert {node.op_type for node in graph.node if node.output[0] in last} == {"Conv"}
    weights = {tensor.name for tensor in graph.initializer}
    assert all(set(node.input[1:]) <= weights for node in graph.node if node.op_type == "Conv")


@pytest.mark.parametrize(
    ("name", "number", "shape"),
    [("rtmdet_tiny", 11, None), ("yolox_tiny_mmdet", 17, [64, 96]), ("rtmdet_tiny_mmdet", 13, [64, 96])],
)
def test_detections_are_those_of_the_model(name: str, number: int, shape: list[int] | None, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    size: dict[str, Any] = {"image_size": shape or 96, "dynamic_size": not shape, "dynamic_batch": not shape}
    chosen = {"conf": 0.1, "iou": 0.5, "max_dets": 20}
    result = write(model, outputs="detections", opset=number, output=tmp_path, **size, **chosen)
    pictures = some_inputs(1 if shape else 2, 64, 96)
    boxes, scores, labels, count = run(result.path, planes(pictures))
    assert boxes.shape == (len(pictures), 20, 4) and labels.dtype == count.dtype == np.int64

    own = load_model(model).spec.postprocess
    clip = "before_nms" if own.clip == "before_nms" else "never"
    spec = own.model_copy(update={"score_threshold": 0.1, "iou_threshold": 0.5, "max_detections": 20, "clip": clip})
    whole = plan_frame(96, 64, InputSpec(size=96))  # the picture is the input
    expected = detect(dense_of(model, pictures), [whole] * len(pictures), spec)
    assert sum(map(len, expected)) >= 20 and count.tolist() == [len(found) for found in expected]
    for row, found in enumerate(expected):
        number_found = len(found)
        assert_same_detections(boxes[row, :number_found], scores[row, :number_found], labels[row, :number_found], found)
        assert not boxes[row, number_found:].any() and not scores[row, number_found:].any()
        assert (np.diff(scores[row]) <= 0).all()


def test_pictures_of_the_user_are_what_it_is_checked_with(model: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    chosen = {"outputs": "detections", "conf": 0.1, "max_dets": 7, "dynamic_size": True, "image_size": 96}
    few = write(model, output=tmp_path / "few.onnx", data=[str(path) for path in pictures[:3]], **chosen)
    many = write(model, output=tmp_path / "many.onnx", data=[str(tmp_path / "pictures")], **chosen)
    assert (few.agreement.pictures, many.agreement.pictures) == (3, 4)
    assert (few.agreement.detections, many.agreement.detections) == (21, 28)


def test_what_a_file_says_of_itself(model: Path, tmp_path: Path) -> None:
    result = write(model, image_size=[64, 96], output=tmp_path / "file.onnx")
    content = onnx.load(tmp_path / "file.onnx")
    (entry,) = content.metadata_props
    info = parse_info(entry.value, result.path)
    assert entry.key == ENTRY and info == result.info
    own = load_model(model).spec
    assert info.spec == own.model_copy(update={"input": own.input.model_copy(update={"size": 96, "fixed": (64, 96)})})
    assert (info.licence, info.outputs, info.output_names) == ("CC0-1.0", "decoded", ("boxes", "scores"))
    assert (info.input.layout, info.input.dtype, info.input.channels, info.input.batch) == (
        "NCHW", "float32", "rgb", 1,
    )  # fmt: skip
    assert (info.strides, info.anchors, math.prod(info.level_sizes(64, 96)[0])) == ((8, 16, 32), 1, 96)
    assert str(Path(__file__).parents[2]) not in content.SerializeToString().decode("latin-1")
    assert str(result.path) in result.to_text()
    assert json.loads(json.dumps(result.to_dict()))["agreement"]["pictures"] == 4

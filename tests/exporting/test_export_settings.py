"""What the settings of an export mean, and which do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ymir_tmi.config.load import build
from ymir_tmi.config.schema import ExportSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting.plan import ExportPlan, plan_export
from ymir_tmi.models.catalog import default_spec
from ymir_tmi.models.interface import ModelSpec

SPEC = default_spec("rtmdet_tiny", class_names=["cat"])


def plan(spec: ModelSpec = SPEC, **settings: Any) -> ExportPlan:
    return plan_export(build(ExportSettings, {"model": "folder/best.safetensors", **settings}), spec)


@pytest.mark.parametrize(
    ("given", "fixed"),
    [
        ([], (640, 640)),
        ("320", (320, 320)),
        (320, (320, 320)),
        ("480,640", (480, 640)),
        ([480, 640], (480, 640)),
        (["480,640"], (480, 640)),  # as the command line gives it
    ],
)
def test_sizes_of_the_input(given: Any, fixed: tuple[int, int]) -> None:
    found = plan(image_size=given)
    assert found.spec.input == SPEC.input.model_copy(update={"fixed": fixed, "size": max(fixed)})
    assert found.traced_shape == (1, 3, *fixed)


def test_a_size_that_is_no_multiple_of_the_stride_is_rounded_up_where_it_is_the_models() -> None:
    spec = SPEC.model_copy(update={"input": InputSpec(size=800, stride=64)})
    assert plan(spec).spec.input.fixed == (832, 832)
    with pytest.raises(ConfigError, match=r"multiples of 64(?s:.*)832,832"):
        plan(spec, image_size=800)


def test_any_size_has_a_longer_side() -> None:
    found = plan(image_size=320, dynamic_size=True, dynamic_batch=True)
    assert (found.spec.input.fixed, found.spec.input.size, found.input.batch) == (None, 320, None)


@pytest.mark.parametrize(
    ("output", "to", "path"),
    [
        (None, "onnx", "folder/best.onnx"),
        (None, "openvino", "folder/best.xml"),
        ("here/new.onnx", "onnx", "here/new.onnx"),
        ("here", "torchscript", "here/best.torchscript"),
    ],
)
def test_where_the_file_goes(output: str | None, to: str, path: str) -> None:
    assert plan(output=output, to=to).path == Path(path)


def test_a_folder_may_have_a_dot(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    assert plan(output=tmp_path / "v1.2").path == tmp_path / "v1.2" / "best.onnx"


@pytest.mark.parametrize(
    ("outputs", "to", "layout", "dtype", "channels", "normalised"),
    [
        ("decoded", "onnx", "NCHW", "float32", "rgb", False),
        ("raw", "torchscript", "NCHW", "float32", "rgb", False),
        ("detections", "openvino", "NHWC", "uint8", "rgb", False),
        ("plain", "onnx", "NCHW", "float32", "bgr", True),
    ],
)
def test_what_goes_in(outputs: str, to: str, layout: str, dtype: str, channels: str, normalised: bool) -> None:
    wanted = plan(outputs=outputs, to=to, batch=3).input
    assert (wanted.layout, wanted.dtype, wanted.channels, wanted.normalised, wanted.batch) == (
        layout, dtype, channels, normalised, 3,
    )  # fmt: skip


def test_the_post_processing_of_detections() -> None:
    usual, chosen = plan(outputs="detections"), plan(outputs="detections", conf=0.0, iou=0.3, max_dets=7)
    own = SPEC.postprocess.iou_threshold
    for found, numbers in ((usual, (0.25, own, 100)), (chosen, (0.0, 0.3, 7))):
        spec = found.spec.postprocess
        assert (spec.score_threshold, spec.iou_threshold, spec.max_detections) == numbers
    assert plan(outputs="decoded").spec.postprocess == SPEC.postprocess


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 500}, "For example 512,512"),
        ({"image_size": "480,640,3"}, "at most 2"),
        ({"image_size": "big"}, "'image_size' is 'big'"),
        ({"image_size": "-32"}, "greater than or equal to 1"),
        ({"image_size": "320,640", "dynamic_size": True}, "Give one number"),
        ({"batch": 4, "dynamic_batch": True}, "both 'batch' and 'dynamic_batch'"),
        ({"opset": 10}, "greater than or equal to 11"),
        ({"opset": 17, "to": "openvino"}, "'opset' is for ONNX"),
        ({"fp16": True}, "'fp16' is for OpenVINO"),
        ({"outputs": "plain", "to": "torchscript"}, "Write --to onnx"),
        ({"conf": 0.3}, "'conf' is for the outputs 'detections'"),
        ({"iou": 0.0}, "'iou' is for the outputs 'detections'"),
        ({"max_dets": 5, "outputs": "raw"}, "'max_dets' is for the outputs 'detections'"),
        ({"output": "best.pt"}, "ends in .onnx, or a folder"),
        ({"to": "tensorrt"}, "'onnx', 'openvino' or 'torchscript'"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(**settings)
    assert message in str(raised.value)


@pytest.mark.parametrize("resize", ["longer", "shorter", "stretch"])
@pytest.mark.parametrize("rounding", ["floor", "nearest"])
@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (1, 1), (3000, 7), (7, 3000), (333, 250), (96, 64), (97, 63)]
)
def test_a_picture_fits_into_a_fixed_input(resize: Any, rounding: Any, width: int, height: int) -> None:
    spec = InputSpec(size=96, resize=resize, rounding=rounding, longest=90, fixed=(64, 96))
    frame = plan_frame(width, height, spec)
    assert (frame.input_height, frame.input_width) == (64, 96)
    assert 0 <= frame.left <= 96 - frame.resized_width and 0 <= frame.top <= 64 - frame.resized_height
    if resize == "stretch":
        assert (frame.resized_width, frame.resized_height) == (96, 64)
    else:
        assert frame.resized_width == 96 or frame.resized_height == 64
        ratio = min(96 / width, 64 / height)
        assert abs(frame.resized_width - ratio * width) <= 1 and abs(frame.resized_height - ratio * height) <= 1


def test_a_fixed_square_is_what_longer_gives_a_square_picture() -> None:
    free, fixed = InputSpec(size=96), InputSpec(size=96, fixed=(96, 96))
    assert plan_frame(70, 70, free) == plan_frame(70, 70, fixed)

"""OpenVINO and TorchScript files compute what their models compute; run here by their own libraries alone."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exporting_data import (
    assert_near,
    assert_same_detections,
    contract_models,
    decoded,
    dense_of,
    flat,
    raw_of,
    some_inputs,
    write_model,
)

from ymir_tmi.config.schema import ExportSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.exporting.run import ExportResult, export
from ymir_tmi.models.checkpoint import load_model
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.exported import ENTRY, parse_info
from ymir_tmi.models.runtime.openvino_runtime import openvino_core

FREE = {"dynamic_size": True, "dynamic_batch": True, "image_size": 128}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def write(model: Path, **settings: Any) -> ExportResult:
    return export(ExportSettings(model=model, **settings))


def run_openvino(path: Path, pictures: npt.NDArray[np.uint8], names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
    compiled = openvino_core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    results = compiled([pictures])
    return [results[name] for name in names]


def run_torchscript(path: Path, pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        script = torch.jit.load(str(path))
    with torch.inference_mode():
        return [tensor.numpy() for tensor in script(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())]


@pytest.mark.parametrize("name", contract_models(quick=("rtmdet_tiny", "yolov5_n")))
def test_openvino_takes_pictures_as_they_are(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    stride = load_model(model).spec.input.stride
    result = write(model, to="openvino", output=tmp_path, **{**FREE, "image_size": 4 * stride})
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.xml", "model.bin"}
    for count, height, width in [(1, 2, 3), (3, 3, 2)]:
        pictures = some_inputs(count, height * stride, width * stride)
        dense = dense_of(model, pictures)
        assert_near(run_openvino(result.path, pictures, result.info.output_names), decoded(dense))


def test_a_fixed_openvino_file_with_half_its_size(model: Path, tmp_path: Path) -> None:
    whole = write(model, to="openvino", outputs="raw", image_size=[64, 96], batch=2, output=tmp_path / "whole.xml")
    half = write(
        model, to="openvino", outputs="raw", image_size=[64, 96], batch=2, fp16=True, output=tmp_path / "half.xml"
    )
    pictures = some_inputs(2, 64, 96)
    expected = flat(raw_of(model, pictures))
    assert_near(run_openvino(whole.path, pictures, whole.info.output_names), expected)
    assert_near(run_openvino(half.path, pictures, half.info.output_names), expected, 5e-3)
    sizes = [(tmp_path / name).stat().st_size for name in ("whole.bin", "half.bin")]
    assert 0.45 < sizes[1] / sizes[0] < 0.55
    assert 1e-5 < max(half.agreement.largest.values()) < half.agreement.allowed == 5e-3


@pytest.mark.parametrize("to", ["openvino", "torchscript"])
def test_detections(to: str, model: Path, tmp_path: Path) -> None:
    chosen = {"conf": 0.1, "iou": 0.5, "max_dets": 20}
    result = write(model, to=to, outputs="detections", output=tmp_path, **chosen, **FREE)
    pictures = some_inputs(2, 64, 96)
    boxes, scores, labels, count = (
        run_openvino(result.path, pictures, result.info.output_names)
        if to == "openvino"
        else run_torchscript(result.path, pictures)
    )
    spec = result.info.spec.postprocess.model_copy(update={"clip": "never"})
    expected = detect(dense_of(model, pictures), [plan_frame(96, 64, InputSpec(size=96))] * 2, spec)
    assert count.tolist() == [len(found) for found in expected] and count.sum() >= 20
    assert result.agreement.detections is not None and result.agreement.detections >= 20
    for row, found in enumerate(expected):
        rows = row, slice(len(found))
        assert_same_detections(boxes[rows], scores[rows], labels[rows], found)


@pytest.mark.parametrize("name", contract_models(quick=("rtmdet_tiny", "yolov5_n")))
def test_torchscript(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    stride = load_model(model).spec.input.stride
    result = write(model, to="torchscript", output=tmp_path, **{**FREE, "image_size": 4 * stride})
    for count, height, width in [(1, 2, 3), (3, 3, 2)]:
        pictures = some_inputs(count, height * stride, width * stride)
        dense = dense_of(model, pictures)
        assert_near(run_torchscript(result.path, pictures), decoded(dense))


def test_what_files_say_of_themselves(model: Path, tmp_path: Path) -> None:
    vino = write(model, to="openvino", image_size=64, output=tmp_path)
    text = openvino_core().read_model(vino.path).get_rt_info([ENTRY]).astype(str)
    assert parse_info(text, vino.path) == vino.info

    script = write(model, to="torchscript", image_size=64, outputs="raw", output=tmp_path)
    extra = {"ymir_tmi.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.load(str(script.path), _extra_files=extra)
    assert json.loads(extra["ymir_tmi.json"]) == script.info.model_dump(mode="json")

    sources = str(Path(__file__).parents[2]).encode()
    assert not [path for path in tmp_path.iterdir() if sources in path.read_bytes()]


def test_a_process_outlives_a_signal_after_two_openvino_files(model: Path, tmp_path: Path) -> None:
    write(model, to="openvino", image_size=64, output=tmp_path / "a.xml")
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from ymir_tmi.models.runtime.openvino_runtime import OpenVinoFile\n"
        "first = OpenVinoFile(Path(sys.argv[1])); second = OpenVinoFile(Path(sys.argv[1])); del first; del second\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('received')); signal.raise_signal(signal.SIGUSR1)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.xml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "received\n")


def test_openvino_reports_to_nobody() -> None:
    code = (
        "import sys; from ymir_tmi.models.runtime.optional import optional; optional('openvino').Core(); "
        "print(sys.modules.get('openvino_telemetry'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"

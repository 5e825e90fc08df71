"""The program in docs/export.md runs as it is, and finds what the model finds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from exporting_data import dense_of, some_inputs, write_model

from ymir_tmi import imaging
from ymir_tmi.config.schema import ExportSettings
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.exporting.run import export
from ymir_tmi.models.postprocess import detect

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_program_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "best.safetensors", "yolox_tiny")
    result = export(ExportSettings(model=model, outputs="detections", conf=0.1, image_size=[64, 96]))
    assert result.path == tmp_path / "best.onnx"
    imaging.write_image(tmp_path / "picture.jpg", some_inputs(1, 64, 96)[0])
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    monkeypatch.chdir(tmp_path)
    exec(compile(program, PAGE, "exec"), {})
    printed = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]

    picture = imaging.read_image(tmp_path / "picture.jpg")  # as large as the input, so it is not scaled
    spec = result.info.spec.postprocess.model_copy(update={"clip": "never"})
    (found,) = detect(dense_of(model, picture[None]), [plan_frame(96, 64, InputSpec(size=96))], spec)
    assert len(printed) == len(found) > 5
    names = result.info.spec.class_names
    assert [name for name, _, _ in printed] == [names[label] for label in found.labels]
    np.testing.assert_allclose([float(score) for _, score, _ in printed], found.scores, atol=2e-3)
    boxes = [[float(number) for number in box.strip("[]").split(",")] for _, _, box in printed]
    np.testing.assert_allclose(boxes, found.boxes, atol=0.2)

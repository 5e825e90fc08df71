"""The example of docs/export.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ymir_tmi.config.schema import ExportSettings
from ymir_tmi.exporting.run import export
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import save_model

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = create_model("yolox_tiny", class_names=["cat", "dog"])
    for name, parameter in model.named_parameters():
        if re.match(r"head\.(cls|obj)_pred\.\d\.bias", name):
            torch.nn.init.constant_(parameter, 2.0)  # so that everything is found everywhere
    save_model(model.eval(), tmp_path / "best.safetensors")
    export(ExportSettings(model=tmp_path / "best.safetensors", image_size=[64, 96]))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (8 * 12 + 4 * 6 + 2 * 3)  # every class of every prior
    assert {line.split()[0] for line in lines} == {"cat", "dog"}

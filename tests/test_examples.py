"""The examples run as they are, on less data than they take by themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("from_python").main(tmp_path, pictures=16, epochs=1)
    ranked = capsys.readouterr().out.splitlines()
    assert ranked[0].startswith("AP50 ")
    assert [int(line.split()[0]) for line in ranked[1:]] == [1, 2, 3, 4, 5, 6, 7, 8]

    best = load("own_algorithm").main(str(tmp_path / "train/weights/best.safetensors"), str(tmp_path / "data/images"))
    scores = [row["score"] for _, row in best]
    assert len(scores) == 16 + 4 + 8 and scores == sorted(scores, reverse=True)

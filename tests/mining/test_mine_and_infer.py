"""Mining and inference in one pass find what they find alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ymir_tmi import imaging
from ymir_tmi.config.schema import InferSettings, MineSettings
from ymir_tmi.inference.run import infer
from ymir_tmi.mining.run import mine
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import save_model


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    for number in range(3):
        blocks = rng.integers(0, 256, (5, 7, 3), np.uint8)
        imaging.write_image(folder / f"{number}.png", imaging.resize(blocks, 84, 60, "nearest"))
    return folder


def found(path: Path) -> Any:
    content = json.loads((path / "predictions.json").read_text())
    content.pop("info")
    return content


@pytest.mark.parametrize("task", ["instances", "semantics"])
def test_one_pass_finds_what_two_find(task: str, pool: Path, instance_model: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = instance_model if task == "instances" else create_model("fast_scnn", class_names=["a", "b", "c"]).eval()
    save_model(model, tmp_path / "model.safetensors")
    shared = {
        "model": tmp_path / "model.safetensors", "data": [str(pool)], "image_size": 96, "device": "cpu",
        "precision": "fp32",
    }  # fmt: skip
    algorithm = {"instances": "apis", "semantics": "ripu"}[task]
    settings = MineSettings.model_validate({**shared, "algorithm": algorithm, "conf": 0.6, "gallery": 0})
    alone = mine(settings.model_copy(update={"output": tmp_path / "mine"}))
    together = mine(settings.model_copy(update={"output": tmp_path / "both"}), found_above=0.3)
    infer(InferSettings.model_validate({**shared, "conf": 0.3, "output": tmp_path / "infer"}))
    assert [(image.path, image.score) for image in together.ranking] == [
        (image.path, image.score) for image in alone.ranking
    ]
    assert found(tmp_path / "both") == found(tmp_path / "infer")
    assert found(tmp_path / "both")["annotations"]

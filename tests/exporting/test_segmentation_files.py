"""Exported networks that give pixels a class stand in for their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exporting_data import some_inputs, write_model, write_pictures

from ymir_tmi.config.schema import ExportSettings, InferSettings
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting.run import export
from ymir_tmi.exporting.torchscript import TorchScriptFile
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.models.runtime.open import open_model
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows

NAMES = ["fast_scnn", pytest.param("fcn_hrnet_w18_small", marks=pytest.mark.slow)]
SIDE = 96


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return balance(write_model(tmp_path_factory.mktemp("model") / "model.safetensors", request.param))


def balance(path: Path) -> Path:
    """Let every class of a model be as likely as the others, so that none covers whole pictures, and most are clear."""
    network = load_model(path)
    with torch.no_grad():
        pixels = torch.from_numpy(some_inputs(16, SIDE, SIDE)).permute(0, 3, 1, 2)
        logits = network(network.normalize(pixels)).logits[0]
        parameters, spread = dict(network.named_parameters()), logits.std((0, 2, 3))
        parameters["head.cls_pred.bias"].sub_(logits.mean((0, 2, 3))).div_(spread)
        parameters["head.cls_pred.weight"].div_(spread.view(-1, 1, 1, 1))
    save_model(network, path)
    return path


class LabelMaps(Consumer):
    name = "label_maps"
    needs = Needs(frozenset({"label_map", "probabilities"}))

    def __init__(self) -> None:
        self.maps: dict[str, npt.NDArray[np.uint8]] = {}
        self.clear: dict[str, npt.NDArray[np.bool_]] = {}

    def consume(self, batch: list[ImageResult]) -> list[Row]:  # type: ignore[override]
        for result in batch:
            assert result.label_map is not None and result.probabilities is not None
            best = result.probabilities.topk(2, dim=0).values
            self.maps[result.path] = result.label_map
            self.clear[result.path] = (best[0] - best[1] > 1e-3).numpy()
        return [{} for _ in batch]


def label_maps(path: Path, pictures: Path, **settings: Any) -> LabelMaps:
    """Return what a file says of the pictures in a folder."""
    asked = InferSettings(model=path, data=[str(pictures)], device="cpu", precision="fp32", **settings)
    runtime, _ = open_model(path, asked)
    consumer = LabelMaps()
    run_pool(read_dataset([str(pictures)], split="val"), [consumer], MemoryRows(), runtime=runtime, batch=2)
    return consumer


def assert_same(ours: LabelMaps, theirs: LabelMaps) -> None:
    assert ours.maps.keys() == theirs.maps.keys() and ours.maps
    for path, labels in theirs.maps.items():
        clear = theirs.clear[path]
        np.testing.assert_array_equal(ours.maps[path][clear], labels[clear])
        assert clear.mean() > 0.95
    assert len(np.unique(np.concatenate([labels.ravel() for labels in theirs.maps.values()]))) > 1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


FORMS = ["onnx", "openvino"]


@pytest.mark.parametrize("form", FORMS)
def test_files_of_any_size_label_pixels_as_their_model_does(
    model: Path, form: str, pictures: Path, tmp_path: Path
) -> None:
    settings = {"dynamic_size": True, "dynamic_batch": True, "image_size": [SIDE]}
    result = export(ExportSettings(model=model, to=form, output=tmp_path / "out", **settings))
    assert result.info.outputs == "raw" and result.info.output_names == ("logits",)
    assert (result.info.strides, result.info.anchors) == ((), 0)
    given = {"image_size": SIDE, "flip_test": True, "scales": [0.5, 1], "window": [64], "window_stride": [40]}
    for asked in ({"image_size": SIDE}, given, {"image_size": SIDE, "classes": ["owl", "cat=pet", "dog"]}):
        assert_same(label_maps(result.path, pictures, **asked), label_maps(model, pictures, **asked))


@pytest.mark.parametrize("form", FORMS)
def test_files_of_one_size_fit_pictures_into_it(model: Path, form: str, pictures: Path, tmp_path: Path) -> None:
    result = export(ExportSettings(model=model, to=form, output=tmp_path / "out", image_size=[64, SIDE]))
    fixed = load_model(model)
    fixed.spec = result.info.spec
    save_model(fixed, tmp_path / "fixed.safetensors")
    assert_same(label_maps(result.path, pictures), label_maps(tmp_path / "fixed.safetensors", pictures))
    for name, value in (("window", [32]), ("scales", [0.5])):
        with pytest.raises(ConfigError, match="only inputs of 64 x 96"):
            label_maps(result.path, pictures, **{name: value})


def test_the_default_input_holds_a_whole_picture(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", "fast_scnn")
    result = export(ExportSettings(model=model, output=tmp_path / "out"))
    assert result.info.spec.input.fixed == (1024, 2048)


def test_torchscript(model: Path, tmp_path: Path) -> None:
    result = export(ExportSettings(model=model, to="torchscript", output=tmp_path / "out", dynamic_size=True))
    network = load_model(model)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 75, 131), np.uint8)
    (logits,) = TorchScriptFile(result.path).run(picture.astype(np.float32))
    with torch.no_grad():
        expected = network(network.normalize(torch.from_numpy(picture))).logits[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("outputs", ["decoded", "detections"])
def test_there_are_no_boxes(outputs: str, model: Path) -> None:
    with pytest.raises(ConfigError, match="finds no boxes"):
        export(ExportSettings(model=model, outputs=outputs))

"""Exported files in the place of a model: the same numbers in batches of any size; infer, evaluate and mine."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exporting_data import CLASSES, assert_same_detections, dense_of, raw_of, some_inputs, write_model, write_pictures

from ymir_tmi import imaging
from ymir_tmi.config.schema import EvaluateSettings, ExportSettings, InferSettings, MineSettings, RunSettings
from ymir_tmi.errors import ConfigError, ModelError, TmiError
from ymir_tmi.evaluation.run import evaluate
from ymir_tmi.exporting.run import export
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.inference.run import infer
from ymir_tmi.mining.run import mine
from ymir_tmi.models.catalog import default_spec
from ymir_tmi.models.checkpoint import load_model, read_model_info
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.models.runtime.exported import Arrays, ExportedFile, ExportedInput, ExportedRuntime, ExportInfo
from ymir_tmi.models.runtime.open import describe_file, open_model
from ymir_tmi.pool.predictions import read_predictions
from ymir_tmi.pool.shards import fingerprint

SIZE = 96
KINDS = ["raw.onnx", "decoded.onnx", "fixed.onnx", "raw.xml", "decoded.xml", "fixed.xml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and files that were exported from it: any size and number, or pairs of square pictures."""
    folder = tmp_path_factory.mktemp("files")
    model = write_model(folder / "model.safetensors", "yolox_tiny")
    for kind in KINDS:
        what, _, suffix = kind.partition(".")
        fixed: dict[str, Any] = {"batch": 2} if what == "fixed" else {"dynamic_size": True, "dynamic_batch": True}
        export(
            ExportSettings(
                model=model,
                to="openvino" if suffix == "xml" else "onnx",
                outputs="raw" if what == "raw" else "decoded",
                image_size=SIZE,
                output=folder / kind,
                **fixed,
            )
        )
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "pictures")


def opened(path: Path, **settings: Any) -> Any:
    return open_model(path, RunSettings(precision="fp32", device="cpu", **settings))[0]


@pytest.mark.parametrize(
    ("kind", "threads"), [*((kind, 1) for kind in KINDS), ("fixed.onnx", 2), ("raw.xml", 2), ("fixed.xml", 2)]
)
def test_a_batch_of_any_size(kind: str, threads: int, folder: Path, set_threads: Callable[[int], None]) -> None:
    set_threads(threads)
    runtime, images = opened(folder / kind), some_inputs(5, SIZE, SIZE)
    assert runtime.has_raw == ("raw" in kind)
    expected = dense_of(folder / "model.safetensors", images)
    maps = load_model(folder / "model.safetensors").class_maps(raw_of(folder / "model.safetensors", images))
    assert all(level.std() > 0.01 for level in maps)
    for count in (1, 2, 5):
        raw = runtime.run(images[:count])
        dense = runtime.decode(raw)
        assert dense.level_sizes == expected.level_sizes
        torch.testing.assert_close(dense.boxes, expected.boxes[:count], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(dense.scores, expected.scores[:count], rtol=0, atol=1e-5)
        for ours, theirs in zip(runtime.class_maps(raw), maps, strict=True):
            torch.testing.assert_close(ours, theirs[:count], rtol=0, atol=1e-5)


class TwoAnchors(ExportedFile):
    """Gives numbers from which one can tell where they belong: level, y, x, anchor, and the number itself."""

    info = ExportInfo(
        version="0",
        spec=default_spec("rtmdet_tiny", class_names=CLASSES),
        licence=None,
        outputs="decoded",
        output_names=("boxes", "scores"),
        input=ExportedInput(batch=None),
        strides=(32, 64, 128),
        anchors=2,
    )
    arithmetic = "fp32"
    threads = 1

    @classmethod
    def read_info(cls, path: Path) -> ExportInfo:
        return cls.info

    def rows(self, height: int, width: int, numbers: int) -> list[list[float]]:
        return [
            [10_000 * level + 1000 * y + 100 * x + 10 * anchor + number for number in range(numbers)]
            for level, (rows, columns) in enumerate(self.info.level_sizes(height, width))
            for y in range(rows)
            for x in range(columns)
            for anchor in range(2)
        ]

    def run(self, inputs: npt.NDArray[Any]) -> Arrays:
        height, width = inputs.shape[2:]
        return [np.array([self.rows(height, width, k)] * len(inputs), np.float32) for k in (4, 3)]


def test_decoded_numbers_of_several_anchors_keep_their_places() -> None:
    file = TwoAnchors()
    runtime = ExportedRuntime(file, file.spec)
    raw = runtime.run(np.zeros((2, 96, 160, 3), np.uint8))  # 3 x 5, 2 x 3 and 1 x 2 cells
    assert [tuple(level.shape) for level in raw.reg] == [(2, 8, 3, 5), (2, 8, 2, 3), (2, 8, 1, 2)]
    dense = runtime.decode(raw)
    assert dense.level_sizes == (30, 12, 4)
    assert dense.boxes[1].tolist() == file.rows(96, 160, 4) and dense.scores[1].tolist() == file.rows(96, 160, 3)
    maps = runtime.class_maps(raw)
    assert maps[1].shape == (2, 2, 3, 2, 3)
    assert maps[1][0, 1, 2, 1, 2] == 10_000 + 1000 + 200 + 10 + 2


def run_settings(model: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    size = {} if model.stem == "fixed" else {"image_size": SIZE}
    return {
        "model": model, "data": [str(tmp_path / "pictures")], "precision": "fp32", "device": "cpu",
        "output": tmp_path / f"run-{model.name}", "conf": 0.1, **size, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["raw.onnx", "decoded.onnx", "raw.xml", "decoded.xml"])
def test_infer_finds_what_the_model_finds(kind: str, folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    runs = [
        infer(InferSettings(**run_settings(folder / name, tmp_path, batch=3))) for name in ("model.safetensors", kind)
    ]
    expected, given = (read_predictions(RunLayout(run.run).predictions) for run in runs)
    assert runs[0].detections > 50
    for ours, theirs in zip(given.images, expected.images, strict=True):
        found = ours.detections
        assert_same_detections(found.boxes, found.scores, found.labels, theirs.detections)
    model = json.loads(RunLayout(runs[1].run).manifest.read_text())["model"]
    assert model == {"name": "yolox_tiny", "weights": str(folder / kind), "licence": "CC0-1.0"}


@pytest.mark.parametrize("kind", ["fixed.onnx", "fixed.xml"])
def test_infer_with_a_fixed_input(kind: str, folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    """Square pictures have square inputs in any case, and of the others only the number of bars differs."""
    square = tmp_path / "pictures" / "3.png"
    assert imaging.image_size(square) == (64, 64)
    runs = [
        infer(InferSettings(**run_settings(folder / name, tmp_path, data=[str(square)])))
        for name in ("model.safetensors", kind)
    ]
    expected, given = (read_predictions(RunLayout(run.run).predictions).images[0].detections for run in runs)
    assert len(expected) > 5
    assert_same_detections(given.boxes, given.scores, given.labels, expected)
    everything = infer(InferSettings(**run_settings(folder / kind, tmp_path, output=tmp_path / "all")))
    for image in read_predictions(RunLayout(everything.run).predictions).images:
        width, height = imaging.image_size(image.file_name or "")
        boxes = image.detections.boxes
        assert len(boxes) and (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()


@pytest.mark.parametrize("kind", ["decoded.onnx", "raw.xml"])
def test_evaluate_measures_what_the_model_measures(
    kind: str, folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    found = infer(InferSettings(**run_settings(folder / "model.safetensors", tmp_path, max_dets=5)))
    annotations = RunLayout(found.run).predictions  # some of the detections are the truth
    results = [
        evaluate(
            EvaluateSettings(
                **run_settings(folder / name, tmp_path, data=[str(annotations)], output=tmp_path / f"evaluate-{name}")
            )
        )
        for name in ("model.safetensors", kind)
    ]
    assert results[0].coco.AP is not None and results[0].coco.AP > 0.3
    for name, value in results[0].scalars().items():
        assert results[1].scalars()[name] == pytest.approx(value, abs=1e-3), name


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("cald", "decoded.onnx"), ("aldd", "decoded.xml"), ("aldd", "raw.onnx"), ("entropy", "decoded.xml")],
)
def test_mine_ranks_as_the_model_ranks(
    algorithm: str, kind: str, folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    scores = []
    for name in ("model.safetensors", kind):
        done = mine(MineSettings(**run_settings(folder / name, tmp_path, algorithm=algorithm)))
        with RunLayout(done.run).scores.open() as file:
            scores.append([float(row["score"]) for row in csv.DictReader(file)])
    assert len(set(scores[0])) > 1
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("algorithm", "compat"), [("aldd", "mmdet"), ("entropy", "yolov5")])
def test_algorithms_that_want_raw_numbers(
    algorithm: str, compat: str, folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    chosen = {"algorithm": algorithm, "compat": compat}
    runs = [
        mine(MineSettings(**run_settings(folder / name, tmp_path, **chosen)))
        for name in ("model.safetensors", "raw.xml")
    ]
    scores = [{image.path: image.score for image in run.ranking} for run in runs]
    # What aldd subtracts are sums of some 0.7 for each channel, in float32; what is left here is some 2e-5.
    assert scores[1] == {path: pytest.approx(score, rel=1e-3, abs=2e-7) for path, score in scores[0].items()}
    with pytest.raises(ModelError, match="needs the head's own numbers"):
        mine(MineSettings(**run_settings(folder / "decoded.xml", tmp_path, **chosen)))
    assert not (tmp_path / "run-decoded.xml").exists()


def test_chosen_classes(folder: Path) -> None:
    runtime, names = open_model(folder / "decoded.onnx", RunSettings(classes=["owl", "cat=pet", "dog=pet"], iou=0.3))
    assert names == ("owl", "pet") and runtime.class_groups == [[2], [0, 1]]
    assert runtime.spec.postprocess.iou_threshold == 0.3


def test_a_run_goes_on_with_the_same_weights_only(folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    from ymir_tmi.data.read import read_dataset

    index = read_dataset([str(tmp_path / "pictures")])
    for name in ("raw.xml", "raw.bin"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    before = fingerprint(index, model=tmp_path / "raw.xml", settings={})
    with (tmp_path / "raw.bin").open("r+b") as file:
        file.write(b"\1")
    assert fingerprint(index, model=tmp_path / "raw.xml", settings={}) != before


def test_the_licence_is_kept(folder: Path) -> None:
    own = read_model_info(folder / "model.safetensors")
    for kind in ("raw.onnx", "raw.xml"):
        info = describe_file(folder / kind)
        assert (
            (info.licence, info.spec.class_names) == (own.licence, own.spec.class_names) == ("CC0-1.0", tuple(CLASSES))
        )


def test_bf16_is_near(folder: Path) -> None:
    images = some_inputs(2, SIZE, SIZE)
    exact = opened(folder / "decoded.xml")
    rough = open_model(folder / "decoded.xml", RunSettings(precision="bf16"))[0]
    assert (exact.arithmetic, rough.arithmetic) == ("fp32", "bf16")
    scores = [runtime.decode(runtime.run(images)).scores for runtime in (exact, rough)]
    assert (scores[0] - scores[1]).abs().max() < 0.05


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        ("fixed.onnx", {"image_size": 128}, ConfigError, "takes only inputs of 96 x 96"),
        ("raw.onnx", {"precision": "bf16"}, ConfigError, "precision bf16 is not for ONNX files"),
        ("raw.xml", {"precision": "fp16"}, ConfigError, "precision fp16"),
        ("raw.xml", {"device": "cuda"}, ConfigError, "run on the processor"),
        ("raw.onnx", {"classes": ["cow"]}, ConfigError, "cow"),
    ],
)
def test_settings_that_a_file_cannot_follow(
    kind: str, settings: dict[str, Any], error: type[TmiError], message: str, folder: Path
) -> None:
    with pytest.raises(error, match=message):
        open_model(folder / kind, RunSettings(**settings))


def test_the_size_of_a_fixed_input_may_be_named(folder: Path) -> None:
    assert opened(folder / "fixed.onnx", image_size=SIZE).spec.input.fixed == (SIZE, SIZE)


def test_raw_is_a_head_output(folder: Path) -> None:
    raw = opened(folder / "raw.onnx").run(some_inputs(1, SIZE, SIZE))
    assert isinstance(raw, HeadOutput)
    filled = {name: len(levels) for name, levels in raw._asdict().items() if levels}
    assert filled == {"cls": 3, "reg": 3, "obj": 3}

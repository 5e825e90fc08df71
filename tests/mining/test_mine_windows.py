"""Mining large images window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import make_detections
from torch import nn

from ymir_tmi import imaging
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.tiles import Tile, Tiling
from ymir_tmi.errors import ConfigError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.mining.algorithm import HeatMapAlgorithm
from ymir_tmi.mining.heatmaps import HeatmapWriter, paint
from ymir_tmi.mining.run import MineResult, mine
from ymir_tmi.mining.scores.aldd import Aldd
from ymir_tmi.mining.scores.cald import Cald
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.pool.consumer import ImageResult, Row

TILING = Tiling(96, 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that finds something here and there."""
    torch.manual_seed(0)
    detector = create_model("yolox_tiny", class_names=["cat", "dog"])
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector(torch.rand(8, 3, 96, 96) * 255)
        for name, parameter in detector.named_parameters():
            if "cls_pred" in name or "obj_pred" in name:
                parameter.normal_(0, 0.06) if parameter.ndim > 1 else parameter.fill_(-1.0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(detector.eval(), path)
    return path


def blocks(width: int, height: int, seed: int) -> imaging.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), np.uint8)
    return imaging.resize(noise, width, height, "nearest")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small pictures and two large ones."""
    folder = tmp_path_factory.mktemp("pool")
    for number, size in enumerate([(96, 72), (64, 90), (200, 150), (300, 60)]):
        imaging.write_image(folder / f"{number}.png", blocks(*size, number))
    return folder


def run(model: Path, pool: Path, output: Path, algorithm: str, **more: Any) -> MineResult:
    common = {"data": [str(pool)], "output": output, "image_size": 96, "device": "cpu", "precision": "fp32"}
    return mine(MineSettings.model_validate({"model": model, "algorithm": algorithm, **common, **more}))


def scores(result: MineResult) -> dict[str, float]:
    return {Path(image.path).name: image.score for image in result.ranking}


TILED = {"tile": TILING.size, "overlap": TILING.overlap}


@pytest.mark.parametrize("algorithm", ["random", "entropy", "aldd", "cald"])
def test_small_images_score_as_without_tiles(algorithm: str, model: Path, pool: Path, tmp_path: Path) -> None:
    whole = scores(run(model, pool, tmp_path / "whole", algorithm, max_dets=100))
    tiled = scores(run(model, pool, tmp_path / "tiled", algorithm, max_dets=100, **TILED))
    assert {name: tiled[name] for name in ("0.png", "1.png")} == {name: whole[name] for name in ("0.png", "1.png")}
    assert whole.keys() == tiled.keys()
    assert (whole["2.png"] == tiled["2.png"]) == (algorithm == "random")


def test_aldd_of_a_large_image_is_the_mean_of_its_windows(model: Path, pool: Path, tmp_path: Path) -> None:
    tiled = run(model, pool, tmp_path / "tiled", "aldd", **TILED)
    for name, size in (("2.png", (200, 150)), ("3.png", (300, 60))):
        large = imaging.read_image(pool / name)
        for x, y, w, h in TILING.windows(*size):
            imaging.write_image(tmp_path / name / f"{x}-{y}.png", large[y : y + h, x : x + w])
        windows = run(model, tmp_path / name, tmp_path / f"run-{name}", "aldd")
        image = next(image for image in tiled.ranking if Path(image.path).name == name)
        assert image.score == pytest.approx(np.mean(list(scores(windows).values())), rel=1e-5)
        for key, part in image.components.items():
            of_windows = [one.components.get(key, 0.0) for one in windows.ranking]
            assert part == pytest.approx(np.mean(of_windows), rel=1e-5)
        assert sum(image.components.values()) == pytest.approx(image.score)
    layout = RunLayout(tiled.run)
    assert imaging.image_size(layout.heatmaps / "0001.png") == imaging.image_size(tiled.ranking[0].path)
    assert len(list(layout.heatmaps.iterdir())) == 4


@pytest.mark.parametrize(
    ("algorithm", "compat"),
    [("aldd", "mmdet"), ("entropy", "yolov5"), ("cald", "yolov5"), ("cald", "mmdet"), ("cald", "detectron2")],
)
def test_forms_that_need_the_whole_image(algorithm: str, compat: str, model: Path, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{algorithm}' in the form '{compat}' scores whole images only"):
        run(model, pool, tmp_path / "run", algorithm, compat=compat, **TILED)
    assert not (tmp_path / "run").exists()


def whole_image(found: int) -> ImageResult:
    boxes = [[0.0, 0, 9, 9]] * found
    return ImageResult(0, "large.png", (200, 150), None, 0, detections=make_detections(boxes, [0.9] * found))


def cald_row(score: float | None, reason: str = "") -> Row:
    if score is None:
        return {"score": -1.3, "components": {"detections": 0}, "reason": "nothing found"}
    views = {"flip": -score, "cutout": -score, "rotate": -score - 0.1, "resize": 0.1 - score}
    return {"score": score, "components": {"detections": 2, **views}, "reason": reason}


def test_cald_is_the_mean_of_the_windows_in_which_something_is_found() -> None:
    cald = Cald(["cat"], min_score=0.1, empty_first=False)
    joined = cald.join(whole_image(3), [cald_row(-0.4, "far"), cald_row(None), cald_row(-0.2, "near")])
    assert joined["score"] == pytest.approx(-0.3)
    assert joined["components"] == pytest.approx(
        {"detections": 3, "flip": 0.3, "cutout": 0.3, "rotate": 0.2, "resize": 0.4}
    )
    assert joined["reason"] == "near"


@pytest.mark.parametrize(("empty_first", "score"), [(False, -1.3), (True, 0.0)])
def test_cald_of_an_image_in_which_nothing_is_found(empty_first: bool, score: float) -> None:
    cald = Cald(["cat"], min_score=0.1, empty_first=empty_first)
    expected = {"score": score, "components": {"detections": 0}, "reason": "nothing found"}
    assert cald.join(whole_image(0), [cald_row(None), cald_row(None)]) == expected


class Painted(Aldd):
    """Gives each window the map of its place in one large map."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        super().__init__([], np.zeros(0))
        self._values = values

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        assert result.tile is not None
        x, y, width, height = result.tile.window
        return self._values[y : y + height, x : x + width]


@pytest.mark.parametrize("size", [(200, 150), (1280, 960)])
def test_heat_maps_of_windows_are_put_together(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    values = np.add.outer(np.arange(height), 2.0 * np.arange(width)).astype(np.float32)
    algorithm: HeatMapAlgorithm = Painted(values)
    writer = HeatmapWriter(algorithm, tmp_path)
    windows = TILING.windows(*size)
    results = [ImageResult(4, "large.png", window[2:], None, 0, tile=Tile(window, size)) for window in windows]
    assert writer.join(ImageResult(4, "large.png", size, None, 0), writer.consume(results)) == {"file": "0005.png"}
    drawn, expected = imaging.read_image(tmp_path / "0005.png").astype(int), paint(values, size).astype(int)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).mean() < 2

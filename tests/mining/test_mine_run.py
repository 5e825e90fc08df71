from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ymir_tmi import imaging
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, RunError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.mining.run import MineResult, mine
from ymir_tmi.mining.scores.cald import Cald
from ymir_tmi.pool.predictions import read_predictions

SIZES = [(96, 72), (72, 96), (130, 50), (64, 64), (200, 150)]
WITH_MODEL = ["entropy", "aldd", "cald"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, write_detector: Callable[..., Path]) -> Path:
    return write_detector(tmp_path_factory.mktemp("model") / "model.safetensors", ["cat", "dog"], -1.0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of several sizes, and a file that is none."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    for number in range(10):
        width, height = SIZES[number % len(SIZES)]
        blocks = rng.integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), np.uint8)
        imaging.write_image(folder / f"{number}.png", imaging.resize(blocks, width, height, "nearest"))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


def settings(pool: Path | list[Path], output: Path, **more: object) -> MineSettings:
    data = [str(path) for path in (pool if isinstance(pool, list) else [pool])]
    common = {"data": data, "output": output, "image_size": 96, "device": "cpu", "precision": "fp32"}
    return MineSettings.model_validate({**common, **more})


def scores(result: MineResult) -> dict[str, float]:
    return {Path(image.path).name: image.score for image in result.ranking}


def manifest(result: MineResult) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RunLayout(result.run).manifest.read_text())
    return content


@pytest.mark.parametrize("algorithm", ["random", *WITH_MODEL])
def test_ranks_a_pool(algorithm: str, model: Path, pool: Path, tmp_path: Path) -> None:
    result = mine(settings(pool, tmp_path / "run", model=model, algorithm=algorithm))
    layout = RunLayout(tmp_path / "run")

    ranked = [image.score for image in result.ranking]
    assert ranked == sorted(ranked, reverse=True) and len(set(ranked)) == 10
    assert [image.rank for image in result.ranking] == list(range(1, 11))
    assert {image.path for image in result.ranking} == {str(pool / f"{number}.png") for number in range(10)}
    assert [(image.path, image.error) for image in result.failed] == [
        (str(pool / "broken.jpg"), "this JPEG is cut short or damaged")
    ]
    content = json.loads(layout.ranking_json.read_text())
    assert content["ranking"] == result.to_dict()["ranking"]
    assert (content["algorithm"], content["images"]) == (algorithm, 11)
    with layout.ranking_csv.open(newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == ranked
    assert manifest(result)["status"] == "done"
    assert manifest(result)["metrics"]["ranked"] == 10


def test_detections_are_written_in_the_same_pass(model: Path, pool: Path, tmp_path: Path) -> None:
    result = mine(settings(pool, tmp_path / "run", model=model, algorithm="entropy"))
    predictions = read_predictions(RunLayout(result.run).predictions)
    found = {Path(str(image.file_name)).name: image.detections for image in predictions.images}
    assert predictions.class_names == ("cat", "dog")
    assert sum(map(len, found.values())) > 10
    for image in result.ranking:
        detections = found[Path(image.path).name]
        assert image.components["detections"] == len(detections)
        assert (detections.scores > 0.1).all()


@pytest.mark.parametrize("algorithm", ["random", *WITH_MODEL])
def test_scores_depend_on_the_image_alone(algorithm: str, model: Path, pool: Path, tmp_path: Path) -> None:
    pictures = [pool / f"{number}.png" for number in range(10)]
    runs = [
        mine(settings(pool, tmp_path / "a", model=model, algorithm=algorithm)),
        mine(settings(pictures[::-1], tmp_path / "b", model=model, algorithm=algorithm, batch=1, workers=0)),
        mine(settings(pictures[3:7], tmp_path / "c", model=model, algorithm=algorithm, batch=3, conf=0.1)),
    ]
    expected = scores(runs[0])
    for run in runs[1:]:
        for name, score in scores(run).items():
            assert score == pytest.approx(expected[name], rel=1e-5, abs=1e-5)


def test_cald_follows_the_seed(model: Path, pool: Path, tmp_path: Path) -> None:
    first, again, other = (
        mine(settings(pool, tmp_path / name, model=model, algorithm="cald", seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert scores(first) == scores(again)
    assert scores(first) != scores(other)
    assert [image.components["flip"] for image in first.ranking if image.components["detections"]] != []


def test_heat_maps_are_drawn_for_the_first_images(model: Path, pool: Path, tmp_path: Path) -> None:
    result = mine(settings(pool, tmp_path / "run", model=model, algorithm="aldd", gallery=3))
    assert [image.heatmap for image in result.ranking] == [
        *(f"heatmaps/000{rank}.png" for rank in (1, 2, 3)),
        *[None] * 7,
    ]
    for image in result.ranking[:3]:
        picture = imaging.read_image(result.run / str(image.heatmap))
        assert picture.shape == imaging.read_image(image.path).shape
        assert picture.max() > 200
    assert len(list(RunLayout(result.run).heatmaps.iterdir())) == 3


def test_no_gallery_no_heat_maps(model: Path, pool: Path, tmp_path: Path) -> None:
    result = mine(settings(pool, tmp_path / "run", model=model, algorithm="aldd", gallery=0))
    assert not RunLayout(result.run).heatmaps.exists()


def test_random_opens_neither_model_nor_pictures(pool: Path, tmp_path: Path) -> None:
    first, other = (
        mine(settings(pool, tmp_path / str(seed), algorithm="random", seed=seed, top_k=4)) for seed in (0, 1)
    )
    assert len(first.ranking) == 4 and not first.failed
    assert scores(first) != scores(other)
    assert "broken.jpg" in scores(mine(settings(pool, tmp_path / "all", algorithm="random")))
    assert not RunLayout(first.run).predictions.exists()


def test_top_k_is_the_beginning_of_the_whole_ranking(model: Path, pool: Path, tmp_path: Path) -> None:
    whole = mine(settings(pool, tmp_path / "a", model=model, gallery=0))
    short = mine(settings(pool, tmp_path / "b", model=model, gallery=0, top_k=3))
    assert short.ranking == whole.ranking[:3]
    assert short.failed == whole.failed
    with RunLayout(short.run).scores.open(newline="") as file:
        rows = {row["path"]: row["score"] for row in csv.DictReader(file)}
    assert list(rows) == [*(str(pool / f"{number}.png") for number in range(10)), str(pool / "broken.jpg")]
    assert rows.pop(str(pool / "broken.jpg")) == ""
    assert {path: float(score) for path, score in rows.items()} == {image.path: image.score for image in whole.ranking}


def test_classes_are_those_of_the_results(model: Path, pool: Path, tmp_path: Path) -> None:
    result = mine(settings(pool, tmp_path / "a", model=model, classes=["dog=animal", "cat=animal"], gallery=0))
    assert {name for image in result.ranking for name in image.components} == {"animal"}


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"compat": "yolov4"}, "Known for aldd: mmdet, yolov5"),
        ({"class_weights": ["bird=2"]}, "Known: cat, dog"),
        ({"model": None}, "algorithm 'aldd' needs a model"),
        ({"classes": ["bird"]}, "there is no class 'bird'"),
    ],
)
def test_wrong_settings_make_no_run_folder(
    wrong: dict[str, object], message: str, model: Path, pool: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        mine(settings(pool, tmp_path / "run", **{"model": model, **wrong}))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def interrupted(model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was stopped after its second shard of three images."""
    monkeypatch.setattr("ymir_tmi.pool.shards.SHARD_IMAGES", 3)
    consume, seen = Cald.consume, []

    def stop(self: Cald, batch: Any) -> Any:
        seen.extend(batch)
        if len(seen) > 6:
            raise KeyboardInterrupt
        return consume(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Cald, "consume", stop)
        with pytest.raises(KeyboardInterrupt):
            mine(settings(pool, tmp_path / "run", model=model, algorithm="cald"))
    return tmp_path / "run"


def test_a_stopped_run_goes_on(interrupted: Path, model: Path, pool: Path, tmp_path: Path) -> None:
    before = json.loads(RunLayout(interrupted).manifest.read_text())
    assert before["status"] == "interrupted"
    result = mine(settings(pool, tmp_path / "ignored", model=model, algorithm="cald", resume=interrupted))
    whole = mine(settings(pool, tmp_path / "whole", model=model, algorithm="cald"))
    assert result.run == interrupted and manifest(result)["status"] == "done"
    assert not RunLayout(interrupted).shards.exists()
    assert result.ranking == whole.ranking
    assert RunLayout(interrupted).predictions.read_text() == RunLayout(whole.run).predictions.read_text()
    with pytest.raises(RunError, match="this run is done"):
        mine(settings(pool, tmp_path / "ignored", model=model, algorithm="cald", resume=interrupted))


@pytest.mark.parametrize("changed", [{"seed": 5}, {"conf": 0.2}, {"algorithm": "entropy"}, {"compat": "mmdet"}])
def test_a_stopped_run_does_not_go_on_with_other_settings(
    changed: dict[str, object], interrupted: Path, model: Path, pool: Path, tmp_path: Path
) -> None:
    again = {"model": model, "algorithm": "cald", "resume": interrupted, **changed}
    with pytest.raises(RunError, match=f"{next(iter(changed))} was"):
        mine(settings(pool, tmp_path / "ignored", **again))

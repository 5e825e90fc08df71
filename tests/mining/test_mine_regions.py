"""Runs of `mine` with models of instances and of semantics: regions, masks, and what the whole pool decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ymir_tmi import imaging
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.errors import ConfigError, ImageError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.mining.run import MineResult, mine
from ymir_tmi.mining.scores.rsal import Rsal
from ymir_tmi.mining.superpixels import SuperpixelSpec
from ymir_tmi.models.interface import Detections, ModelSpec, PostprocessSpec, Task
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs
from ymir_tmi.pool.predict import Asked
from ymir_tmi.pool.shards import RowStore, shards_of

CLASSES = ("red", "green", "blue")


def probabilities(image: imaging.Image) -> npt.NDArray[np.float32]:
    """A pixel is of the class of its strongest colour, the less surely the greyer it is."""
    weights = np.exp(image.astype(np.float32) / 40)
    return np.ascontiguousarray((weights / weights.sum(2, keepdims=True)).transpose(2, 0, 1))


def detections_of(image: imaging.Image, shift: int) -> Detections:
    """One object: the columns in the middle, of which each pass sees others where the picture is grey."""
    height, width = image.shape[:2]
    grey = int(image.std() < 60)
    bitmap = np.zeros((1, height, width), np.uint8)
    bitmap[0, 8 : height - 8, 8 + 2 * shift * grey : width - 8] = 1
    masks = Masks.encode(bitmap)
    score = np.float32([0.9 - 0.3 * grey])
    class_scores = np.stack([score, 0 * score, 0 * score], axis=1)
    return Detections(masks.hulls(), score, np.zeros(1, np.int64), class_scores, masks)


def look(image: imaging.Image, asked: Asked, passes: int, position: int, path: str) -> ImageResult:
    height, width = image.shape[:2]
    frame = plan_frame(width, height, InputSpec(size=max(width, height)))
    maps = np.full((1, frame.input_height // 4, frame.input_width // 4), 0.9 if image.std() > 60 else 0.6, np.float32)
    return ImageResult(
        position=position,
        path=path,
        size=(width, height),
        frame=frame,
        seed=0,
        detections=detections_of(image, 0),
        mask_maps=torch.from_numpy(maps),
        probabilities=torch.from_numpy(probabilities(image)) if "probabilities" in asked.outputs else None,
        passes=[detections_of(image, number) for number in range(passes)],
        measured=None if asked.measure is None else asked.measure(image),
    )


def fake_pass(index: DatasetIndex, consumers: list[Consumer], rows: RowStore, **options: object) -> None:
    """A pass whose model follows from the pixels."""
    asked, passes = Asked.by(consumers), max(consumer.needs.passes for consumer in consumers)
    for number, shard in enumerate(shards_of(len(index))):
        table: dict[str, list[Any]] = {consumer.name: [] for consumer in consumers}
        for position in shard if not rows.is_finished(number) else ():
            try:
                image = imaging.read_image(index.paths[position])
            except ImageError as error:
                for of_consumer in table.values():
                    of_consumer.append({"error": error.what})
                continue
            result = look(image, asked, passes, position, index.paths[position])
            for consumer in consumers:
                table[consumer.name] += consumer.consume([result])
        if not rows.is_finished(number):
            rows.write(number, table)
    rows.merge()


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[Task, Path]:
    """Files that stand for a model of each task."""
    files: dict[Task, Path] = {
        task: tmp_path / f"{task}.safetensors" for task in ("detection", "instances", "semantics")
    }
    for task, path in files.items():
        path.write_text(task)

    def spec_of(path: Path) -> ModelSpec:
        return ModelSpec(
            name="fake",
            family="fake",
            task=path.stem,  # type: ignore[arg-type]
            class_names=CLASSES,
            input=InputSpec(),
            postprocess=PostprocessSpec(),
        )

    def open_model(path: Path, settings: MineSettings) -> tuple[Any, tuple[str, ...]]:
        device = torch.device("cpu")
        return SimpleNamespace(spec=spec_of(path), device=device, arithmetic="fp32", has_raw=True), CLASSES

    monkeypatch.setattr("ymir_tmi.mining.run.open_model", open_model)
    monkeypatch.setattr("ymir_tmi.mining.run.run_pool", fake_pass)
    monkeypatch.setattr(
        "ymir_tmi.pool.record.describe_file", lambda path: SimpleNamespace(spec=spec_of(path), licence="none")
    )
    return files


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Pictures from pure colours to nearly grey, of one name in two folders, and a file that is none."""
    folder = tmp_path / "pool"
    for number, strength in enumerate([1.0, 0.75, 0.5, 0.25, 0.1]):
        blocks = np.random.default_rng(number).permutation(np.repeat(np.eye(3), 8, axis=0)).reshape(4, 6, 3)
        colours = (128 + strength * (255 * blocks - 128)).clip(0, 255).astype(np.uint8)
        picture = imaging.resize(colours, 96, 64, "nearest")
        imaging.write_image(folder / ("a" if number % 2 else "b") / f"{number // 2}.png", picture)
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


def run(model: Path, pool: Path, output: Path, **more: object) -> MineResult:
    return mine(MineSettings.model_validate({"model": model, "data": [str(pool)], "output": output, **more}))


BY_STRENGTH = ["b/2.png", "a/1.png", "b/1.png", "a/0.png", "b/0.png"]
"""The greyest picture first."""


def names(result: MineResult, pool: Path) -> list[str]:
    return [Path(image.path).relative_to(pool).as_posix() for image in result.ranking]


@pytest.mark.parametrize(
    "algorithm, options",
    [
        ("entropy", {}),
        ("ripu", {}),
        ("rsal", {"superpixels": "slic", "max_superpixels": 64}),
        ("rsal", {"compat": "mmseg"}),
    ],
)
def test_ambiguous_pictures_come_first(
    algorithm: str, options: dict[str, object], models: dict[Task, Path], pool: Path, tmp_path: Path
) -> None:
    result = run(models["semantics"], pool, tmp_path / "run", algorithm=algorithm, class_balance=True, **options)
    assert names(result, pool) == BY_STRENGTH
    assert [failed.path for failed in result.failed] == [str(pool / "a" / "broken.png")]
    assert not RunLayout(result.run).predictions.exists()
    heat_maps = [image.heatmap for image in result.ranking]
    assert heat_maps == [f"heatmaps/000{rank}.png" for rank in range(1, 6)]
    assert imaging.image_size(result.run / str(heat_maps[0])) == (96, 64)


@pytest.mark.parametrize("algorithm", ["apis", "maskal"])
def test_unsteady_objects_come_first(algorithm: str, models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    result = run(models["instances"], pool, tmp_path / "run", algorithm=algorithm)
    grey = [name for name in BY_STRENGTH if imaging.read_image(pool / name).std() < 60]
    assert 0 < len(grey) < 5 and set(names(result, pool)[: len(grey)]) == set(grey)
    for image in result.ranking:
        [region] = image.regions or []
        assert region["label"] == "red" and region["box"] == pytest.approx([8, 8, 88, 56], abs=20)
    assert result.ranking[0].heatmap is not None
    upside_down = run(models["instances"], pool, tmp_path / "port", algorithm=algorithm, compat="yolov5")
    assert (algorithm == "maskal") == (set(names(upside_down, pool)[-len(grey) :]) == set(grey))


def test_masks_show_the_chosen_regions(models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    result = run(models["semantics"], pool, tmp_path / "run", algorithm="rsal", kept=3, max_superpixels=256)
    layout = RunLayout(result.run)
    written = sorted(path.relative_to(layout.masks).as_posix() for path in layout.masks.rglob("*.png"))
    assert written == sorted(f"{name}.png" for name in names(result, pool)[:3])
    for image in result.ranking[:3]:
        assert image.mask is not None and image.regions is not None and len(image.regions) >= 3
        entries = [region["rle"] for region in image.regions]
        bitmaps = Masks((96, 64), tuple(entry["counts"].encode() for entry in entries)).decode()
        assert bitmaps.sum(0).max() == 1  # superpixels do not overlap
        drawn = imaging.read_image(result.run / image.mask)
        np.testing.assert_array_equal(drawn, np.repeat(bitmaps.any(0)[..., None] * 255, 3, axis=2))
        assert sum(region["score"] for region in image.regions) == pytest.approx(image.score, rel=1e-6)
    assert [(image.mask, image.regions) for image in result.ranking[3:]] == [(None, None)] * 2
    content = json.loads(layout.ranking_json.read_text())
    assert content["ranking"] == [image.to_dict() for image in result.ranking]


@pytest.mark.parametrize("gallery", [0, 2, 24])
def test_what_is_written_of_a_picture_comes_from_one_cut(
    gallery: int, models: dict[Task, Path], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, pictures = SuperpixelSpec.cut, []

    def counted(self: SuperpixelSpec, image: imaging.Image) -> Any:
        pictures.append(image.mean())
        return cut(self, image)

    monkeypatch.setattr(SuperpixelSpec, "cut", counted)
    result = run(models["semantics"], pool, tmp_path / "run", algorithm="rsal", kept=3, gallery=gallery)
    assert [image.mask is not None for image in result.ranking] == [True] * 3 + [False] * 2
    assert [image.heatmap is not None for image in result.ranking] == [rank < gallery for rank in range(5)]
    written = [imaging.read_image(image.path).mean() for image in result.ranking[: max(3, gallery)]]
    assert sorted(pictures[5:]) == sorted(written)  # five for the scores


def test_ripu_lists_squares(models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    result = run(models["semantics"], pool, tmp_path / "run", algorithm="ripu", kept=2, top_regions=4, region_radius=2)
    for image in result.ranking[:2]:
        assert image.regions is not None and image.mask is None
        assert [max(np.subtract(region["box"][2:], region["box"][:2])) for region in image.regions] == [5] * 4
    assert result.ranking[2].regions is None


def test_a_stopped_run_of_rsal_goes_on(
    models: dict[Task, Path], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ymir_tmi.pool.shards.SHARD_IMAGES", 2)
    whole = run(models["semantics"], pool, tmp_path / "whole", algorithm="rsal")
    seen: list[ImageResult] = []
    consume = Rsal.consume

    def stop(self: Rsal, batch: Any) -> Any:
        seen.extend(batch)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return consume(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Rsal, "consume", stop)
        with pytest.raises(KeyboardInterrupt):
            run(models["semantics"], pool, tmp_path / "run", algorithm="rsal")
    resumed = run(
        models["semantics"], pool, tmp_path / "x", algorithm="rsal", resume=tmp_path / "run", class_balance=True
    )
    assert resumed.run == tmp_path / "run" and resumed.ranking == whole.ranking


@pytest.mark.parametrize("algorithm", ["entropy", "rsal", "ripu"])
def test_pixels_are_scored_whole(algorithm: str, models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"algorithm '{algorithm}' scores whole images only") as error:
        run(models["semantics"], pool, tmp_path / "run", algorithm=algorithm, tile=64, overlap=8)
    assert error.value.fix == "Leave out the tiles."
    assert not (tmp_path / "run").exists()


def test_the_task_decides_which_algorithms_there_are(models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no algorithm 'aldd' for models of task 'semantics'"):
        run(models["semantics"], pool, tmp_path / "run", algorithm="aldd")
    with pytest.raises(ConfigError, match="no algorithm 'rsal' for models of task 'instances'"):
        run(models["instances"], pool, tmp_path / "run", algorithm="rsal")
    assert not (tmp_path / "run").exists()
    assert len(run(models["semantics"], pool, tmp_path / "run", algorithm="random", gallery=0).ranking) == 5


@pytest.mark.parametrize("task, algorithm", [("detection", "aldd"), ("instances", "aldd"), ("semantics", "rsal")])
def test_the_task_decides_on_the_default(task: Task, algorithm: str) -> None:
    settings = MineSettings(data=["pool"])
    assert create_algorithm(settings, CLASSES, task=task).name == algorithm


def test_the_default_is_recorded(models: dict[Task, Path], pool: Path, tmp_path: Path) -> None:
    layout = RunLayout(run(models["semantics"], pool, tmp_path / "run").run)
    assert json.loads(layout.manifest.read_text())["settings"]["algorithm"] == "rsal"
    assert json.loads(layout.ranking_json.read_text())["algorithm"] == "rsal"


@pytest.mark.parametrize("task", ["instances", "semantics"])
def test_random_runs_a_model_for_its_detections_only(
    task: Task, models: dict[Task, Path], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = []

    def watched(*args: Any, runtime: object, **options: object) -> None:
        runtimes.append(runtime)
        fake_pass(*args, **options)

    monkeypatch.setattr("ymir_tmi.mining.run.run_pool", watched)
    result = run(models[task], pool, tmp_path / "run", algorithm="random")
    assert [runtime is None for runtime in runtimes] == [task == "semantics"]
    assert RunLayout(result.run).predictions.exists() == (task != "semantics")


def test_nothing_is_measured_unless_asked() -> None:
    class Plain(Consumer):
        name = "plain"
        needs = Needs()  # type: ignore[assignment]

        def consume(self, batch: Any) -> Any:
            raise AssertionError

    class Measuring(Plain):
        needs = replace(Needs(), measure=len)  # type: ignore[assignment,arg-type]

    assert Asked.by([Plain()]).measure is None
    assert Asked.by([Plain(), Measuring()]).measure is len

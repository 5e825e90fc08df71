"""A pass with a model of instances: masks, their maps, and passes with parts of the network switched off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pool_fakes import FakeRuntime, write_pool

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import letterbox
from ymir_tmi.errors import ModelError
from ymir_tmi.imaging import read_image
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.interface import Detections, Detector
from ymir_tmi.models.masks import encode_masks
from ymir_tmi.models.postprocess import detect
from ymir_tmi.models.runtime.torch_runtime import TorchRuntime, load_runtime
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Output, Row
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows

SIZE = 256
MIN_SCORE = 0.1


class Keeping(Consumer):
    """Keeps the results themselves."""

    name = "keeping"

    def __init__(self, *outputs: Output, passes: int = 0) -> None:
        self._needs = Needs(frozenset(outputs), min_score=MIN_SCORE, passes=passes)
        self.results: dict[int, ImageResult] = {}

    @property
    def needs(self) -> Needs:
        return self._needs

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        self.results.update({result.position: result for result in batch})
        return [{} for _ in batch]


@pytest.fixture(scope="module")
def runtime(instance_model: Detector) -> TorchRuntime:
    return load_runtime(instance_model, device="cpu", precision="fp32", image_size=SIZE, max_dets=20)


@pytest.fixture
def pool(tmp_path: Path) -> DatasetIndex:
    return write_pool(tmp_path / "pool", 6)


def results(pool: DatasetIndex, runtime: TorchRuntime, consumer: Keeping, batch: int = 4) -> list[ImageResult]:
    run_pool(pool, [consumer], MemoryRows(), runtime=runtime, batch=batch)
    return [consumer.results[position] for position in range(len(pool))]


def assert_same(ours: Detections, theirs: Detections) -> None:
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.class_scores, theirs.class_scores, rtol=1e-3, atol=1e-4)
    assert ours.masks is not None and theirs.masks is not None and ours.masks.size == theirs.masks.size
    differing = (ours.masks.decode() != theirs.masks.decode()).sum((1, 2))
    assert (differing <= 1 + 0.002 * theirs.masks.areas()).all()


def test_detections_have_masks_if_someone_asks(pool: DatasetIndex, runtime: TorchRuntime) -> None:
    for result in results(pool, runtime, Keeping("masks")):
        picture, frame = letterbox(read_image(result.path), runtime.spec.input)
        dense = runtime.decode(runtime.run(picture[None]))
        spec = runtime.spec.postprocess.model_copy(update={"score_threshold": MIN_SCORE})
        (expected,) = detect(dense, [frame], spec, masks=True)
        assert result.detections is not None and result.detections.masks is not None and result.mask_maps is None
        assert result.detections.masks.size == result.size
        assert len(expected) == 20 and (result.detections.masks.areas() > 0).sum() > 5
        assert_same(result.detections, expected)
    for result in results(pool, runtime, Keeping("detections")):
        assert result.detections is not None and result.detections.masks is None


def test_maps_are_those_that_masks_are_made_from(pool: DatasetIndex, runtime: TorchRuntime) -> None:
    for result in results(pool, runtime, Keeping("mask_maps", "masks")):
        found, frame = result.detections, result.frame
        assert found is not None and frame is not None and result.mask_maps is not None
        assert result.mask_maps.shape == (len(found), frame.input_height // 4, frame.input_width // 4)
        assert encode_masks(result.mask_maps, found.boxes, frame) == found.masks
    for result in results(pool, runtime, Keeping("mask_maps")):
        assert result.detections is not None and result.detections.masks is None and result.mask_maps is not None


def test_passes_are_seeded_by_the_picture_and_differ(pool: DatasetIndex, runtime: TorchRuntime) -> None:
    together = results(pool, runtime, Keeping("masks", passes=3))
    alone = results(pool, runtime, Keeping(passes=3), batch=1)
    plain = results(pool, runtime, Keeping("masks"))
    different = 0
    for one, other, ordinary in zip(together, alone, plain, strict=True):
        assert len(one.passes) == len(other.passes) == 3
        assert other.detections is None
        for ours, theirs in zip(one.passes, other.passes, strict=True):
            assert_same(ours, theirs)
        assert one.detections is not None and ordinary.detections is not None
        assert_same(one.detections, ordinary.detections)
        scores = [found.scores for found in (one.detections, *one.passes)]
        different += len({tuple(own.tolist()) for own in scores})
    assert different > 3 * len(pool), "in a small picture there may be no square at all"
    assert all(result.passes == () for result in plain)


def test_what_no_pass_changes_is_computed_once(pool: DatasetIndex, runtime: TorchRuntime) -> None:
    calls = {"stem": 0, "stages.3.0": 0}
    hooks = []
    for name in calls:

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        module = runtime._network.get_submodule(f"backbone.{name}" if name == "stem" else f"backbone.{name[:-1]}1")
        hooks.append(module.register_forward_hook(count))
    results(pool, runtime, Keeping("detections", passes=5), batch=1)
    for hook in hooks:
        hook.remove()
    assert calls == {"stem": len(pool), "stages.3.0": 6 * len(pool)}


@pytest.mark.parametrize("output", ["masks", "mask_maps"])
def test_a_model_without_masks_is_refused(pool: DatasetIndex, output: Output) -> None:
    with pytest.raises(ModelError, match="'fake' finds no masks"):
        run_pool(pool, [Keeping(output)], MemoryRows(), runtime=FakeRuntime())  # type: ignore[arg-type]


def test_a_model_that_cannot_switch_parts_off_is_refused(pool: DatasetIndex) -> None:
    detector = load_runtime(create_model("yolov5_n", num_classes=2), device="cpu")
    with pytest.raises(ModelError, match="cannot switch random parts of its network off"):
        run_pool(pool, [Keeping(passes=2)], MemoryRows(), runtime=detector)

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn import draw, write_index

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import Phase, Targets, TrainingBatch
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.loader import EpochPlan, TrainingLoader, group_alike, training_loader
from ymir_tmi.data.pipeline import Augmenter
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.shapes import batch_sizes, largest_batch
from ymir_tmi.errors import DataError, ImageError

pytestmark = [
    # A machine with one core is told that two workers are too many; newer Pythons warn of every fork beside threads.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CACHED = AugmentRecipe(mosaic_cache=8, mixup_cache=4, mixup=0.5)
UNCACHED = AugmentRecipe(mosaic_cache=0, mixup_cache=0)
ALONE = AugmentRecipe(mosaic=0, mixup=0, geometry="affine", multiscale=(0.5, 1.0), multiscale_interval=2)
SIZE = 64


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Twenty-one pictures with two objects each, but the last without any."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(20):
        x, y = rng.integers(0, 40, 2).tolist()
        samples.append(draw(80, 60, [(x, y, x + 20, y + 15), (2, 2, 30, 30)], rng.integers(0, 6, 2).tolist()))
    return write_index(tmp_path_factory.mktemp("pictures"), [*samples, draw(70, 70, [])])


def load(index: DatasetIndex, augment: AugmentRecipe = ALONE, *, workers: int = 0, **changed: int) -> TrainingLoader:
    options = {"batch": 4, "seed": 3} | changed
    return training_loader(index, augment, spec=InputSpec(size=SIZE), workers=workers, **options)


def epoch_of(loader: TrainingLoader, epoch: int, phase: Phase = "main") -> list[TrainingBatch]:
    loader.set_epoch(epoch, phase)
    return list(loader)


def assert_same(first: list[TrainingBatch], second: list[TrainingBatch]) -> None:
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one.image_positions == two.image_positions
        torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)
        for name in ("boxes", "labels"):
            for a, b in zip(getattr(one.targets, name), getattr(two.targets, name), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_what_the_network_takes(index: DatasetIndex, workers: int) -> None:
    for batch in epoch_of(load(index, CACHED, workers=workers), 0):
        assert batch.images.shape == (4, 3, SIZE, SIZE) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert len(batch) == len(batch.targets.boxes) == len(batch.targets.labels) == len(batch.image_positions) == 4
        for boxes, labels in zip(batch.targets.boxes, batch.targets.labels, strict=True):
            assert boxes.dtype == torch.float32 and boxes.shape == (len(labels), 4)
            assert labels.dtype == torch.int64
        moved = batch.to("cpu")
        assert_same([batch], [moved])


@pytest.mark.parametrize(
    ("images", "batch", "world_size", "steps"),
    [
        (12, 4, 1, [[4], [4], [4]]),
        (15, 4, 1, [[4], [4], [4]]),  # three are left over
        (15, 4, 2, [[4, 4]]),  # seven are left over
        (16, 4, 2, [[4, 4], [4, 4]]),
        (3, 4, 1, [[3]]),  # fewer than a batch: a short one
        (3, 4, 2, [[2, 1]]),
        (7, 4, 2, [[4, 3]]),
        (1, 4, 2, [[1, 1]]),  # fewer than processes: the same one for both
    ],
)
def test_steps_of_an_epoch(images: int, batch: int, world_size: int, steps: list[list[int]]) -> None:
    plans = [
        EpochPlan(images, batch, seed=0, rank=rank, world_size=world_size, augment=ALONE, sizes=(64,))
        for rank in range(world_size)
    ]
    parts = [list(plan) for plan in plans]
    assert [[len(part.rows) for part in step] for step in zip(*parts, strict=True)] == steps
    assert all(len(plan) == len(steps) for plan in plans)
    rows = np.concatenate([part.rows for step in zip(*parts, strict=True) for part in step])
    assert len(set(rows.tolist())) == min(images, len(rows))  # none twice as long as there are others


@pytest.mark.parametrize(("images", "epochs_per_pass", "steps"), [(32, 2, 4), (34, 2, 4), (36, 4, 2), (39, 3, 3)])
def test_a_pass_over_the_images_may_be_several_epochs(images: int, epochs_per_pass: int, steps: int) -> None:
    halves = [
        EpochPlan(
            images, 2, seed=0, rank=rank, world_size=2, augment=ALONE, sizes=(64,), epochs_per_pass=epochs_per_pass
        )
        for rank in range(2)
    ]
    whole = EpochPlan(images, 4, seed=0, rank=0, world_size=1, augment=ALONE, sizes=(64,))
    for turn in range(2):
        rows, places = list[int](), list[int]()
        for epoch in range(turn * epochs_per_pass, (turn + 1) * epochs_per_pass):
            assert all(len(half) == steps for half in halves)
            for parts in zip(*(replace(half, epoch=epoch) for half in halves), strict=True):
                assert {part.epoch for part in parts} == {epoch}
                rows += [row for part in parts for row in part.rows]
                places += [place for part in parts for place in part.positions]
        expected = [row for plan in replace(whole, epoch=turn) for row in plan.rows]
        assert rows == expected[: len(rows)] and len(expected) - len(rows) < 4 * epochs_per_pass
        assert places == list(range(len(rows)))


def test_each_epoch_has_its_own_order(index: DatasetIndex) -> None:
    def order(epoch: int, seed: int = 3) -> list[int]:
        return [row for batch in epoch_of(load(index, seed=seed), epoch) for row in batch.image_positions]

    assert order(0) == order(0)
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(2)), tuple(order(0, seed=4))}) == 4


def test_images_are_drawn_as_often_as_their_weights_say(index: DatasetIndex) -> None:
    weights = np.arange(21.0) / 210
    loader, other = load(index), load(index, seed=4)
    for each in (loader, other):
        each.set_weights(weights)
    epochs = [epoch_of(loader, epoch) for epoch in range(40)]
    shown = np.bincount([row for batches in epochs for batch in batches for row in batch.image_positions], minlength=21)
    assert shown.sum() == 40 * 20 and shown[0] == 0
    np.testing.assert_allclose(shown, 800 * weights, atol=4 * np.sqrt(800 * weights).max())
    assert np.corrcoef(shown, weights)[0, 1] > 0.9
    assert_same(epochs[7], epoch_of(loader, 7))
    assert any(a.image_positions != b.image_positions for a, b in zip(epochs[7], epoch_of(other, 7), strict=True))
    halves = [load(index, batch=2, rank=rank, world_size=2) for rank in range(2)]
    for half in halves:
        half.set_weights(weights)
    for whole, left, right in zip(epochs[7], *(epoch_of(half, 7) for half in halves), strict=True):
        assert whole.image_positions == left.image_positions + right.image_positions


@pytest.mark.parametrize("augment", [ALONE, UNCACHED], ids=["alone", "mosaic and mixup from the disk"])
def test_without_caches_workers_and_processes_do_not_matter(index: DatasetIndex, augment: AugmentRecipe) -> None:
    whole = epoch_of(load(index, augment, batch=4), 1)
    assert_same(whole, epoch_of(load(index, augment, batch=4, workers=2), 1))
    halves = [epoch_of(load(index, augment, batch=2, rank=rank, world_size=2), 1) for rank in range(2)]
    joined = [
        TrainingBatch(
            torch.cat([left.images, right.images]),
            Targets([*left.targets.boxes, *right.targets.boxes], [*left.targets.labels, *right.targets.labels]),
            left.image_positions + right.image_positions,
        )
        for left, right in zip(*halves, strict=True)
    ]
    assert_same(whole, joined)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_an_epoch_is_exact(index: DatasetIndex, workers: int) -> None:
    phases: list[Phase] = ["main", "main", "main", "main", "final"]
    augment = CACHED.model_copy(update={"multiscale": (0.5, 1.5), "multiscale_interval": 2})
    loader = load(index, augment, workers=workers)
    straight = [epoch_of(loader, epoch, phase) for epoch, phase in enumerate(phases)]

    killed = load(index, augment, workers=workers)
    for epoch in range(3):
        assert_same(straight[epoch], epoch_of(killed, epoch, phases[epoch]))
    resumed = load(index, augment, workers=workers)
    for epoch in (3, 4):
        assert_same(straight[epoch], epoch_of(resumed, epoch, phases[epoch]))
    sizes = {batch.images.shape[2] for batches in straight for batch in batches}
    assert sizes == {32, 64, 96}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_broken_off_can_be_repeated(index: DatasetIndex, workers: int) -> None:
    loader = load(index, CACHED, workers=workers)
    loader.set_epoch(2, "main")
    next(iter(loader))
    assert_same(epoch_of(loader, 2), epoch_of(load(index, CACHED, workers=workers), 2))


def test_the_epoch_is_chosen_by_the_first_batch_not_by_the_iterator(index: DatasetIndex) -> None:
    loader = load(index)
    iterator = iter(loader)
    loader.set_epoch(7, "final")
    assert_same(list(iterator), epoch_of(load(index), 7, "final"))


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_neither_read_nor_changed(index: DatasetIndex, workers: int) -> None:
    def state() -> tuple[object, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = state()
    first = epoch_of(load(index, CACHED, workers=workers), 0)
    assert state() == before
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert_same(first, epoch_of(load(index, CACHED, workers=workers), 0))


def test_the_batch_size_in_pixels_changes_every_few_steps_with_its_boxes(index: DatasetIndex) -> None:
    augment = AugmentRecipe(mosaic=0, mixup=0, geometry="affine", flip=0, multiscale=(0.5, 2.0), multiscale_interval=3)
    loader, plain = load(index, augment), load(index, augment.model_copy(update={"multiscale": None}))
    sizes = []
    for epoch in range(12):
        for batch, reference in zip(epoch_of(loader, epoch, "final"), epoch_of(plain, epoch, "final"), strict=True):
            assert batch.images.shape[2] == batch.images.shape[3]
            sizes.append(batch.images.shape[2])
            for boxes, unscaled in zip(batch.targets.boxes, reference.targets.boxes, strict=True):
                torch.testing.assert_close(boxes, unscaled * (sizes[-1] / SIZE))
    assert set(sizes) == {32, 64, 96, 128}
    assert all(len(set(sizes[start : start + 3])) == 1 for start in range(0, len(sizes), 3))


def test_sizes_are_multiples_of_the_stride_of_the_network() -> None:
    spec = InputSpec(size=1280, stride=64)
    assert batch_sizes(AugmentRecipe(multiscale=(0.9, 1.1)), spec) == (1152, 1216, 1280, 1344, 1408)


@pytest.mark.parametrize(
    ("geometry", "multiscale", "spec", "largest"),
    [
        ("affine", None, InputSpec(size=320), (320, 320)),
        ("affine", (0.5, 1.5), InputSpec(size=320), (480, 480)),
        ("shorter_side", (0.8, 1.0), InputSpec(size=800, resize="shorter", longest=1333), (800, 1344)),
        ("shorter_side", None, InputSpec(size=320, resize="shorter"), (320, 640)),
    ],
)
def test_largest_batch(
    geometry: str, multiscale: tuple[float, float] | None, spec: InputSpec, largest: tuple[int, int]
) -> None:
    augment = AugmentRecipe.model_validate({"geometry": geometry, "multiscale": multiscale})
    assert largest_batch(augment, spec) == largest


@pytest.mark.parametrize(
    ("multiscale", "image_size", "allowed"),
    [
        (None, 320, {320}),
        ((0.75, 1.25), 640, {480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800}),
        ((0.75, 1.25), 320, {256, 288, 320, 352, 384}),
        ((0.5, 1), 416, {224, 256, 288, 320, 352, 384, 416}),
        ((0.9375, 1.0625), 320, {320}),
        ((0.953125, 0.984375), 320, {320}),  # no multiple of 32 in the range
    ],
)
def test_allowed_batch_sizes(multiscale: tuple[float, float] | None, image_size: int, allowed: set[int]) -> None:
    assert set(batch_sizes(AugmentRecipe(multiscale=multiscale), InputSpec(size=image_size))) == allowed


STRETCHED = AugmentRecipe(
    mosaic=0, mixup=0, geometry="expand_crop", multiscale=(0.5, 1.5), multiscale_interval=1, distort=0.5
)
SHORTER = AugmentRecipe(mosaic=0, mixup=0, geometry="shorter_side", multiscale=(0.5, 1.0))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Eighteen wide and six high pictures."""
    sizes = [(80, 60)] * 9 + [(50, 90), (64, 64)] * 3 + [(120, 40)] * 9
    samples = [draw(*size, [(2, 2, 30, 30)], [row % 6]) for row, size in enumerate(sizes)]
    return write_index(tmp_path_factory.mktemp("mixed"), samples)


@pytest.mark.parametrize("augment", [STRETCHED, SHORTER], ids=["stretched", "shorter side"])
def test_batches_of_other_shapes_can_be_repeated_and_shared(mixed: DatasetIndex, augment: AugmentRecipe) -> None:
    whole = epoch_of(load(mixed, augment), 1)
    assert_same(whole, epoch_of(load(mixed, augment, workers=2), 1))
    halves = [epoch_of(load(mixed, augment, batch=2, rank=rank, world_size=2), 1) for rank in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert batch.image_positions == parts[0].image_positions + parts[1].image_positions
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for part in parts:  # padding follows from a process' own pictures
            assert part.images.shape[2] <= batch.images.shape[2] and part.images.shape[3] <= batch.images.shape[3]
        boxes = [*parts[0].targets.boxes, *parts[1].targets.boxes]
        for one, two in zip(batch.targets.boxes, boxes, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_stretched_batches_change_their_size_and_interpolation_together(mixed: DatasetIndex) -> None:
    plan = EpochPlan(24, 2, seed=0, rank=0, world_size=1, augment=STRETCHED, sizes=(32, 64, 96))
    shapes = {(batch.size, batch.interpolation) for epoch in range(12) for batch in replace(plan, epoch=epoch)}
    assert shapes == {(size, how) for size in (32, 64, 96) for how in ("nearest", "bilinear", "bicubic", "area")}
    assert {batch.images.shape[2:] for batch in epoch_of(load(mixed, STRETCHED), 0)} <= {(s, s) for s in (32, 64, 96)}


def test_a_batch_has_one_orientation(mixed: DatasetIndex) -> None:
    wide = mixed.sizes[:, 0] > mixed.sizes[:, 1]
    shapes = []
    for epoch in range(4):
        for batch in epoch_of(load(mixed, SHORTER), epoch):
            kinds = {bool(wide[row]) for row in batch.image_positions}
            assert len(kinds) == 1
            shapes.append(tuple(batch.images.shape[2:]))
            assert all(side % 32 == 0 for side in shapes[-1])
    assert len(set(shapes)) > 1


@pytest.mark.parametrize(("kinds", "count"), [(96 * [True] + [False], 16), (5 * [True] + 95 * [False], 16)])
def test_rare_kind_has_its_share_over_many_epochs(kinds: list[bool], count: int) -> None:
    kind = np.array(kinds)
    rng = np.random.default_rng(0)
    shown = np.zeros(len(kind))
    for _ in range(1500):
        order = rng.permutation(len(kind))
        groups = group_alike(order, kind[order], count, rng).reshape(-1, count)
        assert len(groups) == len(kind) // count
        assert all(len(set(kind[group])) == 1 for group in groups)
        shown += np.bincount(groups.ravel(), minlength=len(kind))
    expected = 1500 * (len(kind) // count) * count / len(kind)
    for members in (kind, ~kind):
        assert shown[members].mean() == pytest.approx(expected, rel=0.25)
        assert shown[members].min() > 0


@pytest.mark.parametrize(("kinds", "count"), [([True] * 7, 3), ([False] * 7, 7), ([True, False], 4), ([True], 2)])
def test_groups_of_a_small_set(kinds: list[bool], count: int) -> None:
    kind = np.array(kinds)
    for seed in range(6):
        groups = group_alike(np.arange(len(kind)), kind, count, np.random.default_rng(seed)).reshape(-1, count)
        assert len(groups) == max(1, len(kind) // count)
        assert all(len(set(kind[group])) == 1 for group in groups)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_reported_once_and_replaced(tmp_path: Path, workers: int) -> None:
    index = write_index(tmp_path, [draw(40, 40, [(10, 10, 30, 30)], [row % 6]) for row in range(20)])
    Path(index.paths[7]).write_bytes(b"not a picture")
    loader = load(index, workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in range(3):
            assert [len(batch) for batch in epoch_of(loader, epoch)] == [4] * 5
    messages = [str(warning.message) for warning in caught if index.paths[7] in str(warning.message)]
    assert len(messages) == 1
    assert list(loader.failed) == [index.paths[7]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [3, 20], ids=["more than a tenth", "all"])
def test_too_many_broken_pictures_stop_training(tmp_path: Path, workers: int, broken: int) -> None:
    index = write_index(tmp_path, [draw(40, 40, [(10, 10, 30, 30)], [0]) for _ in range(20)])
    for row in range(broken):
        Path(index.paths[row]).write_bytes(b"")
    with pytest.raises(ImageError, match="cannot be read") as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        epoch_of(load(index, workers=workers), 0)
    assert caught.value.fix and "Traceback" not in str(caught.value)


def test_pictures_without_objects_have_empty_targets(tmp_path: Path) -> None:
    index = write_index(tmp_path, [draw(40, 40, []) for _ in range(3)])
    for augment in (ALONE, CACHED):
        (batch,) = epoch_of(load(index, augment), 0)
        assert [boxes.shape for boxes in batch.targets.boxes] == [(0, 4)] * 3
        assert [labels.shape for labels in batch.targets.labels] == [(0,)] * 3


def test_no_pictures_at_all(index: DatasetIndex) -> None:
    with pytest.raises(DataError, match="no images"):
        load(index.take([]))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_workers_share_the_index_and_use_one_thread(
    index: DatasetIndex, monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]
) -> None:
    def refuse(self: DatasetIndex, protocol: object) -> tuple[object, ...]:
        raise AssertionError("the index was pickled")

    def report(self: Augmenter, row: int, phase: Phase, rng: np.random.Generator) -> Sample:
        threads = np.array([torch.get_num_threads(), cv2.getNumThreads()])
        return Sample(np.zeros((SIZE, SIZE, 3), np.uint8), np.ones((2, 4), np.float32), threads)

    monkeypatch.setattr(DatasetIndex, "__reduce_ex__", refuse)
    monkeypatch.setattr(Augmenter, "sample", report)
    set_threads(2)
    for batch in epoch_of(load(index, workers=2), 0):
        assert [labels.tolist() for labels in batch.targets.labels] == [[1, 1]] * 4

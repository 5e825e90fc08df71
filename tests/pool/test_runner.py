"""One pass: the same rows whatever the batches, the order, the threads and the accidents."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Barrier

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pool_fakes import CLASSES, FakeRuntime, Mirror, Recording, Tall, as_lists, index_of, write_pool

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import letterbox
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.imaging import read_image
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.models.postprocess import detect
from ymir_tmi.pool import shards
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import FileRows, MemoryRows


def rows_of(index: DatasetIndex, consumer: Consumer, runtime: FakeRuntime, **options: int) -> list[Row]:
    store = MemoryRows()
    run_pool(index, [consumer], store, runtime=runtime, **options)
    return list(store.rows(consumer.name))


@pytest.fixture
def pool(tmp_path: Path) -> DatasetIndex:
    return write_pool(tmp_path / "pool", 30)


def test_rows_equal_one_picture_at_a_time_by_hand(pool: DatasetIndex) -> None:
    runtime = FakeRuntime()
    rows = rows_of(pool, Recording(), runtime, batch=4)
    spec = runtime.spec.postprocess.model_copy(update={"score_threshold": 0.1})
    for position, row in enumerate(rows):
        image = read_image(pool.paths[position])
        pixels, frame = letterbox(image, runtime.spec.input)
        found = detect(runtime.decode(runtime.run(pixels[None])), [frame], spec)[0]
        assert row["size"] == [image.shape[1], image.shape[0]]
        np.testing.assert_allclose(row["found"], as_lists(found), atol=1e-5)


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (2, 1), (7, 3), (64, 2)])
def test_rows_do_not_depend_on_batches_and_threads(batch: int, workers: int, pool: DatasetIndex) -> None:
    asks = Recording(("detections", "class_maps", "raw"), views=[Mirror(), Tall()])
    expected = rows_of(pool, asks, FakeRuntime(), batch=3, workers=2)
    assert rows_of(pool, asks, FakeRuntime(), batch=batch, workers=workers) == expected


class Meeting(FakeRuntime):
    """Goes on only when several calls of `run` have come together."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._barrier = Barrier(calls)

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        self._barrier.wait(timeout=10)
        return super().run(images)


@pytest.mark.parametrize(("batch", "calls"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_small_batches_leave_no_core_without_a_picture(
    batch: int, calls: int, pool: DatasetIndex, set_threads: Callable[[int], None]
) -> None:
    set_threads(4)
    pictures = pool.take(np.zeros(4 * batch, np.int64))  # of one shape, so that all batches are full
    expected = rows_of(pictures, Recording(), FakeRuntime(), batch=batch)
    assert rows_of(pictures, Recording(), Meeting(calls), batch=batch) == expected


def test_rows_do_not_depend_on_order_and_neighbours(pool: DatasetIndex) -> None:
    asks = Recording(views=[Tall()])
    expected = {row["path"]: row for row in rows_of(pool, asks, FakeRuntime())}
    order = np.random.default_rng(1).permutation(len(pool))
    for chosen in (order, order[:7]):
        for row in rows_of(pool.take(chosen), asks, FakeRuntime(), batch=5):
            assert row == expected[row["path"]]


def test_the_seed_of_a_run_changes_what_is_drawn(pool: DatasetIndex) -> None:
    asks = Recording(views=[Tall()])
    first, again, other = (rows_of(pool, asks, FakeRuntime(), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert all(a["seed"] != b["seed"] for a, b in zip(first, other, strict=True))
    assert any(a["views"] != b["views"] for a, b in zip(first, other, strict=True))


def test_the_model_runs_once_for_each_view_whoever_asks(tmp_path: Path) -> None:
    pool = write_pool(tmp_path, 12, sizes=[(64, 64)])
    consumers = [
        Recording(name="plain", min_score=0.5),
        Recording(("class_maps",), name="maps"),
        Recording(views=[Mirror()], name="mirror"),
        Recording(views=[Mirror(), Tall()], name="both", min_score=0.2),
    ]
    runtime, store = FakeRuntime(), MemoryRows()
    run_pool(pool, consumers, store, runtime=runtime, batch=4)
    assert runtime.runs == [4] * 9  # three batches; plain, mirror and tall
    for consumer in consumers:
        assert consumer.seen == list(range(12))
    rows = next(store.rows("both"))
    assert set(rows["views"]) == {"mirror", "tall"}
    # Everyone gets what scores above the lowest threshold that anyone asked for.
    alone = rows_of(pool, Recording(min_score=0.1), FakeRuntime())
    assert [row["found"] for row in store.rows("plain")] == [row["found"] for row in alone]


def test_views_of_several_shapes_are_run_shape_by_shape(tmp_path: Path) -> None:
    # Both fill the network's square input, and their tall copies do not.
    pool = write_pool(tmp_path, 4, sizes=[(64, 64), (60, 64)])
    runtime = FakeRuntime()
    rows = rows_of(pool, Recording(views=[Tall()]), runtime, batch=4)
    assert runtime.runs == [4, 4]
    runtime = FakeRuntime(size=128)
    assert [row["views"].keys() for row in rows_of(pool, Recording(views=[Tall()]), runtime, batch=4)] == [{"tall"}] * 4
    assert len(rows) == 4 and sum(runtime.runs) == 8


def test_mirrored_pictures_are_found_mirrored(tmp_path: Path) -> None:
    pool = write_pool(tmp_path, 3, sizes=[(64, 64)])
    for row in rows_of(pool, Recording(views=[Mirror()]), FakeRuntime()):
        plain = np.array(row["found"])
        plain[:, [0, 2]] = 64 - plain[:, [2, 0]]
        np.testing.assert_allclose(sorted(plain.tolist()), row["views"]["mirror"], atol=1e-4)


def test_only_what_is_asked_for_is_computed(pool: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for output, unused in (("detections", "class_maps"), ("class_maps", "decode"), ("raw", "decode")):
        runtime = FakeRuntime()
        monkeypatch.setattr(runtime, unused, None)
        row = rows_of(pool, Recording((output,)), runtime)[0]  # type: ignore[arg-type]
        key = {"detections": "found", "class_maps": "maps"}.get(output, output)
        assert [name for name in ("found", "maps", "raw") if row[name] is not None] == [key]


def test_class_groups_merge_detections_and_maps(pool: DatasetIndex) -> None:
    groups = [[0, 2], [1]]
    asks = Recording(("detections", "class_maps"), min_score=0.0)
    plain = rows_of(pool, asks, FakeRuntime())
    for before, merged in zip(plain, rows_of(pool, asks, FakeRuntime(class_groups=groups)), strict=True):
        maps = np.array(before["maps"][0])  # (A, C, h, w)
        np.testing.assert_allclose(merged["maps"][0], np.stack([maps[:, [0, 2]].max(1), maps[:, 1]], axis=1))
        assert {row[5] for row in merged["found"]} <= {0, 1}
        best = {tuple(row[:4]): row[4] for row in before["found"] if CLASSES[int(row[5])] == "green"}
        assert {tuple(row[:4]): row[4] for row in merged["found"] if row[5] == 1} == best


def test_unreadable_pictures_become_rows(pool: DatasetIndex) -> None:
    for position, content in ((4, b""), (9, b"\xff\xd8 no picture"), (29, b"text")):
        Path(pool.paths[position]).write_bytes(content)
    asks, store = [Recording(name="one"), Recording(name="two", outputs=("class_maps",))], MemoryRows()
    run_pool(pool, asks, store, runtime=FakeRuntime(), batch=4)
    for consumer in asks:
        rows = list(store.rows(consumer.name))
        assert [position for position, row in enumerate(rows) if "error" in row] == [4, 9, 29]
        assert all(row.keys() == {"error"} and row["error"] for row in rows if "error" in row)
        assert not {4, 9, 29} & set(consumer.seen)
    assert [row["path"] for row in rows if "path" in row][4] == "0005.png"


def test_without_a_model_no_picture_is_opened() -> None:
    index = index_of([f"/nowhere/{number}.jpg" for number in range(5)])
    store = MemoryRows()
    run_pool(index, [Recording(())], store)
    rows = list(store.rows("recording"))
    assert [row["size"] for row in rows] == [[0, 0]] * 5
    assert len({row["seed"] for row in rows}) == 5


class Killed(Recording):
    """Fails at one image."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        if any(result.position == self._at for result in batch):
            raise KeyboardInterrupt
        return super().consume(batch)


def test_a_killed_pass_goes_on(pool: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_IMAGES", 8)  # four shards; the third is under way when it is killed
    whole = FileRows(tmp_path / "whole", ["recording"], {})
    run_pool(pool, [Recording()], whole, runtime=FakeRuntime(), batch=3)

    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run_pool(pool, [Killed(20)], FileRows(folder, ["recording"], {}), runtime=FakeRuntime(), batch=3)
    store, consumer, runtime = FileRows(folder, ["recording"], {}), Recording(), FakeRuntime()
    assert store.images_done(len(pool)) == 16
    run_pool(pool, [consumer], store, runtime=runtime, batch=3)
    assert sorted(consumer.seen) == list(range(16, 30))
    assert sum(runtime.runs) == 14
    assert list(store.rows("recording")) == list(whole.rows("recording"))

    again = Recording()
    run_pool(pool, [again], store, runtime=FakeRuntime(), batch=3)
    assert again.seen == []


def test_progress_counts_every_image(pool: DatasetIndex) -> None:
    Path(pool.paths[3]).write_bytes(b"")
    with ProgressReporter("test", len(pool), stream=io.StringIO()) as progress:
        run_pool(pool, [Recording()], MemoryRows(), runtime=FakeRuntime(), progress=progress)
    assert progress.done == len(pool)


def test_the_number_of_cores_is_as_before(pool: DatasetIndex, set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    run_pool(pool, [Recording()], MemoryRows(), runtime=FakeRuntime())
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyboardInterrupt):
        run_pool(pool, [Killed(20)], MemoryRows(), runtime=FakeRuntime())
    assert torch.get_num_threads() == 2

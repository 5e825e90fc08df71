"""Rows in files survive, and are never mixed with rows that depend on something else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pool_fakes import index_of

from ymir_tmi.errors import RunError
from ymir_tmi.pool.shards import FileRows, MemoryRows, PackedRows, RowStore, fingerprint, shards_of

PRINT = {"images": "3 images", "model": "abc", "conf": 0.25, "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("images", "size"), [(0, 16), (1, 16), (16, 16), (17, 16), (300, 18), (4096, 256), (5000, 256), (10**6, 256)]
)
def test_shards_cover_the_pool_once(images: int, size: int) -> None:
    shards = shards_of(images)
    assert [position for shard in shards for position in shard] == list(range(images))
    assert all(len(shard) == size for shard in shards[:-1])


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_rows_come_back_in_the_order_of_the_pool(kind: str, tmp_path: Path) -> None:
    store: RowStore = MemoryRows() if kind == "memory" else FileRows(tmp_path / "shards", ["a", "b"], PRINT)
    store.write(1, {"a": [{"n": 2}], "b": [{"n": 20}]})
    assert [store.is_finished(shard) for shard in range(3)] == [False, True, False]
    store.write(0, {"a": [{"n": 0}, {"n": 1, "text": "ä"}], "b": [{"n": 10}, {"error": "gone"}]})
    store.merge()
    assert list(store.rows("a")) == [{"n": 0}, {"n": 1, "text": "ä"}, {"n": 2}]
    assert list(store.rows("b")) == [{"n": 10}, {"error": "gone"}, {"n": 20}]


def test_packed_rows_are_rows() -> None:
    rows = [{"n": 0.1}, {"error": "gone"}, {"boxes": [[1.5, 2.0]], "text": "ä"}]
    packed = PackedRows(iter(rows))
    assert (len(packed), list(packed), packed[-1], packed[1:]) == (3, rows, rows[-1], rows[1:])
    packed[0]["n"] = 7
    assert packed[0] == {"n": 0.1}
    with pytest.raises(IndexError):
        packed[3]


def test_many_rotated_boxes_take_little_memory() -> None:
    """80 bytes for each box with its score and label, where lists of floats take more than 250."""
    boxes = np.random.default_rng(0).random((50, 2000, 5)).astype(np.float32)
    tracemalloc.start()
    try:
        rows = ({"boxes": some.tolist(), "scores": some[:, 0].tolist(), "labels": [3] * 2000} for some in boxes)
        packed = PackedRows(rows)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(packed) == 50 and held < 80 * 50 * 2000


def test_images_done_counts_finished_shards(tmp_path: Path) -> None:
    store = FileRows(tmp_path / "shards", ["a"], PRINT)
    assert store.images_done(39) == 0
    store.write(2, {"a": [{}] * 7})
    store.write(0, {"a": [{}] * 16})
    assert store.images_done(39) == 16 + 7


def test_a_shard_counts_only_when_every_consumer_has_it(tmp_path: Path) -> None:
    FileRows(tmp_path / "shards", ["a"], PRINT).write(0, {"a": [{}]})
    assert not FileRows(tmp_path / "shards", ["a", "b"], PRINT).is_finished(0)


def test_rows_that_are_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        FileRows(tmp_path / "shards", ["a"], PRINT).write(0, {"a": [{"n": float("nan")}]})
    assert not FileRows(tmp_path / "shards", ["a"], PRINT).is_finished(0)


def test_the_same_fingerprint_is_accepted(tmp_path: Path) -> None:
    FileRows(tmp_path / "shards", ["a"], PRINT).write(0, {"a": [{"n": 1}]})
    again = FileRows(tmp_path / "shards", ["a"], {**PRINT, "classes": ("a", "b")})
    assert again.is_finished(0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"conf": 0.5}, ["conf", "0.25", "0.5"]),
        ({"model": "xyz"}, ["model", "abc", "xyz"]),
        ({"new": 1}, ["new", "None", "1"]),
    ],
)
def test_another_fingerprint_is_refused(changed: dict[str, object], words: list[str], tmp_path: Path) -> None:
    FileRows(tmp_path / "run" / "shards", ["a"], PRINT)
    with pytest.raises(RunError) as caught:
        FileRows(tmp_path / "run" / "shards", ["a"], {**PRINT, **changed})
    assert all(word in str(caught.value) for word in [*words, str(tmp_path / "run")])


def test_the_fingerprint_sees_images_model_and_settings(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    index = index_of(["/x/a.jpg", "/x/b.jpg"])
    first = fingerprint(index, model=model, settings={"conf": 0.1})
    assert fingerprint(index, model=model, settings={"conf": 0.1}) == first
    others = [
        fingerprint(index_of(["/x/b.jpg", "/x/a.jpg"]), model=model, settings={"conf": 0.1}),
        fingerprint(index_of(["/y/a.jpg", "/x/b.jpg"]), model=model, settings={"conf": 0.1}),
        fingerprint(index, model=None, settings={"conf": 0.1}),
        fingerprint(index, model=model, settings={"conf": 0.2}),
    ]
    model.write_bytes(b"other weights")
    others.append(fingerprint(index, model=model, settings={"conf": 0.1}))
    assert first not in others


def test_a_missing_model_file_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="model file"):
        fingerprint(index_of([]), model=tmp_path / "none", settings={})

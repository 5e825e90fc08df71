"""Decoding ahead of the network, and putting pictures of one shape together."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pool_fakes import index_of, write_pool

from ymir_tmi.data import threads as threads_module
from ymir_tmi.data.letterbox import Frame, InputSpec, letterbox
from ymir_tmi.data.threads import Threads
from ymir_tmi.imaging import read_image
from ymir_tmi.pool.source import Picture, Unreadable, form_batches, read_picture

SPEC = InputSpec(size=64)
NO_FRAME = Frame(1, 1, 1, 1, 0, 0, 1, 1, 1, 1)


def picture(position: int, height: int) -> Picture:
    return Picture(position, np.zeros((height, 8, 3), np.uint8), NO_FRAME)


def positions(batches: list[list[Picture]]) -> list[list[int]]:
    return [[one.position for one in batch] for batch in batches]


@pytest.mark.parametrize(
    ("heights", "size", "expected"),
    [
        pytest.param([], 2, [], id="nothing"),
        pytest.param([1, 1, 1], 2, [[0, 1], [2]], id="one shape, the last batch is smaller"),
        pytest.param([1, 2, 1, 2], 2, [[0, 2], [1, 3]], id="two shapes in turns"),
        pytest.param([1, 2, 2, 3], 2, [[1, 2], [0], [3]], id="what never filled comes last, in order"),
        pytest.param([1, 2, 3, 4, 5], 1, [[0], [1], [2], [3], [4]], id="one by one"),
        # With four batches waiting the largest leaves, the oldest of equals.
        pytest.param(
            [1, 2, 3, 4, 5, 6, 7, 7, 1, 1], 2, [[6, 7], [0, 8], [1], [2], [3], [4], [5], [9]], id="many shapes"
        ),
    ],
)
def test_batches_hold_one_shape(heights: list[int], size: int, expected: list[list[int]]) -> None:
    pictures = [picture(position, height) for position, height in enumerate(heights)]
    assert positions(list(form_batches(pictures, size))) == expected


def test_no_more_than_four_batches_wait() -> None:
    taken = 0

    def pictures() -> object:
        nonlocal taken
        for position in range(100):
            taken += 1
            yield picture(position, position)

    given = 0
    for batch in form_batches(pictures(), 4):  # type: ignore[arg-type]
        assert taken - given <= 16
        given += len(batch)
    assert given == 100


@pytest.mark.parametrize("count", [0, 1, 4])
def test_threads_keep_the_order_and_look_only_so_far_ahead(count: int) -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            started.append(item)
        return item * item

    with Threads(count) as threads:
        for taken, result in enumerate(threads.map(work, range(50), ahead=3), 1):
            assert result == (taken - 1) ** 2
            assert len(started) <= taken + 3 + count


def test_heavy_items_are_not_in_the_making_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "MOST_AHEAD", 10)
    weights = [4, 4, 4, 30, 0, 0, 3, 11, 10, 1, 0, 9, 2]
    started: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            started.append(item)
        return item

    with Threads(3) as threads:
        for taken in threads.map(work, range(len(weights)), ahead=9, weigh=weights.__getitem__):
            making = [item for item in started if item > taken]
            assert sum(weights[item] for item in making) <= 10 or len([i for i in making if weights[i]]) == 1
    assert started == list(range(len(weights)))


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(item: int) -> int:
        return 1 // item

    with Threads(2) as threads, pytest.raises(ZeroDivisionError):
        list(threads.map(work, [1, 0, 1]))


def test_pictures_are_letterboxed_and_kept_on_request(tmp_path: Path) -> None:
    index = write_pool(tmp_path, 1)
    kept, dropped = (read_picture(index, 0, SPEC, keep=keep) for keep in (True, False))
    assert isinstance(kept, Picture) and isinstance(dropped, Picture)
    image = read_image(index.paths[0])
    expected, frame = letterbox(image, SPEC)
    assert np.array_equal(kept.input, expected) and kept.frame == frame
    assert kept.image is not None and np.array_equal(kept.image, image)
    assert dropped.image is None


def test_pictures_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (tmp_path / "text.png").write_text("no picture")
    index = index_of([str(tmp_path / name) for name in ("cut.jpg", "text.png", "missing.png")])
    found = [read_picture(index, position, SPEC, keep=False) for position in range(3)]
    assert all(isinstance(one, Unreadable) and one.error for one in found)
    assert [one.position for one in found] == [0, 1, 2]


def test_pictures_are_measured_as_they_are_not_as_the_network_sees_them(tmp_path: Path) -> None:
    index = write_pool(tmp_path, 2, sizes=[(40, 30), (200, 100)])
    for position, size in enumerate([(30, 40, 3), (100, 200, 3)]):
        read = read_picture(index, position, SPEC, keep=False, measure=lambda image: image.shape)
        assert isinstance(read, Picture)
        assert read.measured == size and read.image is None
        assert read.input.shape != size

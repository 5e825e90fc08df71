"""Large images in a pass: each object once and where it is, whatever the seams; small images as without tiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pool_fakes import FakeRuntime, Mirror, Recording, Tall, index_of, write_pool
from rectangle_fakes import RectangleRuntime, draw, scattered, upright_corners, write_images

from ymir_tmi import imaging
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.tiles import Tiling, Window
from ymir_tmi.geometry.rotated import corners, pairwise_rotated_iou
from ymir_tmi.models.interface import Detections, PostprocessSpec
from ymir_tmi.pool import shards, source
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row, View, WindowConsumer, works_with_windows
from ymir_tmi.pool.recorder import DetectionRecorder
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.seams import join_windows
from ymir_tmi.pool.shards import FileRows, MemoryRows

TILING = Tiling(128, 48)


def rows_of(
    index: DatasetIndex,
    consumer: Consumer,
    runtime: FakeRuntime | RectangleRuntime,
    tiling: Tiling | None = TILING,
    **options: int,
) -> list[Row]:
    store = MemoryRows()
    run_pool(index, [consumer], store, runtime=runtime, tiling=tiling, **options)  # type: ignore[arg-type]
    return list(store.rows(consumer.name))


class WindowRecording(Recording, WindowConsumer):
    """Records windows, and the image that is joined from them."""

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        rows = super().consume(batch)
        return [row | {"tile": result.tile} for row, result in zip(rows, batch, strict=True)]

    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        return {"image": super().consume([image])[0], "windows": list(rows)}


@pytest.mark.parametrize("seed", range(3))
def test_every_object_once_at_its_place(seed: int, tmp_path: Path) -> None:
    size = (517, 390)
    boxes = scattered(size, (3, 44), np.random.default_rng(seed))
    index = write_images(tmp_path, [draw(size, [upright_corners(box) for box in boxes])])
    (row,) = rows_of(index, DetectionRecorder(0.1), RectangleRuntime(size=128))
    assert len(boxes) > 60
    assert row["size"] == list(size)
    assert sorted(row["boxes"]) == sorted(boxes.tolist())
    label_of = {tuple(box): (number % 2 == 0) * 1 for number, box in enumerate(boxes.tolist(), 1)}
    assert row["labels"] == [label_of[tuple(box)] for box in row["boxes"]]
    assert row["scores"] == sorted(row["scores"], reverse=True)


def test_nms_alone_would_keep_cut_objects(tmp_path: Path) -> None:
    """The model of these tests is a hard one: this is what the rule for seams is for."""
    size = (208, 128)
    index = write_images(tmp_path, [draw(size, [upright_corners(np.array([100, 40, 140, 60]))])])
    windows = TILING.windows(*size)
    consumer = WindowRecording()
    (row,) = rows_of(index, consumer, RectangleRuntime(size=128))
    found = [window["found"] for window in row["windows"]]
    assert windows == [Window(0, 0, 128, 128), Window(80, 0, 128, 128)]
    assert [len(one) for one in found] == [1, 1]
    assert found[0][0][:4] == [100, 40, 128, 60] and found[1][0][:4] == [20, 40, 60, 60]
    assert found[0][0][4] > found[1][0][4]
    assert [one[:4] for one in row["image"]["found"]] == [[100, 40, 140, 60]]


def test_windows_that_are_scaled_for_the_network(tmp_path: Path) -> None:
    size = (600, 450)
    boxes = scattered(size, (12, 40), np.random.default_rng(1))
    index = write_images(tmp_path, [draw(size, [upright_corners(box) for box in boxes])])
    (row,) = rows_of(index, DetectionRecorder(0.1), RectangleRuntime(size=64), Tiling(128, 56))
    found = np.array(sorted(row["boxes"]))
    assert found.shape == boxes.shape
    for box in boxes:
        assert np.abs(found - box).max(1).min() <= 2


def test_rotated_objects_once_at_their_place(tmp_path: Path) -> None:
    size, rng = (430, 380), np.random.default_rng(4)
    places = scattered(size, (40, 44), rng)
    boxes = np.array(
        [
            [(x1 + x2) / 2, (y1 + y2) / 2, rng.uniform(24, 36), rng.uniform(8, 20), rng.uniform(-1.5, 1.5)]
            for x1, y1, x2, y2 in places
        ]
    )
    polygons = list(corners(torch.from_numpy(boxes)).round().numpy())
    index = write_images(tmp_path, [draw(size, polygons)])
    consumer = Recording()
    (row,) = rows_of(index, consumer, RectangleRuntime(size=128, rotated=True))
    found = np.array(row["found"])
    assert len(boxes) > 20 and found.shape == (len(boxes), 7)
    # Drawn in whole pixels they are not quite the rectangles they were: what is seen of the whole image is the measure.
    (whole,) = rows_of(index, Recording(), RectangleRuntime(size=430, rotated=True), None)
    expected, tiled = (torch.tensor(rows)[:, :5].double() for rows in (whole["found"], row["found"]))
    assert pairwise_rotated_iou(torch.from_numpy(boxes), expected).max(1).values.min() > 0.7
    overlaps = pairwise_rotated_iou(expected, tiled)
    assert overlaps.max(1).values.min() > 0.999
    assert sorted(overlaps.max(1).indices.tolist()) == list(range(len(boxes)))


def found_at(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> Detections:
    classes = np.array(labels or [0] * len(scores), np.int64)
    places = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(places, np.array(scores, np.float32), classes, np.eye(2, dtype=np.float32)[classes])


WINDOWS = [Window(0, 0, 100, 100), Window(60, 0, 100, 100)]  # they share x from 60 to 100
IMAGE = (160, 100)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([[70, 0, 90, 9]], [[10, 0, 30, 9]], [[70, 0, 90, 9]], id="whole in both"),
        pytest.param([[80, 0, 100, 9]], [[20, 0, 60, 9]], [[80, 0, 120, 9]], id="whole in the right one"),
        pytest.param([[40, 0, 80, 9]], [[0, 0, 20, 9]], [[40, 0, 80, 9]], id="whole in the left one"),
        pytest.param([[80, 0, 99.2, 9]], [[20, 0, 60, 9]], [[80, 0, 120, 9]], id="ends not quite at the seam"),
        pytest.param([[60, 0, 100, 9]], [[0, 0, 40, 9]], [[60, 0, 100, 9]], id="as wide as the overlap"),
        pytest.param([[50, 0, 100, 9]], [[0, 0, 50, 9]], [[50, 0, 100, 9], [60, 0, 110, 9]], id="wider than it"),
        pytest.param([[0, 0, 10, 9]], [[90, 0, 100, 9]], [[0, 0, 10, 9], [150, 0, 160, 9]], id="ends of the image"),
        pytest.param([[95, 0, 100, 9]], [], [], id="the other window, which sees more, finds nothing"),
    ],
)
def test_seams(left: list[list[float]], right: list[list[float]], expected: list[list[float]]) -> None:
    parts = [
        (window, found_at(boxes, [0.9 - 0.1 * side] * len(boxes)))
        for side, (window, boxes) in enumerate(zip(WINDOWS, (left, right), strict=True))
    ]
    joined = join_windows(parts, IMAGE, PostprocessSpec(iou_threshold=0.7))
    assert joined.boxes.tolist() == expected


def test_classes_do_not_drop_each_other_and_the_best_are_kept() -> None:
    left = found_at([[70, 0, 90, 20], [70, 0, 90, 20], [10, 10, 20, 20]], [0.9, 0.8, 0.3], [0, 1, 0])
    right = found_at([[10, 0, 30, 20], [10, 0, 30, 20]], [0.7, 0.85], [0, 1])
    parts = list(zip(WINDOWS, (left, right), strict=True))
    joined = join_windows(parts, IMAGE, PostprocessSpec())
    assert joined.scores.tolist() == pytest.approx([0.9, 0.85, 0.3])
    assert joined.labels.tolist() == [0, 1, 0]
    assert joined.class_scores.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert len(join_windows(parts, IMAGE, PostprocessSpec(max_detections=2))) == 2


def mixed_pool(folder: Path) -> DatasetIndex:
    """Small images and large ones, each of several shapes; the tiles of these tests are 64 pixels."""
    return write_pool(folder, 24, sizes=[(64, 48), (150, 100), (48, 64), (64, 64), (70, 20), (20, 200), (64, 63)])


SMALL = Tiling(64, 16)


def test_small_images_are_as_without_tiles(tmp_path: Path) -> None:
    pool = mixed_pool(tmp_path)
    asks = Recording(views=[])
    tiled, whole = rows_of(pool, asks, FakeRuntime(), SMALL), rows_of(pool, asks, FakeRuntime(), None)
    small = [row for row, one in enumerate(whole) if max(one["size"]) <= 64]
    assert 8 < len(small) < 20
    assert [tiled[row] for row in small] == [whole[row] for row in small]
    assert [one["size"] for one in tiled] == [one["size"] for one in whole]
    assert [one["seed"] for one in tiled] == [one["seed"] for one in whole]
    views = [WindowRecording(("class_maps", "raw"), views=[Tall()]), Recording(("class_maps", "raw"), views=[Tall()])]
    tiled, whole = rows_of(pool, views[0], FakeRuntime(), SMALL), rows_of(pool, views[1], FakeRuntime(), None)
    assert [tiled[row] for row in small] == [{**whole[row], "tile": None} for row in small]


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (2, 1), (7, 3), (64, 2)])
def test_rows_do_not_depend_on_batches_and_threads(batch: int, workers: int, tmp_path: Path) -> None:
    pool = mixed_pool(tmp_path)
    asks = WindowRecording(("detections", "class_maps"), views=[Mirror(), Tall()])
    expected = rows_of(pool, asks, FakeRuntime(), SMALL, batch=3, workers=2)
    assert rows_of(pool, asks, FakeRuntime(), SMALL, batch=batch, workers=workers) == expected


def test_windows_are_what_the_image_shows_there(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 1, sizes=[(150, 100)])
    (row,) = rows_of(pool, WindowRecording(("detections", "raw"), views=[Mirror()]), FakeRuntime(), SMALL)
    image = imaging.read_image(pool.paths[0])
    windows = SMALL.windows(150, 100)
    assert [one["tile"].window for one in row["windows"]] == windows
    cut = write_images(tmp_path / "cut", [image[y : y + h, x : x + w] for x, y, w, h in windows])
    expected = rows_of(cut, Recording(("detections", "raw"), views=[Mirror()]), FakeRuntime(), None)
    for one, alone in zip(row["windows"], expected, strict=True):
        assert one["found"] == alone["found"] and one["raw"] == alone["raw"] and one["views"] == alone["views"]
    assert len({one["seed"] for one in row["windows"]}) == len(windows)
    assert row["image"]["raw"] is None and row["image"]["size"] == [150, 100]


def test_windows_share_batches_and_an_image_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_pool(tmp_path, 3, sizes=[(112, 64)])
    read = []

    def reading(path: str, **more: object) -> imaging.Image:
        read.append(path)
        return imaging.read_image(path)

    monkeypatch.setattr(source, "read_image", reading)
    runtime = FakeRuntime()
    rows_of(pool, Recording(), runtime, SMALL, batch=3)
    assert runtime.runs == [3, 3]
    assert sorted(read) == sorted(pool.paths[row] for row in range(3))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    pool = mixed_pool(tmp_path)
    for position in (1, 2):
        Path(pool.paths[position]).write_bytes(b"no picture")
    pool = index_of([*(pool.paths[row] for row in range(len(pool))), str(tmp_path / "missing.png")])
    rows = rows_of(pool, Recording(), FakeRuntime(), SMALL)
    assert [position for position, row in enumerate(rows) if "error" in row] == [1, 2, 24]


class Killed(Recording):
    """Fails at one image."""

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        if any(result.position == 13 for result in batch):
            raise KeyboardInterrupt
        return super().consume(batch)


def test_a_pass_that_is_killed_inside_a_shard_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_IMAGES", 8)
    monkeypatch.setattr(shards, "_SMALLEST_SHARD", 8)
    pool = mixed_pool(tmp_path / "pool")
    expected = rows_of(pool, Recording(), FakeRuntime(), SMALL, batch=5)
    folder = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt):
        run_pool(pool, [Killed()], FileRows(folder, ["recording"], {}), runtime=FakeRuntime(), batch=5, tiling=SMALL)
    store, consumer = FileRows(folder, ["recording"], {}), Recording()
    assert store.images_done(len(pool)) == 8
    run_pool(pool, [consumer], store, runtime=FakeRuntime(), batch=5, tiling=SMALL)
    assert sorted(consumer.seen) == list(range(8, 24))
    assert list(store.rows("recording")) == expected


@pytest.mark.parametrize(
    ("outputs", "views", "works"),
    [
        (("detections",), [], True),
        ((), [], True),
        (("raw",), [], False),
        (("class_maps",), [], False),
        ((), [Tall()], False),
    ],
)
def test_who_works_with_windows(outputs: tuple[str, ...], views: list[View], works: bool) -> None:
    assert works_with_windows(Recording(outputs, views)) == works  # type: ignore[arg-type]
    assert works_with_windows(WindowRecording(outputs, views))  # type: ignore[arg-type]


PASS = """
import re, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from pool_fakes import index_of
from rectangle_fakes import RectangleRuntime
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.pool.recorder import DetectionRecorder
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows

def peak():
    # What `getrusage` says begins with the peak of the process that has started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

index, runtime = index_of({pictures!r}), RectangleRuntime(size=1024)

def found_in(images):
    rows = MemoryRows()
    run_pool(index.take(images), [DetectionRecorder(0.1)], rows, runtime=runtime, tiling=Tiling(1024, 200))
    return [len(row["scores"]) for row in rows.rows("detections")]

found_in([0])
before = peak()
found = found_in([1, 2])
print(before, peak(), *found)
"""

DRAW = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
from rectangle_fakes import draw, scattered, upright_corners
from ymir_tmi import imaging
for path, side in zip({pictures!r}, (1500, 12000, 12000)):
    boxes = scattered((side, side), (20, 180), np.random.default_rng(0), count=100)
    imaging.write_image(path, draw((side, side), [upright_corners(box) for box in boxes]))
    print(len(boxes))
"""


@pytest.mark.slow
def test_memory_of_large_pictures(tmp_path: Path) -> None:
    """Two pictures of 12,000 x 12,000, 432 megabytes each: one is in memory at a time, and once."""
    pictures = [str(tmp_path / f"{number}.png") for number in range(3)]
    fill = {"paths": [str(Path(__file__).parent)], "pictures": pictures}
    counts, measured = (
        subprocess.run([sys.executable, "-c", text.format(**fill)], capture_output=True, text=True, check=True).stdout
        for text in (DRAW, PASS)
    )
    before, peak, *found = map(int, measured.split())
    assert found == [int(count) for count in counts.split()][1:]
    size = 3 * 12_000**2 // 2**20
    assert size < peak - before + 50  # it was measured at all
    assert peak - before < 1.3 * size

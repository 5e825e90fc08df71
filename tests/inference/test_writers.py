"""Every writer's files are read back by somebody else's reader."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
import shapely.affinity

from ymir_tmi import imaging
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.rotated import as_rotated
from ymir_tmi.data.threads import Threads
from ymir_tmi.inference.drawing import draw_detections
from ymir_tmi.inference.writers import write_pictures, write_voc, write_yolo
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.recorder import make_detections

CLASSES = ("cat", "dog & <owl>")
NAMES = ["a/0.png", "b/0.png", "b/1.png"]
ROWS: list[Row] = [
    {
        "size": [64, 48],
        "boxes": [[10.0, 12.0, 40.0, 30.5], [0.0, 0.0, 64.0, 48.0]],
        "scores": [0.875, 0.25],
        "labels": [1, 0],
    },
    {"error": "this file is empty"},
    {"size": [32, 32], "boxes": [[31.7, 5.2, 32.0, 5.4]], "scores": [0.5], "labels": [0]},
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The pictures that the rows belong to, in `images`."""
    rng = np.random.default_rng(0)
    for name, size in zip(NAMES, [(64, 48), (8, 8), (32, 32)], strict=True):
        picture = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        imaging.write_image(tmp_path / "images" / name, picture)
    return tmp_path / "images"


def test_yolo_lines_are_fractions_and_a_score(tmp_path: Path) -> None:
    write_yolo(tmp_path, NAMES, ROWS)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.txt")) == ["a/0.txt", "b/1.txt"]
    numbers = np.loadtxt(tmp_path / "a" / "0.txt")
    np.testing.assert_allclose(
        numbers, [[1, 25 / 64, 21.25 / 48, 30 / 64, 18.5 / 48, 0.875], [0, 0.5, 0.5, 1, 1, 0.25]], atol=1e-8
    )


def test_the_reader_of_yolo_files_takes_the_boxes(images: Path, tmp_path: Path) -> None:
    write_yolo(tmp_path / "labels", NAMES, ROWS)
    for file in (tmp_path / "labels").rglob("*.txt"):  # annotations have no scores
        lines = [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines))
    data = read_dataset([str(tmp_path)], class_names=CLASSES)
    assert np.diff(data.starts).tolist() == [2, 0, 1]
    np.testing.assert_allclose(data.boxes, np.concatenate([row["boxes"] for row in ROWS if "boxes" in row]), atol=1e-4)
    assert data.labels.tolist() == [1, 0, 0]


def test_the_reader_of_voc_files_takes_them(images: Path, tmp_path: Path) -> None:
    write_voc(tmp_path / "xml", NAMES, CLASSES, ROWS)
    boxes = {}
    for name in (NAMES[0], NAMES[2]):
        data = read_dataset([str(tmp_path / "xml" / name.replace(".png", ".xml"))], images=[images])
        assert data.paths[0] == str(images / name)
        boxes[name] = [(data.class_names[label], *box) for label, box in zip(data.labels, data.boxes, strict=True)]
    assert boxes == {
        "a/0.png": [("dog & <owl>", 10, 12, 40, 30), ("cat", 0, 0, 64, 48)],  # 30.5 rounds to even
        "b/1.png": [("cat", 31, 5, 32, 6)],  # at least one pixel, inside the picture
    }
    assert "<confidence>0.875</confidence>" in (tmp_path / "xml" / "a" / "0.xml").read_text()


ROTATED: list[Row] = [
    {
        "size": [64, 48],
        "boxes": [[25.0, 20.0, 30.0, 10.0, 0.5], [40.5, 30.25, 12.0, 8.0, -1.25]],
        "scores": [0.875, 0.25],
        "labels": [1, 0],
    },
    {"error": "this file is empty"},
    {"size": [32, 32], "boxes": [], "scores": [], "labels": []},
]


def turned(box: list[float]) -> shapely.Polygon:
    """The rectangle by shapely's own turn; y points down, so that a positive angle is clockwise."""
    cx, cy, w, h, angle = box
    upright = shapely.box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return shapely.affinity.rotate(upright, angle, use_radians=True)


def test_yolo_lines_of_rotated_boxes_are_corners_and_a_score(tmp_path: Path) -> None:
    write_yolo(tmp_path, NAMES, ROTATED)
    assert (tmp_path / "b" / "1.txt").read_text() == ""
    lines = np.loadtxt(tmp_path / "a" / "0.txt")
    assert lines[:, [0, 9]].tolist() == [[1, 0.875], [0, 0.25]]
    for line, box in zip(lines, ROTATED[0]["boxes"], strict=True):
        assert shapely.Polygon(line[1:9].reshape(4, 2) * (64, 48)).equals_exact(turned(box), 1e-6, normalize=True)


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_the_readers_take_rotated_boxes(kind: str, images: Path, tmp_path: Path) -> None:
    if kind == "yolo":
        write_yolo(tmp_path / "labels", NAMES, ROTATED)
        for file in (tmp_path / "labels").rglob("*.txt"):  # annotations have no scores
            lines = [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()]
            file.write_text("\n".join(lines))
        data = as_rotated(read_dataset([str(tmp_path)], class_names=CLASSES))
    else:
        write_voc(tmp_path / "xml", NAMES, CLASSES, ROTATED)
        data = read_dataset([str(tmp_path / "xml" / "a" / "0.xml")], images=[images])
    assert [data.class_names[label] for label in data.labels] == ["dog & <owl>", "cat"]
    assert data.rotated is not None
    for read, box in zip(data.rotated.tolist(), ROTATED[0]["boxes"], strict=True):
        assert turned(read).equals_exact(turned(box), 1e-4, normalize=True)


def test_voc_files_of_rotated_boxes_are_those_of_rolabelimg(tmp_path: Path) -> None:
    """The corners of a `robndbox` are its centre and half sides, turned clockwise by `angle`, in [0, pi)."""
    write_voc(tmp_path, NAMES, CLASSES, ROTATED)
    objects = ElementTree.parse(tmp_path / "a" / "0.xml").findall("object")
    assert [(item.findtext("name"), item.findtext("type")) for item in objects] == [
        ("dog & <owl>", "robndbox"),
        ("cat", "robndbox"),
    ]
    assert objects[0].findtext("confidence") == "0.875" and objects[0].find("bndbox") is None
    for item, box in zip(objects, ROTATED[0]["boxes"], strict=True):
        read = [float(item.findtext(f"robndbox/{name}") or "") for name in ("cx", "cy", "w", "h", "angle")]
        assert 0 <= read[4] < math.pi
        assert turned(read).equals_exact(turned(box), 1e-6, normalize=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_keep_their_places(workers: int, images: Path, tmp_path: Path) -> None:
    index = read_dataset([str(images)], format="images")
    with Threads(workers) as threads:
        write_pictures(tmp_path / "drawn", index, NAMES, CLASSES, ROWS, threads)
    drawn = sorted(str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.png"))
    assert drawn == ["a/0.png", "b/1.png"]
    before, after = (imaging.read_image(folder / "a/0.png") for folder in (images, tmp_path / "drawn"))
    assert before.shape == after.shape and not np.array_equal(before, after)


def test_boxes_are_drawn_where_they_are() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    found = make_detections([[50, 80, 250, 180]], [0.9], [1], 2)
    drawn = draw_detections(image, found, CLASSES)
    assert not image.any(), "the picture itself is not drawn into"
    colour = drawn[130, 50]
    assert colour.any()
    for y, x in ((130, 250), (180, 150), (80, 200)):
        assert np.array_equal(drawn[y, x], colour)
    assert not drawn[100:170, 70:230].any(), "inside"
    assert not drawn[:, :40].any() and not drawn[190:].any(), "outside"


def test_the_best_detection_lies_on_top() -> None:
    image, box = np.zeros((100, 100, 3), np.uint8), [20, 40, 80, 80]

    def edge(scores: list[float], labels: list[int]) -> np.ndarray:
        found = make_detections([box] * len(scores), scores, labels, 2)
        return draw_detections(image, found, CLASSES)[60, 20].astype(int)

    both, best, other = edge([0.9, 0.8], [0, 1]), edge([0.9], [0]), edge([0.8], [1])
    assert np.abs(both - best).sum() < np.abs(both - other).sum()

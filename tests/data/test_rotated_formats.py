"""Three drawn boxes, in every format: each reader gives the same rotated boxes, and each writer keeps them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import coco, write_coco_file, write_picture, write_text
from shapely import Polygon

from ymir_tmi.data.check import check_dataset
from ymir_tmi.data.convert import convert, write_data_set
from ymir_tmi.data.formats.dota import read_dota
from ymir_tmi.data.formats.ymir import read_ymir
from ymir_tmi.data.formats.yolo import read_yolo
from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.data.rotated import as_rotated, as_upright, rotated_columns
from ymir_tmi.data.split import split_dataset
from ymir_tmi.errors import DataError
from ymir_tmi.geometry.outlines import outlines

WIDTH, HEIGHT = 120, 80
NAMES = ("plane", "ship")
# Drawn by hand: sides of 3-4-5 triangles, so that all corners are whole numbers. Label, cx, cy, w, h, corners.
SHIP = (1, 35, 30, 25, 10, [(22, 26.5), (28, 18.5), (48, 33.5), (42, 41.5)])  # to the lower right: atan(3 / 4)
PLANE = (0, 80, 32, 50, 20, [(57, 18), (73, 6), (103, 46), (87, 58)])  # steeper: atan(4 / 3)
UPRIGHT = (1, 20, 65, 20, 10, [(10, 60), (30, 60), (30, 70), (10, 70)])
OBJECTS = (SHIP, PLANE, UPRIGHT)
# They fall to the right on the screen, where y points down: clockwise, so that the angles are positive.
ANGLES = (math.atan2(3, 4), math.atan2(4, 3), 0.0)
EXPECTED = np.array([[*item[1:5], angle] for item, angle in zip(OBJECTS, ANGLES, strict=True)])


def corners_of(item: Any) -> list[float]:
    return [float(value) for point in item[5] for value in point]


def picture(path: Path) -> Path:
    return write_picture(path, width=WIDTH, height=HEIGHT)


def as_dota(folder: Path) -> list[str]:
    picture(folder / "images" / "a.png")
    lines = ["imagesource:drawn", "gsd:0.1"]
    for number, item in enumerate(OBJECTS):
        points = corners_of(item)
        turned = points[2 * number :] + points[: 2 * number]  # any corner may be the first
        lines.append(" ".join([*map(str, turned), NAMES[item[0]], "0"]))
    write_text(folder / "labelTxt" / "a.txt", "\n".join(lines))
    return [str(folder)]


def as_dota_description(folder: Path) -> list[str]:
    as_dota(folder / "some")
    return [str(write_text(folder / "data.yaml", "train: some/images\nnames: [plane, ship]\n"))]


def as_yolo(folder: Path) -> list[str]:
    picture(folder / "a.png")
    lines = []
    for item in OBJECTS:
        fractions = np.array(item[5]) / (WIDTH, HEIGHT)
        lines.append(" ".join(map(str, [item[0], *fractions.ravel().tolist()])))
    write_text(folder / "a.txt", "\n".join(lines))
    return [str(write_text(folder / "data.yaml", "train: .\nnames: [plane, ship]\n"))]


def as_yolo_with_boxes(folder: Path) -> list[str]:
    sources = as_yolo(folder)
    lines = (folder / "a.txt").read_text().splitlines()
    lines[2] = f"1 {20 / WIDTH} {65 / HEIGHT} {20 / WIDTH} {10 / HEIGHT}"
    write_text(folder / "a.txt", "\n".join(lines))
    return sources


def as_coco(folder: Path, *, polygons: int = 3) -> list[str]:
    picture(folder / "a.png")
    annotations = []
    for number, item in enumerate(OBJECTS):
        points = np.array(item[5])
        low, size = points.min(axis=0), np.ptp(points, axis=0)
        entry = {"id": number, "image_id": 1, "category_id": item[0] + 1, "bbox": [*low.tolist(), *size.tolist()]}
        if number < polygons:
            entry["segmentation"] = [corners_of(item)]
        annotations.append(entry)
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    return [str(write_coco_file(folder, coco([image], annotations, NAMES)))]


def as_coco_with_boxes(folder: Path) -> list[str]:
    return as_coco(folder, polygons=2)


def voc_object(name: str, tag: str, **values: Any) -> str:
    numbers = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
    return f"<object><type>{tag}</type><name>{name}</name><{tag}>{numbers}</{tag}></object>"


def as_voc(folder: Path) -> list[str]:
    """As roLabelImg writes it: angles in [0, pi), and either side may be the longer one."""
    picture(folder / "a.png")
    entries = [
        voc_object("ship", "robndbox", cx=35, cy=30, w=10, h=25, angle=ANGLES[0] + math.pi / 2),
        voc_object("plane", "robndbox", cx=80, cy=32, w=50, h=20, angle=ANGLES[1]),
        voc_object("ship", "bndbox", xmin=11, ymin=61, xmax=30, ymax=70),
    ]
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    text = f"<annotation><filename>a</filename>{size}{''.join(entries)}</annotation>"
    write_text(folder / "a.xml", text)
    return [str(folder)]


def as_ark(folder: Path) -> list[str]:
    """Corners are those before the turn, of whole pixels, the last of which is inside."""
    picture(folder / "assets" / "a.png")
    picture(folder / "assets" / "none.png")
    lines = [
        f"1, 22.5, 25, 46.5, 34, -1.0, {ANGLES[0]}",
        f"0, 70, 7, 89, 56, -1.0, {ANGLES[1] - math.pi / 2}",
        "1, 10, 60, 29, 69, -1.0, 0.0",
    ]
    write_text(folder / "annotations" / "a.txt", "\n".join(lines) + "\n")
    write_text(folder / "annotations" / "none.txt", "")
    rows = "assets/a.png\t/in/annotations/a.txt\nassets/none.png\t/in/annotations/none.txt\n"
    return [str(write_text(folder / "train-index.tsv", rows))]


def as_ymir_voc(folder: Path) -> list[str]:
    picture(folder / "assets" / "a.png")
    entries = [
        voc_object("ship", "bndbox", xmin=22.5, ymin=25, xmax=46.5, ymax=34, rotate_angle=ANGLES[0]),
        voc_object("plane", "bndbox", xmin=55, ymin=22, xmax=104, ymax=41, rotate_angle=ANGLES[1] - math.pi),
        voc_object("ship", "bndbox", xmin=10, ymin=60, xmax=29, ymax=69, rotate_angle="0.0000"),
    ]
    text = f"<annotation><filename>/in/assets/xx/a.png</filename>{''.join(entries)}</annotation>"
    write_text(folder / "annotations" / "a.xml", text)
    return [str(write_text(folder / "index.tsv", "assets/a.png\tannotations/a.xml\n"))]


READERS: dict[str, Callable[[Path], list[str]]] = {
    "dota": as_dota,
    "dota by a description": as_dota_description,
    "yolo": as_yolo,
    "yolo with upright boxes": as_yolo_with_boxes,
    "coco": as_coco,
    "coco with upright boxes": as_coco_with_boxes,
    "voc": as_voc,
    "ymir det-ark": as_ark,
    "ymir det-voc": as_ymir_voc,
}


def in_order(index: DatasetIndex) -> DatasetIndex:
    """Return the index with the annotations from the left to the right."""
    assert len(index) == 1
    order = np.argsort(index.boxes[:, 0])
    return index.keep_annotations(
        np.ones(len(order), bool),
        **{name: getattr(index, name)[order] for name in ("boxes", "labels", "areas", "flags", "rotated")},
    )


def overlaps(index: DatasetIndex) -> list[float]:
    """IoU of each object with the drawn one, by another library; `index` is in the order of OBJECTS."""
    assert index.rotated is not None
    found = [Polygon(points) for points in outlines(index.rotated)]
    drawn = [Polygon(item[5]) for item in OBJECTS]
    return [a.intersection(b).area / a.union(b).area for a, b in zip(found, drawn, strict=True)]


@pytest.mark.parametrize("write", READERS.values(), ids=READERS)
def test_every_reader_gives_the_drawn_boxes(tmp_path: Path, write: Callable[[Path], list[str]]) -> None:
    index = read_dataset(write(tmp_path), split="train", class_names=NAMES)
    upright = index.rotated is None
    assert upright == (write in (as_coco, as_coco_with_boxes))  # whose polygons may as well be masks
    index = as_rotated(index)
    assert index.rotated is not None and index.segments is None
    assert index.labels.tolist() == [1, 0, 1]
    assert index.rotated.dtype == index.boxes.dtype == index.areas.dtype == np.float32
    np.testing.assert_allclose(index.rotated, EXPECTED, atol=1e-5)
    np.testing.assert_allclose(overlaps(index), 1, atol=1e-5)
    np.testing.assert_allclose(index.areas, [250, 1000, 200], rtol=1e-5)
    hulls = [[22, 18.5, 48, 41.5], [57, 6, 103, 58], [10, 60, 30, 70]]
    np.testing.assert_allclose(index.boxes, hulls, atol=1e-4)
    assert Path(index.paths[0]).name == "a.png"


@pytest.mark.parametrize("to", ["dota", "yolo", "coco", "voc"])
@pytest.mark.parametrize("write", READERS.values(), ids=READERS)
def test_every_writer_keeps_them(tmp_path: Path, write: Callable[[Path], list[str]], to: Any) -> None:
    sources = write(tmp_path / "in")
    (split,) = list_splits(sources)
    convert(sources, to=to, output=tmp_path / "out", rotated=True)
    output = tmp_path / "out" / {"coco": f"{split}.json", "voc": ""}.get(to, "data.yaml")
    index = as_rotated(read_dataset([str(output)], split=split))
    index = in_order(index.take(np.flatnonzero(np.diff(index.starts))))
    expected = np.array([EXPECTED[2], EXPECTED[0], EXPECTED[1]])
    np.testing.assert_allclose(index.rotated, expected, atol=2e-4)
    numbered = write is as_ark  # which names no classes
    wanted = ["1", "1", "0"] if numbered else ["ship", "ship", "plane"]
    assert [index.class_names[label] for label in index.labels] == wanted


def random_boxes(seed: int, count: int) -> np.ndarray:
    """Thin, tiny and large ones, squares, upright ones, some partly outside of the picture."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 1, (count, 2)) * (WIDTH, HEIGHT)
    sides = np.exp(rng.uniform(np.log(2), np.log(60), (count, 2)))
    sides[: count // 4, 1] = sides[: count // 4, 0]
    angles = rng.uniform(-math.pi / 2, math.pi / 2, count)
    angles[::5] = rng.choice([-math.pi / 2, 0, math.pi / 4], len(angles[::5]))
    return np.column_stack([centres, sides, angles])


@pytest.mark.parametrize("to", ["dota", "yolo", "coco", "voc"])
def test_random_boxes_come_back_from_every_format(tmp_path: Path, to: Any) -> None:
    index = read_dataset(as_dota(tmp_path / "in"))
    boxes = random_boxes(0, 60)
    many = index.take([0] * 20)  # three annotations each
    many = dataclasses.replace(many, image_ids=np.arange(20), **rotated_columns(boxes))
    names = [picture(tmp_path / "in" / "images" / f"{row:02d}.png") for row in range(20)]
    many = dataclasses.replace(many, paths=type(many.paths).pack(map(str, names)))
    write_data_set({"train": many}, to=to, output=tmp_path / "out")
    output = tmp_path / "out" / {"coco": "train.json", "voc": ""}.get(to, "data.yaml")
    again = as_rotated(read_dataset([str(output)], split="train"))
    assert again.class_names == many.class_names and again.labels.tolist() == many.labels.tolist()
    assert again.rotated is not None and (again.rotated[:, 2] >= again.rotated[:, 3] - 1e-3).all()
    for found, drawn in zip(outlines(again.rotated), outlines(boxes), strict=True):
        apart = np.linalg.norm(found[:, None] - drawn, axis=2).min(axis=1)  # corners in any order
        assert apart.max() < 1e-3


def test_polygons_with_more_corners_become_the_smallest_rectangle(tmp_path: Path) -> None:
    source = Path(as_coco(tmp_path)[0])
    content = json.loads(source.read_text())
    ship, plane, upright = content["annotations"]
    points = np.array(SHIP[5])
    middles = (points + np.roll(points, -1, axis=0)) / 2
    inner = (points - points.mean(axis=0)) / 2 + points.mean(axis=0)
    ship["segmentation"] = [np.stack([points, middles], axis=1).ravel().tolist(), inner.ravel().tolist()]
    plane["segmentation"] = {"counts": "abc", "size": [HEIGHT, WIDTH]}
    upright["segmentation"] = [[10, 60, 30, 60, 30, 70, 10, 70, 20, 65]]
    source.write_text(json.dumps(content))
    index = as_rotated(read_dataset([str(source)]))
    assert index.rotated is not None
    np.testing.assert_allclose(index.rotated[[0, 2]], EXPECTED[[0, 2]], atol=1e-4)
    np.testing.assert_allclose(index.rotated[1], [80, 32, 52, 46, -math.pi / 2], atol=1e-4)  # a mask: its upright box

    for polygon in (["x", 1], [1, 2, 3, 4, math.nan, 6], [1, 2, 3, 4, 1e30, 6]):
        upright["segmentation"] = [polygon]
        source.write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"a\.png: a polygon of this picture is not a list of numbers"):
            as_rotated(read_dataset([str(source)]))


def test_a_polygon_without_area_is_dropped(tmp_path: Path) -> None:
    source = Path(as_coco(tmp_path)[0])
    content = json.loads(source.read_text())
    content["annotations"][0]["segmentation"] = [[10, 10, 20, 20, 30, 30, 40, 40]]
    source.write_text(json.dumps(content))
    assert as_rotated(read_dataset([str(source)])).labels.tolist() == [0, 1]


def test_yolo_polygons_stay_polygons_where_one_has_more_corners(tmp_path: Path) -> None:
    as_yolo(tmp_path)
    text = (tmp_path / "a.txt").read_text()
    (tmp_path / "a.txt").write_text(f"{text}\n0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    index = read_yolo([str(tmp_path / "a.png")], [str(tmp_path / "a.txt")], NAMES).index
    assert index.rotated is None and index.segments is not None
    assert json.loads(index.segments[0]) == [corners_of(SHIP)]
    rotated = as_rotated(index).rotated
    assert rotated is not None
    np.testing.assert_allclose(rotated[:3], EXPECTED, atol=1e-4)


def test_upright_boxes_around_rotated_ones_are_cut_at_the_border(tmp_path: Path) -> None:
    moved = dataclasses.replace(read_dataset(as_voc(tmp_path)), **rotated_columns(EXPECTED - [30, 0, 0, 0, 0]))
    upright = as_upright(moved)
    assert upright.rotated is None
    np.testing.assert_allclose(upright.boxes, [[0, 18.5, 18, 41.5], [27, 6, 73, 58]], atol=1e-4)
    np.testing.assert_allclose(upright.areas, [18 * 23, 46 * 52], rtol=1e-5)
    assert as_upright(upright) is upright and as_rotated(moved) is moved


def test_upright_data_beside_rotated_data_becomes_rotated(tmp_path: Path) -> None:
    picture(tmp_path / "empty" / "b.png")
    sources = [*as_dota(tmp_path / "one"), *as_coco(tmp_path / "two"), str(tmp_path / "empty")]
    index = read_dataset(sources)
    assert index.rotated is not None and len(index) == 3
    np.testing.assert_allclose(index.rotated, np.tile(EXPECTED, (2, 1)), atol=1e-5)


@pytest.mark.parametrize("difficult", ["", " 0", " 1", " 2"])
def test_difficult_objects_of_dota(tmp_path: Path, difficult: str) -> None:
    file = write_text(tmp_path / "a.txt", f"1 1 9 1 9 5 1 5 small-vehicle{difficult}\n")
    reading = read_dota([str(tmp_path / "a.png")], [str(file)])
    assert reading.index.class_names == ("small-vehicle",)
    assert reading.index.flags.tolist() == [DIFFICULT if difficult == " 1" else 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 1 9 1 9 5 1 5", "a line is the x and y of four corners"),
        ("1 1 9 1 9 5 1 5 small vehicle 0", "a line is the x and y of four corners"),
        ("1 1 9 1 9 x 1 5 ship 0", "the first eight words are not all numbers"),
        ("1 1 9 1 9 nan 1 5 ship 0", "a corner is not finite"),
        ("1 1 9 1 9 1e300 1 5 ship 0", "beyond any picture"),
        ("1 1 9 1 9 5 1 5 ship easy", "what follows the class is not 0 or 1"),
    ],
)
def test_rejected_lines_of_dota(tmp_path: Path, line: str, message: str) -> None:
    good = "1 1 9 1 9 5 1 5 ship 0"
    file = write_text(tmp_path / "a.txt", f"{good}\n{line}\n{good}\n")
    reading = read_dota([str(tmp_path / "a.png")], [str(file)])
    assert len(reading.index.boxes) == 2 and reading.rejections.count == 1
    assert reading.rejections.first[0].where == f"{file}, line 2"
    assert message in reading.rejections.first[0].what


def test_what_a_writer_of_dota_makes_of_flags_and_names(tmp_path: Path) -> None:
    index = read_dataset(as_dota(tmp_path / "in"))
    index.flags[:] = [0, CROWD, DIFFICULT]
    write_data_set({"train": index}, to="dota", output=tmp_path / "out", copy=True)
    lines = (tmp_path / "out" / "labelTxt" / "train" / "a.txt").read_text().splitlines()
    assert [line.split()[8:] for line in lines] == [["ship", "0"], ["plane", "1"], ["ship", "1"]]
    renamed = dataclasses.replace(index, class_names=("small plane", "ship"))
    with pytest.raises(DataError, match=r"'small plane' is not one word.*\n.*small-plane"):
        write_data_set({"train": renamed}, to="dota", output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_dota_labels_are_taken_where_yolo_labels_are_not_wanted(tmp_path: Path) -> None:
    as_dota(tmp_path)
    write_text(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    assert read_dataset([str(tmp_path)]).rotated is None
    assert read_dataset([str(tmp_path)], format="dota").rotated is not None
    with pytest.raises(DataError, match="'labelTxt'"):
        read_dataset([str(picture(tmp_path / "other" / "a.png"))], format="dota")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0, 1, 2, 3", "a line is class, xmin, ymin, xmax, ymax"),
        ("0, 1, 2, x, 4", "a line is class, xmin, ymin, xmax, ymax"),
        ("2, 1, 2, 3, 4", "the class is not one of 0 to 1"),
        ("0.5, 1, 2, 3, 4", "the class is not one of 0 to 1"),
        ("0, 9, 2, 3, 4", "xmax or ymax is below"),
        ("0, 1, 2, 3, 4, -1, inf", "not finite"),
        ("0, 1, 2, 3, 4e30", "beyond any picture"),
        ("0, 1, 2, 3, 4, -1, 0, 0", "too many numbers"),
    ],
)
def test_rejected_lines_of_det_ark(tmp_path: Path, line: str, message: str) -> None:
    picture(tmp_path / "a.png")
    write_text(tmp_path / "a.txt", f"1, 10, 20, 19, 29\n{line}\n0, 10, 20, 10, 20, -1.0\n")
    source = write_text(tmp_path / "index.tsv", "a.png\ta.txt\n")
    reading = read_ymir(source, PictureFinder([tmp_path]), NAMES)
    assert reading.index.boxes.tolist() == [[10, 20, 20, 30], [10, 20, 11, 21]]
    assert reading.index.rotated is None  # no angle but 0
    assert reading.rejections.count == 1 and message in reading.rejections.first[0].what


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png\tb.txt\n", "the annotation 'b.txt' is neither there"),
        ("a.png\ta.txt\tc\n", "not a list of pictures and annotations with one TAB"),
        ("a.png\ta.txt\na.png\ta.xml\n", r"not all .txt, all .xml or all .json, but .txt, .xml"),
        ("a.png\ta.xml\na.png\n", "some of these pictures have an XML file and some have none"),
    ],
)
def test_wrong_lists_of_ymir(tmp_path: Path, rows: str, message: str) -> None:
    picture(tmp_path / "a.png")
    write_text(tmp_path / "a.txt", "")
    write_text(tmp_path / "a.xml", "<annotation/>")
    with pytest.raises(DataError, match=message):
        read_dataset([str(write_text(tmp_path / "index.tsv", rows))])


def test_a_list_of_ymir_may_name_pictures_alone(tmp_path: Path) -> None:
    picture(tmp_path / "with blank.png")
    index = read_dataset([str(write_text(tmp_path / "index.tsv", "with blank.png\n"))])
    assert len(index) == 1 and not len(index.boxes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (voc_object("a", "robndbox", cx=1, cy=2, w=3, h=4), "cx, cy, w, h, angle are not numbers"),
        (voc_object("a", "robndbox", cx=1, cy=2, w=-3, h=4, angle=0), "w or h is negative"),
        (voc_object("a", "robndbox", cx=1, cy=2, w=3, h=4, angle="nan"), "are not finite"),
        (voc_object("a", "bndbox", xmin=1, ymin=2, xmax=3, ymax=4, rotate_angle="x"), "rotate_angle are not numbers"),
    ],
)
def test_rejected_rotated_objects_of_voc(tmp_path: Path, entry: str, message: str) -> None:
    picture(tmp_path / "a.png")
    write_text(tmp_path / "a.xml", f"<annotation>{entry}</annotation>")
    with pytest.raises(DataError, match=f"object 1: .*{message}"):
        read_dataset([str(tmp_path)])


def test_check_knows_rotated_boxes(tmp_path: Path) -> None:
    as_dota(tmp_path)
    file = tmp_path / "labelTxt" / "a.txt"
    lines = [
        file.read_text(),
        "114 40 124 50 134 40 124 30 ship 0",  # its centre is outside
        "110 40 118 48 126 40 118 32 ship 0",  # reaches out, which is no fault
        "10 10 20 20 15 15 12 12 ship 0",  # on one line
        "10 10 20 10 20 10.5 10 10.5 ship 0",  # half a pixel
        "41 22 87 58 103 46 57 10 plane 0",
        "57 10 41 22 87 58 103 46 plane 0",  # the same from another corner
    ]
    file.write_text("\n".join(lines))
    report = check_dataset({"train": [str(tmp_path)]})
    found = {finding.what: finding.examples for finding in report.findings}
    assert report.ok and len(found) == 4
    for part, example in (
        ("1 box has no width or no height; it will be dropped", "ship at"),
        ("1 box has its centre outside of its picture", "ship at 124, 40, "),
        ("1 box is thinner than a pixel", "ship at 15, 10.25, 10, 0.5, "),
        ("1 box is there twice", "(cx, cy, w, h, angle in radians)"),
    ):
        (examples,) = [examples for what, examples in found.items() if part in what]
        assert example in examples[0]
    assert len(read_dataset([str(tmp_path)]).boxes) == 8


def test_split_keeps_rotated_boxes(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "images" / f"{number}.png")
        write_text(tmp_path / "labelTxt" / f"{number}.txt", f"{number} 9 10 19 20 9 10 0 ship 0\n")
    index = read_dataset([str(tmp_path)])
    parts = split_dataset(index, {"train": 0.5, "val": 0.5}, seed=0)
    rows = [part.rotated for part in parts.values()]
    assert all(row is not None and len(row) == 3 for row in rows)
    assert index.rotated is not None
    np.testing.assert_array_equal(np.unique(np.concatenate(rows), axis=0), np.unique(index.rotated, axis=0))

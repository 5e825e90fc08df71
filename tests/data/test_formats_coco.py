from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import coco, objects, random_index, write_coco_file, write_picture, write_text
from pycocotools.coco import COCO

from ymir_tmi.data.formats import jsonstream
from ymir_tmi.data.formats.coco import read_coco, write_coco
from ymir_tmi.data.formats.jsonstream import stream_lists
from ymir_tmi.data.formats.reading import Reading
from ymir_tmi.data.index import CROWD, DIFFICULT
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError

IMAGE = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
BOX = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}


def read(path: Path) -> Reading:
    return read_coco(path, PictureFinder([path.parent]))


def read_content(folder: Path, content: Any) -> Reading:
    return read(write_text(folder / "a.json", content if isinstance(content, str) else json.dumps(content)))


# --- the stream of lists


@pytest.fixture(params=[16, 17, 64, 100_000], ids=lambda size: f"window{size}")
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in windows so small that they end inside every kind of value, and as large as the file."""
    monkeypatch.setattr(jsonstream, "_CHUNK", request.param)
    monkeypatch.setattr(jsonstream, "_BATCH", 3)


DOCUMENT = {
    "info": {"a": [1, 2], "b": None, "text": "quote \" backslash \\ brace } bracket ]"},
    "numbers": [12345678, -2.5e-7, 0, 123456789012345],
    "empty": [],
    "words": ["ünï", "", "日本語", "a,b", "😀", "x" * 300, "line\nbreak"],
    "mixed": [True, False, None, [], {}, [[1, [2]]], {"k": {"l": [1, {"m": "]}"}]}}],
    "version": 1.5,
    "last": [{"id": number, "text": "y" * number} for number in range(40)],
}  # fmt: skip


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_streamed_lists_are_those_of_the_json_module(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(DOCUMENT, indent=indent, ensure_ascii=ascii_only)
    path = write_text(tmp_path / "a.json", f"\n {text} \n")
    found: dict[str, list[Any]] = {}
    for batch in stream_lists(path):
        assert len(batch.items) == len(batch.lines) <= 3
        found.setdefault(batch.key, []).extend(batch.items)
    assert found == {key: value for key, value in DOCUMENT.items() if isinstance(value, list)}


@pytest.mark.usefixtures("window")
def test_lines_of_items(tmp_path: Path) -> None:
    text = '{\n"a": [\n1, 2,\n\n3, {"x":\n1}, 4\n, 5], "b": [6,\n7]}'
    lines = [line for batch in stream_lists(write_text(tmp_path / "a.json", text)) for line in batch.lines]
    assert lines == [3, 3, 5, 5, 6, 7, 7, 8]


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n ", "is empty"),
        ("[]", "JSON list, as results of a detector"),
        ('[{"image_id": 1}]', "JSON list, as results of a detector"),
        ("<html>", "line 1, column 1: this is not a JSON object"),
        ('{"a": [1, 2', "line 1, column 12: this file is cut short"),
        ('{"a": [1, {"b": "tex', "line 1, column 11: this file is cut short"),
        ('{"a": [1, {"b": 1', "line 1, column 11: this file is cut short"),
        ('{"a": [1', "cut short"),
        ('{"a"', "cut short"),
        ('{"a": [1,\n 2}', "line 2, column 3: this is not JSON: ',' was expected"),
        ('{"a": [1,\n {"b" 2}]}', "line 2, column 7: this is not JSON: expecting ':' delimiter"),
        ('{"a": [1, 2,]}', "line 1, column 13: this is not JSON: expecting value"),
        ('{"a": [nil]}', "line 1, column 8: this is not JSON: expecting value"),
        ("{'a': [1]}", "line 1, column 2: this is not JSON"),
        ('{"a" [1]}', "line 1, column 6: this is not JSON: ':' was expected"),
        ('{1: [1]}', "a key was expected"),
        ('{"a": [1]}\n{}', "line 2, column 1: there is something after the end"),
    ],
)  # fmt: skip
def test_what_is_not_json(tmp_path: Path, text: str, message: str) -> None:
    path = write_text(tmp_path / "a.json", text)
    with pytest.raises(DataError) as error:
        list(stream_lists(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": ["\xff\xfe"]}')
    with pytest.raises(DataError, match="UTF-8"):
        list(stream_lists(tmp_path / "a.json"))
    with pytest.raises(DataError, match="No such file"):
        list(stream_lists(tmp_path / "b.json"))


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert next(stream_lists(tmp_path / "a.json")).items == [1]


# --- COCO


def slow_objects(content: dict[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    """What the file says, entry by entry."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    found: dict[str, list[tuple[Any, ...]]] = {}
    for image in content["images"]:
        rows = []
        for entry in content["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, w, h = entry["bbox"]
                box = tuple(round(float(np.float32(value)), 3) for value in (x, y, x + w, y + h))
                flags = (1 if entry.get("iscrowd") else 0) + (2 if entry.get("ignore") else 0)
                rows.append((names[entry["category_id"]], box, round(entry.get("area", w * h), 2), flags, None))
        found[image["file_name"]] = sorted(rows)
    return found


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("order", [["images", "annotations", "categories"], ["annotations", "categories", "images"]])
def test_reading_equals_the_obvious_way(tmp_path: Path, order: list[str]) -> None:
    content = json.loads(random_index(tmp_path).read_text())
    annotations = content["annotations"]
    np.random.default_rng(0).shuffle(annotations)
    annotations[0]["iscrowd"] = 1
    annotations[1]["ignore"] = 1
    annotations[2]["area"] = 7.5
    expected = slow_objects(content)
    reading = read_content(tmp_path, {key: content[key] for key in order})
    assert objects(reading.index) == expected
    assert reading.rejections.count == 0 and not reading.missing
    assert reading.index.sizes.tolist() == [[60, 40]] * 12


def test_reading_agrees_with_pycocotools(tmp_path: Path) -> None:
    path = random_index(tmp_path, seed=4)
    index, reference = read(path).index, COCO(str(path))
    for image, key in enumerate(index.image_ids.tolist()):
        expected = sorted(entry["bbox"] for entry in reference.loadAnns(reference.getAnnIds(key)))
        boxes = index.boxes[index.rows(image)].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_allclose(
            np.reshape(sorted(boxes.tolist()), (-1, 4)), np.reshape(expected, (-1, 4)), atol=1e-5
        )


def test_labels_go_by_ascending_category_id(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    content = coco([IMAGE], [{**BOX, "category_id": 90}, {**BOX, "category_id": 7}])
    content["categories"] = [{"id": 90, "name": "zebra"}, {"id": 7, "name": "yak"}, {"id": 55, "name": "ant"}]
    index = read_content(tmp_path, content).index
    assert index.class_names == ("yak", "ant", "zebra")
    assert index.category_ids == (7, 55, 90)
    assert index.labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("ids", "references", "expected"),
    [
        ([5, 2, 9], [2, 9, 5], [5, 2, 9]),
        (["000005", "2", "9"], ["2", "000009", 5], [5, 2, 9]),  # numbers as text are numbers
        ([5.0, 2.0, 9.0], [2, 9.0, 5], [5, 2, 9]),  # as some table libraries write them
        ([-1, 2, 9], [2, 9, -1], [-1, 2, 9]),
        (["x", 2, "y9"], [2, "y9", "x"], [0, 1, 2]),  # other text: numbered anew
    ],
)
def test_image_ids(tmp_path: Path, ids: list[Any], references: list[Any], expected: list[int]) -> None:
    images = [{"id": key, "file_name": f"{place}.png"} for place, key in enumerate(ids)]
    boxes = [{**BOX, "image_id": key, "bbox": [0, 0, 10 + place, 5]} for place, key in enumerate(references)]
    index = read(write_coco_file(tmp_path, coco(images, boxes))).index
    assert index.image_ids.tolist() == expected
    assert index.boxes[:, 2].tolist() == [12, 10, 11]  # images 0, 1, 2 are the third, first and second reference
    assert index.sizes.tolist() == [[0, 0]] * 3
    assert index.size(0) is None


def test_segmentations_are_kept_as_text(tmp_path: Path) -> None:
    polygons = [[1.5, 2, 3, 4.25, 5, 6], [1, 1, 2, 2, 3, 3]]
    runs = {"size": [40, 60], "counts": 'ab\\cd"e'}
    entries = [{**BOX, "segmentation": value} for value in (polygons, [], runs, None)]
    index = read(write_coco_file(tmp_path, coco([IMAGE], [*entries, BOX]))).index
    assert index.segments is not None
    texts = [index.segments[row] for row in range(5)]
    assert [json.loads(text) if text else None for text in texts] == [polygons, None, runs, None, None]
    assert read(write_coco_file(tmp_path, coco([IMAGE], [BOX]), "b.json")).index.segments is None


def test_images_alone_are_a_pool(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    index = read_content(tmp_path, {"images": [IMAGE]}).index
    assert (len(index), len(index.boxes), index.class_names) == (1, 0, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "annotation 5: its image 77 is not in 'images'"),
        ({"image_id": "no such"}, "annotation 5: its image no such is not in 'images'"),
        ({"category_id": 3}, "annotation 5: its category 3 is not in 'categories'"),
        ({"image_id": None}, "annotation 5: it has no 'image_id'"),
        ({"image_id": 1.5}, "annotation 5: an id is not a whole number"),
        ({"category_id": [1]}, "annotation 5: an id is not a whole number"),
        ({"image_id": 1 << 80}, "annotation 5: an id is not a whole number"),
        ({"area": "big"}, "annotation 5: an id is not a whole number, or 'area' is not a number"),
        ({"bbox": None}, "annotation 5: it has no 'bbox'"),
        ({"bbox": [1, 2, 3]}, "annotation 5: its 'bbox' is not [x, y, width, height]: [1, 2, 3]"),
        ({"bbox": [[1, 2, 3, 4]]}, "annotation 5: its 'bbox' is not"),
        ({"bbox": [1, 2, "wide", 4]}, "annotation 5: its 'bbox' is not"),
        ({"bbox": {"x": 1}}, "annotation 5: its 'bbox' is not"),
        ({"bbox": [1, 2, 1e30, 4]}, "annotation 5: its 'bbox' is not"),
        ({"bbox": [1, 2, -3, 4]}, "annotation 5: its 'bbox' is not [x, y, width, height]: [1, 2, -3, 4]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 5: its 'bbox' is not [x, y, width, height]: [1, 2, NaN, 4]"),
        ({"bbox": [float("inf"), 2, 3, 4]}, "annotation 5: its 'bbox' is not"),
    ],
)
def test_rejected_annotations(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A bad annotation between good ones is named with its line; the good ones are read."""
    good = [{**BOX, "id": key, "bbox": [key, 0, 5, 5]} for key in (1, 2, 3)]
    entries = [good[0], {**BOX, **change}, good[1], good[2], {**BOX, **change, "id": 6}]
    content = coco([IMAGE], entries)
    write_picture(tmp_path / "a.png")
    path = write_text(tmp_path / "a.json", json.dumps(content, indent=0))
    reading = read(path)
    assert reading.index.boxes[:, 0].tolist() == [1, 2, 3]
    assert reading.rejections.count == 2
    first, second = reading.rejections.first
    assert message in first.what and "annotation 6: " in second.what
    line = int(first.where.removeprefix(f"{path}, line "))
    lines = path.read_text().splitlines()
    assert lines[line - 1] == "{" and lines[line] == '"id": 5,'
    with pytest.raises(DataError) as error:
        read_dataset([str(path)])
    assert first.where in str(error.value) and message in str(error.value) and "first of 2 bad" in str(error.value)


@pytest.mark.parametrize("entry", [None, 3, "text", [1, 2]])
def test_an_annotation_that_is_no_object(tmp_path: Path, entry: Any) -> None:
    reading = read(write_coco_file(tmp_path, coco([IMAGE], [BOX, entry, BOX])))
    assert len(reading.index.boxes) == 2
    assert "is not an object" in reading.rejections.first[0].what


def test_only_the_first_rejections_are_kept(tmp_path: Path) -> None:
    bad = [{**BOX, "id": key, "image_id": 99} for key in range(1000)]
    reading = read(write_coco_file(tmp_path, coco([IMAGE], bad)))
    assert reading.rejections.count == 1000 and len(reading.rejections.first) == 5


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(images=[without(IMAGE, "id")]), "an image has no 'id'"),
        (lambda c: c.update(images=[without(IMAGE, "file_name")]), "an image has no 'file_name'"),
        (lambda c: c.update(images=[{**IMAGE, "file_name": 3}]), "an image has no 'file_name'"),
        (lambda c: c.update(images=[{**IMAGE, "width": "wide"}]), "is not a number of pixels"),
        (lambda c: c.update(images=[{**IMAGE, "height": -1}]), "is not a number of pixels"),
        (lambda c: c.update(images=["a.png"]), "is not an object"),
        (lambda c: c.update(images=[IMAGE, IMAGE]), "several entries of 'images' have the id 1"),
        (lambda c: c.update(images=[{**IMAGE, "id": [1]}]), "ids of images must be"),
        (lambda c: c.update(categories=[{"id": 1}]), "a category has no 'name'"),
        (lambda c: c.update(categories=[{"id": "c", "name": "cat"}]), "the id of category 'cat' is not a whole number"),
        (lambda c: c.update(categories=[{"name": "cat"}]), "the id of category 'cat' is not a whole number"),
        (lambda c: c["categories"].append({"id": 1, "name": "dog"}), "categories 'cat' and 'dog' have one id, 1"),
        (lambda c: c["categories"].append({"id": 2, "name": "cat"}), "there are two categories 'cat'"),
        (lambda c: c.pop("images"), "it has no list 'images'"),
        (lambda c: c.update(image=c.pop("images")), "Did you mean 'image'?"),
    ],
)
def test_wrong_images_and_categories(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    write_picture(tmp_path / "a.png")
    content = coco([IMAGE], [BOX])
    change(content)
    with pytest.raises(DataError) as error:
        read_content(tmp_path, content)
    assert message in str(error.value)
    assert str(tmp_path / "a.json") in str(error.value)


# --- writing


def test_writing_and_reading_keeps_everything(tmp_path: Path) -> None:
    content = json.loads(random_index(tmp_path).read_text())
    polygon = [[1, 2.5, 3, 4, 5, 6]]
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": polygon, "area": 3.25}
    content["annotations"][1] |= {"ignore": 1}
    content["categories"][2] = {"id": 40, "name": "hén"}
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 3]
    index = read(write_coco_file(tmp_path, content)).index
    assert {int(CROWD), int(DIFFICULT)} <= set(index.flags.tolist())
    write_coco(index, tmp_path / "b.json")
    again = read(tmp_path / "b.json").index
    assert objects(again) == objects(index)
    assert (again.category_ids, again.class_names) == ((1, 2, 40), ("cat", "dog", "hén"))
    assert again.image_ids.tolist() == index.image_ids.tolist()
    assert again.fingerprint() == index.fingerprint()
    COCO(str(tmp_path / "b.json"))


def test_written_names_are_found_again(tmp_path: Path) -> None:
    names = ["data/images/a.png", "data/a.png", "data2/c.png"]
    for name in names:
        write_picture(tmp_path / name)
    index = read_dataset([str(tmp_path / name) for name in names], format="images")
    path = tmp_path / "data" / "a.json"
    write_coco(index, path)
    written = [image["file_name"] for image in json.loads(path.read_text())["images"]]
    assert written == ["images/a.png", "a.png", str(tmp_path / "data2" / "c.png")]
    again = read_dataset([str(path)])
    assert [again.paths[row] for row in range(3)] == [index.paths[row] for row in range(3)]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = random_index(tmp_path)
    with pytest.raises(DataError, match="exists already"):
        write_coco(read(path).index, path)

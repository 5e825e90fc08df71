from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import coco, random_index, write_coco_file, write_picture, write_text

from ymir_tmi.data.convert import convert
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.errors import ConfigError, DataError

RESOLUTION = {"coco": 1e-4, "voc": 0.5, "yolo": 1e-4}  # pixels


def rows(index: DatasetIndex) -> dict[str, list[list[Any]]]:
    """[label name, x1, y1, x2, y2] of every object, in the file's order, by picture."""
    found = {}
    for image in range(len(index)):
        span = index.rows(image)
        names = [index.class_names[label] for label in index.labels[span]]
        boxes = index.boxes[span].tolist()
        found[Path(index.paths[image]).name] = [[name, *box] for name, box in zip(names, boxes, strict=True)]
    return found


def description(folder: Path) -> Path:
    random_index(folder / "one", seed=1)
    random_index(folder / "two", seed=2, images=5)
    return write_text(folder / "data.yaml", "train: one/a.json\nval: two/a.json\n")


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_there_and_back_again(tmp_path: Path, to: Any) -> None:
    """COCO -> another format -> COCO keeps every box to within what the format can write."""
    source = description(tmp_path / "in")
    report = convert([str(source)], to=to, output=tmp_path / "there")
    assert report.to_dict()["class_names"] == ["cat", "dog", "hen"]
    back = tmp_path / "back"
    if to == "coco":
        sources = {split: [str(tmp_path / "there" / f"{split}.json")] for split in ("train", "val")}
    else:
        sources = list_splits([str(tmp_path / "there" / ("data.yaml" if to == "yolo" else ""))])
    assert sorted(sources) == ["train", "val"]
    for split, members in sources.items():
        convert(members, to="coco", output=back / split, split=split)
        original = read_dataset([str(source)], split=split)
        again = read_dataset([str(back / split / f"{split}.json")])
        assert again.class_names == original.class_names
        assert report.splits[split] == (len(original), len(original.boxes))
        # Voc names its pictures after their folders, since it has only one.
        names = {name.removeprefix("one_").removeprefix("two_"): found for name, found in rows(again).items()}
        assert names.keys() == rows(original).keys()
        for name, expected in rows(original).items():
            assert [row[0] for row in names[name]] == [row[0] for row in expected]
            found, wanted = (np.array([row[1:] for row in part]) for part in (names[name], expected))
            if len(wanted):
                assert np.abs(found - wanted).max() <= RESOLUTION[to] + 1e-5


@pytest.mark.parametrize(
    ("to", "rotated", "told"), [("coco", False, 0), ("voc", False, 1), ("yolo", False, 1), ("yolo", True, 0)]
)
def test_who_loses_polygons_is_told(tmp_path: Path, to: Any, rotated: bool, told: int) -> None:
    path = random_index(tmp_path / "in")
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 9, 2, 8, 9, 1, 7]]
    path.write_text(json.dumps(content))
    report = convert([str(path)], to=to, output=tmp_path / "out", rotated=rotated)
    assert len(report.notes) == told
    assert ("--rotated" in report.to_text()) == bool(told)
    assert report.to_dict()["notes"] == list(report.notes)


@pytest.mark.parametrize("to", ["coco", "yolo", "yolo-seg", "dota", "masks"])
@pytest.mark.parametrize("parts", [["data"], ["train", "val"]])
def test_a_written_folder_is_read_by_its_name(tmp_path: Path, to: Any, parts: list[str]) -> None:
    path = random_index(tmp_path / "in")
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height, x, y]]
    path.write_text(json.dumps(content))
    source = write_text(tmp_path / "in" / "data.yaml", "".join(f"{part}: a.json\n" for part in parts))
    out = tmp_path / "out"
    report = convert([str(source)], to=to, output=out)
    sources = list_splits([str(out)])
    assert list(sources) == parts
    for split in [*parts, *(["val", "pool"] if len(parts) == 1 else [])]:  # the only split needs no name
        index = read_dataset([str(out)], split=split)
        assert index.class_names == report.class_names
        assert index.fingerprint() == read_dataset([str(out / "data.yaml")], split=parts[0]).fingerprint()
        assert len(index) == 12
    assert not read_dataset([str(out)], split=parts[0], format="images").class_names
    if len(parts) > 1:
        with pytest.raises(ConfigError, match="there is no split 'pool'"):
            read_dataset([str(out)], split="pool")


@pytest.mark.parametrize(("objects", "told"), [((0, 1), 0), ((0, 1, 1), 1)])
def test_who_merges_objects_is_told(tmp_path: Path, objects: tuple[int, ...], told: int) -> None:
    triangle = [[1, 1, 9, 2, 8, 9]]
    rows = [
        {"id": key, "image_id": 1, "category_id": 1 + label, "bbox": [1, 1, 8, 8], "segmentation": triangle}
        for key, label in enumerate(objects, 1)
    ]
    path = write_coco_file(tmp_path / "in", coco([{"id": 1, "file_name": "a.png"}], rows, ("cat", "dog")))
    report = convert([str(path)], to="masks", output=tmp_path / "masks")
    assert len(report.notes) == told
    assert "data: 1 image, " in report.to_text()
    assert not convert([str(path)], to="coco", output=tmp_path / "coco").notes


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("copy", [False, True])
def test_the_result_stands_by_itself(tmp_path: Path, to: Any, copy: bool) -> None:
    convert([str(description(tmp_path / "in"))], to=to, output=tmp_path / "out", copy=copy)
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == 17
    assert all(picture.is_symlink() != copy and picture.stat().st_size > 0 for picture in pictures)
    (tmp_path / "out").rename(tmp_path / "moved")
    if copy:
        (tmp_path / "in").rename(tmp_path / "gone")
    source = {"coco": "train.json", "voc": "", "yolo": "data.yaml"}[to]
    assert len(read_dataset([str(tmp_path / "moved" / source)], split="train")) == 12


def test_one_split_and_some_classes(tmp_path: Path) -> None:
    source = description(tmp_path / "in")
    report = convert(
        [str(source)], to="yolo", output=tmp_path / "out", split="val", classes=["hen=bird", "cat"], copy=True
    )
    assert report.class_names == ("bird", "cat")
    assert list(report.splits) == ["val"]
    text = (tmp_path / "out" / "data.yaml").read_text()
    assert text == "val: images/val\nnames:\n  0: bird\n  1: cat\n"
    assert report.to_text().splitlines()[1].startswith("val: 5 images, ")
    with pytest.raises(ConfigError, match="no class 'hne'"):
        convert([str(source)], to="yolo", output=tmp_path / "b", classes=["hne"])


def test_splits_with_different_classes_get_one_list(tmp_path: Path) -> None:
    random_index(tmp_path / "one", names=("cat", "dog"))
    random_index(tmp_path / "two", names=("ant", "dog"))
    source = write_text(tmp_path / "data.yaml", "train: one/a.json\nval: two/a.json\n")
    convert([str(source)], to="coco", output=tmp_path / "out")
    parts = [read_dataset([str(tmp_path / "out" / f"{split}.json")]) for split in ("train", "val")]
    assert parts[0].class_names == parts[1].class_names
    assert parts[0].category_ids == parts[1].category_ids
    assert {"cat", "dog", "ant"} == set(parts[0].class_names)


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_nothing_is_overwritten(tmp_path: Path, to: Any) -> None:
    source = [str(random_index(tmp_path / "in"))]
    write_text(tmp_path / "out" / "precious.txt", "mine")
    with pytest.raises(DataError, match="exists already"):
        convert(source, to=to, output=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    convert(source, to=to, output=tmp_path / "empty")


@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_pictures_that_would_share_an_annotation_file(tmp_path: Path, to: Any) -> None:
    for name in ("a.png", "a.jpg"):
        write_picture(tmp_path / "in" / name)
    with pytest.raises(DataError, match=r"'a\.jpg' and 'a\.png' would have one annotation file"):
        convert([str(tmp_path / "in")], to=to, output=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_pictures_of_the_same_name_in_different_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_picture(tmp_path / "in" / folder / "x.png", seed=ord(folder))
    for to in ("coco", "voc", "yolo"):
        convert([str(tmp_path / "in")], to=to, output=tmp_path / to, copy=True)
        assert len({path.read_bytes() for path in (tmp_path / to).rglob("*.png")}) == 2


def test_a_picture_that_occurs_twice(tmp_path: Path) -> None:
    picture = str(write_picture(tmp_path / "a.png"))
    with pytest.raises(DataError, match="occurs twice"):
        convert([picture, picture], to="yolo", output=tmp_path / "out")

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import coco, objects, random_index, write_coco_file, write_picture, write_text

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.data.repair import is_empty, overshoot
from ymir_tmi.errors import ConfigError, DataError

LABEL = "0 0.5 0.5 0.5 0.5\n"


def names(index: DatasetIndex) -> list[str]:
    return [Path(index.paths[row]).name for row in range(len(index))]


# --- kinds of sources


def test_a_folder_of_pictures_and_of_folders(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", ".hidden.jpg", ".trash/d.jpg"):
        write_picture(tmp_path / name)
    write_text(tmp_path / "notes.md", "")
    index = read_dataset([str(tmp_path)])
    assert names(index) == ["a.PNG", "b.jpg", "c.webp"]
    assert (index.class_names, len(index.boxes), index.size(0)) == ((), 0, None)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"b\xff.jpg")).write_bytes(b"")
    (tmp_path / "ü.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\\udcff\.jpg: the name of this picture is not UTF-8"):
        read_dataset([str(tmp_path)])


def test_nothing_to_read() -> None:
    with pytest.raises(DataError, match="no pictures in this split"):
        read_dataset([])


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "store" / "a.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "data")
    assert names(read_dataset([str(tmp_path / "data")])) == ["a.jpg"]


def test_globs_and_single_pictures(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "x/b.jpg", "y/c.jpg", "odd [1].jpg"):
        write_picture(tmp_path / name)
    assert names(read_dataset([f"{tmp_path}/*/*.jpg"])) == ["a.jpg", "b.jpg", "c.jpg"]
    assert names(read_dataset([f"{tmp_path}/**/*.jpg"])) == ["odd [1].jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert names(read_dataset([f"{tmp_path}/y/c.jpg", f"{tmp_path}/x"])) == ["c.jpg", "a.jpg", "b.jpg"]
    assert names(read_dataset([f"{tmp_path}/odd [1].jpg"])) == ["odd [1].jpg"]  # a name before it is a glob


@pytest.mark.parametrize("format", ["auto", "yolo"])
@pytest.mark.parametrize("source", ["", "images", "images/train"])
def test_a_yolo_folder(tmp_path: Path, source: str, format: Any) -> None:
    write_picture(tmp_path / "images" / "train" / "a.jpg")
    write_picture(tmp_path / "images" / "train" / "b.jpg")
    write_picture(tmp_path / "other.jpg")  # is not in `images`
    write_text(tmp_path / "labels" / "train" / "a.txt", LABEL)
    index = read_dataset([str(tmp_path / source)], format=format, class_names=["cat"])
    assert names(index) == ["a.jpg", "b.jpg"]
    assert index.boxes.tolist() == [[15, 10, 45, 30]]
    assert index.starts.tolist() == [0, 1, 1]
    assert len(read_dataset([str(tmp_path / source)], format="images").boxes) == 0


def test_a_list_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/images/a.jpg", "x/images/b.jpg", "z/c.jpg"):
        write_picture(tmp_path / name)
    write_text(tmp_path / "x" / "labels" / "a.txt", LABEL)
    monkeypatch.chdir(tmp_path)
    lines = [
        "./images/a.jpg",
        "",
        f"{tmp_path}/z/c.jpg",
        " b.jpg ",
        "z/c.jpg",
    ]  # beside, absolute, in `images`, from here
    index = read_dataset([str(write_text(tmp_path / "x" / "list.txt", "\r\n".join(lines)))], class_names=["cat"])
    assert names(index) == ["a.jpg", "c.jpg", "b.jpg", "c.jpg"]
    assert index.starts.tolist() == [0, 1, 1, 1, 1]
    assert len(read_dataset(["x/list.txt"], format="images").boxes) == 0


def test_several_coco_files_are_one_split(tmp_path: Path) -> None:
    first, second = random_index(tmp_path / "a", seed=1), random_index(tmp_path / "b", seed=2)
    both = read_dataset([str(first), str(second)])
    assert len(both) == 24
    assert both.image_ids.tolist() == list(range(24))  # each file counts from 100
    assert len(read_dataset([f"{tmp_path}/*/a.json"])) == 24


@pytest.mark.parametrize("where", ["", "images", "../images", "elsewhere"])
def test_where_pictures_of_an_annotation_file_are_found(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "data" / "annotations"
    write_coco_file(folder, coco([{"id": 1, "file_name": "sub/a.png"}]))
    (folder / "sub" / "a.png").unlink()
    picture = write_picture((folder / where / "sub" / "a.png").resolve())
    index = read_dataset([str(folder / "a.json")], images=[folder / "elsewhere"])
    assert Path(index.paths[0]).resolve() == picture


def test_named_folders_come_before_those_beside_the_file(tmp_path: Path) -> None:
    path = random_index(tmp_path / "a")
    random_index(tmp_path / "b")
    assert Path(read_dataset([str(path)], images=[tmp_path / "b"]).paths[0]).parent == tmp_path / "b"
    windows = json.loads(path.read_text())
    windows["images"] = [{"id": 1, "file_name": "b\\p00.png"}]
    index = read_dataset([str(write_text(tmp_path / "w.json", json.dumps({"images": windows["images"]})))])
    assert Path(index.paths[0]) == tmp_path / "b" / "p00.png"


def test_missing_pictures(tmp_path: Path) -> None:
    path = random_index(tmp_path)
    for name in ("p03.png", "p07.png"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError) as error:
        read_dataset([str(path)], images=[tmp_path / "no"])
    message = str(error.value)
    assert "2 of 12 pictures are missing, the first is 'p03.png'" in message
    for folder in ("no", "", "images"):
        assert str(tmp_path / folder) in message
    assert str(path) in message and "--images" in message
    lines = write_text(tmp_path / "list.txt", "p01.png\np03.png\n")
    with pytest.raises(DataError, match=r"1 of 2 pictures are missing, the first is 'p03.png'"):
        read_dataset([str(lines)])


def test_folders_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at each of a million files by itself takes minutes."""
    path = random_index(tmp_path, images=50)
    calls: list[Any] = []
    listdir = os.listdir
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda folder: calls.append(folder) or listdir(folder))
        for name in ("stat", "lstat"):
            patch.setattr(os, name, lambda *_, **__: pytest.fail("a file was looked at by itself"))
        patch.setattr(Path, "exists", lambda _: True)
        patch.setattr(Path, "is_dir", lambda _: False)
        assert len(read_dataset([str(path)])) == 50
    assert len(calls) <= 4


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a.jsn", {}, "a.jsn: there is no such file or folder"),
        ("a.jsn", {}, "Did you mean"),
        ("*.tif", {}, "nothing matches this"),
        ("empty", {}, "there are no pictures (.bmp, .jpeg, "),
        ("empty", {"format": "voc"}, "no VOC annotations"),
        ("empty", {"format": "coco"}, "no COCO file"),
        ("empty.txt", {}, "names no pictures"),
        ("notes.md", {}, "it is not clear how to read this file"),
        ("a.json", {"format": "voc"}, "it is not clear how to read this file as voc"),
        ("p00.png", {"format": "yolo"}, "no annotations in the format yolo"),
        ("p00.png", {"format": "coco"}, "no annotations in the format coco"),
        ("none.json", {}, "no pictures in this split"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path: Path, source: str, options: dict[str, Any], message: str) -> None:
    random_index(tmp_path, images=1)
    (tmp_path / "empty").mkdir()
    write_text(tmp_path / "empty.txt", " \n\n")
    write_text(tmp_path / "notes.md", "")
    write_text(tmp_path / "none.json", '{"images": []}')
    with pytest.raises(DataError) as error:
        read_dataset([str(tmp_path / source)], **options)
    assert message in str(error.value)


# --- classes


def test_class_names_set_the_order(tmp_path: Path) -> None:
    path = random_index(tmp_path)
    plain = read_dataset([str(path)])
    index = read_dataset([str(path)], class_names=["emu", "hen", "cat", "dog"])
    assert index.class_names == ("emu", "hen", "cat", "dog")
    assert index.category_ids == (4, 3, 1, 2)  # a new one for the class that the file lacks
    assert objects(index) == objects(plain)
    with pytest.raises(DataError, match="objects are of class 'hen', which is not one of cat, dog"):
        read_dataset([str(path)], class_names=["cat", "dog"])
    with pytest.raises(DataError) as caught:
        read_dataset([str(path)], class_names=["cat", "dog"])
    hens = [index.paths[image] for image in index.image_of_box()[index.labels == 1]]
    assert caught.value.where == f"{path}, first in {Path(hens[0]).name}"


def test_declared_classes_must_agree_and_gathered_ones_are_joined(tmp_path: Path) -> None:
    first = random_index(tmp_path / "a", names=("cat", "dog"))
    second = random_index(tmp_path / "b", names=("cat", "hen"))
    with pytest.raises(DataError, match="different classes: cat, dog; and cat, hen"):
        read_dataset([str(first), str(second)])
    index = read_dataset([str(first), str(second)], class_names=["cat", "dog", "hen"])
    assert set(index.labels.tolist()) == {0, 1, 2}
    for number, label in enumerate(("1", "10", "3")):
        write_picture(tmp_path / f"y{number}" / f"{number}.jpg")
        write_text(tmp_path / f"y{number}" / f"{number}.txt", f"{label} 0.5 0.5 0.5 0.5")
    index = read_dataset([f"{tmp_path}/y*"])
    assert index.class_names == tuple(map(str, range(11)))
    assert index.labels.tolist() == [1, 10, 3]


def test_a_pool_beside_annotations(tmp_path: Path) -> None:
    path = random_index(tmp_path / "a")
    write_picture(tmp_path / "b" / "x.jpg")
    index = read_dataset([str(tmp_path / "b"), str(path)])
    assert (len(index), index.class_names, index.starts[1]) == (13, ("cat", "dog", "hen"), 0)


# --- descriptions


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Path]:
    random_index(tmp_path / "base" / "one", seed=1)
    random_index(tmp_path / "base" / "two", seed=2)
    write_picture(tmp_path / "base" / "images" / "u.jpg")
    write_text(tmp_path / "base" / "labels" / "u.txt", LABEL)

    def write(text: str) -> Path:
        return write_text(tmp_path / "data.yaml", text)

    return write


def test_a_description(described: Callable[..., Path], tmp_path: Path) -> None:
    path = described(
        "path: base\ntrain: [one/a.json, two/a.json]\nval: two/a.json\npool: images\nrest: two/p0*.png\n"
        "names: {0: hen, 1: cat, 2: dog}\nnc: 3\ndownload: rm -rf /\nroboflow: {a: b}\n"
    )
    sizes = {split: len(read_dataset([str(path)], split=split)) for split in ("train", "val", "pool", "rest")}
    assert sizes == {"train": 24, "val": 12, "pool": 1, "rest": 10}
    assert read_dataset([str(path)], split="val").class_names == ("hen", "cat", "dog")
    pool = read_dataset([str(path)], split="pool")
    assert pool.labels.tolist() == [0] and pool.class_names[0] == "hen"
    assert read_dataset([str(path)], split="pool", class_names=["x"]).class_names == ("x",)
    assert list_splits([str(path)]) == {split: [str(path)] for split in ("train", "val", "pool", "rest")}
    both = read_dataset([str(path), str(tmp_path / "base/one/a.json")], split="val", class_names=["dog", "cat", "hen"])
    assert (len(both), both.class_names) == (24, ("dog", "cat", "hen"))


def test_a_description_of_one_split_needs_no_name(described: Callable[..., Path]) -> None:
    assert len(read_dataset([str(described("train: base/one/a.json"))])) == 12
    absolute = described(f"train: {described('').parent}/base/one/a.json\nnames: [cat, dog, hen]")
    assert len(read_dataset([str(absolute)])) == 12


def test_images_and_format_of_a_description(described: Callable[..., Path], tmp_path: Path) -> None:
    os.renames(tmp_path / "base/one/a.json", tmp_path / "json/a.json")
    path = described("train: json/a.json\npool: base/images\nimages: [base/one]\nformat: auto\n")
    assert len(read_dataset([str(path)], split="train")) == 12
    path = described("pool: base/images\nformat: images\n")
    assert len(read_dataset([str(path)]).boxes) == 0
    assert len(read_dataset([str(path)], format="yolo").boxes) == 1


def test_paths_as_seen_from_a_folder_below(described: Callable[..., Path]) -> None:
    """Some tools write `../train/images` where they mean `train/images`."""
    assert len(read_dataset([str(described("train: ../base/images"))])) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmaes: [a, b]\ntrain: base/one/a.json", "unknown key 'nmaes'\n  Did you mean 'names'?"),
        ("image: x\ntrain: base/one/a.json", "unknown key 'image'\n  Did you mean 'images'?"),
        ("epochs: 3\ntrain: base/one/a.json", "'epochs' is neither a known key nor a split"),
        ("train: {a: b}", "'train' is neither a known key nor a split"),
        ("train: [1]", "'train' is neither a known key nor a split"),
        ("names: [a]", "has no splits"),
        ("trian: base/one/a.json", "no split 'train'\n  Did you mean 'trian'?"),
        ("train: base/one/a.json\nnames: {1: a, 2: b}", "keys of 'names' are not 0, 1, 2"),
        ("train: base/one/a.json\nnames: a", "'names' is neither a list"),
        ("train: base/one/a.json\nnames: [a, b, a]", "'names' has 'a' twice"),
        ("train: base/one/a.json\nnames: [a, b]\nnc: 3", "'nc' is 3, but there are 2 names"),
        ("train: base/one/a.json\nformat: cocoo", "'format' is 'cocoo'\n  Did you mean 'coco'?"),
        ("train: base/one/a.json\npath: [a]", "'path' is not a text"),
        ("train: base/one/a.json\nimages: 3", "'images' is neither"),
        ("train: [", "this is not YAML"),
    ],
)
def test_wrong_descriptions(described: Callable[..., Path], text: str, message: str) -> None:
    path = described(text)
    with pytest.raises(ConfigError) as error:
        read_dataset([str(path)], split="train")
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_description_of_several_splits_needs_a_name(described: Callable[..., Path]) -> None:
    path = described("train: base/one/a.json\nval: base/two/a.json")
    with pytest.raises(ConfigError, match="several splits"):
        read_dataset([str(path)])
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset([str(described("train: base/three/a.json"))])


# --- repair


def test_boxes_are_clipped_and_empty_ones_dropped(tmp_path: Path) -> None:
    """One box of each kind in a picture of 60 x 40, and in one of unknown size."""
    boxes = {
        (10, 10, 20, 20): (10, 10, 30, 30),  # inside: unchanged
        (0, 0, 60, 40): (0, 0, 60, 40),
        (-5, -4, 20, 20): (0, 0, 15, 16),
        (50, 30, 20.5, 30): (50, 30, 60, 40),
        (70, 10, 5, 5): None,  # wholly outside
        (10, -20, 5, 20): None,
        (10, 10, 0, 5): None,
        (60, 10, 3, 3): None,
    }
    entries = [
        {"id": key, "image_id": image, "category_id": 1, "bbox": box}
        for image in (1, 2)
        for key, box in enumerate(boxes)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}, {"id": 2, "file_name": "b.png"}]
    index = read_dataset([str(write_coco_file(tmp_path, coco(images, entries)))])
    expected = [box for box in boxes.values() if box is not None]
    assert index.boxes[index.rows(0)].tolist() == np.array(expected).tolist()
    assert index.areas[index.rows(0)].tolist() == [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in expected]
    assert (70, 10, 75, 15) in set(map(tuple, index.boxes[index.rows(1)].tolist()))
    assert (0, 0, 15, 16) in set(map(tuple, index.boxes[index.rows(1)].tolist()))
    assert not is_empty(index).any() and overshoot(index).max() == 0


def test_an_area_is_at_most_that_of_the_box(tmp_path: Path) -> None:
    entries = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [-10, 0, 20, 10], "area": 150},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [-10, 0, 20, 10], "area": 42},
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    assert read_dataset([str(write_coco_file(tmp_path, coco(images, entries)))]).areas.tolist() == [100, 42]


def test_overshoot(tmp_path: Path) -> None:
    index = read_dataset([str(random_index(tmp_path))])
    index.boxes[:5] = [[0, 0, 60, 40], [-3, 0, 5, 5], [0, -1, 70, 5], [0, 0, 5, 42.5], [61, 0, 62, 1]]
    assert overshoot(index)[:5].tolist() == [0, 3, 10, 2.5, 2]

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from data_folders import random_index, write_picture, write_text

from ymir_tmi.data.formats.yolo import find_labels, read_yolo, write_yolo
from ymir_tmi.data.index import CROWD
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError, ImageError


def one(folder: Path, text: str, **size: int) -> tuple[list[str], list[str | None]]:
    """A picture of 60 x 40 with a label file beside it."""
    picture = write_picture(folder / "a.png", **size)
    return [str(picture)], [str(write_text(folder / "a.txt", text))]


def test_boxes_and_polygons(tmp_path: Path) -> None:
    text = "1 0.5 0.5 0.25 0.5\n\n0 0 0 1 0.25 0.5 1\n1.0 0.1 0.2 0.1 0.2\n"
    index = read_yolo(*one(tmp_path, text), ["cat", "dog"]).index
    expected = [[22.5, 10, 37.5, 30], [0, 0, 60, 40], [3, 4, 9, 12]]
    np.testing.assert_allclose(index.boxes, expected, atol=1e-5)
    assert index.labels.tolist() == [1, 0, 1]
    assert index.sizes.tolist() == [[60, 40]]
    np.testing.assert_allclose(index.areas, [300, 2400, 48], atol=1e-3)
    assert index.segments is not None
    assert [index.segments[0], index.segments[2]] == ["", ""]
    assert json.loads(index.segments[1]) == [[0, 0, 60, 10, 30, 40]]
    assert read_yolo(*one(tmp_path, "0 0.5 0.5 1 1"), ["cat"]).index.segments is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "a line is a class with 4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "a line is a class with 4 numbers"),  # a prediction with its score
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "or with the corners of a polygon"),
        ("0", "a line is a class with 4 numbers"),
        ("cat 0.5 0.5 0.2 0.2", "these are not all numbers"),
        ("a black cat on a wall", "these are not all numbers"),  # a caption, not a label
        ("2 0.5 0.5 0.2 0.2", "the class is not one of 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "the class is not one of 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", "the class is not one of 0 to 1"),
        ("nan 0.5 0.5 0.2 0.2", "the class is not one of 0 to 1"),
        ("0 30 20 10 10", "these are not fractions"),  # pixels
        ("0 0.5 nan 0.2 0.2", "these are not fractions"),
        ("0 0.5 0.5 -0.2 0.2", "negative"),
    ],
)
def test_rejected_lines(tmp_path: Path, line: str, message: str) -> None:
    pictures, labels = one(tmp_path, f"0 0.5 0.5 1 1\n{line}\n1 0.5 0.5 1 1\n")
    reading = read_yolo(pictures, labels, ["cat", "dog"])
    assert reading.index.labels.tolist() == [0, 1]
    assert reading.rejections.count == 1
    where, what = reading.rejections.first[0]
    assert where == f"{labels[0]}, line 2" and message in what and line in what


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    pictures, labels = one(tmp_path, "")
    Path(str(labels[0])).write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in read_yolo(pictures, labels, ["cat"]).rejections.first[0].what


def test_boxes_follow_the_upright_picture(tmp_path: Path) -> None:
    """What a person labels is the picture as it is shown."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    write_text(tmp_path / "a.txt", "0 0.5 0.5 1 0.5")
    index = read_yolo([str(tmp_path / "a.jpg")], [str(tmp_path / "a.txt")], ["cat"]).index
    assert index.sizes.tolist() == [[40, 60]]
    assert index.boxes.tolist() == [[0, 15, 40, 45]]


def test_a_picture_without_a_size(tmp_path: Path) -> None:
    pictures, labels = one(tmp_path, "0 0.5 0.5 1 1\n0 0.5 0.5 1 1\n")
    other = str(write_text(tmp_path / "b.jpg", "no picture"))
    reading = read_yolo([other, *pictures], [*labels, *labels], ["cat"])
    assert reading.index.starts.tolist() == [0, 0, 2]
    assert reading.rejections.count == 1
    where, what = reading.rejections.first[0]
    assert where == other and "the size of its 2 objects is unknown" in what


@pytest.mark.parametrize(
    ("picture", "label", "found"),
    [
        ("images/a.jpg", "labels/a.txt", True),
        ("images/train/a.jpg", "labels/train/a.txt", True),
        ("images/x/images/a.jpg", "images/x/labels/a.txt", True),  # the innermost folder `images`
        ("images/x/images/a.jpg", "labels/x/images/a.txt", False),
        ("train/images/a.jpg", "train/labels/a.txt", True),
        ("some/a.b.jpg", "some/a.b.txt", True),  # beside
        ("images/a.jpg", "images/a.txt", True),
        ("images/a.jpg", "labels/b.txt", False),
        ("my_images/a.jpg", "my_labels/a.txt", False),
    ],
)
def test_where_labels_are_found(tmp_path: Path, picture: str, label: str, found: bool) -> None:
    write_text(tmp_path / label, "")
    assert find_labels([str(tmp_path / picture)]) == [str(tmp_path / label) if found else None]


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "labels" / "a.txt", "")
    write_text(tmp_path / "b.txt", "")
    monkeypatch.chdir(tmp_path)
    assert find_labels(["images/a.jpg", "b.jpg", "c.jpg"]) == ["labels/a.txt", "b.txt", None]


def test_classes_without_names_have_numbers(tmp_path: Path) -> None:
    text = "".join(f"{label} 0.5 0.5 0.1 0.1\n" for label in (11, 2, 0))
    reading = read_yolo(*one(tmp_path, text), None)
    assert reading.index.class_names == tuple(map(str, range(12)))
    assert read_dataset([str(tmp_path)]).class_names == tuple(map(str, range(12)))


def test_a_list_of_classes_beside_the_labels(tmp_path: Path) -> None:
    write_text(tmp_path / "classes.txt", "cat\nsmall dog\n")
    assert read_yolo(*one(tmp_path, "1 0.5 0.5 0.1 0.1"), None).index.class_names == ("cat", "small dog")
    assert read_dataset([str(tmp_path)], class_names=["a", "b"]).class_names == ("a", "b")


def test_written_coordinates_are_exact(tmp_path: Path) -> None:
    """To 1/10000 pixel, also in a large picture."""
    picture = tmp_path / "in" / "a.png"
    picture.parent.mkdir()
    PIL.Image.new("L", (12000, 9000)).save(picture)
    index = read_dataset([str(random_index(tmp_path / "other"))])
    index = index.take(np.flatnonzero(np.diff(index.starts))[:1])
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 4000, (len(index.boxes), 2)).astype(np.float32)
    index.boxes[:] = np.hstack([low, low + rng.uniform(1, 4000, low.shape).astype(np.float32)])
    index.sizes[:] = [[12000, 9000]]
    (tmp_path / "other" / Path(index.paths[0]).name).write_bytes(picture.read_bytes())
    write_yolo({"train": index}, tmp_path / "out")
    again = read_dataset([str(tmp_path / "out" / "data.yaml")], split="train")
    # The resolution of float32 itself is 1/2000 pixel at 8000.
    np.testing.assert_allclose(again.boxes, index.boxes, rtol=1.2e-7, atol=1e-4)


def test_writing_leaves_out_crowds(tmp_path: Path) -> None:
    index = read_dataset([str(random_index(tmp_path / "in"))])
    index.flags[0] = CROWD
    write_yolo({"train": index}, tmp_path / "out", copy=True)
    again = read_dataset([str(tmp_path / "out")])
    assert len(again.boxes) == len(index.boxes) - 1
    assert len(again) == len(index) == len(list((tmp_path / "out" / "labels" / "train").iterdir()))
    assert not any(path.is_symlink() for path in (tmp_path / "out" / "images" / "train").iterdir())


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    """The fractions of a box mean nothing for a picture that is turned, or that is not the annotated one."""
    index = read_dataset([str(random_index(tmp_path / "in"))])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (60, 40)).save(index.paths[3], exif=exif)
    with pytest.raises(DataError, match=r"says 60 x 40 pixels, the picture as it is shown has 40 x 60"):
        write_yolo({"train": index}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]  # nothing is left of the attempt
    Path(index.paths[3]).write_text("no picture")
    with pytest.raises(ImageError, match="not a picture"):
        write_yolo({"train": index}, tmp_path / "out")

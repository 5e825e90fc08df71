from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from data_folders import objects, random_index, write_picture, write_text

from ymir_tmi.data.formats.voc import read_voc, voc_files, voc_splits, write_voc
from ymir_tmi.data.index import DIFFICULT
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError


def xml_object(name: str = "cat", box: str = "11 6 30 25", extra: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=False)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(*entries: str, filename: str | None = "a.png", size: str = "60 40") -> str:
    lines = ["<annotation>"]
    if filename:
        lines.append(f"<filename>{filename}</filename>")
    if size:
        width, height = size.split()
        lines.append(f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    return "\n".join([*lines, *entries, "</annotation>"])


def test_corners_are_one_based_and_inclusive(tmp_path: Path) -> None:
    """The box of the whole picture is 1, 1, width, height; one pixel is n, n, n, n."""
    write_picture(tmp_path / "a.png")
    write_text(
        tmp_path / "a.xml", xml(xml_object(box="1 1 60 40"), xml_object(box="7 3 7 3"), xml_object(box="1.5 2 3.5 4"))
    )
    index = read_dataset([str(tmp_path)])
    assert index.boxes.tolist() == [[0, 0, 60, 40], [6, 2, 7, 3], [0.5, 1, 3.5, 4]]
    assert index.areas.tolist() == [2400, 1, 9]
    assert index.sizes.tolist() == [[60, 40]]


def test_flags_names_and_parts(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    entries = [
        xml_object(" dog ", extra="<truncated>1</truncated>"),
        xml_object("cat", extra="<difficult>1</difficult>"),
        xml_object("ant", extra=f"<difficult>0</difficult>{part}"),
    ]
    write_text(tmp_path / "a.xml", xml(*entries))
    index = read_dataset([str(tmp_path / "a.xml")])
    assert index.class_names == ("ant", "cat", "dog")
    assert index.labels.tolist() == [2, 1, 0]
    assert index.flags.tolist() == [0, DIFFICULT, 0]
    assert index.boxes.tolist() == [[10, 5, 30, 25]] * 3


def voc_folder(root: Path) -> Path:
    for stem, name in (("1", "cat"), ("2", "dog"), ("3", "cat")):
        write_picture(root / "JPEGImages" / f"{stem}.jpg")
        write_text(root / "Annotations" / f"{stem}.xml", xml(xml_object(name), filename=f"{stem}.jpg"))
    write_text(root / "ImageSets" / "Main" / "train.txt", "3\n1\n")
    write_text(root / "ImageSets" / "Main" / "val.txt", "2\n\n")
    write_text(root / "ImageSets" / "Main" / "trainval.txt", "1\n2\n3\n")
    write_text(root / "ImageSets" / "Main" / "cat_train.txt", "1  1\n3 -1\n")
    return root


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train", ["3", "1"]), ("val", ["2"]), ("cat_train", ["1", "3"]), (None, ["1", "2", "3"])],
)
def test_splits_of_a_voc_folder(tmp_path: Path, split: str | None, expected: list[str]) -> None:
    root = voc_folder(tmp_path / "VOC2007")
    index = read_dataset([str(root)], split=split, class_names=["dog", "cat"])
    assert [Path(index.paths[row]).stem for row in range(len(index))] == expected
    assert index.class_names == ("dog", "cat")
    assert voc_splits(root) == ["train", "val"]
    assert len(read_dataset([str(root / "Annotations")], split=split)) == 3  # it has no splits of its own


def test_unknown_split_and_picture_without_annotation(tmp_path: Path) -> None:
    root = voc_folder(tmp_path)
    with pytest.raises(DataError, match=r"no split 'vall'[^']*Did you mean 'val'"):
        voc_files(root, "vall")
    write_text(root / "ImageSets" / "Main" / "test.txt", "4\n")
    with pytest.raises(DataError, match="picture '4' of this split has no annotation"):
        voc_files(root, "test")
    write_text(root / "ImageSets" / "Main" / "test.txt", "\n")
    with pytest.raises(DataError, match="names no pictures"):
        read_dataset([str(root)], split="test")


@pytest.mark.parametrize(
    ("filename", "picture"),
    [
        ("a.png", "xml/a.png"),  # beside the annotation
        ("a.png", "xml/images/a.png"),
        ("a.png", "JPEGImages/a.png"),
        ("a.png", "images/a.png"),
        ("C:\\pictures\\b.png", "images/a.png"),  # neither the folder nor the name is right: the XML file's name is
        ("a", "images/a.jpg"),  # no suffix
        (None, "images/a.png"),
    ],
)
def test_where_pictures_are_found(tmp_path: Path, filename: str | None, picture: str) -> None:
    write_picture(tmp_path / picture)
    write_text(tmp_path / "xml" / "a.xml", xml(xml_object(), filename=filename))
    index = read_dataset([str(tmp_path / "xml")])
    assert Path(index.paths[0]) == tmp_path / picture


@pytest.mark.parametrize("size", ["", "0 0", "wide 40", "60.0 40.0"])
def test_a_missing_size_is_none(tmp_path: Path, size: str) -> None:
    write_picture(tmp_path / "a.png")
    write_text(tmp_path / "a.xml", xml(xml_object(), size=size))
    assert read_dataset([str(tmp_path)]).size(0) == ((60, 40) if size == "60.0 40.0" else None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (xml_object(name=""), "object 2: it has no <name>"),
        ("<object><name>cat</name></object>", "object 2: it has no <bndbox>"),
        (xml_object(box="1 2 3"), "object 2: xmin, ymin, xmax, ymax are not numbers: ['1', '2', '3', None]"),
        (xml_object(box="1 2 3 x"), "are not numbers"),
        (xml_object(box="1 2 nan 4"), "are not finite"),
        (xml_object(box="1 2 inf 4"), "are not finite"),
        (xml_object(box="9 2 5 4"), "xmax or ymax is below xmin or ymin"),
    ],
)
def test_rejected_objects(tmp_path: Path, entry: str, message: str) -> None:
    write_picture(tmp_path / "a.png")
    path = write_text(tmp_path / "a.xml", xml(xml_object("cat"), entry, xml_object("dog")))
    reading = read_voc([path], PictureFinder([tmp_path]))
    assert [reading.index.class_names[label] for label in reading.index.labels] == ["cat", "dog"]
    assert reading.rejections.count == 1
    where, what = reading.rejections.first[0]
    assert where == f"{path}, line 5" and message in what
    with pytest.raises(DataError, match=r"a\.xml, line 5: object 2"):
        read_dataset([str(tmp_path)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>&b;</annotation>', "document type"),
        ("<annotation>\n<object></annotation>", "line 2: this is not XML: mismatched tag"),
        ("", "this is not XML: no element found"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "this is not XML"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "this is not XML: multi-byte encodings"),
    ],
)
def test_rejected_files(tmp_path: Path, content: str, message: str) -> None:
    bad = write_text(tmp_path / "b.xml", content)
    write_picture(tmp_path / "a.png")
    good = write_text(tmp_path / "a.xml", xml(xml_object()))
    reading = read_voc([good, bad], PictureFinder([tmp_path]))
    assert len(reading.index) == len(reading.index.boxes) == 1
    assert reading.rejections.count == 1
    assert message in f"{reading.rejections.first[0].where}: {reading.rejections.first[0].what}"


def test_written_files_are_those_that_others_read(tmp_path: Path) -> None:
    index = read_dataset([str(random_index(tmp_path / "in"))])
    write_voc({"train": index.take(range(8)), "val": index.take(range(8, 12))}, tmp_path / "out")
    files = sorted((tmp_path / "out" / "Annotations").iterdir())
    assert len(files) == 12
    seen = set()
    for file in files:
        root = ElementTree.parse(file).getroot()
        picture = tmp_path / "out" / "JPEGImages" / (root.findtext("filename") or "")
        assert picture.is_file()
        assert (root.findtext("size/width"), root.findtext("size/height")) == ("60", "40")
        for entry in root.iter("object"):
            box = [int(entry.findtext(f"bndbox/{corner}") or "") for corner in ("xmin", "ymin", "xmax", "ymax")]
            assert 1 <= box[0] <= box[2] <= 60 and 1 <= box[1] <= box[3] <= 40
            seen.add(entry.findtext("name"))
    assert seen == {"cat", "dog", "hen"}
    val = read_dataset([str(tmp_path / "out")], split="val")
    assert list(objects(val)) == [f"p{number:02d}.png" for number in range(8, 12)]


def test_tiny_boxes_keep_a_pixel(tmp_path: Path) -> None:
    path = random_index(tmp_path / "in")
    index = read_dataset([str(path)])
    index.boxes[:] = [[10.2, 20.3, 10.4, 20.45]]
    write_voc({"train": index}, tmp_path / "out")
    again = read_dataset([str(tmp_path / "out")])
    assert set(map(tuple, again.boxes.tolist())) == {(10, 20, 11, 21)}

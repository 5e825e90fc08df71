from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_folders import coco, random_index, write_coco_file, write_picture, write_text

from ymir_tmi.data.check import CheckReport, Finding, check_dataset
from ymir_tmi.data.read import list_splits

IMAGES = [{"id": number, "file_name": f"{number}.png", "width": 60, "height": 40} for number in (1, 2, 3)]


def box(image: int, *corners: float, category: int = 1, key: int = 1) -> dict[str, Any]:
    x, y, width, height = corners or (5, 5, 10, 10)
    return {"id": key, "image_id": image, "category_id": category, "bbox": [x, y, width, height]}


GOOD = [box(1), box(2), box(2, 20, 10, 8, 8), box(3)]


def check(folder: Path, fast: bool, **parts: Any) -> CheckReport:
    """Check data sets given as COCO content, each in its own folder."""
    splits = {}
    for name, content in parts.items():
        splits[name] = [str(write_coco_file(folder / name, content))]
        for image in content["images"]:
            picture = folder / name / image["file_name"]
            write_picture(picture, seed=sum(map(ord, f"{name}{picture.name}")))
    return check_dataset(splits, fast=fast)


def found(report: CheckReport, severity: str | None = None) -> list[str]:
    return [f"{finding.split}: {finding.what}" for finding in report.findings if severity in (None, finding.severity)]


@pytest.fixture(params=[False, True], ids=["whole", "fast"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_sound_data_set(tmp_path: Path, fast: bool) -> None:
    report = check(
        tmp_path,
        fast,
        train=coco(IMAGES, [*GOOD, box(3, category=2)], ("cat", "dog")),
        val=coco(IMAGES[:2], [box(1), box(1, category=2)], ("cat", "dog")),
    )
    assert report.findings == ()
    assert report.ok
    train, val = report.splits
    assert (train.name, train.images, train.without_objects, train.objects) == ("train", 3, 0, {"cat": 4, "dog": 1})
    assert (val.name, val.images, val.without_objects, val.objects) == ("val", 2, 1, {"cat": 1, "dog": 1})
    lines = [line.split() for line in report.to_text().splitlines()]
    assert lines[0] == ["train", "val"]
    assert ["cat", "4", "1"] in lines and ["without", "objects", "0", "1"] in lines
    assert report.to_text().endswith("0 errors, 0 warnings")
    assert check(tmp_path / "b", fast, train=coco(IMAGES)).to_text().endswith("0 errors, 1 warning")
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.parametrize(
    ("annotations", "severity", "what", "example"),
    [
        ([box(9, key=7)], "error", "1 annotation cannot be understood", "annotation 7: its image 9 is not"),
        ([box(9, key=key) for key in range(8)], "error", "8 annotations cannot be understood", "annotation 4: "),
        ([box(1, 55, 5, 10, 10)], "warning", "1 box reaches out of its picture, by 5", "cat at 55, 5, 65, 15"),
        ([box(1, 70, 5, 10, 10)], "warning", "1 box reaches out of its picture, by 20 pixels", "1.png"),
        ([box(1, 5, 5, 0, 3)], "warning", "1 box has no width or no height", "cat at 5, 5, 5, 8"),
        ([box(2, 20, 10, 8, 8)], "warning", "1 box is there twice", "cat at 20, 10, 28, 18"),
        ([box(2), box(2)], "warning", "2 boxes are there twice", "2.png"),
    ],
)  # fmt: skip
def test_annotations(
    tmp_path: Path, fast: bool, annotations: list[Any], severity: Any, what: str, example: str
) -> None:
    report = check(tmp_path, fast, train=coco(IMAGES, [*GOOD, *annotations]))
    (finding,) = report.findings
    assert (finding.severity, finding.split) == (severity, "train")
    assert what in finding.what
    assert len(finding.examples) <= 5
    assert example in finding.examples[-1]
    assert report.ok == (severity == "warning")
    assert f"{severity}: train: {what}" in report.to_text() and finding.examples[0] in report.to_text()


def test_rounding_is_not_worth_a_word(tmp_path: Path, fast: bool) -> None:
    report = check(tmp_path, fast, train=coco(IMAGES, [*GOOD, box(1, 50, 5, 10.004, 3), box(2, 20.001, 10, 8, 8)]))
    assert report.findings == ()


def test_pictures(tmp_path: Path, fast: bool) -> None:
    path = random_index(tmp_path)
    (tmp_path / "p02.png").unlink()
    (tmp_path / "p04.png").write_text("no picture")
    (tmp_path / "p05.png").write_bytes(b"")
    whole = (tmp_path / "p06.png").read_bytes()
    (tmp_path / "p06.png").write_bytes(whole[: len(whole) // 2])
    write_picture(tmp_path / "p07.png", width=50)
    report = check_dataset({"train": [str(path)]}, fast=fast)
    texts = {finding.what: finding.examples for finding in report.findings}
    missing, unreadable, wrong_size = texts
    assert missing.startswith("1 picture is missing; looked in ") and texts[missing] == ("p02.png",)
    # Half a picture has a sound header.
    assert unreadable == f"{2 if fast else 3} pictures cannot be read"
    assert "p04.png: this is not a picture" in texts[unreadable][0]
    assert "p05.png: this file is empty" in texts[unreadable][1]
    assert wrong_size == "1 picture has another size than is stated"
    assert "the annotation says 60 x 40 pixels, the picture has 50 x 40" in texts[wrong_size][0]
    assert not report.ok


def test_boxes_are_compared_with_the_picture_where_no_size_is_stated(tmp_path: Path, fast: bool) -> None:
    report = check(tmp_path, fast, train=coco([{"id": 1, "file_name": "1.png"}], [box(1, 30, 30, 40, 5)]))
    assert "by 10 pixels" in report.findings[0].what


def test_one_picture_in_two_splits(tmp_path: Path, fast: bool) -> None:
    for name, seed in (("train/a.png", 1), ("train/b.png", 2), ("train/c.png", 2), ("val/d.png", 1), ("val/e.png", 3)):
        write_picture(tmp_path / name, seed=seed, width=300, height=200)
    # As long as `train/a.png` and equal at both ends, but not the same.
    other = bytearray((tmp_path / "train/a.png").read_bytes())
    other[len(other) // 2] ^= 1
    (tmp_path / "val" / "f.png").write_bytes(other)
    report = check_dataset({name: [str(tmp_path / name)] for name in ("train", "val")}, fast=True)
    assert found(report, "error") == ["train, val: 1 picture is in both"]
    assert found(report, "warning") == ["train: 1 picture is there twice"]
    examples = [finding.examples for finding in report.findings]
    assert (f"{tmp_path}/train/a.png and {tmp_path}/val/d.png",) in examples
    assert (f"{tmp_path}/train/b.png and {tmp_path}/train/c.png",) in examples
    (tmp_path / "val" / "f.png").unlink()
    assert (
        check_dataset({name: [str(tmp_path / name)] for name in ("train", "val")}, fast=fast).findings
        == report.findings
    )


def test_classes(tmp_path: Path, fast: bool) -> None:
    report = check(
        tmp_path,
        fast,
        train=coco(IMAGES, [*GOOD, box(1, category=3)], ("cat", "dog", "Polar Bear", "horse")),
        val=coco(IMAGES, [box(1), box(2, category=2), box(3, category=3)], ("cat", "polar_bear", "horses")),
        pool=coco(IMAGES, [], ()),
    )
    assert found(report, "error") == ["train, val: classes 'Polar Bear' and 'polar_bear': is this one class?"]
    warnings = {finding.split: finding for finding in report.findings if finding.severity == "warning"}
    assert {split: (finding.what, finding.examples) for split, finding in warnings.items()} == {
        "": ("2 classes have no objects", ("dog", "horse")),
        "train": (
            "2 classes of other splits have no objects here",
            ("'polar_bear' is in val; is it 'Polar Bear' here?", "'horses' is in val; is it 'horse' here?"),
        ),
        "val": (
            "1 class of other splits has no objects here",
            ("'Polar Bear' is in train; is it 'polar_bear' here?",),
        ),
        "pool": ("no picture has an annotation", ()),
    }


def test_nothing_is_said_of_pictures_alone(tmp_path: Path, fast: bool) -> None:
    write_picture(tmp_path / "images" / "a.png")
    splits = {"pool": [str(tmp_path)]}
    assert check_dataset(splits, fast=fast, class_names=["cat"]).findings == ()
    for empty in ("masks", "labels"):
        (tmp_path / empty).mkdir()
        (finding,) = check_dataset(splits, fast=fast).findings
        assert (finding.severity, finding.what) == ("warning", "no picture has an annotation")
        assert finding.examples == (f"nothing in {tmp_path / empty} belongs to one of them",)
        (tmp_path / empty).rmdir()


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, fast: bool) -> None:
    good = random_index(tmp_path)
    bad = write_text(tmp_path / "bad.json", '{"images": [}')
    report = check_dataset({"train": [str(bad)], "val": [str(good)]}, fast=fast)
    assert [split.name for split in report.splits] == ["val"]
    assert report.findings[0].split == "train" and "line 1, column 13: this is not JSON" in report.findings[0].what


def test_splits_of_a_description(tmp_path: Path, fast: bool) -> None:
    random_index(tmp_path)
    path = write_text(tmp_path / "data.yaml", "train: a.json\nval: a.json\n")
    report = check_dataset(list_splits([str(path)]), fast=fast)
    assert [split.name for split in report.splits] == ["train", "val"]
    assert found(report) == ["train, val: 12 pictures are in both"]


def test_yolo_labels(tmp_path: Path, fast: bool) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.png")
    write_text(tmp_path / "a.txt", "0 0.5 0.5 0.1 0.1\n5 0.5 0.5 0.1 0.1\nx\n")
    report = check_dataset({"data": [str(tmp_path)]}, class_names=["cat"], fast=fast)
    (finding,) = report.findings
    assert finding == Finding("error", "data", "2 annotations cannot be understood", 2, finding.examples)
    assert finding.examples[0].startswith(f"{tmp_path}/a.txt, line 2: the class is not one of 0 to 0")

"""The folder that YMIR hands to a task, where it was written and elsewhere, as a data set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from data_folders import write_picture, write_text

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.formats.reading import Rejections, label_lines
from ymir_tmi.data.formats.voc import read_voc
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.training.datasets import read_training_data

NAMES = ("roter milan", "白鹭", "storch")
PICTURES = {
    "train": "a b/ein Bild – 图.png",
    "val": "c\u2028d/2.png",
}  # the second has what `splitlines` takes for an end


def write_folder(folder: Path, root: str | None = None) -> Path:
    """Write a task of one picture a split, one with and one without objects, as if it lay in `root`."""
    root = str(folder) if root is None else root
    objects = {"train": "1, 10, 5, 19, 9, -1.0, 0.0\n", "val": "2, 0, 0, 3, 3, -1.0, 0.0\n"}
    for split, name in PICTURES.items():
        write_picture(folder / "assets" / name)
        write_text(folder / "annotations" / f"{split} 1.txt", objects[split])
        write_text(folder / f"{split}-index.tsv", f"{root}/assets/{name}\t{root}/annotations/{split} 1.txt\n")
    write_text(folder / "candidate-index.tsv", f"{root}/assets/{PICTURES['val']}\n")
    lists = "".join(f"  {key}: {root}/{name}-index.tsv\n" for key, name in (
        ("training_index_file", "train"), ("val_index_file", "val"), ("candidate_index_file", "candidate")
    ))  # fmt: skip
    write_text(folder / "env.yaml", f"input:\n  root_dir: {root}\n{lists}  config_file: {root}/config.yaml\n")
    write_text(folder / "config.yaml", f"class_names: [{', '.join(NAMES)}]\n")
    return folder


@pytest.mark.parametrize("root", [None, "/in", "/mnt/somewhere/in"])
def test_a_task_is_a_data_set(tmp_path: Path, root: str | None) -> None:
    folder = write_folder(tmp_path / "in", root)
    splits = list_splits([str(folder)])
    assert set(splits) == {"train", "val", "pool"}
    index = read_dataset(splits["train"], split="train")
    assert index.class_names == NAMES and index.paths[0] == str(folder / "assets" / PICTURES["train"])
    assert index.boxes.tolist() == [[10, 5, 20, 10]] and index.labels.tolist() == [1]
    assert index.sizes.tolist() == [[60, 40]]
    pool = read_dataset(splits["pool"], split="pool")
    assert len(pool) == 1 and not len(pool.boxes) and pool.class_names == NAMES


@pytest.mark.parametrize("data", ["in", "in/train-index.tsv", "in/val-index.tsv"])
def test_training_takes_the_folder_or_one_of_its_lists(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "in", "/in")
    monkeypatch.chdir(tmp_path)
    found = read_training_data(TrainSettings(data=Path(data)))
    assert [found.train.labels.tolist(), found.val.labels.tolist()] == [[1], [2]]
    assert found.train.class_names == found.val.class_names == NAMES


def test_a_list_alone_has_nothing_to_validate_on(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    shutil.copy(folder / "train-index.tsv", folder / "mine.tsv")
    (folder / "val-index.tsv").unlink()
    with pytest.raises(DataError, match="no list to val on beside it"):
        read_training_data(TrainSettings(data=folder / "mine.tsv"))


def test_wrong_classes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    write_text(folder / "config.yaml", "class_names: [a, b, a]\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: 'class_names' has 'a' twice"):
        read_dataset([str(folder)], split="train")


def test_names_with_a_backslash_are_names(tmp_path: Path) -> None:
    write_picture(tmp_path / "a\\b.png")
    write_picture(tmp_path / "c" / "d.png")
    finder = PictureFinder([tmp_path])
    assert finder.find("a\\b.png") == str(tmp_path / "a\\b.png")
    assert finder.find("c\\d.png") == str(tmp_path / "c/d.png")
    assert not finder.missing


def test_an_object_without_a_box_does_not_count(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax><rotate_angle>0.0000</rotate_angle></bndbox>"
    objects = "".join(
        f"<object><name>b</name><pose>unknown</pose><truncated>unknown</truncated>{each}</object>" for each in (box, "")
    )
    write_text(tmp_path / "a.xml", f"<annotation><filename>/in/assets/a.png</filename>{objects}</annotation>")
    index = read_dataset([str(write_text(tmp_path / "a.tsv", "a.png\ta.xml\n"))])
    assert index.boxes.tolist() == [[1, 2, 5, 5]]


def test_pictures_are_as_they_are_stored(tmp_path: Path) -> None:
    """The platform knows sizes before EXIF turns a picture, and shows what is found on these."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(np.zeros((20, 60, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    index = read_dataset([str(write_text(tmp_path / "a.tsv", "a.jpg\n"))])
    assert index.size(0) == (60, 20)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    write_text(folder / "candidate-index.tsv", f"{folder}/assets/{PICTURES['val']}\n{folder}/assets/no such.jpg\n")
    with pytest.raises(DataError, match=r"1 of 2 pictures are missing, the first is .*no such\.jpg"):
        read_dataset([str(folder)], split="pool")


def test_an_empty_list(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    write_text(folder / "train-index.tsv", "\n")
    with pytest.raises(DataError, match="there are no pictures"):
        read_dataset([str(folder)], split="train")


def test_an_annotation_that_the_system_refuses_to_read(tmp_path: Path) -> None:
    """As one that belongs to another user; here it is a folder, which root may not read either."""
    finder = PictureFinder([tmp_path])
    for read in (
        lambda: read_voc([tmp_path], finder, ["a.png"]),
        lambda: list(label_lines(str(tmp_path), Rejections())),
    ):
        with pytest.raises(DataError, match=f"{tmp_path}: cannot read this file: Is a directory"):
            read()


@pytest.mark.parametrize("angle", ["", "<rotate_angle>0.0000</rotate_angle>"])
def test_the_first_pixel_of_xml_has_the_number_0(tmp_path: Path, angle: str) -> None:
    """Also where an older platform has written it, which knew no angles."""
    write_picture(tmp_path / "a.png")
    corners = "<xmin>0</xmin><ymin>5</ymin><xmax>19</xmax><ymax>9</ymax>"
    name = "<object><name>stork</name>"
    write_text(tmp_path / "a.xml", f"<annotation>{name}<bndbox>{corners}{angle}</bndbox></object></annotation>")
    write_text(tmp_path / "a.tsv", "a.png\ta.xml\n")
    assert read_dataset([str(tmp_path / "a.tsv")]).boxes.tolist() == [[0, 5, 20, 10]]

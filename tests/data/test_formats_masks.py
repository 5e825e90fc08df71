"""Folders of label pictures: what is found, which classes they have, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from data_folders import write_picture, write_text
from label_maps import blocks, write_coco_beside, write_mask, write_mask_folder

from ymir_tmi.data.check import CheckReport, check_dataset
from ymir_tmi.data.convert import convert
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.patches import cut_data_set
from ymir_tmi.data.read import list_splits, read_dataset
from ymir_tmi.data.semantics import as_semantics, read_label_map
from ymir_tmi.data.split import split_dataset
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.errors import DataError

SIZE = (60, 40)
NAMES = ("sky", "road", "car")
MAPS = {f"p{seed}": blocks(seed, 3, ignored=True) for seed in range(4)}


def label_maps(index: DatasetIndex) -> dict[str, np.ndarray]:
    """The label map of each picture by its stem."""
    semantic = as_semantics(index)
    return {Path(index.paths[row]).stem: read_label_map(semantic, row, SIZE) for row in range(len(index))}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for stem, labels in expected.items():
        np.testing.assert_array_equal(found[stem], labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_mask_folder(tmp_path / "data", MAPS, NAMES)


def test_everything_that_names_the_pictures(folder: Path) -> None:
    """The folder, its pictures, a glob, lists of names and of stems, and a description."""
    write_text(folder / "names.txt", "\n".join(f"{stem}.png" for stem in MAPS))
    write_text(folder / "stems.txt", "\n".join(MAPS))
    sources = [folder, folder / "images", folder / "images" / "*.png", folder / "names.txt", folder / "stems.txt"]
    for source in sources:
        index = read_dataset([str(source)])
        assert index.class_names == NAMES and index.sizes.tolist() == [[60, 40]] * 4
        assert_same(label_maps(index), MAPS)
    write_text(folder / "data.yaml", "train: images\nval: stems.txt\n")
    for split in ("train", "val"):
        assert_same(label_maps(read_dataset([str(folder / "data.yaml")], split=split)), MAPS)
    assert read_dataset([str(folder / "images")], format="images").label_maps is None


def test_classes_of_a_description(tmp_path: Path) -> None:
    folder = write_mask_folder(tmp_path, MAPS, None)
    description = write_text(folder / "data.yaml", "train: images\nnames: [a, b, c]\nformat: masks\n")
    assert read_dataset([str(description)], split="train").class_names == ("a", "b", "c")


def test_classes_without_names(tmp_path: Path) -> None:
    index = read_dataset([str(write_mask_folder(tmp_path, MAPS, None))])
    assert index.class_names == ("0", "1", "2")
    assert_same(label_maps(index), MAPS)


def test_folders_of_splits(tmp_path: Path) -> None:
    for split, stem in (("train", "p0"), ("val", "p1")):
        write_picture(tmp_path / "img_dir" / split / f"{stem}.png")
        write_mask(tmp_path / "ann_dir" / split / f"{stem}.png", MAPS[stem])
    write_text(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    index = read_dataset([str(tmp_path / "img_dir" / "val")])
    assert index.class_names == NAMES
    assert_same(label_maps(index), {"p1": MAPS["p1"]})
    assert len(read_dataset([str(tmp_path)])) == 2


def test_palettes_and_few_bits_are_numbers(tmp_path: Path) -> None:
    values = blocks(0, 2)
    folder = write_mask_folder(tmp_path, {"palette": values, "bits": values, "grey": values}, ("a", "b"))
    indexed = PIL.Image.fromarray(values)
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    indexed.save(folder / "masks" / "palette.png")
    PIL.Image.fromarray(values.astype(bool)).save(folder / "masks" / "bits.png")
    PIL.Image.fromarray(np.stack([values] * 3, axis=2)).save(folder / "masks" / "grey.png")
    assert_same(label_maps(read_dataset([str(folder)])), dict.fromkeys(("palette", "bits", "grey"), values))


# What can be wrong with one label picture: what is written in its place, and what is said of it.
COLOURS = np.random.default_rng(0).integers(0, 3, (40, 60, 3)).astype(np.uint8)
FAULTS = [
    (lambda path: path.unlink(), "has no label picture in 'masks'"),
    (lambda path: write_mask(path, blocks(0, 4)), "no class has the value 3, which this label picture has. Values are"),
    (lambda path: write_mask(path, blocks(0, 3, width=50)), "p2.png has 50 x 40 pixels, its picture has 60 x 40"),
    (lambda path: PIL.Image.fromarray(blocks(0, 3).astype(np.uint16)).save(path), "its pixels have 16 bits"),
    (lambda path: PIL.Image.fromarray(COLOURS).save(path), "this picture has colours"),
    (lambda path: path.write_bytes(path.read_bytes()[:60]), "cut short"),
    (lambda path: write_text(path, ""), "empty"),
    (lambda path: write_text(path, "a mask, honestly"), "must be a PNG"),
]


@pytest.mark.parametrize(("spoil", "problem"), FAULTS, ids=[problem for _, problem in FAULTS])
def test_check_finds(folder: Path, spoil, problem: str) -> None:
    assert check(folder).findings == ()
    spoil(folder / "masks" / "p2.png")
    report = check(folder)
    assert not report.ok
    examples = [example for finding in report.findings for example in finding.examples]
    assert any(problem in example and "p2.png" in example for example in examples)


def check(folder: Path) -> CheckReport:
    return check_dataset(list_splits([str(folder)]))


def test_check_counts_classes_of_pictures(folder: Path) -> None:
    write_text(folder / "classes.txt", "\n".join([*NAMES, "boat"]))
    write_mask(folder / "masks" / "p0.png", np.full((40, 60), 255, np.uint8))
    write_mask(folder / "masks" / "p1.png", np.full((40, 60), 1, np.uint8))
    report = check(folder)
    assert report.splits[0].objects == {"sky": 2, "road": 3, "car": 2, "boat": 0}
    assert report.splits[0].without_objects == 1
    assert [(finding.what, finding.examples) for finding in report.findings] == [("1 class has no objects", ("boat",))]


def test_a_missing_label_picture_stops_reading(folder: Path) -> None:
    (folder / "masks" / "p2.png").unlink()
    with pytest.raises(DataError, match=r"p2\.png: it has no label picture in 'masks'"):
        read_dataset([str(folder)])


def test_cityscapes(tmp_path: Path) -> None:
    """Ids become the 19 classes that are trained; train ids are these already."""
    ids, trained = np.zeros((40, 60), np.uint8), np.full((40, 60), 255, np.uint8)
    # From the table of the data set's own page: id, train id, name.
    samples = [(7, 0, "road"), (11, 2, "building"), (19, 6, "traffic light"), (26, 13, "car"), (33, 18, "bicycle")]
    for row, (key, train, _) in enumerate(samples):
        ids[row], trained[row] = key, train
    ids[20], ids[21] = 29, 6  # caravan and ground are not trained
    for split, kind, values in (("train", "labelIds", ids), ("val", "labelTrainIds", trained)):
        write_picture(tmp_path / "leftImg8bit" / split / "bonn" / "bonn_1_leftImg8bit.png")
        write_mask(tmp_path / "gtFine" / split / "bonn" / f"bonn_1_gtFine_{kind}.png", values)
    sources = list_splits([str(tmp_path)])
    assert list(sources) == ["train", "val"]
    for split, names in sources.items():
        index = read_dataset(names, split=split)
        assert len(index) == 1 and len(index.class_names) == 19
        assert all(index.class_names[train] == name for _, train, name in samples)
        assert_same(label_maps(index), {"bonn_1_leftImg8bit": trained})
        again = read_dataset([str(tmp_path / "leftImg8bit" / split)])
        assert_same(label_maps(again), {"bonn_1_leftImg8bit": trained})


def test_convert_to_masks_and_back(folder: Path, tmp_path: Path) -> None:
    """Masks -> COCO -> masks keeps every pixel; those that do not count have no annotation."""
    numbers = [convert([str(folder)], to=to, output=tmp_path / to).splits for to in ("coco", "masks")]
    assert numbers == [{"data": (4, sum(len(set(labels.flat) - {255}) for labels in MAPS.values()))}] * 2
    as_coco = read_dataset([str(tmp_path / "coco" / "data.json")])
    assert as_coco.label_maps is None and as_coco.class_names == NAMES
    assert_same(label_maps(as_coco), MAPS)
    convert([str(tmp_path / "coco" / "data.yaml")], to="masks", output=tmp_path / "back", blank="ignore")
    back = read_dataset([str(tmp_path / "back" / "data.yaml")], split="data")
    assert back.class_names == NAMES
    assert_same(label_maps(back), MAPS)
    convert([str(tmp_path / "coco" / "data.yaml")], to="masks", output=tmp_path / "filled", copy=True)
    filled = read_dataset([str(tmp_path / "filled" / "data.yaml")])
    assert filled.class_names == (*NAMES, "background")
    assert_same(label_maps(filled), {stem: np.where(labels == 255, 3, labels) for stem, labels in MAPS.items()})
    written = PIL.Image.open(tmp_path / "filled" / "masks" / "data" / "p0.png")
    np.testing.assert_array_equal(np.array(written), np.where(MAPS["p0"] == 255, 3, MAPS["p0"]))
    np.testing.assert_array_equal(np.array(written.convert("RGB")), class_colours(256)[np.array(written)])


@pytest.mark.parametrize("to", ["voc", "yolo", "dota"])
def test_formats_of_boxes_have_no_place_for_pixels(folder: Path, tmp_path: Path, to) -> None:
    with pytest.raises(DataError, match=f"{to} has no place"):
        convert([str(folder)], to=to, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_label_pictures_are_not_cut_into_patches(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be cut"):
        cut_data_set({"a": read_dataset([str(folder)])}, [Tiling(32, 0)], output=tmp_path / "out")


def test_split_shares_classes(tmp_path: Path) -> None:
    """Every other picture has the rare class; half of these are in each part."""
    maps = {f"p{number:02d}": np.full((40, 60), number % 2, np.uint8) for number in range(16)}
    index = read_dataset([str(write_mask_folder(tmp_path, maps, ("a", "b")))])
    parts = split_dataset(index, {"x": 0.5, "y": 0.5}, seed=3)
    for part in parts.values():
        assert sorted(int(labels[0, 0]) for labels in label_maps(part).values()) == [0] * 4 + [1] * 4


def test_masks_of_a_turned_picture(tmp_path: Path) -> None:
    """A label picture of the stored, unturned picture stays as it is, and so does the picture."""
    folder = write_mask_folder(tmp_path, {"a": MAPS["p0"]}, NAMES)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.open(folder / "images" / "a.png").save(folder / "images" / "a.png", exif=exif)
    index = read_dataset([str(folder)])
    assert index.size(0) == SIZE
    assert check(folder).findings == ()


def test_the_same_as_coco_files(folder: Path) -> None:
    """Summaries of both forms of a data set are the same."""
    pictured = check(folder).splits[0]
    annotated = check_dataset({"data": [str(write_coco_beside(folder, MAPS, NAMES))]}).splits[0]
    assert pictured == annotated

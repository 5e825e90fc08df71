"""The class of every pixel, against the arrays that the files were made from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import coco, write_coco_file, write_text
from label_maps import blocks, run_lengths, write_coco_beside, write_mask, write_mask_folder

from ymir_tmi.data.classes import ClassSelection, align_classes
from ymir_tmi.data.index import DIFFICULT, DatasetIndex, Strings, concatenate
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.semantics import (
    as_annotations,
    as_semantics,
    count_labels,
    counts_anything,
    read_label_map,
    semantic_splits,
)
from ymir_tmi.errors import DataError, ImageError

SIZE = (60, 40)
NAMES = ("sky", "road", "car")
MAPS = {f"p{seed}": blocks(seed, 3, ignored=True) for seed in range(4)}


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def annotated(folder: Path, annotations: list[dict[str, Any]], names: tuple[str, ...] = NAMES) -> DatasetIndex:
    """An index of one picture of 60 x 40 pixels."""
    complete = [
        {"id": number, "image_id": 1, "bbox": [1, 1, 9, 9], **annotation}
        for number, annotation in enumerate(annotations)
    ]
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    return read_dataset([str(write_coco_file(folder, coco([image], complete, names)))])


def test_masks_and_run_lengths_give_the_same_label_maps(tmp_path: Path) -> None:
    folder = write_mask_folder(tmp_path, MAPS, NAMES)
    pictured = as_semantics(read_dataset([str(folder)]))
    merged = as_semantics(read_dataset([str(write_coco_beside(folder, MAPS, NAMES))]))
    assert pictured.class_names == merged.class_names == NAMES
    for row, labels in enumerate(MAPS.values()):
        for index in (pictured, merged):
            found = read_label_map(index, row, SIZE)
            assert found.dtype == np.uint8 and found.flags.c_contiguous
            np.testing.assert_array_equal(found, labels)


def test_later_annotations_lie_on_top(tmp_path: Path) -> None:
    index = annotated(
        tmp_path,
        [
            {"category_id": 2, "segmentation": rectangle(0, 0, 30, 40)},
            {"category_id": 3, "segmentation": rectangle(10, 10, 20, 20), "iscrowd": 1},
            {"category_id": 1, "segmentation": rectangle(15, 5, 40, 15)},
        ],
    )
    expected = np.full((40, 60), 255, np.uint8)
    expected[:, :30] = 1
    expected[10:20, 10:20] = 2
    expected[5:15, 15:40] = 0
    np.testing.assert_array_equal(read_label_map(as_semantics(index), 0, SIZE), expected)


def test_what_is_uncertain_does_not_count(tmp_path: Path) -> None:
    """A difficult object hides what is below it; a box without a mask only what nothing else covers."""
    index = annotated(
        tmp_path,
        [
            {"category_id": 1, "segmentation": rectangle(0, 0, 20, 40)},
            {"category_id": 2, "bbox": [15, 10, 10, 5], "segmentation": {}},
            {"category_id": 2, "segmentation": rectangle(5, 5, 8, 8), "ignore": 1},
            {"category_id": 2, "segmentation": [[1, 1, 30, 30]]},
        ],
        ("sky", "road", "background"),
    )
    assert index.flags.tolist() == [0, 0, DIFFICULT, 0]
    expected = np.full((40, 60), 2, np.uint8)
    expected[:, :20] = 0
    expected[10:15, 20:25] = 255
    expected[5:8, 5:8] = 255
    np.testing.assert_array_equal(read_label_map(as_semantics(index), 0, SIZE), expected)


def test_blank_pixels(tmp_path: Path) -> None:
    part = [{"category_id": 2, "segmentation": rectangle(0, 0, 30, 40)}]
    whole = [*part, {"category_id": 1, "segmentation": rectangle(30, 0, 60, 40)}]
    open_, closed = annotated(tmp_path / "a", part), annotated(tmp_path / "b", whole)

    splits = semantic_splits({"train": closed, "val": open_})
    assert {index.class_names for index in splits.values()} == {(*NAMES, "background")}
    assert len(set(splits["val"].category_ids)) == 4
    assert np.unique(read_label_map(splits["val"], 0, SIZE)[:, 30:]).tolist() == [3]
    assert np.unique(read_label_map(splits["train"], 0, SIZE)).tolist() == [0, 1]
    # An evaluation finds the class among those of the model.
    evaluated = as_semantics(align_classes(open_, splits["train"].class_names))
    np.testing.assert_array_equal(read_label_map(evaluated, 0, SIZE), read_label_map(splits["val"], 0, SIZE))

    splits = semantic_splits({"train": closed})
    assert splits["train"].class_names == NAMES
    splits = semantic_splits({"train": closed, "val": open_}, blank="ignore")
    assert splits["val"].class_names == NAMES
    assert np.unique(read_label_map(splits["val"], 0, SIZE)).tolist() == [1, 255]

    named = annotated(tmp_path / "c", part, ("background", "road"))
    assert np.unique(read_label_map(as_semantics(named), 0, SIZE)).tolist() == [0, 1]
    assert np.unique(read_label_map(as_semantics(named, blank="ignore"), 0, SIZE)).tolist() == [1, 255]


def test_blank_pixels_beside_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    """Training goes on without such a picture, and so does the look for blank pixels."""
    index = annotated(tmp_path, [{"category_id": 1, "segmentation": rectangle(0, 0, 30, 40)}])
    broken = dataclasses.replace(index, segments=Strings.pack(["[[1]]"]))
    assert semantic_splits({"a": broken})["a"].class_names == NAMES
    assert semantic_splits({"a": concatenate([broken, index])})["a"].class_names == (*NAMES, "background")


def test_blank_pixels_of_label_pictures_stay_as_they_are(tmp_path: Path) -> None:
    index = read_dataset([str(write_mask_folder(tmp_path, MAPS, ("background", "road", "car")))])
    assert semantic_splits({"a": index})["a"].class_names == ("background", "road", "car")
    np.testing.assert_array_equal(read_label_map(as_semantics(index), 0, SIZE), MAPS["p0"])


def test_chosen_and_merged_classes(tmp_path: Path) -> None:
    """Label pictures and annotations of every pixel agree, whatever is chosen."""
    folder = write_mask_folder(tmp_path, MAPS, NAMES)
    sources = [str(folder), str(write_coco_beside(folder, MAPS, NAMES))]
    for chosen, new in [
        (["car", "sky"], [1, 255, 0]),
        (["car=thing", "sky=stuff", "road=stuff"], [1, 1, 0]),
        (["road=thing", "sky"], [1, 0, 255]),
    ]:
        expected = np.array([*new, *[255] * 253], np.uint8)[MAPS["p2"]]
        for source in sources:
            index = as_semantics(ClassSelection.parse(chosen).apply(read_dataset([source])), blank="ignore")
            np.testing.assert_array_equal(read_label_map(index, 2, SIZE), expected)


def test_classes_in_another_order(tmp_path: Path) -> None:
    index = read_dataset([str(write_mask_folder(tmp_path, MAPS, NAMES))], class_names=["dog", "car", "road", "sky"])
    expected = np.array([3, 2, 1, *[255] * 253], np.uint8)[MAPS["p1"]]
    np.testing.assert_array_equal(read_label_map(as_semantics(index), 1, SIZE), expected)
    with pytest.raises(DataError, match="label pictures have the class 'road', which is not one of sky, car"):
        align_classes(index, ["sky", "car"])


def test_many_classes_of_boxes_are_no_matter(tmp_path: Path) -> None:
    names = tuple(f"c{number}" for number in range(300))
    index = annotated(tmp_path, [{"category_id": 300, "segmentation": rectangle(0, 0, 9, 9)}], names)
    assert ClassSelection.parse(["c299", "c0"]).apply(index).labels.tolist() == [0]
    with pytest.raises(DataError, match="300 classes are too many"):
        as_semantics(index)


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not say which class a pixel has"):
        as_semantics(annotated(tmp_path, [{"category_id": 1}]))


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ({"size": [40, 61], "counts": [0, 2440]}, "it is 61 x 40 pixels, the picture 60 x 40"),
        ({"size": [40, 60], "counts": [0, 2399]}, "do not add up"),
        ({"size": [40, 60], "counts": [-1, 2401]}, "do not add up"),
        ({"size": [40, 60], "counts": "zzz"}, r"not \{size: \[height, width\], counts: run lengths\}"),
        ({"size": [40, 60], "counts": 3}, r"not \{size: \[height, width\], counts: run lengths\}"),
        ([[1, 1, 5]], "an x without a y"),
        ([[1, 1, "a", 5, 5, 5]], "not a list of finite numbers"),
        ([[1, 1, 1e12, 5, 5, 5]], "not a list of numbers"),
        ([[1, 1, float("nan"), 5, 5, 5]], "not a list of finite numbers"),
        ([5, 5, 8, 8], "not a list of finite numbers"),
        ("abc", "neither a list of polygons nor"),
        (7, "neither a list of polygons nor"),
    ],
)
def test_segmentations_that_are_not_sound(tmp_path: Path, segmentation: Any, problem: str) -> None:
    index = annotated(tmp_path, [{"category_id": 1, "segmentation": rectangle(0, 0, 9, 9)}])
    index = dataclasses.replace(index, segments=Strings.pack([json.dumps(segmentation)]))
    with pytest.raises(ImageError, match=problem):
        read_label_map(as_semantics(index), 0, SIZE)


def test_compressed_and_plain_run_lengths_are_the_same(tmp_path: Path) -> None:
    mask = MAPS["p0"] == 1
    plain = annotated(tmp_path, [{"category_id": 2, "segmentation": run_lengths(mask)}])
    written = write_mask_folder(tmp_path / "m", {"a": np.where(mask, 1, 255).astype(np.uint8)}, NAMES)
    compressed = as_annotations(read_dataset([str(written)]))
    assert compressed.segments is not None and '"counts":"' in compressed.segments[0]
    for index in (plain, compressed):
        labels = read_label_map(as_semantics(index), 0, SIZE)
        np.testing.assert_array_equal(labels, np.where(mask, 1, 255))


def test_annotations_from_label_pictures(tmp_path: Path) -> None:
    """One annotation for each class and picture, with its box and area."""
    folder = write_mask_folder(tmp_path, MAPS, NAMES)
    made = as_annotations(read_dataset([str(folder)]))
    given = read_dataset([str(write_coco_beside(folder, MAPS, NAMES))])
    assert made.label_maps is None
    assert made.starts.tolist() == given.starts.tolist() and made.labels.tolist() == given.labels.tolist()
    np.testing.assert_array_equal(made.boxes, given.boxes)
    pixels = [int((labels == label).sum()) for labels in MAPS.values() for label in range(3)]
    assert made.areas.tolist() == pixels


def test_counted_pixels(tmp_path: Path) -> None:
    index = as_semantics(read_dataset([str(write_mask_folder(tmp_path, MAPS, NAMES))]))
    write_mask(tmp_path / "masks" / "p1.png", blocks(0, 3, width=50))
    write_mask(tmp_path / "masks" / "p2.png", blocks(0, 4))
    told: list[int] = []
    counted = count_labels(index, advance=told.append)
    assert sum(told) == 4
    for row in (0, 3):
        assert counted.pixels[row].tolist() == [int((MAPS[f"p{row}"] == label).sum()) for label in range(3)]
    assert counted.pixels[1:3].sum() == 0 and sorted(counted.problems) == [1, 2]
    assert "50 x 40 pixels, its picture has 60 x 40" in counted.problems[1]
    assert "no class has the value 3" in counted.problems[2]


def test_whether_anything_counts(tmp_path: Path) -> None:
    nothing = np.full((40, 60), 255, np.uint8)
    assert not counts_anything(as_semantics(read_dataset([str(write_mask_folder(tmp_path, {"a": nothing}, NAMES))])))
    nothing[39, 59] = 2
    assert counts_anything(as_semantics(read_dataset([str(write_mask_folder(tmp_path, {"b": nothing}, NAMES))])))


def test_index_with_label_pictures(tmp_path: Path) -> None:
    first = read_dataset([str(write_mask_folder(tmp_path / "a", MAPS, NAMES))])
    second = read_dataset([str(write_mask_folder(tmp_path / "b", {"q": blocks(9, 3)}, NAMES))])
    both = concatenate([first, second])
    for row, labels in enumerate([*MAPS.values(), blocks(9, 3)]):
        np.testing.assert_array_equal(read_label_map(both, row, SIZE), labels)
    np.testing.assert_array_equal(read_label_map(both.take([4, 1]), 1, SIZE), MAPS["p1"])
    assert second.label_of_value is not None
    other = dataclasses.replace(second, label_of_value=second.label_of_value[::-1].copy())
    with pytest.raises(DataError, match="stands for different classes"):
        concatenate([first, other])


def test_label_pictures_and_annotations_together(tmp_path: Path) -> None:
    pictured = write_mask_folder(tmp_path / "a", {"a": MAPS["p0"]}, NAMES)
    merged = write_mask_folder(tmp_path / "b", {"b": MAPS["p1"]}, NAMES)
    index = read_dataset([str(pictured), str(write_coco_beside(merged, {"b": MAPS["p1"]}, NAMES))])
    splits = semantic_splits({"all": index})
    assert splits["all"].class_names == (*NAMES, "background")
    np.testing.assert_array_equal(read_label_map(splits["all"], 0, SIZE), MAPS["p0"])
    np.testing.assert_array_equal(read_label_map(splits["all"], 1, SIZE), np.where(MAPS["p1"] == 255, 3, MAPS["p1"]))


def test_objects_are_not_counted_where_there_are_none(tmp_path: Path) -> None:
    index = read_dataset([str(write_mask_folder(tmp_path / "a", MAPS, NAMES))])
    assert index.describe() == {"images": 4, "fingerprint": index.fingerprint()}
    annotations = as_annotations(index)
    assert annotations.describe()["objects"] == len(annotations.boxes) > 0


def test_fingerprint(tmp_path: Path) -> None:
    index = read_dataset([str(write_mask_folder(tmp_path / "a", MAPS, NAMES))])
    same = read_dataset([str(write_mask_folder(tmp_path / "b", MAPS, NAMES))]).fingerprint()
    assert index.fingerprint() == same
    assert index.label_of_value is not None
    swapped = index.label_of_value.copy()
    swapped[:2] = 1, 0
    assert dataclasses.replace(index, label_of_value=swapped).fingerprint() != same
    assert dataclasses.replace(index, blank=0).fingerprint() != same
    write_mask(tmp_path / "a" / "masks" / "p0.png", np.zeros((40, 60), np.uint8))
    assert index.fingerprint() != same
    write_text(tmp_path / "a" / "masks" / "p0.png", "")
    assert index.fingerprint() != same

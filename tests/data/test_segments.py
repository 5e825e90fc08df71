"""COCO's segmentations as outlines, and what an index needs for masks to be learnt."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import HEIGHT, WIDTH, coco, write_coco_file
from faster_coco_eval import mask as coco_mask

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.instances import as_instances, lacks_mask
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.rotated import as_rotated
from ymir_tmi.data.segments import image_outlines, read_segments, segment_problem
from ymir_tmi.errors import DataError

SIZE = np.array([WIDTH, HEIGHT], np.int32)
SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
HOLLOW = np.zeros((HEIGHT, WIDTH), np.uint8)
HOLLOW[5:15, 30:50] = 1
HOLLOW[8:12, 35:45] = 0


def compressed(bitmap: np.ndarray) -> dict[str, Any]:
    entry = coco_mask.encode(np.asfortranarray(bitmap))
    return {"size": list(bitmap.shape), "counts": entry["counts"].decode()}


def listed(bitmap: np.ndarray) -> dict[str, Any]:
    flat = bitmap.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(bitmap.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def data_set(folder: Path, *segmentations: Any, **image: Any) -> DatasetIndex:
    """One picture with an object in the box 10, 10, 20, 20 for each segmentation."""
    entry = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT} | image
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [10, 10, 10, 10], "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations)
    ]
    return read_dataset([str(write_coco_file(folder, coco([entry], annotations)))])


def test_every_kind_of_segmentation_in_one_picture(tmp_path: Path) -> None:
    ones = np.ones((HEIGHT, WIDTH), np.uint8)
    index = data_set(tmp_path, compressed(HOLLOW), SQUARE, listed(HOLLOW), {}, listed(ones), compressed(1 - HOLLOW), [])
    outlines = image_outlines(index, 0)
    bitmaps = [outlines.take([row]).bitmap(WIDTH, HEIGHT) for row in range(7)]
    square = np.zeros_like(HOLLOW)
    square[10:20, 10:20] = 1
    for bitmap, expected in zip(bitmaps, [HOLLOW, square, HOLLOW, 0 * ones, ones, 1 - HOLLOW, 0 * ones], strict=True):
        np.testing.assert_array_equal(bitmap, expected)
    assert outlines.areas().tolist() == [160, 100, 160, 0, 2400, 2240, 0]


def test_empty_masks_of_a_whole_data_set_are_those_without_an_outline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT - 10 * (i % 2)} for i in range(6)]
    annotations = []
    for number in range(40):
        image = int(rng.integers(6))
        bitmap = (rng.random((images[image]["height"], WIDTH)) < rng.choice([0, 0.001, 0.2])).astype(np.uint8)
        annotations.append({"id": number, "image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9]})
        square = SQUARE if rng.random() < 0.5 else [[1, 1, 5, 1, 9, 1]]
        annotations[-1]["segmentation"] = [square, compressed(bitmap), listed(bitmap), []][number % 4]
    index = read_dataset([str(write_coco_file(tmp_path, coco(images, annotations)))])
    monkeypatch.setattr("ymir_tmi.data.segments._AT_ONCE", 7)
    empty = np.concatenate([image_outlines(index, image).areas() == 0 for image in range(6)])
    assert lacks_mask(index).tolist() == empty.tolist()
    assert 10 < empty.sum() < 30


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        pytest.param([[1, 2, 3, 4, 5, 6, 7]], "a polygon has an x without a y", id="odd"),
        pytest.param([[1, 2, 3, 4, "a", 6]], "a polygon is not a list of finite numbers", id="text"),
        pytest.param([[[1, 2], [3, 4]]], "a polygon is not a list of finite numbers", id="pairs"),
        pytest.param([1, 2, 3, 4, 5, 6], "a polygon is not a list of finite numbers", id="one list"),
        pytest.param([[1, 2, 3, 4, float("nan"), 6]], "a polygon is not a list of finite numbers", id="not a number"),
        pytest.param({"counts": "abc"}, "this is not {size", id="no size"),
        pytest.param({"size": [HEIGHT, WIDTH]}, "this is not {size", id="no counts"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": [1.5, 2]}, "this is not {size", id="fractions"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "do not add up", id="too few"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": [2500, -100]}, "do not add up", id="negative"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": "~~"}, "this is not {size", id="no run lengths"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": "o"}, "this is not {size", id="cut short"),
        pytest.param(listed(HOLLOW.T), f"it is {HEIGHT} x {WIDTH} pixels, the picture {WIDTH} x {HEIGHT}", id="turned"),
    ],
)
def test_what_is_wrong_with_a_segmentation_is_said_where_it_is(tmp_path: Path, segmentation: Any, problem: str) -> None:
    assert problem in (segment_problem(json.dumps(segmentation), SIZE) or "")
    index = data_set(tmp_path, SQUARE, segmentation)
    with pytest.raises(DataError) as caught:
        as_instances(index)
    assert problem in str(caught.value) and "a.png: the mask of the cat at 10, 10, 20, 20" in str(caught.value)


def test_sizes_that_are_not_known_are_not_compared() -> None:
    unknown = np.zeros((1, 2), np.int32)
    assert read_segments([json.dumps(listed(HOLLOW))], unknown).areas().tolist() == [160]


def test_objects_without_a_mask_have_their_box_and_a_warning_says_so(tmp_path: Path) -> None:
    empty = listed(np.zeros_like(HOLLOW))
    index = data_set(tmp_path, SQUARE, {}, [[1, 2, 3, 4]], empty, None)
    with pytest.warns(UserWarning, match="4 of 5 objects have no mask; their boxes are taken for it"):
        index = as_instances(index)
    assert image_outlines(index, 0).hulls().tolist() == [[10, 10, 20, 20]] * 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = as_instances(index)
    assert again.segments is not None and index.segments is not None
    assert [again.segments[row] for row in range(5)] == [index.segments[row] for row in range(5)]


def test_boxes_alone_are_nothing_to_learn_masks_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="boxes, but no masks"):
        as_instances(data_set(tmp_path, None))
    assert not len(as_instances(data_set(tmp_path / "empty")).boxes)


def test_rotated_boxes_are_outlines(tmp_path: Path) -> None:
    rhombus = [[20, 10, 30, 20, 20, 30, 10, 20]]
    index = as_instances(as_rotated(data_set(tmp_path, rhombus)))
    assert index.rotated is None
    outlines = image_outlines(index, 0)
    assert outlines.areas() == pytest.approx([200], abs=0.01)
    np.testing.assert_allclose(outlines.hulls(), [[10, 10, 30, 30]], atol=1e-3)

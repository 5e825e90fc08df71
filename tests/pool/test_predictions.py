"""What was found survives the way into a file and back, to the last digit."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fakes import index_of
from pycocotools import mask as coco_mask

from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Row
from ymir_tmi.pool.predictions import category_ids_for, read_predictions, write_predictions
from ymir_tmi.pool.recorder import DetectionRecorder, detections_of

NAMES = ("cat", "dog", "Großfuß")
CATEGORIES = list(zip((7, 3, 90), NAMES, strict=True))


def record(found: Detections, size: tuple[int, int] = (640, 480), min_score: float = 0.0) -> Row:
    frame = plan_frame(*size, InputSpec())
    result = ImageResult(0, "0.jpg", size, frame, 0, found)
    row: Row = json.loads(json.dumps(DetectionRecorder(min_score).consume([result])[0]))
    return row


def random_detections(rng: np.random.Generator, count: int) -> Detections:
    """Boxes with corners of any magnitude."""
    corners = rng.random((count, 4)) * 10.0 ** rng.uniform(-6, 4, (count, 4))
    corners[:, 2:] += corners[:, :2]
    scores = np.sort(rng.random(count).astype(np.float32))[::-1].copy()
    return Detections(corners.astype(np.float32), scores, rng.integers(0, 3, count), rng.random((count, 3)))


def inside_picture(rng: np.random.Generator, count: int) -> Detections:
    found = random_detections(rng, count)
    boxes = rng.uniform(0, 200, (count, 4)) + np.array([0, 0, 200, 200])
    return dataclasses.replace(found, boxes=boxes.astype(np.float32))


def write(path: Path, rows: list[Row], **columns: Any) -> None:
    index = dataclasses.replace(index_of([f"/pool/{number}.jpg" for number in range(len(rows))]), **columns)
    write_predictions(path, index, CATEGORIES, lambda: rows, description="found by a test")


def test_a_row_gives_back_what_was_found() -> None:
    found = random_detections(np.random.default_rng(0), 50)
    again = detections_of(record(found), 3)
    for name in ("boxes", "scores", "labels"):
        column, expected = getattr(again, name), getattr(found, name)
        assert np.array_equal(column, expected) and column.dtype == expected.dtype
    assert np.array_equal(again.class_scores.argmax(1), found.labels)
    assert np.array_equal(again.class_scores.sum(1), found.scores)


def test_a_row_holds_what_scores_above_the_threshold() -> None:
    found = random_detections(np.random.default_rng(0), 50)
    threshold = float(found.scores[20])
    assert len(record(found, min_score=threshold)["scores"]) == 20
    assert DetectionRecorder(threshold).needs.min_score == threshold


def test_a_file_gives_back_the_same_float32_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [random_detections(rng, int(count)) for count in rng.integers(0, 30, 40)]
    write(tmp_path / "predictions.json", [record(one) for one in found])
    read = read_predictions(tmp_path / "predictions.json")
    assert (read.category_ids, read.class_names) == ((3, 7, 90), ("dog", "cat", "Großfuß"))
    label_in_file = np.array([1, 0, 2])  # labels follow the ids
    for one, image in zip(found, read.images, strict=True):
        assert np.array_equal(image.detections.boxes, one.boxes)
        assert np.array_equal(image.detections.scores, one.scores)
        assert np.array_equal(image.detections.labels, label_in_file[one.labels])


def random_rotated(rng: np.random.Generator, count: int) -> Detections:
    found = random_detections(rng, count)
    angles = rng.uniform(-math.pi / 2, math.pi / 2, (count, 1))
    boxes = np.hstack([rng.uniform(-50, 9000, (count, 2)), rng.uniform(0.5, 300, (count, 2)), angles])
    return dataclasses.replace(found, boxes=boxes.astype(np.float32))


def test_rotated_boxes_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = [random_rotated(rng, count) for count in (3, 0, 20)]
    file = tmp_path / "predictions.json"
    write(file, [record(one) for one in found])
    read = read_predictions(file)
    for one, image in zip(found, read.images, strict=True):
        assert image.detections.is_rotated == (len(one) > 0)
        assert image.detections.boxes.tolist() == one.boxes.tolist()
        assert np.array_equal(image.detections.scores, one.scores)


def test_other_programs_can_read_rotated_boxes(tmp_path: Path) -> None:
    """Both the upright hull and the polygon are those of the rectangle by its definition."""
    found = random_rotated(np.random.default_rng(3), 10)
    file = tmp_path / "predictions.json"
    write(file, [record(found)])
    for annotation, box in zip(json.loads(file.read_text())["annotations"], found.boxes.tolist(), strict=True):
        cx, cy, w, h, angle = box
        u = np.array([math.cos(angle), math.sin(angle)]) * w / 2
        v = np.array([-math.sin(angle), math.cos(angle)]) * h / 2
        points = [[cx, cy] + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
        (polygon,) = annotation["segmentation"]
        apart = np.linalg.norm(np.reshape(polygon, (4, 1, 2)) - points, axis=2)
        assert apart.min(0).max() < 2e-3 and apart.min(1).max() < 2e-3
        x, y = np.transpose(points)
        np.testing.assert_allclose(annotation["bbox"], [x.min(), y.min(), np.ptp(x), np.ptp(y)], atol=2e-3)
        assert annotation["area"] == pytest.approx(w * h)
        assert annotation["rotated_box"] == box


def rotated_result(**changed: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5, **changed}


POLYGON = {"segmentation": [[2, 0, 4, 2, 2, 4, 0, 2]]}
BOX = {"rotated_box": [2, 2, 3, 1, 0.25]}


def test_polygons_of_four_corners_are_rotated_boxes(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([rotated_result(**POLYGON), rotated_result(**BOX, score=0.4)]))
    (image,) = read_predictions(file).images
    side = math.sqrt(8)
    np.testing.assert_allclose(image.detections.boxes[0, :4], [2, 2, side, side], atol=1e-6)
    assert abs(image.detections.boxes[0, 4]) == pytest.approx(math.pi / 4)
    assert image.detections.boxes[1].tolist() == [2, 2, 3, 1, 0.25]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"segmentation": [[0, 0, 4, 0, 4, 4]]},
        {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [0, 0, 1, 0, 1, 1, 0, 1]]},
    ],
)
def test_where_not_all_are_rotated_none_is_unless_that_is_stated(other: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([rotated_result(**POLYGON), rotated_result(**other)]))
    with pytest.raises(DataError, match="a mask of image 1 is a polygon, and the size of the image is not stated"):
        read_predictions(file)
    file.write_text(json.dumps([rotated_result(**BOX), rotated_result(**other)]))
    with pytest.raises(DataError, match="of 2 detections 1 have no rotated box") as caught:
        read_predictions(file)
    assert caught.value.where == file


corner = st.floats(0, 20000, width=32)


@given(x1=corner, x2=corner, y1=corner, y2=corner)
def test_width_and_height_lose_no_digit_of_the_far_corner(x1: float, x2: float, y1: float, y2: float) -> None:
    # What the writer and the reader compute, in float64.
    for low, high in (sorted((x1, x2)), sorted((y1, y2))):
        assert np.float32(low + (high - low)) == np.float32(high)


def test_the_file_is_coco(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"")
    index = dataclasses.replace(
        index_of([str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]), image_ids=np.array([50, 7, 8])
    )
    rows = [record(inside_picture(rng, 4)), {"error": "this file is empty"}, record(inside_picture(rng, 2))]
    file = tmp_path / "predictions.json"
    write_predictions(file, index, CATEGORIES, lambda: rows, description="found by a test")
    content = json.loads(file.read_text())
    assert [image["id"] for image in content["images"]] == [50, 7, 8]
    assert [image.get("error") for image in content["images"]] == [None, "this file is empty", None]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (640, 480)
    assert [one["id"] for one in content["annotations"]] == list(range(1, 7))
    assert [one["image_id"] for one in content["annotations"]] == [50] * 4 + [8] * 2
    assert all(one["area"] == one["bbox"][2] * one["bbox"][3] for one in content["annotations"])
    # The package's own reader of data sets takes it as one.
    data = read_dataset([str(file)])
    assert data.class_names == ("dog", "cat", "Großfuß")
    assert np.diff(data.starts).tolist() == [4, 0, 2]
    np.testing.assert_array_equal(data.boxes[4:], np.float32(rows[2]["boxes"]))

    read = read_predictions(file)
    assert [image.error for image in read.images] == [None, "this file is empty", None]
    assert [image.file_name for image in read.images] == [index.paths[row] for row in range(3)]


def test_an_empty_pool_makes_a_file(tmp_path: Path) -> None:
    write(tmp_path / "predictions.json", [])
    assert read_predictions(tmp_path / "predictions.json").images == []


def test_a_plain_list_of_results_is_read(tmp_path: Path) -> None:
    results = [
        {"image_id": 9, "category_id": 4, "bbox": [10, 20, 30, 40], "score": 0.25},
        {"image_id": 2, "category_id": 1, "bbox": [1.5, 2.5, 3, 4], "score": 0.5},
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.75},
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    read = read_predictions(file)
    assert (read.category_ids, read.class_names) == ((1, 4), None)
    nine, two = read.images
    assert (nine.image_id, two.image_id) == (9, 2)
    assert nine.detections.boxes.tolist() == [[0, 0, 1, 1], [10, 20, 40, 60]]  # best first
    assert nine.detections.labels.tolist() == [0, 1]
    assert two.detections.boxes.tolist() == [[1.5, 2.5, 4.5, 6.5]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "neither|empty"),
        ("{}", "neither"),
        ('{"images": [], "annotations": []}', "neither"),
        ("[1", "not JSON"),
        ('[{"image_id": 1}]', "entry 1.*bbox"),
        ('[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2, 3]}]', "entry 1.*bbox"),
        ('[{"image_id": 1, "category_id": 1, "score": null, "bbox": [1, 2, 3, 4]}]', "entry 1.*score"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [1, 2, 3, 4]}]', "entry 1.*score"),
        ('[{"category_id": 1, "score": 1, "bbox": [1, 2, 3, 4]}]', "entry 1.*image_id"),
        (
            '[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2, 3, 4], "rotated_box": [1, 2, 3, 4]}]',
            "entry 1.*rotated_box",
        ),
        (
            '[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2, 3, 4], "rotated_box": [1, 2, 3, 4, NaN]}]',
            "entry 1.*rotated_box",
        ),
        ('{"images": [],\n"categories": [{"id": 1}],\n"annotations": []}', "line 2.*name"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}],\n'
            '"annotations": [{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2, 3, 4]}]}',
            "image 1, which is not in 'images'",
        ),
        (
            '{"images": [{"id": 1}], "categories": [],\n'
            '"annotations": [{"image_id": 1, "category_id": 5, "score": 1, "bbox": [1, 2, 3, 4]}]}',
            "category 5, which is not in 'categories'",
        ),
    ],
)
def test_mistakes_are_named(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    file.write_text(content)
    with pytest.raises(DataError, match=rf"(?s){words}") as caught:
        read_predictions(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the predictions"):
        read_predictions(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("annotated", "ids", "found", "expected"),
    [
        pytest.param((), (), ("a", "b"), [1, 2], id="data without classes"),
        pytest.param(("b", "a"), (4, 9), ("a", "b"), [9, 4], id="the ids of the data"),
        pytest.param(("a",), (4,), ("x", "a", "y"), [5, 4, 6], id="others get free ids"),
    ],
)
def test_category_ids_are_those_of_the_data(
    annotated: tuple[str, ...], ids: tuple[int, ...], found: tuple[str, ...], expected: list[int]
) -> None:
    index = dataclasses.replace(index_of([]), class_names=annotated, category_ids=ids)
    assert category_ids_for(found, index) == expected


def with_masks(rng: np.random.Generator, count: int, size: tuple[int, int] = (64, 48)) -> Detections:
    bitmaps = rng.random((count, size[1], size[0])) < rng.uniform(0, 0.9, (count, 1, 1))
    return dataclasses.replace(inside_picture(rng, count), masks=Masks.encode(bitmaps))


def record_masks(found: Detections) -> Row:
    result = ImageResult(0, "0.jpg", (64, 48), None, 0, found)
    row: Row = json.loads(json.dumps(DetectionRecorder(0.0, masks=True).consume([result])[0]))
    return row


def test_masks_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    found = [with_masks(rng, count) for count in (3, 0, 5)]
    rows = [record_masks(one) for one in found]
    assert detections_of(rows[0], 3).masks == found[0].masks
    assert DetectionRecorder(0.0, masks=True).needs.outputs == {"detections", "masks"}
    file = tmp_path / "predictions.json"
    write(file, rows)
    for one, image in zip(found, read_predictions(file).images, strict=True):
        assert image.detections.masks == (one.masks if len(one) else None)
        assert np.array_equal(image.detections.boxes, one.boxes) and not image.detections.is_rotated
    # As another program reads them.
    annotations = json.loads(file.read_text())["annotations"]
    bitmaps = [bitmap for one in found if one.masks is not None for bitmap in one.masks.decode()]
    for annotation, bitmap in zip(annotations, bitmaps, strict=True):
        encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
        assert annotation["segmentation"] == {"size": [48, 64], "counts": encoded["counts"].decode()}
        assert annotation["area"] == bitmap.sum()


def mask_result(**changed: Any) -> dict[str, Any]:
    counts = coco_mask.encode(np.asfortranarray(np.tri(4, 6, dtype=np.uint8)))["counts"].decode()
    return {
        "image_id": 1,
        "category_id": 1,
        "score": 0.5,
        "segmentation": {"size": [4, 6], "counts": counts},
        **changed,
    }


def test_a_list_of_masks_needs_no_boxes(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([mask_result(), mask_result(score=0.75, bbox=[1, 1, 2, 2])]))
    (image,) = read_predictions(file).images
    assert image.detections.boxes.tolist() == [[1, 1, 3, 3], [0, 0, 4, 4]]
    assert image.detections.masks is not None
    assert np.array_equal(image.detections.masks.decode()[1], np.tri(4, 6))


@pytest.mark.parametrize(
    "results, words",
    [
        (
            [mask_result(), {**mask_result(), "segmentation": None, "bbox": [0, 0, 1, 1]}],
            "of 2 detections 1 have no mask",
        ),
        ([mask_result(), mask_result(segmentation={"size": [1, 1], "counts": "01"})], "image 1 differ in size"),
        ([mask_result(segmentation={"size": [4, 5], "counts": mask_result()["segmentation"]["counts"]})], "entry 1"),
        ([mask_result(segmentation={"size": [4], "counts": "01"})], "entry 1"),
        ([{name: value for name, value in mask_result().items() if name != "score"}], "entry 1.*label map"),
        ([mask_result(segmentation={"size": [4, 6], "counts": [23]})], "entry 1.*run lengths"),
        ([mask_result(segmentation="01")], "entry 1.*segmentation"),
        ([mask_result(segmentation=[[0, 0, 1, None, 1, 1]])], "entry 1.*segmentation"),
    ],
)
def test_mistakes_in_masks_are_named(results: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    with pytest.raises(DataError, match=words) as caught:
        read_predictions(file)
    assert str(file) in str(caught.value)


POLYGONS = [[1, 1, 9, 1, 9, 6, 1, 6], [10, 2, 14, 2, 14, 7, 10, 7]]


def write_data_set(file: Path, annotations: list[dict[str, Any]], **image: Any) -> None:
    categories = [{"id": 1, "name": "a"}]
    file.write_text(json.dumps({"annotations": annotations, "images": [{"id": 1, **image}], "categories": categories}))


def test_masks_in_all_of_cocos_forms_are_the_same(tmp_path: Path) -> None:
    bitmap = np.zeros((8, 16), np.uint8)
    bitmap[1:6, 1:9] = bitmap[2:7, 10:14] = 1
    flat = bitmap.ravel(order="F")
    borders = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    runs = np.diff(borders, prepend=0).tolist()
    text = {"size": [8, 16], "counts": coco_mask.encode(np.asfortranarray(bitmap))["counts"].decode()}
    forms: list[Any] = [text, {"size": [8, 16], "counts": runs}, POLYGONS, POLYGONS[:1]]
    file = tmp_path / "predictions.json"
    write_data_set(file, [mask_result(segmentation=form) for form in forms], width=16, height=8)
    (image,) = read_predictions(file).images
    assert image.detections.masks is not None and not image.detections.is_rotated
    left = bitmap * (np.arange(16) < 9)
    np.testing.assert_array_equal(image.detections.masks.decode(), np.stack([bitmap, bitmap, bitmap, left]))
    np.testing.assert_array_equal(image.detections.boxes, [[1, 1, 14, 7]] * 3 + [[1, 1, 9, 6]])


@pytest.mark.parametrize(
    "polygons, size, words",
    [
        (POLYGONS, {}, "size of the image is not stated"),
        (POLYGONS, {"width": 0, "height": 0}, "size of the image is not stated"),
        ([[0, 0, 1, 0, 1]], {"width": 4, "height": 4}, "a mask of image 1: a polygon is not a list of numbers"),
    ],
)
def test_polygons_that_cannot_be_drawn(polygons: Any, size: dict[str, int], words: str, tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    write_data_set(file, [mask_result(segmentation=polygons, bbox=[0, 0, 1, 1])], **size)
    with pytest.raises(DataError, match=words) as caught:
        read_predictions(file)
    assert caught.value.where == file


def test_an_empty_segmentation_is_no_mask(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([mask_result(segmentation=[], bbox=[0, 0, 1, 1])]))
    (image,) = read_predictions(file).images
    assert image.detections.masks is None

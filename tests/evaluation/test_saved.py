"""Predictions of a file find their images and classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import make_index

from ymir_tmi.config.schema import RunSettings
from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.evaluation.classes import split_selection
from ymir_tmi.evaluation.detected import Detected, measure
from ymir_tmi.evaluation.saved import class_names_of, recall_images
from ymir_tmi.pool.predictions import read_predictions

BOX = (10, 10, 30, 20)


def index_of(paths: list[str], ids: list[int], names: tuple[str, ...] = ("cat", "dog")) -> DatasetIndex:
    index = make_index([[(BOX, 0)] for _ in paths], names)
    changed = {
        "paths": Strings.pack(paths),
        "image_ids": np.array(ids),
        "category_ids": tuple(range(5, 5 + len(names))),
    }
    return DatasetIndex(**{**vars(index), **changed})


def saved(images: list[dict[str, Any]], found: list[tuple[Any, int, float]], names: dict[int, str]) -> dict[str, Any]:
    """Return the content of predictions.json; every detection is `BOX`."""
    annotations = [
        {"id": row, "image_id": image, "category_id": category, "bbox": [10, 10, 20, 10], "score": score}
        for row, (image, category, score) in enumerate(found, 1)
    ]
    categories = [{"id": key, "name": name} for key, name in names.items()]
    return {"images": images, "categories": categories, "annotations": annotations}


def recall(
    content: Any, index: DatasetIndex, folder: Path, classes: tuple[str, ...] = (), max_dets: int | None = None
) -> Detected:
    path = folder / "predictions.json"
    path.write_text(json.dumps(content))
    predictions = read_predictions(path)
    names, groups = ClassSelection.parse(classes).groups(class_names_of(predictions, index))
    return recall_images(predictions, index, names, groups, RunSettings(max_dets=max_dets), where=path)


def scores(detected: Detected) -> list[list[float]]:
    return [np.round(row["scores"], 3).tolist() for row in detected.rows]


@pytest.mark.parametrize(
    "images, found",
    [
        ([{"id": 7, "file_name": "a/1.jpg"}, {"id": 9, "file_name": "a/2.jpg"}], [[0.7], [0.9]]),
        # Moved since: the ids still fit.
        ([{"id": 7, "file_name": "/old/1.jpg"}, {"id": 9, "file_name": "/old/2.jpg"}], [[0.7], [0.9]]),
        # Predicted from a folder, with other ids, which happen to be those of other images.
        ([{"id": 9, "file_name": "b/1.jpg"}, {"id": 7, "file_name": "b/2.jpg"}], [[0.9], [0.7]]),
        # The same with ids that the data does not have.
        ([{"id": 0, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}, {"id": 7, "file_name": "3"}], [[], []]),
        # No file names.
        ([{"id": 7}, {"id": 9}], [[0.7], [0.9]]),
    ],
)
def test_images_are_found_by_id_and_name(images: list[dict[str, Any]], found: Any, tmp_path: Path) -> None:
    index = index_of(["a/1.jpg", "a/2.jpg"], [7, 9])
    ids = {image["id"] for image in images}
    content = saved(images, [(key, 5, key / 10) for key in (7, 9) if key in ids], {5: "cat"})
    assert scores(recall(content, index, tmp_path)) == found


def test_equal_file_names_in_two_folders(tmp_path: Path) -> None:
    index = index_of(["a/1.jpg", "b/1.jpg"], [0, 1])
    images = [{"id": 5, "file_name": "b/1.jpg"}, {"id": 6, "file_name": "c/1.jpg"}]
    detected = recall(saved(images, [(5, 5, 0.01), (6, 5, 0.02)], {5: "cat"}), index, tmp_path)
    assert scores(detected) == [[], [0.01]]  # c/1.jpg could be either
    assert detected.warnings == [
        "images that the predictions do not have count as empty: 1",
        "images that the data does not have are left out: 1",
    ]


def test_an_image_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a/1.jpg"}, {"id": 8, "file_name": "b/1.jpg"}]
    with pytest.raises(DataError, match=r"two images of the predictions are 'a/1\.jpg'"):
        recall(saved(images, [], {5: "cat"}), index_of(["a/1.jpg"], [7]), tmp_path)


def test_other_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 1 images of the predictions is in the data"):
        recall(saved([{"id": 1, "file_name": "x.jpg"}], [], {5: "cat"}), index_of(["a/1.jpg"], [7]), tmp_path)


def test_a_plain_list_has_the_categories_of_the_data(tmp_path: Path) -> None:
    content = [
        {"image_id": "9", "category_id": 6, "bbox": [10, 10, 20, 10], "score": 0.03},
        {"image_id": 9, "category_id": 1, "bbox": [10, 10, 20, 10], "score": 0.02},
    ]
    index = index_of(["1.jpg", "2.jpg"], [7, 9])
    detected = recall([*content[:1], {**content[1], "image_id": 7}], index, tmp_path)
    assert list(detected.class_names) == ["category 1", "dog"]
    assert [row["labels"] for row in detected.rows] == [[0], [1]]
    assert detected.warnings == []
    result = measure(index, detected)
    assert "left out: category 1" in result.warnings[1]


def test_an_empty_list_is_no_detections(tmp_path: Path) -> None:
    detected = recall([], index_of(["1.jpg", "2.jpg"], [7, 9]), tmp_path)
    assert scores(detected) == [[], []]


def test_limits_and_errors(tmp_path: Path) -> None:
    index = index_of(["1.jpg", "2.jpg"], [0, 1])
    images = [{"id": 0, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg", "error": "this file is empty"}]
    found = [(0, 5, 0.5), (0, 6, 0.9), (0, 5, 0.7), (0, 5, 0.001), (0, 9, 0.95)]
    content = saved(images, found, {5: "cat", 6: "dog", 9: "fox"})
    detected = recall(content, index, tmp_path, classes=("dog", "cat"), max_dets=2)
    (first, second) = detected.rows
    assert (np.round(first["scores"], 3).tolist(), first["labels"]) == ([0.9, 0.7], [0, 1])
    assert second == {"error": "this file is empty"}
    assert detected.warnings == []
    (warning,) = recall(content, index, tmp_path, classes=("dog", "cat")).warnings
    assert "the lowest score of the predictions is 0.5" in warning


ROTATED = {"rotated_box": [20, 15, 20, 10, 0.1]}


@pytest.mark.parametrize(
    "info, box, asked, kept",
    [
        ({}, {}, None, 100),
        ({}, ROTATED, None, 2000),
        ({"max_dets": 150}, {}, None, 150),  # as many as the run that wrote them kept
        ({"max_dets": 150}, ROTATED, None, 150),
        ({"max_dets": 150}, ROTATED, 120, 120),
    ],
)
def test_as_many_detections_as_the_predictions_were_cut_to(
    info: dict[str, int], box: dict[str, Any], asked: int | None, kept: int, tmp_path: Path
) -> None:
    content = saved([{"id": 0, "file_name": "1.jpg"}], [(0, 5, 0.5)] * 2100, {5: "cat"})
    content |= {"info": info, "annotations": [{**entry, **box} for entry in content["annotations"]]}
    detected = recall(content, index_of(["1.jpg"], [0]), tmp_path, max_dets=asked)
    assert detected.settings.max_dets == len(detected.rows[0]["scores"]) == kept


@pytest.mark.parametrize("number", [0, 1.5, "many"])
def test_a_wrong_number_of_detections_in_a_file_is_an_error(number: Any, tmp_path: Path) -> None:
    content = {**saved([], [], {5: "cat"}), "info": {"max_dets": number}}
    with pytest.raises(DataError, match="'max_dets' in 'info' is"):
        recall(content, index_of(["1.jpg"], [0]), tmp_path)


@pytest.mark.parametrize(
    "classes, of_detections, of_data",
    [
        ((), (), ()),
        (("cat",), (("cat", "cat"),), (("cat", "cat"),)),
        # A class of one side gets the name that the other has.
        (("person=human",), (("person", "human"),), (("human", "human"),)),
        (("human=person",), (("person", "person"),), (("human", "person"),)),
        # Two classes of the model are one class of the data.
        (("cat=animal", "fox=animal"), (("cat", "animal"), ("fox", "animal")), (("cat", "animal"),)),
    ],
)
def test_a_selection_concerns_the_side_that_has_the_class(classes: Any, of_detections: Any, of_data: Any) -> None:
    detected, annotated = ("cat", "fox", "person"), ("cat", "human")
    split = split_selection(ClassSelection.parse(classes), detected, annotated)
    assert [part.renames for part in split] == [of_detections, of_data]


def test_a_selection_that_no_side_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"have a class 'dgo'\n.*'dog'"):
        split_selection(ClassSelection.parse(["dgo"]), ["cat"], ["dog"])

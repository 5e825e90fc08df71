from __future__ import annotations

import pytest
from evaluation_data import make_detections

from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.classes import match_classes

BOX = (0, 0, 1, 1)


@pytest.mark.parametrize(
    "detected, annotated, labels, warned",
    [
        (["cat", "dog"], ["cat", "dog"], [0, 1], []),
        (["dog", "cat"], ["cat", "dog"], [1, 0], []),  # by name, not by position
        (["cat"], ["dog", "cat"], [1], ["missed: dog"]),
        (["cat", "fox", "cow"], ["cat"], [0, -1, -1], ["left out: fox, cow"]),
        (["cat", "fox"], ["cow", "cat"], [1, -1], ["missed: cow", "left out: fox"]),
    ],
)
def test_classes_are_matched_by_name(
    detected: list[str], annotated: list[str], labels: list[int], warned: list[str]
) -> None:
    match = match_classes(detected, annotated)
    assert match.labels.tolist() == labels
    assert len(match.warnings) == len(warned)
    assert all(warning.endswith(end) for warning, end in zip(match.warnings, warned, strict=True))

    found = match.apply(make_detections([(BOX, 0.9 - 0.1 * label, label) for label in range(len(detected))]))
    assert found.labels.tolist() == [label for label in labels if label >= 0]
    assert len(found.boxes) == len(found.scores) == len(found)


def test_of_label_maps_pixels_are_spoken_of() -> None:
    match = match_classes(["road", "sky"], ["road", "car"], pixels=True)
    assert match.labels.tolist() == [0, -1]
    unknown, foreign = match.warnings
    assert "pixels are mistaken: car" in unknown and "count as mistakes: sky" in foreign
    with pytest.raises(DataError, match=r"no class of the label maps \(sky\)"):
        match_classes(["sky"], ["road"], pixels=True)


def test_no_common_class_is_an_error() -> None:
    with pytest.raises(DataError, match=r"\(cat, dog\) is a class of the data \(Cat, 1, .* and 2 more\)"):
        match_classes(["cat", "dog"], ["Cat", *map(str, range(1, 12))])

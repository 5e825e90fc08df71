"""`check` finds what is wrong with masks, says it once for each kind, and shows where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import HEIGHT, WIDTH, coco, write_coco_file
from faster_coco_eval import mask as coco_mask

from ymir_tmi.data.check import CheckReport, check_dataset

IMAGE = {"id": 1, "file_name": "a.png"}
GOOD = [[10, 10, 20, 10, 20, 20, 10, 20]]


def listed(width: int, height: int, *ones: int) -> dict[str, Any]:
    bitmap = np.zeros((height, width), np.uint8)
    bitmap.T.ravel()[list(ones)] = 1
    entry = coco_mask.encode(np.asfortranarray(bitmap))
    return {"size": entry["size"], "counts": entry["counts"].decode()}


def check(folder: Path, *segmentations: Any, stated: bool = True) -> CheckReport:
    """Look at a picture with a sound object, and one for each segmentation, in different boxes."""
    size = {"width": WIDTH, "height": HEIGHT} if stated else {}
    annotations = [
        {"id": row, "image_id": 1, "category_id": 1, "bbox": [10 + row / 100, 10, 10, 10], "segmentation": segmentation}
        for row, segmentation in enumerate([GOOD, *segmentations])
    ]
    return check_dataset({"train": [str(write_coco_file(folder, coco([IMAGE | size], annotations)))]})


def test_sound_masks(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD, [[9, 10, 20.9, 10, 20, 20.5, 10, 21]]).findings == ()


@pytest.mark.parametrize(
    ("segmentation", "what"),
    [
        pytest.param({}, "1 object has no mask, unlike others; its box is taken for it", id="none"),
        pytest.param(listed(WIDTH, HEIGHT), "1 mask is empty; its box is taken instead", id="no pixel"),
        pytest.param(
            [[10, 10, 20, 10], *GOOD],
            "1 object has a polygon of fewer than three corners, which is left out",
            id="few",
        ),
        pytest.param(
            [[10, 10, 20, 10, 20, 42, 10, 20]],
            "1 mask reaches out of its picture by more than 1 pixel; it will be cut",
            id="outside",
        ),
        pytest.param(
            [[10, 10, 20, 10, 20, 25, 10, 25]],
            "1 mask does not fit its box; training takes the box around the mask",
            id="larger than its box",
        ),
        pytest.param(
            [[40, 10, 50, 10, 50, 20, 40, 20]],
            "1 mask does not fit its box; training takes the box around the mask",
            id="elsewhere",
        ),
    ],
)
def test_masks_that_training_can_do_with(tmp_path: Path, segmentation: Any, what: str) -> None:
    report = check(tmp_path, segmentation)
    assert what in [finding.what for finding in report.findings if finding.severity == "warning"]
    [example] = next(finding.examples for finding in report.findings if finding.what == what)
    assert "a.png: cat at 10.01, 10, 20.01, 20" in example
    assert report.ok


@pytest.mark.parametrize("stated", [True, False])
def test_masks_that_cannot_be_understood(tmp_path: Path, stated: bool) -> None:
    report = check(tmp_path, listed(HEIGHT, WIDTH, 1), [[1, 2, 3]], {"size": [1]}, "abc", stated=stated)
    [finding] = report.findings
    assert finding.severity == "error" and finding.what == "4 masks cannot be understood" and not report.ok
    places = [
        f"{tmp_path / 'a.png'}: cat at {10 + row / 100:.6g}, 10, {20 + row / 100:.6g}, 20 (x1, y1, x2, y2)"
        for row in (1, 2, 3, 4)
    ]
    assert finding.examples == (
        f"{places[0]}: it is 40 x 60 pixels, the picture 60 x 40",
        f"{places[1]}: a polygon has an x without a y",
        f"{places[2]}: this is not {{size: [height, width], counts: run lengths}}, these a list or compressed",
        f"{places[3]}: this is neither a list of polygons nor {{size: [height, width], counts: run lengths}}",
    )
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False


def test_boxes_without_any_mask_are_no_fault(tmp_path: Path) -> None:
    content = coco([IMAGE], [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 10, 10]}])
    assert check_dataset({"train": [str(write_coco_file(tmp_path, content))]}).findings == ()

from __future__ import annotations

import re

import pytest

from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import list_models
from ymir_tmi.weights.table import WeightsList, find_weights, official_weights

ROWS = official_weights()


def test_names_and_files_are_unique() -> None:
    assert len({row.id for row in ROWS}) == len({row.file for row in ROWS}) == len(ROWS) == 53


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_rows_make_sense(row) -> None:
    assert (70 < row.ap < 81) if row.source == "mmseg" else (20 < row.ap < 60)
    assert row.dataset == {"mmrotate": "DOTA v1.0", "mmseg": "Cityscapes"}.get(row.source, "COCO 2017")
    assert row.licence in ("GPL-3.0", "AGPL-3.0", "Apache-2.0")
    if row.url:
        assert row.url.startswith("https://") and row.url.endswith("/" + row.file)
    else:
        assert "no link" in row.note
    # The repositories put the beginning of the checksum into the name of the file.
    assert row.sha256_prefix == ("" if row.file.startswith(("model_final", "yolov5")) and "-" not in row.file
                                 else re.search(r"-([0-9a-f]{8})\.pth$", row.file)[1])  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_is_of_a_model(row) -> None:
    models = {model.name: model for model in list_models()}
    assert row.model in models


def test_licences_are_those_of_the_repositories() -> None:
    licences = {row.source: row.licence for row in ROWS}
    apache = dict.fromkeys(["mmdet", "mmrotate", "mmseg", "detectron2"], "Apache-2.0")
    assert licences == {**apache, "mmyolo": "GPL-3.0", "yolov5": "AGPL-3.0"}


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="Did you mean 'yolox_tiny'"):
        find_weights("yolox_tinny")


def test_the_list_shows_every_row_and_its_licence() -> None:
    lines = WeightsList(ROWS).to_text().splitlines()
    assert len(lines) == len(ROWS) + 1
    for row, line in zip(ROWS, lines[1:], strict=True):
        assert line.startswith(row.id) and row.licence in line
    assert WeightsList(ROWS).to_dict()["weights"][0]["id"] == ROWS[0].id

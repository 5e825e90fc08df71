from __future__ import annotations

import pytest

from ymir_tmi.models.catalog import list_models
from ymir_tmi.weights.overview import counted_their_way, model_table, models_page
from ymir_tmi.weights.table import OfficialWeights, official_weights

MODELS = {model.name: model for model in list_models()}
PUBLISHED = [row for row in official_weights() if row.gflops and row.id != "yolov5s6"]

# Printed figures that are cut off rather than rounded (docs/models.md, "Published sizes").
CUT_OFF = {"rtmdet_tiny", "yolov5l"}


def unit(printed: str) -> float:
    """Return what one in the last printed digit is worth."""
    return 10.0 ** -len(printed.partition(".")[2])


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.id)
def test_published_parameters(row: OfficialWeights) -> None:
    ours, printed = MODELS[row.model].parameters / 1e6, float(row.parameters_m)
    difference = ours - printed
    if row.id in CUT_OFF:
        assert 0.5 * unit(row.parameters_m) < difference < unit(row.parameters_m)
    else:
        assert abs(difference) <= 0.5 * unit(row.parameters_m)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.id)
def test_published_flops_are_ours_and_those_of_other_layers(row: OfficialWeights) -> None:
    ours, printed = counted_their_way(MODELS[row.model], row), float(row.gflops)
    assert ours < printed + 0.5 * unit(row.gflops)
    assert printed - 0.5 * unit(row.gflops) < 1.009 * ours


def test_the_document_with_swapped_figures() -> None:
    (row,) = (row for row in official_weights() if row.id == "yolov5s6")
    model = MODELS[row.model]
    assert float(row.gflops) == round(model.parameters / 1e6, 1)
    assert float(row.parameters_m) == round(counted_their_way(model, row), 1)
    assert "swapped" in row.note


def test_every_model_has_one_line_with_its_weights() -> None:
    table = model_table()
    lines = table.to_text().splitlines()
    assert [line.split()[1] for line in lines[1 : len(MODELS) + 1]] == list(MODELS)
    (line,) = (line for line in lines if " yolov5_s " in line)
    assert "yolov5_s, yolov5s" in line and "GPL-3.0, AGPL-3.0" in line and "37.7, 37.4" in line
    rows = table.to_dict()["models"]
    assert sum(len(row["weights"]) for row in rows) == len(official_weights())


def test_the_page_names_every_model_once() -> None:
    page = models_page()
    assert all(page.count(f"| `{name}` | {model.task} |") == 1 for name, model in MODELS.items())

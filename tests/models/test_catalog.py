from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import create_model, default_spec, list_models

ROWS = {row.name: row for row in list_models()}


def multiply_adds_of(model: nn.Module, side: int) -> int:
    """Count the multiplications of all convolutions for a square picture."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side))
    flops = counter.get_flop_counts()["Global"]
    return sum(count for operator, count in flops.items() if "convolution" in str(operator)) // 2


@pytest.mark.parametrize("name", [name for name in ROWS if not name.endswith("_mmdet")])
def test_rows_state_what_the_network_has(name: str) -> None:
    row = ROWS[name]
    with FakeTensorMode():  # tensors that have shapes and no numbers
        model = create_model(name, num_classes=80).eval()
        work = multiply_adds_of(model, row.input_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    assert (model.spec.family, model.spec.task, model.spec.input.size) == (row.family, row.task, row.input_size)
    assert work == pytest.approx(row.multiply_adds, rel=2e-4)


@pytest.mark.parametrize("name", [name for name in ROWS if name.endswith("_mmdet")])
def test_the_mmdet_form_has_the_same_network(name: str) -> None:
    row, twin = ROWS[name], ROWS[name.removesuffix("_mmdet")]
    assert (row.parameters, row.multiply_adds, row.input_size) == (
        twin.parameters,
        twin.multiply_adds,
        twin.input_size,
    )


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("rotated_rtmdet_tiny", 4.88, 20.45), ("rotated_rtmdet_s", 8.86, 37.62), ("rotated_rtmdet_m", 24.67, 99.76)],
)
def test_what_mmrotate_prints_for_the_15_classes_of_dota(name: str, parameters: float, multiply_adds: float) -> None:
    """Its multiply-adds also count layers that are no convolutions."""
    with FakeTensorMode():
        model = create_model(name, num_classes=15).eval()
        work = multiply_adds_of(model, 1024)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == parameters
    assert work / 1e9 < multiply_adds < 1.001 * work / 1e9


def test_models_can_be_listed_without_building_or_importing_any() -> None:
    code = (
        "import sys, ymir_tmi.models.catalog as catalog; assert len(catalog.list_models()) == 67;"
        "assert not [name for name in sys.modules if name.startswith('ymir_tmi.models.families')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("other", "ours"),
    [("yolov5s6", "yolov5_s6"), ("yolov5l-seg", "yolov5_l_seg"), ("yolov6n", "yolov6_n"), ("yolov8n", "yolov8_n")],
)
def test_names_of_other_programs(other: str, ours: str) -> None:
    assert create_model(other, num_classes=2).spec.name == ours
    assert default_spec(other, class_names=["a"]) == default_spec(ours, class_names=["a"])


def test_class_names() -> None:
    assert create_model("yolox_tiny", num_classes=2).spec.class_names == ("class_0", "class_1")
    assert create_model("yolox_tiny", class_names=["cat", "dog"]).spec.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        pytest.param("rtmdet_tny", {"num_classes": 2}, "Did you mean 'rtmdet_tiny'", id="misspelt"),
        pytest.param("rtmdet_tiny", {}, "and not both", id="neither number nor names"),
        pytest.param("rtmdet_tiny", {"num_classes": 1, "class_names": ["a"]}, "and not both", id="both"),
        pytest.param("rtmdet_tiny", {"num_classes": 0}, "not 0", id="no class"),
        pytest.param("rtmdet_tiny", {"num_classes": -3}, "not -3", id="fewer than none"),
        pytest.param("rtmdet_tiny", {"class_names": []}, "at least one class", id="no name"),
        pytest.param("rtmdet_tiny", {"class_names": ["a", "b", "a"]}, "same name: a", id="a name twice"),
    ],
)
def test_mistakes(name: str, classes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        create_model(name, **classes)  # type: ignore[arg-type]
    assert message in str(caught.value)

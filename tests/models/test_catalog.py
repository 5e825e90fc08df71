from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import create_model, list_models

ROWS = {row.name: row for row in list_models()}


def multiply_adds(model: nn.Module, side: int) -> int:
    """Count the multiplications of all convolutions for a square picture."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        # A transposed convolution spreads every number of its input, a plain one gathers every number of its output.
        numbers = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += layer.weight[0].numel() * numbers.numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name", [name for name in ROWS if not name.endswith("_mmdet")])
def test_rows_state_what_the_network_has(name: str) -> None:
    row = ROWS[name]
    model = create_model(name, num_classes=80).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    assert (model.spec.family, model.spec.task, model.spec.input.size) == (row.family, row.task, row.input_size)
    # The work is a constant (the attention layers) plus a part that grows with the area.
    small, large = multiply_adds(model, 64), multiply_adds(model, 128)
    per_pixel = (large - small) / (128**2 - 64**2)
    assert small + per_pixel * (row.input_size**2 - 64**2) == pytest.approx(row.multiply_adds, rel=2e-4)


@pytest.mark.parametrize("name", [name for name in ROWS if name.endswith("_mmdet")])
def test_the_mmdet_form_has_the_same_network(name: str) -> None:
    row, twin = ROWS[name], ROWS[name.removesuffix("_mmdet")]
    assert (row.parameters, row.multiply_adds, row.input_size) == (
        twin.parameters,
        twin.multiply_adds,
        twin.input_size,
    )


def test_models_can_be_listed_without_building_or_importing_any() -> None:
    code = (
        "import sys, ymir_tmi.models.catalog as catalog; assert len(catalog.list_models()) == 39;"
        "assert not [name for name in sys.modules if name.startswith('ymir_tmi.models.families')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("other", "ours"), [("yolov6n", "yolov6_n"), ("yolov8n", "yolov8_n")])
def test_names_of_other_programs(other: str, ours: str) -> None:
    assert create_model(other, num_classes=2).spec.name == ours


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

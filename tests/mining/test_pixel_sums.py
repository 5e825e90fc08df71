from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ymir_tmi.mining import pixels
from ymir_tmi.mining.pixels import box_sums, pixel_entropy, top_two


def probabilities(classes: int, height: int = 37, width: int = 53) -> Tensor:
    draw = torch.Generator().manual_seed(classes)
    return (3 * torch.randn(classes, height, width, generator=draw)).softmax(0)


@pytest.mark.parametrize("classes", [2, 3, 19, 256, 300])
def test_top_two_equal_a_sort(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_STRIP", 700)
    p = probabilities(classes)
    p[:, 4, 5] = 1 / classes  # ties
    ordered = p.sort(0, descending=True).values
    top = top_two(p)
    np.testing.assert_array_equal(top.ratio, ordered[1] / ordered[0])
    np.testing.assert_array_equal(top.classes, p.argmax(0))
    assert top.ratio[4, 5] == 1 and top.classes[4, 5] == 0


@pytest.mark.parametrize("classes", [5, 300])
def test_no_class_is_likely(classes: int) -> None:
    """As where other classes than those asked for have all of the probability."""
    assert not top_two(torch.zeros(classes, 2, 3)).ratio.any()


def test_one_class_leaves_no_doubt() -> None:
    top = top_two(torch.ones(1, 4, 5))
    assert not top.ratio.any() and not top.classes.any()
    assert not pixel_entropy(torch.ones(1, 4, 5)).any()


@pytest.mark.parametrize("classes", [2, 19])
def test_entropy_equals_its_formula(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_STRIP", 700)
    p = probabilities(classes)
    expected = -(p.double() * p.double().log()).sum(0) / np.log(classes)
    torch.testing.assert_close(pixel_entropy(p).double(), expected, rtol=1e-5, atol=1e-6)


def test_entropy_of_certainty_and_of_none() -> None:
    p = torch.zeros(5, 2, 3)
    p[2] = 1
    p[:, 1] = 0.2
    entropy = pixel_entropy(p)
    assert not entropy[0].any()
    torch.testing.assert_close(entropy[1], torch.ones(3))


def test_numbers_that_are_none_stay_none() -> None:
    p = probabilities(4)
    p[1, 3, 4] = torch.nan
    assert torch.isnan(pixel_entropy(p)[3, 4]) and np.isnan(top_two(p).ratio[3, 4])


@pytest.mark.parametrize("radius", [1, 2, 7])
@pytest.mark.parametrize("size", [(20, 30), (3, 40), (1, 1)])
def test_box_sums_equal_a_slow_version(radius: int, size: tuple[int, int]) -> None:
    values = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [
        [
            values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].sum().item()
            for x in range(size[1])
        ]
        for y in range(size[0])
    ]
    np.testing.assert_allclose(box_sums(values, radius), expected)
    full = box_sums(torch.ones(size, dtype=torch.uint8), radius)
    assert full.max() == min(size[0], 2 * radius + 1) * min(size[1], 2 * radius + 1)

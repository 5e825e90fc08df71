"""Where a picture lies in the network input, for each way to resize."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ymir_tmi.data.letterbox import InputSpec, letterbox, plan_frame

SHORTER: dict[str, Any] = {"size": 80, "resize": "shorter", "longest": 133, "rounding": "nearest", "pad": "corner"}


@pytest.mark.parametrize(
    ("change", "picture", "resized", "padded"),
    [
        pytest.param({"size": 64}, (100, 50), (64, 32), (64, 32), id="the longer side"),
        pytest.param({"size": 64, "resize": "stretch"}, (100, 50), (64, 64), (64, 64), id="both sides"),
        pytest.param(SHORTER, (60, 40), (120, 80), (128, 96), id="the shorter side"),
        pytest.param(SHORTER, (40, 60), (80, 120), (96, 128), id="the shorter side, upright"),
        pytest.param(SHORTER, (200, 40), (133, 27), (160, 32), id="the limit of the longer side counts first"),
        pytest.param({**SHORTER, "longest": None}, (200, 40), (400, 80), (416, 96), id="no limit"),
    ],
)
def test_sizes(
    change: dict[str, Any], picture: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    frame = plan_frame(*picture, InputSpec.model_validate(change))
    assert (frame.resized_width, frame.resized_height) == resized
    assert (frame.input_width, frame.input_height) == padded


def test_another_size_keeps_the_proportion_of_the_limit() -> None:
    spec = InputSpec.model_validate(SHORTER).with_size(40)
    assert (spec.size, spec.longest) == (40, 66)
    assert InputSpec().with_size(320) == InputSpec(size=320)


def test_the_padding_has_the_colour_of_the_specification() -> None:
    spec = InputSpec.model_validate({**SHORTER, "fill": (1, 2, 3), "enlarge": "antialias"})
    pixels, frame = letterbox(np.full((40, 60, 3), 200, np.uint8), spec)
    inside = np.zeros(pixels.shape[:2], bool)
    inside[: frame.resized_height, : frame.resized_width] = True
    assert (pixels[inside] == 200).all()
    assert (pixels[~inside] == (1, 2, 3)).all() and not inside.all()

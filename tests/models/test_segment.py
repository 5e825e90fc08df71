"""Which settings of a verb say how a network looks at a picture, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from ymir_tmi.config.schema import InferSettings, TrainSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import default_spec
from ymir_tmi.models.segment import PixelTest, Window

SEMANTIC = default_spec("fast_scnn", class_names=["a", "b"])
DETECTOR = default_spec("yolov5_n", class_names=["a", "b"])


def settings(**given: Any) -> InferSettings:
    return InferSettings(model="m.safetensors", data=["d"], **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PixelTest()),
        ({"window": [300]}, PixelTest(window=(300, 300), stride=(200, 200))),
        ({"window": "512,1024", "window_stride": 341}, PixelTest(window=(512, 1024), stride=(341, 341))),
        ({"window": [90, 60], "window_stride": [90, 20]}, PixelTest(window=(90, 60), stride=(90, 20))),
        ({"flip_test": True, "scales": [0.5, 1, 1.5]}, PixelTest(flip=True, scales=(0.5, 1.0, 1.5))),
    ],
)
def test_what_the_settings_mean(given: dict[str, Any], expected: PixelTest) -> None:
    assert PixelTest.of(settings(**given), SEMANTIC) == expected


@pytest.mark.parametrize(
    ("given", "spec", "message"),
    [
        pytest.param({"tile": 512}, SEMANTIC, "Use --window", id="tiles"),
        pytest.param({"window_stride": [9]}, SEMANTIC, "without 'window'", id="a stride alone"),
        pytest.param({"window": [64], "window_stride": [65]}, SEMANTIC, "leave gaps", id="gaps"),
        pytest.param({"window": [64]}, DETECTOR, "'window' is for models that give every pixel", id="window"),
        pytest.param({"window_stride": [64]}, DETECTOR, "'window_stride' is for", id="stride"),
        pytest.param({"flip_test": True}, DETECTOR, "'flip_test' is for", id="flip"),
        pytest.param({"scales": [0.5]}, DETECTOR, "'scales' is for", id="scales"),
    ],
)
def test_mistakes(given: dict[str, Any], spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PixelTest.of(settings(**given), spec)


def test_detectors_have_tiles_and_training_has_none_of_these() -> None:
    assert PixelTest.of(settings(tile=512), DETECTOR) == PixelTest()
    assert PixelTest.of(TrainSettings(), SEMANTIC) == PixelTest()


@pytest.mark.parametrize("scales", [[], [0], [-1.0]])
def test_scales_that_make_no_sense(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="scales"):
        settings(scales=scales)


def test_windows_cover_every_pixel_and_lie_inside() -> None:
    test = PixelTest(window=(30, 50), stride=(20, 35))
    windows = test.windows(77, 101)
    assert windows[0] == Window(0, 30, 0, 50) and windows[-1] == Window(47, 77, 51, 101)
    assert len(windows) == len(set(windows)) == 4 * 3
    seen = {(y, x) for w in windows for y in range(w.top, w.bottom) for x in range(w.left, w.right)}
    assert seen == {(y, x) for y in range(77) for x in range(101)}

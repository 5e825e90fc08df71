from __future__ import annotations

import typing

import cv2
import numpy as np
import pytest
from mining_data import golden, golden_facts

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import DependencyError
from ymir_tmi.imaging import SuperpixelMethod, slic_superpixels
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.mining.superpixels import SuperpixelSpec, default_side, superpixel_means

GOLDEN = golden("superpixel")
FACTS = golden_facts("superpixel")
PICTURE = GOLDEN["drawn/bgr"][..., ::-1]
METHODS: tuple[SuperpixelMethod, ...] = typing.get_args(SuperpixelMethod)


@pytest.mark.parametrize("most", [64, 256, 1024])
@pytest.mark.parametrize("method", METHODS)
def test_labels_equal_golden(method: SuperpixelMethod, most: int) -> None:
    name = f"drawn/{method}/max{most}"
    if name in GOLDEN:
        np.testing.assert_array_equal(SuperpixelSpec(method, most).cut(PICTURE), GOLDEN[name])
    else:  # earlier programs died of these
        labels = slic_superpixels(PICTURE, FACTS[name]["region_size"], "mslic")
        np.testing.assert_array_equal(labels, GOLDEN[f"{name}/raw_over_cap"])


@pytest.mark.parametrize("most", [64, 256])
def test_never_more_than_asked_for(most: int) -> None:
    assert FACTS[f"drawn/mslic/max{most}"]["count"] > most
    labels = SuperpixelSpec("mslic", most).cut(PICTURE)
    assert most / 8 < labels.max() + 1 <= most


def test_a_given_side() -> None:
    small, large = (len(np.unique(SuperpixelSpec("slico", side=side).cut(PICTURE))) for side in (8, 32))
    assert small == pytest.approx(96 * 128 / 64, rel=0.2) and large == pytest.approx(12, abs=4)


@pytest.mark.parametrize(
    "pixels, most, side",
    [(1024 * 2048, 1024, 90), (320 * 180, 256, 30), (96 * 128, 64, 28), (16, 1024, 2)],
)
def test_default_side(pixels: int, most: int, side: int) -> None:
    assert default_side(pixels, most) == side


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("most", [1, 64, 1024])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (1, 50), (17, 33), (31, 500), (200, 2)])
def test_pictures_that_opencv_crashes_on(method: SuperpixelMethod, most: int, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    labels = SuperpixelSpec(method, most).cut(picture)
    assert labels.shape == size and labels.dtype == np.int32
    assert labels.min() >= 0 and labels.max() < most


@pytest.mark.parametrize("classes", [1, 5, 300])
def test_means_equal_a_slow_version(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, 9, (20, 30)).astype(np.int32)
    labels[labels == 3] = 4
    values, classified = rng.random((20, 30), np.float32), rng.integers(0, classes, (20, 30))
    classified[labels == 5] = np.arange((labels == 5).sum()) % classes  # ties
    means = superpixel_means(labels, values, classified, classes)
    assert len(means.values) == 9 and np.isnan(means.values[3])
    for number in (0, 1, 2, 4, 5, 6, 7, 8):
        inside = labels == number
        assert means.values[number] == pytest.approx(values[inside].astype(np.float64).mean(), rel=1e-6)
        names, counts = np.unique(classified[inside], return_counts=True)
        assert means.classes[number] == names[counts.argmax()]


def test_opencv_without_superpixels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc")
    packages = {"cv2": ["opencv-python", "opencv-contrib-python-headless"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: packages)
    settings = MineSettings.model_validate({"data": [], "algorithm": "rsal"})
    with pytest.raises(DependencyError, match="installed: opencv-contrib-python-headless, opencv-python") as error:
        create_algorithm(settings, ["road"], task="semantics")
    assert error.value.fix == (
        "Run: pip uninstall opencv-contrib-python-headless opencv-python; "
        "then: pip install opencv-contrib-python-headless"
    )
    create_algorithm(settings.model_copy(update={"algorithm": "ripu"}), ["road"], task="semantics")

"""Changes of colour against slow and obvious versions."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from drawn import COLOURS

from ymir_tmi import imaging
from ymir_tmi.data import colours
from ymir_tmi.imaging import Image


def test_jitter_hsv_adds_whole_numbers_channel_by_channel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    before = imaging.rgb_to_hsv(image)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hue, saturation, value = (int(u * top) for u, top in zip(rng.uniform(-1, 1, 3), (5, 30, 30), strict=True))
        on = rng.integers(0, 2, 3)
        expected = np.empty_like(before)
        for place in np.ndindex(16, 16):
            h, s, v = (int(part) for part in before[place])
            expected[place] = (
                (h + hue * on[0]) % 180,
                min(max(s + saturation * on[1], 0), 255),
                min(max(v + value * on[2], 0), 255),
            )
        result = colours.jitter_hsv(image, (5, 30, 30), np.random.default_rng(seed))
        np.testing.assert_array_equal(result, imaging.hsv_to_rgb(expected) if (expected != before).any() else image)


def test_jitter_hsv_leaves_each_channel_alone_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    image = np.full((2, 2, 3), 128, np.uint8)
    values = np.array([colours.jitter_hsv(image, (0, 0, 30), rng)[0, 0, 0] for _ in range(600)], int)
    assert np.mean(values == 128) == pytest.approx(0.5 + 0.5 / 30, abs=0.06)
    assert (values.min(), values.max()) == (128 - 29, 128 + 29)


def test_jitter_hsv_without_strength_returns_the_same_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(colours.jitter_hsv(image, (0, 0, 0), np.random.default_rng(0)), image)


def test_hue_goes_round() -> None:
    red = np.tile(COLOURS[0].astype(np.uint8), (2, 2, 1))
    hues = {
        int(imaging.rgb_to_hsv(colours.jitter_hsv(red, (5, 0, 0), np.random.default_rng(seed)))[0, 0, 0])
        for seed in range(40)
    }
    assert hues & {176, 177, 178, 179} and hues & {1, 2, 3, 4}


NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SMOOTH = imaging.resize(NOISE[:4, :5], 40, 32, "bilinear")


def test_scale_hsv_multiplies_value_by_value() -> None:
    before = imaging.rgb_to_hsv(NOISE)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        hue, saturation, value = (1 + u * top for u, top in zip(rng.uniform(-1, 1, 3), (0.5, 0.7, 0.4), strict=True))
        expected = np.empty_like(before)
        for place in np.ndindex(24, 32):
            h, s, v = (int(part) for part in before[place])
            expected[place] = int(h * hue % 180), int(min(s * saturation, 255)), int(min(v * value, 255))
        result = colours.scale_hsv(NOISE, (0.5, 0.7, 0.4), np.random.default_rng(seed))
        np.testing.assert_array_equal(result, imaging.hsv_to_rgb(expected))


def test_scale_hsv_reaches_both_ends_and_nothing_beyond() -> None:
    rng = np.random.default_rng(0)
    image = np.full((2, 2, 3), 100, np.uint8)
    values = [int(colours.scale_hsv(image, (0, 0, 0.4), rng)[0, 0, 0]) for _ in range(500)]
    assert (min(values), max(values)) == pytest.approx((60, 139), abs=1)
    assert np.mean(values) == pytest.approx(100, abs=2.5)
    assert colours.scale_hsv(image, (0, 0, 0), rng) is image


def blurred_slowly(image: Image, side: int, mean: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return the inside of a picture whose every value is made of those around it."""
    height, width, _ = image.shape
    reach = side // 2
    result = np.empty((height - 2 * reach, width - 2 * reach, 3))
    for y, x, channel in np.ndindex(result.shape):
        result[y, x, channel] = mean(image[y : y + side, x : x + side, channel])
    return result


@pytest.mark.parametrize("side", [3, 5])
def test_blurs_take_the_mean_and_the_median(side: int) -> None:
    inside = slice(side // 2, -(side // 2))
    for blur, mean in ((imaging.blur, np.mean), (imaging.blur_by_median, np.median)):
        fast = blur(NOISE, side)[inside, inside]
        np.testing.assert_allclose(fast, blurred_slowly(NOISE, side, mean), atol=0.501)


def test_without_colour_all_channels_are_the_luma() -> None:
    grey = imaging.without_colour(NOISE)
    luma = NOISE @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, axis=2), atol=0.51)


def test_equalize_changes_lightness_alone_and_spreads_it() -> None:
    dull = (100 + SMOOTH.astype(int) // 8).astype(np.uint8)
    result = imaging.equalize(dull, 4.0)
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(int) for image in (dull, result))
    assert np.std(after[..., 0]) > 1.5 * np.std(before[..., 0])
    assert np.abs(after[..., 1:] - before[..., 1:]).max() <= 4  # but for rounding
    np.testing.assert_array_equal(imaging.equalize(dull, 4.0), result)
    assert dull.max() <= 131  # the argument is left alone


def test_degrade_does_each_thing_as_often_as_asked() -> None:
    image = SMOOTH.copy()
    names = ("blur", "blur_by_median", "without_colour", "equalize")
    counts = dict.fromkeys(names, 0)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            operation = getattr(imaging, name)

            def counted(picture: Image, *more: float, name: str = name, operation: object = operation) -> Image:
                counts[name] += 1
                return operation(picture, *more)

            patch.setattr(imaging, name, counted)
        rng = np.random.default_rng(0)
        for _ in range(400):
            colours.degrade(image, 0.25, rng)
    assert all(count == pytest.approx(100, abs=26) for count in counts.values())  # three standard deviations
    np.testing.assert_array_equal(image, SMOOTH)
    assert colours.degrade(image, 0, np.random.default_rng(0)) is image


def distorted_slowly(image: Image, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Do pixel by pixel what `distort` does, with the same draws."""
    pixels = image.astype(float)
    for step in rng.permutation(4):
        if rng.random() >= probability:
            continue
        draw = rng.uniform(-18, 18) if step == 3 else rng.uniform(0.5, 1.5)
        for place in np.ndindex(*image.shape[:2]):
            red, green, blue = pixels[place]
            luma = 0.299 * red + 0.587 * green + 0.114 * blue
            if step == 0:
                pixels[place] = red + draw, green + draw, blue + draw
            elif step == 1:
                pixels[place] = red * draw, green * draw, blue * draw
            elif step == 2:
                pixels[place] = [luma + draw * (value - luma) for value in (red, green, blue)]
            else:
                i = 0.596 * red - 0.274 * green - 0.322 * blue
                q = 0.211 * red - 0.523 * green + 0.312 * blue
                turn = draw * np.pi
                i, q = i * np.cos(turn) - q * np.sin(turn), i * np.sin(turn) + q * np.cos(turn)
                # The usual inverse of the three sums above, rounded to three digits.
                pixels[place] = (
                    luma + 0.956 * i + 0.621 * q,
                    luma - 0.272 * i - 0.647 * q,
                    luma - 1.107 * i + 1.704 * q,
                )
    return pixels.clip(0, 255)


@pytest.mark.parametrize("seed", range(8))
def test_distort_agrees_with_a_slow_version(seed: int) -> None:
    small = NOISE[:8, :8]
    result = colours.distort(small, 0.6, np.random.default_rng(seed))
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, distorted_slowly(small, 0.6, np.random.default_rng(seed)), atol=1.5)


def test_distort_keeps_grey_grey_but_for_brightness_and_contrast() -> None:
    grey = np.full((3, 3, 3), 100, np.uint8)
    for seed in range(20):
        result = colours.distort(grey, 1.0, np.random.default_rng(seed)).astype(int)
        assert np.ptp(result) <= 1
        assert 49 <= result[0, 0, 0] <= 153
    assert colours.distort(grey, 0, np.random.default_rng(0)) is grey

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import draw, measure

from ymir_tmi import imaging
from ymir_tmi.data import transforms
from ymir_tmi.data.sample import Sample

Rng = np.random.Generator

# Four objects: in the middle, at two borders, and small.
SCENE = draw(120, 80, [(40, 20, 90, 60), (0, 10, 25, 40), (100, 50, 120, 80), (60, 66, 68, 74)])

OPERATIONS: dict[str, Callable[[Sample, Rng], Sample]] = {
    "stretched": lambda s, rng: transforms.resize(s, 200, 90),
    "enlarged": lambda s, rng: transforms.fit(s, 251),
    "shrunk": lambda s, rng: transforms.fit(s, 77),
    "shrunk by more than half": lambda s, rng: transforms.fit(s, 50),
    "padded": lambda s, rng: transforms.pad(s, 150, 130, left=11, top=23),
    "letterboxed": lambda s, rng: transforms.letterbox_square(s, 160),
    "letterboxed in the middle": lambda s, rng: transforms.letterbox_square(s, 160, centre=True),
    "mirrored": lambda s, rng: transforms.flip_horizontal(s),
    "upside down": lambda s, rng: transforms.flip_vertical(s),
    "seen from aside": lambda s, rng: transforms.random_affine(
        s, 260, scale=(1.5, 2.0), rotate=0, shear=0, translate=0.0, perspective=0.002, rng=rng
    ),
    "cropped": lambda s, rng: transforms.random_resize_crop(s, 160, 64, (0.5, 2.0), rng),
    "cropped from a small one": lambda s, rng: transforms.random_resize_crop(s, 160, 64, (0.2, 0.35), rng),
    "scaled and shifted": lambda s, rng: transforms.random_affine(
        s, 96, scale=(0.5, 1.5), rotate=0, shear=0, translate=0.3, rng=rng
    ),
    "turned about its middle": lambda s, rng: transforms.random_affine(
        s, 300, scale=(1.5, 2.0), rotate=45, shear=10, translate=0.0, rng=rng
    ),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_boxes_stay_on_their_pixels(operation: Callable[[Sample, Rng], Sample], seed: int) -> None:
    result = operation(SCENE, np.random.default_rng(seed))
    assert result.boxes.dtype == np.float32
    boxes = dict(zip(result.labels.tolist(), result.boxes, strict=True))
    for label in SCENE.labels.tolist():
        seen = measure(result.image, label)
        if seen is None:  # gone, or too thin a sliver for its colour to be seen unmixed
            assert label not in boxes or np.min(boxes[label][2:] - boxes[label][:2]) < 2.5
        else:
            np.testing.assert_allclose(boxes[label], seen, atol=1.6)


def test_arguments_are_left_alone() -> None:
    scene = draw(120, 80, [(40, 20, 90, 60)])
    for operation in OPERATIONS.values():
        operation(scene, np.random.default_rng(0))
    transforms.clip_to_picture(scene)
    untouched = draw(120, 80, [(40, 20, 90, 60)])
    np.testing.assert_array_equal(scene.image, untouched.image)
    np.testing.assert_array_equal(scene.boxes, untouched.boxes)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 20, 20), (10, 10, 20, 20)),  # inside
        ((-5, 10, 20, 90), (0, 10, 20, 80)),  # cut on two sides
        ((-5, -5, 200, 200), (0, 0, 100, 80)),  # larger than the picture
        ((99.5, 0, 120, 10), (99.5, 0, 100, 10)),  # half a pixel is left
        ((100, 0, 120, 10), None),  # touches the border from outside
        ((-20, 10, -1, 20), None),  # left of it
        ((10, 85, 20, 99), None),  # below it
        ((10, 10, 10, 20), None),  # without width
        ((20, 10, 10, 20), None),  # corners swapped
    ],
)
def test_clip_to_picture(box: tuple[float, ...], expected: tuple[float, ...] | None) -> None:
    sample = Sample(np.zeros((80, 100, 3), np.uint8), np.array([box], np.float32), np.array([3]))
    result = transforms.clip_to_picture(sample)
    assert result.boxes.tolist() == ([list(expected)] if expected else [])
    assert result.labels.tolist() == ([3] if expected else [])


@pytest.mark.parametrize(
    ("smallest", "kept"),
    [
        (0.0, [0, 1, 2]),
        (1.0, [0, 1, 2]),  # just as wide as asked
        (1.5, [1, 2]),
        (4.5, [2]),  # wide enough, but too low
        (21.0, []),
    ],
)
def test_drop_small_boxes(smallest: float, kept: list[int]) -> None:
    boxes = np.array([[0, 0, 1, 9], [0, 0, 30, 4], [0, 0, 20, 20]], np.float32)
    sample = Sample(np.zeros((40, 40, 3), np.uint8), boxes, np.arange(3))
    result = transforms.drop_small_boxes(sample, smallest)
    assert result.labels.tolist() == kept
    np.testing.assert_array_equal(result.boxes, boxes[kept])


def test_a_sample_without_objects_passes_through_everything() -> None:
    for operation in OPERATIONS.values():
        result = operation(draw(120, 80, []), np.random.default_rng(0))
        assert result.boxes.shape == (0, 4)
        assert result.labels.shape == (0,)


def resize_then_crop(sample: Sample, fit_size: int, crop: int, scale: tuple[float, float], rng: Rng) -> Sample:
    """Do in the obvious way what `random_resize_crop` does, with the same draws."""
    factor = rng.uniform(*scale) * fit_size / max(sample.size)
    width, height = (round(side * factor) for side in sample.size)
    left, top = int(rng.integers(max(width - crop, 0) + 1)), int(rng.integers(max(height - crop, 0) + 1))
    whole = imaging.resize(sample.image, width, height, "bilinear" if factor >= 0.5 else "area")
    picture = whole[top : top + crop, left : left + crop]
    boxes, labels = [], []
    for (x1, y1, x2, y2), label in zip(sample.boxes, sample.labels, strict=True):
        fx, fy = np.float32(width / sample.size[0]), np.float32(height / sample.size[1])
        x1, x2 = max(x1 * fx - left, 0), min(x2 * fx - left, picture.shape[1])
        y1, y2 = max(y1 * fy - top, 0), min(y2 * fy - top, picture.shape[0])
        if x1 < x2 and y1 < y2:
            boxes.append([x1, y1, x2, y2])
            labels.append(label)
    return Sample(picture, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


@pytest.mark.parametrize("seed", range(30))
def test_random_resize_crop_computes_only_what_is_seen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = imaging.resize(rng.integers(0, 256, (23, 31, 3), dtype=np.uint8), 128, 96, "bilinear")
    corners = rng.uniform(0, 96, (20, 4))
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] / 3], axis=1).astype(np.float32)
    sample = transforms.clip_to_picture(Sample(noise, boxes, np.arange(20)))

    result = transforms.random_resize_crop(sample, 128, 64, (0.3, 2.5), np.random.default_rng(seed))
    plain = resize_then_crop(sample, 128, 64, (0.3, 2.5), np.random.default_rng(seed))
    np.testing.assert_array_equal(result.boxes, plain.boxes)
    np.testing.assert_array_equal(result.labels, plain.labels)
    assert result.image.shape == plain.image.shape
    assert np.abs(result.image.astype(int) - plain.image).max() <= 2


def test_random_resize_crop_reaches_every_scale_and_every_place() -> None:
    scene = draw(100, 100, [(0, 0, 100, 100)])
    rng = np.random.default_rng(0)
    sides, lefts = [], []
    for _ in range(400):
        result = transforms.random_resize_crop(scene, 100, 400, (0.5, 2.0), rng)
        sides.append(result.size[0])
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    for _ in range(400):
        result = transforms.random_resize_crop(Sample(ramp, scene.boxes, scene.labels), 100, 50, (1, 1), rng)
        lefts.append(int(result.image[0, 0, 0]))
    assert (min(sides), max(sides)) == pytest.approx((50, 200), abs=3)
    assert np.mean(sides) == pytest.approx(125, abs=6)
    assert (min(lefts), max(lefts)) == (0, 50)
    assert np.mean(lefts) == pytest.approx(25, abs=2)


@pytest.mark.parametrize("seed", range(4))
def test_random_affine_draws_from_the_given_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw(200, 200, [(90, 90, 110, 110)])
    for _ in range(50):
        result = transforms.random_affine(scene, 100, scale=(0.5, 1.5), rotate=0, shear=0, translate=0.1, rng=rng)
        x1, y1, x2, y2 = result.boxes[0]
        assert 10 <= x2 - x1 <= 30 and x2 - x1 == pytest.approx(y2 - y1)
        assert 40 <= (x1 + x2) / 2 <= 60 and 40 <= (y1 + y2) / 2 <= 60


def test_random_affine_turns_about_the_middle() -> None:
    scene = draw(200, 200, [(60, 60, 140, 140)])
    turned = transforms.random_affine(
        scene, 200, scale=(1, 1), rotate=10, shear=0, translate=0, rng=np.random.default_rng(0)
    )
    angle = np.random.default_rng(0).uniform(-10, 10)
    side = 80 * (np.cos(np.radians(abs(angle))) + np.sin(np.radians(abs(angle))))
    np.testing.assert_allclose(turned.boxes[0][2:] - turned.boxes[0][:2], side, rtol=1e-5)
    np.testing.assert_allclose(turned.boxes[0][2:] + turned.boxes[0][:2], 200, rtol=1e-5)
    assert (turned.image[0] == transforms.FILL).all(axis=1).any()


PUBLISHED = json.loads((Path(__file__).parents[1] / "goldens" / "training" / "published.json").read_text())


@pytest.mark.parametrize("min_area", ["0.10", "0.01"])
def test_recognizable_boxes_are_those_of_the_reference(min_area: str) -> None:
    table = PUBLISHED["yolov5"]["box_candidates"]
    before, after = (np.array(table[name], np.float32) for name in ("before", "after"))
    good = transforms.recognizable(before, after, min_area=float(min_area), max_aspect=100)
    large = (after[:, 2:] > 2).all(axis=1)  # which `min_box` sees to
    assert (good & large).tolist() == table[f"area_thr_{min_area}"]


def test_recognizable_is_strict_and_knows_both_directions() -> None:
    before = np.tile(np.array([[0, 0, 10, 10]], np.float32), (5, 1))
    after = np.array([[0, 0, 1, 10], [0, 0, 1, 10.5], [0, 0, 20, 1], [0, 0, 21, 2], [0, 0, 0, 0]], np.float32)
    assert transforms.recognizable(before, after, min_area=0.1, max_aspect=20).tolist() == [
        False,  # just a tenth
        True,
        False,  # just twenty times as wide as high
        True,
        False,
    ]


def test_random_affine_drops_what_is_mostly_cut_off() -> None:
    scene = draw(100, 100, [(0, 0, 20, 20), (40, 40, 60, 60)])
    kept = []
    for seed in range(60):
        # Twice as large in a window of the same size: the corner is at the border or beyond.
        options = {"scale": (2, 2), "rotate": 0, "shear": 0, "translate": 0.5, "rng": np.random.default_rng(seed)}
        result = transforms.random_affine(scene, 100, min_area=0.25, **options)
        everything = transforms.random_affine(scene, 100, **{**options, "rng": np.random.default_rng(seed)})
        areas = np.prod(everything.boxes[:, 2:] - everything.boxes[:, :2], axis=1)
        assert result.labels.tolist() == everything.labels[areas > 0.25 * 40 * 40].tolist()
        kept.append((len(result.boxes), len(everything.boxes)))
    assert any(few < all_ for few, all_ in kept)


def test_perspective_maps_points_as_a_camera_does() -> None:
    rng = np.random.default_rng(5)
    rng.random(6)  # rotation, two shears, scale, two shifts
    px, py = rng.uniform(-0.004, 0.004, 2)
    result = transforms.random_affine(
        draw(100, 80, [(30, 20, 70, 60)]),
        200,
        scale=(1.5, 1.5),
        rotate=0,
        shear=0,
        translate=0,
        perspective=0.004,
        rng=np.random.default_rng(5),
    )
    corners = []
    for x, y in ((30, 20), (70, 20), (70, 60), (30, 60)):
        x, y = x - 50, y - 40
        depth = 1 + px * x + py * y
        corners.append((1.5 * x / depth + 100, 1.5 * y / depth + 100))
    expected = [*np.min(corners, axis=0), *np.max(corners, axis=0)]
    np.testing.assert_allclose(result.boxes[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("width", "height", "left", "top"), [(200, 100, 0, 32), (100, 200, 32, 0), (90, 89, 0, 1)])
def test_letterbox_in_the_middle(width: int, height: int, left: int, top: int) -> None:
    result = transforms.letterbox_square(draw(width, height, [(0, 0, width, height)]), 128, centre=True)
    np.testing.assert_allclose(result.boxes[0, :2], (left, top))

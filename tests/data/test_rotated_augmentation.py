"""Rotated boxes on their way to the network: drawn, changed, and found again by their pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import coloured, draw, draw_rotated, measure, under, write_index

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data import crops, mosaic, transforms
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.index import DIFFICULT, DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.loader import training_loader
from ymir_tmi.data.pipeline import Augmenter, read_sample
from ymir_tmi.data.rotated import rectangles
from ymir_tmi.data.sample import Sample
from ymir_tmi.geometry.outlines import outlines

Rng = np.random.Generator

SIZE = 128
SPEC = InputSpec(size=SIZE)
# In the middle, steep, upright, and in a corner of the picture, all inside it.
BOXES = [(70, 40, 60, 24, 0.5), (30, 80, 40, 20, -1.2), (115, 85, 34, 22, 0.0), (25, 18, 40, 16, 0.5)]
SCENE = draw_rotated(140, 110, BOXES, [0, 1, 2, 3])
OTHER = draw_rotated(120, 120, [(60, 60, 50, 30, -0.4)], [4])

OPERATIONS: dict[str, Callable[[Sample, Rng], Sample]] = {
    "stretched": lambda s, rng: transforms.resize(s, 200, 120),
    "enlarged": lambda s, rng: transforms.fit(s, 251),
    "shrunk": lambda s, rng: transforms.fit(s, 100),
    "padded": lambda s, rng: transforms.pad(s, 190, 150, left=11, top=23),
    "mirrored": lambda s, rng: transforms.flip_horizontal(s),
    "upside down": lambda s, rng: transforms.flip_vertical(s),
    "cropped": lambda s, rng: transforms.random_resize_crop(s, 180, 128, (0.8, 2.0), rng),
    "turned": lambda s, rng: transforms.turn(s, rng.uniform(-180, 180)),
    "turned by a right angle": lambda s, rng: transforms.turn(s, rng.choice([90, 180, -90])),
    "scaled, turned and sheared": lambda s, rng: transforms.random_affine(
        s, 200, scale=(0.8, 1.5), rotate=180, shear=10, translate=0.2, min_area=0.9, max_aspect=2, rng=rng
    ),
    "seen from aside": lambda s, rng: transforms.random_affine(
        s, 200, scale=(1.0, 1.5), rotate=30, shear=0, translate=0.0, perspective=0.001, rng=rng
    ),
    "expanded": lambda s, rng: crops.expand(s, 2.0, rng),
    "cropped around objects": lambda s, rng: crops.crop_by_overlap(s, rng),
    "in a mosaic": lambda s, rng: mosaic.mosaic([s, OTHER, OTHER, OTHER], 140, rng),
    "in a mosaic of nine": lambda s, rng: mosaic.mosaic_of_nine([s, *[OTHER] * 8], 140, rng),
}


def check_objects(result: Sample, labels: list[int]) -> None:
    """Each box covers the pixels of its object and no others; an object without one shows less than half of it."""
    assert result.boxes.dtype == np.float32 and result.boxes.shape == (len(result.labels), 4, 2)
    for label in labels:
        seen = coloured(result.image, label)
        boxes = result.boxes[result.labels == label]
        if not len(boxes):
            # Smoothing takes a pixel at the border of an object, and objects differ in size by the scale.
            assert not seen[1:-1, 1:-1].any() or seen.sum() < 0.6 * drawn_area(result, label)
            continue
        (corners,) = boxes
        covered = under(corners, *result.size)
        assert (seen & covered).sum() > 0.88 * (seen | covered).sum()


def drawn_area(result: Sample, label: int) -> float:
    """Area of an object that is not in `result`, as much enlarged as those that are."""
    areas = {box: SCENE.boxes[box] for box in range(4)}
    scales = [area(c) / area(areas[k]) for c, k in zip(result.boxes, result.labels.tolist(), strict=True) if k in areas]
    return area(areas[label]) * max(scales, default=4.0)


def area(corners: np.ndarray) -> float:
    x, y = corners.T.astype(float)
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_boxes_stay_on_their_pixels(operation: Callable[[Sample, Rng], Sample], seed: int) -> None:
    result = operation(SCENE, np.random.default_rng(seed))
    check_objects(result, [0, 1, 2, 3])
    centres = result.boxes.mean(axis=1)
    assert (centres >= 0).all() and (centres <= result.size).all()


def test_samples_without_objects_pass_through_everything() -> None:
    for operation in OPERATIONS.values():
        result = operation(draw_rotated(140, 110, [], []), np.random.default_rng(0))
        assert result.boxes.shape[1:] == (4, 2) and set(result.labels.tolist()) <= {4}


def test_arguments_are_left_alone() -> None:
    for operation in OPERATIONS.values():
        operation(SCENE, np.random.default_rng(0))
    again = draw_rotated(140, 110, BOXES, [0, 1, 2, 3])
    np.testing.assert_array_equal(SCENE.image, again.image)
    np.testing.assert_array_equal(SCENE.boxes, again.boxes)


def test_boxes_are_dropped_by_their_centre_and_never_cut() -> None:
    inside, border, outside = (20, 20, 60, 10, 0.6), (0, 40, 30, 8, 0.0), (-1, 60, 30, 8, 0.0)
    result = transforms.clip_to_picture(draw_rotated(80, 70, [inside, border, outside], [0, 1, 2]))
    assert result.labels.tolist() == [0, 1]
    np.testing.assert_allclose(rectangles(result.boxes), [inside, border], atol=1e-5)


@pytest.mark.parametrize(("smallest", "kept"), [(0, [0, 1, 2]), (4.5, [1, 2]), (9.5, [2]), (11, [])])
def test_small_boxes_are_those_with_a_short_side(smallest: float, kept: list[int]) -> None:
    boxes = [(30, 30, 40, 4, 0.7), (30, 30, 9, 30, 0.7), (30, 30, 10, 10, 0.7)]
    assert transforms.drop_small_boxes(draw_rotated(60, 60, boxes, [0, 1, 2]), smallest).labels.tolist() == kept


@pytest.mark.parametrize("degrees", [90, 30, -45])
def test_turning_is_clockwise_about_the_middle_and_comes_in_black(degrees: float) -> None:
    scene = draw_rotated(100, 100, [(50, 20, 30, 10, 0.0)], [0])
    result = transforms.turn(scene, degrees)
    angle = math.radians(degrees)
    x, y = 50 + 30 * math.sin(angle), 50 - 30 * math.cos(angle)  # from above to the right
    expected = outlines(np.array([[x, y, 30, 10, angle]]))
    np.testing.assert_allclose(rectangles(result.boxes), rectangles(expected), atol=1e-4)
    assert result.size == scene.size
    assert (result.image[0, 0] == 0).all() == (degrees != 90)


def test_an_upright_box_is_turned_to_the_one_around_it() -> None:
    result = transforms.turn(draw(120, 90, [(50, 30, 80, 60)], [2]), 30)
    np.testing.assert_allclose(result.boxes[0], measure(result.image, 2), atol=1.5)


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    """Twelve pictures with one large object each; its label says its colour."""
    rng = np.random.default_rng(0)
    samples = []
    for row in range(12):
        width, height = rng.integers(90, 160, 2).tolist()
        box = (width / 2, height / 2, width * 0.45, height * 0.3, rng.uniform(-math.pi / 2, math.pi / 2))
        samples.append(draw_rotated(width, height, [box], [row % 6]))
    return write_index(tmp_path, samples)


RANDOM_ROTATION = AugmentRecipe(
    mosaic=0, mixup=0, scale=(1, 1), hsv=(0, 0, 0), flip=0.5, flip_vertical=0.5, rotation=0.5
)
RECIPES = {
    "random rotation": RANDOM_ROTATION,
    "rtmdet": RANDOM_ROTATION.model_copy(update={"mosaic": 1, "mixup": 0.5, "scale": (0.5, 2.0)}),
    "yolov5": RANDOM_ROTATION.model_copy(
        update={"mosaic": 1, "geometry": "affine", "scale": (0.5, 1.5), "mixup_style": "mosaics", "mixup": 0.2}
    ),
    "yolox": RANDOM_ROTATION.model_copy(
        update={"mosaic": 1, "geometry": "affine", "scale": (0.5, 1.5), "mixup_style": "average", "mixup": 0.5}
    ),
    "ppyoloe": RANDOM_ROTATION.model_copy(update={"geometry": "expand_crop", "multiscale": (0.5, 1.5)}),
    "retinanet": RANDOM_ROTATION.model_copy(update={"geometry": "shorter_side", "multiscale": (0.5, 1.0)}),
}


@pytest.mark.parametrize("phase", ["main", "final"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_middle_of_every_target_has_the_colour_of_its_object(
    index: DatasetIndex, recipe: AugmentRecipe, phase: Phase
) -> None:
    plain = recipe.model_copy(update={"mixup": 0, "min_box": 6})
    augmenter = Augmenter(index, plain, SPEC)
    objects = 0
    for row in range(len(index)):
        sample = augmenter.sample(row, phase, np.random.default_rng(row))
        sample = transforms.resize(sample, 160, 160)
        for corners, label in zip(sample.boxes, sample.labels, strict=True):
            centre = corners.mean(axis=0)
            core = under(centre + 0.8 * (corners - centre), *sample.size)
            seen = coloured(sample.image, label) | (sample.image == transforms.FILL).all(axis=2)
            assert seen[core].mean() > 0.95 or (core & (sample.image == 0).all(axis=2)).any()
            objects += 1
    assert objects >= 10


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_loader_hands_out_rotated_boxes(index: DatasetIndex, recipe: AugmentRecipe) -> None:
    loader = training_loader(index, recipe, spec=SPEC, batch=3, workers=0, seed=0)
    loader.set_epoch(0, "main")
    shapes = set()
    for batch in loader:
        for boxes, labels in zip(batch.targets.boxes, batch.targets.labels, strict=True):
            assert boxes.shape == (len(labels), 5) and str(boxes.dtype) == "torch.float32"
            w, h, angle = boxes[:, 2:].unbind(1)
            assert (w >= h).all() and (angle.abs() <= math.pi / 2 + 1e-6).all()
            shapes |= {tuple(box) for box in boxes.tolist()}
    assert len(shapes) >= 8


def test_a_target_is_the_rectangle_that_is_seen(index: DatasetIndex) -> None:
    """Centre, sides and direction from the first two moments of the object's pixels."""
    loader = training_loader(index, RANDOM_ROTATION, spec=SPEC, batch=12, workers=0, seed=1)
    loader.set_epoch(0, "main")
    (batch,) = loader
    compared = 0
    for image, boxes, labels in zip(batch.images, batch.targets.boxes, batch.targets.labels, strict=True):
        for box, label in zip(boxes.numpy(), labels.tolist(), strict=True):
            pixels = coloured(image.permute(1, 2, 0).numpy(), label)
            if pixels[[0, -1]].any() or pixels[:, [0, -1]].any():
                continue  # cut off
            y, x = np.nonzero(pixels)
            spread, directions = np.linalg.eigh(np.cov(np.stack([x, y])))
            np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], box[:2], atol=0.5)
            np.testing.assert_allclose(np.sqrt(12 * spread[::-1]), box[2:4], atol=1.5)
            if box[2] > 1.2 * box[3]:
                turn = math.atan2(directions[1, 1], directions[0, 1]) - box[4]
                assert abs((turn + math.pi / 2) % math.pi - math.pi / 2) < 0.04
            compared += 1
    assert compared >= 6


def angle_of(sample: Sample) -> float:
    return float(rectangles(sample.boxes)[0, 4])


def test_rotation_has_its_probability_and_any_angle(tmp_path: Path) -> None:
    index = write_index(tmp_path, [draw_rotated(100, 100, [(50, 50, 60, 20, 0.3)], [0])])
    recipe = RANDOM_ROTATION.model_copy(update={"flip": 0, "flip_vertical": 0})
    augmenter = Augmenter(index, recipe, SPEC)
    angles = np.array([angle_of(augmenter.sample(0, "main", np.random.default_rng(seed))) for seed in range(300)])
    as_it_was = np.isclose(angles, 0.3, atol=1e-4)
    assert as_it_was.mean() == pytest.approx(0.5, abs=0.08)
    turned = angles[~as_it_was]
    counts = np.histogram(turned, bins=4, range=(-math.pi / 2, math.pi / 2))[0]
    assert counts.sum() == len(turned) and counts.min() > 20


def test_with_some_classes_pictures_turn_by_right_angles(tmp_path: Path) -> None:
    scene = draw_rotated(100, 100, [(50, 50, 60, 20, 0.3)], [0])
    both = draw_rotated(100, 100, [(50, 50, 60, 20, 0.3), (50, 80, 10, 6, 0.3)], [0, 1])
    index = write_index(tmp_path, [scene, both])  # its classes are called a, b, ...
    recipe = RANDOM_ROTATION.model_copy(
        update={"flip": 0, "flip_vertical": 0, "rotation": 1, "right_angle_classes": ("b", "not here")}
    )
    augmenter = Augmenter(index, recipe, SPEC)

    def turns(row: int) -> np.ndarray:
        samples = [augmenter.sample(row, "main", np.random.default_rng(seed)) for seed in range(60)]
        return np.array([(angle_of(sample) - 0.3) / (math.pi / 2) for sample in samples])

    right = turns(1)
    np.testing.assert_allclose(right, right.round(), atol=1e-4)
    assert set(right.round().astype(int).tolist()) == {0, -1}  # in le90 a half turn is none
    assert (np.abs(turns(0) - turns(0).round()) > 0.01).mean() > 0.8


def test_two_flips_make_the_four_of_mmrotate(tmp_path: Path) -> None:
    index = write_index(tmp_path, [draw_rotated(SIZE, SIZE, [(40, 30, 50, 20, 0.3)], [0])])
    augmenter = Augmenter(index, RANDOM_ROTATION.model_copy(update={"rotation": 0}), SPEC)
    seen: dict[tuple[int, int, float], int] = {}
    for seed in range(200):
        box = rectangles(augmenter.sample(0, "main", np.random.default_rng(seed)).boxes)[0]
        key = (round(box[0]), round(box[1]), round(box[4], 3))
        seen[key] = seen.get(key, 0) + 1
    assert seen.keys() == {(40, 30, 0.3), (88, 30, -0.3), (40, 98, -0.3), (88, 98, 0.3)}
    assert min(seen.values()) > 30


def test_read_sample_leaves_out_difficult_objects_and_those_centred_outside(tmp_path: Path) -> None:
    boxes = [(40, 30, 30, 10, 0.3), (60, 60, 20, 10, 1.0), (99, 70, 40, 20, 0.5), (105, 20, 40, 20, 0.5)]
    index = write_index(tmp_path, [draw_rotated(100, 80, boxes, [0, 1, 2, 3])], [[0, DIFFICULT, 0, 0]])
    sample = read_sample(index, 0)
    assert sample.labels.tolist() == [0, 2]
    np.testing.assert_allclose(rectangles(sample.boxes), np.array(boxes)[[0, 2]], atol=1e-4)

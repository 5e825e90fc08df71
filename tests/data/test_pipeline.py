from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import COLOURS, draw, write_index

from ymir_tmi import imaging
from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data import pipeline
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.pipeline import Augmenter, read_sample
from ymir_tmi.data.sample import Sample
from ymir_tmi.errors import ImageError
from ymir_tmi.imaging import Interpolation

RTMDET = AugmentRecipe(mosaic_cache=8, mixup_cache=4, mixup=0.5, cache_eviction="oldest")
YOLOX = AugmentRecipe(
    mosaic_cache=0, mixup_cache=0, mixup_style="average", geometry="affine", scale=(0.1, 2.0), rotate=0, shear=0
)
YOLOV5 = YOLOX.model_copy(
    update={"mixup_style": "mosaics", "hsv": (0.015, 0.7, 0.4), "hsv_style": "multiply", "centre": True, "min_box": 2.0}
    | {"scale": (0.5, 1.5), "min_area": 0.1, "max_aspect": 20.0}
)
SQUARE = {"rtmdet": RTMDET, "yolox": YOLOX, "yolov5": YOLOV5}
PPYOLOE = AugmentRecipe(mosaic=0, mixup=0, geometry="expand_crop", hsv=(0, 0, 0))
RETINANET = AugmentRecipe(mosaic=0, mixup=0, geometry="shorter_side", hsv=(0, 0, 0), multiscale=(0.3, 1.0))
RECIPES = {**SQUARE, "ppyoloe": PPYOLOE, "retinanet": RETINANET}
SIZE = 96
SPEC = InputSpec(size=SIZE)


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    """Twelve pictures of different sizes with one large object each; its label says its colour."""
    rng = np.random.default_rng(0)
    samples = []
    for row in range(12):
        width, height = rng.integers(60, 160, 2).tolist()
        box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
        samples.append(draw(width, height, [box], [row % 6]))
    return write_index(tmp_path, samples)


def sample_of(augmenter: Augmenter, row: int, phase: Phase = "main", seed: int = 0) -> Sample:
    return augmenter.sample(row, phase, np.random.default_rng((seed, row)))


def colour_in_the_middle(sample: Sample, box: np.ndarray) -> np.ndarray:
    x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    return sample.image[y, x].astype(int)


@pytest.mark.parametrize("phase", ["main", "final"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_samples_have_the_size_of_the_network_and_boxes_inside(
    index: DatasetIndex, recipe: AugmentRecipe, phase: Phase
) -> None:
    augmenter = Augmenter(index, recipe, SPEC)
    for row in range(len(index)):
        sample = sample_of(augmenter, row, phase)
        if recipe in SQUARE.values():
            assert sample.size == (SIZE, SIZE)
        assert sample.image.dtype == np.uint8 and sample.image.shape[2] == 3
        assert sample.boxes.dtype == np.float32 and sample.labels.dtype == np.int64
        assert len(sample.boxes) == len(sample.labels) > 0
        assert sample.boxes.min() >= 0
        assert (sample.boxes[:, 2:] <= sample.size).all()
        assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() >= recipe.min_box


@pytest.mark.parametrize("phase", ["main", "final"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_box_lies_on_its_object(index: DatasetIndex, recipe: AugmentRecipe, phase: Phase) -> None:
    change = {"hsv": (0, 0, 0), "mixup": 0, "min_box": 4, "flip_vertical": 0.5}
    augmenter = Augmenter(index, recipe.model_copy(update=change), SPEC)
    numbers = []
    for row in range(len(index)):
        sample = sample_of(augmenter, row, phase)
        numbers.append(len(sample.boxes))
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            assert np.abs(colour_in_the_middle(sample, box) - COLOURS[label]).max() <= 3
        if phase == "final":
            assert sample.labels.tolist() == [row % 6]
    assert max(numbers) == (4 if phase == "main" and recipe in SQUARE.values() else 1)


@pytest.mark.parametrize("recipe", [RTMDET, YOLOX], ids=["rtmdet", "yolox"])
def test_mixup_shows_objects_of_a_second_picture(index: DatasetIndex, recipe: AugmentRecipe) -> None:
    mixed = recipe.model_copy(update={"mosaic": 0, "mixup": 1.0})
    augmenter = Augmenter(index, mixed, SPEC)
    numbers = [len(sample_of(augmenter, row).boxes) for row in range(len(index))]
    assert max(numbers) == 2  # one each; a random window may miss the second
    assert numbers.count(2) > len(index) / 2


def test_mixup_of_mosaics_shows_objects_of_eight_pictures(index: DatasetIndex) -> None:
    recipe = YOLOV5.model_copy(update={"scale": (0.5, 0.5), "translate": 0, "min_area": 0.0, "hsv": (0, 0, 0)})
    for mixup, most in ((0, 4), (1, 8)):
        augmenter = Augmenter(index, recipe.model_copy(update={"mixup": mixup}), SPEC)
        numbers = [len(sample_of(augmenter, row % 12, seed=row).boxes) for row in range(40)]
        assert max(numbers) == most
    black = Augmenter(index, recipe.model_copy(update={"mixup": 1, "mosaic": 0}), SPEC)
    assert max(len(sample_of(black, row).boxes) for row in range(12)) == 1  # without a mosaic there is none to mix


def test_a_part_of_the_mosaics_has_nine_pictures(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    for name in ("mosaic", "mosaic_of_nine"):
        operation = getattr(pipeline, name)
        monkeypatch.setattr(
            pipeline, name, lambda tiles, *more, act=operation: (made.append(len(tiles)), act(tiles, *more))[1]
        )
    augmenter = Augmenter(index, YOLOV5.model_copy(update={"mosaic_nine": 0.2, "mixup": 0}), SPEC)
    for row in range(120):
        sample_of(augmenter, row % 12, seed=row)
    assert set(made) == {4, 9}
    assert np.mean(np.array(made) == 9) == pytest.approx(0.2, abs=0.11)


def test_closing_epochs_may_warp_whole_pictures(index: DatasetIndex) -> None:
    plain = YOLOV5.model_copy(update={"flip": 0, "translate": 0, "scale": (0.1, 0.1), "closing_scale": (0.5, 0.5)})
    augmenter = Augmenter(index, plain, SPEC)
    for row in range(len(index)):
        ratio = 0.5 * SIZE / index.sizes[row].max()
        (box,) = sample_of(augmenter, row, "final").boxes
        np.testing.assert_allclose(box[2:] - box[:2], (index.boxes[row, 2:] - index.boxes[row, :2]) * ratio, atol=1)
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, (SIZE / 2, SIZE / 2), atol=1)  # objects are in the middle


@pytest.mark.parametrize("row", range(12))
def test_shorter_side_is_one_of_the_sizes(index: DatasetIndex, row: int) -> None:
    spec = InputSpec(size=SIZE, resize="shorter", longest=120, rounding="nearest")
    augmenter = Augmenter(index, RETINANET.model_copy(update={"flip": 0}), spec)
    seen = set()
    for seed in range(30):
        sample = sample_of(augmenter, row, seed=seed)
        width, height = index.sizes[row].tolist()
        ratio = min(SIZE / min(width, height), 120 / max(width, height))
        options = {size: min(size / min(width, height), 120 / max(width, height)) for size in (32, 64, 96)}
        matching = [s for s, r in options.items() if sample.size == (int(width * r + 0.5), int(height * r + 0.5))]
        assert matching and max(sample.size) <= 120 and ratio <= options[96]
        seen |= set(matching)
    assert seen == {32, 64, 96}


@pytest.mark.parametrize(("size", "interpolation"), [(64, "nearest"), (160, "bicubic"), (96, "area"), (96, None)])
def test_samples_of_any_size_are_stretched_to_that_of_the_batch(
    index: DatasetIndex, size: int, interpolation: Interpolation | None
) -> None:
    augmenter = Augmenter(index, PPYOLOE, SPEC)
    samples = [sample_of(augmenter, row) for row in range(6)]
    assert len({sample.size for sample in samples}) > 1
    for before, after in zip(samples, augmenter.join(samples, size, interpolation), strict=True):
        assert after.size == (size, size)
        scale = np.tile(np.array([size / side for side in before.size], np.float32), 2)
        np.testing.assert_allclose(after.boxes, before.boxes * scale, rtol=1e-6)
        if interpolation is not None:
            expected = imaging.resize(before.image, size, size, interpolation)
            np.testing.assert_array_equal(after.image, expected)


def test_samples_are_padded_to_the_smallest_common_size(index: DatasetIndex) -> None:
    spec = InputSpec(size=64, resize="shorter", longest=120, fill=(1, 2, 3))
    augmenter = Augmenter(index, RETINANET.model_copy(update={"multiscale": None, "flip": 0}), spec)
    samples = [sample_of(augmenter, row) for row in range(6)]
    joined = augmenter.join(samples, 64, None)
    width, height = (-(-max(sides) // 32) * 32 for sides in zip(*(sample.size for sample in samples), strict=True))
    for before, after in zip(samples, joined, strict=True):
        assert after.size == (width, height)
        np.testing.assert_array_equal(after.boxes, before.boxes)
        np.testing.assert_array_equal(after.image[: before.size[1], : before.size[0]], before.image)
        assert (after.image[before.size[1] :] == (1, 2, 3)).all()
        assert (after.image[:, before.size[0] :] == (1, 2, 3)).all()


def test_distortion_and_degradation_are_asked_for(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("distort", "degrade"):
        monkeypatch.setattr(pipeline, name, lambda image, p, rng, name=name: (asked.append((name, p)), image)[1])
    recipe = YOLOV5.model_copy(update={"distort": 0.25, "degrade": 0.01, "mixup": 1})
    sample_of(Augmenter(index, recipe, SPEC), 0)
    assert asked == [("distort", 0.25)] * 8 + [("degrade", 0.01)]  # each picture as it is read, then the sample


def test_the_closing_phase_of_yolox_is_a_letterbox(index: DatasetIndex) -> None:
    augmenter = Augmenter(index, YOLOX.model_copy(update={"flip": 0}), SPEC)
    for row in range(len(index)):
        ratio = SIZE / index.sizes[row].max()
        np.testing.assert_allclose(sample_of(augmenter, row, "final").boxes[0], index.boxes[row] * ratio, atol=1)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_nothing_but_the_generator_and_the_caches_decides(index: DatasetIndex, recipe: AugmentRecipe) -> None:
    first, second = Augmenter(index, recipe, SPEC), Augmenter(index, recipe, SPEC)
    sample_of(second, 3)  # other pictures in the caches
    second.empty_caches()
    np.random.seed(1)  # the global state must not matter
    for row in range(6):
        one, two = sample_of(first, row), sample_of(second, row)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.labels, two.labels)
    different = {sample_of(first, 0, seed=seed).image.tobytes() for seed in range(6)}
    assert len(different) > 1


def test_without_caches_the_calls_before_do_not_matter(index: DatasetIndex) -> None:
    recipe = RTMDET.model_copy(update={"mosaic_cache": 0, "mixup_cache": 0})
    fresh, used = Augmenter(index, recipe, SPEC), Augmenter(index, recipe, SPEC)
    for row in range(5):
        sample_of(used, row)
    np.testing.assert_array_equal(sample_of(fresh, 9).image, sample_of(used, 9).image)


@pytest.mark.parametrize("recipe", [RTMDET, YOLOX], ids=["rtmdet", "yolox"])
def test_with_caches_each_picture_is_read_once(
    index: DatasetIndex, recipe: AugmentRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        "ymir_tmi.data.pipeline.read_sample",
        lambda index, row, **how: (read.append(row), read_sample(index, row, **how))[1],
    )
    always = recipe.model_copy(update={"mixup": 1, "scale": (0.5, 0.5)})
    augmenter = Augmenter(index, always.model_copy(update={"mosaic_cache": 8, "mixup_cache": 4}), SPEC)
    for row in range(10):
        sample_of(augmenter, row)
    assert len(read) == 10 + 3 + 1  # the first mosaic and the first mixup find their caches empty

    read.clear()
    augmenter = Augmenter(index, always.model_copy(update={"mosaic_cache": 0, "mixup_cache": 0}), SPEC)
    for row in range(10):
        sample_of(augmenter, row)
    assert len(read) == 10 * (8 if recipe is RTMDET else 5)  # the partner in mixup is a mosaic, or one picture


def test_partners_in_a_cached_mosaic_are_the_pictures_before(index: DatasetIndex) -> None:
    recipe = RTMDET.model_copy(update={"mosaic_cache": 3, "mixup": 0, "scale": (0.5, 0.5)})
    augmenter = Augmenter(index, recipe, SPEC)
    for row in range(6):
        sample_of(augmenter, row)
    assert set(sample_of(augmenter, 6).labels) == {0, 3, 4, 5}  # of rows 6, 3, 4 and 5


def test_partners_in_a_cached_mixup_are_the_pictures_before(index: DatasetIndex) -> None:
    changed = {"mosaic": 0, "mixup_cache": 2, "mixup_scale": (1, 1), "scale": (1, 1), "cache_eviction": "oldest"}
    augmenter = Augmenter(index, YOLOX.model_copy(update=changed), SPEC)
    labels = [set(sample_of(augmenter, row).labels.tolist()) for row in range(6)]
    assert all(labels[row] in ({row, row - 1}, {row, row - 2}) for row in range(2, 6))


@pytest.mark.parametrize("mosaic", [0, 1])
@pytest.mark.parametrize("recipe", SQUARE.values(), ids=SQUARE)
def test_at_scale_1_objects_are_as_large_as_in_a_fitted_picture(
    tmp_path: Path, recipe: AugmentRecipe, mosaic: int
) -> None:
    index = write_index(tmp_path, [draw(48, 48, [(16, 16, 28, 28)], [row]) for row in range(6)])
    augmenter = Augmenter(index, recipe.model_copy(update={"scale": (1, 1), "mixup": 0, "mosaic": mosaic}), SPEC)
    boxes = np.concatenate([sample_of(augmenter, row % 6, seed=row).boxes for row in range(30)])
    whole = boxes[(boxes[:, :2].min(axis=1) > 0) & (boxes[:, 2:].max(axis=1) < 96)]
    assert len(whole) >= 15
    sides = whole[:, 2:] - whole[:, :2]
    assert np.median(sides) == pytest.approx(24)
    assert sides.max() == pytest.approx(24)


def test_pictures_without_objects_stay_but_lost_objects_mean_another_picture(tmp_path: Path) -> None:
    # Twice the size in a window of once the size: the corner object is mostly missed, the large one never.
    corner, empty, large = draw(96, 96, [(0, 0, 24, 24)], [0]), draw(96, 96, []), draw(96, 96, [(4, 4, 92, 92)], [1])
    index = write_index(tmp_path, [corner, empty, large])
    augmenter = Augmenter(index, RTMDET.model_copy(update={"scale": (2, 2), "hsv": (0, 0, 0)}), SPEC)
    of_corner = [sample_of(augmenter, 0, "final", seed) for seed in range(30)]
    of_empty = [sample_of(augmenter, 1, "final", seed) for seed in range(30)]
    assert all(len(sample.boxes) == 0 and (sample.image < 60).all() for sample in of_empty)
    assert {tuple(sample.labels) for sample in of_corner} == {(0,), (1,), ()}  # (): replaced by the empty picture
    for sample in of_corner:
        shows_corner_picture = (np.abs(sample.image.astype(int) - COLOURS[0]).sum(axis=2) < 120).any()
        assert shows_corner_picture == (0 in sample.labels)


def test_a_set_whose_objects_are_always_lost_still_gives_samples(tmp_path: Path) -> None:
    index = write_index(tmp_path, [draw(96, 96, [(0, 0, 6, 6)], [0])])
    augmenter = Augmenter(index, RTMDET.model_copy(update={"min_box": 50}), SPEC)
    assert sample_of(augmenter, 0, "final").boxes.shape == (0, 4)


def test_crowds_and_difficult_objects_are_not_learnt(tmp_path: Path) -> None:
    scene = draw(80, 60, [(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50), (60, 0, 99, 99)], [0, 1, 2, 3])
    index = write_index(tmp_path, [scene], [[0, CROWD, DIFFICULT, 0]])
    sample = read_sample(index, 0)
    assert sample.labels.tolist() == [0, 3]
    np.testing.assert_array_equal(sample.boxes, [[0, 0, 10, 10], [60, 0, 80, 60]])  # cut at the border
    np.testing.assert_array_equal(sample.image, scene.image)


def test_an_unreadable_picture_is_replaced_and_noted(index: DatasetIndex) -> None:
    Path(index.paths[4]).write_bytes(b"")
    augmenter = Augmenter(index, YOLOX.model_copy(update={"hsv": (0, 0, 0)}), SPEC)
    sample = sample_of(augmenter, 4, "final")
    assert len(sample.boxes) == 1
    assert list(augmenter.failed) == [index.paths[4]]
    assert "empty" in augmenter.failed[index.paths[4]]
    again = sample_of(Augmenter(index, YOLOX.model_copy(update={"hsv": (0, 0, 0)}), SPEC), 4, "final")
    np.testing.assert_array_equal(sample.image, again.image)


def test_a_set_without_readable_pictures_stops(index: DatasetIndex) -> None:
    for row in range(len(index)):
        Path(index.paths[row]).unlink()
    with pytest.raises(ImageError, match="in a row") as caught:
        sample_of(Augmenter(index, RTMDET, SPEC), 0)
    assert caught.value.fix

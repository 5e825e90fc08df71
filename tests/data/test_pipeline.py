from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import COLOURS, draw, write_index

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.data.pipeline import Augmenter, read_sample
from ymir_tmi.data.sample import Sample
from ymir_tmi.errors import ImageError

RTMDET = AugmentRecipe(mosaic_cache=8, mixup_cache=4, mixup=0.5, cache_eviction="oldest")
YOLOX = AugmentRecipe(
    mosaic_cache=0, mixup_cache=0, mixup_style="average", geometry="affine", scale=(0.1, 2.0), rotate=0, shear=0
)
RECIPES = {"rtmdet": RTMDET, "yolox": YOLOX}
SIZE = 96


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
    augmenter = Augmenter(index, recipe, SIZE)
    for row in range(len(index)):
        sample = sample_of(augmenter, row, phase)
        assert sample.image.shape == (SIZE, SIZE, 3) and sample.image.dtype == np.uint8
        assert sample.boxes.dtype == np.float32 and sample.labels.dtype == np.int64
        assert len(sample.boxes) == len(sample.labels) > 0
        assert sample.boxes.min() >= 0 and sample.boxes.max() <= SIZE
        assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() >= recipe.min_box


@pytest.mark.parametrize("phase", ["main", "final"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_box_lies_on_its_object(index: DatasetIndex, recipe: AugmentRecipe, phase: Phase) -> None:
    augmenter = Augmenter(index, recipe.model_copy(update={"hsv": (0, 0, 0), "mixup": 0, "min_box": 4}), SIZE)
    numbers = []
    for row in range(len(index)):
        sample = sample_of(augmenter, row, phase)
        numbers.append(len(sample.boxes))
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            assert np.abs(colour_in_the_middle(sample, box) - COLOURS[label]).max() <= 3
        if phase == "final":
            assert sample.labels.tolist() == [row % 6]
    assert max(numbers) == (1 if phase == "final" else 4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_mixup_shows_objects_of_a_second_picture(index: DatasetIndex, recipe: AugmentRecipe) -> None:
    mixed = recipe.model_copy(update={"mosaic": 0, "mixup": 1.0})
    augmenter = Augmenter(index, mixed, SIZE)
    numbers = [len(sample_of(augmenter, row).boxes) for row in range(len(index))]
    assert max(numbers) == 2  # one each; a random window may miss the second
    assert numbers.count(2) > len(index) / 2


def test_the_closing_phase_of_yolox_is_a_letterbox(index: DatasetIndex) -> None:
    augmenter = Augmenter(index, YOLOX.model_copy(update={"flip": 0}), SIZE)
    for row in range(len(index)):
        ratio = SIZE / index.sizes[row].max()
        np.testing.assert_allclose(sample_of(augmenter, row, "final").boxes[0], index.boxes[row] * ratio, atol=1)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_nothing_but_the_generator_and_the_caches_decides(index: DatasetIndex, recipe: AugmentRecipe) -> None:
    first, second = Augmenter(index, recipe, SIZE), Augmenter(index, recipe, SIZE)
    sample_of(second, 3)  # other pictures in the caches
    second.empty_caches()
    np.random.seed(1)  # the global state must not matter
    for row in range(6):
        one, two = sample_of(first, row), sample_of(second, row)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.labels, two.labels)
    assert (sample_of(first, 0, seed=0).image != sample_of(first, 0, seed=1).image).any()


def test_without_caches_the_calls_before_do_not_matter(index: DatasetIndex) -> None:
    recipe = RTMDET.model_copy(update={"mosaic_cache": 0, "mixup_cache": 0})
    fresh, used = Augmenter(index, recipe, SIZE), Augmenter(index, recipe, SIZE)
    for row in range(5):
        sample_of(used, row)
    np.testing.assert_array_equal(sample_of(fresh, 9).image, sample_of(used, 9).image)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_with_caches_each_picture_is_read_once(
    index: DatasetIndex, recipe: AugmentRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        "ymir_tmi.data.pipeline.read_sample", lambda index, row: (read.append(row), read_sample(index, row))[1]
    )
    always = recipe.model_copy(update={"mixup": 1, "scale": (0.5, 0.5)})
    augmenter = Augmenter(index, always.model_copy(update={"mosaic_cache": 8, "mixup_cache": 4}), SIZE)
    for row in range(10):
        sample_of(augmenter, row)
    assert len(read) == 10 + 3 + 1  # the first mosaic and the first mixup find their caches empty

    read.clear()
    augmenter = Augmenter(index, always.model_copy(update={"mosaic_cache": 0, "mixup_cache": 0}), SIZE)
    for row in range(10):
        sample_of(augmenter, row)
    assert len(read) == 10 * (8 if recipe is RTMDET else 5)  # the partner in mixup is a mosaic, or one picture


def test_partners_in_a_cached_mosaic_are_the_pictures_before(index: DatasetIndex) -> None:
    recipe = RTMDET.model_copy(update={"mosaic_cache": 3, "mixup": 0, "scale": (0.5, 0.5)})
    augmenter = Augmenter(index, recipe, SIZE)
    for row in range(6):
        sample_of(augmenter, row)
    assert set(sample_of(augmenter, 6).labels) == {0, 3, 4, 5}  # of rows 6, 3, 4 and 5


def test_partners_in_a_cached_mixup_are_the_pictures_before(index: DatasetIndex) -> None:
    changed = {"mosaic": 0, "mixup_cache": 2, "mixup_scale": (1, 1), "scale": (1, 1), "cache_eviction": "oldest"}
    augmenter = Augmenter(index, YOLOX.model_copy(update=changed), SIZE)
    labels = [set(sample_of(augmenter, row).labels.tolist()) for row in range(6)]
    assert all(labels[row] in ({row, row - 1}, {row, row - 2}) for row in range(2, 6))


@pytest.mark.parametrize("mosaic", [0, 1])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_at_scale_1_objects_are_as_large_as_in_a_fitted_picture(
    tmp_path: Path, recipe: AugmentRecipe, mosaic: int
) -> None:
    index = write_index(tmp_path, [draw(48, 48, [(16, 16, 28, 28)], [row]) for row in range(6)])
    augmenter = Augmenter(index, recipe.model_copy(update={"scale": (1, 1), "mixup": 0, "mosaic": mosaic}), 96)
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
    augmenter = Augmenter(index, RTMDET.model_copy(update={"scale": (2, 2), "hsv": (0, 0, 0)}), 96)
    of_corner = [sample_of(augmenter, 0, "final", seed) for seed in range(30)]
    of_empty = [sample_of(augmenter, 1, "final", seed) for seed in range(30)]
    assert all(len(sample.boxes) == 0 and (sample.image < 60).all() for sample in of_empty)
    assert {tuple(sample.labels) for sample in of_corner} == {(0,), (1,), ()}  # (): replaced by the empty picture
    for sample in of_corner:
        shows_corner_picture = (np.abs(sample.image.astype(int) - COLOURS[0]).sum(axis=2) < 120).any()
        assert shows_corner_picture == (0 in sample.labels)


def test_a_set_whose_objects_are_always_lost_still_gives_samples(tmp_path: Path) -> None:
    index = write_index(tmp_path, [draw(96, 96, [(0, 0, 6, 6)], [0])])
    augmenter = Augmenter(index, RTMDET.model_copy(update={"min_box": 50}), 96)
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
    augmenter = Augmenter(index, YOLOX.model_copy(update={"hsv": (0, 0, 0)}), SIZE)
    sample = sample_of(augmenter, 4, "final")
    assert len(sample.boxes) == 1
    assert list(augmenter.failed) == [index.paths[4]]
    assert "empty" in augmenter.failed[index.paths[4]]
    again = sample_of(Augmenter(index, YOLOX.model_copy(update={"hsv": (0, 0, 0)}), SIZE), 4, "final")
    np.testing.assert_array_equal(sample.image, again.image)


def test_a_set_without_readable_pictures_stops(index: DatasetIndex) -> None:
    for row in range(len(index)):
        Path(index.paths[row]).unlink()
    with pytest.raises(ImageError, match="in a row") as caught:
        sample_of(Augmenter(index, RTMDET, SIZE), 0)
    assert caught.value.fix

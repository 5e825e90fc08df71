"""Augmentation of pictures whose every pixel has a class, by pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from label_maps import LabelMap, blocks, write_mask_folder

from ymir_tmi import imaging
from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.colours import distort_stepwise
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.loader import TrainingLoader, training_loader
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.semantic_pipeline import (
    SemanticAugmenter,
    crop_classes,
    mean_colour,
    pad_right_below,
    resize_by_ratio,
)
from ymir_tmi.data.semantics import as_semantics
from ymir_tmi.data.shapes import largest_batch
from ymir_tmi.errors import ImageError
from ymir_tmi.imaging import Image

CITYSCAPES = InputSpec(
    size=1024, resize="shorter", longest=2048, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)
PADDING = (124, 116, 104)


def drawn(labels: LabelMap) -> Sample:
    """A picture in which every class has a colour; pixels that do not count are black."""
    image = np.where((labels < 3)[..., None], COLOURS[labels % 3], 0).astype(np.uint8)
    return Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), label_map=labels)


def write_drawn(folder: Path, maps: dict[str, LabelMap]) -> DatasetIndex:
    write_mask_folder(folder, maps, ("a", "b", "c"))
    for stem, labels in maps.items():
        imaging.write_image(folder / "images" / f"{stem}.png", drawn(labels).image)
    return as_semantics(read_dataset([str(folder)]))


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((2048, 1024), 1.0, (2048, 1024)),
        ((2048, 1024), 0.5, (1024, 512)),
        ((640, 640), 1.0, (1024, 1024)),
        ((640, 640), 1.5, (1536, 1536)),
        ((1000, 200), 0.75, (1536, 307)),  # 2048 * 0.75 / 1000 * 200 is 307.2
        ((300, 200), 1.21, (1859, 1239)),  # int(1239.04) / 200 * 300 is 1858.5, which is rounded up
    ],
)
def test_resize_fits_into_the_input_times_the_ratio(
    size: tuple[int, int], ratio: float, expected: tuple[int, int]
) -> None:
    resized = resize_by_ratio(drawn(np.zeros(size[::-1], np.uint8)), ratio, CITYSCAPES)
    assert resized.size == expected
    assert resized.label_map is not None and resized.label_map.shape == resized.image.shape[:2]


def test_resize_keeps_picture_and_labels_together() -> None:
    """Doubled, the labels are exactly the blocks; inside a block the picture has its colour."""
    labels = blocks(0, 3, ignored=True)
    resized = resize_by_ratio(drawn(labels), 2.0, InputSpec(size=40, resize="shorter"))
    assert resized.label_map is not None
    np.testing.assert_array_equal(resized.label_map, np.kron(labels, np.ones((2, 2), np.uint8)))
    inner = np.zeros_like(labels, np.bool_)
    for y in range(40):
        for x in range(60):
            inner[y, x] = y % 5 == 2 and x % 5 == 2
    inner = np.kron(inner, np.ones((2, 2), np.bool_))
    np.testing.assert_array_equal(resized.image[inner], drawn(resized.label_map).image[inner])
    assert (resized.image != drawn(resized.label_map).image).any(), "colours are interpolated, labels are not"


def test_labels_lie_where_the_picture_does() -> None:
    """The edge between two classes is where the picture is half one colour, half the other, at any scale."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 31:] = 1
    for ratio in np.linspace(0.5, 2, 31):
        resized = resize_by_ratio(drawn(labels), ratio, InputSpec(size=40, resize="shorter"))
        assert resized.label_map is not None
        red, green = resized.image[0, :, 0].astype(int), resized.image[0, :, 1].astype(int)
        clear = np.abs(red - green) > 10
        np.testing.assert_array_equal(resized.label_map[0, clear], (green > red)[clear])


def windows_of(labels: LabelMap, size: tuple[int, int], limit: float, count: int = 400) -> list[LabelMap]:
    rng = np.random.default_rng(0)
    cut = [crop_classes(drawn(labels), size, limit, rng) for _ in range(count)]
    for sample in cut:
        assert sample.label_map is not None
        np.testing.assert_array_equal(sample.image, drawn(sample.label_map).image)
    return [sample.label_map for sample in cut if sample.label_map is not None]


def test_crop_is_equally_likely_everywhere() -> None:
    labels = np.arange(7 * 9).reshape(7, 9).astype(np.uint8)  # every pixel is of a class of its own
    corners = [int(window[0, 0]) for window in windows_of(labels, (5, 6), 1.0, 4800)]
    allowed = [int(labels[y, x]) for y in range(3) for x in range(4)]
    counts = [corners.count(corner) for corner in allowed]
    assert sum(counts) == 4800
    assert abs(np.array(counts) - 400).max() < 5 * np.sqrt(400)
    assert {window.shape for window in windows_of(labels, (5, 20), 1.0, 50)} == {(5, 9)}
    assert {window.shape for window in windows_of(labels, (20, 20), 0.75, 5)} == {(7, 9)}


def test_crops_with_several_classes_are_preferred() -> None:
    """Of 41 windows 20 show both classes, and in 9 of these neither has 75 %; eleven draws miss those rarely."""
    labels = np.zeros((20, 60), np.uint8)
    labels[:, 30:] = 1
    shares = [max((window == 0).mean(), (window == 1).mean()) for window in windows_of(labels, (20, 20), 0.75)]
    good = np.mean(np.array(shares) < 0.75)
    expected = 1 - (1 - 9 / 41) ** 11
    assert abs(good - expected) < 4 * np.sqrt(expected * (1 - expected) / 400)
    first = [max((window == 0).mean(), (window == 1).mean()) for window in windows_of(labels, (20, 20), 1.0)]
    assert abs(np.mean(np.array(first) < 0.75) - 9 / 41) < 4 * np.sqrt(9 / 41 * 32 / 41 / 400)


def test_pixels_that_do_not_count_are_no_class_of_a_crop() -> None:
    """The only windows with two classes that count hold half of each, and mostly pixels that do not."""
    labels = np.full((10, 40), 255, np.uint8)
    labels[:, :10] = 0
    labels[4:6, 30:] = 1
    labels[6:8, 30:] = 2
    seen = [set(np.unique(window).tolist()) - {255} for window in windows_of(labels, (10, 10), 0.75)]
    assert np.mean([classes == {1, 2} for classes in seen]) > 0.9


def test_padding_is_nothing_after_normalisation_and_does_not_count() -> None:
    labels = blocks(1, 3)
    padded = pad_right_below(drawn(labels), (70, 90), mean_colour(CITYSCAPES))
    assert padded.label_map is not None
    np.testing.assert_array_equal(padded.label_map[:40, :60], labels)
    np.testing.assert_array_equal(padded.image[:40, :60], drawn(labels).image)
    outside = np.ones((70, 90), np.bool_)
    outside[:40, :60] = False
    assert (padded.label_map[outside] == 255).all()
    assert (padded.image[outside] == PADDING).all()
    assert mean_colour(CITYSCAPES.model_copy(update={"channels": "bgr"})) == PADDING[::-1]
    normalised = (padded.image[outside] - np.array(CITYSCAPES.mean)) / CITYSCAPES.std
    assert np.abs(normalised).max() < 0.01


# A slow version of the changes of colour, on BGR as their description has it.
def slowly_distorted(image: Image, probability: float, rng: np.random.Generator) -> Image:
    bgr = np.ascontiguousarray(image[..., ::-1])
    if rng.random() < probability:
        bgr = cut(bgr.astype(np.float32) + np.float32(rng.uniform(-32, 32)))
    last = rng.random() < 0.5
    if not last and rng.random() < probability:
        bgr = cut(bgr.astype(np.float32) * np.float32(rng.uniform(0.5, 1.5)))
    if rng.random() < probability:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = cut(hsv[..., 1].astype(np.float32) * np.float32(rng.uniform(0.5, 1.5)))
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.random() < probability:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-18, 18))) % 180
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if last and rng.random() < probability:
        bgr = cut(bgr.astype(np.float32) * np.float32(rng.uniform(0.5, 1.5)))
    return bgr[..., ::-1]


def cut(values: np.ndarray) -> Image:
    return np.trunc(np.clip(values, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_colours_are_those_of_the_slow_version(probability: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    before = image.copy()
    changed = 0
    for seed in range(40):
        found = distort_stepwise(image, probability, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, slowly_distorted(image, probability, np.random.default_rng(seed)))
        changed += (found != image).any()
    assert changed > 35
    np.testing.assert_array_equal(image, before)
    rng = np.random.default_rng(0)
    assert distort_stepwise(image, 0.0, rng) is image
    assert rng.random() == np.random.default_rng(0).random()


MAPS = {f"p{seed}": blocks(seed, 3, width=width, ignored=True) for seed, width in enumerate((60, 60, 80, 40, 100))}
SPEC = CITYSCAPES.model_copy(update={"size": 40, "longest": 80})
AUGMENT = AugmentRecipe(geometry="ratio_crop", crop=(32, 48))


def loader(index: DatasetIndex, augment: AugmentRecipe = AUGMENT, workers: int = 0) -> TrainingLoader:
    return training_loader(index, augment, spec=SPEC, batch=2, workers=workers, seed=5)


def batches(loader: TrainingLoader, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.set_epoch(epoch, "main")
    found = []
    for batch in loader:
        assert batch.targets.label_maps is not None and batch.targets.masks is None
        assert [boxes.shape for boxes in batch.targets.boxes] == [(0, 4)] * 2
        assert [labels.shape for labels in batch.targets.labels] == [(0,)] * 2
        found.append((batch.images, batch.targets.label_maps))
    return found


def same(first: list[tuple[torch.Tensor, ...]], second: list[tuple[torch.Tensor, ...]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(one, other) for a, b in pairs for one, other in zip(a, b, strict=True))


def test_batches(tmp_path: Path) -> None:
    """Pictures and labels of a batch belong together, and where a pixel does not count it is black or padding."""
    index = write_drawn(tmp_path, MAPS)
    for images, labels in batches(loader(index), 0):
        assert images.shape == (2, 3, 32, 48) and images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (2, 32, 48) and labels.dtype == torch.uint8
        pixels = images.permute(0, 2, 3, 1).numpy().astype(int)
        for label, colour in enumerate(COLOURS):
            near = np.abs(pixels - colour).sum(axis=-1) < 60
            assert near.sum() > 100
            assert (labels.numpy()[near] == label).all()


def test_epochs_can_be_repeated(tmp_path: Path) -> None:
    index = write_drawn(tmp_path, MAPS)
    augment = AUGMENT.model_copy(update={"photometric": 0.5, "flip_vertical": 0.5})
    first = batches(loader(index, augment), 0)
    assert same(first, batches(loader(index, augment), 0))
    assert not same(first, batches(loader(index, augment), 1))
    with_workers = loader(index, augment, workers=2)
    assert same(first, batches(with_workers, 0))
    with_workers.close()


def test_flips(tmp_path: Path) -> None:
    """A picture that is neither scaled nor cropped comes in as many forms as there are flips."""
    labels = blocks(3, 3)
    index = write_drawn(tmp_path, {"a": labels})
    whole = AUGMENT.model_copy(update={"ratio": (1.0, 1.0), "crop": (40, 60), "flip": 0.5, "flip_vertical": 0.5})
    augmenter = SemanticAugmenter(index, whole, SPEC)
    forms = {}
    for seed in range(40):
        sample = augmenter.sample(0, "main", np.random.default_rng(seed))
        assert sample.label_map is not None
        np.testing.assert_array_equal(sample.image, drawn(sample.label_map).image)
        forms[sample.label_map.tobytes()] = sample.label_map
    expected = [labels, labels[:, ::-1], labels[::-1], labels[::-1, ::-1]]
    assert forms.keys() == {form.tobytes() for form in expected}


def test_a_label_map_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    index = write_drawn(tmp_path, {f"p{seed}": blocks(seed, 3) for seed in range(20)})
    (tmp_path / "masks" / "p3.png").unlink()
    some = loader(index)
    with pytest.warns(UserWarning, match=r"goes on without a picture: .*p3\.png: cannot read this label picture"):
        assert len(batches(some, 0)) == 10
    for name in ("p4", "p5", "p6"):
        (tmp_path / "masks" / f"{name}.png").write_bytes(b"")
    with pytest.raises(ImageError, match="3 of 20 training images"), pytest.warns(UserWarning):
        batches(loader(index), 0)


def test_size_of_crops() -> None:
    assert largest_batch(AUGMENT, SPEC) == (32, 48)
    assert largest_batch(AugmentRecipe(geometry="ratio_crop"), SPEC) == (40, 40)

"""Outlines on their way to the network: drawn, changed, and found again by their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn import COLOURS, coloured, draw, draw_outlined, write_index

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data import crops, mosaic, transforms
from ymir_tmi.data.batch import Phase
from ymir_tmi.data.copy_paste import copy_paste
from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.loader import training_loader
from ymir_tmi.data.pipeline import Augmenter, read_sample
from ymir_tmi.data.sample import Sample
from ymir_tmi.data.segments import OutlineReader, image_outlines
from ymir_tmi.errors import ImageError

Rng = np.random.Generator

SIZE = 128
SPEC = InputSpec(size=SIZE)
# A bracket open to the left, a triangle, a block with a slanted side, and two pieces, all inside the picture.
BRACKET = [[30.0, 20, 80, 20, 80, 90, 30, 90, 30, 75, 62, 75, 62, 36, 30, 36]]
TRIANGLE = [[95.0, 12, 135, 30, 100, 52]]
BLOCK = [[92.0, 60, 134, 70, 120, 104, 92, 104]]
PIECES = [[2.0, 2, 22, 2, 22, 26, 2, 26], [2.0, 60, 20, 60, 20, 106, 2, 106]]
SCENE = draw_outlined(140, 110, [BRACKET, TRIANGLE, BLOCK, PIECES], [0, 1, 2, 3])
OTHER = draw_outlined(120, 120, [[[30.0, 30, 90, 50, 60, 95]]], [4])

OPERATIONS: dict[str, Callable[[Sample, Rng], Sample]] = {
    "stretched": lambda s, rng: transforms.resize(s, 200, 120),
    "enlarged": lambda s, rng: transforms.fit(s, 251),
    "shrunk": lambda s, rng: transforms.fit(s, 100),
    "padded": lambda s, rng: transforms.pad(s, 190, 150, left=11, top=23),
    "letterboxed": lambda s, rng: transforms.letterbox_square(s, 160, centre=True),
    "mirrored": lambda s, rng: transforms.flip_horizontal(s),
    "upside down": lambda s, rng: transforms.flip_vertical(s),
    "cropped": lambda s, rng: transforms.random_resize_crop(s, 180, 128, (0.8, 2.0), rng),
    "turned": lambda s, rng: transforms.turn(s, rng.uniform(-180, 180)),
    "scaled, turned and sheared": lambda s, rng: transforms.random_affine(
        s, 200, scale=(0.8, 1.5), rotate=180, shear=10, translate=0.4, rng=rng
    ),
    "seen from aside": lambda s, rng: transforms.random_affine(
        s, 200, scale=(1.0, 1.5), rotate=30, shear=0, translate=0.0, perspective=0.001, rng=rng
    ),
    "expanded": lambda s, rng: crops.expand(s, 2.0, rng),
    "cropped around objects": lambda s, rng: crops.crop_by_overlap(s, rng),
    "in a mosaic": lambda s, rng: mosaic.mosaic([s, OTHER, OTHER, OTHER], 140, rng),
    "in a mosaic of nine": lambda s, rng: mosaic.mosaic_of_nine([s, *[OTHER] * 8], 140, rng),
    "in a warped mosaic": lambda s, rng: transforms.random_affine(
        mosaic.mosaic([s, OTHER, OTHER, OTHER], 140, rng),
        200,
        scale=(0.6, 1.5),
        rotate=10,
        shear=5,
        translate=0.3,
        rng=rng,
    ),
}


CROP_AROUND = OPERATIONS["cropped around objects"]


def rim(mask: np.ndarray, pixels: int = 2) -> np.ndarray:
    """Return where a mask changes within some pixels."""
    window = np.ones((2 * pixels + 1,) * 2, np.uint8)
    return (cv2.dilate(mask.astype(np.uint8), window) != cv2.erode(mask.astype(np.uint8), window)).astype(bool)


def check_objects(result: Sample, labels: Iterable[int], most_wrong: int = 2) -> None:
    """Each outline covers the pixels of its object and no others, but for its rim; its box is that around it."""
    assert result.outlines is not None and len(result.outlines) == len(result.labels) == len(result.boxes)
    assert result.outlines.edges.dtype == result.boxes.dtype == np.float32
    np.testing.assert_array_equal(result.boxes, result.outlines.hulls())
    for label in labels:
        mask = result.outlines.take(result.labels == label).bitmap(*result.size)
        wrong = coloured(result.image, label) != mask
        assert (wrong & ~rim(mask)).sum() <= most_wrong


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_outlines_stay_on_their_pixels(operation: Callable[[Sample, Rng], Sample], seed: int) -> None:
    result = operation(SCENE, np.random.default_rng(seed))
    assert len(result.boxes)
    # A crop around objects leaves out those whose middle is outside.
    check_objects(result, result.labels.tolist() if operation is CROP_AROUND else [0, 1, 2, 3])
    assert (result.boxes >= 0).all() and (result.boxes[:, 2:] <= result.size).all()


def test_arguments_are_left_alone() -> None:
    for operation in OPERATIONS.values():
        operation(SCENE, np.random.default_rng(0))
    untouched = draw_outlined(140, 110, [BRACKET, TRIANGLE, BLOCK, PIECES], [0, 1, 2, 3])
    np.testing.assert_array_equal(SCENE.boxes, untouched.boxes)
    assert SCENE.outlines is not None and untouched.outlines is not None
    np.testing.assert_array_equal(SCENE.outlines.edges, untouched.outlines.edges)


def test_a_box_is_that_of_what_is_seen_of_the_outline() -> None:
    # Of the bracket only the arms are left of x = 60, above and below the middle.
    result = transforms.clip_to_picture(replace(SCENE, image=SCENE.image[:70, :60]))
    assert result.boxes[0].tolist() == [30, 20, 60, 36]


@pytest.mark.parametrize(("min_area", "kept"), [(0.19, True), (0.21, False)])
def test_the_least_area_is_that_of_the_box_around_what_is_seen(min_area: float, kept: bool) -> None:
    # In the window of 50 pixels in the middle lies the end of one arm: 40 x 50 of 100 x 100 pixels.
    angle = draw_outlined(100, 100, [[[0.0, 0, 100, 0, 100, 10, 65, 10, 65, 100, 25, 100, 25, 10, 0, 10]]], [0])
    rng = np.random.default_rng(0)
    still = {"scale": (1, 1), "rotate": 0, "shear": 0, "translate": 0}
    result = transforms.random_affine(angle, 50, min_area=min_area, rng=rng, **still)
    assert result.boxes.tolist() == ([[0, 0, 40, 50]] if kept else [])


def test_mixed_pictures_have_the_objects_of_both() -> None:
    other = transforms.pad(transforms.resize(OTHER, 100, 100), 140, 110)
    result = mosaic.mixup_beta(SCENE, other, 8.0, np.random.default_rng(0))
    assert result.labels.tolist() == [0, 1, 2, 3, 4]
    assert result.outlines is not None
    np.testing.assert_array_equal(result.boxes, result.outlines.hulls())


def test_pasted_objects_are_where_the_mirrored_picture_has_them() -> None:
    scene = draw_outlined(200, 100, [BRACKET, TRIANGLE], [0, 1])  # mirrored, the bracket would hide the triangle
    result = copy_paste(scene, 1.0, np.random.default_rng(0))
    assert result.labels.tolist() == [0, 1, 1]
    check_objects(result, [1])
    np.testing.assert_array_equal(result.boxes[2], transforms.flip_horizontal(scene).boxes[1])
    np.testing.assert_array_equal(scene.image, draw_outlined(200, 100, [BRACKET, TRIANGLE], [0, 1]).image)


def brute_force_pasted(boxes: np.ndarray, mirrored: np.ndarray, chosen: list[int]) -> list[int]:
    there, pasted = boxes.tolist(), []
    for row in chosen:
        x1, y1, x2, y2 = mirrored[row]
        free = True
        for a1, b1, a2, b2 in there:
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            free &= shared < 0.3 * (a2 - a1) * (b2 - b1)
        if free:
            there.append(mirrored[row].tolist())
            pasted.append(row)
    return sorted(pasted)


@pytest.mark.parametrize("seed", range(10))
def test_objects_that_would_hide_others_are_not_pasted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 180, (40, 2))
    sides = rng.uniform(5, 25, (40, 2))
    objects = [
        [[x, y, x + w, y, x + w, y + h, x, y + h]]
        for (x, y), (w, h) in zip(corners.tolist(), sides.tolist(), strict=True)
    ]
    scene = draw_outlined(220, 220, objects, [0] * 40)
    scene = replace(scene, labels=np.arange(40))
    result = copy_paste(scene, 0.5, np.random.default_rng(seed))
    chosen = np.random.default_rng(seed).choice(40, 20, replace=False).tolist()
    expected = brute_force_pasted(scene.boxes, transforms.flip_horizontal(scene).boxes, chosen)
    assert result.labels[40:].tolist() == expected
    assert 0 < len(expected) < 20


def test_objects_without_outlines_and_rare_ones_are_not_pasted() -> None:
    boxes = draw(100, 100, [(1, 1, 20, 20), (1, 40, 20, 60)])
    assert copy_paste(boxes, 1.0, np.random.default_rng(0)) is boxes
    assert copy_paste(SCENE, 0.1, np.random.default_rng(0)) is SCENE  # 0.4 of an object


RECIPE = AugmentRecipe(
    mosaic_cache=0, mixup_cache=0, mixup_style="mosaics", geometry="affine", scale=(0.5, 1.5), rotate=10, mixup=0,
    hsv=(0, 0, 0), centre=True, min_box=2.0, min_area=0.01,
)  # fmt: skip
RTMDET = AugmentRecipe(mosaic_cache=8, mixup_cache=4, hsv=(0, 0, 0), mixup=0)


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    """Six pictures, one of them without objects."""
    scenes = [SCENE, OTHER, draw_outlined(100, 90, [BLOCK, TRIANGLE], [5, 1]), draw_outlined(50, 50, [], [])]
    return write_index(tmp_path, [*scenes, transforms.flip_vertical(SCENE), transforms.flip_horizontal(OTHER)])


def test_samples_are_read_with_their_outlines(index: DatasetIndex) -> None:
    sample = read_sample(index, 0, masks=OutlineReader(index))
    check_objects(sample, [0, 1, 2, 3])
    assert sample.labels.tolist() == [0, 1, 2, 3]
    assert read_sample(index, 0).outlines is None
    flags = index.flags.copy()
    flags[1] = CROWD
    marked = replace(index, flags=flags)
    reader = OutlineReader(marked)
    for _ in range(2):  # from the text, and from what is kept of it
        sample = read_sample(marked, 0, masks=reader)
        assert sample.labels.tolist() == [0, 2, 3]
        check_objects(sample, [0, 2, 3])


def test_only_the_outlines_read_last_are_kept(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr("ymir_tmi.data.segments._KEPT", 2)
    monkeypatch.setattr(
        "ymir_tmi.data.segments.image_outlines", lambda *what: (read.append(what[1]), image_outlines(*what))[1]
    )
    reader = OutlineReader(index)
    for image in (0, 1, 0, 3, 0, 1):
        reader.read(image, index.size(image) or (0, 0))
    assert read == [0, 1, 3, 1]


def test_a_mask_of_another_size_is_a_fault_of_its_picture(index: DatasetIndex) -> None:
    text = '{"size": [5, 4], "counts": [0, 20]}'
    wrong = replace(index, segments=Strings.pack([text] * len(index.boxes)), sizes=np.zeros_like(index.sizes))
    with pytest.raises(ImageError, match="it is 4 x 5 pixels, the picture 140 x 110"):
        read_sample(wrong, 0, masks=OutlineReader(wrong))


@pytest.mark.parametrize("phase", ["main", "final"])
@pytest.mark.parametrize("recipe", [RECIPE, RTMDET], ids=["affine", "resize and crop"])
def test_augmented_samples_have_their_masks(index: DatasetIndex, recipe: AugmentRecipe, phase: Phase) -> None:
    augmenter = Augmenter(index, recipe, SPEC, masks=True)
    for row in range(len(index)):
        sample = augmenter.sample(row, phase, np.random.default_rng(row))
        check_objects(sample, sample.labels.tolist(), most_wrong=40)  # slivers are dropped


def test_mosaics_have_pasted_objects(index: DatasetIndex) -> None:
    counts = [
        len(Augmenter(index, recipe, SPEC, masks=True).sample(0, "main", np.random.default_rng(0)).labels)
        for recipe in (RECIPE, RECIPE.model_copy(update={"copy_paste": 1.0}))
    ]
    assert counts[1] > counts[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_batches_have_maps_of_their_objects_largest_first(index: DatasetIndex, workers: int) -> None:
    recipe = RECIPE.model_copy(update={"mosaic": 0.5})
    loader = training_loader(index, recipe, spec=SPEC, batch=3, workers=workers, seed=0, masks=True)
    loader.set_epoch(0, "main")
    for batch in loader:
        masks = batch.targets.masks
        assert masks is not None and masks.dtype == torch.int64 and masks.shape == (3, SIZE // 4, SIZE // 4)
        for row, (boxes, labels) in enumerate(zip(batch.targets.boxes, batch.targets.labels, strict=True)):
            seen = masks[row].numpy()
            small = cv2.resize(
                batch.images[row].permute(1, 2, 0).numpy(), (SIZE // 4,) * 2, interpolation=cv2.INTER_AREA
            )
            for place, (box, label) in enumerate(zip(boxes.numpy() / 4, labels.tolist(), strict=True), 1):
                mask = seen == place
                rows, columns = np.nonzero(mask)
                assert columns.min(initial=99) >= box[0] - 1 and columns.max(initial=-1) <= box[2]
                assert rows.min(initial=99) >= box[1] - 1 and rows.max(initial=-1) <= box[3]
                inner = mask & ~rim(mask, 1)
                assert np.abs(small[inner].astype(int) - COLOURS[label]).max(initial=0) < 60
            areas = np.bincount(seen.ravel(), minlength=len(labels) + 1)[1:]
            assert (areas > 0).all()


def test_masks_change_nothing_about_the_pictures(index: DatasetIndex) -> None:
    recipe = RTMDET.model_copy(update={"mosaic": 0, "scale": (1, 1)})
    plain, masked = (
        list(training_loader(index, recipe, spec=InputSpec(size=160), batch=6, workers=0, seed=0, masks=masks))
        for masks in (False, True)
    )
    for without, having in zip(plain, masked, strict=True):
        assert without.targets.masks is None
        torch.testing.assert_close(without.images, having.images, rtol=0, atol=0)

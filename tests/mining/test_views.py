from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from mining_data import golden, make_detections

from ymir_tmi.imaging import Image
from ymir_tmi.mining.views import (
    Boxes,
    Cutout,
    Flip,
    PortRotate,
    PortShrink,
    Rotate,
    Shrink,
    choose_holes,
    hull_after,
    port_rotation,
    rotation,
)
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import View

GOLDEN = golden("cald_augment")
SHAPES = ["landscape", "portrait", "square"]
NOTHING = Detections.empty(1)
SIZES = [(200, 120), (120, 200), (160, 160), (201, 77)]


def picture_and_boxes(shape: str) -> tuple[Image, Boxes, tuple[int, int]]:
    image = GOLDEN[f"{shape}/image"]
    return image, GOLDEN[f"{shape}/boxes"], (image.shape[1], image.shape[0])


def bright_box(image: Image) -> npt.NDArray[np.int64]:
    """Return the box around what is brighter than half."""
    y, x = np.nonzero(image[..., 0] > 127)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "name, view, exact",
    [("flip", Flip(), True), ("rotate", PortRotate(), False), ("resize", PortShrink(truncate=False), True)],
)
def test_port_views_equal_golden(shape: str, name: str, view: View, exact: bool) -> None:
    image, boxes, size = picture_and_boxes(shape)
    changed = view.apply(image, NOTHING, 0).astype(int)
    # Releases of OpenCV differ by up to 4 grey levels where they turn a picture.
    np.testing.assert_allclose(changed, GOLDEN[f"{shape}/{name}/image"], atol=0 if exact else 4)
    np.testing.assert_allclose(view.map_boxes(boxes, size), GOLDEN[f"{shape}/{name}/boxes_int32"], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_port_geometry_before_truncation_equals_golden(shape: str) -> None:
    _, boxes, size = picture_and_boxes(shape)
    between = boxes + np.float32(0.4)
    matrix = port_rotation(size)
    np.testing.assert_allclose(matrix, GOLDEN[f"{shape}/rotate/matrix"], atol=3e-6)
    np.testing.assert_allclose(hull_after(matrix, between), GOLDEN[f"{shape}/rotate/boxes_float32"], atol=1e-4)
    np.testing.assert_allclose(Flip().map_boxes(between, size), GOLDEN[f"{shape}/flip/boxes_float32"], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_cutout_equals_golden(shape: str, seed: int) -> None:
    image, boxes, size = picture_and_boxes(shape)
    np.testing.assert_array_equal(choose_holes(boxes, size, seed), GOLDEN[f"{shape}/cutout/seed{seed}/rects_x1y1x2y2"])
    covered = Cutout(lambda plain: plain.boxes).apply(image, make_detections(boxes, [0.5] * len(boxes)), seed)
    np.testing.assert_array_equal(covered, GOLDEN[f"{shape}/cutout/seed{seed}/image"])


def test_cutout_leaves_its_input_and_repeats_itself() -> None:
    image, boxes, _ = picture_and_boxes("landscape")
    before = image.copy()
    view, found = Cutout(lambda plain: plain.boxes), make_detections(boxes, [0.5] * len(boxes))
    first, second, other = (view.apply(image, found, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_cutout_without_boxes_changes_nothing() -> None:
    image, _, _ = picture_and_boxes("landscape")
    np.testing.assert_array_equal(Cutout(lambda plain: plain.boxes).apply(image, NOTHING, 0), image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", [Flip(), Rotate(), Shrink()], ids=lambda view: view.name)
def test_boxes_follow_the_picture(view: View, size: tuple[int, int]) -> None:
    width, height = size
    box = [width // 5, height // 4, width // 5 + 41, height // 4 + 23]
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    [mapped] = view.map_boxes(np.array([box], np.float32), size)
    np.testing.assert_allclose(bright_box(view.apply(image, NOTHING, 0)), mapped, atol=1.0)


@pytest.mark.parametrize("view", [Flip(), Rotate(), Shrink()], ids=lambda view: view.name)
def test_fractions_of_pixels_are_kept(view: View) -> None:
    box = np.array([[20.25, 30.5, 50.75, 60.25]], np.float32)
    shifted = view.map_boxes(box + np.float32(0.2), (100, 100)) - view.map_boxes(box, (100, 100))
    assert (np.abs(shifted) > 0.1).all()


def test_turning_treats_portraits_like_landscapes() -> None:
    upright, wide = rotation((120, 200)), rotation((200, 120))
    assert np.linalg.det(upright[:, :2]) == pytest.approx(np.linalg.det(wide[:, :2]))
    shrunk = np.linalg.det(port_rotation((120, 200))[:, :2])
    assert shrunk == pytest.approx(0.36) and np.linalg.det(port_rotation((200, 120))[:, :2]) == pytest.approx(1)


@pytest.mark.parametrize("size", SIZES)
def test_turning_loses_no_corner(size: tuple[int, int]) -> None:
    [hull] = hull_after(rotation(size), np.array([[0, 0, *size]]))
    np.testing.assert_allclose(hull, [0, 0, *size], atol=1e-9)


def test_boxes_at_the_border_are_cut_to_the_turned_picture() -> None:
    mapped = Rotate().map_boxes(np.array([[-50, -50, 400, 300]], np.float32), (200, 120))
    np.testing.assert_array_equal(mapped, [[0, 0, 200, 120]])

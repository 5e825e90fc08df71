"""Masks and label maps in a picture: where they are it changes, elsewhere it does not."""

from __future__ import annotations

import numpy as np

from ymir_tmi.data.drawing import draw_label_map, draw_mask, mask_rings
from ymir_tmi.data.palette import CLASS_COLOURS, class_colours
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.inference.drawing import draw_classes, draw_detections
from ymir_tmi.models.interface import Detections

GREY = 100


def ellipse(size: tuple[int, int] = (90, 70)) -> np.ndarray:
    y, x = np.mgrid[: size[1], : size[0]]
    shape = ((x - 40) / 30) ** 2 + ((y - 30) / 20) ** 2 < 1
    shape[28:33, 35:45] = False  # a hole
    return shape


def test_a_mask_is_tinted_and_outlined() -> None:
    bitmap, colour = ellipse(), (200, 0, 0)
    image = np.full((70, 90, 3), GREY, np.uint8)
    draw_mask(image, Masks.encode(bitmap[None]), colour, thickness=1)
    # Away from the outline, which lies on either side of the border and is smoothed over a pixel more.
    padded = np.pad(bitmap, 2, mode="edge")
    around = np.stack([padded[y : y + 70, x : x + 90] for y in range(5) for x in range(5)])
    inside, outside = around.all(0), ~around.any(0)
    assert inside.sum() > 200 and outside.sum() > 1000
    assert (image[outside] == GREY).all()
    assert (image[inside] == np.rint(GREY * 0.55 + np.array(colour) * 0.45)).all()
    assert (image[28:33, 38:42, 1] == GREY).any()  # in the hole
    border = bitmap & ~inside
    assert (image[border][:, 0] > GREY * 0.55 + 91).mean() > 0.3


def test_rings_enclose_the_mask() -> None:
    rings = mask_rings(Masks.encode(np.stack([ellipse(), np.zeros_like(ellipse())])))
    assert [len(each) for each in rings] == [2, 0]

    def area(points: np.ndarray) -> float:
        x, y = points.T
        return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)

    assert abs(sum(map(area, rings[0]))) == ellipse().sum()


def test_label_maps_are_tinted_in_the_colours_of_their_legend() -> None:
    label_map = np.zeros((200, 300), np.uint8)
    label_map[:, 100:200], label_map[:, 200:] = 7, 255
    names = [f"class {number}" for number in range(8)]
    image = np.full((200, 300, 3), GREY, np.uint8)
    draw_label_map(image, label_map, names, text_scale=0.4)
    colours = class_colours(8)
    assert (image[100:, :100] == np.rint(GREY * 0.55 + colours[0] * 0.45)).all()
    assert (image[100:, 100:200] == np.rint(GREY * 0.55 + colours[7] * 0.45)).all()
    assert (image[:, 200:] == GREY).all()
    legend = image[:40, :90].reshape(-1, 3).tolist()
    assert colours[0].tolist() in legend and colours[7].tolist() in legend and colours[3].tolist() not in legend
    assert (
        image[:40, :90] != draw_classes(np.full_like(image, GREY), np.full_like(label_map, 255), names)[:40, :90]
    ).any()


def test_colours_differ() -> None:
    assert class_colours(3).tolist() == [list(colour) for colour in CLASS_COLOURS[:3]]
    assert len(np.unique(class_colours(150), axis=0)) == 150


def test_detections_with_masks_are_drawn_as_masks() -> None:
    masks = Masks.encode(np.stack([ellipse(), ellipse()]))
    found = Detections(masks.hulls(), np.array([0.9, 0.8], np.float32), np.array([0, 1]), np.zeros((2, 2)), masks)
    image = np.full((70, 90, 3), GREY, np.uint8)
    drawn = draw_detections(image, found, ["a", "b"])
    assert (image == GREY).all()
    assert (drawn[0:5, 80:] == GREY).all()
    *_, x2, y2 = masks.hulls()[0].astype(int)
    assert (drawn[y2 - 3 : y2, x2 - 3 : x2] == GREY).all()  # no corner of a box
    only_best = draw_detections(image, found[:1], ["a", "b"])
    assert (drawn[25, 60] != GREY).any() and (drawn[25, 60] != only_best[25, 60]).any()

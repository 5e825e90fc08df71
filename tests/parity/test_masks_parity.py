"""Masks of YOLOv5-seg against those of the reference (docs/specs/yolov5.md, sections 1 and 6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import FOLDER, Golden, assert_near, find_variants
from torch import Tensor

from ymir_tmi.data.letterbox import Frame, InputSpec, plan_frame
from ymir_tmi.models.interface import DenseDetections, PostprocessSpec
from ymir_tmi.models.masks import crop_to_boxes, encode_masks, mask_maps
from ymir_tmi.models.postprocess import find

WIDTH, HEIGHT = 160, 128  # of the network input
AS_IT_IS = Frame(WIDTH, HEIGHT, 1.0, 1.0, 0, 0, WIDTH, HEIGHT, WIDTH, HEIGHT)
VARIANTS = [name for name in find_variants("yolov5")[0] if name.endswith("-seg")]
CLASSES = 80


@pytest.fixture(scope="module")
def operations() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "yolov5" / "mask_ops.npz") as file:
        return {name: file[name] for name in file.files}


def maps_of(arrays: dict[str, np.ndarray]) -> Tensor:
    return mask_maps(torch.from_numpy(arrays["coef"]), torch.from_numpy(arrays["proto"]))


def probabilities(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def cropped(maps: Tensor, boxes: np.ndarray) -> Tensor:
    """Return maps that are cropped before they are enlarged."""
    scale = [maps.shape[2] / WIDTH, maps.shape[1] / HEIGHT] * 2
    return crop_to_boxes(maps, torch.from_numpy(boxes) * torch.tensor(scale))


def enlarged(maps: Tensor) -> Tensor:
    return F.interpolate(maps.unsqueeze(0), (HEIGHT, WIDTH), mode="bilinear").squeeze(0)


def test_maps(operations: dict[str, np.ndarray]) -> None:
    assert_near(maps_of(operations), probabilities(operations["logits"]), 1e-4, "maps")


def test_cropping_before_enlarging(operations: dict[str, np.ndarray]) -> None:
    maps = cropped(maps_of(operations), operations["boxes"])
    np.testing.assert_array_equal(maps > 0.5, operations["process_mask"])
    np.testing.assert_array_equal(enlarged(maps) > 0.5, operations["process_mask_upsample"])


def test_masks_of_the_input(operations: dict[str, np.ndarray]) -> None:
    masks = encode_masks(maps_of(operations), operations["boxes"], AS_IT_IS)
    assert masks.size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(masks.decode(), operations["process_mask_native_same_size"])


def test_masks_of_the_picture(operations: dict[str, np.ndarray]) -> None:
    """The picture of 200 x 90 pixels has bars of 28 pixels above and below in the network input."""
    frame = plan_frame(200, 90, InputSpec(size=WIDTH, fixed=(HEIGHT, WIDTH)))
    assert (frame.scale_x, frame.top, frame.left) == (0.8, 28, 0)
    masks = encode_masks(maps_of(operations), operations["boxes_90x200"], frame)
    np.testing.assert_array_equal(masks.decode(), operations["process_mask_native_90x200"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_detections(variant: str) -> None:
    """The reference's own detections and prototypes; most of these masks are empty."""
    arrays = Golden("yolov5", variant).arrays
    rows = torch.from_numpy(arrays["eval/nms_single"][:5])
    scores = torch.zeros(1, 5, CLASSES).scatter_(2, rows[None, :, 5:6].long(), rows[None, :, 4:5])
    prototypes = torch.from_numpy(arrays["eval/proto"])
    dense = DenseDetections(rows[None, :, :4], scores, (5,), rows[None, :, 6:], prototypes)
    (found,) = find(dense, [AS_IT_IS], PostprocessSpec(clip="never"), masks=True, maps=True)
    assert found.maps is not None and found.detections.masks is not None
    np.testing.assert_allclose(found.detections.scores, rows[:, 4])
    assert_near(found.maps, probabilities(arrays["eval/mask_top5_logits_proto_resolution"]), 1e-4, "maps")
    np.testing.assert_array_equal(found.detections.masks.decode(), arrays["eval/process_mask_native"])
    maps = cropped(found.maps, found.detections.boxes)
    np.testing.assert_array_equal(maps > 0.5, arrays["eval/process_mask"])
    np.testing.assert_array_equal(enlarged(maps) > 0.5, arrays["eval/process_mask_upsample"])
    doubled = Frame(2 * WIDTH, 2 * HEIGHT, 0.5, 0.5, 0, 0, WIDTH, HEIGHT, WIDTH, HEIGHT)
    masks = encode_masks(found.maps, 2 * found.detections.boxes, doubled)
    np.testing.assert_array_equal(masks.decode(), arrays["eval/process_mask_native_256x320"])

"""Masks of instances against slow and obvious ways to the same numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.data.letterbox import Frame, InputSpec, plan_frame
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import DenseDetections, Matches, PostprocessSpec
from ymir_tmi.models.mask_loss import mask_loss
from ymir_tmi.models.masks import crop_to_boxes, encode_masks
from ymir_tmi.models.postprocess import detect


def test_a_pixel_is_inside_a_box_that_begins_at_it_or_before_and_ends_beyond_it() -> None:
    boxes = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.5, 0.5, 2.5, 1.5], [3.0, 1.0, 2.0, 2.0]])
    cropped = crop_to_boxes(torch.ones(3, 3, 4), boxes)
    assert cropped[0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert cropped[1].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert not cropped[2].any(), "swapped sides hold nothing"


def disc_map(frame: Frame, centre: tuple[float, float], radius: float) -> Tensor:
    """Return (1, h, w) soft probabilities, at a quarter of the input, of a disc given in pixels of the picture."""
    y, x = np.mgrid[0 : frame.input_height // 4, 0 : frame.input_width // 4] * 4 + 2.0
    x, y = (x - frame.left) / frame.scale_x, (y - frame.top) / frame.scale_y
    distance = np.hypot(x - centre[0], y - centre[1])
    return torch.from_numpy(1 / (1 + np.exp((distance - radius) * 0.2)))[None].float()


@pytest.mark.parametrize("pad", ["center", "corner"])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (333, 501), (97, 611), (1600, 1201), (40, 32)])
def test_a_mask_lies_where_its_object_is_in_the_picture(width: int, height: int, pad: str) -> None:
    frame = plan_frame(width, height, InputSpec(size=640, pad=pad))
    short = min(width, height)
    centre, radius = (0.4 * width, 0.55 * height), 0.3 * short
    box = np.array([[centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]], np.float32)
    found = encode_masks(disc_map(frame, centre, radius), box, frame)
    assert found.size == (width, height)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    truth = Masks.encode((np.hypot(x - centre[0], y - centre[1]) < radius)[None])
    assert found.iou(truth)[0, 0] > (0.99 if short > 90 else 0.94)


def test_bars_beside_the_picture_have_no_influence() -> None:
    frame = plan_frame(100, 37, InputSpec(size=128, fixed=(128, 128)))
    maps = torch.rand(20, 32, 32, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[:, : frame.top // 4] = 1
    other[:, -((frame.input_height - frame.top - frame.resized_height) // 4) :] = 1
    boxes = np.tile(np.array([[0, 0, 100, 37]], np.float32), (20, 1))
    assert encode_masks(maps, boxes, frame) == encode_masks(other, boxes, frame)
    assert not torch.equal(maps, other)


def test_boxes_that_hold_no_pixel_have_empty_masks() -> None:
    frame = plan_frame(64, 64, InputSpec(size=64))
    boxes = np.array([[5.2, 5, 5.8, 9], [9, 9, 4, 4], [70, 70, 90, 90], [-9, -9, 0, 0]], np.float32)
    masks = encode_masks(torch.ones(4, 16, 16), boxes, frame)
    assert masks.areas().tolist() == [0, 0, 0, 0]
    assert len(encode_masks(torch.ones(0, 16, 16), boxes[:0], frame)) == 0


def test_masks_stay_with_their_detections() -> None:
    """Each of three priors has the prototype of its own, a third of the picture; NMS changes their order."""
    prototypes = torch.full((1, 3, 16, 16), -9.0)
    for number in range(3):
        prototypes[0, number, :, 5 * number : 5 * number + 5] = 9.0
    boxes = torch.tensor([[[0, 0, 64, 60], [0, 0, 64, 61], [0, 0, 64, 62]]]).float()
    scores = torch.tensor([[[0.3, 0.0], [0.9, 0.1], [0.0, 0.6]]])
    dense = DenseDetections(boxes, scores, (3,), torch.eye(3)[None], prototypes)
    spec = PostprocessSpec(score_threshold=0.2, iou_threshold=0.5)
    (found,) = detect(dense, [plan_frame(64, 64, InputSpec(size=64))], spec, masks=True)
    assert found.labels.tolist() == [0, 1] and found.masks is not None
    np.testing.assert_array_equal(found.masks.hulls(), [[20, 0, 40, 61], [40, 0, 60, 62]])
    (plain,) = detect(dense, [plan_frame(64, 64, InputSpec(size=64))], spec)
    assert plain.masks is None


def some_matches(boxes: list[list[Tensor]], per_object: int) -> Matches:
    """Return `per_object` times some of the objects of each picture, in any order."""
    rows = [
        (image, gt) for image, own in enumerate(boxes) for gt in range(len(own)) for _ in range(1 + gt % per_object)
    ]
    image, gt = torch.tensor(rows)[torch.randperm(len(rows))].unbind(1)
    corners = torch.stack([boxes[i][g] for i, g in zip(image.tolist(), gt.tolist(), strict=True)])
    return Matches(image, image, gt, gt, corners, torch.ones(len(image)))


@pytest.mark.parametrize(("height", "width"), [(40, 72), (5, 4), (33, 16)])
def test_the_loss_of_masks_is_that_of_whole_maps_that_are_cropped(height: int, width: int) -> None:
    torch.manual_seed(0)
    corners = torch.rand(2, 30, 2, 2, dtype=torch.float64) * torch.tensor([width + 2.0, height + 2.0]) - 1
    boxes = [list(torch.cat([own.amin(1), own.amax(1)], dim=1)) for own in corners]
    boxes[0][3], boxes[1][0] = torch.tensor([0, 0, width, height]).double(), torch.tensor([1.2, 1.2, 1.7, 9]).double()
    matches = some_matches(boxes, 5)
    masks = torch.randint(0, 31, (2, height, width)) * (torch.rand(2, height, width) < 0.5)
    weights = torch.rand(len(matches.gt), dtype=torch.float64)
    given = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((len(weights), 6), (2, 6, height, width))
    ]
    ours = mask_loss(*given, masks, matches, weights)

    coefficients, prototypes = given
    logits = torch.einsum("nk,nkhw->nhw", coefficients, prototypes[matches.image])
    truth = (masks[matches.image] == matches.gt.view(-1, 1, 1) + 1).double()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    theirs = (crop_to_boxes(entropy, matches.box).sum((1, 2)) * weights).sum()
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(torch.autograd.grad(ours, given), torch.autograd.grad(theirs, given), strict=True):
        torch.testing.assert_close(one, other)


def test_windows_of_a_picture_are_encoded_as_the_whole_is() -> None:
    random = np.random.default_rng(0)
    width, height = 9, 7
    windows, whole = [], []
    for x1, x2, y1, y2 in product((0, 3), (4, width), (0, 2), (5, height)):
        for share in (0.0, 0.5, 0.9, 1.0):
            bitmap = random.random((y2 - y1, x2 - x1)) < share
            windows.append((x1, y1, bitmap))
            whole.append(np.zeros((height, width), bool))
            whole[-1][y1:y2, x1:x2] = bitmap
    assert Masks.from_windows(windows, (width, height)) == Masks.encode(np.stack(whole))
    assert Masks.from_windows([], (width, height)) == Masks((width, height), ())

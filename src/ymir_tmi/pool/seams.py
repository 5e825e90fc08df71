"""From what was found in the windows of a large image to what is in the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.data.tiles import Window
from ymir_tmi.geometry.boxes import aligned_iou
from ymir_tmi.geometry.nms import keep_best
from ymir_tmi.geometry.ragged import offsets, spans
from ymir_tmi.geometry.rotated import aligned_rotated_iou, from_upright, hulls, neighbours
from ymir_tmi.models.interface import Detections, PostprocessSpec

_NEAR = 0.01  # of a window's size: as exactly as a network tells where an object ends

Boxes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def join_windows(
    parts: Sequence[tuple[Window, Detections]], size: tuple[int, int], spec: PostprocessSpec
) -> Detections:
    """Return what was found in an image from what was found in its windows, best first.

    An object on a seam is found in several windows. What a window shows only a part of is dropped where another window
    shows that part and what lies around it. What is then left of an object is joined by NMS, class by class, between
    windows: inside a window it has been done. An object that is smaller than the overlap of the windows is whole in one
    of them, and so is found once.

    Args:
        parts: the windows, with detections in pixels of the window.
        size: (width, height) of the image.
        spec: `iou_threshold` and `max_detections` are those of the image.
    """
    windows = [window for window, _ in parts]
    meets = _meetings(windows)
    kept = [
        found[_nowhere_better(found, window, [windows[other] for other in np.flatnonzero(meets[number])], size)]
        for number, (window, found) in enumerate(parts)
    ]
    together = Detections(
        np.concatenate([_moved(found, window) for window, found in zip(windows, kept, strict=True)]),
        np.concatenate([found.scores for found in kept]),
        np.concatenate([found.labels for found in kept]),
        np.concatenate([found.class_scores for found in kept]),
    )
    first, second = _same_objects(together, offsets(np.array([len(found) for found in kept])), meets, spec)
    rows = keep_best(torch.from_numpy(together.scores), first, second, limit=spec.max_detections)
    return together[rows.numpy()]


def _meetings(windows: Sequence[Window]) -> Mask:
    """Return (W, W) whether two different windows have pixels in common."""
    x, y, width, height = np.array(windows).T
    meets: Mask = (abs(x[:, None] - x) < width[0]) & (abs(y[:, None] - y) < height[0])
    np.fill_diagonal(meets, False)
    return meets


def _moved(found: Detections, window: Window) -> Boxes:
    """Return the boxes in pixels of the image."""
    shift = [window.x, window.y, 0, 0, 0] if found.is_rotated else [window.x, window.y] * 2
    return found.boxes + np.array(shift, np.float32)


def _nowhere_better(found: Detections, window: Window, others: Sequence[Window], size: tuple[int, int]) -> Mask:
    """Return (n,) whether no other window shows more of a detection that ends at a seam of this window."""
    near = _NEAR * max(window.width, window.height)
    moved = _moved(found, window)
    boxes = hulls(torch.from_numpy(moved)).numpy() if found.is_rotated else moved
    x, y, width, height = window
    visible = np.clip(boxes, [x, y, x, y], [x + width, y + height, x + width, y + height])
    is_cut = _clearance(visible, window, size) <= near
    more_elsewhere = np.zeros(len(found), np.bool_)
    for other in others:
        more_elsewhere |= _clearance(visible, other, size) > near
    return ~(is_cut & more_elsewhere)


def _clearance(boxes: npt.NDArray[np.floating], window: Window, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return (n,) how far boxes are from the nearest seam of a window, negative where they reach beyond it."""
    x, y, width, height = window
    # A side of the window that is one of the image is no seam.
    left, top = x if x > 0 else -np.inf, y if y > 0 else -np.inf
    right, bottom = x + width if x + width < size[0] else np.inf, y + height if y + height < size[1] else np.inf
    before, after = boxes[:, :2] - np.array([left, top]), np.array([right, bottom]) - boxes[:, 2:]
    clearance: npt.NDArray[np.float64] = np.minimum(before, after).min(axis=1)
    return clearance


def _same_objects(
    found: Detections, starts: npt.NDArray[np.int64], meets: Mask, spec: PostprocessSpec
) -> tuple[Tensor, Tensor]:
    """Return the pairs of rows, from two windows each, of one class and with an IoU above the threshold.

    The detections of window i are rows `starts[i]:starts[i + 1]`.
    """
    boxes, labels = torch.from_numpy(found.boxes).double(), torch.from_numpy(found.labels)
    iou, circled = (aligned_rotated_iou, boxes) if found.is_rotated else (aligned_iou, from_upright(boxes))
    around = hulls(circled)
    firsts, seconds = [labels[:0]], [labels[:0]]
    for number in range(len(meets)):
        later = number + 1 + np.flatnonzero(meets[number, number + 1 :])
        here = torch.arange(int(starts[number]), int(starts[number + 1]))
        there = torch.from_numpy(spans(starts[later], starts[later + 1]))
        if not len(here):
            continue
        # Of the other windows, only what lies where this one has found something.
        low, high = around[here, :2].amin(0), around[here, 2:].amax(0)
        there = there[((around[there, :2] <= high) & (around[there, 2:] >= low)).all(1)]
        row, column = neighbours(circled[here], circled[there])
        first, second = here[row], there[column]
        same = labels[first] == labels[second]
        first, second = first[same], second[same]
        over = iou(boxes[first], boxes[second]) > spec.iou_threshold
        firsts.append(first[over])
        seconds.append(second[over])
    return torch.cat(firsts), torch.cat(seconds)

"""What can be wrong with annotated boxes, upright or rotated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.mask_faults import Mask, Words
from ymir_tmi.data.repair import centre_is_outside, is_empty, overshoot

_NOTICEABLE = 0.01  # pixels; less is the rounding of an annotation file
_THIN = 1.0  # pixels; `min_box` of the recipes


def box_faults(index: DatasetIndex) -> dict[Words, Mask]:
    """Return (M,) which boxes have each fault, by what is said of it."""
    empty = is_empty(index)
    faults = {
        (
            "box has no width or no height; it will be dropped",
            "boxes have no width or no height; they will be dropped",
        ): empty,
        ("box is there twice", "boxes are there twice"): _repeated(index),
    }
    if index.rotated is None:
        return _beyond(index) | faults
    thin = ~empty & (index.rotated[:, 2:4] < _THIN).any(axis=1)
    return faults | {
        (
            "box has its centre outside of its picture; training leaves it out",
            "boxes have their centre outside of their picture; training leaves them out",
        ): centre_is_outside(index),
        (
            "box is thinner than a pixel; training leaves it out",
            "boxes are thinner than a pixel; training leaves them out",
        ): thin,
    }


def _beyond(index: DatasetIndex) -> dict[Words, Mask]:
    beyond = overshoot(index)
    farthest = f"{beyond.max(initial=0):.4g} pixels"
    words = (
        f"box reaches out of its picture, by {farthest}; it will be clipped",
        f"boxes reach out of their picture, by up to {farthest}; they will be clipped",
    )
    return {words: beyond > _NOTICEABLE}


def _repeated(index: DatasetIndex) -> npt.NDArray[np.bool_]:
    """Return (M,) whether an annotation has the image, class and box of one above it."""
    # Corners may stand in any order, which rounds differently.
    boxes = index.boxes if index.rotated is None else index.rotated.round(3)
    columns = [*boxes.T, index.labels, index.image_of_box()]
    order = np.lexsort(columns)  # stable: of equal ones the first comes first
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    repeated = np.zeros(len(order), np.bool_)
    repeated[order[1:]] = same
    return repeated

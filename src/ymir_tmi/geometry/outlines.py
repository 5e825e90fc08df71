"""Corners of boxes in arrays, upright or rotated, for drawing them and writing them down.

Upright boxes are (n, 4) xyxy, rotated ones (n, 5) as `geometry.rotated` has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi.geometry import rotated

Floats = npt.NDArray[np.float64]

_CORNERS = [2, 3, 2, 1, 0, 1, 0, 3]  # of an upright box, in the order of `rotated.corners`


def outlines(boxes: npt.NDArray[Any]) -> Floats:
    """Return (n, 4, 2) the corners of (n, 4) or (n, 5) boxes, counter-clockwise on the screen."""
    exact = boxes.astype(np.float64)
    if boxes.shape[1] == 5:
        corners: Floats = rotated.corners(torch.from_numpy(exact)).numpy()
        return corners
    return exact[:, _CORNERS].reshape(-1, 4, 2)


def upright(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (n, 4) the boxes themselves, or the smallest upright boxes around (n, 5) rotated ones in float64."""
    if boxes.shape[1] == 4:
        return boxes
    return bounds(outlines(boxes))


def bounds(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (n, 4) the smallest upright boxes around (n, p, 2) points, of the same type."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def farthest(outline: Floats, direction: tuple[float, float]) -> Floats:
    """Return (2,) the one of the (4, 2) corners that lies farthest in a direction."""
    corner: Floats = outline[(outline @ np.array(direction)).argmax()]
    return corner


# A label stands above or below a corner, and of two corners that are about as high it takes the left or the right one.
UPPER_LEFT, UPPER_RIGHT = (-0.1, -1.0), (0.1, -1.0)
LOWER_LEFT, LOWER_RIGHT = (-0.1, 1.0), (0.1, 1.0)

"""Outlines and words drawn into pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ymir_tmi.imaging.arrays import Image


def draw_polygon(image: Image, corners: npt.NDArray[Any], colour: tuple[int, int, int], thickness: int) -> None:
    """Draw the closed outline through (n, 2) `corners` (x, y) into `image`, in place, to a sixteenth of a pixel."""
    points = np.rint(np.asarray(corners, np.float64) * 16).astype(np.int32)
    cv2.polylines(image, [points], True, colour, thickness, cv2.LINE_AA, 4)


def draw_label(image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Write `text` on a filled background whose lower left corner is `corner`, in place, kept inside the image."""
    (width, height), baseline, thickness = _text_size(text, scale)
    x = max(0, min(corner[0], image.shape[1] - width))
    y = max(height + baseline, corner[1])
    cv2.rectangle(image, (x, y - height - baseline), (x + width, y), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (x, y - baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def label_width(text: str, scale: float) -> int:
    """Return how many pixels wide `draw_label` draws a text."""
    return _text_size(text, scale)[0][0]


def _text_size(text: str, scale: float) -> tuple[tuple[int, int], int, int]:
    """Return (width, height), how far letters reach below the line, and the thickness of the lines, in pixels."""
    thickness = max(1, round(scale * 1.5))
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return (width, height), baseline, thickness

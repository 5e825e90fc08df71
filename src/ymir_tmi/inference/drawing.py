"""Detections drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence

from ymir_tmi.data.drawing import draw_box
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import Detections

# Okabe and Ito's palette, which colour-blind people can tell apart; RGB.
_COLOURS = ((86, 180, 233), (230, 159, 0), (47, 199, 154), (240, 228, 66), (204, 121, 167), (255, 122, 51))
_REFERENCE_SIDE = 640  # longer side in pixels for which a line is two pixels wide


def draw_detections(image: Image, detections: Detections, class_names: Sequence[str]) -> Image:
    """Return a copy of an (H, W, 3) RGB picture with boxes, class names and scores; the best lie on top."""
    drawn = image.copy()
    scale = max(image.shape[:2]) / _REFERENCE_SIDE
    thickness = max(1, round(2 * scale))
    for row in reversed(range(len(detections))):
        box, label = detections.boxes[row], int(detections.labels[row])
        text, colour = f"{class_names[label]} {detections.scores[row]:.2f}", _COLOURS[label % len(_COLOURS)]
        draw_box(drawn, box, text, colour, thickness=thickness, text_scale=max(0.4, 0.5 * scale))
    return drawn

"""Detections drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data.drawing import draw_box, draw_label_map, draw_mask
from ymir_tmi.data.palette import CLASS_COLOURS
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import Detections

_REFERENCE_SIDE = 640  # longer side in pixels for which a line is two pixels wide


def draw_detections(image: Image, detections: Detections, class_names: Sequence[str]) -> Image:
    """Return a copy of an (H, W, 3) RGB picture with boxes or masks, class names and scores; the best lie on top.

    A mask that is narrower than its label has none, so that small objects stay visible.
    """
    drawn = image.copy()
    scale = max(image.shape[:2]) / _REFERENCE_SIDE
    text_scale = max(0.4, 0.5 * scale)
    for row in reversed(range(len(detections))):
        box, label = detections.boxes[row], int(detections.labels[row])
        text, colour = f"{class_names[label]} {detections.scores[row]:.2f}", CLASS_COLOURS[label % len(CLASS_COLOURS)]
        if detections.masks is None:
            draw_box(drawn, box, text, colour, thickness=max(1, round(2 * scale)), text_scale=text_scale)
        else:
            draw_mask(drawn, detections.masks[[row]], colour, thickness=max(1, int(scale)))
            if box[2] - box[0] >= imaging.label_width(text, text_scale):
                imaging.draw_label(drawn, text, (round(float(box[0])), round(float(box[1]))), colour, text_scale)
    return drawn


def draw_classes(image: Image, label_map: npt.NDArray[np.uint8], class_names: Sequence[str]) -> Image:
    """Return a copy of an (H, W, 3) RGB picture in the colours of its pixels' classes, (H, W), with their names."""
    drawn = image.copy()
    scale = max(image.shape[:2]) / _REFERENCE_SIDE
    draw_label_map(drawn, label_map, class_names, text_scale=max(0.4, 0.6 * scale))
    return drawn

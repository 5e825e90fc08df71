"""Hand-made results of a pass, golden arrays, and inputs that goldens describe by a rule."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.data.letterbox import Frame, InputSpec, plan_frame
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult

GOLDENS = Path(__file__).parents[1] / "goldens" / "mining"


def golden(name: str) -> Mapping[str, npt.NDArray[Any]]:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def golden_facts(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((GOLDENS / f"{name}.json").read_text())
    return facts


def generator(key: str) -> np.random.Generator:
    """The generator that a golden's key stands for."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def yolo_logits(key: str, anchors: int, height: int, width: int, classes: int) -> npt.NDArray[np.float32]:
    """Return (1, A, h, w, 5 + C): noise, and around one place per anchor a high objectness."""
    rng = generator(key)
    logits = rng.standard_normal((1, anchors, height, width, 5 + classes))
    logits[..., 4] -= 4
    logits[..., 5:] -= 1
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    for anchor in range(anchors):
        cy, cx = rng.uniform(0, 1, 2) * (height, width)
        sigma = rng.uniform(0.08, 0.25) * min(height, width)
        logits[0, anchor, :, :, 4] += 7 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
    return logits.astype(np.float32)


def class_maps(logits: npt.NDArray[np.float32]) -> Tensor:
    """Return (A, C, h, w) probabilities from (A, h, w, 5 + C) logits of boxes, objectness and classes."""
    p = torch.from_numpy(logits).sigmoid()
    return (p[..., 4:5] * p[..., 5:]).permute(0, 3, 1, 2)


def square_frame(width: int, height: int) -> Frame:
    """A picture that fills a network input of its own size."""
    return Frame(width, height, 1.0, 1.0, 0, 0, width, height, width, height)


def make_detections(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    labels: Sequence[int] | None = None,
    class_scores: npt.NDArray[Any] | None = None,
) -> Detections:
    """Return detections of one class, or of those that `class_scores` (n, C) has."""
    confidences = np.array(scores, np.float32)
    return Detections(
        np.array(boxes, np.float32).reshape(len(confidences), -1 if len(confidences) else 4),
        confidences,
        np.array(labels if labels is not None else [0] * len(confidences), np.int64),
        confidences[:, None] if class_scores is None else np.asarray(class_scores, np.float32),
    )


def make_result(
    *,
    position: int = 0,
    size: tuple[int, int] = (96, 72),
    seed: int = 0,
    detections: Detections | None = None,
    maps: Sequence[Tensor] | None = None,
    views: Mapping[str, Detections] | None = None,
    frame: Frame | None = None,
) -> ImageResult:
    return ImageResult(
        position=position,
        path=f"pool/{position}.jpg",
        size=size,
        frame=frame or plan_frame(*size, InputSpec(size=max(size))),
        seed=seed,
        detections=detections,
        class_maps=tuple(maps) if maps is not None else None,
        views=views or {},
    )

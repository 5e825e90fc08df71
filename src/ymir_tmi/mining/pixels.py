"""Sums over class probabilities of pixels, in strips that fit the processor's cache.

Probabilities are (C, H, W) float32 tensors on the model's device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_STRIP = 1 << 15  # pixels in work at once on a processor
_SMALLEST = 1e-38  # stands for 0 in a logarithm, so that 0 ln 0 = 0


class TopTwo(NamedTuple):
    """The two most likely classes of each pixel.

    Attributes:
        ratio: (H, W) float32 the second probability by the first, in [0, 1]: best versus second best. 0 where there is
            but one class, or where no class of several is likely at all.
        classes: (H, W) the most likely class, the first on ties: uint8, or int64 for more than 256 classes.
    """

    ratio: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8] | npt.NDArray[np.int64]


@torch.inference_mode()
def top_two(probabilities: Tensor) -> TopTwo:
    """Return the most likely class of each pixel, and how close the second one comes."""
    classes, height, width = probabilities.shape
    if classes > 1 and classes <= 256 and probabilities.device.type == "cpu":
        return _top_two_in_strips(probabilities.reshape(classes, -1).numpy(), (height, width))
    best, labels = probabilities.max(0)
    second = probabilities.topk(2, dim=0).values[1] if classes > 1 else torch.zeros_like(best)
    return TopTwo((second / best.clamp(min=_SMALLEST)).cpu().numpy(), labels.cpu().numpy())


def _top_two_in_strips(p: npt.NDArray[np.float32], shape: tuple[int, int]) -> TopTwo:
    """Go through the classes once, keeping the two largest probabilities of each pixel."""
    ratio, labels = np.empty(p.shape[1], np.float32), np.zeros(p.shape[1], np.uint8)
    for start in range(0, p.shape[1], _STRIP):
        strip, label = p[:, start : start + _STRIP], labels[start : start + _STRIP]
        best, second = strip[0].copy(), np.zeros(strip.shape[1], np.float32)
        for number in range(1, len(strip)):
            # Class numbers rise, so the largest one that was better than all before it is the best.
            np.maximum(label, (strip[number] > best).view(np.uint8) * np.uint8(number), out=label)
            np.maximum(second, np.minimum(best, strip[number]), out=second)
            np.maximum(best, strip[number], out=best)
        np.divide(second, np.maximum(best, np.float32(_SMALLEST)), out=ratio[start : start + _STRIP])
    return TopTwo(ratio.reshape(shape), labels.reshape(shape))


@torch.inference_mode()
def pixel_entropy(probabilities: Tensor) -> Tensor:
    """Return (H, W) the entropy of each pixel's classes by its largest value, ln C: in [0, 1]; 0 for one class."""
    classes = len(probabilities)
    if classes == 1:
        return torch.zeros_like(probabilities[0])
    p = probabilities.flatten(1)
    entropy = torch.empty(p.shape[1], device=p.device)
    size = _STRIP // 2 if p.device.type == "cpu" else p.shape[1]
    for start in range(0, p.shape[1], size):
        strip = p[:, start : start + size]
        entropy[start : start + size] = torch.clamp(strip, min=_SMALLEST).log_().mul_(strip).sum(0)
    return (entropy / -math.log(classes)).clamp_(min=0).view(probabilities.shape[1:])


def box_sums(values: Tensor, radius: int) -> Tensor:
    """Return (H, W) the sums of (H, W) values over squares of 2 * radius + 1 pixels, cut to the map."""
    return _line_sums(_line_sums(values, radius, 0), radius, 1)


def _line_sums(values: Tensor, radius: int, dim: int) -> Tensor:
    """Add shifted copies: exact for whole numbers, and the fewest rounding errors for others."""
    sums, length = values.clone(), values.shape[dim]
    for shift in range(1, min(radius, length - 1) + 1):
        sums.narrow(dim, 0, length - shift).add_(values.narrow(dim, shift, length - shift))
        sums.narrow(dim, shift, length - shift).add_(values.narrow(dim, 0, length - shift))
    return sums

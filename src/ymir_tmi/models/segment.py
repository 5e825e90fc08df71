"""From class logits of network inputs to the class of every pixel of a picture.

Facts: docs/specs/segmentation.md, section "Test". What lies between are bilinear resizings, cuts and sums, all of them
linear and the same for rows and columns. So the way of an output to the picture is two small matrices, and the picture
is made square by square: a map of all pixels and classes, 900 megabytes for 4000 x 3000 pixels and 19 classes, is never
there unless it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.config.schema import PassSettings, RunSettings
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.errors import ConfigError
from ymir_tmi.models.interface import ModelSpec
from ymir_tmi.models.pixel_losses import IGNORED

_SQUARE = 256
"""Side of the squares that a picture is made of, in pixels: those of twenty classes fit into a processor's cache."""

PIXEL_SETTINGS = ("window", "window_stride", "flip_test", "scales")
"""Settings that only models of the task `semantics` read."""

ClassGroups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class PixelTest:
    """How a network looks at a picture: whole, by windows, mirrored as well, at several scales.

    Attributes:
        window: (height, width) in pixels of the network input; None looks at it whole.
        stride: pixels between two windows, down and across.
        flip: whether it looks at the mirrored picture as well.
        scales: sizes of the network input, as multiples of the model's own.
    """

    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, settings: RunSettings, spec: ModelSpec) -> PixelTest:
        """Return what the settings of a verb say.

        Raises:
            ConfigError: a setting is not for this model, or windows would leave gaps.
        """
        if not isinstance(settings, PassSettings):
            return cls()
        _refuse_others(settings, spec)
        window = (settings.window[0], settings.window[-1]) if settings.window else None
        if window is None and settings.window_stride:
            raise ConfigError("'window_stride' is given without 'window'", fix="Give --window too, or leave it out.")
        stride = _stride(window, settings.window_stride)
        return cls(window, stride, settings.flip_test, tuple(settings.scales))

    def windows(self, height: int, width: int) -> list[Window]:
        """Return the windows over a network input, row by row."""
        if self.window is None:
            return [Window(0, height, 0, width)]
        rows = _windows(height, self.window[0], self.stride[0])
        columns = _windows(width, self.window[1], self.stride[1])
        return [Window(*row, *column) for row in rows for column in columns]


class Window(NamedTuple):
    """The part of a network input in rows `top` to `bottom` and columns `left` to `right` (excluded)."""

    top: int
    bottom: int
    left: int
    right: int


class Patch(NamedTuple):
    """What the network says of one window, and how it gets to the picture.

    Attributes:
        logits: (C, h, w) float32.
        rows: (height, h): row y of the picture is the sum of rows of the logits, weighted by `rows[y]`; on the CPU.
        columns: (width, w), the same for columns.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor


Look = Sequence[Patch]
"""One view of the whole picture: its patches, whose sum are the logits of the picture."""


def place_patch(logits: Tensor, window: Window, frame: Frame, test: PixelTest, *, mirrored: bool) -> Patch:
    """Return a patch for what the network says of a window.

    Args:
        logits: (C, h, w).
        window: the window.
        frame: where the picture lies in the network input.
        test: its windows, between which the logits are averaged.
        mirrored: whether the network has seen the mirrored input.
    """
    size = test.window or (frame.input_height, frame.input_width)
    down = _Side(frame.input_height, frame.top, frame.resized_height, frame.height, size[0], test.stride[0])
    across = _Side(frame.input_width, frame.left, frame.resized_width, frame.width, size[1], test.stride[1])
    rows = down.matrix(logits.shape[1], window.top, window.bottom, mirrored=False)
    columns = across.matrix(logits.shape[2], window.left, window.right, mirrored=mirrored)
    return Patch(logits, rows, columns)


def label_map(looks: Sequence[Look], groups: ClassGroups | None = None) -> npt.NDArray[np.uint8]:
    """Return (height, width) the class of every pixel.

    Args:
        looks: one or more views of the picture.
        groups: the classes of the network behind each class of the result, whose probabilities are added. Where a class
            that is in none of them is more probable than any, the pixel is labelled `IGNORED`. None: as they are.
    """
    height, width = _size(looks)
    first = looks[0][0].logits
    labels = torch.empty(height, width, dtype=torch.uint8, device=first.device)
    for rows, columns, scores in _squares(looks, softmax=len(looks) > 1 or _merges(groups)):
        rivals = scores if groups is None else _with_rest(scores, groups)
        labels[rows, columns] = rivals.max(0).indices  # twice as fast as argmax
    if groups is not None and _rest(len(first), groups):
        labels[labels >= len(groups)] = IGNORED
    found: npt.NDArray[np.uint8] = labels.cpu().numpy()
    return found


def probabilities(looks: Sequence[Look], groups: ClassGroups | None = None) -> Tensor:
    """Return (C, height, width) float32 class probabilities of every pixel, on the device of the logits.

    With `groups` (see `label_map`), those of each group's classes are added; what belongs to no group is left out, so
    that they may add up to less than 1. This takes 4 C bytes for each pixel.
    """
    height, width = _size(looks)
    first = looks[0][0].logits
    count = first.shape[0] if groups is None else len(groups)
    result = torch.empty(count, height, width, device=first.device)
    for rows, columns, scores in _squares(looks, softmax=True):
        result[:, rows, columns] = scores if groups is None else _merge(scores, groups)
    return result


@dataclass(frozen=True)
class _Side:
    """Rows, or columns, of a picture and of the network input that it lies in.

    Attributes:
        whole: of the input.
        start: where the picture begins in the input.
        resized: of the picture in the input.
        picture: of the picture itself.
        window: of a window, at most.
        stride: between two windows.
    """

    whole: int
    start: int
    resized: int
    picture: int
    window: int
    stride: int

    def matrix(self, cells: int, begin: int, end: int, *, mirrored: bool) -> Tensor:
        """Return (picture, cells) the weights of the cells of an output for the window from `begin` to `end`."""
        seen = torch.zeros(self.whole)
        for first, last in _windows(self.whole, self.window, self.stride):
            seen[first:last] += 1
        weights = torch.zeros(self.whole, cells)
        weights[begin:end] = _stretch(torch.eye(cells), end - begin) / seen[begin:end].unsqueeze(1)
        if mirrored:
            weights = weights.flip(0)
        return _stretch(weights[self.start : self.start + self.resized], self.picture)


def _stretch(rows: Tensor, count: int) -> Tensor:
    """Return (count, n) rows that are interpolated between those of an (m, n) matrix, as pixels are."""
    if len(rows) == count:
        return rows
    return F.interpolate(rows.T.unsqueeze(0), size=count, mode="linear", align_corners=False)[0].T


def _windows(whole: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return where the windows over a side begin and end; the last is moved back inside where it would reach out."""
    count = math.ceil(max(0, whole - window) / stride) + 1
    ends = [min(number * stride + window, whole) for number in range(count)]
    return [(max(0, end - window), end) for end in ends]


def _size(looks: Sequence[Look]) -> tuple[int, int]:
    first = looks[0][0]
    return first.rows.shape[0], first.columns.shape[0]


def _squares(looks: Sequence[Look], *, softmax: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows and columns of each square of a picture, and its (C, h, w) logits or mean probabilities."""
    height, width = _size(looks)
    for top in range(0, height, _SQUARE):
        for left in range(0, width, _SQUARE):
            rows, columns = slice(top, min(top + _SQUARE, height)), slice(left, min(left + _SQUARE, width))
            logits = (_draw(look, rows, columns) for look in looks)
            if softmax:
                total = reduce(torch.add, (scores.softmax(0) for scores in logits))
                yield rows, columns, total / len(looks)
            else:
                yield rows, columns, next(logits)


def _draw(look: Look, rows: slice, columns: slice) -> Tensor:
    """Return (C, h, w) the logits of a square of the picture."""
    size = rows.stop - rows.start, columns.stop - columns.start
    first = look[0].logits
    square = first.new_zeros(len(first), *size)
    for patch in look:
        down, across = patch.rows[rows], patch.columns[columns]
        y, x = _used(down), _used(across)
        if y.stop and x.stop:
            square += down[:, y].to(square) @ patch.logits[:, y, x] @ across[:, x].T.to(square)
    return square


def _used(weights: Tensor) -> slice:
    """Return the columns from the first to the last one that is not 0; an empty slice where all are."""
    used = weights.any(0).nonzero().squeeze(1)
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)


def _merges(groups: ClassGroups | None) -> bool:
    return groups is not None and any(len(group) > 1 for group in groups)


def _merge(scores: Tensor, groups: ClassGroups) -> Tensor:
    """Return (len(groups), h, w) sums over each group of (C, h, w) scores."""
    if not _merges(groups):
        return scores[[group[0] for group in groups]]
    return torch.stack([scores[list(group)].sum(0) for group in groups])


def _with_rest(scores: Tensor, groups: ClassGroups) -> Tensor:
    """Return the merged scores, then those of the classes that are in no group."""
    return torch.cat([_merge(scores, groups), scores[_rest(len(scores), groups)]])


def _rest(count: int, groups: ClassGroups) -> list[int]:
    return sorted(set(range(count)) - {label for group in groups for label in group})


def _stride(window: tuple[int, int] | None, given: Sequence[int]) -> tuple[int, int]:
    if window is None:
        return 1, 1
    stride = (given[0], given[-1]) if given else (math.ceil(window[0] * 2 / 3), math.ceil(window[1] * 2 / 3))
    if stride[0] > window[0] or stride[1] > window[1]:
        raise ConfigError(
            f"windows of {window[0]} x {window[1]} pixels every {stride[0]} x {stride[1]} pixels leave gaps",
            where="window_stride",
            fix="Give a stride that is not larger than the window.",
        )
    return stride


def _refuse_others(settings: PassSettings, spec: ModelSpec) -> None:
    if spec.task == "semantics":
        if settings.tile is not None:
            raise ConfigError(
                f"'tile' is for models that find objects, and '{spec.name}' gives every pixel a class",
                where="tile",
                fix="Use --window: the network then looks at the picture window by window.",
            )
        return
    for name in PIXEL_SETTINGS:
        if getattr(settings, name) != PassSettings.model_fields[name].default:
            raise ConfigError(
                f"'{name}' is for models that give every pixel a class, and '{spec.name}' finds objects",
                where=name,
                fix="Leave it out.",
            )

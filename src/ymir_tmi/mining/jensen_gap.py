"""How much neighbouring places of a network's class maps disagree.

The maps of all levels are enlarged to pixels, and at every pixel the entropy of the mean of a 9 x 9 window is compared
with the mean of the entropies in it. The difference (Jensen's gap, in nats) is 0 where the window agrees, and large
where it holds certainties that contradict each other: a sure object beside a sure background. It is summed over the
anchors and levels of a class; the largest gap of each cell of 32 x 32 pixels is averaged over the picture.

Source: Aghdam et al., "Active learning for deep detection neural networks", ICCV 2019; docs/specs/mining.md, section 3.

Enlarging and averaging are linear and work on rows and columns one after the other, so both are products with small
matrices, and the mean of a window is taken from the small map at once. Entropies are summed over a class's channels
before they are averaged. What is left is one pass of logarithms over each of the two, in strips that fit the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Floats = npt.NDArray[np.float64]

WINDOW = 9
HALO = WINDOW // 2
CELL = 32

_TOLERANCE = 5e-5  # cells are left out while all of them together add less than this part of the score
_RARE = 0.03  # below this probability three terms of a series stand for (1 - p) ln(1 - p)
_SMALLEST = 1e-38  # stands for 0 in a logarithm, so that 0 ln 0 = 0
_STRIP_VALUES = {"cpu": 300_000, "cuda": 16_000_000}  # numbers per level in work at once: the cache, or a full GPU


class Region(NamedTuple):
    """The rectangle of the network input that is scored, in pixels."""

    left: int
    top: int
    width: int
    height: int


def class_scores(
    maps: Sequence[Tensor], input_size: tuple[int, int], region: Region, weights: npt.NDArray[Any] | None = None
) -> Floats:
    """Return (C,) the score of each class, in nats, not multiplied by its weight.

    A class or a cell whose probabilities are so small that it cannot matter is left out: the gap of a window is bounded
    by the largest probability in it, and what is left out adds less than 5e-5 of the weighted sum of the scores. Where
    a probability is NaN, so is every score.

    Args:
        maps: per level (A, C, h, w) probabilities.
        input_size: (height, width) of the network input that the maps cover.
        region: what is scored; pixels outside do not even enter the means. Rows and columns beyond the last whole cell
            are not scored; a side shorter than a cell is one cell.
        weights: (C,) factors that the caller will apply, none of them negative; by default 1.
    """
    with torch.inference_mode():
        return _class_scores(_Grid(maps, input_size, region), np.ones(maps[0].shape[1]) if weights is None else weights)


def heat_map(
    maps: Sequence[Tensor], input_size: tuple[int, int], region: Region, weights: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float32]:
    """Return (height, width) of the region: the gap at every pixel, summed over the classes, weighted.

    Arguments as in `class_scores`.
    """
    with torch.inference_mode():
        grid = _Grid(maps, input_size, region)
        factors = torch.ones(grid.classes) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        factors = factors.to(grid.device)
        total = torch.zeros(region.height, region.width, device=grid.device)
        for classes in grid.chunks(np.arange(grid.classes)):
            gaps = _Gaps(grid, classes)
            for top in range(0, region.height, CELL):
                rows = slice(top, min(top + CELL, region.height))
                gap = gaps.at(rows, slice(0, region.width), rare=False)
                total[rows] += torch.einsum("c,chw->hw", factors[classes], gap)
        return np.asarray(total.clamp(min=0).cpu())


def gap_bound(largest: Tensor) -> Tensor:
    """Return a number that Jensen's gap of any values in [0, `largest`] does not exceed."""
    # -p ln p gives at most largest / e, and -(1 - p) ln(1 - p), which bends by 1 / (1 - p), the quadratic term.
    return largest * (0.37 + 0.33 * largest)


def _class_scores(grid: _Grid, weights: npt.NDArray[Any]) -> Floats:
    peaks, bounds = grid.cell_bounds()
    if not np.isfinite(bounds).all():
        return np.full(grid.classes, np.nan)  # else what is no number would pass for what is too small to matter
    bounds *= weights[:, None, None]
    skippable = _Skippable(bounds)
    sums = np.zeros(grid.classes)
    for classes in grid.chunks(np.argsort(-bounds.sum((1, 2)), kind="stable")):
        if not skippable.must_score(bounds[classes]).any():
            continue
        gaps = _Gaps(grid, classes)
        for row in np.argsort(-bounds[classes].sum((0, 2)), kind="stable"):
            columns = np.flatnonzero(skippable.must_score(bounds[classes, row]).any(0))
            if not len(columns):
                continue
            first, last = columns[0], columns[-1] + 1
            rare = bool(peaks[classes, row, first:last].max() < _RARE)
            found = gaps.cell_maxima(int(row), int(first), int(last), rare=rare)
            sums[classes] += found
            skippable.score += float(weights[classes] @ found)
    return np.asarray(sums / bounds[0].size)


class _Skippable:
    """Says which cells may be left out, given how far the score has grown: it only grows.

    Attributes:
        score: sum of the cells that were scored.
    """

    def __init__(self, bounds: Floats) -> None:
        self._bounds = np.sort(bounds, axis=None)
        self._sums = np.cumsum(self._bounds)
        self.score = 0.0

    def must_score(self, bounds: Floats) -> npt.NDArray[np.bool_]:
        """Return which of the cells with these bounds are too large to be left out."""
        free = int(np.searchsorted(self._sums, _TOLERANCE * self.score, side="right"))
        threshold = self._bounds[free] if free < len(self._bounds) else np.inf
        return np.asarray(bounds >= threshold)


class _Grid:
    """The maps of one image, and how their cells become the pixels of the region."""

    def __init__(self, maps: Sequence[Tensor], input_size: tuple[int, int], region: Region) -> None:
        self.maps = [level.float().transpose(0, 1) for level in maps]  # (C, A, h, w)
        self.classes, self.anchors = self.maps[0].shape[:2]
        self.device = self.maps[0].device
        self.region = region
        self.rows = [_axis(m.shape[2], input_size[0], region.top, region.height, self.device) for m in self.maps]
        self.columns = [_axis(m.shape[3], input_size[1], region.left, region.width, self.device) for m in self.maps]
        self.cell = (min(CELL, region.height), min(CELL, region.width))

    def chunks(self, classes: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Yield as many classes at once as a strip of one row of cells has room for."""
        strip = self.anchors * (self.cell[0] + 2 * HALO) * (self.region.width + 2 * HALO)
        size = max(1, _STRIP_VALUES[self.device.type] // strip)
        for start in range(0, len(classes), size):
            yield classes[start : start + size]

    def cell_bounds(self) -> tuple[Floats, Floats]:
        """Return two (C, rows, columns): the largest probability that a cell sees, and a bound of its gap."""
        peaks, bounds = [], []
        for level, rows, columns in zip(self.maps, self.rows, self.columns, strict=True):
            across = _cell_maxima(level, rows, self.cell[0])
            largest = _cell_maxima(across.transpose(2, 3), columns, self.cell[1]).transpose(2, 3)
            peaks.append(largest.amax(1))
            bounds.append(gap_bound(largest).sum(1))
        peak, bound = torch.stack(peaks).amax(0), torch.stack(bounds).sum(0)
        return np.asarray(peak.double().cpu()), np.asarray(bound.double().cpu())


class _Gaps:
    """The gaps of some classes, anywhere in the region."""

    def __init__(self, grid: _Grid, classes: npt.NDArray[np.int64]) -> None:
        self._grid = grid
        chosen = torch.from_numpy(classes).to(grid.device)
        levels = [level[chosen] for level in grid.maps]
        # Enlarged across, not yet down: (n, A, h, width); `_wide` has a halo of zeros left and right.
        self._wide = [m @ axis.enlarge.T for m, axis in zip(levels, grid.columns, strict=True)]
        self._wide_means = [m @ axis.mean.T for m, axis in zip(levels, grid.columns, strict=True)]

    def at(self, rows: slice, columns: slice, *, rare: bool) -> Tensor:
        """Return (n, rows, columns) gaps. `rare` promises that no probability in reach exceeds `_RARE`."""
        entropy_sum = _rare_entropy_sum if rare else binary_entropy_sum
        halo_rows, halo_columns = (slice(s.start, s.stop + 2 * HALO) for s in (rows, columns))
        of_mean: Tensor | float = 0.0
        of_pixels: Tensor | float = 0.0
        for wide, wide_means, axis in zip(self._wide, self._wide_means, self._grid.rows, strict=True):
            near = axis.cells_near(rows)
            pixels = axis.enlarge[halo_rows, near] @ wide[:, :, near, halo_columns]
            of_pixels = of_pixels + entropy_sum(pixels)
            means = axis.mean[rows, near] @ wide_means[:, :, near, columns]
            of_mean = of_mean + entropy_sum(means)
        assert isinstance(of_mean, Tensor) and isinstance(of_pixels, Tensor)
        sums = _window_sums(_window_sums(of_pixels).transpose(1, 2)).transpose(1, 2)
        share = self._grid.rows[0].share[rows, None] * self._grid.columns[0].share[columns]
        return of_mean - sums * share

    def cell_maxima(self, row: int, first: int, last: int, *, rare: bool) -> Floats:
        """Return (n,) the sum of the largest gaps of the cells `first` to `last` (exclusive) of one row of cells."""
        height, width = self._grid.cell
        rows, columns = slice(row * height, (row + 1) * height), slice(first * width, last * width)
        gap = self.at(rows, columns, rare=rare)
        largest = gap.reshape(len(gap), height, last - first, width).amax((1, 3))
        return np.asarray(largest.double().sum(1).cpu())


@dataclass(frozen=True)
class _Axis:
    """How the cells of a map become the n pixels of the region, along one side.

    Attributes:
        enlarge: (n + 2 HALO, cells) weights of bilinear interpolation; the halo's rows are 0.
        mean: (n, cells) weights of the mean of a window of interpolated pixels inside the region.
        share: (n,) 1 / number of pixels in the window.
        first, last: per pixel, the cells it is interpolated from.
    """

    enlarge: Tensor
    mean: Tensor
    share: Tensor
    first: tuple[int, ...]
    last: tuple[int, ...]

    def cells_near(self, pixels: slice) -> slice:
        """Return the cells that these pixels and their windows are made of."""
        start, stop = max(0, pixels.start - HALO), min(len(self.last), pixels.stop + HALO)
        return slice(self.first[start], self.last[stop - 1] + 1)


@lru_cache(maxsize=128)  # six for each size of picture, up to 0.4 MB each
def _axis(cells: int, pixels: int, start: int, length: int, device: torch.device) -> _Axis:
    unit = torch.eye(cells, dtype=torch.float64)
    enlarge = F.interpolate(unit[None], size=pixels, mode="linear")[0, :, start : start + length]  # (cells, length)
    inside = torch.ones(1, length, dtype=torch.float64)
    count = WINDOW * F.avg_pool1d(inside, WINDOW, stride=1, padding=HALO)[0]
    mean = F.avg_pool1d(enlarge[None], WINDOW, stride=1, padding=HALO, count_include_pad=False)[0]
    used = (enlarge > 0).int()
    return _Axis(
        enlarge=F.pad(enlarge, (HALO, HALO)).T.float().contiguous().to(device),
        mean=mean.T.float().contiguous().to(device),
        share=(1 / count).float().to(device),
        first=tuple(used.argmax(0).tolist()),
        last=tuple((cells - 1 - used.flip(0).argmax(0)).tolist()),
    )


def _cell_maxima(level: Tensor, axis: _Axis, cell: int) -> Tensor:
    """Reduce (C, A, h, w) to (C, A, whole cells, w): the largest value that the pixels of each cell see."""
    starts = range(0, len(axis.share) - cell + 1, cell)
    return torch.stack([level[:, :, axis.cells_near(slice(s, s + cell))].amax(2) for s in starts], dim=2)


def binary_entropy_sum(p: Tensor) -> Tensor:
    """Return (n, h, w) the binary entropies of (n, A, h, w) probabilities, in nats, summed over A; spoils `p`."""
    q = (1 - p).clamp_(min=_SMALLEST)  # interpolation may leave p a rounding error above 1
    p.clamp_(min=_SMALLEST)
    return (_log(p).mul_(p) + _log(q).mul_(q)).sum(1).neg_()


def _rare_entropy_sum(p: Tensor) -> Tensor:
    """As `binary_entropy_sum` but for a term linear in p, of which Jensen's gap is 0.

    For small p this takes one logarithm, and does not lose digits in 1 - p: the series of -(1 - p) ln(1 - p) is
    p - p^2 / 2 - p^3 / 6 - ...
    """
    rest = (p / 6).add_(0.5).mul_(p)
    return (_log(p.clamp_(min=_SMALLEST)) + rest).mul_(p).sum(1).neg_()


def _window_sums(values: Tensor) -> Tensor:
    """Return (..., n) sums of each 9 neighbours of (..., n + 8), by doubling: four additions in place of eight."""
    two = values[..., :-1] + values[..., 1:]
    four = two[..., :-2] + two[..., 2:]
    eight = four[..., :-4] + four[..., 4:]
    return eight[..., :-1] + values[..., 8:]


def _log(values: Tensor) -> Tensor:
    # On a processor NumPy's logarithm of float32 takes less than half the time of PyTorch's.
    return torch.from_numpy(np.log(values.numpy())) if values.device.type == "cpu" else values.log()

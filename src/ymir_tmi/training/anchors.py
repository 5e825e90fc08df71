"""Anchors that fit the objects of a training set (docs/specs/yolov5.md, section 10).

An anchor fits an object as well as their sides agree: the smallest of the ratios of widths and of heights, and of their
inverses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.models.interface import Anchors

_ENOUGH = 0.98
_SMALLEST = 2.0  # pixels
_MOST_SIZES = 50_000  # a thousand generations over all sizes of a large data set would take a minute
_ROUNDS = 30
_GENERATIONS = 1000
_MUTATION = 0.9
_SIGMA = 0.1

_Sizes = npt.NDArray[np.float64]


class AnchorFit(BaseModel):
    """The anchors of a run, and how well they fit its objects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchors: Anchors
    """Width and height of each in pixels, level by level, finest first."""
    recall: float
    """Part of the training objects that some anchor fits."""
    recall_before: float | None = None
    """The same of the anchors that these replace; None where none are replaced."""

    def to_text(self) -> str:
        """Return a line for a person."""
        replaced = "" if self.recall_before is None else f" in place of {self.recall_before:.1%}: they are new"
        return f"anchors: they fit {self.recall:.1%} of the training objects{replaced}"


def fit_anchors(anchors: Anchors, sizes: _Sizes, ratio: float, rng: np.random.Generator) -> AnchorFit:
    """Return the anchors as they are where they fit 98 % of the objects, else better ones if there are such.

    New ones are the centres of clusters of sizes, then changed at random a thousand times where that fits better.

    Args:
        anchors: of the model.
        sizes: (n, 2) width and height of the objects in pixels of the network input.
        ratio: an anchor fits an object whose sides are less than this many times as long or as short.
        rng: where random draws come from.
    """
    own = np.array(anchors, float)
    before = best_recall(sizes, own.reshape(-1, 2), ratio)
    visible = rng.permutation(sizes[sizes.max(axis=1, initial=0) >= _SMALLEST])[:_MOST_SIZES]
    if before > _ENOUGH or not len(visible):
        return AnchorFit(anchors=anchors, recall=before)
    found = mutate(np.maximum(cluster(visible, own.size // 2, rng), _SMALLEST), visible, ratio, rng)
    new = np.round(found[np.argsort(found.prod(axis=1))], 1)
    after = best_recall(sizes, new, ratio)
    if after <= before:
        return AnchorFit(anchors=anchors, recall=before)
    levels: Any = new.reshape(own.shape).tolist()
    return AnchorFit(anchors=levels, recall=after, recall_before=before)


def object_sizes(index: DatasetIndex, image_size: int, rng: np.random.Generator) -> _Sizes:
    """Return (n, 2) width and height in pixels of the objects to learn.

    The longer side of every image is `image_size` pixels, more or less by up to a tenth at random.
    """
    longer = index.sizes.max(axis=1)
    scale = rng.uniform(0.9, 1.1, len(index)) * image_size / np.maximum(longer, 1)
    image = index.image_of_box()
    chosen = (index.flags == 0) & (longer[image] > 0)
    sides = (index.boxes[:, 2:] - index.boxes[:, :2]).astype(float) * scale[image][:, None]
    sizes: _Sizes = sides[chosen & (sides > 0).all(axis=1)]
    return sizes


def best_recall(sizes: _Sizes, anchors: _Sizes, ratio: float) -> float:
    """Return the part of (n, 2) sizes that some of (k, 2) anchors fits; 1 where there are none."""
    return float((_best_fit(sizes, anchors) > 1 / ratio).mean()) if len(sizes) else 1.0


def cluster(sizes: _Sizes, count: int, rng: np.random.Generator) -> _Sizes:
    """Return (count, 2) centres of clusters of (n, 2) sizes (k-means, Lloyd 1982), both sides being equally important.

    Where there are fewer different sizes than clusters, the others are drawn between the smallest and the largest.
    """
    distinct = np.unique(sizes, axis=0)
    if len(distinct) <= count:
        missing = rng.uniform(sizes.min(axis=0), sizes.max(axis=0), (count - len(distinct), 2))
        return np.concatenate([distinct, missing])
    spread = sizes.std(axis=0)
    points = sizes / np.where(spread > 0, spread, 1)
    centres = _spread_out(points, count, rng)
    for _ in range(_ROUNDS):
        nearest = _square_distances(points, centres).argmin(axis=1)
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, points[:, axis], count) for axis in range(2)], axis=1)
        centres = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centres)
    return centres * np.where(spread > 0, spread, 1)


def mutate(anchors: _Sizes, sizes: _Sizes, ratio: float, rng: np.random.Generator) -> _Sizes:
    """Return (k, 2) anchors after random changes of which each that fits (n, 2) sizes better was kept."""
    best = _fitness(anchors, sizes, ratio)
    for _ in range(_GENERATIONS):
        changed = rng.random(anchors.shape) < _MUTATION
        factors = 1 + changed * rng.random() * rng.normal(0, _SIGMA, anchors.shape)
        candidate = np.maximum(anchors * factors.clip(0.3, 3.0), _SMALLEST)
        fitness = _fitness(candidate, sizes, ratio)
        if fitness > best:
            best, anchors = fitness, candidate
    return anchors


def _fitness(anchors: _Sizes, sizes: _Sizes, ratio: float) -> float:
    """Return how well the best anchors fit on average; those that do not fit count nothing."""
    fit = _best_fit(sizes, anchors)
    return float((fit * (fit > 1 / ratio)).mean())


def _best_fit(sizes: _Sizes, anchors: _Sizes) -> npt.NDArray[np.float64]:
    """Return (n,) how well the best of (k, 2) anchors fits each of (n, 2) sizes, in (0, 1]."""
    widths, heights = np.log(sizes).T
    farthest = np.full(len(sizes), np.inf)
    for width, height in np.log(anchors):  # in logarithms a ratio and its inverse are equally far from 0
        np.minimum(farthest, np.maximum(np.abs(widths - width), np.abs(heights - height)), out=farthest)
    fit: npt.NDArray[np.float64] = np.exp(-farthest)
    return fit


def _spread_out(points: _Sizes, count: int, rng: np.random.Generator) -> _Sizes:
    """Choose points far from one another to begin with (k-means++, Arthur and Vassilvitskii 2007)."""
    centres = points[[rng.integers(len(points))]]
    while len(centres) < count:
        distances = _square_distances(points, centres).min(axis=1)
        centres = np.append(centres, points[[rng.choice(len(points), p=distances / distances.sum())]], axis=0)
    return centres


def _square_distances(points: _Sizes, centres: _Sizes) -> npt.NDArray[np.float64]:
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)

"""A small world in which labelling helps or does not: the right end of a ranking must help more than the wrong one.

Pictures have a lighting, which is common or rare, and a bright object in front of a dark ground; what counts as bright
depends on the lighting. The model looks for pixels like its own among those that are labelled, and at first knows
pictures in the common lighting only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import make_result

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.algorithm import Algorithm, PoolAlgorithm, create_algorithm
from ymir_tmi.mining.select import select_by_score
from ymir_tmi.models.interface import Detections, Task
from ymir_tmi.pool.consumer import ImageResult

SIDE = 24
PASSES = 6
CHOSEN = 4
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A picture: (n, 2) brightness and lighting of its pixels, and (n,) whether each is the object's."""

    pixels: Floats
    truth: npt.NDArray[np.int64]


def draw_scene(rng: np.random.Generator, *, rare: bool) -> Scene:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y, radius = *rng.uniform(8, SIDE - 8, 2), rng.uniform(5, 8)
    truth = np.hypot(columns - x, rows - y) < radius
    limit = 0.7 if rare else 0.6
    brightness = limit + np.where(truth, 1, -1) * rng.uniform(0.02, 0.2, truth.shape)
    lighting = np.full(truth.shape, float(rare)) + rng.normal(0, 0.05, truth.shape)
    return Scene(np.stack([brightness.ravel(), lighting.ravel()], axis=1), truth.ravel().astype(np.int64))


class Neighbours:
    """Says what a pixel is by those like it; where there are none, it does not know."""

    def __init__(self, scenes: list[Scene], rng: np.random.Generator) -> None:
        pixels, truth = (np.concatenate([getattr(scene, name) for scene in scenes]) for name in ("pixels", "truth"))
        rows = rng.permutation(len(truth))[:150]
        self._pixels, self._truth = pixels[rows], truth[rows]

    def probabilities(self, scene: Scene, kept: npt.NDArray[np.bool_] | slice = slice(None)) -> Floats:
        """Return (2, SIDE, SIDE) of the ground and the object, by those of its examples that are kept."""
        scale = np.array([0.05, 0.3])
        distance = ((scene.pixels[:, None] / scale - self._pixels[kept] / scale) ** 2).sum(2)
        weights = np.exp(-distance / 2)
        votes = np.stack([weights[:, self._truth[kept] == label].sum(1) for label in (0, 1)]) + 0.05
        return np.asarray((votes / votes.sum(0)).reshape(2, SIDE, SIDE))

    def passes(self, scene: Scene, rng: np.random.Generator) -> list[Detections]:
        """Return the object as it is seen with random parts of the examples forgotten."""
        return [self._object(scene, rng.random(len(self._truth)) < 0.2) for _ in range(PASSES)]

    def _object(self, scene: Scene, kept: npt.NDArray[np.bool_]) -> Detections:
        p = self.probabilities(scene, kept)[1]
        masks = Masks.encode(p[None] >= 0.5)
        score = p[p >= 0.5].mean(keepdims=True).astype(np.float32) if (p >= 0.5).any() else np.zeros(1, np.float32)
        return Detections(
            masks.hulls(), score, np.zeros(1, np.int64), np.stack([score, (1 - score) / 2], axis=1), masks
        )


def result_of(model: Neighbours, scene: Scene, position: int) -> ImageResult:
    cells = np.arange(SIDE * SIDE // 16).reshape(SIDE // 4, SIDE // 4)
    return replace(
        make_result(position=position, size=(SIDE, SIDE)),
        probabilities=torch.from_numpy(model.probabilities(scene).astype(np.float32)),
        passes=model.passes(scene, np.random.default_rng(position)),
        measured=np.kron(cells, np.ones((4, 4))).astype(np.int32),
    )


def ranking(algorithm: Algorithm, results: list[ImageResult]) -> npt.NDArray[np.int64]:
    rows = algorithm.consume(results)
    if isinstance(algorithm, PoolAlgorithm):
        rows = list(map(algorithm.conclude(lambda: iter(rows)), rows))
    return select_by_score(np.array([row["score"] for row in rows]))


def accuracy(model: Neighbours, scenes: list[Scene]) -> float:
    right = [model.probabilities(scene).argmax(0).ravel() == scene.truth for scene in scenes]
    return float(np.mean(right))


def after_labelling(algorithm: Algorithm, seed: int) -> tuple[float, float]:
    """Return how often the model is right once the first of the ranking are labelled, and once the last are."""
    rng = np.random.default_rng(seed)
    labelled = [draw_scene(rng, rare=False) for _ in range(4)]
    pool = [draw_scene(rng, rare=number % 4 == 0) for number in range(20)]
    held_out = [draw_scene(rng, rare=number % 2 == 0) for number in range(6)]
    model = Neighbours(labelled, rng)
    order = ranking(algorithm, [result_of(model, scene, number) for number, scene in enumerate(pool)])
    ends = (order[:CHOSEN], order[-CHOSEN:])
    first, last = (
        accuracy(Neighbours(labelled + [pool[number] for number in chosen], np.random.default_rng(seed)), held_out)
        for chosen in ends
    )
    return first, last


@pytest.mark.parametrize(
    "algorithm, task, options, helps",
    [
        ("maskal", "instances", {"passes": PASSES, "conf": 0}, True),
        ("maskal", "instances", {"passes": PASSES, "conf": 0, "certainty": "min"}, True),
        ("maskal", "instances", {"passes": PASSES, "conf": 0, "compat": "yolov5"}, False),  # as earlier programs chose
        ("rsal", "semantics", {}, True),
        ("rsal", "semantics", {"normalize": True}, True),
        ("ripu", "semantics", {}, True),
        ("entropy", "semantics", {}, True),
    ],
)
def test_the_right_end_of_the_ranking_helps_more(
    algorithm: str, task: Task, options: dict[str, Any], helps: bool
) -> None:
    settings = MineSettings.model_validate({"data": [], "algorithm": algorithm, **options})
    for seed in range(3):
        first, last = after_labelling(create_algorithm(settings, ["one", "other"], task=task), seed)
        assert first > last + 0.05 if helps else last > first + 0.05

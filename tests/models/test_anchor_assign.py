"""Which anchors an object takes, against loops that say the same as docs/specs/detectors.md, sections 10.1 and 10.4."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ymir_tmi.models.anchored import objectness_targets
from ymir_tmi.models.assign import matching
from ymir_tmi.models.assign.anchor_shapes import match_shapes
from ymir_tmi.models.assign.candidates import assign_cheapest_candidates
from ymir_tmi.models.interface import Matches, Targets

GRIDS = [(12, 16), (6, 8), (3, 4)]
STRIDES = (8, 16, 32)
HEIGHT, WIDTH = 96, 128
ANCHORS = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (20, 20), (70, 9)]]
CLASSES = 4
Row = tuple[int, int, int]
"""Image, prior, object."""


def anchors() -> Tensor:
    return torch.tensor(ANCHORS, dtype=torch.float64)


def some_targets(seed: int, counts: tuple[int, ...], *, snapped: bool = False) -> Targets:
    """Return boxes inside the picture; those that are snapped have centres in the middle and on the edges of cells."""
    random = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for count in counts:
        space = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
        centres = torch.rand(count, 2, generator=random, dtype=torch.float64) * space
        if snapped:
            centres = (centres / 4).round() * 4
        sizes = torch.rand(count, 2, generator=random, dtype=torch.float64).square() * 90 + 2
        boxes.append(torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1))
        labels.append(torch.randint(0, CLASSES, (count,), generator=random))
    return Targets(boxes, labels)


def slow_shapes(targets: Targets, ratio: float) -> list[Row]:
    """Return rows in the order of section 10.1: neighbour, level, anchor, object."""
    rows = []
    for neighbour in range(5):
        for level, (stride, (height, width)) in enumerate(zip(STRIDES, GRIDS, strict=True)):
            for anchor, shape in enumerate(ANCHORS[level]):
                for image, boxes in enumerate(targets.boxes):
                    for gt, box in enumerate(boxes.tolist()):
                        cell = slow_cell(box, shape, stride, height, width, neighbour, ratio)
                        if cell is not None:
                            before = sum(h * w for h, w in GRIDS[:level])
                            rows.append((image, (before + cell[1] * width + cell[0]) * 3 + anchor, gt))
    return rows


def slow_cell(
    box: list[float], shape: tuple[int, int], stride: int, height: int, width: int, neighbour: int, ratio: float
) -> tuple[int, int] | None:
    """Return the cell of a neighbour (0 is the own one) that is responsible, or None."""
    sides = box[2] - box[0], box[3] - box[1]
    if max(max(side / length, length / side) for side, length in zip(sides, shape, strict=True)) >= ratio:
        return None
    x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
    own = min(int(x), width - 1), min(int(y), height - 1)
    if neighbour == 0:
        return own
    axis = (neighbour - 1) % 2
    place, size = ((x, width), (y, height))[axis]
    backwards = neighbour in (1, 2)
    reach = place if backwards else size - place
    if not (reach % 1 < 0.5 and reach > 1):
        return None
    cell = [min(int(x), width - 1), min(int(y), height - 1)]
    cell[axis] = int(place - 0.5) if backwards else int(place + 0.5)
    return min(cell[0], width - 1), min(cell[1], height - 1)


@pytest.mark.parametrize("snapped", [False, True])
@pytest.mark.parametrize("ratio", [4.0, 2.0])
@pytest.mark.parametrize("counts", [(6, 4), (0, 5), (3, 0, 2), (0,)])
def test_shapes(counts: tuple[int, ...], ratio: float, snapped: bool) -> None:
    for seed in range(5):
        targets = some_targets(seed, counts, snapped=snapped)
        matches = match_shapes(targets, GRIDS, STRIDES, anchors(), ratio=ratio)
        rows = list(zip(matches.image.tolist(), matches.prior.tolist(), matches.gt.tolist(), strict=True))
        assert rows == slow_shapes(targets, ratio)
        for image, _, gt, label, box, quality in zip(*matches, strict=True):
            assert label == targets.labels[image][gt]
            assert torch.equal(box, targets.boxes[image][gt])
            assert quality == 1


@pytest.mark.parametrize("place", [(128.0, 50.0), (60.0, 96.0), (128.0, 96.0), (0.0, 0.0)])
def test_a_centre_on_the_edge_of_the_picture_stays_inside(place: tuple[float, float]) -> None:
    x, y = place
    targets = Targets([torch.tensor([[x - 16, y - 15, x + 16, y + 15]])], [torch.tensor([0])])
    priors = match_shapes(targets, GRIDS, STRIDES, anchors(), ratio=4.0).prior
    assert len(priors) > 0
    assert priors.min() >= 0 and priors.max() < 3 * sum(height * width for height, width in GRIDS)


def test_a_box_without_area_takes_no_anchor() -> None:
    targets = Targets([torch.tensor([[20.0, 20.0, 20.0, 40.0], [20.0, 20.0, 20.0, 20.0]])], [torch.tensor([0, 0])])
    assert len(match_shapes(targets, GRIDS, STRIDES, anchors(), ratio=4.0).prior) == 0


def iou(first: list[float], second: list[float]) -> float:
    overlap = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    overlap *= max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    return overlap / max(sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - overlap, 1e-6)


def slow_candidates(candidates: Matches, boxes: Tensor, scores: Tensor, targets: Targets) -> list[Row]:
    rows = []
    for image, gts in enumerate(targets.boxes):
        own = [n for n in range(len(candidates.image)) if candidates.image[n] == image]
        cost: dict[tuple[int, int], float] = {}
        claims: dict[int, list[int]] = {}
        for gt, box in enumerate(gts.tolist()):
            overlaps = {n: iou(boxes[n].tolist(), box) for n in own}
            for n in own:
                entropy = -sum(
                    math.log(score if c == targets.labels[image][gt] else 1 - score)
                    for c, score in enumerate(scores[n].tolist())
                )
                cost[n, gt] = entropy - 3 * math.log(overlaps[n] + 1e-8)
            k = max(1, int(sum(sorted(overlaps.values(), reverse=True)[:10])))
            for n in sorted(own, key=lambda n: cost[n, gt])[:k]:
                claims.setdefault(n, []).append(gt)
        for n, owners in sorted(claims.items()):
            everyone = range(len(gts)) if len(owners) > 1 else owners
            rows.append((image, int(candidates.prior[n]), min(everyone, key=lambda gt: cost[n, gt])))
    return sorted(rows)


@pytest.mark.parametrize("chunked", [False, True], ids=["one chunk", "an image a chunk"])
@pytest.mark.parametrize("counts", [(6, 4), (0, 5), (1, 0, 9), (0,)])
def test_candidates(counts: tuple[int, ...], chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if chunked:
        monkeypatch.setattr(matching, "_MAX_PAIRS", 1)
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)
        targets = some_targets(seed, counts)
        candidates = match_shapes(targets, GRIDS, STRIDES, anchors(), ratio=4.0)
        noise = torch.randn(len(candidates.prior), 4, generator=random, dtype=torch.float64)
        boxes = candidates.box + noise * 6
        scores = torch.rand(len(boxes), CLASSES, generator=random, dtype=torch.float64) * 0.8 + 0.1
        matches = assign_cheapest_candidates(candidates, boxes, scores, targets)
        rows = sorted(zip(matches.image.tolist(), matches.prior.tolist(), matches.gt.tolist(), strict=True))
        assert rows == slow_candidates(candidates, boxes, scores, targets)
        for image, _, gt, label, box, _ in zip(*matches, strict=True):
            assert label == targets.labels[image][gt]
            assert torch.equal(box, targets.boxes[image][gt])


def test_objects_without_candidates_take_nothing() -> None:
    targets = Targets([torch.tensor([[0.0, 0.0, 128.0, 1.0]])], [torch.tensor([1])])
    candidates = match_shapes(targets, GRIDS, STRIDES, anchors(), ratio=2.0)
    assert len(candidates.prior) == 0
    matches = assign_cheapest_candidates(candidates, torch.zeros(0, 4), torch.zeros(0, CLASSES), targets)
    assert [len(column) for column in matches] == [0] * 6


def test_of_several_matches_of_a_prior_the_last_counts_for_objectness() -> None:
    random = torch.Generator().manual_seed(0)
    image, prior = (torch.randint(0, high, (40,), generator=random) for high in (2, 7))
    overlap = torch.rand(40, generator=random)
    expected = torch.zeros(2, 7)
    for i, p, value in zip(image.tolist(), prior.tolist(), overlap.tolist(), strict=True):
        expected[i, p] = value
    none = torch.zeros(40, dtype=torch.int64)
    matches = Matches(image, prior, none, none, torch.zeros(40, 4), overlap)
    assert torch.equal(objectness_targets(torch.zeros(2, 7), matches, overlap), expected)

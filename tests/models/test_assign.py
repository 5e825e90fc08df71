"""The assigners against loops that say the same as docs/specs (detectors.md, sections 10.2 to 10.6; retinanet.md)."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import pytest
import shapely
import shapely.affinity
import torch
from torch import Tensor

from ymir_tmi.geometry.rotated import regularize
from ymir_tmi.models.assign import dynamic_soft_label, matching
from ymir_tmi.models.assign.atss import assign_atss
from ymir_tmi.models.assign.dynamic_soft_label import assign_dynamic_soft_label
from ymir_tmi.models.assign.max_overlap import assign_max_overlap
from ymir_tmi.models.assign.simota import assign_simota
from ymir_tmi.models.assign.task_aligned import TaskAligned, assign_task_aligned
from ymir_tmi.models.dense import Priors, make_priors
from ymir_tmi.models.interface import Matches, Targets

CLASSES = 4
STRIDES = (8, 16, 32)
SIDE = 96
Row = tuple[int, int, int, float]
"""Image, prior, object, overlap."""


def some_priors(offset: float = 0.0) -> Priors:
    maps = [torch.zeros(1, 4, SIDE // stride, SIDE // stride, dtype=torch.float64) for stride in STRIDES]
    return make_priors(maps, STRIDES, offset=offset)


def some_objects(random: torch.Generator, count: int, largest: float) -> tuple[Tensor, Tensor]:
    centres = torch.rand(count, 2, generator=random, dtype=torch.float64) * SIDE
    sizes = torch.rand(count, 2, generator=random, dtype=torch.float64) * largest + 1
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1).clamp(0, SIDE)
    return boxes, torch.randint(0, CLASSES, (count,), generator=random)


def predictions_near(objects: Tensor, priors: Priors, random: torch.Generator) -> Tensor:
    """Return (P, 4) boxes of which many overlap an object, as those of a network that has learnt something do."""
    count = len(priors.points)
    around = torch.cat([priors.points - 10, priors.points + 14], dim=1)
    if len(objects):
        chosen = objects[torch.randint(0, len(objects), (count,), generator=random)]
        near = ((chosen[:, :2] + chosen[:, 2:]) / 2 - priors.points).abs().amax(1) < 24
        around = torch.where(near.unsqueeze(1), chosen, around)
    return around + torch.randn(count, 4, generator=random, dtype=torch.float64) * 4


def iou(first: list[float], second: list[float]) -> float:
    overlap = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    overlap *= max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - overlap
    return overlap / max(union, 1e-6)


def is_inside(point: list[float], box: list[float]) -> bool:
    return min(point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]) > 0


def centre_of(box: list[float]) -> list[float]:
    return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]


class Kind(NamedTuple):
    """What an assigner wants to know of boxes; `ROTATED` says the same of rotated ones."""

    iou: Callable[[list[float], list[float]], float] = iou
    is_inside: Callable[[list[float], list[float]], bool] = is_inside
    centre_of: Callable[[list[float]], list[float]] = centre_of


def polygon(box: list[float]) -> shapely.Polygon:
    x, y, w, h, angle = box
    turned = shapely.affinity.rotate(shapely.box(-w / 2, -h / 2, w / 2, h / 2), angle, (0, 0), use_radians=True)
    return shapely.affinity.translate(turned, x, y)


def rotated_iou(first: list[float], second: list[float]) -> float:
    """Return the overlap of boxes whose sides are at least 0.001 pixels."""
    one, other = (polygon([x, y, max(w, 1e-3), max(h, 1e-3), angle]) for x, y, w, h, angle in (first, second))
    shared: float = one.intersection(other).area
    return shared / (one.area + other.area - shared)


def is_inside_rotated(point: list[float], box: list[float]) -> bool:
    return bool(polygon([*box[:2], box[2] - 0.02, box[3] - 0.02, box[4]]).contains(shapely.Point(point)))


UPRIGHT = Kind()
ROTATED = Kind(rotated_iou, is_inside_rotated, lambda box: box[:2])


def take_cheapest(
    cost: dict[tuple[int, int], float], overlap: dict[tuple[int, int], float], gts: int, topk: int
) -> list[tuple[int, int]]:
    """Return the pairs of a prior and an object; the dictionaries hold the pairs that may be taken."""
    claims: dict[int, list[int]] = {}
    for gt in range(gts):
        best = sorted((value for (_, other), value in overlap.items() if other == gt), reverse=True)[:topk]
        k = max(1, int(sum(best)))
        for _, prior in sorted((value, prior) for (prior, other), value in cost.items() if other == gt)[:k]:
            claims.setdefault(prior, []).append(gt)
    pairs = []
    for prior, owners in sorted(claims.items()):
        everyone = range(gts) if len(owners) > 1 else owners
        pairs.append((prior, min(everyone, key=lambda gt: cost[prior, gt])))
    return pairs


def slow_soft_label(
    boxes: Tensor,
    logits: Tensor,
    priors: Priors,
    objects: Tensor,
    labels: Tensor,
    form: str,
    kind: Kind = UPRIGHT,
) -> list[Row]:
    points, strides = priors.points.tolist(), priors.strides.tolist()
    gts = objects.tolist()
    valid = [any(kind.is_inside(point, gt) for gt in gts) for point in points]
    cost, overlap = {}, {}
    for p, (point, stride, box, row) in enumerate(zip(points, strides, boxes.tolist(), logits.tolist(), strict=True)):
        for g, gt in enumerate(gts):
            value = kind.iou(box, gt)
            if valid[p] or form == "mmyolo":
                overlap[p, g] = value
            if not valid[p]:
                if form == "mmyolo":
                    cost[p, g] = 1e8 * (1 + p * 1e-6)  # ties go to the first
                continue
            distance = math.dist(point, kind.centre_of(gt)) / stride
            classes = [int(labels[g])] if form == "mmyolo" else range(CLASSES)
            cost[p, g] = 10 ** (distance - 3) - 3 * math.log(value + 1e-7)
            for c in classes:
                target = value if c == labels[g] else 0.0
                entropy = math.log1p(math.exp(row[c])) - row[c] * target
                cost[p, g] += entropy * (target - 1 / (1 + math.exp(-row[c]))) ** 2
    pairs = take_cheapest(cost, overlap, len(gts), 13)
    return [(0, prior, gt, kind.iou(boxes[prior].tolist(), gts[gt])) for prior, gt in pairs]


def slow_simota(boxes: Tensor, scores: Tensor, priors: Priors, objects: Tensor, labels: Tensor) -> list[Row]:
    points = (priors.points + priors.strides.unsqueeze(1) / 2).tolist()
    strides, gts = priors.strides.tolist(), objects.tolist()

    def square(gt: list[float], stride: float) -> list[float]:
        x, y, r = (gt[0] + gt[2]) / 2, (gt[1] + gt[3]) / 2, 2.5 * stride
        return [x - r, y - r, x + r, y + r]

    cost, overlap = {}, {}
    for p, (point, stride, box, row) in enumerate(zip(points, strides, boxes.tolist(), scores.tolist(), strict=True)):
        if not any(is_inside(point, gt) or is_inside(point, square(gt, stride)) for gt in gts):
            continue
        for g, gt in enumerate(gts):
            overlap[p, g] = iou(box, gt)
            both = is_inside(point, gt) and is_inside(point, square(gt, stride))
            entropy = -sum(max(math.log(score if c == labels[g] else 1 - score), -100) for c, score in enumerate(row))
            cost[p, g] = entropy - 3 * math.log(overlap[p, g] + 1e-7) + 1e5 * (not both)
    pairs = take_cheapest(cost, overlap, len(gts), 10)
    return [(0, prior, gt, overlap[prior, gt]) for prior, gt in pairs]


def slow_max_overlap(anchors: Tensor, objects: Tensor) -> tuple[list[Row], list[bool]]:
    """Return the matches, and which anchors are left out."""
    gts = objects.tolist()
    overlaps = [[iou(anchor, gt) for gt in gts] for anchor in anchors.tolist()]
    best = [max(row[gt] for row in overlaps) for gt in range(len(gts))]
    rows, left_out = [], []
    for prior, row in enumerate(overlaps):
        owner = row.index(max(row))  # the first of equals
        is_best = any(value == top > 0 for value, top in zip(row, best, strict=True))
        positive = row[owner] >= 0.5 or is_best
        rows += [(0, prior, owner, row[owner])] if positive else []
        left_out.append(not positive and row[owner] >= 0.4)
    return rows, left_out


def some_anchors(random: torch.Generator, objects: Tensor) -> Tensor:
    """Return the boxes of all cells, in two shapes, and some that overlap an object by about half."""
    points = some_priors().points
    spread = torch.tensor([[-12.0, -12.0, 12.0, 12.0], [-24.0, -10.0, 24.0, 10.0]], dtype=torch.float64)
    fixed = (points.repeat(1, 2).unsqueeze(1) + spread).flatten(0, 1)
    near = objects.repeat(4, 1)
    shifts = (near[:, 2:] - near[:, :2]) * (torch.rand(len(near), 2, generator=random, dtype=torch.float64) - 0.5)
    return torch.cat([fixed, near + shifts.repeat(1, 2)])


def clamped_iou(first: list[float], second: list[float]) -> float:
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (first, second)]
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    overlap = width * max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    return overlap / (sum(areas) - overlap + 1e-9)


def clamped_ciou(first: list[float], second: list[float]) -> float:
    plain = iou(first, second)
    hull = [max(first[i + 2], second[i + 2]) - min(first[i], second[i]) for i in (0, 1)]
    centres = [[(box[i] + box[i + 2]) / 2 for i in (0, 1)] for box in (first, second)]
    slants = [math.atan((box[2] - box[0]) / (box[3] - box[1] + 1e-7)) for box in (first, second)]
    v = 4 / math.pi**2 * (slants[0] - slants[1]) ** 2
    apart = math.dist(*centres) ** 2 / (hull[0] ** 2 + hull[1] ** 2)
    return max(0.0, plain - apart - v * v / (v - plain + 1 + 1e-7))


def settle(claims: dict[int, list[int]], preference: dict[tuple[int, int], float], gts: int) -> list[tuple[int, int]]:
    """Return the pairs of a prior and an object; a prior that several claim goes to the one that it prefers of all."""
    return [
        (prior, owners[0] if len(owners) == 1 else max(range(gts), key=lambda gt: preference[prior, gt]))
        for prior, owners in sorted(claims.items())
    ]


def slow_task_aligned(
    boxes: Tensor, scores: Tensor, priors: Priors, objects: Tensor, labels: Tensor, options: TaskAligned
) -> list[Row]:
    measure = clamped_ciou if options.overlap == "ciou" else clamped_iou
    gts, points = objects.tolist(), priors.points.tolist()
    overlap, aligned = {}, {}
    for p, box in enumerate(boxes.tolist()):
        for g, gt in enumerate(gts):
            overlap[p, g] = measure(box, gt)
            aligned[p, g] = float(scores[p, labels[g]]) ** options.alpha * overlap[p, g] ** options.beta
    claims = defaultdict(list)
    for g, gt in enumerate(gts):
        inside = [p for p, point in enumerate(points) if is_inside(point, gt) and aligned[p, g] > 0]
        for p in sorted(inside, key=lambda p: -aligned[p, g])[: options.topk]:
            claims[p].append(g)
    pairs = settle(claims, overlap, len(gts))
    best = {g: [max(values[pair] for pair in pairs if pair[1] == g) for values in (aligned, overlap)] for _, g in pairs}
    return [(0, p, g, aligned[p, g] * best[g][1] / (best[g][0] + options.eps)) for p, g in pairs]


def slow_atss(boxes: Tensor, priors: Priors, objects: Tensor) -> list[Row]:
    points, gts = priors.points.tolist(), objects.tolist()
    reaches = (2.5 * priors.strides).tolist()
    anchors = [[x - r, y - r, x + r, y + r] for (x, y), r in zip(points, reaches, strict=True)]
    overlap = {(p, g): iou(anchor, gt) for p, anchor in enumerate(anchors) for g, gt in enumerate(gts)}
    claims = defaultdict(list)
    for g, gt in enumerate(gts):
        centre = (gt[0] + gt[2]) / 2, (gt[1] + gt[3]) / 2
        candidates = []
        for end, size in zip(torch.tensor(priors.level_sizes).cumsum(0).tolist(), priors.level_sizes, strict=True):
            candidates += sorted(range(end - size, end), key=lambda p: math.dist(points[p], centre))[:9]
        values = [overlap[p, g] for p in candidates]
        threshold = statistics.mean(values) + statistics.stdev(values)
        for p in candidates:
            if overlap[p, g] > threshold and is_inside(points[p], gt):
                claims[p].append(g)
    pairs = settle(claims, overlap, len(gts))
    return [(0, p, g, clamped_iou(boxes[p].tolist(), gts[g])) for p, g in pairs]


def rows_of(matches: Matches) -> list[Row]:
    return list(
        zip(matches.image.tolist(), matches.prior.tolist(), matches.gt.tolist(), matches.quality.tolist(), strict=True)
    )


def assert_same(ours: list[Row], expected: list[Row]) -> None:
    assert [row[:3] for row in ours] == [row[:3] for row in expected]
    assert [row[3] for row in ours] == pytest.approx([row[3] for row in expected])


CASES = [
    pytest.param(6, 60.0, id="objects of all sizes"),
    pytest.param(40, 30.0, id="a crowd"),
    pytest.param(5, 4.0, id="objects between the priors"),
    pytest.param(1, 1.0, id="one that covers no prior at all"),
    pytest.param(2, 90.0, id="objects as large as the picture"),
]


@pytest.mark.parametrize(("count", "largest"), CASES)
@pytest.mark.parametrize("form", ["mmyolo", "mmdet"])
def test_dynamic_soft_label(count: int, largest: float, form: str) -> None:
    random = torch.Generator().manual_seed(count)
    priors = some_priors()
    objects, labels = some_objects(random, count, largest)
    boxes = predictions_near(objects, priors, random)
    logits = torch.randn(len(boxes), CLASSES, generator=random, dtype=torch.float64) * 2
    ours = assign_dynamic_soft_label(boxes[None], logits[None], priors, Targets([objects], [labels]), form=form)
    assert_same(rows_of(ours), slow_soft_label(boxes, logits, priors, objects, labels, form))
    assert torch.equal(ours.label, labels[ours.gt])
    assert torch.equal(ours.box, objects[ours.gt])


@pytest.mark.parametrize("limits", [(2**22, 2**17), (2000, 50)], ids=["whole", "in parts"])
def test_dynamic_soft_label_of_rotated_boxes(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of images with many, few, tiny and no objects; some predictions have negative sides, or none."""
    monkeypatch.setattr(matching, "_MAX_PAIRS", limits[0])
    monkeypatch.setattr(dynamic_soft_label, "_PAIRS", limits[1])
    random = torch.Generator().manual_seed(1)
    priors = some_priors()
    count = len(priors.points)
    targets, boxes = [], []
    for number, largest in ((12, 60.0), (3, 80.0), (0, 1.0), (4, 3.0)):
        objects, labels = some_rotated_objects(random, number, largest)
        targets.append((objects, labels))
        near = predictions_near(torch.zeros(0, 4), priors, random)
        rows = torch.cat([(near[:, :2] + near[:, 2:]) / 2, near[:, 2:] - near[:, :2], near[:, :1] * 9], dim=1)
        if number:
            chosen = objects[torch.randint(0, number, (count,), generator=random)]
            close = (chosen[:, :2] - priors.points).abs().amax(1) < 24
            noise = torch.randn(count, 5, generator=random, dtype=torch.float64) * torch.tensor([2, 2, 2, 2, 0.2])
            rows = torch.where(close.unsqueeze(1), chosen + noise, rows)
        rows[::7, 2] *= -1
        rows[3::11, 3] = 0
        boxes.append(rows)
    logits = torch.randn(4, count, CLASSES, generator=random, dtype=torch.float64) * 2
    batch = Targets([objects for objects, _ in targets], [labels for _, labels in targets])
    ours = assign_dynamic_soft_label(torch.stack(boxes), logits, priors, batch, form="mmdet")
    expected = [
        (image, *row[1:])
        for image, (objects, labels) in enumerate(targets)
        for row in slow_soft_label(boxes[image], logits[image], priors, objects, labels, "mmdet", ROTATED)
    ]
    assert len(expected) > 20
    assert_same(rows_of(ours), expected)
    assert ours.box.tolist() == [targets[image][0][gt].tolist() for image, _, gt, _ in expected]


def some_rotated_objects(random: torch.Generator, count: int, largest: float) -> tuple[Tensor, Tensor]:
    upright, labels = some_objects(random, count, largest)
    turns = torch.rand(count, generator=random, dtype=torch.float64) * 6
    boxes = torch.cat([(upright[:, :2] + upright[:, 2:]) / 2, upright[:, 2:] - upright[:, :2], turns[:, None]], dim=1)
    return regularize(boxes), labels


@pytest.mark.parametrize(("count", "largest"), CASES)
def test_simota(count: int, largest: float) -> None:
    random = torch.Generator().manual_seed(count)
    priors = some_priors()
    objects, labels = some_objects(random, count, largest)
    boxes = predictions_near(objects, priors, random)
    scores = torch.rand(len(boxes), CLASSES, generator=random, dtype=torch.float64)
    ours = assign_simota(boxes[None], scores[None], priors, Targets([objects], [labels]))
    assert_same(rows_of(ours), slow_simota(boxes, scores, priors, objects, labels))


@pytest.mark.parametrize(("count", "largest"), CASES)
def test_max_overlap(count: int, largest: float) -> None:
    random = torch.Generator().manual_seed(count)
    objects, labels = some_objects(random, count, largest)
    anchors = some_anchors(random, objects)
    matches, left_out = assign_max_overlap(anchors, Targets([objects], [labels]))
    rows, expected = slow_max_overlap(anchors, objects)
    assert_same(rows_of(matches), rows)
    assert left_out.tolist() == [expected]
    assert torch.equal(matches.label, labels[matches.gt]) and torch.equal(matches.box, objects[matches.gt])


ANCHORS = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 20.0, 10.0], [40.0, 40.0, 50.0, 50.0], [0.0, 0.0, 10.0, 10.0]]


@pytest.mark.parametrize(
    ("objects", "owners", "left_out"),
    [
        pytest.param([[0.0, 0.0, 10.0, 5.0]], {0: 0, 3: 0}, [], id="exactly half is enough"),
        pytest.param([[0.0, 0.0, 10.0, 10.0]], {0: 0, 1: 0, 3: 0}, [], id="a copy, and half of a larger one"),
        pytest.param([[0.0, 0.0, 10.0, 8.0]], {0: 0, 3: 0}, [1], id="exactly 0.4 is no longer background"),
        pytest.param([[0.0, 0.0, 2.0, 2.0]], {0: 0, 3: 0}, [], id="the best ones count however little they overlap"),
        pytest.param([[80.0, 80.0, 90.0, 90.0]], {}, [], id="an object that no anchor touches has none"),
        pytest.param([[5.0, 5.0, 5.0, 9.0]], {}, [], id="nor has one without any width"),
        pytest.param(
            [[0.0, 0.0, 10.0, 9.0], [10.0, 0.0, 12.0, 10.0]],
            {0: 0, 1: 0, 3: 0},
            [],
            id="the best one of an object may belong to another",
        ),
        pytest.param([[40.0, 40.0, 50.0, 50.0]] * 2, {2: 0}, [], id="of equal objects the first"),
    ],
)
def test_corners_of_max_overlap(objects: list[list[float]], owners: dict[int, int], left_out: list[int]) -> None:
    targets = Targets([torch.tensor(objects)], [torch.zeros(len(objects), dtype=torch.int64)])
    matches, ignored = assign_max_overlap(torch.tensor(ANCHORS), targets)
    assert dict(zip(matches.prior.tolist(), matches.gt.tolist(), strict=True)) == owners
    assert ignored[0].nonzero().squeeze(1).tolist() == left_out


YOLOV8 = TaskAligned(topk=10, alpha=0.5, beta=6.0, eps=1e-9, overlap="ciou")
YOLOV6 = TaskAligned(topk=13, alpha=1.0, beta=6.0, eps=1e-7, overlap="iou")


@pytest.mark.parametrize(("count", "largest"), CASES)
@pytest.mark.parametrize("options", [YOLOV8, YOLOV6], ids=["ciou", "iou"])
def test_task_aligned(count: int, largest: float, options: TaskAligned) -> None:
    random = torch.Generator().manual_seed(count)
    priors = some_priors(0.5)
    objects, labels = some_objects(random, count, largest)
    boxes = predictions_near(objects, priors, random)
    scores = torch.rand(len(boxes), CLASSES, generator=random, dtype=torch.float64)
    ours = assign_task_aligned(boxes[None], scores[None], priors, Targets([objects], [labels]), options)
    assert_same(rows_of(ours), slow_task_aligned(boxes, scores, priors, objects, labels, options))
    assert torch.equal(ours.label, labels[ours.gt])
    assert torch.equal(ours.box, objects[ours.gt])


def test_task_aligned_gives_no_prior_whose_box_has_its_sides_swapped() -> None:
    priors = some_priors(0.5)
    objects = torch.tensor([[8.0, 8.0, 88.0, 88.0]], dtype=torch.float64)
    around = torch.cat([priors.points - 10, priors.points + 10], dim=1)
    scores = torch.ones(1, len(around), 1)
    targets = Targets([objects], [torch.zeros(1, dtype=torch.int64)])
    upright = assign_task_aligned(around[None], scores, priors, targets, YOLOV6)
    assert len(upright.prior) == 13
    assert len(assign_task_aligned(around[None, :, [2, 3, 0, 1]], scores, priors, targets, YOLOV6).prior) == 0


@pytest.mark.parametrize(("count", "largest"), CASES)
def test_atss(count: int, largest: float) -> None:
    random = torch.Generator().manual_seed(count)
    priors = some_priors(0.5)
    objects, labels = some_objects(random, count, largest)
    boxes = predictions_near(objects, priors, random)
    ours = assign_atss(boxes[None], priors, Targets([objects], [labels]))
    assert_same(rows_of(ours), slow_atss(boxes, priors, objects))
    assert torch.equal(ours.label, labels[ours.gt])
    assert torch.equal(ours.box, objects[ours.gt])


def test_atss_takes_all_priors_of_a_level_that_has_few() -> None:
    maps = [torch.zeros(1, 4, 64 // stride, 32 // stride, dtype=torch.float64) for stride in STRIDES]
    priors = make_priors(maps, STRIDES, offset=0.5)
    assert priors.level_sizes == (32, 8, 2)
    objects = torch.tensor([[1.0, 1.0, 30.0, 62.0], [4.0, 3.0, 15.0, 17.0]], dtype=torch.float64)
    boxes = predictions_near(objects, priors, torch.Generator().manual_seed(0))
    ours = rows_of(assign_atss(boxes[None], priors, Targets([objects], [torch.tensor([0, 1])])))
    assert {row[2] for row in ours} == {0, 1}
    assert_same(ours, slow_atss(boxes, priors, objects))


@pytest.mark.parametrize("limit", [1, 5_000, 2**22], ids=["an image at a time", "a few", "all at once"])
def test_batches_equal_single_images(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MAX_PAIRS", limit)
    random = torch.Generator().manual_seed(0)
    priors = some_priors()
    pairs = [some_objects(random, count, 50.0) for count in (3, 0, 20, 1, 0)]
    targets = Targets([boxes for boxes, _ in pairs], [labels for _, labels in pairs])
    boxes = torch.stack([predictions_near(objects, priors, random) for objects in targets.boxes])
    logits = torch.randn(5, len(priors.points), CLASSES, generator=random, dtype=torch.float64)
    together = rows_of(assign_dynamic_soft_label(boxes, logits, priors, targets, form="mmyolo"))
    expected = []
    for image, (objects, labels) in enumerate(pairs):
        if len(objects):
            rows = slow_soft_label(boxes[image], logits[image], priors, objects, labels, "mmyolo")
            expected += [(image, *row[1:]) for row in rows]
    assert_same(together, expected)
    assert_same(
        rows_of(assign_simota(boxes, logits.sigmoid(), priors, targets)),
        [
            (image, *row[1:])
            for image, (objects, labels) in enumerate(pairs)
            if len(objects)
            for row in slow_simota(boxes[image], logits[image].sigmoid(), priors, objects, labels)
        ],
    )
    anchors = boxes[0]
    matches, left_out = assign_max_overlap(anchors, targets)
    assert_same(
        rows_of(matches),
        [
            (n, *row[1:])
            for n, (objects, _) in enumerate(pairs)
            if len(objects)
            for row in slow_max_overlap(anchors, objects)[0]
        ],
    )
    assert not left_out[[1, 4]].any()
    centres = some_priors(0.5)
    aligned, atss = [], []
    for image, (objects, labels) in enumerate(pairs):
        rows = slow_task_aligned(boxes[image], logits[image].sigmoid(), centres, objects, labels, YOLOV8)
        aligned += [(image, *row[1:]) for row in rows]
        atss += [(image, *row[1:]) for row in slow_atss(boxes[image], centres, objects)]
    assert_same(rows_of(assign_task_aligned(boxes, logits.sigmoid(), centres, targets, YOLOV8)), aligned)
    assert_same(rows_of(assign_atss(boxes, centres, targets)), atss)


def test_no_objects_at_all() -> None:
    priors = some_priors()
    boxes = torch.zeros(2, len(priors.points), 4)
    targets = Targets([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    for matches in (
        assign_dynamic_soft_label(boxes, torch.zeros(2, len(priors.points), 3), priors, targets, form="mmdet"),
        assign_simota(boxes, torch.rand(2, len(priors.points), 3), priors, targets),
        assign_task_aligned(boxes, torch.rand(2, len(priors.points), 3), priors, targets, YOLOV8),
        assign_atss(boxes, priors, targets),
    ):
        assert len(matches.prior) == len(matches.quality) == 0
        assert matches.box.shape == (0, 4)
    matches, left_out = assign_max_overlap(boxes[0], targets)
    assert matches.box.shape == (0, 4)
    assert left_out.shape == (2, len(priors.points)) and not left_out.any()

"""The loss of masks that are made of prototypes (docs/specs/yolov5.md, section 9).

Outside of an object's box its mask does not count, and most boxes are small. So the objects are taken apart by the size
of their boxes, and only a square of the map around each box is computed: where there are 300 small objects, that is a
fiftieth of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.models.interface import Matches

_SMALLEST = 8  # side of the squares for the smallest boxes; each further one is twice as long


def mask_loss(coefficients: Tensor, prototypes: Tensor, masks: Tensor, matches: Matches, weights: Tensor) -> Tensor:
    """Return the weighted sum over matches of the binary cross entropy of all mask pixels inside the object's box.

    Args:
        coefficients: (N, K) of each match.
        prototypes: (B, K, mh, mw).
        masks: (B, mh, mw) int64, k + 1 where object k of a picture is seen.
        matches: N of them, with boxes in pixels of the masks.
        weights: (N,) of each match.
    """
    height, width = prototypes.shape[2:]
    assert masks.shape[1:] == (height, width)
    cells = prototypes.permute(0, 2, 3, 1).flatten(0, 2)
    objects = _group(matches)
    # One more row of zeros, for places in `objects.rows` where there is no match.
    coefficients, weights = F.pad(coefficients, (0, 0, 0, 1)), F.pad(weights, (0, 1))
    total = prototypes.new_zeros(())
    for own, side in _by_size(objects, height, width):
        places, inside = _square(own, side, height, width)
        seen = (masks.flatten()[places] == own.gt.unsqueeze(1) + 1) & inside
        maps = F.embedding(places, cells)  # (n, side * side, K)
        entropy = _entropy(coefficients[own.rows], maps, inside.to(maps), seen.to(maps))
        total = total + (entropy * weights[own.rows]).sum()
    return total


class _Objects(NamedTuple):
    """The O objects that have a match.

    Attributes:
        image, gt: (O,) as in `Matches`.
        box: (O, 4) xyxy in pixels of the masks.
        rows: (O, R) the matches of each, then N where it has fewer than R.
    """

    image: Tensor
    gt: Tensor
    box: Tensor
    rows: Tensor

    def take(self, rows: Tensor) -> _Objects:
        """Return the chosen objects."""
        return _Objects(*(column[rows] for column in self))


def _group(matches: Matches) -> _Objects:
    """Put the matches of each object together: what is around its box is read once for all of them."""
    count = len(matches.gt)
    pairs = torch.stack([matches.image, matches.gt], dim=1)
    _, number, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    order = number.argsort(stable=True)
    place = torch.arange(count, device=order.device) - (counts.cumsum(0) - counts)[number[order]]
    most = int(counts.max()) if count else 1
    rows = torch.full((len(counts), most), count, device=order.device)
    rows[number[order], place] = order
    first = rows[:, 0]
    return _Objects(matches.image[first], matches.gt[first], matches.box[first], rows)


def _by_size(objects: _Objects, height: int, width: int) -> Iterator[tuple[_Objects, int]]:
    """Yield the objects of each size, and the side of a square of the map that holds every pixel of their boxes."""
    start, end = _corners(objects.box, height, width)
    longest, whole = (end - start).amax(1), max(height, width)
    smaller, side = -1, min(_SMALLEST, whole)
    while smaller < whole:
        chosen = (longest > smaller) & (longest <= side)
        yield objects.take(chosen.nonzero().squeeze(1)), side
        smaller, side = side, min(2 * side, whole)


def _corners(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return (O, 2) x and y of the first pixels inside the boxes, and of the first ones beyond them."""
    corners = boxes.ceil().long().view(-1, 2, 2).clamp(min=0)
    corners = torch.minimum(corners, torch.tensor([width, height], device=boxes.device))
    return corners[:, 0], corners[:, 1]


def _square(objects: _Objects, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return (n, side * side) cells of all pictures, row by row, and whether they lie inside the objects' boxes."""
    start, end = _corners(objects.box, height, width)
    steps = start.unsqueeze(2) + torch.arange(side, device=start.device)  # (n, 2, side)
    within = steps < end.unsqueeze(2)
    x, y = steps[:, 0].clamp(max=width - 1), steps[:, 1].clamp(max=height - 1)
    place = (objects.image.view(-1, 1, 1) * height + y.unsqueeze(2)) * width + x.unsqueeze(1)
    return place.flatten(1), (within[:, 1].unsqueeze(2) & within[:, 0].unsqueeze(1)).flatten(1)


def _entropy(coefficients: Tensor, maps: Tensor, inside: Tensor, seen: Tensor) -> Tensor:
    """Return (n, R) summed cross entropies of sigmoid(coefficients @ maps) with `seen`, which is a part of `inside`.

    Args:
        coefficients: (n, R, K).
        maps: (n, P, K).
        inside: (n, P) of 0 and 1.
        seen: (n, P) of 0 and 1.
    """
    logits = coefficients @ maps.transpose(1, 2)
    both = F.softplus(logits) @ inside.unsqueeze(2)
    # Of the pixels that are seen, the sum of their logits is the product with the sum of their maps.
    return (both - coefficients @ (maps.transpose(1, 2) @ seen.unsqueeze(2))).squeeze(2)

"""What dynamic assigners share: padded targets, chunks of bounded size, and the choice of the k cheapest priors.

Pairs of an object and a prior are (B, G, P) tensors: B images, G objects (as many as the fullest image of the chunk
has), P priors. No step loops over objects, and only the last one waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ymir_tmi.models.interface import Matches, Targets

# Pairs held at a time: 16 MB for each of about ten float32 tensors.
_MAX_PAIRS = 2**22


class Objects(NamedTuple):
    """The objects of some images, padded to the same number G with zero boxes.

    Attributes:
        boxes: (B, G, 4) xyxy, or (B, G, 5) rotated boxes.
        labels: (B, G) int64.
        real: (B, G) false where padded.
    """

    boxes: Tensor
    labels: Tensor
    real: Tensor

    @property
    def centres(self) -> Tensor:
        """(B, G, 2) x and y of the centres."""
        if self.boxes.shape[-1] == 5:
            return self.boxes[..., :2]
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2


def chunk_objects(targets: Targets, num_priors: int, like: Tensor) -> Iterator[tuple[slice, Objects]]:
    """Yield slices of the batch, each with its padded objects in the precision and on the device of `like`.

    A slice holds at most `_MAX_PAIRS` pairs, or one image; slices without any object are left out.
    """
    counts = [len(labels) for labels in targets.labels]
    start = 0
    while start < len(counts):
        stop = start + 1
        while stop < len(counts) and max(counts[start : stop + 1]) * (stop + 1 - start) * num_priors <= _MAX_PAIRS:
            stop += 1
        if any(counts[start:stop]):
            yield slice(start, stop), _pad(targets.boxes[start:stop], targets.labels[start:stop], like)
        start = stop


def cross_entropy_cost(scores: Tensor, objects: Objects) -> Tensor:
    """Return (B, G, P) binary cross entropy, summed over classes, of (B, P, C) scores against the object's class."""
    # The object's own class is exchanged in the sum over all, so that nothing has the size B x G x P x C.
    background = (1 - scores).log().clamp(min=-100).sum(-1).unsqueeze(1)
    own = scores.mT.gather(1, objects.labels.unsqueeze(-1).expand(-1, -1, scores.shape[1]))
    others = background - (1 - own).log().clamp(min=-100)
    return -own.log().clamp(min=-100) - others


def match_cheapest(cost: Tensor, iou: Tensor, objects: Objects, topk: int) -> Matches:
    """Give every object its k cheapest priors, k being the sum of its `topk` largest overlaps (Ge et al., "OTA", 2021).

    A prior that several objects take stays with the object for which it costs least.

    Args:
        cost: (B, G, P); infinite where a prior must not be taken.
        iou: (B, G, P) overlap of predicted boxes with objects.
        objects: the objects of the chunk.
        topk: largest k.

    Returns:
        Matches whose images count from the start of the chunk.
    """
    topk = min(topk, cost.shape[-1])
    quota = iou.topk(topk, dim=-1).values.sum(-1).int().clamp(min=1) * objects.real
    cost = cost.masked_fill(~objects.real.unsqueeze(-1), torch.inf)
    cheapest = cost.topk(topk, dim=-1, largest=False)
    rank = torch.arange(topk, device=cost.device)
    taken = (rank < quota.unsqueeze(-1)) & cheapest.values.isfinite()
    claims = torch.zeros_like(cost, dtype=torch.bool).scatter_(-1, cheapest.indices, taken)

    image, prior, gt = settle_claims(claims, -cost)
    return make_matches(image, prior, gt, objects, iou[image, gt, prior])


def settle_claims(claims: Tensor, preference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each prior that several objects claim to the object that it prefers, be it one of these or not.

    Args:
        claims: (B, G, P) whether an object claims a prior.
        preference: (B, G, P) of the prior for an object.

    Returns:
        (N,) image in the chunk, prior and object of every prior that is claimed.
    """
    image, prior = claims.any(dim=1).nonzero(as_tuple=True)
    claimed = claims[image, :, prior]
    gt = torch.where(claimed.sum(1) > 1, preference[image, :, prior].argmax(1), claimed.byte().argmax(1))
    return image, prior, gt


def make_matches(image: Tensor, prior: Tensor, gt: Tensor, objects: Objects, quality: Tensor) -> Matches:
    """Return matches with the labels and boxes of their objects; images count from the start of the chunk."""
    return Matches(image, prior, gt, objects.labels[image, gt], objects.boxes[image, gt], quality)


def concatenate_matches(parts: Sequence[Matches], like: Tensor) -> Matches:
    """Return the matches of all chunks; `like`, boxes, gives type and device where there are none."""
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=like.device)
        return Matches(none, none, none, none, like.new_zeros(0, like.shape[-1]), like.new_zeros(0))
    return Matches(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _pad(boxes: Sequence[Tensor], labels: Sequence[Tensor], like: Tensor) -> Objects:
    counts = torch.tensor([len(row) for row in labels])
    real = (torch.arange(int(counts.max())) < counts.unsqueeze(1)).to(like.device)
    padded_boxes = torch.nn.utils.rnn.pad_sequence(list(boxes), batch_first=True)
    padded_labels = torch.nn.utils.rnn.pad_sequence(list(labels), batch_first=True)
    return Objects(padded_boxes.to(like), padded_labels.to(like.device), real)

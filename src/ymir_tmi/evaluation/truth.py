"""Annotations in the form of the detections that they are compared with."""

from __future__ import annotations

import dataclasses

import torch

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.geometry.rotated import from_upright


def in_form(index: DatasetIndex, *, rotated: bool) -> DatasetIndex:
    """Return the annotations as rotated boxes, or as the upright ones around them."""
    if rotated == (index.rotated is not None):
        return index
    boxes = from_upright(torch.from_numpy(index.boxes)).numpy() if rotated else None
    return dataclasses.replace(index, rotated=boxes)

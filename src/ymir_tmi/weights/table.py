"""The official weights that are known: `official.csv`, written by hand from what their repositories publish."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from ymir_tmi.errors import ModelError, did_you_mean


@dataclass(frozen=True)
class OfficialWeights:
    """One checkpoint that the authors of a detector publish.

    Attributes:
        id: what it is called here.
        model: name of the model that it is for.
        source: the repository that publishes it.
        ap: AP (0.50:0.95, percent) that the repository states: of boxes on COCO val2017, of rotated boxes the mAP on
            the test images of DOTA; of pixels the mIoU (percent) on the validation images of Cityscapes.
        dataset: what it was trained on.
        licence: licence of the repository.
        sha256_prefix: how its checksum begins, or "".
        bytes: size of the file, where it is known.
        file: name of the file.
        url: address of the file, or "".
        note: what else there is to know.
        parameters_m: millions of parameters as the repository prints them for the 80 classes of COCO, or "".
        gflops: billions of operations as the repository prints them for these, or "".
        flops_per_multiply_add: whether those are 1 or 2 for a multiplication with its addition.
        flops_side: width and height of the picture that they are for, in pixels.
    """

    id: str
    model: str
    source: str
    ap: float
    dataset: str
    licence: str
    sha256_prefix: str
    bytes: int | None
    file: str
    url: str
    note: str
    parameters_m: str = ""
    gflops: str = ""
    flops_per_multiply_add: int | None = None
    flops_side: int | None = None


@dataclass(frozen=True)
class WeightsList:
    """The table, to be shown."""

    rows: Sequence[OfficialWeights]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"weights": [asdict(row) for row in self.rows]}

    def to_text(self) -> str:
        """Return one line for each."""
        lines = [f"{'name':22} {'model':19} {'from':10} {'AP':>5}  {'licence':11} note"]
        for row in self.rows:
            note = row.note or row.file
            lines.append(f"{row.id:22} {row.model:19} {row.source:10} {row.ap:5}  {row.licence:11} {note}")
        return "\n".join(lines)


@cache
def official_weights() -> tuple[OfficialWeights, ...]:
    """Return the table."""
    text = (resources.files("ymir_tmi.weights") / "official.csv").read_text(encoding="utf-8")
    return tuple(_parse(row) for row in csv.DictReader(text.splitlines()))


def find_weights(name: str) -> OfficialWeights:
    """Return the row of this name.

    Raises:
        ModelError: there is none.
    """
    rows = {row.id: row for row in official_weights()}
    if name not in rows:
        raise ModelError(f"there are no weights '{name}' in the list", fix=did_you_mean(name, rows))
    return rows[name]


def _parse(row: dict[str, str]) -> OfficialWeights:
    numbers = {
        name: int(row[name]) if row[name] else None for name in ("bytes", "flops_per_multiply_add", "flops_side")
    }
    return OfficialWeights(**{**row, **numbers, "ap": float(row["ap"])})  # type: ignore[arg-type]

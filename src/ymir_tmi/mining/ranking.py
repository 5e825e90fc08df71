"""`ranking.json` for programs, `ranking.csv` for spreadsheets, and `scores.csv` with the score of the whole pool."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.index import Strings
from ymir_tmi.files.atomic import atomic_path
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.pool.failures import FailedImage


@dataclass(frozen=True, slots=True)
class RankedImage:
    """One line of a ranking.

    Attributes:
        rank: from 1, the image to label first.
        path: the picture file, as the pool names it.
        score: higher means: label it sooner.
        components: what the score was made of.
        reason: one line for the labeller.
        heatmap: a picture of where the score comes from, relative to the run folder, if the algorithm draws one.
        regions: the parts of the image to label, the best first, if the algorithm chooses such: `box` (xyxy) or `rle`
            (COCO's run lengths), in pixels of the picture, `score`, and what else it says of them.
        mask: a picture of these regions, relative to the run folder, if the algorithm draws one.
    """

    rank: int
    path: str
    score: float
    components: dict[str, float]
    reason: str
    heatmap: str | None = None
    regions: list[dict[str, Any]] | None = None
    mask: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; no `heatmap`, `regions` or `mask` if there is none."""
        values = {name: getattr(self, name) for name in ("rank", "path", "score", "components", "reason")}
        optional = {name: getattr(self, name) for name in ("heatmap", "regions", "mask")}
        return {**values, **{name: value for name, value in optional.items() if value is not None}}


def write_ranking(
    layout: RunLayout,
    settings: MineSettings,
    images: int,
    ranking: Sequence[RankedImage],
    failed: Sequence[FailedImage],
) -> None:
    """Write both files; docs/architecture.md has their format. `images` is the size of the pool."""
    head = {
        "algorithm": settings.algorithm,
        "compat": settings.compat,
        "model": str(settings.model) if settings.model else None,
        "seed": settings.seed,
        "images": images,
    }
    with atomic_path(layout.ranking_json) as path, path.open("w", encoding="utf-8") as file:
        rows, errors = (image.to_dict() for image in ranking), (image.to_dict() for image in failed)
        file.writelines(_json_parts(head, {"ranking": rows, "failed": errors}))
    with atomic_path(layout.ranking_csv) as path, path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_table(ranking))


def write_scores(layout: RunLayout, paths: Strings, scores: npt.NDArray[np.float64]) -> None:
    """Write one line for each image of the pool, in its order; a score that is NaN, of a failed image, stays empty."""
    with atomic_path(layout.scores) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "score"])
        for position, score in enumerate(scores.tolist()):
            writer.writerow([paths[position], "" if math.isnan(score) else score])


def _json_parts(head: dict[str, Any], sections: Mapping[str, Iterable[dict[str, Any]]]) -> Iterator[str]:
    """Yield the text of the file, one image a line, so that a ranking of millions is never one string."""
    yield _dumps(head)[:-1]
    for name, images in sections.items():
        yield f',\n"{name}": ['
        for number, image in enumerate(images):
            yield f"{',' if number else ''}\n{_dumps(image)}"
        yield "]"
    yield "}\n"


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _table(ranking: Sequence[RankedImage]) -> Iterator[list[Any]]:
    """Yield the rows of the CSV: a column for every component of any image, empty where an image has none of it."""
    names = list(dict.fromkeys(name for image in ranking for name in image.components))
    yield ["rank", "path", "score", "reason", *names]
    for image in ranking:
        yield [image.rank, image.path, image.score, image.reason, *(image.components.get(name, "") for name in names)]

"""The page of a mining run: the ranking as a gallery, with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ymir_tmi.evaluation.matching import Found
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.report.charts import Chart, histogram
from ymir_tmi.report.page import Fact, significant
from ymir_tmi.report.pictures import Mark, Picture
from ymir_tmi.report.shots import MOST_BOXES, MOST_MASKS, class_legend, detection_marks, rings_of
from ymir_tmi.report.source import RunFiles

# What a score means, one sentence each; docs/mining.md has the formulas.
_EXPLANATIONS = {
    "random": "The score is a random number and says nothing about the image: the baseline that every other algorithm "
    "must beat.",
    "entropy": "The score is the entropy of the model's confidences: it is high where the model neither trusts nor "
    "dismisses what it sees.",
    "aldd": "The score is how much the network's class maps disagree between neighbouring places: it is high where the "
    "model says one thing here and another a few pixels further.",
    "cald": "The score is how much the detections change when the image is mirrored, partly covered, turned or shrunk: "
    "it is high where the model contradicts itself. Its parts are distances from the contradiction that teaches most, "
    "so the smaller they are, the better.",
    "apis": "The score is how unsure the model is which pixels of a box belong to its object.",
    "maskal": "The score is high where objects change their class, their mask or their place, or vanish, when parts of "
    "the network are switched off at random.",
    "rsal": "The score is the sum over the chosen superpixels, in which two classes are nearly as likely as one "
    "another; classes that are rare in the pool count more.",
    "ripu": "The score is the sum over the chosen squares, in which several classes meet and the model is unsure of "
    "them.",
}
_DIRECTION = "Higher means: label it sooner."
_COMPAT = "The score is that of an earlier implementation ({}), whose mistakes are reproduced."
_LOST_SIGN = "There the sign was lost: the images that teach least come first."
_REGION_COLOUR = "#ffffff"
_PARTS = 5  # bars under a picture; where there are more, the largest


@dataclass(frozen=True)
class Part:
    """One component of a score: its name, its value, and the length of its bar in [0, 1]."""

    name: str
    value: str
    share: float


@dataclass(frozen=True)
class Card:
    """One image of the gallery. `picture` is None where it cannot be read, `heatmap` also where there is none."""

    rank: int
    path: str
    score: str
    reason: str
    parts: tuple[Part, ...]
    parts_left: int
    picture: Picture | None
    heatmap: Picture | None


@dataclass(frozen=True)
class _Detected:
    size: tuple[int, int] | None
    found: Found
    masks: Masks | None


def mine_page(run: RunFiles) -> dict[str, Any]:
    """Return what `mine.html` shows."""
    ranking = run.read_json(run.layout.ranking_json, "ranking") or {}
    rows = ranking.get("ranking", [])
    algorithm = ranking.get("algorithm", run.settings.get("algorithm", ""))
    shown = rows[: run.settings.get("gallery", 24)]
    class_names, detected = _detections(run, shown)
    return {
        "facts": _facts(ranking, rows),
        "explanation": _explanation(algorithm, ranking.get("compat")),
        "chart": _score_chart(rows, run.pool_scores()),
        "add_up": _add_up(shown),
        "cards": _cards(run, shown, class_names, detected),
        "legend": []
        if any(row.get("regions") for row in shown)
        else class_legend([image.found for image in detected.values()], class_names),
        "most_boxes": None if any(image.masks is not None for image in detected.values()) else MOST_BOXES,
        "regions": any(row.get("regions") for row in shown),
        "failed": ranking.get("failed", []),
    }


def _explanation(algorithm: str, compat: str | None) -> list[str]:
    """Return what the score means and in which direction, in sentences."""
    if compat is None:
        return [_EXPLANATIONS[algorithm], _DIRECTION] if algorithm else []
    return [_COMPAT.format(compat), _LOST_SIGN if algorithm == "cald" else _DIRECTION]


def _facts(ranking: Mapping[str, Any], rows: Sequence[Any]) -> list[Fact]:
    failed = len(ranking.get("failed", []))
    compat = ranking.get("compat")
    facts = [
        Fact("Algorithm", ranking.get("algorithm", "–"), f"compatible with {compat}" if compat else ""),
        Fact("Images", f"{ranking.get('images', 0):,}", f"{failed:,} could not be read" if failed else ""),
        Fact("Ranked", f"{len(rows):,}", "the highest score first"),
    ]
    if rows:
        lowest = significant(rows[-1]["score"])
        facts.append(Fact("Highest score", significant(rows[0]["score"]), f"the lowest of the ranking is {lowest}"))
    return facts


def _score_chart(rows: Sequence[Any], pool: Sequence[float]) -> Chart | None:
    """Draw the scores of the pool, with a line where the ranking was cut off; without them those of the ranking."""
    scores = [row["score"] for row in rows]
    if not scores:
        return None
    if len(pool) <= len(scores):
        return histogram("Scores", scores, x_label="score", y_label="images")
    cut = (f"the ranking ends at {significant(scores[-1])}", scores[-1])
    return histogram("Scores", pool, x_label="score", y_label="images", cut=cut)


def _detections(run: RunFiles, rows: Sequence[Any]) -> tuple[Sequence[str], dict[str, _Detected]]:
    """Return the class names, and by path what was found in the images of the gallery; `random` finds nothing."""
    predictions = run.predictions() if run.layout.predictions.is_file() else None
    if predictions is None:
        return (), {}
    shown = {row["path"] for row in rows}
    images = [(row, image) for row, image in enumerate(predictions.images) if image.path in shown]
    return predictions.class_names, {
        image.path: _Detected(image.size, predictions.of(row), predictions.masks_of(row)) for row, image in images
    }


def _cards(
    run: RunFiles, rows: Sequence[Any], class_names: Sequence[str], detected: Mapping[str, _Detected]
) -> list[Card]:
    largest = _largest_parts(rows)
    return [_card(run, row, detected.get(row["path"]), class_names, largest) for row in rows]


def _card(
    run: RunFiles,
    row: Mapping[str, Any],
    image: _Detected | None,
    class_names: Sequence[str],
    largest: Mapping[str, float],
) -> Card:
    path, heatmap, size = row["path"], row.get("heatmap"), image.size if image else None
    alt = f"Image {row['rank']} of the ranking" + (f", with {len(image.found)} detections" if image else "")
    regions = region_marks(row.get("regions", ()))
    marks = regions or (detection_marks(image.found, class_names, image.masks) if image else [])
    return Card(
        rank=row["rank"],
        path=path,
        score=significant(row["score"]),
        reason=row["reason"],
        parts=_parts(row["components"], largest),
        parts_left=max(0, len(row["components"]) - _PARTS),
        picture=run.picture(path, alt, marks, size=size),
        heatmap=run.heat_map(heatmap, f"Heat map of image {row['rank']}", path, size=size) if heatmap else None,
    )


def region_marks(regions: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """Return the regions of an image that are to be labelled: boxes, or superpixels that are given as run lengths.

    Of very many, the first `MOST_MASKS` are shown, which are the best.
    """
    shown = regions[:MOST_MASKS]
    boxes = [region["box"] for region in shown if "box" in region]
    masks = [_region_mask(region["rle"]) for region in shown if "rle" in region]
    marks = [Mark(tuple(map(float, box)), "", _REGION_COLOUR) for box in boxes]
    for mask in masks:
        [rings] = rings_of(mask, 1)
        marks.append(Mark(tuple(mask.hulls()[0].tolist()), "", _REGION_COLOUR, rings=rings))
    return marks


def _region_mask(rle: Mapping[str, Any]) -> Masks:
    height, width = rle["size"]
    return Masks.from_segmentation(dict(rle), (width, height))


def _parts(components: Mapping[str, float], largest: Mapping[str, float]) -> tuple[Part, ...]:
    """Return the components in their own order; of more than `_PARTS` the largest."""
    items = list(components.items())
    if len(items) > _PARTS:
        items = sorted(items, key=lambda item: -abs(item[1]))[:_PARTS]
    return tuple(Part(name, significant(value), abs(value) / largest[name]) for name, value in items)


def _add_up(rows: Sequence[Any]) -> bool:
    """Return whether every score is the sum of its components, so that these can be compared with one another."""
    return all(math.isclose(sum(row["components"].values()), row["score"], rel_tol=1e-4) for row in rows)


def _largest_parts(rows: Sequence[Any]) -> dict[str, float]:
    """Return by name what a full bar stands for: the largest of all components that add up, else of this name."""
    largest: dict[str, float] = {}
    for row in rows:
        for name, value in row["components"].items():
            largest[name] = max(largest.get(name, 0.0), abs(value))
    if _add_up(rows):
        largest = dict.fromkeys(largest, max(largest.values(), default=0.0))
    return {name: value or 1.0 for name, value in largest.items()}

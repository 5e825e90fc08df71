"""Predictions that were written earlier, as the detections of a data set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import RunSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.detected import Detected
from ymir_tmi.evaluation.results import EvaluationSettings
from ymir_tmi.models.postprocess import resolve_max_dets
from ymir_tmi.models.runtime.interface import ClassGroups
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.predictions import ImagePrediction, Predictions

_LOW_SCORE = 0.05  # predictions that end above it were cut, and lack a visible part of their precision-recall curve
_NOTHING: Row = {"boxes": [], "scores": [], "labels": []}


def class_names_of(predictions: Predictions, index: DatasetIndex) -> Sequence[str]:
    """Return the names of the predictions' classes; a plain list of results has those of the data's categories."""
    if predictions.class_names is not None:
        return predictions.class_names
    names = dict(zip(index.category_ids, index.class_names, strict=True))
    return [names.get(key, f"category {key}") for key in predictions.category_ids]


def recall_images(
    predictions: Predictions,
    index: DatasetIndex,
    class_names: Sequence[str],
    class_groups: ClassGroups,
    settings: RunSettings,
    *,
    where: Path,
) -> Detected:
    """Return the predictions for the images of `index`.

    An image of the predictions is that of the data with the same id and file name, or else with the same file name.

    Args:
        predictions: what a file holds.
        index: the images.
        class_names: what the classes of the result are called.
        class_groups: the classes of the predictions behind each of them; others are left out. Where several are merged,
            all their detections are kept.
        settings: detections score above its `conf`, and the best `max_dets` of an image are kept; where that is left
            open, as many as the predictions were cut to, if they tell.
        where: the file, for messages.

    Raises:
        DataError: none of the images is in the data, or two of them are the same.
    """
    found = [image.detections for image in predictions.images if len(image.detections)]
    # Where there are no detections at all, they are what the data asks for.
    rotated = found[0].is_rotated if found else index.rotated is not None
    conf, max_dets = settings.conf, settings.max_dets or predictions.max_dets
    max_dets = max_dets or resolve_max_dets(settings, rotated=rotated)
    new_labels = np.full(len(predictions.category_ids), -1, np.int64)
    for label, group in enumerate(class_groups):
        new_labels[list(group)] = label
    finder = _ImageFinder(index)
    rows: dict[int, Row] = {}
    for image in predictions.images:
        position = finder.position(image)
        if position in rows:
            raise DataError(f"two images of the predictions are '{index.paths[position]}' of the data", where=where)
        if position is not None:
            rows[position] = _row(image, new_labels, conf, max_dets)
    if predictions.images and not rows:
        raise DataError(
            f"none of the {len(predictions.images)} images of the predictions is in the data",
            where=where,
            fix="Give the data that the predictions were made for; images are compared by id and file name.",
        )
    return Detected(
        rows=[rows.get(position, _NOTHING) for position in range(len(index))],
        class_names=class_names,
        settings=EvaluationSettings(conf=conf, max_dets=max_dets),
        rotated=rotated,
        masks=found[0].masks is not None if found else index.segments is not None,
        warnings=_warnings(predictions, len(index), rows.values(), max_dets),
    )


class _ImageFinder:
    """Finds the image of an index that a file of predictions means."""

    def __init__(self, index: DatasetIndex) -> None:
        self._paths = [index.paths[position] for position in range(len(index))]
        self._by_id = {key: position for position, key in enumerate(index.image_ids.tolist())}
        self._by_path = {path: position for position, path in enumerate(self._paths)}
        self._by_name: dict[str, int | None] = {}
        for position, path in enumerate(self._paths):
            name = PurePath(path).name
            self._by_name[name] = None if name in self._by_name else position  # two folders may have one of the name

    def position(self, image: ImagePrediction) -> int | None:
        """Return the row of the image, or None if the index has no such image."""
        position = self._by_id.get(_number(image.image_id))
        if image.file_name is None:
            return position
        name = PurePath(image.file_name).name
        if position is not None and PurePath(self._paths[position]).name == name:
            return position
        return self._by_path.get(image.file_name, self._by_name.get(name))


def _number(image_id: int | str) -> int | None:
    """Return an id as the reader of annotations does, which takes digits for numbers."""
    if isinstance(image_id, str):
        return int(image_id) if image_id.removeprefix("-").isdecimal() else None
    return image_id


def _row(image: ImagePrediction, new_labels: npt.NDArray[np.int64], conf: float, max_dets: int) -> Row:
    """Return the chosen detections of an image as a pass over a pool records them."""
    if image.error is not None:
        return {"error": image.error}
    found = image.detections.above(conf)
    labels = new_labels[found.labels]
    kept = np.flatnonzero(labels >= 0)[:max_dets]
    row = {
        "boxes": found.boxes[kept].tolist(),
        "scores": found.scores[kept].tolist(),
        "labels": labels[kept].tolist(),
    }
    if found.masks is None:
        return row
    counts = [each.decode() for each in found.masks[kept].counts]
    return {**row, "size": list(found.masks.size), "masks": counts}


def _warnings(predictions: Predictions, images: int, rows: Collection[Row], max_dets: int) -> list[str]:
    warnings = []
    if predictions.class_names is not None and len(rows) < images:  # a plain list names no image without detections
        warnings.append(f"images that the predictions do not have count as empty: {images - len(rows)}")
    if len(rows) < len(predictions.images):
        warnings.append(f"images that the data does not have are left out: {len(predictions.images) - len(rows)}")
    # Where there are as many detections as are kept, it was their number that ended them.
    lowest = min((row["scores"][-1] for row in rows if 0 < len(row.get("scores", ())) < max_dets), default=0.0)
    if lowest > _LOW_SCORE:
        warnings.append(
            f"the lowest score of the predictions is {lowest:.3g}; if they were cut there, AP is too low, and "
            "infer --conf 0.001 keeps the rest"
        )
    return warnings

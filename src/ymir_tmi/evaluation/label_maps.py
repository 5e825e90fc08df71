"""A pass over annotated images that compares label maps with those of the data and keeps no more than counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import IGNORED, DatasetIndex
from ymir_tmi.data.palette import class_colours
from ymir_tmi.data.semantics import BACKGROUND, read_label_map, semantic_splits
from ymir_tmi.errors import ImageError
from ymir_tmi.evaluation.classes import match_classes
from ymir_tmi.evaluation.semantic_results import SemanticResult, SemanticSettings
from ymir_tmi.evaluation.semantics import OTHER, ConfusedPixels, LabelMap, SemanticEvaluator
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.imaging import write_values
from ymir_tmi.models.runtime.interface import Runtime
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row
from ymir_tmi.pool.label_maps import LabelMapRecorder, label_map_of
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows
from ymir_tmi.pool.sizing import resolve_batch, resolve_workers

ReadLabelMap = Callable[[DatasetIndex, int, tuple[int, int]], LabelMap]

EXAMPLES = 6
"""Images of either end of the ranking whose label maps are kept, for a person to look at."""


class PixelCounter(Consumer):
    """Counts which class the pixels of each image were taken for; `confused_pixels` reads a row back.

    A row is `{"truth": [...], "predicted": [...], "pixels": [...]}`, or `{"unusable": why}` where the data's own label
    map cannot be read.

    Args:
        index: the images of the pass.
        labels: (256,) uint8, the data's label of each label of the model, `OTHER` where the data has no such class.
        read: returns the data's label map of an image of a given size.
    """

    name = "pixels"

    def __init__(self, index: DatasetIndex, labels: npt.NDArray[np.uint8], read: ReadLabelMap = read_label_map) -> None:
        self._index = index
        self._labels = labels
        self._read = read

    @property
    def needs(self) -> Needs:
        """Label maps of the unchanged image."""
        return Needs(frozenset({"label_map"}))

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.label_map is not None
        try:
            truth = self._read(self._index, result.position, result.size)
        except ImageError as error:
            return {"unusable": str(error)}
        counts = ConfusedPixels.between(self._labels[result.label_map], truth, self._index.num_classes)
        columns = {"truth": counts.truth, "predicted": counts.predicted, "pixels": counts.pixels}
        return {name: column.tolist() for name, column in columns.items()}


def confused_pixels(row: Row) -> ConfusedPixels:
    """Return the counts of a row of `PixelCounter`."""
    truth, predicted, pixels = (np.array(row[name], np.int64) for name in ("truth", "predicted", "pixels"))
    return ConfusedPixels(truth, predicted, pixels)


def with_label_maps(index: DatasetIndex, class_names: Sequence[str]) -> DatasetIndex:
    """Return annotations as label maps for a model with these classes.

    Pixels without an annotation are background to a model that has such a class, and do not count for others.

    Raises:
        DataError: the annotations do not say which class a pixel has.
        ImageError: a picture or its annotations cannot be read.
    """
    blank: Literal["background", "ignore"] = "background" if BACKGROUND in class_names else "ignore"
    return semantic_splits({"data": index}, blank=blank)["data"]


def measure_label_maps(
    runtime: Runtime,
    class_names: Sequence[str],
    index: DatasetIndex,
    *,
    batch: int | Literal["auto"],
    workers: int | Literal["auto"],
    progress: ProgressReporter | None = None,
) -> SemanticResult:
    """Run a semantic model over all images and measure it; several processes share them, and each gets the result.

    Args:
        runtime: the model.
        class_names: what its labels are called.
        index: the images, with label maps.
        batch: images per step.
        workers: threads that decode.
        progress: is told how far all processes are.

    Raises:
        DataError: the model and the data have no class in common.
    """
    match = match_classes(class_names, index.class_names, pixels=True)
    counter, store = PixelCounter(index, _new_labels(match.labels)), MemoryRows()
    run_pool(
        index,
        [counter],
        store,
        runtime=runtime,
        batch=resolve_batch(batch, runtime),
        workers=resolve_workers(workers, runtime.device),
        progress=progress,
    )
    if ranks.rank() > 0:
        return ranks.from_first(None)
    settings = SemanticSettings(image_size=runtime.spec.input.size, precision=runtime.arithmetic)
    evaluator = SemanticEvaluator(index, settings)
    for position, row in enumerate(store.rows(counter.name)):
        problem = row.get("error", row.get("unusable"))
        if problem is not None:
            evaluator.fail(position, problem)
        else:
            evaluator.update_counts(position, confused_pixels(row))
    return ranks.from_first(evaluator.compute(match.warnings))


def write_examples(
    runtime: Runtime, class_names: Sequence[str], index: DatasetIndex, result: SemanticResult, folder: Path
) -> None:
    """Run the model again on the best and the worst images and write their label maps in terms of the data's classes.

    A file is called by the row of its image in `index`. The first process writes; all take part.
    """
    chosen = [score.position for score in (*result.ranking[:EXAMPLES], *result.ranking[-EXAMPLES:])]
    chosen = list(dict.fromkeys(chosen))
    if not chosen:
        return
    recorder, store = LabelMapRecorder(), MemoryRows()
    images = index.take(chosen)
    batch, workers = resolve_batch("auto", runtime), resolve_workers("auto", runtime.device)
    run_pool(images, [recorder], store, runtime=runtime, batch=batch, workers=workers)
    if ranks.rank() > 0:
        return
    labels = _new_labels(match_classes(class_names, index.class_names).labels)
    for position, row in zip(chosen, store.rows(recorder.name), strict=True):
        if "error" not in row:
            write_values(folder / f"{position}.png", labels[label_map_of(row)], class_colours(256))


def _new_labels(matched: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return (256,) the data's label of each label of the model, `OTHER` for those that it does not have."""
    labels = np.full(IGNORED + 1, OTHER, np.uint8)
    labels[: len(matched)] = np.where(matched >= 0, matched, OTHER)
    return labels

"""The detections of all images of a data set, from a model or from a file, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.rotated import as_rotated, as_upright, note_on_kind
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.evaluation.classes import match_classes
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult, EvaluationSettings
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.models.runtime.interface import Runtime
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.recorder import DetectionRecorder, detections_of
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows, PackedRows
from ymir_tmi.pool.sizing import resolve_batch, resolve_workers


@dataclass(frozen=True)
class Detected:
    """What was detected, image by image.

    Attributes:
        rows: one row of `pool.recorder.DetectionRecorder` per image of the index, in its order.
        class_names: the names of the rows' labels.
        settings: how it was detected.
        rotated: whether boxes are rotated ones.
        warnings: what a reader of the numbers must know.
    """

    rows: Sequence[Row]
    class_names: Sequence[str]
    settings: EvaluationSettings
    rotated: bool = False
    warnings: Sequence[str] = ()


def detect_images(
    runtime: Runtime,
    class_names: Sequence[str],
    index: DatasetIndex,
    *,
    conf: float,
    batch: int | Literal["auto"],
    workers: int | Literal["auto"],
    tiling: Tiling | None = None,
    progress: ProgressReporter | None = None,
) -> Detected:
    """Run a model over all images; several processes share them, and each gets the rows of all."""
    chosen = runtime.spec.postprocess
    assert chosen.max_detections is not None, "recall is measured at a number of detections"
    recorder, store = DetectionRecorder(conf), MemoryRows()
    run_pool(
        index,
        [recorder],
        store,
        runtime=runtime,
        batch=resolve_batch(batch, runtime),
        workers=resolve_workers(workers, runtime.device),
        tiling=tiling,
        progress=progress,
    )
    settings = EvaluationSettings(
        conf=conf,
        iou=chosen.iou_threshold,
        max_dets=chosen.max_detections,
        image_size=runtime.spec.input.size,
        precision=runtime.arithmetic,
        tile=None if tiling is None else tiling.size,
        overlap=None if tiling is None else tiling.overlap,
    )
    rows = PackedRows(store.rows(recorder.name))
    return Detected(rows, class_names, settings, rotated=runtime.spec.task == "rotated")


def in_form(index: DatasetIndex, *, rotated: bool) -> DatasetIndex:
    """Return annotations that rotated, or upright, detections are compared with."""
    return as_rotated(index) if rotated else as_upright(index)


def measure(index: DatasetIndex, detected: Detected) -> EvaluationResult:
    """Measure detections against the annotations. The first process does it, and all get the result.

    Rotated detections are compared with rotated annotations, which upright ones are turned into, and upright detections
    with the upright boxes around rotated annotations.

    Raises:
        DataError: the detections and the data have no class in common, or a polygon is not a list of numbers.
    """
    match = match_classes(detected.class_names, index.class_names)
    if ranks.rank() > 0:
        return ranks.from_first(None)
    evaluator = DetectionEvaluator(in_form(index, rotated=detected.rotated), detected.settings)
    for position, row in enumerate(detected.rows):
        if "error" in row:
            evaluator.fail(position, row["error"])
        else:
            evaluator.update(position, match.apply(detections_of(row, len(detected.class_names))))
    note = note_on_kind(index, rotated=detected.rotated)
    notes = [] if note is None else [note]
    return ranks.from_first(evaluator.compute([*match.warnings, *notes, *detected.warnings]))

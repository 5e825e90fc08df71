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
        masks: whether the rows have masks.
        warnings: what a reader of the numbers must know.
    """

    rows: Sequence[Row]
    class_names: Sequence[str]
    settings: EvaluationSettings
    rotated: bool = False
    masks: bool = False
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
    task = runtime.spec.task
    recorder, store = DetectionRecorder(conf, masks=task == "instances"), MemoryRows()
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
    return Detected(rows, class_names, settings, rotated=task == "rotated", masks=task == "instances")


def in_form(index: DatasetIndex, *, rotated: bool) -> DatasetIndex:
    """Return annotations that rotated, or upright, detections are compared with."""
    return as_rotated(index) if rotated else as_upright(index)


def measure(index: DatasetIndex, detected: Detected) -> EvaluationResult:
    """Measure detections against the annotations. The first process does it, and all get the result.

    Rotated detections are compared with rotated annotations, which upright ones are turned into, and upright detections
    with the upright boxes around rotated annotations. Masks are compared with masks; where the data has none at all,
    only boxes are measured.

    Raises:
        DataError: the detections and the data have no class in common, or a segmentation cannot be used.
    """
    match = match_classes(detected.class_names, index.class_names)
    if ranks.rank() > 0:
        return ranks.from_first(None)
    masks = detected.masks and index.segments is not None
    note = note_on_kind(index, rotated=detected.rotated)
    warnings = [*match.warnings, *([] if note is None else [note]), *detected.warnings]
    if detected.masks and not masks:
        warnings.append("the data has no masks, so that only the boxes of the detections are measured")
    evaluator = DetectionEvaluator(in_form(index, rotated=detected.rotated), detected.settings, masks=masks)
    for position, row in enumerate(detected.rows):
        if "error" in row:
            evaluator.fail(position, row["error"])
        else:
            evaluator.update(position, match.apply(detections_of(row, len(detected.class_names))))
    return ranks.from_first(evaluator.compute(warnings))

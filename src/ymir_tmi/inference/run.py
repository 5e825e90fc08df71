"""`ymir-tmi infer`: from images to files of detections or label maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ymir_tmi import __version__
from ymir_tmi.config.schema import InferFormat, InferSettings
from ymir_tmi.data.formats.writing import label_names
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.pictures import common_names
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.threads import Threads
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.errors import ConfigError, counted
from ymir_tmi.files.atomic import write_text
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.files.progress import ProgressReporter, speed_text
from ymir_tmi.inference.dota import picture_names, write_dota
from ymir_tmi.inference.writers import write_label_maps, write_pictures, write_voc, write_yolo
from ymir_tmi.models.interface import Task
from ymir_tmi.models.runtime.interface import Runtime
from ymir_tmi.models.runtime.open import open_model
from ymir_tmi.models.segment import PIXEL_SETTINGS
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.failures import FailedImage, describe_failures
from ymir_tmi.pool.label_maps import recorder_for
from ymir_tmi.pool.predictions import category_ids_for, write_predictions
from ymir_tmi.pool.record import open_folder, open_manifest
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import FileRows, fingerprint
from ymir_tmi.pool.sizing import resolve_batch, resolve_workers
from ymir_tmi.pool.windows import tiling_for

_FORMATS: dict[Task, tuple[InferFormat, ...]] = {
    "detection": ("coco", "yolo", "voc", "dota"),
    "rotated": ("coco", "yolo", "voc", "dota"),
    "instances": ("coco", "yolo"),
    "semantics": ("coco", "masks"),
}
_CONTENTS: dict[Task, str] = {
    "detection": "upright boxes",
    "rotated": "rotated boxes",
    "instances": "masks of objects",
    "semantics": "classes of pixels",
}
# Settings that change a row of the pass; the others may differ when a run goes on. What others follow from comes first.
_ROW_SETTINGS = ("conf", "classes", "image_size", "iou", "tile", "overlap", "max_dets", *PIXEL_SETTINGS)


@dataclass(frozen=True)
class InferResult:
    """What an inference run did.

    Attributes:
        run: the run folder.
        images: images of the data, those that could not be read among them.
        detections: detections in all images; of a semantic model, how often a class is in an image.
        failed: images that could not be read.
        seconds: from the first image to the last file, without loading the model.
        images_per_second: of the images that this run did; a resumed run does not count those of the run before.
        semantic: whether the model gives every pixel a class.
    """

    run: Path
    images: int
    detections: int
    failed: list[FailedImage]
    seconds: float
    images_per_second: float
    semantic: bool = False

    def metrics(self) -> dict[str, float]:
        """Return the numbers that the manifest keeps."""
        counts = {"images": self.images, "detections": self.detections, "failed": len(self.failed)}
        return {**counts, "seconds": self.seconds, "images_per_second": self.images_per_second}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {**self.metrics(), "run": str(self.run), "failed": [image.to_dict() for image in self.failed]}

    def to_text(self) -> str:
        """Return lines for a person."""
        what = "label maps of" if self.semantic else f"{counted(self.detections, 'detection', 'detections')} in"
        line = f"{what} {counted(self.images, 'image', 'images')}, {speed_text(self.images_per_second)}"
        return "\n".join([line, *describe_failures(self.failed), str(self.run)])


@dataclass(frozen=True)
class _Job:
    """What an inference run works on.

    Attributes:
        settings: with the number of detections that are kept.
        class_names: of the results, after `--classes`.
        names: what the files of each picture are called; empty where there are no such files.
        tiling: how large images are cut; None leaves them whole.
    """

    settings: InferSettings
    index: DatasetIndex
    runtime: Runtime
    class_names: tuple[str, ...]
    names: list[str]
    tiling: Tiling | None


def infer(settings: InferSettings) -> InferResult:
    """Run a model over images and write what it finds, or go on with a run that was stopped.

    Under torchrun the processes share the images, and the first one writes.

    Raises:
        ConfigError: a class, the device, the precision, the image size or a format cannot be used.
        DataError: there are no images, or an annotation file is wrong.
        DependencyError: a library that the device or an exported file needs is missing.
        ModelError: the model file is missing, damaged or for other programs.
        RunError: the run folder exists already, or the run to resume had another model, other images or settings.
        KeyboardInterrupt: the user stopped the run; `resume` goes on with it.
    """
    with ranks.shared_by_ranks():
        job = _prepare(settings)
        layout = open_folder(settings, "infer")
        recorder = recorder_for(job.runtime.spec.task, settings.conf)
        rows = FileRows(layout.shards, [recorder.name], _fingerprint(job))
        manifest = open_manifest(job.settings, "infer", layout, job.index) if ranks.rank() == 0 else None
        with manifest or nullcontext():
            result = _run(job, layout, rows)
            if manifest is not None:
                manifest.finish("done", metrics=result.metrics())
        return result


def _prepare(settings: InferSettings) -> _Job:
    """Read everything that can be wrong before a run folder is made."""
    Tiling.of(settings)  # refuses what does not go together
    index = read_dataset(settings.data, split=settings.split, images=settings.images, format=settings.format)
    runtime, class_names = open_model(settings.model, settings)
    tiling = tiling_for(settings, runtime.spec.task)
    _check_formats(settings, runtime.spec.task)
    settings = settings.model_copy(update={"max_dets": runtime.spec.postprocess.max_detections})
    return _Job(settings, index, runtime, class_names, _file_names(settings, index, class_names), tiling)


def _check_formats(settings: InferSettings, task: Task) -> None:
    """Raise a ConfigError if files are asked for that cannot hold what the model finds."""
    for name in settings.formats:
        if name not in _FORMATS[task]:
            raise ConfigError(
                f"files of '{name}' cannot hold {_CONTENTS[task]}, which is what this model finds",
                where="formats",
                fix=f"Choose from: {', '.join(_FORMATS[task])}.",
            )


def _file_names(settings: InferSettings, index: DatasetIndex, class_names: Sequence[str]) -> list[str]:
    annotations = {"yolo", "voc", "masks"} & set(settings.formats)
    if not annotations and not settings.pictures and "dota" not in settings.formats:
        return []
    names = common_names([index.paths[position] for position in range(len(index))])
    if "dota" in settings.formats:
        picture_names(names, class_names)  # refuses names that its files cannot hold
    if annotations:
        label_names(names)  # refuses pictures that would share an annotation file
    return names


def _run(job: _Job, layout: RunLayout, rows: FileRows) -> InferResult:
    """Make the pass over the images; then rank 0 writes the files."""
    settings, index, runtime = job.settings, job.index, job.runtime
    recorder = recorder_for(runtime.spec.task, settings.conf)
    before = rows.images_done(len(index))
    batch, workers = resolve_batch(settings.batch, runtime), resolve_workers(settings.workers, runtime.device)
    start = time.perf_counter()
    first = ranks.rank() == 0
    events = layout.progress if first else None
    with ProgressReporter("infer", len(index), done=before, events=events, quiet=not first) as progress:
        watched = progress if first else None
        run_pool(
            index,
            [recorder],
            rows,
            runtime=runtime,
            batch=batch,
            workers=workers,
            tiling=job.tiling,
            progress=watched,
        )
    if not first:
        return ranks.from_first(None)
    recorded = partial(rows.rows, recorder.name)
    with Threads(workers) as threads:
        _write(job, layout, recorded, threads)
    result = _summary(job, layout, recorded(), time.perf_counter() - start, len(index) - before)
    rows.remove()
    return ranks.from_first(result)


def _fingerprint(job: _Job) -> dict[str, Any]:
    chosen = job.settings.model_dump(mode="json")
    settings = {name: chosen[name] for name in _ROW_SETTINGS}
    return fingerprint(job.index, model=job.settings.model, settings={**settings, "arithmetic": job.runtime.arithmetic})


def _write(job: _Job, layout: RunLayout, rows: Callable[[], Iterator[Row]], threads: Threads) -> None:
    settings, index, class_names, names = job.settings, job.index, job.class_names, job.names
    if "coco" in settings.formats:
        categories = list(zip(category_ids_for(class_names, index), class_names, strict=True))
        description = f"what {settings.model} has found, made by ymir-tmi {__version__}"
        write_predictions(
            layout.predictions, index, categories, rows, description=description, max_dets=settings.max_dets
        )
    if "yolo" in settings.formats:
        write_text(layout.class_list, "".join(f"{name}\n" for name in class_names))
        write_yolo(layout.labels, names, rows())
    if "voc" in settings.formats:
        write_voc(layout.annotations, names, class_names, rows())
    if "dota" in settings.formats:
        write_dota(layout.dota, picture_names(names, class_names), class_names, rows())
    if "masks" in settings.formats:
        write_text(layout.class_list, "".join(f"{name}\n" for name in class_names))
        write_label_maps(layout.label_maps, names, rows(), threads)
    if settings.pictures:
        write_pictures(layout.pictures, index, names, class_names, rows(), threads)


def _summary(job: _Job, layout: RunLayout, rows: Iterator[Row], seconds: float, done: int) -> InferResult:
    detections, failed = 0, []
    for position, row in enumerate(rows):
        if "error" in row:
            failed.append(FailedImage(job.index.paths[position], row["error"]))
        else:
            detections += len(row["labels"])
    semantic = job.runtime.spec.task == "semantics"
    return InferResult(layout.root, len(job.index), detections, failed, seconds, done / seconds, semantic)

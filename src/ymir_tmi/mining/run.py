"""`ymir-tmi mine`: from a pool of images to a ranking of what to label next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi import __version__
from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.errors import ConfigError, ModelError, counted
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.files.progress import ProgressReporter, speed_text
from ymir_tmi.mining.algorithm import (
    Algorithm,
    HeatMapAlgorithm,
    PoolAlgorithm,
    RegionAlgorithm,
    create_algorithm,
    default_algorithm,
)
from ymir_tmi.mining.heatmaps import HeatmapWriter
from ymir_tmi.mining.masks import MaskWriter
from ymir_tmi.mining.ranking import RankedImage, write_ranking, write_scores
from ymir_tmi.mining.select import select_by_score
from ymir_tmi.models.runtime.interface import Runtime
from ymir_tmi.models.runtime.open import open_model
from ymir_tmi.models.segment import PIXEL_SETTINGS
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Consumer, Row, works_with_windows
from ymir_tmi.pool.failures import FailedImage, describe_failures
from ymir_tmi.pool.label_maps import LabelMapRecorder, recorder_for
from ymir_tmi.pool.names import common_folder
from ymir_tmi.pool.predictions import category_ids_for, write_predictions
from ymir_tmi.pool.record import open_folder, open_manifest
from ymir_tmi.pool.recorder import DetectionRecorder
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import FileRows, MemoryRows, RowStore, fingerprint
from ymir_tmi.pool.sizing import resolve_batch, resolve_workers
from ymir_tmi.pool.windows import tiling_for

Positions = npt.NDArray[np.int64]

# Settings that change a row of the pass; those of the selection may differ when a run goes on. What others follow from
# comes first.
_ROW_SETTINGS = (
    "algorithm", "compat", "conf", "class_weights", "aggregate", "empty_first",
    "passes", "group_iou", "certainty", "superpixels", "max_superpixels", "region_size", "region_radius", "top_regions",
    "classes", "image_size", "iou", "tile", "overlap", "max_dets", *PIXEL_SETTINGS, "seed",
)  # fmt: skip


@dataclass(frozen=True)
class MineResult:
    """What a mining run found.

    Attributes:
        run: the run folder.
        images: size of the pool, images that could not be read among them.
        ranking: the images to label, the first one first.
        failed: images that could not be read.
        seconds: from the first image to the last file, without loading the model.
        images_per_second: of the images that this run did; a resumed run does not count those of the run before.
    """

    run: Path
    images: int
    ranking: list[RankedImage]
    failed: list[FailedImage]
    seconds: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "run": str(self.run),
            "images": self.images,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "ranking": [image.to_dict() for image in self.ranking],
            "failed": [image.to_dict() for image in self.failed],
        }

    def to_text(self) -> str:
        """Return lines for a person: the first of the ranking, and where the rest is."""
        lines = [f"{image.rank:4}  {image.score:9.4g}  {image.path}: {image.reason}" for image in self.ranking[:10]]
        images, speed = counted(self.images, "image", "images"), speed_text(self.images_per_second)
        lines.append(f"{len(self.ranking):,} of {images} ranked, {speed}")
        return "\n".join([*lines, *describe_failures(self.failed), str(self.run)])


@dataclass(frozen=True)
class _Job:
    """What a mining run works on; it has no runtime where nothing is read of a model, and may have no recorder.

    The settings name the algorithm and say how many detections are kept. The recorder writes down what the model finds.
    """

    settings: MineSettings
    index: DatasetIndex
    algorithm: Algorithm
    class_names: tuple[str, ...] = ()
    runtime: Runtime | None = None
    recorder: DetectionRecorder | LabelMapRecorder | None = None
    tiling: Tiling | None = None

    @cached_property
    def batch(self) -> int:
        return resolve_batch(self.settings.batch, self.runtime)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.runtime is None else self.runtime.device

    @property
    def workers(self) -> int:
        """Threads that decode and measure: where they cut superpixels, that takes longer than the network."""
        return resolve_workers(self.settings.workers, self.device, busy=self.algorithm.needs.measure is not None)

    @property
    def consumers(self) -> list[Consumer]:
        return [self.algorithm] if self.recorder is None else [self.algorithm, self.recorder]

    def make_pass(
        self,
        index: DatasetIndex,
        consumers: Sequence[Consumer],
        rows: RowStore,
        progress: ProgressReporter | None = None,
    ) -> None:
        run_pool(
            index,
            consumers,
            rows,
            runtime=self.runtime,
            batch=self.batch,
            workers=self.workers,
            seed=self.settings.seed,
            tiling=self.tiling,
            progress=progress,
        )


def mine(settings: MineSettings, *, found_above: float | None = None) -> MineResult:
    """Rank the images of a pool, or go on with a run that was stopped.

    Under torchrun the processes share the images, and the first one writes.

    Args:
        settings: what to rank, and how.
        found_above: write what the model finds as `infer` does, with masks and label maps, where it scores above this:
            both verbs in one pass over the images. By default the run has the boxes above `settings.conf`.

    Raises:
        ConfigError: the algorithm lacks a model or does not have the form, or a class, the device, the precision or an
            option cannot be used.
        DataError: there are no images, or an annotation file is wrong.
        DependencyError: a library that the device or an exported file needs is missing.
        ModelError: the model file is missing, damaged or for other programs, does not suit the form, or its outputs are
            not numbers.
        RunError: the run folder exists already, or the run to resume had another model, other images or settings.
        KeyboardInterrupt: the user stopped the run; `resume` goes on with it.
    """
    with ranks.shared_by_ranks():
        job = _prepare(settings, found_above)
        layout = open_folder(settings, "mine")
        rows = FileRows(layout.shards, [consumer.name for consumer in job.consumers], _fingerprint(job, found_above))
        manifest = open_manifest(job.settings, "mine", layout, job.index) if ranks.rank() == 0 else None
        with manifest or nullcontext():
            result = _run(job, layout, rows)
            if manifest is not None:
                counts = {"images": result.images, "ranked": len(result.ranking), "failed": len(result.failed)}
                speed = {"seconds": result.seconds, "images_per_second": result.images_per_second}
                manifest.finish("done", metrics={**counts, **speed})
        return result


def _prepare(settings: MineSettings, found_above: float | None) -> _Job:
    """Read everything that can be wrong before a run folder is made."""
    if settings.model is None and settings.algorithm != "random":
        name = settings.algorithm or default_algorithm("detection")
        raise ConfigError(f"algorithm '{name}' needs a model", where="model", fix="Give --model, or take random.")
    tiling = Tiling.of(settings)
    index = read_dataset(settings.data, split=settings.split, images=settings.images, format=settings.format)
    if settings.model is None:
        return _Job(settings, index, create_algorithm(settings, ()))
    runtime, class_names = open_model(settings.model, settings)
    task, postprocess = runtime.spec.task, runtime.spec.postprocess
    name = settings.algorithm or default_algorithm(task)
    settings = settings.model_copy(update={"algorithm": name, "max_dets": postprocess.max_detections})
    algorithm = create_algorithm(settings, class_names, task=task)
    _require_suitable(settings, algorithm, runtime)
    if found_above is not None:
        tiling, recorder = tiling_for(settings, task), recorder_for(task, found_above)
        return _Job(settings, index, algorithm, class_names, runtime, recorder, tiling)
    if task == "semantics":  # which has no detections to record: `random` then reads nothing of the model
        return _Job(settings, index, algorithm, class_names, runtime if algorithm.needs.outputs else None)
    return _Job(settings, index, algorithm, class_names, runtime, DetectionRecorder(settings.conf), tiling)


def _require_suitable(settings: MineSettings, algorithm: Algorithm, runtime: Runtime) -> None:
    """Refuse a model file, or tiles, that an algorithm cannot work with."""
    form = f" in the form '{settings.compat}'" if settings.compat else ""
    if "raw" in algorithm.needs.outputs and not runtime.has_raw:
        raise ModelError(
            f"algorithm '{settings.algorithm}'{form} needs the head's own numbers, and this file has decoded ones",
            where=settings.model,
            fix="Export the model with --outputs raw, or give the model file.",
        )
    if settings.tile is not None and not works_with_windows(algorithm):
        raise ConfigError(
            f"algorithm '{settings.algorithm}'{form} scores whole images only",
            where="tile",
            fix=f"Leave out the {'form, or the ' if form else ''}tiles.",
        )


def _run(job: _Job, layout: RunLayout, rows: FileRows) -> MineResult:
    """Make the pass over the pool, select, and let rank 0 write the files."""
    index = job.index
    before = rows.images_done(len(index))
    start = time.perf_counter()
    quiet = ranks.rank() > 0
    events = None if quiet else layout.progress
    with ProgressReporter("mine", len(index), done=before, events=events, quiet=quiet) as progress:
        job.make_pass(index, job.consumers, rows, None if quiet else progress)
    concluded = _concluded_rows(job, rows)
    scores, failed = _scores(job, concluded())
    readable = np.flatnonzero(~np.isnan(scores))
    chosen = readable[select_by_score(scores[readable], job.settings.top_k)]
    ranking = _with_pictures(job, layout, chosen, _ranking(job, concluded(), chosen))
    ranks.wait_for_all()  # until then the others may read the rows
    if ranks.rank() == 0:
        _write(job, layout, rows, scores, ranking, failed)
        rows.remove()
    seconds = time.perf_counter() - start
    return MineResult(
        run=layout.root,
        images=len(index),
        ranking=ranking,
        failed=failed,
        seconds=seconds,
        images_per_second=(len(index) - before) / seconds,
    )


def _fingerprint(job: _Job, found_above: float | None) -> dict[str, Any]:
    chosen = job.settings.model_dump(mode="json")
    settings = {name: chosen[name] for name in _ROW_SETTINGS} | {"found_above": found_above}
    arithmetic = job.runtime.arithmetic if job.runtime is not None else None
    return fingerprint(job.index, model=job.settings.model, settings={**settings, "arithmetic": arithmetic})


def _concluded_rows(job: _Job, rows: RowStore) -> Callable[[], Iterator[Row]]:
    """Return what yields the rows of the pool with their scores, those of images that could not be read as they are."""
    algorithm = job.algorithm
    if not isinstance(algorithm, PoolAlgorithm):
        return lambda: rows.rows(algorithm.name)
    conclude = algorithm.conclude(lambda: (row for row in rows.rows(algorithm.name) if "error" not in row))
    return lambda: (row if "error" in row else conclude(row) for row in rows.rows(algorithm.name))


def _scores(job: _Job, rows: Iterator[Row]) -> tuple[npt.NDArray[np.float64], list[FailedImage]]:
    """Return (N,) the scores of the pool, NaN where an image could not be read, and these images."""
    scores = np.full(len(job.index), np.nan)
    failed: list[FailedImage] = []
    for position, row in enumerate(rows):
        if "error" in row:
            failed.append(FailedImage(job.index.paths[position], row["error"]))
        else:
            scores[position] = row["score"]
    return scores, failed


def _ranking(job: _Job, rows: Iterator[Row], chosen: Positions) -> list[RankedImage]:
    """Return the chosen images with what their rows say."""
    ranks_of = {position: rank for rank, position in enumerate(chosen.tolist(), 1)}
    ranked = {
        rank: RankedImage(
            rank=rank,
            path=job.index.paths[position],
            score=row["score"],
            components=row["components"],
            reason=row["reason"],
            regions=row.get("regions") if rank <= job.settings.kept else None,
        )
        for position, row in enumerate(rows)
        if (rank := ranks_of.get(position)) is not None
    }
    return [ranked[rank] for rank in range(1, len(chosen) + 1)]


def _with_pictures(
    job: _Job, layout: RunLayout, chosen: Positions, ranking: Sequence[RankedImage]
) -> list[RankedImage]:
    """Draw heat maps of the first images and masks of those with regions, and return the ranking that names them."""
    masks = None
    if isinstance(job.algorithm, RegionAlgorithm):
        masks = MaskWriter(job.algorithm, ranking, layout, common_folder(job.index.paths))
    drawn = dict(enumerate(_draw_gallery(job, layout, chosen[: job.settings.gallery], masks)))
    if masks is not None:
        rest = [row for row, image in enumerate(ranking) if image.regions is not None and row not in drawn]
        drawn |= masks.write(rest, [job.index.size(chosen[row]) for row in rest], job.workers)
    return [replace(image, **drawn.get(row, {})) for row, image in enumerate(ranking)]


def _draw_gallery(job: _Job, layout: RunLayout, gallery: Positions, masks: MaskWriter | None) -> list[Row]:
    """Draw what is to be seen of the first images in a second pass over these alone; return the files, by rank."""
    if not isinstance(job.algorithm, HeatMapAlgorithm) or not len(gallery):
        return []
    heat_maps, rows = HeatmapWriter(job.algorithm, layout.heatmaps), MemoryRows()
    job.make_pass(job.index.take(gallery), [heat_maps] if masks is None else [heat_maps, masks], rows)
    drawn = [{"heatmap": f"{layout.heatmaps.name}/{row['file']}"} for row in rows.rows(heat_maps.name)]
    if masks is None:
        return drawn
    return [{**row, **of_mask} for row, of_mask in zip(drawn, rows.rows(masks.name), strict=True)]


def _write(
    job: _Job,
    layout: RunLayout,
    rows: RowStore,
    scores: npt.NDArray[np.float64],
    ranking: Sequence[RankedImage],
    failed: Sequence[FailedImage],
) -> None:
    write_ranking(layout, job.settings, len(job.index), ranking, failed)
    write_scores(layout, job.index.paths, scores)
    recorder = job.recorder
    if recorder is None:
        return
    write_predictions(
        layout.predictions,
        job.index,
        list(zip(category_ids_for(job.class_names, job.index), job.class_names, strict=True)),
        lambda: rows.rows(recorder.name),
        description=f"detections of {job.settings.model}, made by ymir-tmi {__version__}",
        max_dets=job.settings.max_dets,
    )

"""`ymir-tmi evaluate`: from a model, or predictions made earlier, and annotations to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from ymir_tmi import __version__
from ymir_tmi.config.schema import EvaluateSettings, RunSettings
from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.semantics import counts_anything
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.evaluation.classes import match_classes, split_selection
from ymir_tmi.evaluation.detected import Detected, detect_images, measure
from ymir_tmi.evaluation.label_maps import measure_label_maps, with_label_maps, write_examples
from ymir_tmi.evaluation.results import EvaluationResult, write_evaluation
from ymir_tmi.evaluation.saved import class_names_of, recall_images
from ymir_tmi.evaluation.semantic_results import Evaluation, SemanticResult
from ymir_tmi.files.layout import RunLayout, new_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.models.interface import Network
from ymir_tmi.models.runtime.interface import ClassGroups, Runtime
from ymir_tmi.models.runtime.open import describe_file, open_file, prepare
from ymir_tmi.models.runtime.torch_runtime import build_runtime
from ymir_tmi.models.segment import PIXEL_SETTINGS
from ymir_tmi.pool import ranks
from ymir_tmi.pool.predictions import category_ids_for, read_predictions, write_predictions
from ymir_tmi.pool.windows import tiling_for

# Settings that say how a model is run over images.
_OF_THE_PASS = (
    "image_size", "iou", "tile", "overlap", *PIXEL_SETTINGS, "device", "precision", "batch", "workers",
)  # fmt: skip


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure a model, or predictions made earlier, and write a run folder with the numbers and the predictions.

    Of a semantic model it keeps the label maps of the best and the worst images only.

    Under torchrun the processes share the images, and the first one writes.

    Raises:
        ConfigError: settings contradict each other; a class, the device, the precision or the image size cannot be
            used.
        DataError: annotations or predictions are wrong or do not belong together, or there is nothing to measure
            against.
        DependencyError: a library that the device or an exported file needs is missing.
        ModelError: the model file is missing, damaged or for other programs.
        RunError: the run folder exists already.
    """
    with ranks.shared_by_ranks():
        job = _prepare(settings)
        first = ranks.rank() == 0
        layout = ranks.from_first(new_run(settings.output, "evaluate") if first else None)
        manifest = _manifest(layout, job) if first else None
        with manifest or nullcontext():
            result = _measure_pixels(job, layout) if job.semantic else _measure_objects(job, layout)
            if manifest is not None:
                write_evaluation(layout.evaluation, result)
                manifest.finish("done", metrics=result.scalars())
        return result.model_copy(update={"run": layout.root})


def evaluate_model(model: Network, index: DatasetIndex, settings: RunSettings) -> Evaluation:
    """Measure a model on annotated images. Where several processes run, they share the images, and all get the result.

    Args:
        model: the network; it is not changed.
        index: the images and their objects; for a semantic model with label maps, see `data.semantics`.
        settings: thresholds, input size, device and speed; the other fields make no difference.

    Raises:
        ConfigError: the device or the precision cannot be used.
        DataError: the model and the data have no class in common.
    """
    runtime, names = build_runtime(model, settings), model.spec.class_names
    if model.spec.task == "semantics":
        return measure_label_maps(runtime, names, index, batch=settings.batch, workers=settings.workers)
    detected = detect_images(runtime, names, index, conf=settings.conf, batch=settings.batch, workers=settings.workers)
    return measure(index, detected)


@dataclass(frozen=True)
class _Job:
    """What an evaluation works on.

    Attributes:
        settings: with the number of detections that are kept.
        index: the images, and the objects of the chosen classes.
        class_names: what the classes of the detections are called.
        source: the model, or what was detected earlier.
        tiling: how large images are cut; None leaves them whole.
    """

    settings: EvaluateSettings
    index: DatasetIndex
    class_names: tuple[str, ...]
    source: Runtime | Detected
    tiling: Tiling | None = None

    @property
    def semantic(self) -> bool:
        """Whether a model gives every pixel a class."""
        return not isinstance(self.source, Detected) and self.source.spec.task == "semantics"


def _prepare(settings: EvaluateSettings) -> _Job:
    """Read everything that can be wrong before a run folder is made."""
    if (settings.model is None) == (settings.predictions is None):
        raise ConfigError("what is to be measured is not clear", fix="Give either --model or --predictions.")
    _refuse_idle_settings(settings)
    index = read_dataset(settings.data, split=settings.split, images=settings.images, format=settings.format)
    job = _with_predictions(settings, index) if settings.predictions is not None else _with_model(settings, index)
    if not (counts_anything(job.index) if job.semantic else np.any(job.index.flags == 0)):
        raise DataError(
            f"there are no {'pixels' if job.semantic else 'objects'} to measure against",
            where=settings.data[0],
            fix="Give images with annotations; crowd regions and difficult objects do not count.",
        )
    match_classes(job.class_names, job.index.class_names)
    return job


def _refuse_idle_settings(settings: EvaluateSettings) -> None:
    """Raise a ConfigError if settings are given that nothing would read."""
    if settings.predictions is None:
        Tiling.of(settings)
        return
    fields = EvaluateSettings.model_fields
    given = [f"'{name}'" for name in _OF_THE_PASS if getattr(settings, name) != fields[name].get_default()]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} cannot be applied to predictions, for which no model is run",
            fix="Give that to `infer`, which makes them, or leave it out.",
        )


def _with_model(settings: EvaluateSettings, index: DatasetIndex) -> _Job:
    assert settings.model is not None
    source = open_file(settings.model, settings)
    spec = source.spec
    tiling = tiling_for(settings, spec.task)
    if spec.task == "semantics":
        index = with_label_maps(index, spec.class_names)
    names, groups, index = _choose_classes(settings, spec.class_names, index)
    runtime = prepare(source, settings, groups if settings.classes else None)
    settings = settings.model_copy(update={"max_dets": runtime.spec.postprocess.max_detections})
    return _Job(settings, index, names, runtime, tiling)


def _with_predictions(settings: EvaluateSettings, index: DatasetIndex) -> _Job:
    assert settings.predictions is not None
    predictions = read_predictions(settings.predictions)
    names, groups, index = _choose_classes(settings, class_names_of(predictions, index), index)
    detected = recall_images(
        predictions,
        index,
        names,
        groups,
        settings,
        where=settings.predictions,
    )
    settings = settings.model_copy(update={"max_dets": detected.settings.max_dets})
    return _Job(settings, index, names, detected)


def _choose_classes(
    settings: EvaluateSettings, detected: Sequence[str], index: DatasetIndex
) -> tuple[tuple[str, ...], ClassGroups, DatasetIndex]:
    """Return the names of the chosen classes of the detections, the classes behind each, and the data with its own."""
    selection = ClassSelection.parse(settings.classes)
    of_detections, of_data = split_selection(selection, detected, index.class_names)
    names, groups = of_detections.groups(detected)
    return names, groups, of_data.apply(index)


def _manifest(layout: RunLayout, job: _Job) -> Manifest:
    settings, index = job.settings, job.index
    manifest = Manifest.start(layout.manifest, "evaluate", settings.model_dump(mode="json"))
    manifest.add(data={settings.split: index.describe()})
    if settings.model is not None:
        info = describe_file(settings.model)
        manifest.add(model={"name": info.spec.name, "weights": str(settings.model), "licence": info.licence})
    return manifest


def _measure_objects(job: _Job, layout: RunLayout) -> EvaluationResult:
    """Measure detections; the first process writes them down."""
    detected = _detect(job, layout)
    result = measure(job.index, detected)
    if ranks.rank() == 0:
        _write_predictions(layout, job.index, detected)
    return result


def _measure_pixels(job: _Job, layout: RunLayout) -> SemanticResult:
    """Measure label maps; the first process writes those that a person wants to see."""
    assert not isinstance(job.source, Detected)
    runtime, names, index, settings = job.source, job.class_names, job.index, job.settings
    with _progress(job, layout) as progress:
        result = measure_label_maps(
            runtime, names, index, batch=settings.batch, workers=settings.workers, progress=_of_first(progress)
        )
    write_examples(runtime, names, index, result, layout.label_maps)
    return result


def _detect(job: _Job, layout: RunLayout) -> Detected:
    """Return the predictions, or run the model and show how far it is."""
    if isinstance(job.source, Detected):
        return job.source
    settings = job.settings
    with _progress(job, layout) as progress:
        return detect_images(
            job.source,
            job.class_names,
            job.index,
            conf=settings.conf,
            batch=settings.batch,
            workers=settings.workers,
            tiling=job.tiling,
            progress=_of_first(progress),
        )


def _progress(job: _Job, layout: RunLayout) -> ProgressReporter:
    quiet = ranks.rank() > 0
    return ProgressReporter("evaluate", len(job.index), events=None if quiet else layout.progress, quiet=quiet)


def _of_first(progress: ProgressReporter) -> ProgressReporter | None:
    return progress if ranks.rank() == 0 else None


def _write_predictions(layout: RunLayout, index: DatasetIndex, detected: Detected) -> None:
    categories = list(zip(category_ids_for(detected.class_names, index), detected.class_names, strict=True))
    description = f"Detections that were evaluated by ymir-tmi {__version__}"
    write_predictions(
        layout.predictions,
        index,
        categories,
        lambda: detected.rows,
        description=description,
        max_dets=detected.settings.max_dets,
    )

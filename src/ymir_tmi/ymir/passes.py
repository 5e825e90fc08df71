"""Mining and inference for the platform; both together are one pass over the images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

from ymir_tmi.config.load import build
from ymir_tmi.config.schema import InferSettings, MineSettings, PassSettings
from ymir_tmi.errors import ImageError, ModelError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.inference.run import infer
from ymir_tmi.mining.run import mine
from ymir_tmi.models.checkpoint import read_model_info
from ymir_tmi.models.interface import ModelSpec
from ymir_tmi.pool.failures import FailedImage
from ymir_tmi.ymir.codes import Code
from ymir_tmi.ymir.contract import DETECTION, INSTANCES, SEMANTICS, STAGES_SINCE
from ymir_tmi.ymir.inputs import MODEL_KEY, choose_weights, describe_data, given_files, model_of_task, require_lists
from ymir_tmi.ymir.orders import PassOrder
from ymir_tmi.ymir.processes import LOST, others_on
from ymir_tmi.ymir.results import require_common_class, write_boxes, write_masks, write_ranking
from ymir_tmi.ymir.surroundings import is_first
from ymir_tmi.ymir.task import Task, say

_KINDS = {
    DETECTION: ("detection", "rotated", "instances"),  # masks have boxes, too
    SEMANTICS: ("semantics",),
    INSTANCES: ("instances",),
}

Kind = TypeVar("Kind", bound=PassSettings)

# What the network sees and what is left of its answers: the same for all that is done in one pass.
_OF_PASS = (
    "image_size", "iou", "max_dets", "precision", "classes",
    "tile", "overlap", "window", "window_stride", "flip_test", "scales",
)  # fmt: skip


def pass_task(task: Task) -> None:
    """Mine, infer, or do both in one pass over the images.

    Raises:
        TmiError: something that the operator can put right.
    """
    what = (task.config, task.object_type, task.machine)
    mining = task.profile.mining(*what) if task.env.mining else None
    inference = task.profile.infer(*what) if task.env.infer else None
    notes = (note for order in (mining, inference) if order is not None for note in order.notes)
    for note in dict.fromkeys(notes):  # what holds for both is said once
        say(note)
    data = describe_data(task.env, ("pool",), task.class_names, task.folder / "data.yaml")
    needed = inference is not None or (mining is not None and mining.values.get("algorithm") != "random")
    model = _model(task, needed=needed)
    if model is not None:
        _require_fitting(task, read_model_info(model).spec, named=inference is not None)
    mine_settings = None if mining is None else _settings(task, MineSettings, mining, model, data)
    infer_settings = None if inference is None else _settings(task, InferSettings, inference, model, data)
    with others_on(task.machine, lambda: _give_up(task)):
        if mine_settings is not None and infer_settings is not None:
            _both(task, mine_settings, infer_settings)
        elif mine_settings is not None:
            with task.watched(0.0, 0.99):
                _mine(task, mine_settings)
        elif infer_settings is not None:
            with task.watched(0.0, 0.99):
                _infer(task, infer_settings)


def _give_up(task: Task) -> None:
    """Tell that the process of another GPU has failed, in its words if it has told why."""
    code, message = task.monitor.fail(Code.OTHER, LOST)
    print(f"error {code}: {message}", file=sys.stderr, flush=True)


def _both(task: Task, mining: MineSettings, inference: InferSettings) -> None:
    """Mine and infer: in one pass, unless the two want the network to see or to say something else."""
    differ = [name for name in _OF_PASS if getattr(mining, name) != getattr(inference, name)]
    if not differ:
        with task.watched(0.0, 0.99):
            _mine(task, mining, inference)
        return
    say(f"mining and inference differ in {', '.join(differ)}, so each makes a pass of its own over the images")
    with task.watched(0.0, 0.5):
        _mine(task, mining)
    with task.watched(0.5, 0.99):
        _infer(task, inference.model_copy(update={"output": task.run.with_name(f"{task.run.name}-infer")}))


def _settings(task: Task, kind: type[Kind], order: PassOrder, model: Path | None, data: Path) -> Kind:
    """Return the settings of a verb, as the parameters of the image say."""
    values: dict[str, Any] = {**order.values, "data": [str(data)], "split": "pool"}
    values |= {"output": task.run, "device": task.device, "model": model}
    if kind is MineSettings:
        values.setdefault("gallery", 0)  # there is no page to show pictures on
    return build(kind, values, where=task.env.inputs.config)


def _model(task: Task, *, needed: bool) -> Path | None:
    """Return the model file; None if no model is given."""
    models = task.env.inputs.models
    files = given_files(task.config, MODEL_KEY, models)
    if files is None:
        if needed:
            raise ModelError("there is no model", where=MODEL_KEY, fix="Choose a model for this task.")
        return None
    return choose_weights(
        files,
        task.folder,
        key=MODEL_KEY,
        model=model_of_task(models, lambda config: _trained(task, config)),
        class_names=task.class_names,
        partial=False,
        say=say,
    )


def _require_fitting(task: Task, spec: ModelSpec, *, named: bool) -> None:
    """Refuse a model that finds something else than the task is about, before all images are looked at.

    Args:
        task: the task.
        spec: of the model.
        named: whether what is found is called by the names of the task.

    Raises:
        ModelError: the model finds another kind of things, or none of the classes.
    """
    if spec.task not in _KINDS[task.object_type]:
        kinds = " or ".join(_KINDS[task.object_type])
        raise ModelError(
            f"this is a model for {spec.task}, {spec.name}, and object type {task.object_type} needs one for {kinds}",
            where=MODEL_KEY,
        )
    if named and task.class_names:
        require_common_class(spec.class_names, task.class_names)


def _trained(task: Task, config: Any) -> str | None:
    """Return the model that a training with this config.yaml trains."""
    model = task.profile.training(config, task.object_type, task.machine).values.get("model")
    return None if model is None else str(model)


def _mine(task: Task, settings: MineSettings, inference: InferSettings | None = None) -> None:
    """Mine; with settings of inference, infer in the same pass."""
    result = mine(settings, found_above=None if inference is None else inference.conf)
    if not is_first():
        return
    _check_failures(result.failed, result.images)
    layout = RunLayout(result.run)
    (candidates,) = require_lists(task.env, ("pool",))
    write_ranking(task.env.outputs.mining_result_file, candidates, layout)
    if inference is not None:
        _write_found(task, layout)


def _infer(task: Task, settings: InferSettings) -> None:
    result = infer(settings)
    if is_first():
        _check_failures(result.failed, result.images)
        _write_found(task, RunLayout(result.run))


def _write_found(task: Task, layout: RunLayout) -> None:
    path = task.env.outputs.infer_result_file
    if task.object_type == DETECTION:
        key = "boxes" if task.env.protocol >= STAGES_SINCE else "annotations"
        write_boxes(path, layout.predictions, task.class_names, key=key)
    else:
        write_masks(path, layout.predictions, task.class_names)


def _check_failures(failed: list[FailedImage], images: int) -> None:
    """Name the images that cannot be read.

    Raises:
        ImageError: none can.
    """
    for image in failed:
        say(f"cannot read {image.path}: {image.error}")
    if failed and len(failed) == images:
        raise ImageError(f"not one of {images} images can be read: {failed[0].error}", where=failed[0].path)

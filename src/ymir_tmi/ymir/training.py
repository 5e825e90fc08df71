"""A training for the platform."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ymir_tmi.config.load import build
from ymir_tmi.config.schema import ExportSettings, TrainSettings
from ymir_tmi.errors import ConfigError, TmiError
from ymir_tmi.exporting.run import export
from ymir_tmi.models.checkpoint import read_model_info
from ymir_tmi.report.run import report
from ymir_tmi.training.run import train
from ymir_tmi.ymir.contract import STAGES_SINCE
from ymir_tmi.ymir.inputs import WEIGHTS_KEY, choose_weights, describe_data, given_files, official_file
from ymir_tmi.ymir.orders import TrainingOrder
from ymir_tmi.ymir.stages import MODEL_FILE, StageKeeper
from ymir_tmi.ymir.surroundings import is_first
from ymir_tmi.ymir.task import Task, say

_TRAINED = 0.95  # part of the task that is done when the network has learnt; the rest is reports and exports


def train_task(task: Task) -> None:
    """Train, and leave stages, `result.yaml`, events for TensorBoard, a report and an ONNX file.

    Raises:
        TmiError: something that the operator can put right.
    """
    if not task.class_names:
        raise ConfigError("there are no classes to train", where="class_names")
    order = task.profile.training(task.config, task.object_type, task.machine)
    for note in order.notes:
        say(note)
    settings = _settings(task, order)
    keeper = StageKeeper(
        task.env.outputs,
        order.stages,
        task.object_type,
        _recorded(settings),
        single=task.env.protocol < STAGES_SINCE,
        say=say,
    )
    with task.watched(0.0, _TRAINED):
        result = train(settings, [keeper], unmeasured=True)  # the platform's images have always done so
    if is_first():
        _attach(task, order, keeper, result.run)


def _settings(task: Task, order: TrainingOrder) -> TrainSettings:
    env = task.env
    values: dict[str, Any] = dict(order.values)
    values |= {
        "data": describe_data(env, ("train", "val"), task.class_names, task.folder / "data.yaml"),
        "output": task.run,
        "device": task.device,
    }
    settings = build(TrainSettings, values, where=env.inputs.config)
    return settings.model_copy(update={"weights": _weights(task, settings.model)})


def _weights(task: Task, model: str) -> Path | None:
    """Return the weights to begin with: those that are given, else official ones, else none."""
    files = given_files(task.config, WEIGHTS_KEY, task.env.inputs.models)
    if files is None:
        return official_file(model, task.folder, say)
    path = choose_weights(
        files,
        task.folder,
        key=WEIGHTS_KEY,
        model=model,
        class_names=task.class_names,
        partial=True,
        say=say,
    )
    own = read_model_info(path).spec.name
    if own != model:
        say(f"these are weights of {own}, and {model} is trained: it takes over what fits")
    return path


def _recorded(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings to keep with each stage, without places that mean nothing elsewhere."""
    places = {"data", "output", "weights", "images", "train", "val", "resume"}
    return settings.model_dump(mode="json", exclude=places, exclude_defaults=True) | {"model": settings.model}


def _attach(task: Task, order: TrainingOrder, keeper: StageKeeper, run: Path) -> None:
    """Attach what people and other programs may want."""
    if keeper.single:
        return
    with _not_needed("report"):
        keeper.attach("report", "report.html", lambda path: report(run, output=path))
    task.monitor.advance((1 + _TRAINED) / 2)
    if order.opset is not None:
        model, opset = keeper.folder(keeper.best) / MODEL_FILE, order.opset
        with _not_needed("ONNX file"):
            keeper.attach("onnx", "model.onnx", lambda path: _export(model, path, opset))


@contextmanager
def _not_needed(what: str) -> Iterator[None]:
    """Tell what has gone wrong in a block, whatever it is: the training that is done is not lost for that."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, TmiError):
            traceback.print_exception(error)
        say(f"there is no {what}: {error}")


def _export(model: Path, path: Path, opset: int) -> None:
    say(export(ExportSettings(model=model, to="onnx", output=path, opset=opset)).to_text())

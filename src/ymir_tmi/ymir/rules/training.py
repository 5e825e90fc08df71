"""What the platform asks of result.yaml, and of the files that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ymir_tmi.ymir.contract import GOALS, MOST_STAGES
from ymir_tmi.ymir.rules.findings import Expected, Findings, is_count, is_number, read_mapping

_METRICS = ("mAP", "mAR", "mIoU", "mAcc", "maskAP", "boxAP")
_COUNTS = ("tp", "fp", "fn")


def check_training(result: Path, models: Path, expected: Expected, found: Findings) -> None:
    """Check the result of a training.

    Args:
        result: result.yaml.
        models: the folder that its files lie in.
        expected: what /in says.
        found: where problems are noted.
    """
    content = read_mapping(result, yaml.safe_load, "plain YAML", found)  # which has no numbers of numpy
    if content is None:
        return
    if "model" in content:
        _check_old_form(result, models, content, found)
        return
    stages = content.get("model_stages")
    if not isinstance(stages, Mapping) or not stages:
        found.add(result, "model_stages", "there is neither 'model' nor a stage in 'model_stages'")
        return
    if len(stages) > MOST_STAGES:
        found.add(result, "model_stages", f"there are {len(stages)} stages; at most {MOST_STAGES} are kept")
    for name, stage in stages.items():
        _Stage(result, models, str(name), found).check(stage, expected)
    if content.get("best_stage_name") not in stages:
        found.add(result, "best_stage_name", f"{content.get('best_stage_name')!r} is none of the stages")
    _check_flat_names(result, models, stages, found)
    _check_evaluation(result, content.get("evaluate_config"), found)
    _check_attachments(result, models, content.get("attachments"), found)
    found.checked.append(f"{result}: {len(stages)} stages, best {content.get('best_stage_name')}")


def check_tensorboard(folder: Path, found: Findings) -> None:
    """Check that a training left event files."""
    events = [file for file in folder.rglob("*tfevents*") if file.is_file()] if folder.is_dir() else []
    if not events:
        found.add(folder, "", "there is no event file of TensorBoard")
    else:
        found.checked.append(f"{folder}: {len(events)} event files")


def _check_old_form(result: Path, models: Path, content: Mapping[str, Any], found: Findings) -> None:
    if "model_stages" in content:
        found.add(result, "model_stages", "it is ignored, since there is 'model'")
    files = content["model"]
    if not isinstance(files, list) or not files:
        found.add(result, "model", "it is not a list of files")
    else:
        for name in files:
            _check_file(result, "model", str(name), [models / str(name)], found)
    value = content.get("map")
    if not is_number(value) or not 0 <= float(value or 0) <= 1:
        found.add(result, "map", f"{value!r} is not a number from 0 to 1")
    found.checked.append(f"{result}: one model in the form of protocol 0.0.1")


class _Stage:
    """Checks of one stage."""

    def __init__(self, result: Path, models: Path, name: str, found: Findings) -> None:
        self._result, self._models, self._name, self._found = result, models, name, found

    def check(self, stage: Any, expected: Expected) -> None:
        """Note what is wrong with a stage."""
        if not self._name.isidentifier():
            self._add("", "the name is no identifier")
        if not isinstance(stage, Mapping):
            self._add("", "it is not a list of keys and values")
            return
        if stage.get("stage_name") != self._name:
            self._add("stage_name", f"{stage.get('stage_name')!r} is not the stage's own name")
        if not is_count(stage.get("timestamp")):
            self._add("timestamp", f"{stage.get('timestamp')!r} is not a whole number of seconds")
        self._check_files(stage.get("files"))
        self._check_metrics(stage, expected)

    def _check_files(self, files: Any) -> None:
        if not isinstance(files, list) or not files:
            self._add("files", "it is not a list of files")
            return
        for name in map(str, files):
            places = [self._models / self._name / name, self._models / name]
            _check_file(self._result, self._key("files"), name, places, self._found)

    def _check_metrics(self, stage: Mapping[str, Any], expected: Expected) -> None:
        for key in _METRICS:
            if key in stage and not (is_number(stage[key]) and 0 <= stage[key] <= 1):
                self._add(key, f"{stage[key]!r} is not a number from 0 to 1")
        for key in _COUNTS:
            if key in stage and not is_count(stage[key]):
                self._add(key, f"{stage[key]!r} is not a whole number from 0 on")
        if expected.object_type in GOALS and GOALS[expected.object_type] not in stage:
            self._add(GOALS[expected.object_type], "the metric of this object type is missing")

    def _key(self, key: str) -> str:
        return f"model_stages.{self._name}" + (f".{key}" if key else "")

    def _add(self, key: str, what: str) -> None:
        self._found.add(self._result, self._key(key), what)


def _check_file(result: Path, key: str, name: str, places: list[Path], found: Findings) -> None:
    there = [place for place in places if place.is_file()]
    if not there:
        found.add(result, key, f"the file '{name}' is not there")
    elif there[0].is_symlink():
        found.add(result, key, f"the file '{name}' is a link")


def _check_flat_names(result: Path, models: Path, stages: Mapping[Any, Any], found: Findings) -> None:
    """Note files of several stages that lie in one place, where the later one has overwritten the earlier one."""
    users: dict[str, list[str]] = defaultdict(list)
    for name, stage in stages.items():
        files = stage.get("files") if isinstance(stage, Mapping) else None
        for file in map(str, files if isinstance(files, list) else []):
            if not (models / str(name) / file).is_file():
                users[file].append(str(name))
    for file, names in users.items():
        if len(names) > 1 and (models / file).is_file():
            found.add(result, "model_stages", f"the stages {', '.join(names)} share one file '{file}'")


def _check_evaluation(result: Path, values: Any, found: Findings) -> None:
    if values is None:
        return
    if not isinstance(values, Mapping):
        found.add(result, "evaluate_config", "it is not a list of keys and values")
        return
    for key, value in values.items():
        if not is_number(value):
            found.add(result, f"evaluate_config.{key}", f"{value!r} is not a number")


def _check_attachments(result: Path, models: Path, sections: Any, found: Findings) -> None:
    if sections is None:
        return
    if not isinstance(sections, Mapping) or not all(isinstance(files, list) for files in sections.values()):
        found.add(result, "attachments", "it is not a list of files for each section")
        return
    for section, files in sections.items():
        for name in map(str, files):
            place = models / "attachments" / str(section) / name
            _check_file(result, f"attachments.{section}", name, [place], found)

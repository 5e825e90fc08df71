"""Model stages: what a training leaves for the platform, complete after each evaluation.

`result.yaml` names the stages; each is a folder with the model file and the settings of the training. The platform
packs what the file names even when the task fails later, so a stage is there before the file names it, and goes only
after the file has forgotten it. Before protocol 1.0.0 there is one model, its files beside `result.yaml`
(docs/specs/ymir.md, section 5).
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ymir_tmi.evaluation.results import CocoNumbers
from ymir_tmi.evaluation.semantic_results import Evaluation, SemanticResult
from ymir_tmi.files.atomic import atomic_folder, atomic_path, write_text
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.training.observer import Observer, ValidatedEpoch
from ymir_tmi.ymir.contract import GOALS, INSTANCES, MOST_STAGES, SEMANTICS, Outputs
from ymir_tmi.ymir.orders import StagePolicy

MODEL_FILE = "model.safetensors"
SETTINGS_FILE = "training.yaml"

Metrics = Mapping[str, float | int]


@dataclass(frozen=True)
class Stage:
    """A model as it was after an evaluated epoch.

    Attributes:
        epoch: from 1.
        timestamp: when it was written, in seconds.
        metrics: what the platform shows; those of objects count at IoU 0.5.
        goal: the one that stages are compared by.
        files: in its folder.
    """

    epoch: int
    timestamp: int
    metrics: Metrics
    goal: float
    files: Sequence[str]

    @property
    def name(self) -> str:
        """What it is called: an identifier."""
        return f"epoch_{self.epoch}"


@dataclass
class StageKeeper(Observer):
    """Writes a stage after each evaluation, and drops those that are not to stay.

    Attributes:
        outputs: where the platform looks.
        policy: which stages stay.
        object_type: 2 boxes, 3 classes of pixels, 4 masks.
        settings: of the training, to go with each stage.
        single: whether the platform knows only one model.
        say: is told what the operator must know.
    """

    outputs: Outputs
    policy: StagePolicy
    object_type: int
    settings: Mapping[str, Any]
    single: bool = False
    say: Callable[[str], None] = print
    stages: list[Stage] = field(default_factory=list)
    _attachments: dict[str, list[str]] = field(default_factory=dict)
    _conf: float = 0.0

    def started(self, layout: RunLayout) -> None:
        """Let TensorBoard's files go where the platform looks for them; forget what an earlier training left."""
        folder = self.outputs.tensorboard_dir
        folder.resolve().mkdir(parents=True, exist_ok=True)
        layout.tensorboard.symlink_to(folder.resolve(), target_is_directory=True)
        self.outputs.models_dir.mkdir(parents=True, exist_ok=True)
        self.outputs.training_result_file.unlink(missing_ok=True)

    def validated(self, epoch: ValidatedEpoch) -> None:
        """Write a stage, then `result.yaml`, then remove the stages that it no longer names."""
        metrics = stage_metrics(epoch.evaluation, self.object_type)
        goal = float(metrics[GOALS[self.object_type]])
        stage = Stage(epoch.number, int(time.time()), metrics, goal, self._choose_files())
        if not isinstance(epoch.evaluation, SemanticResult):
            self._conf = epoch.evaluation.settings.conf or 0.0
        before, everyone = self.stages, [*self.stages, stage]
        self.stages = stages_to_keep(everyone, self.policy)
        if not self.single:
            _remove(self.folder(stage))
            with atomic_folder(self.folder(stage)) as folder:
                self._fill(folder, stage, epoch.layout)
        elif self.best is stage:
            self._fill(self.outputs.models_dir, stage, epoch.layout)
        self._write()
        for old in before if not self.single else ():
            if old not in self.stages:
                shutil.rmtree(self.folder(old))

    @property
    def best(self) -> Stage:
        """The stage with the highest goal, of equals the latest."""
        return max(self.stages, key=_worth)

    def folder(self, stage: Stage) -> Path:
        """Return where the files of a stage are."""
        return self.outputs.models_dir if self.single else self.outputs.models_dir / stage.name

    def attach(self, section: str, name: str, write: Callable[[Path], object]) -> None:
        """Add a file to the result; `write` makes it at the path that it is given."""
        path = self.outputs.models_dir / "attachments" / section / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write(path)
        self._attachments.setdefault(section, []).append(name)
        self._write()

    def _choose_files(self) -> Sequence[str]:
        """Return the files of a stage that the operator wants to keep; the model file is always among them."""
        patterns = [pattern for text in self.policy.file_patterns.split(",") if (pattern := _compile(text.strip()))]
        if not patterns:
            return (MODEL_FILE, SETTINGS_FILE)
        chosen = [name for name in (MODEL_FILE, SETTINGS_FILE) if any(pattern.search(name) for pattern in patterns)]
        if MODEL_FILE not in chosen:
            chosen.insert(0, MODEL_FILE)
            if not self.stages:
                self.say(
                    f"ymir_saved_file_patterns '{self.policy.file_patterns}' does not match {MODEL_FILE}, which is "
                    "kept all the same: without it a stage is of no use"
                )
        return chosen

    def _fill(self, folder: Path, stage: Stage, layout: RunLayout) -> None:
        with atomic_path(folder / MODEL_FILE) as temporary:
            temporary.unlink()
            _link_or_copy(layout.last_weights, temporary)
        if SETTINGS_FILE in stage.files:
            content = {"epoch": stage.epoch, "metrics": dict(stage.metrics), "settings": dict(self.settings)}
            write_text(folder / SETTINGS_FILE, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))

    def _write(self) -> None:
        content = self._single_result() if self.single else self._result()
        write_text(self.outputs.training_result_file, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))

    def _single_result(self) -> dict[str, Any]:
        return {"model": list(self.best.files), "map": self.best.goal}

    def _result(self) -> dict[str, Any]:
        stages = {
            stage.name: {
                "stage_name": stage.name,
                "files": list(stage.files),
                "timestamp": stage.timestamp,
                **stage.metrics,
            }
            for stage in self.stages
        }
        content = {
            "model_stages": stages,
            "best_stage_name": self.best.name,
            GOALS[self.object_type]: self.best.goal,
        }
        if self.object_type != SEMANTICS:
            content["evaluate_config"] = {"iou_thr": 0.5, "conf_thr": float(self._conf)}
        return content | ({"attachments": self._attachments} if self._attachments else {})


def stages_to_keep(stages: Sequence[Stage], policy: StagePolicy) -> list[Stage]:
    """Return the stages that stay, in their order: the latest one, the best ones, and those that the policy names."""
    ranked = sorted(stages, key=_worth, reverse=True)
    best = ranked if policy.best is None else ranked[: max(1, policy.best)]
    candidates = [stage for stage in stages if policy.every is None or stage.epoch % policy.every == 0]
    if policy.best_only:
        candidates = []
    elif policy.keep is not None:
        candidates = candidates[max(0, len(candidates) - policy.keep) :]
    epochs = {stage.epoch for stage in (stages[-1], *best, *candidates)}
    kept = [stage for stage in stages if stage.epoch in epochs]
    while len(kept) > MOST_STAGES:
        kept.remove(next(stage for stage in kept if stage.epoch != ranked[0].epoch))
    return kept


def stage_metrics(evaluation: Evaluation, object_type: int) -> dict[str, float | int]:
    """Return the numbers that the platform shows, in [0, 1] and counts; what the data cannot tell is 0.

    The platform's mAP, maskAP and boxAP are those at IoU 0.5; the mean over IoU 0.50 to 0.95 stands beside them as AP.
    """
    if isinstance(evaluation, SemanticResult):
        return {name: _part(getattr(evaluation, name)) for name in ("mIoU", "mAcc", "aAcc")}
    means, overall = evaluation.means, evaluation.overall
    numbers = {"AP": _part(means.AP), "AP50": _part(means.AP50)}
    if object_type == INSTANCES:
        boxes = evaluation.coco
        numbers = {"maskAP": _part(means.AP50), "boxAP": _part(boxes.AP50 if boxes else None), **numbers}
    else:
        numbers = {"mAP": _part(means.AP50), **numbers}
        if isinstance(means, CocoNumbers):
            numbers["mAR"] = _part(means.AR_max)
    counts = {"tp": overall.true_positives, "fp": overall.false_positives, "fn": overall.missed}
    return {**numbers, **{name: int(count) for name, count in counts.items()}}


def _worth(stage: Stage) -> tuple[float, int]:
    return stage.goal, stage.epoch


def _part(value: float | None) -> float:
    return min(1.0, max(0.0, float(value))) if value is not None and math.isfinite(value) else 0.0


def _remove(folder: Path) -> None:
    """Remove what an earlier training left under this name, if there is such."""
    if folder.exists():
        shutil.rmtree(folder)


def _compile(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern that is one; the platform's own library leaves others out, too."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None


def _link_or_copy(source: Path, target: Path) -> None:
    """Let `target` be the file that `source` is now; a training replaces its files and never writes into them."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)

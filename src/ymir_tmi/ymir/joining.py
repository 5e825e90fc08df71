"""Settings from several sources: the model's name, parameters, and options in text, of which a later one wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ymir_tmi.models.catalog import default_spec
from ymir_tmi.ymir.command_lines import CommandLine, read_args_options
from ymir_tmi.ymir.effects import RunFacts
from ymir_tmi.ymir.model_names import ModelChoice
from ymir_tmi.ymir.orders import Machine, PassOrder, StagePolicy, TrainingOrder
from ymir_tmi.ymir.overrides import OverrideTable, apply_overrides, read_cfg_options
from ymir_tmi.ymir.parameters import Job, refuse


@dataclass
class Joined:
    """Settings that are being put together.

    Attributes:
        values: by field of the settings; fields of the recipe are `set.NAME`, and their values text.
        notes: what the log should say.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], source: str | None = None) -> None:
        """Add settings that win over those before; where `source` is the key of options, say so."""
        for name, value in _flat(values).items():
            before = self.values.pop(name, value)
            if source and before != value:
                self.notes.append(f"{source} sets {name.removeprefix('set.')} to {value}, in place of {before}")
            self.values[name] = value

    def result(self) -> dict[str, Any]:
        """Return fields of the settings as `config.schema` has them."""
        plain = {name: value for name, value in self.values.items() if not name.startswith("set.")}
        assigned = [f"{name[4:]}={value}" for name, value in self.values.items() if name.startswith("set.")]
        return {**plain, "set": assigned} if assigned else plain

    def facts(self, machine: Machine) -> RunFacts:
        """Return what is known of the run so far."""
        iterations = self.values.get("set.iterations")
        return RunFacts(
            machine,
            model=self.values.get("model"),
            epochs=self.values.get("epochs"),
            iterations=int(iterations) if iterations else None,
            image_size=self.values.get("image_size"),
        )

    def add_overrides(self, text: str, table: OverrideTable, machine: Machine) -> None:
        """Add the settings that `cfg_options` come to."""
        self.add(apply_overrides(read_cfg_options(text), table, self.facts(machine)), "cfg_options")

    def fit(self, machine: Machine) -> None:
        """Round the image size up to a multiple of the model's stride, and the batch to one of the devices.

        No more processes read pictures than the machine has cores.
        """
        if "image_size" in self.values:
            model = self.values.get("model")
            stride = default_spec(model, class_names=("object",)).input.stride if model else 32
            self._round_up("image_size", stride, "the model's stride")
        if self.values.get("batch", "auto") != "auto":
            self._round_up("batch", machine.devices, "the GPUs that share it")
        workers = self.values.get("workers", 0)
        if machine.cores is not None and workers != "auto" and workers > machine.cores:
            self.notes.append(f"workers is {machine.cores}, not {workers}: there are no more processor cores")
            self.values["workers"] = machine.cores

    def _round_up(self, name: str, step: int, why: str) -> None:
        value = self.values[name]
        fitting = math.ceil(value / step) * step
        if fitting != value:
            self.notes.append(f"{name} is {fitting}, not {value}: a multiple of {step}, {why}")
            self.values[name] = fitting


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in values.items() if name != "set"}
    for assignment in values.get("set", []):
        name, _, text = assignment.partition("=")
        flat[f"set.{name.strip()}"] = text.strip()
    return flat


def order_training(
    job: Job,
    choice: ModelChoice,
    parameters: Mapping[str, Any],
    *,
    cfg_options: tuple[str, OverrideTable] | None = None,
    args_options: tuple[str, CommandLine],
    stages: StagePolicy,
    opset: int | None = None,
) -> TrainingOrder:
    """Return a training.

    Args:
        job: the machine and the classes.
        choice: what the model's name says; parameters win over it.
        parameters: settings that they come to.
        cfg_options: text, and the table that says what is in it; it wins over parameters, which are always there.
        args_options: the same; it wins over both.
        stages: which epochs stay.
        opset: of an ONNX file.
    """
    joined = Joined(notes=[choice.note] if choice.note else [])
    joined.add({"model": choice.model, **({"image_size": choice.image_size} if choice.image_size else {})})
    joined.add(choice.values)
    joined.add(parameters)
    if cfg_options is not None:
        joined.add_overrides(*cfg_options, job.machine)
    joined.add(read_args_options(*args_options, joined.facts(job.machine)), "args_options")
    joined.fit(job.machine)
    return TrainingOrder(joined.result(), stages, opset, tuple(joined.notes))


def order_pass(
    job: Job,
    parameters: Mapping[str, Any],
    *,
    cfg_options: tuple[str, OverrideTable] | None = None,
    notes: Iterable[str] = (),
) -> PassOrder:
    """Return mining or inference; see `order_training`."""
    joined = Joined(notes=list(notes))
    joined.add(parameters)
    if cfg_options is not None:
        joined.add_overrides(*cfg_options, job.machine)
    joined.fit(job.machine)
    return PassOrder(joined.result(), tuple(joined.notes))


def learning_rate(rate: float) -> dict[str, Any]:
    """Return the settings for a learning rate that does not follow the batch; 0 or less keeps the recipe's."""
    return {"set": [f"optimizer.lr={rate}", "optimizer.lr_scaling=none"]} if rate > 0 else {}


def class_weights(
    scores: Sequence[float], class_names: Sequence[str], algorithm: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings for `class_distribution_scores`, and notes.

    Raises:
        ConfigError: there is not one number for each class.
    """
    key = "class_distribution_scores"
    if not scores:
        return {}, []
    if algorithm != "aldd":
        return {}, [f"{key} is not used: only aldd weighs classes, and the algorithm is {algorithm}"]
    if len(scores) != len(class_names):
        text = ",".join(map(str, scores))
        raise refuse(key, text, f"one number for each of the {len(class_names)} classes, not {len(scores)}")
    weights = [f"{name}={score}" for name, score in zip(class_names, scores, strict=True)]
    return {"class_weights": weights}, []


def best_and_latest(count: int, file_patterns: str) -> StagePolicy:
    """Return the policy that keeps the `count` best and the `count` latest epochs; -1 are all."""
    kept = None if count < 0 else count
    return StagePolicy(keep=kept, best=kept, file_patterns=file_patterns)


def periodic(best_only: bool, period: int, file_patterns: str) -> StagePolicy:
    """Return YOLOv5's policy: the best, the latest and one epoch out of `period`; below 1 there are no others."""
    if best_only or period < 1:
        return StagePolicy(best_only=True, file_patterns=file_patterns)
    return StagePolicy(every=period, file_patterns=file_patterns)

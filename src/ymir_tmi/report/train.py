"""The page of a training run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ymir_tmi.evaluation.results import CocoNumbers, DotaNumbers, EvaluationResult
from ymir_tmi.evaluation.semantic_results import Evaluation, SemanticResult
from ymir_tmi.imaging import IMAGE_SUFFIXES
from ymir_tmi.models.catalog import list_models
from ymir_tmi.report.charts import SERIES, Chart, Line, line_chart
from ymir_tmi.report.evaluate import average_facts, evaluation_parts, load_evaluation
from ymir_tmi.report.page import Fact, run_time, significant
from ymir_tmi.report.pictures import Picture
from ymir_tmi.report.source import RunFiles

History = Mapping[str, Sequence[float]]

_SAMPLES = 12
_AVERAGES = {*CocoNumbers.model_fields, *DotaNumbers.model_fields, "AP_box", "AP50_box", "AP75_box"}
_MEASURES = {"precision", "recall", "f1", *_AVERAGES, "mIoU", "mAcc", "aAcc"}
_NO_LOSS = {"epoch", "lr", "images_per_second", *_MEASURES}


def train_page(run: RunFiles) -> dict[str, Any]:
    """Return what `train.html` shows."""
    result = load_evaluation(run)
    history = run.history()
    return {
        "facts": _facts(run, history, result),
        "charts": _charts(history),
        **evaluation_parts(run, result),
        "samples": _samples(run),
    }


def _facts(run: RunFiles, history: History, result: Evaluation | None) -> list[Fact]:
    model = run.manifest.get("model", {})
    facts = [
        *average_facts(result),
        Fact("Epochs", str(len(history.get("epoch", ()))), _best_epoch(history)),
    ]
    time = run_time(run.manifest)
    if time:
        facts.append(Fact("Time", time, "with validation"))
    speed = [value for value in history.get("images_per_second", ()) if math.isfinite(value)]
    if speed:
        facts.append(Fact("Images per second", significant(statistics.median(speed)), "median over the epochs"))
    if model:
        facts.append(Fact("Model", model["name"], _size(model["name"])))
    return facts


def _size(name: str) -> str:
    parameters = {info.name: info.parameters for info in list_models()}.get(name)
    return f"{parameters / 1e6:.1f} million parameters" if parameters else ""


def _best_epoch(history: History) -> str:
    goal = SemanticResult.goal if SemanticResult.goal in history else EvaluationResult.goal
    rows = zip(history.get(goal, ()), history.get("epoch", ()), strict=True)
    scored = [(value, epoch) for value, epoch in rows if math.isfinite(value)]
    if not scored:
        return ""
    value, epoch = max(scored)
    return f"best {goal} {value:.3f} in epoch {epoch:.0f}"


def _charts(history: History) -> list[Chart]:
    losses = [name for name in history if name not in _NO_LOSS][:SERIES]
    wanted: list[tuple[str, list[str], str]] = [
        ("Loss in training", losses, "loss"),
        ("AP in validation", [name for name in ("AP", "AP50", "AP75", "AP_box") if name in history], "AP"),
        ("IoU and accuracy in validation", [name for name in ("mIoU", "mAcc", "aAcc") if name in history], "part"),
        ("Learning rate", [name for name in ("lr",) if name in history], "learning rate"),
    ]
    charts = []
    for title, names, label in wanted:
        lines = [_line(name, history) for name in names]
        if any(len(line.x) for line in lines):
            charts.append(line_chart(title, lines, x_label="epoch", y_label=label, y_from_zero=True, whole_x=True))
    return charts


def _line(name: str, history: History) -> Line:
    """Return a column over epochs, without the epochs that have no value (those between two validations)."""
    rows = zip(history["epoch"], history[name], strict=True)
    known = [(epoch, value) for epoch, value in rows if math.isfinite(value)]
    return Line(name, [epoch for epoch, _ in known], [value for _, value in known])


def _samples(run: RunFiles) -> list[Picture]:
    folder = run.layout.samples
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        run.missing.append(f"No pictures of what the network was shown: the run has no {folder.name}/.")
    pictures = [run.picture(file, f"What the network was shown: {file.stem}") for file in files[:_SAMPLES]]
    return [picture for picture in pictures if picture is not None]

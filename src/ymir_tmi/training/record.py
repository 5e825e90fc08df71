"""The run folder of a training and its manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ymir_tmi.errors import RunError
from ymir_tmi.files.layout import RunLayout, new_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.models.checkpoint import TransferReport
from ymir_tmi.models.interface import Network
from ymir_tmi.training.datasets import TrainingData
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.plan import TrainingPlan
from ymir_tmi.training.start import describe_model


def open_record(
    plan: TrainingPlan, processes: Processes, network: Network, taken: TransferReport | None, data: TrainingData
) -> tuple[RunLayout, Manifest | None]:
    """Make the folder of a new run, or open that of a run that goes on.

    Args:
        plan: the run.
        processes: only the first one writes; for the others there is no manifest.
        network: what is trained.
        taken: what it took over from starting weights.
        data: what it is trained on.

    Raises:
        RunError: the folder of a new run exists already; or the data are not what they were when the run began.
    """
    if processes.rank:
        return RunLayout(plan.folder or plan.settings.output or Path()), None
    if plan.folder is not None:
        layout = RunLayout(plan.folder)
        manifest = Manifest.read(layout.manifest)
        _require_same_data(manifest.content["data"], data.describe(), layout)
        return layout, manifest.restart()
    layout = new_run(plan.settings.output, "train")
    manifest = Manifest.start(layout.manifest, "train", plan.settings.model_dump(mode="json"))
    model = describe_model(plan, network, taken)
    manifest.add(recipe=plan.recipe.model_dump(mode="json"), model=model, data=data.describe())
    if plan.anchors is not None:
        manifest.add(anchors=plan.anchors.model_dump(mode="json"))
        print(plan.anchors.to_text(), file=sys.stderr)
    if data.note is not None:
        print(f"training data: {data.note}", file=sys.stderr)
    if taken is not None:
        print(_tell(taken, network), file=sys.stderr)
    return layout, manifest


def _tell(taken: TransferReport, network: Network) -> str:
    """Return one line about what starting weights gave."""
    new = [name for name in network.spec.class_names if name not in taken.classes]
    classes = f"{len(taken.classes)} of {len(network.spec.class_names)} classes"
    skipped = f"; {len(taken.skipped)} tensors start anew" if taken.skipped else ""
    return f"starting weights: {len(taken.loaded)} tensors and {classes} taken over{skipped}" + (
        f"; new classes: {', '.join(new[:5])}{', ...' if len(new) > 5 else ''}" if new else ""
    )


def _require_same_data(before: dict[str, Any], now: dict[str, Any], layout: RunLayout) -> None:
    for split, facts in before.items():
        if facts["fingerprint"] != now[split]["fingerprint"]:
            raise RunError(
                f"the {split} split is not what it was when this run began",
                where=layout.root,
                fix=f"Start a new run with --weights {layout.last_weights}.",
            )

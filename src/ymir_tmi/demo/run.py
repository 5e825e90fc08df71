"""The whole path on generated pictures: train, evaluate, infer, mine, report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ymir_tmi.config.schema import EvaluateSettings, InferSettings, MineSettings, TrainSettings
from ymir_tmi.demo.scenes import write_data_set
from ymir_tmi.evaluation.run import evaluate
from ymir_tmi.files.layout import RunLayout, new_run
from ymir_tmi.inference.run import infer
from ymir_tmi.mining.run import mine
from ymir_tmi.report.run import report
from ymir_tmi.training.run import train

_TRAIN, _VAL, _POOL = 160, 48, 60
_IMAGE_SIZE = 192
_EPOCHS = 30
# A few hundred steps are too few to profit from strong augmentation.
_SHORT_RUN = ["augment.mosaic=0.5", "augment.mixup=0", "augment.scale=[0.7, 1.4]", "closing_epochs=12"]


@dataclass(frozen=True)
class DemoResult:
    """What the demo found, and where the pages are.

    Attributes:
        ap50: AP at IoU 0.5 on the validation pictures.
        found: informative pictures among the first of the ranking.
        looked_at: length of the ranking that `found` counts in.
        expected: what a random order would find.
        pages: the HTML pages, by verb.
    """

    ap50: float
    found: int
    looked_at: int
    expected: float
    pages: dict[str, Path]

    def to_text(self) -> str:
        """Return lines for a person."""
        lines = [
            "",
            f"The model reaches AP50 {self.ap50:.3f} on {_VAL} pictures that it has not seen.",
            f"Of the first {self.looked_at} images that mining would have you label, {self.found} are of the "
            f"informative kind; a random choice holds {self.expected:.1f}.",
            "Look at the pages:",
        ]
        return "\n".join(lines + [f"  {verb:9} {page}" for verb, page in self.pages.items()])


def run_demo(output: Path | None, *, seed: int = 0) -> DemoResult:
    """Draw a data set, run every verb on it and write the reports, in a few minutes on two cores.

    Raises:
        RunError: `output` exists already.
    """
    root = new_run(output, "demo").root
    data = write_data_set(root / "data", seed=seed, train=_TRAIN, val=_VAL, pool=_POOL)
    runs = {verb: root / verb for verb in ("train", "evaluate", "infer", "mine")}

    train(
        TrainSettings(
            data=data,
            model="rtmdet_tiny",
            image_size=_IMAGE_SIZE,
            epochs=_EPOCHS,
            batch=8,
            val_interval=6,
            seed=seed,
            set=_SHORT_RUN,
            output=runs["train"],
        )
    )
    model = RunLayout(runs["train"]).best_weights
    evaluation = evaluate(EvaluateSettings(model=model, data=[str(data)], output=runs["evaluate"]))
    infer(InferSettings(model=model, data=[str(data)], split="pool", pictures=True, output=runs["infer"]))
    ranking = mine(MineSettings(model=model, data=[str(data)], algorithm="entropy", seed=seed, output=runs["mine"]))

    truth = json.loads((root / "data" / "pool-truth.json").read_text())
    looked_at = sum(truth.values())
    first = [Path(row.path).name for row in ranking.ranking[:looked_at]]
    return DemoResult(
        ap50=evaluation.scalars().get("AP50", 0.0),
        found=sum(truth[name] for name in first),
        looked_at=looked_at,
        expected=looked_at * sum(truth.values()) / len(truth),
        pages={verb: report(run) for verb, run in runs.items()},
    )

"""Whoever watches a training sees every validated epoch, with its files in place."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from training_data import write_rectangles

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.files.progress import listening
from ymir_tmi.training.observer import Observer, ValidatedEpoch
from ymir_tmi.training.run import train


class Watch(Observer):
    def __init__(self) -> None:
        self.layouts: list[RunLayout] = []
        self.epochs: list[ValidatedEpoch] = []
        self.saved: list[int] = []

    def started(self, layout: RunLayout) -> None:
        assert not layout.tensorboard.exists() and layout.manifest.exists()
        self.layouts.append(layout)

    def validated(self, epoch: ValidatedEpoch) -> None:
        self.epochs.append(epoch)
        self.saved.append(len(load_file(epoch.layout.last_weights)))


def test_observers_and_listeners(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=4, val=2)
    watch, steps = Watch(), list[tuple[str, int, int]]()
    settings = TrainSettings(
        model="rtmdet_tiny", data=data, output=tmp_path / "run", image_size=64, epochs=5, batch=4, val_interval=2,
        workers=0, device="cpu", precision="fp32",
    )  # fmt: skip
    with listening(lambda *step: steps.append(step)):
        result = train(settings, [watch])
    assert [layout.root for layout in watch.layouts] == [tmp_path / "run"]
    assert [epoch.number for epoch in watch.epochs] == [2, 4, 5]
    found = {epoch.number: epoch.evaluation.scalars()["AP"] for epoch in watch.epochs}
    assert found[result.metrics["epoch"]] == result.metrics["AP"] == max(found.values())
    assert steps == [("train", done, 5) for done in range(1, 6)]

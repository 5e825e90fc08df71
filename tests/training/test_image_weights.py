"""Images with rare and badly detected objects are shown more often, also after a resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import write_rectangles
from training_fakes import RECIPE, Training

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.training import image_weights as module
from ymir_tmi.training import run as run_module
from ymir_tmi.training.callbacks import Validate
from ymir_tmi.training.image_weights import WeighImages, image_weights
from ymir_tmi.training.run import train

# Three classes in five images; the last has a crowd region only, the one before nothing.
ROWS = [[0, 0, 1], [1], [0, 0, 0, 0], [], [2]]


def make_index() -> DatasetIndex:
    labels = np.array([label for row in ROWS for label in row], np.int32)
    return DatasetIndex(
        class_names=("a", "b", "c"),
        paths=Strings.pack(map(str, range(5))),
        sizes=np.full((5, 2), 10, np.int32),
        image_ids=np.arange(5),
        starts=np.concatenate([[0], np.cumsum([len(row) for row in ROWS])]),
        boxes=np.tile(np.array([[0, 0, 5, 5]], np.float32), (len(labels), 1)),
        labels=labels,
        areas=np.ones(len(labels), np.float32),
        flags=np.where(labels == 2, CROWD, 0).astype(np.uint8),
    )


@pytest.mark.parametrize("class_ap", [{}, {"a": 0.5, "b": 0.9}, {"a": 0.0, "b": 0.3, "c": 0.2}])
def test_weights_agree_with_the_formula(class_ap: dict[str, float]) -> None:
    counts = {0: 6, 1: 2}
    of_class = {label: (1 - class_ap.get("abc"[label], 0)) ** 2 / count for label, count in counts.items()}
    sums = [sum(of_class.get(label, 0) for label in row) for row in ROWS]
    np.testing.assert_allclose(image_weights(make_index(), class_ap), np.array(sums) / sum(sums))


def test_classes_that_are_all_found_keep_their_images() -> None:
    weights = image_weights(make_index(), {"a": 1.0, "b": 1.0})
    np.testing.assert_allclose(weights, image_weights(make_index(), {}))


def test_weights_follow_the_latest_validation_and_its_checkpoint(tmp_path: Path) -> None:
    aps = iter([(0.2, None), (0.6, 0.1), (0.5, 0.5)])

    def measured(model: object) -> Any:
        classes = [SimpleNamespace(name=name, AP=ap) for name, ap in zip("ab", next(aps), strict=True)]
        return SimpleNamespace(classes=classes, means=SimpleNamespace(AP=0.4), scalars=lambda: {"AP": 0.4})

    index = make_index()
    expected = [{}, {}, {"a": 0.2, "b": 0.4}, {"a": 0.2, "b": 0.4}, {"a": 0.6, "b": 0.1}]

    def run(resume: bool, epochs: int) -> list[Any]:
        training = Training(tmp_path, RECIPE.model_copy(update={"epochs": epochs}))
        validate = Validate(training.history, training.ema, measured, interval=2)
        training.run(validate, WeighImages(index, validate), resume=resume)
        asked = training.module.loader.weighed_before
        assert asked == list(range(1, len(asked) + 1))  # before the first batch of each epoch
        return training.module.loader.weights

    seen = run(resume=False, epochs=4) + run(resume=True, epochs=5)
    for weights, class_ap in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(weights, image_weights(index, class_ap))


@pytest.mark.slow
def test_resumed_run_draws_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rectangles(tmp_path / "data", train=8, val=4)
    values = {"model": "rtmdet_tiny", "data": data, "image_size": 64, "epochs": 3, "batch": 4, "workers": 0}
    changes = ["image_weights=true", "augment.mosaic=0", "augment.mixup=0", "optimizer.lr=0.01"]
    fixed = {**values, "device": "cpu", "precision": "fp32", "set": changes}
    seen: list[np.ndarray] = []
    weigh = module.image_weights
    monkeypatch.setattr(module, "image_weights", lambda *given: seen.append(weigh(*given)) or seen[-1])
    train(TrainSettings.model_validate({**fixed, "output": tmp_path / "whole"}))
    measure, count = run_module.evaluate_model, iter(range(9))

    def fails_in_the_third(*given: Any, **named: Any) -> Any:
        if next(count) == 2:
            raise KeyboardInterrupt
        return measure(*given, **named)

    monkeypatch.setattr(run_module, "evaluate_model", fails_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(TrainSettings.model_validate({**fixed, "output": tmp_path / "parts"}))
    train(TrainSettings(resume=tmp_path / "parts"))
    assert len(seen) == 3 + 3 + 1
    np.testing.assert_array_equal(seen[6], seen[2])
    one, two = (load_file(RunLayout(tmp_path / run).last_weights) for run in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)

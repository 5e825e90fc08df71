"""Callbacks and the module on a detector that trains in milliseconds."""

from __future__ import annotations

import copy
import csv
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn.functional import dropout
from training_fakes import CLASSES, RECIPE, FakeDetector, Training, fake_batch

from ymir_tmi.config.load import override
from ymir_tmi.data.batch import Targets, TrainingBatch
from ymir_tmi.errors import DivergedError
from ymir_tmi.imaging import Image
from ymir_tmi.training import losses
from ymir_tmi.training.callbacks import StopEarly, Validate
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.history import History
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.optim import build_optimizer
from ymir_tmi.training.schedule import plan_schedule
from ymir_tmi.training.views import draw_batch


class Probe(Callback):
    """Calls a function at the end of every step."""

    def __init__(self, function: Callable[[Any, NetworkModule], None]) -> None:
        self.function = function

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.function(trainer, pl_module)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def without_speed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


SGD = ["optimizer.accumulate=2", "optimizer.clip_norm=0.1", "optimizer.name=sgd"]


@pytest.mark.parametrize("changes", [[], SGD, [*SGD, "optimizer.accumulation=sum"]])
def test_training_is_the_bare_loop(tmp_path: Path, changes: list[str]) -> None:
    recipe = override(RECIPE, changes)
    training = Training(tmp_path, recipe)
    training.run()

    torch.manual_seed(0)
    model = FakeDetector()
    ema = ModelEma(model, recipe.ema)
    accumulate = training.module.accumulate
    optimizer = build_optimizer(model, recipe.optimizer, 4 * accumulate)
    base = optimizer.param_groups[0]["lr"]
    schedule = plan_schedule(recipe, 5 if accumulate == 1 else 3)
    updates = 0
    for epoch in range(5):
        for step in range(5):
            batch = fake_batch(1000 * epoch + step)
            raw = model(model.normalize(batch.images))
            terms = model.loss(raw, batch.targets, "final" if epoch >= 3 else "main")
            loss = sum(terms.values())
            (loss if recipe.optimizer.accumulation == "sum" else loss / accumulate).backward()
            if (step + 1) % accumulate and step < 4:
                continue
            if recipe.optimizer.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = base * schedule.factor(updates)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
            updates += 1
    average = {f"ema.{name}": value for name, value in ema.model.state_dict().items()}
    for name, value in {**model.state_dict(), **average}.items():
        torch.testing.assert_close(training.weights()[name], value, msg=name)


def test_loader_is_told_epoch_and_phase(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.run()
    assert training.module.loader.asked == [(0, "main"), (1, "main"), (2, "main"), (3, "final"), (4, "final")]


class StopAfter(Callback):
    """Fails like a killed process: nothing of this epoch is written."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("killed")


WARM_UPS = [
    *("schedule.warmup_fraction=0.9", "schedule.warmup_iterations=14", "schedule.warmup_bias_lr=0.1"),
    *("schedule.warmup_momentum=0.5", "schedule.by_epoch=true", "schedule.curve=linear", "optimizer.accumulate=2"),
    *("optimizer.name=sgd", "optimizer.accumulation=sum", "optimizer.lr=0.01", "optimizer.lr_scaling=none"),
]


@pytest.mark.parametrize(("changes", "updates"), [([], 25), (WARM_UPS, 15)], ids=["adamw", "sgd with warm-ups"])
def test_resumed_run_equals_one_that_never_stopped(tmp_path: Path, changes: list[str], updates: int) -> None:
    recipe = override(RECIPE, changes)
    whole = Training(tmp_path / "whole", recipe)
    whole.run()
    with pytest.raises(RuntimeError, match="killed"):
        Training(tmp_path / "parts", recipe).run(StopAfter(3))
    resumed = Training(tmp_path / "parts", recipe)
    resumed.run(resume=True)
    assert resumed.module.loader.asked == [(3, "final"), (4, "final")]
    assert_same(resumed.weights(), whole.weights())
    assert without_speed(resumed.history.rows) == without_speed(whole.history.rows)
    assert resumed.ema.updates == updates


def test_resumed_run_draws_the_dropout_of_one_that_never_stopped(tmp_path: Path) -> None:
    """The generator is elsewhere when a run goes on, since making the network has drawn from it."""

    def training(folder: str) -> Training:
        made = Training(tmp_path / folder)
        made.module.network.norm.register_forward_hook(lambda module, _, maps: dropout(maps, 0.5, module.training))
        return made

    whole = training("whole")
    whole.run()
    with pytest.raises(RuntimeError, match="killed"):
        training("parts").run(StopAfter(3))
    resumed = training("parts")
    resumed.run(resume=True)
    assert_same(resumed.weights(), whole.weights())
    other = training("other")
    other.module.seed = 1
    other.run()
    assert other.history.rows[-1]["loss"] != whole.history.rows[-1]["loss"], "nothing is dropped"


def test_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    whole = Training(tmp_path)
    whole.run()
    again = Training(tmp_path)
    again.run(resume=True)
    assert again.module.loader.asked == []
    assert_same(again.weights(), whole.weights())


@pytest.mark.parametrize(
    ("iterations", "accumulate", "epochs", "batches"),
    [(13, 1, 3, 13), (15, 1, 3, 15), (2, 1, 1, 2), (7, 2, 3, 12), (6, 2, 2, 10)],
)
def test_run_of_so_many_iterations_ends_where_it_says(
    tmp_path: Path, iterations: int, accumulate: int, epochs: int, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses._READ_INTERVALS, "cpu", 2)
    changes = [f"iterations={iterations}", f"epochs={epochs}", f"optimizer.accumulate={accumulate}"]
    training = Training(tmp_path, override(RECIPE, [*changes, "closing_epochs=0"]))
    seen: list[dict[str, float]] = []
    validate = Validate(training.history, training.ema, lambda model: MeasuredOnce(seen), interval=10)
    terms = note_losses(training)
    training.run(validate)
    assert (training.ema.updates, training.module.total_batches, len(terms)) == (iterations, batches, batches)
    assert [row["epoch"] for row in training.history.rows] == list(range(1, epochs + 1))
    last = terms[5 * (epochs - 1) :]
    assert training.history.row["loss_cls"] == pytest.approx(sum(last) / len(last))
    assert [row.get("AP") for row in training.history.rows] == [*[None] * (epochs - 1), 0.5]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_run_of_iterations_is_resumed_to_its_end(tmp_path: Path, epoch: int) -> None:
    recipe = override(RECIPE, ["iterations=13", "epochs=3", "closing_epochs=0"])
    whole = Training(tmp_path / "whole", recipe)
    whole.run()
    if epoch < 3:
        with pytest.raises(RuntimeError, match="killed"):
            Training(tmp_path / "parts", recipe).run(StopAfter(epoch))
    else:  # killed after the last checkpoint
        Training(tmp_path / "parts", recipe).run()
    resumed = Training(tmp_path / "parts", recipe)
    resumed.run(resume=True)
    assert [asked for asked, _ in resumed.module.loader.asked] == [1, 2][epoch - 1 :]
    assert resumed.ema.updates == 13
    assert_same(resumed.weights(), whole.weights())
    assert without_speed(resumed.history.rows) == without_speed(whole.history.rows)


class MeasuredOnce:
    """Stands for an evaluation."""

    def __init__(self, seen: list[dict[str, float]]) -> None:
        assert not seen, "validated twice"
        seen.append(self.scalars())

    def scalars(self) -> dict[str, float]:
        return {"AP": 0.5}


def note_losses(training: Training) -> list[float]:
    """Return a list that gets the class loss of every step."""
    seen: list[float] = []
    loss = training.module.network.loss

    def noted(*arguments: Any) -> dict[str, Tensor]:
        terms = loss(*arguments)
        seen.append(terms["loss_cls"].item())
        return terms

    training.module.network.loss = noted
    return seen


def test_history_file_has_a_row_an_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.run()
    rows = list(csv.DictReader(training.layout.history.read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "lr", "images_per_second", "loss", "loss_cls", "loss_bbox", "loss_l1"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [bool(row["loss_l1"]) for row in rows] == [False, False, False, True, True]
    for row in rows:
        terms = [float(row[name] or 0) for name in ("loss_cls", "loss_bbox", "loss_l1")]
        assert float(row["loss"]) == pytest.approx(sum(terms), rel=1e-4)


def test_history_holds_the_means_of_the_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path, RECIPE.model_copy(update={"epochs": 1, "closing_epochs": 0}))
    seen = note_losses(training)
    training.run()
    assert training.history.row["loss_cls"] == pytest.approx(sum(seen) / 5)


def poison_input(trainer: Any, module: NetworkModule) -> None:
    """Spoil a weight, so that the next loss is not finite."""
    if trainer.current_epoch == 1 and trainer.global_step == 7:
        with torch.no_grad():
            module.network.conv.weight[0] = float("nan")


def poison_last(trainer: Any, module: NetworkModule) -> None:
    """Spoil a weight after the last loss of an epoch."""
    if trainer.global_step == 10:
        with torch.no_grad():
            module.network.norm.running_var.fill_(float("inf"))


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (poison_input, "the loss is no longer a finite number at step 3 of 5 in epoch 2; the state before this epoch"),
        (poison_last, "a weight is no longer a finite number at step 5 of 5 in epoch 2; the state before this epoch"),
    ],
)
def test_diverged_run_stops_before_anything_is_saved(
    tmp_path: Path, poison: Callable[[Any, NetworkModule], None], message: str
) -> None:
    training = Training(tmp_path)
    with pytest.raises(DivergedError, match=message):
        training.run(Probe(poison))
    state = torch.load(training.layout.checkpoint, weights_only=True)
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    assert state["epoch"] == 0


class FixedAP(Callback):
    def __init__(self, history: History, values: list[float | None]) -> None:
        self.history, self.values = history, values

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        value = self.values[trainer.current_epoch]
        if value is not None:
            self.history.row["AP"] = value


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5),  # keeps rising
        ([0.3, 0.2, 0.4, 0.1, 0.1], 2, 5),  # rises in time
        ([0.3, 0.2, 0.1, 0.4, 0.5], 2, 3),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 3, 4),  # the same is not a rise
        ([0.3, None, None, 0.2, 0.4], 2, 4),  # only validated epochs decide
    ],
)
def test_run_stops_when_ap_does_not_rise(
    tmp_path: Path, values: list[float | None], patience: int, epochs: int
) -> None:
    training = Training(tmp_path)
    training.run(FixedAP(training.history, values), StopEarly(training.history, patience))
    assert len(training.history.rows) == epochs


def test_ctrl_c_reaches_the_caller_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    def interrupt(trainer: Any, module: NetworkModule) -> None:
        if trainer.global_step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path / "parts").run(Probe(interrupt))
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = Training(tmp_path / "parts")
    resumed.run(resume=True)
    whole = Training(tmp_path / "whole")
    whole.run()
    assert_same(resumed.weights(), whole.weights())


def test_console_stays_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Training(tmp_path).run()
    assert capfd.readouterr() == ("", "")


def test_best_of_equal_epochs_is_the_one_trained_longest() -> None:
    history = History()
    assert history.best() is None
    history.rows = [{"epoch": 1, "AP": 0.2}, {"epoch": 2, "AP": 0.5}, {"epoch": 3, "AP": 0.5}, {"epoch": 4}]
    assert history.best() == {"epoch": 3, "AP": 0.5}


def test_averaged_copy_is_what_it_was_copied_from() -> None:
    model = FakeDetector()
    before = copy.deepcopy(model.state_dict())
    ema = ModelEma(model, RECIPE.ema)
    assert_same(ema.model.state_dict(), before)


def test_drawn_pictures_do_not_reach_the_network() -> None:
    batch = fake_batch(seed=0)
    # Channels last in memory, as the loader makes them: the picture of one row is then a view of the batch.
    images = batch.images.to(memory_format=torch.channels_last)
    shown = TrainingBatch(images, batch.targets, batch.image_positions)
    pictures = draw_batch(shown, CLASSES)
    assert torch.equal(images, batch.images)
    changed = [
        not torch.equal(torch.from_numpy(picture).permute(2, 0, 1), image)
        for picture, image in zip(pictures, images, strict=True)
    ]
    assert changed == [len(labels) > 0 for labels in batch.targets.labels]


def test_rotated_boxes_are_drawn_turned() -> None:
    images, labels = torch.full((1, 3, 96, 128), 90, dtype=torch.uint8), [torch.tensor([0, 1])]

    def drawn(boxes: list[list[float]]) -> Image:
        return draw_batch(TrainingBatch(images, Targets([torch.tensor(boxes)], labels), (0,)), CLASSES)[0]

    upright = drawn([[20.0, 30.0, 80.0, 60.0], [70.0, 40.0, 110.0, 90.0]])
    assert np.array_equal(drawn([[50.0, 45.0, 60.0, 30.0, 0.0], [90.0, 65.0, 40.0, 50.0, 0.0]]), upright)
    turned = drawn([[50.0, 45.0, 60.0, 30.0, 0.5], [90.0, 65.0, 40.0, 50.0, 0.0]])
    assert (turned != upright).any()
    x, y = 50 - 30 * math.cos(0.5) - 15 * math.sin(0.5), 45 - 30 * math.sin(0.5) + 15 * math.cos(0.5)  # the left corner
    assert (turned[round(y), round(x)] != 90).any() and (upright[round(y), round(x)] == 90).all()

"""`ymir-tmi train`: from settings to a folder with the best model, its numbers and its history."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.loader import training_loader
from ymir_tmi.evaluation.results import EvaluationResult
from ymir_tmi.evaluation.run import evaluate_model
from ymir_tmi.evaluation.semantic_results import Evaluation, SemanticResult
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.models.blocks.conv import raise_norm_momentum
from ymir_tmi.models.interface import Network
from ymir_tmi.pool import ranks
from ymir_tmi.training.batch_size import fit_to_memory
from ymir_tmi.training.callbacks import SaveCheckpoint, SaveWeights, StopEarly, UpdateEma, Validate
from ymir_tmi.training.datasets import images_with_objects, read_training_data
from ymir_tmi.training.distributed import Processes, processes_on, share_buffers, synchronize_batch_norms
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.fit import fit
from ymir_tmi.training.history import History, HistoryFile, Row
from ymir_tmi.training.image_weights import WeighImages
from ymir_tmi.training.losses import LossMonitor
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.observer import Observer, TellObservers
from ymir_tmi.training.plan import TrainingPlan, fit_to_data, plan_run, read_plan
from ymir_tmi.training.recipes import epochs_per_pass
from ymir_tmi.training.record import open_record
from ymir_tmi.training.start import build_model, choose_anchors, require_batch
from ymir_tmi.training.views import Progress, SamplePictures, TensorBoard


@dataclass(frozen=True)
class TrainResult:
    """Where a training left what.

    Attributes:
        run: the run folder.
        weights: the model file of the best epoch: that with the highest AP, of masks where objects have such, or mIoU.
        epochs: epochs that were trained.
        metrics: numbers of the epoch that `weights` are of, as in `metrics.csv`.
    """

    run: Path
    weights: Path
    epochs: int
    metrics: Row

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"run": str(self.run), "weights": str(self.weights), "epochs": self.epochs, "metrics": self.metrics}

    def to_text(self) -> str:
        """Return lines for a person."""
        best = self.metrics
        names = [name for name in ("AP", "AP50", "AP_box", "mIoU", "mAcc") if name in best]
        numbers = ", ".join(f"{name.replace('_', ' ')} {best[name]:.3f}" for name in names)
        return f"The best of {self.epochs} epochs is epoch {best['epoch']:.0f}: {numbers}\n{self.weights}"


def train(settings: TrainSettings, observers: Sequence[Observer] = (), *, unmeasured: bool = False) -> TrainResult:
    """Train a network, or go on with a training that was stopped.

    Args:
        settings: what to train, on what, and how.
        observers: are told how it goes on.
        unmeasured: whether to train even if the val split has nothing to measure by; every epoch then counts 0, and the
            latest is the best.

    Raises:
        ConfigError: settings do not fit each other, the recipe or the machine.
        DataError: annotations or pictures are wrong.
        ModelError: there is no such model, or the weights do not fit.
        RunError: the run folder exists already, or cannot be gone on with.
        DivergedError: the loss is no longer a finite number.
        KeyboardInterrupt: the user stopped the run; `resume` goes on with it.
    """
    previous = read_plan(settings) if settings.resume else None
    with processes_on((previous.settings if previous else settings).device) as processes:
        plan = previous or plan_run(settings, processes)
        data = read_training_data(plan.settings, unmeasured=unmeasured)
        plan = previous or choose_anchors(plan, data.train)
        network, taken = build_model(plan, data.train.class_names)
        if settings.batch == "auto" and previous is None and processes.total == 1:
            plan = fit_to_memory(plan, network)
        images = images_with_objects(data.train) if plan.recipe.with_objects else data.train
        plan = previous or fit_to_data(plan, len(images))
        require_batch(network, plan.recipe.batch, len(images))
        layout, manifest = open_record(plan, processes, network, taken, data)
        with manifest or nullcontext():
            for observer in observers if manifest is not None else ():
                observer.started(layout)
            goal = SemanticResult.goal if network.spec.task == "semantics" else EvaluationResult.goal
            history, ema = History(goal), ModelEma(network, plan.recipe.ema)
            module = _build_module(plan, processes, images, network)
            with closing(module.loader):
                callbacks = _build_callbacks(plan, images, data.val, history, ema, layout, manifest, observers)
                fit(module, callbacks, plan, processes)
            best = history.best()
            assert best is not None  # the last epoch of a run is always validated
            if manifest is not None:
                manifest.finish("done", metrics=best)
        layout = ranks.from_first(layout)
    return TrainResult(layout.root, layout.best_weights, len(history.rows), best)


def _build_module(plan: TrainingPlan, processes: Processes, index: DatasetIndex, network: Network) -> NetworkModule:
    """Make the network ready for training and put it together with its data."""
    raise_norm_momentum(network, plan.recipe.norm_momentum)
    loader = training_loader(
        index,
        plan.recipe.augment,
        spec=network.spec.input,
        batch=plan.recipe.batch // processes.total,
        workers=plan.workers,
        seed=plan.settings.seed,
        rank=processes.rank,
        world_size=processes.total,
        pin_memory=plan.device.type == "cuda",
        masks=network.spec.task == "instances",
        epochs_per_pass=epochs_per_pass(plan.recipe, len(index)),
    )
    if processes.total > 1 and plan.recipe.sync_norms:
        synchronize_batch_norms(network, plan.device)
    if plan.settings.compile:
        network.compile()
    return NetworkModule(
        network, plan.recipe, loader, total_batch=min(plan.recipe.batch, len(index)), seed=plan.settings.seed
    )


def _build_callbacks(
    plan: TrainingPlan,
    images: DatasetIndex,
    val: DatasetIndex,
    history: History,
    ema: ModelEma[Network],
    layout: RunLayout,
    manifest: Manifest | None,
    observers: Sequence[Observer],
) -> list[Callback]:
    """Return what happens around the steps, in order; only the process with the manifest writes and reports."""
    losses = LossMonitor(history, layout)
    validate = Validate(history, ema, partial(_evaluate, plan, val), plan.settings.val_interval or 1)
    callbacks: list[Callback] = [history, losses, UpdateEma(ema), validate]
    if plan.recipe.image_weights:
        callbacks.append(WeighImages(images, validate))
    if manifest is not None:
        tensorboard = TensorBoard(history, losses, layout.tensorboard)
        callbacks += [
            SaveWeights(history, ema, validate, layout, manifest.content["model"]["licence"]),
            HistoryFile(history, layout.history),
            tensorboard,
            SamplePictures(tensorboard, layout.samples, images.class_names),
            Progress(history, losses, layout.progress),
            TellObservers(observers, history, validate, layout),
        ]
    if plan.settings.patience is not None:
        callbacks.append(StopEarly(history, plan.settings.patience))
    return [*callbacks, SaveCheckpoint(layout.checkpoint)]


def _evaluate(plan: TrainingPlan, index: DatasetIndex, model: Network) -> Evaluation:
    """Measure a model as the verb `evaluate` does; all processes share the images."""
    if not plan.recipe.sync_norms:
        share_buffers(model)  # so that all processes measure the model that the first one saves
    # To find the largest batch that fits, as `auto` does on a GPU, takes too long to do after every epoch.
    batch = "auto" if plan.device.type == "cpu" else plan.recipe.batch
    return evaluate_model(model, index, plan.settings.model_copy(update={"batch": batch}))

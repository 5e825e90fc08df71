"""Lightning's trainer, set up so that nothing is done or printed twice, and Ctrl-C stays Ctrl-C."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from ymir_tmi.models.runtime.devices import Arithmetic
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.plan import TrainingPlan

_PRECISION: dict[Arithmetic, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def fit(module: NetworkModule, callbacks: Sequence[Callback], plan: TrainingPlan, processes: Processes) -> None:
    """Train from the plan's checkpoint, if it has one, to the end of the recipe or until a callback stops.

    Args:
        module: what is trained.
        callbacks: in the order in which they run.
        plan: device, arithmetic (weights and losses are float32 in any case) and checkpoint.
        processes: who trains together.

    Raises:
        KeyboardInterrupt: the user stopped the run; callbacks have seen it.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    with _quiet():
        trainer = _build_trainer(module, callbacks, plan, processes)
        try:
            trainer.fit(module, ckpt_path=plan.checkpoint, weights_only=True)
        except SystemExit:  # Lightning's way of ending after Ctrl-C; it also mutes every further one
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None


def _build_trainer(
    module: NetworkModule, callbacks: Sequence[Callback], plan: TrainingPlan, processes: Processes
) -> Trainer:
    recipe = plan.recipe
    return Trainer(
        accelerator=plan.device.type,
        devices=list(processes.gpus) or processes.here,
        num_nodes=processes.machines,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if processes.total > 1 else "auto",
        precision=_PRECISION[plan.arithmetic],
        max_epochs=recipe.epochs,
        accumulate_grad_batches=module.accumulate,
        gradient_clip_val=recipe.optimizer.clip_norm,
        callbacks=list(callbacks),
        # Our loader knows the processes, and our callbacks validate, save and report.
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's banners, tips and guesses; errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

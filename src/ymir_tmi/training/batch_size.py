"""How many images a step may have on a GPU, where the user leaves it open."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ymir_tmi.data.batch import MASK_STRIDE, Targets
from ymir_tmi.data.shapes import largest_batch
from ymir_tmi.errors import ConfigError
from ymir_tmi.geometry.rotated import from_upright
from ymir_tmi.models.interface import Network
from ymir_tmi.models.runtime.devices import DTYPES, Arithmetic
from ymir_tmi.training.module import loss_terms, total_loss
from ymir_tmi.training.plan import TrainingPlan

_OBJECTS = 50  # in each image of a trial; crowded pictures have more, and the allocator some room


def fit_to_memory(plan: TrainingPlan, network: Network) -> TrainingPlan:
    """Return the plan with the recipe's batch, halved until a step fits; on a processor the plan as it is.

    Larger batches than the recipe's are not tried: they need other learning rates, and train no better.

    Args:
        plan: for one process.
        network: on the plan's device; it is not changed.

    Raises:
        ConfigError: there is no room for a single image.
    """
    if plan.device.type != "cuda":
        return plan
    size = largest_batch(plan.recipe.augment, network.spec.input)
    trial = partial(try_step, copy.deepcopy(network), size=size, arithmetic=plan.arithmetic)
    batch = largest_that_fits(plan.recipe.batch, trial, network.smallest_batch)
    torch.cuda.empty_cache()
    if batch == plan.recipe.batch:
        return plan
    warnings.warn(f"the GPU has no room for batches of {plan.recipe.batch}; {batch} are used", stacklevel=2)
    return replace(
        plan,
        settings=plan.settings.model_copy(update={"batch": batch}),
        recipe=plan.recipe.model_copy(update={"batch": batch}),
    )


def largest_that_fits(batch: int, trial: Callable[[int], None], smallest: int = 1) -> int:
    """Return `batch`, halved until `trial(batch)` does not run out of memory.

    Raises:
        ConfigError: `smallest` images are too many.
    """
    while True:
        try:
            trial(batch)
            return batch
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        if batch == smallest:
            raise ConfigError(
                f"the GPU has no room for a step with {smallest} image(s)",
                fix="Use smaller images (--image-size), a smaller model, or 16 bits (--precision bf16).",
            )
        batch = max(smallest, batch // 2)


def try_step(network: Network, batch: int, *, size: tuple[int, int], arithmetic: Arithmetic) -> None:
    """Compute loss and gradients of grey images of `size` (height, width) in pixels, and forget them.

    Raises:
        torch.OutOfMemoryError: they do not fit.
    """
    device = next(network.parameters()).device
    images = torch.full((batch, *size, 3), 114, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    box = torch.tensor([[0.0, 0.0, size[1] / 2, size[0] / 2]], device=device).repeat(_OBJECTS, 1)
    if network.spec.task == "rotated":
        box = from_upright(box)
    label = torch.zeros(_OBJECTS, dtype=torch.int64, device=device)
    masks = torch.zeros(batch, *(side // MASK_STRIDE for side in size), dtype=torch.int64, device=device)
    targets = Targets([box] * batch, [label] * batch, masks if network.spec.task == "instances" else None)
    if network.spec.task == "semantics":
        targets = Targets([], [], label_maps=torch.zeros(batch, *size, dtype=torch.uint8, device=device))
    with torch.autocast(device.type, DTYPES[arithmetic], enabled=arithmetic != "fp32"):
        terms = loss_terms(network, images, targets, "main")
    total_loss(terms).backward()  # type: ignore[no-untyped-call]
    network.zero_grad()

"""The model that a training starts from, and where its weights come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ymir_tmi.config.recipe import LossRecipe
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import ConfigError, DataError, counted
from ymir_tmi.models.catalog import create_model, default_spec, find_family
from ymir_tmi.models.checkpoint import TransferReport, read_model_info, transfer_weights
from ymir_tmi.models.interface import Network
from ymir_tmi.training.anchors import AnchorFit, best_recall, fit_anchors, object_sizes
from ymir_tmi.training.freeze import freeze
from ymir_tmi.training.plan import TrainingPlan


def choose_anchors(plan: TrainingPlan, index: DatasetIndex) -> TrainingPlan:
    """Return the plan with the anchors of a model that has such: those of its starting weights, else its own.

    Where the recipe says so, they give way to others that fit the training objects better.

    Raises:
        ConfigError: the recipe says so, and the model has none that could be fitted.
        ModelError: the file with the starting weights is damaged.
    """
    settings = plan.settings
    own = default_spec(settings.model, class_names=index.class_names).anchors
    if own is None or "anchor_ratio" not in find_family(settings.model).loss_fields:
        if plan.recipe.auto_anchor:
            raise ConfigError(f"'auto_anchor' is set, and {settings.model} has no anchors that are fitted to objects")
        return plan
    given = read_model_info(settings.weights).spec.anchors if settings.weights else None
    anchors = given if given is not None and np.shape(given) == np.shape(own) else own
    rng, ratio = np.random.default_rng(settings.seed), plan.recipe.loss.anchor_ratio
    sizes = object_sizes(index, plan.image_size, rng)
    if plan.recipe.auto_anchor:
        return replace(plan, anchors=fit_anchors(anchors, sizes, ratio, rng))
    recall = best_recall(sizes, np.reshape(anchors, (-1, 2)), ratio)
    return replace(plan, anchors=AnchorFit(anchors=anchors, recall=recall))


def build_model(plan: TrainingPlan, class_names: tuple[str, ...]) -> tuple[Network, TransferReport | None]:
    """Build the network with its starting weights, in training mode, on its device, channels last in memory.

    Returns it and what was taken over from the file with the starting weights, if there is one. A run that goes on from
    a checkpoint takes its weights from there instead.

    Raises:
        ConfigError: the recipe sets a number of the loss that this family does not have, or freezes a part that the
            network does not have.
        ModelError: the file with the starting weights is damaged, or nothing in it fits.
    """
    settings = plan.settings
    torch.manual_seed(settings.seed)
    network = create_model(
        settings.model,
        class_names=class_names,
        activation=settings.activation,
        anchors=plan.anchors.anchors if plan.anchors else None,
    )
    _set_loss(network, plan.recipe.loss)
    network.spec = network.spec.model_copy(update={"input": network.spec.input.with_size(plan.image_size)})
    taken = None
    if settings.weights is not None and plan.checkpoint is None:
        taken = transfer_weights(network, settings.weights)
    freeze(network, plan.recipe.freeze)
    return network.to(plan.device).to(memory_format=torch.channels_last), taken


def require_batch(network: Network, batch: int, images: int) -> None:
    """Refuse steps of fewer images than the network can be trained with.

    Raises:
        ConfigError: the batch is that small.
        DataError: there are so few images.
    """
    smallest = network.smallest_batch
    reason = (
        f"and {network.spec.name} cannot be trained with fewer than {smallest} at a time: its batch norms need several "
        "values to average over"
    )
    if images < smallest:
        found = counted(images, "training image", "training images")
        raise DataError(f"the data have {found}, {reason}", fix=f"Give {smallest} images or more.")
    if batch < smallest:
        raise ConfigError(f"the batch is {batch}, {reason}", fix=f"Use {smallest} or more (--batch).")


def _set_loss(network: Network, recipe: LossRecipe) -> None:
    changed = {name for name, value in recipe if value != getattr(network.loss_recipe, name)}
    for name in sorted(changed - network.loss_fields):
        raise ConfigError(f"'loss.{name}' is set, and the loss of {network.spec.family} has no such number")
    network.loss_recipe = recipe


def describe_model(plan: TrainingPlan, network: Network, taken: TransferReport | None) -> dict[str, Any]:
    """Return what `run.json` says of the model: `licence` is that of the starting weights, `transfer` their use."""
    weights = plan.settings.weights
    if weights is None:
        licence = "trained from random initial weights"
    else:
        licence = read_model_info(weights).licence or f"not stated in {weights.name}"
    return {
        "name": network.spec.name,
        "weights": str(weights) if weights else None,
        "licence": licence,
        "transfer": _describe_transfer(taken) if taken else None,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def _describe_transfer(taken: TransferReport) -> dict[str, Any]:
    return {"loaded": len(taken.loaded), "classes": list(taken.classes), "skipped": list(taken.skipped)}

"""Parts of a network that stay as they are in training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ymir_tmi.errors import ConfigError, did_you_mean


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Let training leave alone what is named by `prefixes`: it gets no gradient, and no entry in the optimiser.

    Batch norms in these parts normalise by the statistics that they have, and do not gather new ones: a frozen part
    then computes the same after training as before. `NetworkModule` keeps them from going back to training mode.

    Args:
        model: changed in place.
        prefixes: beginnings of parameter names, up to a dot or to the end, such as `backbone.stem`.

    Raises:
        ConfigError: a prefix names nothing, or nothing is left to train.
    """
    for prefix in prefixes:
        parameters = [parameter for name, parameter in model.named_parameters() if _begins_with(name, prefix)]
        if not parameters:
            names = (name.split(".") for name, _ in model.named_parameters())
            parts = {".".join(path[:depth]) for path in names for depth in (1, 2)}
            raise ConfigError(f"'freeze': the model has no part '{prefix}'", fix=did_you_mean(prefix, parts))
        for parameter in parameters:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("'freeze': nothing is left to train")
    hold_still(model, prefixes)


def hold_still(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Put the modules that are named by `prefixes` in evaluation mode."""
    for name, module in model.named_modules():
        if any(_begins_with(name, prefix) for prefix in prefixes):
            module.eval()


def _begins_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")

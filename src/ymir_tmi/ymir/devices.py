"""What a task runs on: the GPUs that the platform has given, or the processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.orders import Machine


def choose_device(config: Mapping[str, Any], say: Callable[[str], None]) -> tuple[str, Machine]:
    """Return the device by the name that settings have for it, and what it means for the parameters of images.

    `gpu_id` names the GPUs as they are counted inside of the container; without it and `gpu_count` the first one is
    taken, if there is one.

    Raises:
        ConfigError: `gpu_id` does not hold numbers, or one of a GPU that is not there.
    """
    numbers = _gpu_numbers(config)
    if numbers == ():
        say("device: the processor, as gpu_id and gpu_count say")
        return "cpu", Machine()
    if not torch.cuda.is_available():
        say("device: the processor, since PyTorch finds no GPU with CUDA here; everything works, and takes longer")
        return "cpu", Machine()
    chosen = numbers or (0,)
    there = torch.cuda.device_count()
    if max(chosen) >= there:
        raise ConfigError(
            f"GPU {max(chosen)} is asked for, and there are {there}",
            where="gpu_id",
            fix="Numbers begin with 0 and are those inside of the container.",
        )
    names = ", ".join(torch.cuda.get_device_name(number) for number in chosen)
    say(f"device: {len(chosen)} GPU{'s' if len(chosen) > 1 else ''}, {names}")
    return f"cuda:{','.join(map(str, chosen))}", Machine(len(chosen), gpu=True)


def _gpu_numbers(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the GPUs that are asked for; None where nothing is said."""
    value, count = config.get("gpu_id"), config.get("gpu_count")
    if value is None or (value == "" and count is None):
        return () if count in (0, "0") else None
    texts = [text.strip() for text in str(value).split(",") if text.strip()]
    if not all(text.isdecimal() for text in texts):
        raise ConfigError(f"{value!r} is not a list of numbers of GPUs", where="gpu_id", fix="Such as '0,1'.")
    return tuple(dict.fromkeys(map(int, texts)))

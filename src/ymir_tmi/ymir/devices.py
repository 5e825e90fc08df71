"""What a task runs on: the GPUs that the platform has given, or the processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ymir_tmi.errors import ConfigError
from ymir_tmi.pool.sizing import available_cores
from ymir_tmi.ymir.orders import Machine
from ymir_tmi.ymir.values import Whole, is_missing


def choose_device(config: Mapping[str, Any], say: Callable[[str], None]) -> tuple[str, Machine]:
    """Return the device by the name that settings have for it, and what it means for the parameters of images.

    `gpu_id` names the GPUs as they are counted inside of the container; without it the first `gpu_count` are taken, and
    without both the first one, if there is one.

    Raises:
        ConfigError: `gpu_id` does not hold numbers, or one of a GPU that is not there.
    """
    numbers, cores = _gpu_numbers(config), available_cores()
    if numbers == ():
        say("device: the processor, as gpu_id and gpu_count say")
        return "cpu", Machine(cores=cores)
    if not torch.cuda.is_available():
        say("device: the processor, since PyTorch finds no GPU with CUDA here; everything works, and takes longer")
        return "cpu", Machine(cores=cores)
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
    return f"cuda:{','.join(map(str, chosen))}", Machine(len(chosen), gpu=True, cores=cores)


def _gpu_numbers(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the GPUs that are asked for; None where nothing is said."""
    value, count = config.get("gpu_id"), config.get("gpu_count")
    if is_missing(value):
        return None if is_missing(count) else tuple(range(_gpu_count(count)))
    texts = [text.strip() for text in str(value).split(",") if text.strip()]
    if not all(text.isdecimal() for text in texts):
        raise ConfigError(f"{value!r} is not a list of numbers of GPUs", where="gpu_id", fix="Such as '0,1'.")
    return tuple(dict.fromkeys(map(int, texts)))


def _gpu_count(value: Any) -> int:
    try:
        return Whole(0)(value)
    except ValueError:
        raise ConfigError(f"{value!r} is not a number of GPUs", where="gpu_count", fix="0 is the processor.") from None

"""Which device and which arithmetic a model is run with."""

from __future__ import annotations

import os
import re
from typing import Literal

import torch

from ymir_tmi.config.schema import Precision
from ymir_tmi.errors import ConfigError, DependencyError

Arithmetic = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Arithmetic, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means for this process.

    Under torchrun each process of a machine takes the device of its local rank; `cuda:0,1` says which these are.

    Raises:
        ConfigError: the name is not understood, or names a GPU that the machine or the process does not have.
        DependencyError: a GPU is asked for, and PyTorch has none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    match = re.fullmatch(r"auto|cuda(?::(\d+(?:,\d+)*))?", name)
    if match is None:
        raise ConfigError(f"unknown device '{name}'", fix="Known: auto, cpu, cuda, cuda:1, cuda:0,1.")
    _require_cuda(name)
    named = [int(number) for number in match[1].split(",")] if match[1] else range(torch.cuda.device_count())
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if match[1] and len(named) != processes:
        raise ConfigError(
            f"device '{name}' names {len(named)} GPUs for {processes} process(es)",
            fix=f"Start one process per GPU: torchrun --nproc-per-node {len(named)} -m ymir_tmi ...",
        )
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if rank >= len(named) or named[rank] >= torch.cuda.device_count():
        raise ConfigError(
            f"device '{name}': process {rank} of this machine has no GPU, it has {torch.cuda.device_count()}",
            fix="Name a GPU that exists, or start fewer processes.",
        )
    return torch.device("cuda", named[rank])


def resolve_precision(precision: Precision, device: torch.device) -> Arithmetic:
    """Return the arithmetic that `precision` means on `device`.

    `auto` is bf16 where the device multiplies it natively: NVIDIA GPUs from compute capability 8.0 on, processors with
    AVX512-BF16 or AMX. Elsewhere it is emulated and slower than fp32.

    Raises:
        ConfigError: fp16 on a processor, which PyTorch computes slower than fp32.
    """
    if precision == "auto":
        return "bf16" if _has_native_bf16(device) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU", fix="Use precision bf16, fp32 or auto on a processor.")
    return precision


def _require_cuda(name: str) -> None:
    if torch.version.cuda is None:
        raise DependencyError(
            f"device '{name}' is asked for, and this PyTorch was built without CUDA",
            fix="Install PyTorch with CUDA (https://pytorch.org), or use --device cpu.",
        )
    if not torch.cuda.is_available():
        raise DependencyError(
            f"device '{name}' is asked for, and PyTorch finds no GPU",
            fix="Look at `nvidia-smi` and at the driver's version, or use --device cpu.",
        )


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))

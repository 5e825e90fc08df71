"""What the platform calls the reasons for which a task fails (docs/specs/ymir.md, section 8)."""

from __future__ import annotations

from enum import IntEnum

import torch

from ymir_tmi.errors import (
    ConfigError,
    DataError,
    DependencyError,
    DivergedError,
    DownloadError,
    ImageError,
    ModelError,
)


class Code(IntEnum):
    """Return codes; the platform shows a text of its own for each."""

    OTHER = 160004
    CONFIG = 300001
    DATASET = 300002
    IMAGE = 300003
    MODEL = 300004
    OBJECT_TYPE = 300005
    CUDA = 300101
    MEMORY = 300103
    NAN = 300201
    NETWORK = 300301


class ObjectTypeError(ConfigError):
    """The task is about another kind of objects than the image is for, or does not say which."""


# The first that fits counts, so that special ones stand before general ones.
_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (ObjectTypeError, Code.OBJECT_TYPE),
    (ConfigError, Code.CONFIG),
    (ImageError, Code.IMAGE),
    (DataError, Code.DATASET),
    (ModelError, Code.MODEL),
    (DownloadError, Code.NETWORK),
    (DivergedError, Code.NAN),
    (MemoryError, Code.MEMORY),
    (torch.OutOfMemoryError, Code.MEMORY),
    (torch.AcceleratorError, Code.CUDA),
)

# What PyTorch says only in words.
_WORDS: tuple[tuple[str, Code], ...] = (
    ("can't allocate memory", Code.MEMORY),
    ("out of memory", Code.MEMORY),
    ("Cannot allocate memory", Code.MEMORY),
    ("DataLoader worker (pid", Code.MEMORY),  # killed: too little memory, or too little of it shared
    ("shared memory", Code.MEMORY),
    ("unable to write to file </torch_", Code.MEMORY),  # which is shared memory, and full
    ("CUDA", Code.CUDA),
    ("cuDNN", Code.CUDA),
    ("NVIDIA", Code.CUDA),
    ("NCCL", Code.CUDA),
    ("GPU", Code.CUDA),
)


def code_of(error: BaseException) -> Code:
    """Return the code for an error that has ended a task."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and "Cannot allocate memory" in str(error):
        return Code.MEMORY
    if isinstance(error, RuntimeError | DependencyError):
        return next((code for words, code in _WORDS if words in str(error)), Code.OTHER)
    return Code.OTHER

"""Which code the platform is told for which error."""

from __future__ import annotations

import pytest
import torch

from ymir_tmi.errors import (
    ConfigError,
    DataError,
    DependencyError,
    DivergedError,
    DownloadError,
    ImageError,
    ModelError,
    RunError,
)
from ymir_tmi.ymir.codes import ObjectTypeError, code_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 300001),
        (DataError("a"), 300002),
        (ImageError("a"), 300003),
        (ModelError("a"), 300004),
        (ObjectTypeError("a"), 300005),
        (DependencyError("device 'cuda' is asked for, and PyTorch finds no GPU"), 300101),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), 300101),
        (MemoryError(), 300103),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 300103),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), 300103),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), 300103),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device"),
            300103,
        ),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), 300103),
        (OSError(12, "Cannot allocate memory"), 300103),
        (DivergedError("a"), 300201),
        (DownloadError("a"), 300301),
        (DependencyError("onnx is missing"), 160004),
        (RunError("a"), 160004),
        (OSError(28, "No space left on device"), 160004),
        (ValueError("CUDA"), 160004),
        (KeyboardInterrupt(), 160004),
    ],
    ids=str,
)
def test_codes(error: BaseException, code: int) -> None:
    assert code_of(error) == code

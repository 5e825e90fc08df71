"""How many images at once, and how many threads beside the network, where the user leaves it open."""

from __future__ import annotations

import os
from typing import Literal, cast

import numpy as np
import torch

from ymir_tmi.data.letterbox import plan_frame
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.models.runtime.interface import DetectorRuntime, Runtime
from ymir_tmi.pool import ranks

_PICTURES_PER_CORE = 2
_LARGEST_BATCH = 128
_MOST_THREADS = 16


def resolve_batch(batch: int | Literal["auto"], runtime: Runtime | None) -> int:
    """Return the images per step of this process.

    A number counts for all processes together. `auto` takes on a GPU the largest power of two up to 128 that fits with
    the largest inputs; on a processor two for each core, since larger batches are not faster there.
    """
    if batch != "auto":
        return max(1, batch // ranks.world_size())
    if runtime is None or runtime.device.type == "cpu":
        return _PICTURES_PER_CORE * torch.get_num_threads()
    return _largest_that_fits(runtime)


def resolve_workers(workers: int | Literal["auto"], device: torch.device, *, busy: bool = False) -> int:
    """Return the number of decoding threads of this process.

    `auto` takes half of its share of the cores where the network runs on them too, else all, 16 at most. Where the
    threads are `busy`, the network waits for them, and they take all cores as well.
    """
    if workers != "auto":
        return workers
    share = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(_MOST_THREADS, max(1, share // 2) if device.type == "cpu" and not busy else share)


def _largest_that_fits(runtime: Runtime) -> int:
    """Double the batch until the GPU's memory is full, then step back."""
    spec, fits = runtime.spec.input, 1
    frame = plan_frame(spec.longest or spec.size, spec.size, spec)
    shape = frame.input_height, frame.input_width, 3
    while fits < _LARGEST_BATCH:
        try:
            raw = runtime.run(np.zeros((2 * fits, *shape), np.uint8))
            if isinstance(raw, HeadOutput):
                cast(DetectorRuntime, runtime).decode(raw)
        except torch.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        fits *= 2
    return fits


def available_cores() -> int:
    """Return the cores that this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The processes that share a pass over a pool: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch.distributed as dist

Value = TypeVar("Value")


@contextmanager
def shared_by_ranks() -> Iterator[None]:
    """Let the processes that torchrun started know one another until the block ends; alone, do nothing.

    Nothing but names, counts and barriers are exchanged, so gloo serves GPUs as well. Where the processes know one
    another already (inside a training), nothing changes.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process; 0 also writes results and talks to the user."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        dist.barrier()


def from_first(value: Value | None) -> Value:
    """Return the `value` that rank 0 gives; the others give None."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box)
    return cast(Value, box[0])


def gather(value: Value) -> list[Value]:
    """Return the values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Value | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast(list[Value], values)

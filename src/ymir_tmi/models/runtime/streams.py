"""Several pictures side by side on a processor, one core each, in place of several cores on each layer.

Cores that share a layer wait for one another at its end, some hundred times in a pass. When another program, or a
thread that decodes pictures, takes one of them for a moment, all wait: on a busy machine that costs more than the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

from ymir_tmi.models.interface import HeadOutput, PixelOutput

Raw = TypeVar("Raw", HeadOutput, PixelOutput)

Result = TypeVar("Result")


class Streams:
    """As many threads as PyTorch uses cores, each of which computes on one core.

    The number of cores that PyTorch uses elsewhere is left as it is.
    """

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._executor = ThreadPoolExecutor(self.count, "stream", _use_one_core)
        everyone = Barrier(self.count)
        for _ in self._executor.map(lambda _: everyone.wait(), range(self.count)):
            pass  # until then some of them may not have started
        torch.set_num_threads(self.count)  # for threads to come: PyTorch gives them the number that was set last

    def map(self, function: Callable[[Tensor], Result], rows: Tensor) -> list[Result]:
        """Return what a function makes of equal parts of a tensor, computed side by side."""
        return list(self._executor.map(function, rows.tensor_split(min(self.count, len(rows)))))

    def run(self, forward: Callable[[Tensor], Raw], images: Tensor) -> Raw:
        """Return `forward(images)`, computed in equal parts along the batch."""
        parts = self.map(forward, images)
        return type(parts[0])(
            *(tuple(map(torch.cat, zip(*levels, strict=True))) for levels in zip(*parts, strict=True))
        )


@contextmanager
def one_core() -> Iterator[None]:
    """Let PyTorch compute on one core in this thread, and in threads that start meanwhile, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread's first call gives it the common number, which must not happen later
    torch.set_num_threads(1)

"""Numbers that the user leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pool_fakes import FakeRuntime

from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.pool import sizing
from ymir_tmi.pool.sizing import resolve_batch, resolve_workers

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class SmallGpu(FakeRuntime):
    """Runs out of memory above a number of pictures."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.device = GPU
        self._limit = limit
        self.shapes: set[tuple[int, ...]] = set()

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        self.shapes.add(images.shape[1:3])
        if len(images) > self._limit:
            raise torch.OutOfMemoryError("too much")
        return super().run(images)


def test_a_number_is_taken_as_it_is() -> None:
    assert resolve_batch(5, FakeRuntime()) == 5
    assert resolve_workers(0, CPU) == 0


def test_a_processor_takes_two_pictures_for_each_core() -> None:
    assert resolve_batch("auto", FakeRuntime()) == 2 * torch.get_num_threads()
    assert resolve_batch("auto", None) == 2 * torch.get_num_threads()


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (7, 4), (8, 8), (100, 64), (10**9, 128)])
def test_a_gpu_takes_what_fits(limit: int, expected: int) -> None:
    runtime = SmallGpu(limit)
    assert resolve_batch("auto", runtime) == expected
    assert set(runtime.runs) <= {2**power for power in range(8)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"size": 100}, (112, 112), id="the longer side, padded to whole cells"),
        pytest.param({"size": 100, "resize": "stretch"}, (112, 112), id="both sides"),
        pytest.param({"size": 80, "resize": "shorter", "longest": 133}, (80, 144), id="the shorter side"),
    ],
)
def test_the_largest_input_must_fit(change: dict[str, Any], expected: tuple[int, int]) -> None:
    runtime = SmallGpu(2)
    runtime.spec = runtime.spec.model_copy(update={"input": runtime.spec.input.model_copy(update=change)})
    resolve_batch("auto", runtime)
    assert runtime.shapes == {expected}


@pytest.mark.parametrize(
    ("cores", "processes", "device", "expected"),
    [
        (1, 1, CPU, 1),
        (2, 1, CPU, 1),
        (8, 1, CPU, 4),
        (8, 4, CPU, 1),
        (8, 1, GPU, 8),
        (8, 4, GPU, 2),
        (64, 1, GPU, 16),  # more threads wait for one another
    ],
)
def test_threads_leave_cores_for_the_network(
    cores: int, processes: int, device: torch.device, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "available_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert resolve_workers("auto", device) == expected
    assert resolve_workers("auto", device, busy=True) == min(16, max(1, cores // processes))

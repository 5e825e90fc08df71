"""Training in several processes: who is who, and batch norms that see the whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The processes that train together, one for each GPU.

    Attributes:
        rank: number of this one; 0 also writes and reports.
        here: how many run on this machine.
        machines: number of machines.
        gpus: numbers of the GPUs on this machine, where the user named them.
    """

    rank: int
    here: int
    machines: int
    gpus: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of processes on all machines."""
        return self.here * self.machines


@contextmanager
def processes_on(device: str) -> Iterator[Processes]:
    """Tell the processes of a run on `device`: those that torchrun started, else one for each GPU that is named.

    Lightning starts the others later, by running this command again. Until the block ends, the environment says how
    many they are, as torchrun's does, so that `resolve_device` gives each its GPU.
    """
    _, _, numbers = device.partition(":")
    gpus = tuple(int(number) for number in numbers.split(",") if number.isdecimal())
    announced = "LOCAL_WORLD_SIZE" in os.environ
    if not announced and len(gpus) > 1:
        os.environ["LOCAL_WORLD_SIZE"] = str(len(gpus))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    total = max(here, int(os.environ.get("WORLD_SIZE", "1")))
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    try:
        yield Processes(rank, here, total // here, gpus)
    finally:
        if not announced:
            os.environ.pop("LOCAL_WORLD_SIZE", None)


def synchronize_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Let the batch norms of `model` take their statistics over the batches of all processes; in place.

    The new layers hold the parameters and buffers of the old ones, under the same names.
    """
    if device.type == "cuda":
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        convert(model)
        return
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, SharedBatchNorm2d(child))
        else:
            synchronize_batch_norms(child, device)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first one, in place: norms that are not synchronised differ in them."""
    if torch.distributed.is_initialized():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on devices where `torch.nn.SyncBatchNorm` does not run."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in training by the statistics over all processes, whose B may differ."""
        if not self.training:
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()
        local = values.new_tensor([values.numel() / self.num_features])
        sums = _SumOverProcesses.apply(torch.cat([values.sum((0, 2, 3)), local]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(1, -1, 1, 1)
        # A second exchange, since the mean of squares minus the square of the mean would lose digits.
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes. Every process' loss depends on every summand, so gradients are summed as well."""

    @staticmethod
    def forward(context: Any, summand: Tensor) -> Tensor:
        total = summand.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total

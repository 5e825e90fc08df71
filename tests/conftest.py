"""Shared by all tests: one thread for each of two workers, and no network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of cores that PyTorch uses, until the test ends."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


class NetworkBlockedError(AssertionError):
    pass


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection but those to this machine: the package never needs another."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0] if isinstance(address, tuple) else address
            if host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
                raise NetworkBlockedError(f"connection to {address} attempted")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="session")
def instance_model() -> Any:
    """A YOLOv5-seg of two classes that has learnt nothing, finds something everywhere, and gives it a mask."""
    from torch import nn

    from ymir_tmi.models.blocks.head import PredictionConv
    from ymir_tmi.models.catalog import create_model

    torch.manual_seed(0)
    model = create_model("yolov5_n_seg", num_classes=2).eval()
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(_take_statistics))
        elif isinstance(module, PredictionConv):
            assert module.bias is not None
            nn.init.normal_(module.weight, std=0.3 * module.in_channels**-0.5)
            module.bias.data.clamp_(min=0)
    with torch.no_grad():
        blocks = torch.rand(16, 3, 3, 4, generator=torch.Generator().manual_seed(0))
        model(nn.functional.interpolate(blocks, (192, 256)))
    for hook in hooks:
        hook.remove()
    return model


@pytest.fixture(scope="session")
def write_detector() -> Callable[[Path, Sequence[str], float], Path]:
    """Writes a YOLOX that has learnt nothing and finds something here and there: the more, the higher its bias."""
    from torch import nn

    from ymir_tmi.models.catalog import create_model
    from ymir_tmi.models.checkpoint import save_model

    def write(path: Path, class_names: Sequence[str], bias: float) -> Path:
        torch.manual_seed(0)
        detector = create_model("yolox_tiny", class_names=class_names)
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            detector(torch.rand(8, 3, 96, 96) * 255)  # the statistics of batch norms become those of this batch
            for name, parameter in detector.named_parameters():
                if "cls_pred" in name or "obj_pred" in name:
                    parameter.normal_(0, 0.06) if parameter.ndim > 1 else parameter.fill_(bias)
        save_model(detector.eval(), path)
        return path

    return write


def _take_statistics(norm: Any, inputs: Any) -> None:
    """Let a batch norm take its statistics from what comes in, so that no layer's numbers fade away."""
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)

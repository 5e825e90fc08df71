"""Two processes with half of the batch each learn what one process learns from the whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from training_fakes import fake_batch

from ymir_tmi.data.batch import Phase, Targets
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.interface import Detector
from ymir_tmi.training.distributed import (
    Processes,
    SharedBatchNorm2d,
    processes_on,
    share_buffers,
    synchronize_batch_norms,
)

BATCH = 4


def build(name: str) -> Detector:
    torch.manual_seed(0)
    return create_model(name, num_classes=2).double()


def loss_terms(model: Detector, network: nn.Module, part: slice, phase: Phase) -> dict[str, Tensor]:
    batch = fake_batch(seed=3, size=BATCH)
    images = torch.nn.functional.interpolate(batch.images, (64, 64))
    boxes = [2 * boxes.double() for boxes in batch.targets.boxes]
    raw = network(model.normalize(images[part]))
    return model.loss(raw, Targets(boxes[part], batch.targets.labels[part]), phase)


def outcome(model: Detector, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.stack(list(terms.values())).sum().backward()
    gradients = {f"grad {name}": parameter.grad for name, parameter in model.named_parameters()}
    buffers = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    return {**gradients, **buffers, **{name: term.detach() for name, term in terms.items()}}


def work(rank: int, folder: str, name: str, phase: Phase) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = build(name)
    synchronize_batch_norms(model, torch.device("cpu"))
    network = DistributedDataParallel(model, find_unused_parameters=False)
    half = BATCH // 2
    found = outcome(model, loss_terms(model, network, slice(rank * half, (rank + 1) * half), phase))
    torch.save(found, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "phase"), [("rtmdet_tiny", "main"), pytest.param("yolox_tiny", "final", marks=pytest.mark.slow)]
)
def test_loss_gradient_and_statistics_are_those_of_one_process(tmp_path: Path, name: str, phase: Phase) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path), name, phase), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    model = build(name)
    expected = outcome(model, loss_terms(model, model, slice(0, BATCH), phase))
    assert set(first) == set(expected)
    for key, value in expected.items():
        found = (first[key] + second[key]) / 2 if key.startswith("loss") else first[key]
        # RTMDet adds 1e-7 to its divisor, which is half as large for each of two processes.
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-9, msg=key)


def test_conversion_keeps_names_and_tensors() -> None:
    model = create_model("rtmdet_tiny", num_classes=2)
    before: dict[str, Any] = dict(model.state_dict(keep_vars=True))
    synchronize_batch_norms(model, torch.device("cpu"))
    after = dict(model.state_dict(keep_vars=True))
    assert [*before] == [*after]
    assert all(after[name] is tensor for name, tensor in before.items())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(isinstance(norm, SharedBatchNorm2d) and norm.eps == 1e-5 for norm in norms)


def share(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = nn.BatchNorm2d(2)
    model(torch.full((4, 2, 3, 3), float(rank + 1)))
    share_buffers(model)
    torch.save(dict(model.named_buffers()), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_norms_that_are_not_synchronised_are_those_of_the_first_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    torch.testing.assert_close(first["running_mean"], torch.full((2,), 0.1))
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize(
    ("device", "environment", "expected"),
    [
        ("auto", {}, Processes(0, 1, 1, ())),
        ("cuda:1", {}, Processes(0, 1, 1, (1,))),
        ("cuda:2,3", {}, Processes(0, 2, 1, (2, 3))),
        # started by Lightning for the second GPU
        (
            "cuda:2,3",
            {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            Processes(1, 2, 1, (2, 3)),
        ),
        # torchrun with two machines of four processes
        ("cuda", {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, Processes(5, 4, 2, ())),
    ],
)
def test_processes_of_a_run(
    monkeypatch: pytest.MonkeyPatch, device: str, environment: dict[str, str], expected: Processes
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with processes_on(device) as processes:
        assert processes == expected
        assert os.environ.get("LOCAL_WORLD_SIZE", "1") == str(expected.here)
    assert os.environ.get("LOCAL_WORLD_SIZE") == environment.get("LOCAL_WORLD_SIZE")

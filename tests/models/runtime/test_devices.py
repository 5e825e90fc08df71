"""Which device and which arithmetic."""

from __future__ import annotations

import pytest
import torch

from ymir_tmi.errors import ConfigError, DependencyError, TmiError
from ymir_tmi.models.runtime.devices import resolve_device, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "rank", "processes", "expected"),
    [
        ("auto", 0, 1, "cuda:0"),
        ("cpu", 0, 1, "cpu"),
        ("cuda", 0, 1, "cuda:0"),
        ("cuda:2", 0, 1, "cuda:2"),
        ("cuda", 3, 4, "cuda:3"),
        ("auto", 1, 4, "cuda:1"),
        ("cuda:1,3", 0, 2, "cuda:1"),
        ("cuda:1,3", 1, 2, "cuda:3"),
        ("cpu", 1, 2, "cpu"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_names_mean_devices(
    name: str, rank: int, processes: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert str(resolve_device(name)) == expected


@pytest.mark.parametrize(
    ("name", "rank", "processes", "words"),
    [
        ("gpu", 0, 1, "unknown device 'gpu'"),
        ("cuda:", 0, 1, "unknown device"),
        ("cuda:7", 0, 1, "has no GPU, it has 4"),
        ("cuda", 4, 5, "process 4"),
        ("cuda:0,1", 0, 1, "torchrun --nproc-per-node 2"),
        ("cuda:0", 1, 2, "names 1 GPUs for 2 process"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_wrong_names_are_explained(
    name: str, rank: int, processes: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    with pytest.raises(ConfigError) as caught:
        resolve_device(name)
    assert words in str(caught.value)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto") == CPU
    for version, words in ((None, "built without CUDA"), ("13.0", "finds no GPU")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(DependencyError, match=words):
            resolve_device("cuda")


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((12, 0), "bf16")]
)
def test_auto_takes_bf16_on_gpus_that_have_it(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", GPU) == expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_takes_bf16_on_processors_that_have_it(
    features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision("auto", CPU) == expected


def test_what_is_asked_for_is_taken() -> None:
    assert resolve_precision("fp16", GPU) == "fp16"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"
    with pytest.raises(TmiError, match="needs a GPU"):
        resolve_precision("fp16", CPU)

"""What gpu_id and gpu_count mean."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.devices import choose_device
from ymir_tmi.ymir.orders import Machine


@pytest.mark.parametrize(
    ("config", "device", "machine"),
    [
        ({"gpu_id": "0"}, "cuda:0", Machine(1, True)),
        ({"gpu_id": "0, 1", "gpu_count": 2}, "cuda:0,1", Machine(2, True)),
        ({"gpu_id": 1}, "cuda:1", Machine(1, True)),
        ({"gpu_id": "", "gpu_count": 0}, "cpu", Machine()),
        ({"gpu_id": "", "gpu_count": 2}, "cuda:0,1", Machine(2, True)),
        ({"gpu_count": "0"}, "cpu", Machine()),
        ({"gpu_count": "2"}, "cuda:0,1", Machine(2, True)),
        ({"gpu_id": None}, "cuda:0", Machine(1, True)),
        ({}, "cuda:0", Machine(1, True)),
    ],
)
def test_with_gpus(config: dict[str, Any], device: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a GPU")
    found, its = choose_device(config, print)
    assert (found, replace(its, cores=None)) == (device, machine)
    assert its.cores == len(os.sched_getaffinity(0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said: list[str] = []
    assert choose_device(config, said.append) == ("cpu", Machine(cores=its.cores)) and "processor" in said[0]


@pytest.mark.parametrize("value", ["first", "0;1", "-1", "2"])
def test_gpus_that_are_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="gpu_id"):
        choose_device({"gpu_id": value}, print)


@pytest.mark.parametrize("value", ["two", -1, True])
def test_a_count_that_is_none(value: Any) -> None:
    with pytest.raises(ConfigError, match="gpu_count"):
        choose_device({"gpu_count": value}, print)

"""Shared by all tests: one thread for each of two workers, and no network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

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

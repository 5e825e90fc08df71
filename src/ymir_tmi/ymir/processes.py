"""Several GPUs for a pass over images: one process for each, which share the images."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ymir_tmi.ymir.orders import Machine


@contextmanager
def others_on(machine: Machine) -> Iterator[None]:
    """Start this command again for every further GPU, as torchrun would; this process is the first of all.

    When the block ends, the others have ended, too.

    Raises:
        RuntimeError: one of them has failed.
    """
    if machine.devices == 1 or "WORLD_SIZE" in os.environ:
        yield
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(machine.devices),
        "LOCAL_WORLD_SIZE": str(machine.devices),
    }
    others = [_start({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(1, machine.devices)]
    own = {**shared, "RANK": "0", "LOCAL_RANK": "0"}
    os.environ.update(own)
    try:
        yield
        if any(process.wait() for process in others):
            raise RuntimeError("a process of another GPU has failed")
    finally:
        for process in others:
            process.kill()
            process.wait()
        for name in own:
            os.environ.pop(name, None)


def _start(variables: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ymir_tmi.cli", *sys.argv[1:]]
    return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

"""Several GPUs for a pass over images: one process for each, which share the images."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ymir_tmi.ymir.orders import Machine

LOST = "a process of another GPU has failed"

_PATIENCE_S = 10.0  # for this process to see by itself that another one is gone


@contextmanager
def others_on(machine: Machine, lost: Callable[[], object]) -> Iterator[None]:
    """Start this command again for every further GPU, as torchrun would; this process is the first of all.

    When the block ends, the others have ended, too. Where one fails while this one waits for it, which nothing can
    interrupt, this process ends as well.

    Args:
        machine: how many there are.
        lost: is called before this process ends for that.

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
    ended = threading.Event()
    threading.Thread(target=_watch, args=(others, ended, lost), daemon=True).start()
    try:
        yield
        if any(process.wait() for process in others):
            raise RuntimeError(LOST)
    finally:
        ended.set()
        for process in others:
            process.kill()
            process.wait()
        for name in own:
            os.environ.pop(name, None)


def _watch(others: Sequence[subprocess.Popen[bytes]], ended: threading.Event, lost: Callable[[], object]) -> None:
    """End this process if one of the others has failed, and the block does not end for that."""
    while not ended.wait(1.0):
        if any(process.poll() for process in others):
            if not ended.wait(_PATIENCE_S):
                lost()
                os._exit(1)
            return


def _start(variables: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ymir_tmi.cli", *sys.argv[1:]]
    return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

"""Two processes share a pass and come to the rows of one."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from pool_fakes import FakeRuntime, Recording, write_pool

from ymir_tmi.pool import ranks, shards
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import FileRows, MemoryRows


def take_part(rank: int, port: int, folder: Path) -> None:
    """Be one of two processes, as torchrun starts them, and write down what it did and got."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shards.SHARD_IMAGES = 8
    pool = write_pool(folder / f"pool{rank}", 30)
    with ranks.shared_by_ranks():
        name = ranks.from_first(str(folder / "shards") if rank == 0 else None)
        in_files, in_memory = FileRows(Path(name), ["recording"], {}), MemoryRows()
        consumer = Recording()
        run_pool(pool, [consumer], in_files, runtime=FakeRuntime())
        run_pool(pool, [Recording()], in_memory, runtime=FakeRuntime())
    result = {
        "seen": sorted(consumer.seen),
        "files": list(in_files.rows("recording")),
        "memory": list(in_memory.rows("recording")),
    }
    (folder / f"result{rank}.json").write_text(json.dumps(result))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.slow  # each process imports torch
def test_two_processes_share_the_shards(tmp_path: Path) -> None:
    spawn, port = multiprocessing.get_context("spawn"), free_port()
    processes = [spawn.Process(target=take_part, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"result{rank}.json").read_text()) for rank in range(2))
    assert first["seen"] == [*range(8), *range(16, 24)]
    assert second["seen"] == [*range(8, 16), *range(24, 30)]

    alone = MemoryRows()
    run_pool(write_pool(tmp_path / "pool", 30), [Recording()], alone, runtime=FakeRuntime())
    expected = json.loads(json.dumps(list(alone.rows("recording"))))
    assert all(rows == expected for result in (first, second) for rows in (result["files"], result["memory"]))


def test_one_process_is_the_first_of_one() -> None:
    with ranks.shared_by_ranks():
        assert (ranks.rank(), ranks.world_size()) == (0, 1)
        assert ranks.from_first("value") == "value"
        assert ranks.gather("value") == ["value"]
        ranks.wait_for_all()

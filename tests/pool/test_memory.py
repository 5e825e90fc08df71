"""The memory of a pass does not grow with the pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
from pool_fakes import FakeRuntime, Recording, write_pool

from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import FileRows

IMAGES = 10_000
MEGABYTE = 1 << 20


class Watching(Recording):
    """Notes the resident memory now and then; its rows are as long as those of a few detections."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[int] = []

    def consume(self, batch):  # type: ignore[no-untyped-def]
        rows = super().consume(batch)
        if len(self.seen) // 500 > len(self.memory):
            self.memory.append(psutil.Process().memory_info().rss)
        self.rows = rows
        return rows


def test_memory_is_flat_over_ten_thousand_images(tmp_path: Path) -> None:
    few = write_pool(tmp_path / "pool", 8, sizes=[(48, 32), (32, 32)])
    pool = few.take(np.arange(IMAGES) % len(few))
    consumer, rows = Watching(), FileRows(tmp_path / "shards", ["recording"], {})
    run_pool(pool, [consumer], rows, runtime=FakeRuntime(size=32), batch=8, workers=1)
    assert len(consumer.seen) == IMAGES
    early, late = max(consumer.memory[1:5]), max(consumer.memory[-5:])
    # All rows together are some 10 MB of text and ten times that as objects.
    written = sum(file.stat().st_size for file in (tmp_path / "shards" / "recording").iterdir())
    assert written > 3 * MEGABYTE
    assert late - early < 3 * MEGABYTE
    assert sum(1 for _ in rows.rows("recording")) == IMAGES
    assert psutil.Process().memory_info().rss - early < 4 * MEGABYTE

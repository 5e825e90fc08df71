"""Runs a command as a process of its own and says what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What a finished process took.

    Attributes:
        wall_s: seconds by the clock.
        cpu_s: processor seconds, user and system, of the process and its children.
        peak_mb: largest resident memory of the process itself, in MB.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


def run(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Cost:
    """Run a command with two threads or `OMP_NUM_THREADS`, output to `log`; a failure ends the benchmark.

    `environment` is added to that of this process; `folder` is where the command runs, by default the current one.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {"OMP_NUM_THREADS": "2", **os.environ, **(environment or {})}
    started = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(list(command), stdout=file, stderr=file, env=variables, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as a Markdown table; floats with four digits."""
    names = list(rows[0])
    cells = [[f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])

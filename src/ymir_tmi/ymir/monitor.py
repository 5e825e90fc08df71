"""`monitor.txt`: how far a task is, for the platform, which looks at it every 20 seconds.

One line, `task <TAB> time <TAB> part done <TAB> state`, of an error also its code and a sentence, and below it up to 99
lines for people. The platform takes a half-written line for the end of the task, so the file is always whole.
"""

from __future__ import annotations

import time
from enum import IntEnum
from pathlib import Path

from ymir_tmi.files.atomic import write_text

_STEP = 0.01  # more is done by this much: write
_EVERY_S = 5.0
_MOST_LINES = 99
LONGEST = 500
"""Characters of the sentence that says what is wrong."""


class State(IntEnum):
    """What the platform calls the states that a task tells of."""

    RUNNING = 2
    ERROR = 4


class Monitor:
    """Tells the platform how far a task is; the part that is done never shrinks, and an error is the last thing told.

    Args:
        path: the file.
        task_id: of the task.
        silent: writes nothing: of several processes only the first one does.
    """

    def __init__(self, path: Path, task_id: str, *, silent: bool = False) -> None:
        self._path = path
        self._task_id = task_id
        self._silent = silent
        self._part = 0.0
        self._written = 0.0  # part
        self._time = -_EVERY_S
        self._ended = False

    def start(self) -> None:
        """Say that the task runs."""
        self._write(State.RUNNING)

    def advance(self, part: float) -> None:
        """Say how much of the task is done, in [0, 1]; most calls write nothing."""
        self._part = max(self._part, min(1.0, part))
        far = self._part - self._written >= _STEP
        if not self._ended and (far or (self._part > self._written and time.monotonic() - self._time >= _EVERY_S)):
            self._write(State.RUNNING)

    def finish(self) -> None:
        """Say that all is done and went well."""
        self._part = 1.0
        self._write(State.RUNNING)
        self._ended = True

    def fail(self, code: int, message: str, details: str = "") -> None:
        """Say that the task has failed, for good.

        Args:
            code: see `ymir.codes`.
            message: why, in one sentence.
            details: lines for people, e.g. where in the program; the last ones count.
        """
        self._part = 1.0
        self._write(State.ERROR, f"\t{code}\t{one_line(message)[:LONGEST]}", details.splitlines()[-_MOST_LINES:])
        self._ended = True

    def _write(self, state: State, more: str = "", lines: list[str] | None = None) -> None:
        self._written, self._time = self._part, time.monotonic()
        if self._silent:
            return
        head = f"{self._task_id}\t{time.time():.6f}\t{self._part:.6f}\t{int(state)}{more}"
        write_text(self._path, "".join(f"{line}\n" for line in [head, *(lines or [])]))


def one_line(text: str) -> str:
    """Return a text without line breaks and TABs, which have a meaning in the file."""
    return " ".join(text.split())

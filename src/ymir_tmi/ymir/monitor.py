"""`monitor.txt`: how far a task is, for the platform, which looks at it every 20 seconds.

One line, `task <TAB> time <TAB> part done <TAB> state`, of an error also its code and a sentence, and below it up to 99
lines for people. The platform takes a half-written line for the end of the task, so the file is always whole
(docs/specs/ymir.md, section 8).
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
    """What the platform calls the states of a task; that it is done, the platform writes itself."""

    RUNNING = 2
    DONE = 3
    ERROR = 4


class Monitor:
    """Tells the platform how far a task is; the part that is done never shrinks, and an error is the last thing told.

    Args:
        path: the file; None where nobody reads one.
        task_id: of the task.
        silent: does not say how far it is: of several processes only the first one does. Each says why it has failed.
    """

    def __init__(self, path: Path | None, task_id: str, *, silent: bool = False) -> None:
        self._path = path
        self._task_id = task_id
        self._silent = silent
        self._part = 0.0
        self._written = 0.0  # part
        self._time = -_EVERY_S
        self._begun = silent  # a process that is not the first comes when the first has begun
        self._ended = False

    def start(self) -> None:
        """Say that the task runs."""
        self._write(State.RUNNING)
        self._begun = True

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

    def fail(self, code: int, message: str, details: str = "") -> tuple[int, str]:
        """Say that the task has failed, for good; return the code and the sentence that the platform is told.

        Of several processes that of the first to fail counts: the others fail since they miss it.

        Args:
            code: see `ymir.codes`.
            message: why, in one sentence.
            details: lines for people, e.g. where in the program; the last ones count.
        """
        told = self._told() if self._begun else None
        if told is None:
            told = code, one_line(message)[:LONGEST]
            self._part = 1.0
            self._write(State.ERROR, f"\t{told[0]}\t{told[1]}", details.splitlines()[-_MOST_LINES:])
        self._ended = True
        return told

    def _told(self) -> tuple[int, str] | None:
        """Return the error in the file, None if there is none: it is of another process of the task."""
        if self._path is None or not self._path.is_file():
            return None
        head, *_ = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        fields = head.split("\t")
        if len(fields) < 6 or fields[3] != str(int(State.ERROR)) or not fields[4].isdecimal():
            return None
        return int(fields[4]), fields[5]

    def _write(self, state: State, more: str = "", lines: list[str] | None = None) -> None:
        self._written, self._time = self._part, time.monotonic()
        if self._path is None or (self._silent and state != State.ERROR):
            return
        head = f"{self._task_id}\t{time.time():.6f}\t{self._part:.6f}\t{int(state)}{more}"
        write_text(self._path, "".join(f"{line}\n" for line in [head, *(lines or [])]))


def one_line(text: str) -> str:
    """Return a text without line breaks and TABs, which have a meaning in the file."""
    return " ".join(text.split())

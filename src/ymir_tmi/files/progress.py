"""Progress of long work, from one source: a bar in a terminal, plain lines when piped, and events in a file.

The file (one JSON object a line) is the interface for other programs; the bar is only one view of it. Whoever runs the
work in the same process can listen to it (`listening`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0
_EVENT_EVERY_S = 1.0

Listener = Callable[[str, int, int], None]
"""Is told the title of a piece of work, how many of its steps are done, and how many there are."""

_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every step of all work in this process, until the block ends."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class ProgressReporter:
    """Reports how far one piece of work is. Use as a context manager.

    Args:
        title: What is being done, e.g. "mine".
        total: Number of steps.
        done: Steps that an earlier part of a resumed run has done.
        events: File that events are appended to, or None.
        stream: Where a person looks; standard error, so that standard output stays free for results.
        quiet: Shows nothing to a person; events are still written.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        done: int = 0,
        events: Path | None = None,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.title = title
        self.total = total
        self.done = self._done_before = done
        self._events = events
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._started = self._last_line = self._last_event = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressReporter:
        if not self._quiet and self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._write_event({"state": "done" if kind is None else "stopped"})

    def advance(self, steps: int = 1, **values: float) -> None:
        """Count `steps` more; `values` (losses, AP, images per second) are shown beside the bar."""
        self.done += steps
        for listener in _listeners:
            listener(self.title, self.done, self.total)
        now = time.monotonic()
        finished = self.done >= self.total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, note=_note(values))
        elif not self._quiet and (finished or now - self._last_line >= _LINE_EVERY_S):
            self._last_line = now
            print(f"{self.title} {self.done}/{self.total} {_note(values)}".rstrip(), file=self._stream, flush=True)
        if finished or now - self._last_event >= _EVENT_EVERY_S:
            self._last_event = now
            self._write_event({"state": "running", **values})

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the present speed, or None before the first step."""
        done_here = self.done - self._done_before
        if not done_here:
            return None
        return (time.monotonic() - self._started) / done_here * (self.total - self.done)

    def _write_event(self, values: dict[str, Any]) -> None:
        if self._events is None:
            return
        event = {
            "time": time.time(),
            "title": self.title,
            "done": self.done,
            "total": self.total,
            "eta_seconds": self.eta_seconds,
            **values,
        }
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def speed_text(images_per_second: float) -> str:
    """Return a speed with a digit after the point, or two that are not zero where it is slower than one a second."""
    slow = images_per_second < 1
    return f"{images_per_second:.2g} images/s" if slow else f"{images_per_second:.1f} images/s"


def _note(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())

"""A task of the platform, and how it is spoken of while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ymir_tmi.files.progress import listening
from ymir_tmi.ymir.contract import Env
from ymir_tmi.ymir.monitor import Monitor, one_line
from ymir_tmi.ymir.orders import Machine
from ymir_tmi.ymir.profile import Profile
from ymir_tmi.ymir.surroundings import is_first

_RUN_VARIABLE = "YMIR_TMI_RUN"  # tells the other processes of a task which folder the first one has chosen


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        env: where everything is.
        config: all of config.yaml.
        profile: what this image is.
        object_type: 2 boxes, 3 classes of pixels, 4 masks of objects.
        class_names: in the order of their ids.
        device: as our settings call it.
        machine: the same as the parameters of images see it.
        monitor: is told how far it is.
        folder: for files that nobody needs afterwards.
        run: the run folder to make.
    """

    env: Env
    config: Mapping[str, Any]
    profile: Profile
    object_type: int
    class_names: tuple[str, ...]
    device: str
    machine: Machine
    monitor: Monitor
    folder: Path
    run: Path

    @contextmanager
    def watched(self, low: float, high: float) -> Iterator[None]:
        """Let the work of a block be the part of the task from `low` to `high`."""

        def listen(title: str, done: int, total: int) -> None:
            if title in ("train", "mine", "infer") and total:
                self.monitor.advance(low + (high - low) * done / total)

        with listening(listen):
            yield


@contextmanager
def new_run_folder(root: Path) -> Iterator[Path]:
    """Choose a folder below the results, where there is room; in all processes of a task the same one."""
    given = os.environ.get(_RUN_VARIABLE)
    if given is not None:
        yield Path(given)
        return
    folders = (root / f"run-{number}" for number in count(1))
    chosen = next(folder for folder in folders if not folder.exists())
    os.environ[_RUN_VARIABLE] = str(chosen)
    try:
        yield chosen
    finally:
        del os.environ[_RUN_VARIABLE]


def say(sentence: str) -> None:
    """Tell the operator something; of several processes one does."""
    if is_first():
        print(one_line(sentence), flush=True)

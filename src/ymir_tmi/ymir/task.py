"""A task of the platform, and how it is spoken of while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from ymir_tmi.files.progress import listening
from ymir_tmi.ymir.contract import Env
from ymir_tmi.ymir.monitor import Monitor, one_line
from ymir_tmi.ymir.orders import Machine
from ymir_tmi.ymir.profile import Profile
from ymir_tmi.ymir.surroundings import is_first

_RUN_VARIABLE = "YMIR_TMI_RUN"  # tells the other processes of a training which folder the first one has made


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

    @cached_property
    def run(self) -> Path:
        """The run folder: a new one below the results, where there is room, in every process the same."""
        if _RUN_VARIABLE not in os.environ:
            folders = (self.env.outputs.root / f"run-{number}" for number in count(1))
            os.environ[_RUN_VARIABLE] = str(next(folder for folder in folders if not folder.exists()))
        return Path(os.environ[_RUN_VARIABLE])

    @contextmanager
    def watched(self, low: float, high: float) -> Iterator[None]:
        """Let the work of a block be the part of the task from `low` to `high`."""

        def listen(title: str, done: int, total: int) -> None:
            if title in ("train", "mine", "infer") and total:
                self.monitor.advance(low + (high - low) * done / total)

        with listening(listen):
            yield


def say(sentence: str) -> None:
    """Tell the operator something; of several processes one does."""
    if is_first():
        print(one_line(sentence), flush=True)

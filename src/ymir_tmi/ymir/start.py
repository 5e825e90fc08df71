"""`ymir-tmi ymir start`: what an image does when the platform starts it."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ymir_tmi.data.formats.ymir_folder import class_names_of
from ymir_tmi.errors import TmiError
from ymir_tmi.ymir.codes import code_of
from ymir_tmi.ymir.contract import ENV_FILE, Env, find_monitor, read_config, read_env, require_task
from ymir_tmi.ymir.devices import choose_device
from ymir_tmi.ymir.images import find_profile
from ymir_tmi.ymir.inputs import read_object_type
from ymir_tmi.ymir.monitor import LONGEST, Monitor, one_line
from ymir_tmi.ymir.surroundings import is_first, prepare_surroundings
from ymir_tmi.ymir.task import Task, new_run_folder, say

PROFILE_VARIABLE = "YMIR_TMI_PROFILE"
DEFAULT_PROFILE = "all-in-one"

_COMMAND_LINES = ("args_options", "cfg_options")  # keys of config.yaml that hold one, or a part of one
_TYPED = re.compile(r" \([^()]*--[^()]*\)")


def start(profile: str | None = None, env_file: Path = ENV_FILE) -> int:
    """Do what the platform asks for; return the exit status.

    What has gone wrong is said by the exit status, by `monitor.txt` and by the last line that is printed.

    Args:
        profile: which image this is; by default what $YMIR_TMI_PROFILE says, else all-in-one.
        env_file: `env.yaml`.
    """
    prepare_surroundings()
    monitor = Monitor(*find_monitor(env_file), silent=not is_first())
    with _stopped_as_by_ctrl_c():
        try:
            env = read_env(env_file)
            monitor.start()
            with _warnings_told():
                _carry_out(env, env_file, profile, monitor)
            monitor.finish()
        except BaseException as error:
            return _fail(error, monitor)
    say("done")
    return 0


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a task as Ctrl-C does, so that why it ended is told.

    `docker stop` sends it, to the first process of a container, which does not even see it unless it asks for it.
    """

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Tell the operator of warnings as of everything else, in a sentence, and of each once."""
    seen = set[str]()

    def tell(text: str) -> None:
        if text not in seen:
            seen.add(text)
            say(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, *_: tell(str(message))
        yield


def _carry_out(env: Env, env_file: Path, profile: str | None, monitor: Monitor) -> None:
    require_task(env, env_file)
    config = read_config(env.inputs.config)
    chosen = find_profile(profile or os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE)
    object_type = read_object_type(config, chosen)
    device, machine = choose_device(config, say)
    names = class_names_of(config, env.inputs.config)
    with tempfile.TemporaryDirectory(prefix="ymir-tmi-") as folder, new_run_folder(env.outputs.root) as run:
        task = Task(env, config, chosen, object_type, names, device, machine, monitor, Path(folder), run)
        _verb(env)(task)


def _verb(env: Env) -> Callable[[Task], None]:
    """Return what does the task; PyTorch and all that is heavy is imported only now."""
    if env.training:
        from ymir_tmi.ymir.training import train_task

        return train_task
    from ymir_tmi.ymir.passes import pass_task

    return pass_task


def _fail(error: BaseException, monitor: Monitor) -> int:
    """Tell why a task has failed, last of all on the console, and return the exit status."""
    code, message = code_of(error), _sentence(error)
    details = "".join(traceback.format_exception(error))
    if not isinstance(error, TmiError | KeyboardInterrupt):
        print(details, file=sys.stderr)
    if len(message) > LONGEST:
        print(message, file=sys.stderr)
        message = message[:LONGEST]
    told = int(code), message
    try:
        told = monitor.fail(*told, details)
    except (OSError, TmiError) as problem:
        print(f"cannot write the monitor file: {problem}", file=sys.stderr)
    sys.stdout.flush()
    print("error {}: {}".format(*told), file=sys.stderr, flush=True)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, TmiError) else 1


def _sentence(error: BaseException) -> str:
    if isinstance(error, TmiError):
        return TmiError(error.what, where=error.where, fix=_remedy(error)).one_line()
    if isinstance(error, KeyboardInterrupt):
        return "the task was stopped"
    return one_line(f"{type(error).__name__}: {_reason(str(error))}")


def _remedy(error: TmiError) -> str | None:
    """Return a remedy without what is typed at a command line, which a user of the platform does not have."""
    if error.where in _COMMAND_LINES or error.fix is None:
        return error.fix
    words = _TYPED.sub("", error.fix)
    return None if "--" in words or "ymir-tmi " in words else words


def _reason(text: str) -> str:
    """Return what an exception says; one from a worker of PyTorch has a traceback in it, and says it at the end."""
    lines = text.strip().splitlines()
    return lines[-1] if lines and lines[0].startswith("Caught ") else text

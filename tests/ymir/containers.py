"""Runs tasks as the platform's container would: mounts of their own, a user whom nobody knows, no home.

A root folder is put together of this machine's folders, all of them read only, with an empty /tmp and with /in and /out
where the task is. Where that is not allowed, a task runs with the paths that its env.yaml names.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ymir_tmi
from ymir_tmi.ymir.sample_task import SampleTask, TaskOrder, write_sample_task

_UNKNOWN = 12345
_NOT_MOUNTED = {"tmp", "in", "out", "proc", "dev", "sys", "lost+found"}
_SOURCES = Path(ymir_tmi.__file__).parents[1]


@dataclass(frozen=True)
class Finished:
    """What a run has left."""

    task: SampleTask
    status: int
    lines: list[str]


def run_order(folder: Path, order: TaskOrder, profile: str) -> Finished:
    """Write a task, and run it by the command line of the package."""
    task = write_sample_task(folder, order, mounted=has_namespaces())
    return run_task(task, profile)


def run_task(task: SampleTask, profile: str) -> Finished:
    """Run a task that was written with `mounted=has_namespaces()`."""
    env_file = "/in/env.yaml" if has_namespaces() else str(task.env_file)
    return _run(task, [sys.executable, "-m", "ymir_tmi.cli", "ymir", "start", "--env", env_file], profile)


def run_python(task: SampleTask, program: str) -> Finished:
    """Run a Python program where the task would run."""
    return _run(task, [sys.executable, "-c", program], "all-in-one")


@functools.cache
def has_namespaces() -> bool:
    """Tell whether this user may make mounts of his own."""
    command = [*_unshare(), "sh", "-c", "mount -t tmpfs tmpfs /mnt && exec unshare --user --map-user=12345 true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unshare() -> list[str]:
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def _run(task: SampleTask, command: Sequence[str], profile: str) -> Finished:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_SOURCES),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "YMIR_TMI_PROFILE": profile,
        "YMIR_TMI_CACHE": "/nowhere",
    }
    if has_namespaces():
        script = f"{_root_folder(task)}\nexec {shlex.join(_inside(command))}"
        command = [*_unshare(), "sh", "-c", script]
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Finished(task, result.returncode, result.stdout.splitlines())


def _inside(command: Sequence[str]) -> list[str]:
    user = ["unshare", "--user", f"--map-user={_UNKNOWN}", f"--map-group={_UNKNOWN}"]
    return [*user, *command]


def _root_folder(task: SampleTask) -> str:
    """Return a script that puts a root folder together in /mnt, which nobody else sees."""
    lines = ["set -e", "mount -t tmpfs tmpfs /mnt", "mkdir /mnt/tmp /mnt/in /mnt/out", "mount -t tmpfs tmpfs /mnt/tmp"]
    for name in ("proc", "dev", "sys"):
        lines += [f"mkdir /mnt/{name}", f"mount --rbind /{name} /mnt/{name}"]
    for place in sorted(Path("/").iterdir()):
        if place.is_symlink():
            lines.append(f"ln -s {place.readlink()} /mnt{place}")
        elif place.is_dir() and place.name not in _NOT_MOUNTED:
            lines += _bind(place, str(place), read_only=True)
    for place in {_SOURCES, Path(sys.prefix), Path(sys.base_prefix)}:
        if place.is_relative_to("/tmp"):
            lines += _bind(place, str(place), read_only=True)
    for link in task.links:
        lines += _bind(link, str(link), read_only=link.name == "asset_cache")
    lines += _bind(task.input, "/in", read_only=True) + _bind(task.output, "/out", read_only=False)
    # A user of one's own may be made in the root of the mounts only, which a mere chroot is not.
    lines += ["mount -o remount,ro /mnt", "cd /mnt", "pivot_root . .", "umount --lazy .", "cd /"]
    return "\n".join(lines)


def _bind(source: Path, target: str, *, read_only: bool) -> list[str]:
    inside = shlex.quote(f"/mnt{target}")
    lines = [f"mkdir -p {inside}", f"mount --rbind {shlex.quote(str(source))} {inside}"]
    return [*lines, f"mount -o remount,bind,ro {inside}"] if read_only else lines

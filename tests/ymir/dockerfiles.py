"""Reads a Dockerfile, and carries out its steps in folders, where no container engine is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template


@dataclass(frozen=True)
class Step:
    """One instruction with its text, continuation lines joined."""

    name: str
    text: str


def read_steps(file: Path) -> list[Step]:
    """Return the steps of a Dockerfile."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@dataclass
class Stage:
    """A folder that stands for the file system of one stage.

    Attributes:
        root: the folder.
        environment: what ENV has set; it stays in the image.
        arguments: what ARG has set; RUN sees it too.
        folder: the working folder.
        command: what CMD says.
    """

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
        }
    )
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    command: tuple[str, ...] = ()

    def run(
        self, command: Sequence[str], *, user: str = "root", mounts: Mapping[Path, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this folder as its root, in mounts of its own; output is text, errors among it.

        Args:
            command: the program and its arguments.
            user: user:group, names or numbers.
            mounts: folders of this machine, and where they are inside; ":ro" behind it makes them read only.
        """
        script = ["set -e", f"mount --rbind /dev {self.root}/dev", f"mount -t proc proc {self.root}/proc"]
        for source, place in (mounts or {}).items():
            target, _, mode = place.partition(":")
            (self.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            script.append(f"mount --bind {source} {self.root}{target}")
            if mode == "ro":
                script.append(f"mount -o remount,bind,ro {self.root}{target}")
        script.append(
            f'exec chroot --userspec={user} {self.root} /bin/sh -c \'cd "$0" && exec "$@"\' {self.folder} "$@"'
        )
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", "\n".join(script), "sh", *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


class Build:
    """Carries out the steps of a Dockerfile, each stage in a copy of `base`."""

    def __init__(
        self,
        context: Path,
        base: Path,
        work: Path,
        given: Mapping[str, str],
        settings: Mapping[str, str],
        mounts: Mapping[Path, str],
    ) -> None:
        self._context, self._base, self._work = context, base, work
        self._given = given  # --build-arg
        self._settings, self._mounts = settings, mounts  # of RUN alone: how this machine reaches package indexes
        self._globals: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}

    def carry_out(self, steps: Sequence[Step]) -> Stage:
        """Carry out all steps; return the last stage."""
        stage: Stage | None = None
        for step in steps:
            if step.name == "FROM":
                stage = self._begin(step.text)
            elif stage is None:
                assert step.name == "ARG"
                self._globals.update(self._argument(step.text))
            else:
                getattr(self, f"_{step.name.lower()}")(stage, step.text)
        assert stage is not None
        return stage

    def _begin(self, text: str) -> Stage:
        image, *name = re.split(r"\s+AS\s+", text)
        assert Template(image).substitute(self._globals) == "python:3.11-slim-bookworm"
        root = self._work / (name[0] if name else "image")
        subprocess.run(["cp", "--archive", self._base, root], check=True)  # there are devices among the files
        self.stages[root.name] = Stage(root)
        return self.stages[root.name]

    def _argument(self, text: str) -> dict[str, str]:
        name, has_default, default = text.partition("=")
        if name in self._given:
            return {name: self._given[name]}
        return {name: default.strip('"')} if has_default else {}

    def _arg(self, stage: Stage, text: str) -> None:
        stage.arguments.update(self._argument(text))

    def _env(self, stage: Stage, text: str) -> None:
        for pair in text.split():
            name, _, value = pair.partition("=")
            stage.environment[name] = Template(value).substitute(stage.arguments | stage.environment)

    def _workdir(self, stage: Stage, text: str) -> None:
        stage.folder = text
        (stage.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, stage: Stage, text: str) -> None:
        *sources, target = text.split()
        origin = self._context
        if sources[0].startswith("--from="):
            origin = self.stages[sources.pop(0).removeprefix("--from=")].root
        place = stage.root / (Path(stage.folder) / target).relative_to("/")
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into = place / found.name if target.endswith("/") or len(sources) > 1 else place
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, into)

    def _run(self, stage: Stage, text: str) -> None:
        during = Stage(stage.root, {**self._settings, **stage.environment, **stage.arguments}, folder=stage.folder)
        result = during.run(["/bin/sh", "-c", text], mounts=self._mounts)
        assert result.returncode == 0, f"RUN {text}\n{result.stdout[-4000:]}"

    def _cmd(self, stage: Stage, text: str) -> None:
        stage.command = tuple(json.loads(text))

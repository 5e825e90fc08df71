"""`run.json`: what was asked for, with which versions and data, and what came out."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ymir_tmi.errors import RunError
from ymir_tmi.files.atomic import write_json

Status = Literal["running", "done", "interrupted", "failed"]

_PACKAGES = (
    "ymir-tmi",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "opencv-contrib-python-headless",
    "pillow",
    "faster-coco-eval",
    "onnx",
    "onnxruntime",
    "openvino",
)


class Manifest:
    """The manifest of one run, written anew whenever something is added."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def start(cls, path: Path, verb: str, settings: dict[str, Any]) -> Manifest:
        """Write a new manifest with status `running`. `settings` are JSON-able."""
        manifest = cls(
            path,
            {
                "verb": verb,
                "status": "running",
                "started": _now(),
                "finished": None,
                "settings": settings,
                "versions": versions(),
                "command": sys.argv,
            },
        )
        manifest.save()
        return manifest

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            RunError: the file is missing or is not a manifest.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read the manifest of this run: {error}", where=path) from error
        if not isinstance(content, dict) or "verb" not in content:
            raise RunError("this is not the manifest of a run", where=path)
        return cls(path, content)

    def restart(self) -> Manifest:
        """Set the status of a run that goes on to `running`."""
        self.content.pop("error", None)
        self.add(status="running", finished=None)
        return self

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Set the status to `interrupted` (Ctrl-C) or `failed` where the block ends with an error.

        An interruption gets the run folder as a note, so that the user can be told how to go on.
        """
        if isinstance(error, KeyboardInterrupt):
            error.add_note(str(self.path.parent))
            self.finish("interrupted")
        elif error is not None:
            self.finish("failed", error=str(error))

    def add(self, **entries: Any) -> None:
        """Add or replace top-level entries and write the file."""
        self.content.update(entries)
        self.save()

    def finish(self, status: Status, **entries: Any) -> None:
        """Add entries, the final status and the time."""
        self.add(status=status, finished=_now(), **entries)

    def save(self) -> None:
        """Write the file, atomically."""
        write_json(self.path, self.content)


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that results depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

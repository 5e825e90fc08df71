"""Writing so that a reader, or a run that is killed, never sees half a file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ymir_tmi.errors import RunError


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Make a file or folder in the block; where the system refuses it, the user has to choose another place.

    Raises:
        RunError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"this cannot be made: {error.strerror or error}", where=path, fix="Choose a place that can be written to."
        ) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary name keeps the suffix of `path`, since writers such as `cv2.imwrite` choose the format by it.

    Raises:
        RunError: no file can be made there.
    """
    path = Path(path)
    with making(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block ends without an error, else remove it.

    `path` must not exist, or be an empty folder.

    Raises:
        RunError: no folder can be made there.
    """
    path = Path(path)
    with making(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary)
        raise


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends without an error, move the files in it to `folder`, else remove it.

    `folder` is made where it does not exist; its files of the same names are replaced.
    """
    folder = Path(folder)
    home = next(parent for parent in [folder, *folder.absolute().parents] if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{folder.name}-") as temporary:
        yield Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(temporary).iterdir()):
            file.replace(folder / file.name)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON (non-ASCII text as it is, NaN refused), atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    # Python can read the umask only by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask

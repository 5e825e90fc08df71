"""The folder that holds downloaded weights, and whether what is in it is what it should be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ymir_tmi.weights.table import OfficialWeights, find_weights, official_weights

State = Literal["right", "wrong", "unchecked", "missing"]

_WORDS: dict[State, str] = {
    "right": "checksum right",
    "wrong": "WRONG checksum or size",
    "unchecked": "no checksum is published",
    "missing": "missing",
}


def cache_folder(folder: Path | None = None) -> Path:
    """Return the folder for downloaded weights: the one given, that of $YMIR_TMI_CACHE, or one in the user's cache."""
    if folder is not None:
        return folder
    if chosen := os.environ.get("YMIR_TMI_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ymir-tmi" / "weights"


def sha256_of(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(row: OfficialWeights, path: Path) -> State:
    """Compare a file with what the list says of it."""
    if not path.is_file():
        return "missing"
    if row.bytes is not None and path.stat().st_size != row.bytes:
        return "wrong"
    if not row.sha256_prefix:
        return "unchecked"
    return "right" if sha256_of(path).startswith(row.sha256_prefix) else "wrong"


@dataclass(frozen=True)
class VerifiedFile:
    """One file of the cache."""

    name: str
    path: str
    state: State


@dataclass(frozen=True)
class Verification:
    """What was found in the cache."""

    folder: Path
    files: Sequence[VerifiedFile]

    @property
    def ok(self) -> bool:
        """Whether no file is wrong or missing."""
        return all(file.state in ("right", "unchecked") for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"folder": str(self.folder), "ok": self.ok, "files": [asdict(file) for file in self.files]}

    def to_text(self) -> str:
        """Return one line for each file."""
        if not self.files:
            return f"there are no downloaded weights in {self.folder}"
        return "\n".join(f"{file.name}: {_WORDS[file.state]}  {file.path}" for file in self.files)


def verify(names: Sequence[str] = (), *, cache: Path | None = None) -> Verification:
    """Compare downloaded weights, all of them or those of these names, with their checksums.

    Raises:
        ModelError: a name is not in the list.
    """
    folder = cache_folder(cache)
    rows = [find_weights(name) for name in names] or [
        row for row in official_weights() if (folder / row.file).is_file()
    ]
    files = [VerifiedFile(row.id, str(folder / row.file), check_file(row, folder / row.file)) for row in rows]
    return Verification(folder, files)

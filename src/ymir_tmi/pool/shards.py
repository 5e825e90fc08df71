"""Rows of a pass over a pool, shard by shard, so that a killed run goes on where it stopped.

A shard is a fixed range of images. Its rows are written when all of its images are done, as one file for each consumer,
and are never changed. Batches do not cross the borders of shards: whoever computes a shard, and whenever, the rows are
the same.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import RunError
from ymir_tmi.files.atomic import write_json, write_text
from ymir_tmi.models.runtime.open import files_of
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Row

SHARD_IMAGES = 256
"""In a large pool; small enough that a killed run loses seconds, large enough that batches of one shape fill."""
_SMALLEST_SHARD = 16
_SHARDS = 16  # of a small pool, so that several processes have something to do


def shards_of(images: int) -> list[range]:
    """Return the image positions of each shard of a pool; they follow from its size alone."""
    size = min(SHARD_IMAGES, max(_SMALLEST_SHARD, images // _SHARDS))
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


class RowStore(ABC):
    """Where the rows of a pass go."""

    @abstractmethod
    def is_finished(self, shard: int) -> bool:
        """Return whether the rows of a shard are here already."""

    @abstractmethod
    def write(self, shard: int, rows: Mapping[str, Sequence[Row]]) -> None:
        """Take the rows of a finished shard, by the name of the consumer, in the order of the images."""

    @abstractmethod
    def merge(self) -> None:
        """Bring the rows of all processes together; every process calls it after its last shard."""

    @abstractmethod
    def rows(self, consumer: str) -> Iterator[Row]:
        """Yield the rows of one consumer, one for each image of the pool, in its order."""

    def images_done(self, images: int) -> int:
        """Return how many of a pool's `images` lie in finished shards."""
        return sum(len(shard) for number, shard in enumerate(shards_of(images)) if self.is_finished(number))


class PackedRows(Sequence[Row]):
    """Rows as bytes, each of which is unpacked when it is looked at: a fifth of what lists of numbers take.

    Rotated boxes come by the thousand in an image, and every process of several holds the rows of all.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._packed = [pickle.dumps(row) for row in rows]

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        """Return one row, or some."""
        if isinstance(place, slice):
            return [pickle.loads(packed) for packed in self._packed[place]]
        row: Row = pickle.loads(self._packed[place])
        return row


class MemoryRows(RowStore):
    """Keeps rows in memory: for evaluation, which is over with the process."""

    def __init__(self) -> None:
        self._shards: dict[int, dict[str, PackedRows]] = {}

    def is_finished(self, shard: int) -> bool:
        """Return whether the rows of a shard are here already."""
        return shard in self._shards

    def write(self, shard: int, rows: Mapping[str, Sequence[Row]]) -> None:
        """Take the rows of a finished shard."""
        self._shards[shard] = {name: PackedRows(its_rows) for name, its_rows in rows.items()}

    def merge(self) -> None:
        """Give every process the rows of all."""
        for shards in ranks.gather(self._shards):
            self._shards.update(shards)

    def rows(self, consumer: str) -> Iterator[Row]:
        """Yield the rows of one consumer in the order of the pool."""
        for shard in sorted(self._shards):
            yield from self._shards[shard][consumer]


class FileRows(RowStore):
    """Keeps rows in files: JSON lines in `<folder>/<consumer>/<shard>.jsonl`, and what they depend on in one more.

    Args:
        folder: `RunLayout.shards`.
        consumers: names of all consumers of the pass.
        fingerprint: what the rows depend on, by name; JSON-able.

    Raises:
        RunError: the folder holds rows that depend on something else.
    """

    def __init__(self, folder: Path, consumers: Sequence[str], fingerprint: Mapping[str, Any]) -> None:
        self._folder = folder
        self._consumers = tuple(consumers)
        path = folder / "fingerprint.json"
        if path.is_file():
            _compare(json.loads(path.read_text(encoding="utf-8")), fingerprint, folder.parent)
        else:
            write_json(path, fingerprint)

    def is_finished(self, shard: int) -> bool:
        """Return whether every consumer has a file for the shard."""
        return all(self._path(name, shard).is_file() for name in self._consumers)

    def write(self, shard: int, rows: Mapping[str, Sequence[Row]]) -> None:
        """Write one file for each consumer, atomically."""
        for name, its_rows in rows.items():
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in its_rows)
            write_text(self._path(name, shard), "".join(f"{line}\n" for line in lines))

    def merge(self) -> None:
        """Wait until all processes have written."""
        ranks.wait_for_all()

    def rows(self, consumer: str) -> Iterator[Row]:
        """Yield the rows of one consumer in the order of the pool, holding one at a time."""
        for path in sorted((self._folder / consumer).glob("*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def remove(self) -> None:
        """Delete the files, once what was made of the rows is written; one process does it when the others are done."""
        shutil.rmtree(self._folder)

    def _path(self, consumer: str, shard: int) -> Path:
        return self._folder / consumer / f"{shard:08}.jsonl"


def fingerprint(index: DatasetIndex, *, model: Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rows of a pass depend on: the images, the model file and those `settings` that change a row.

    Raises:
        RunError: the model file cannot be read.
    """
    paths = hashlib.sha256(index.paths.data.tobytes() + index.paths.offsets.tobytes()).hexdigest()
    return {
        "images": f"{len(index)} images, {index.fingerprint()}-{paths[:16]}",
        "model": " ".join(map(_hash_file, files_of(model))) if model is not None else None,
        **settings,
    }


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot read the model file: {error.strerror}", where=path) from error


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Refuse to mix rows that depend on different things."""
    now = json.loads(json.dumps(now))  # as the file has it: lists for tuples
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise RunError(
                f"this run cannot be gone on with: {name} was {before.get(name)!r} and is now {now.get(name)!r}",
                where=run,
                fix="Give the same model, images and settings as before, or start a new run.",
            )

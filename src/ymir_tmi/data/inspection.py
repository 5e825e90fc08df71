"""Looking at every picture of a data set: is it there, can it be read, has it the stated size, does it occur twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import ImageError
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.imaging import decode_image, image_size, read_image

_CHUNK = 32  # pictures that one thread looks at in one go
_ENDS = 4096  # bytes at either end of a file that nearly always differ between two pictures

Size = tuple[int, int]


class Inspected(NamedTuple):
    """What one picture is like.

    Attributes:
        unreadable: why it cannot be read, or None.
        wrong_size: in which way it has another size than is stated, or None.
        size: (width, height) upright; (0, 0) if it cannot be read.
        digest: equal for equal files; in fast mode also for most unlike ones with the same ends.
    """

    unreadable: str | None
    wrong_size: str | None
    size: Size
    digest: bytes


def inspect_pictures(index: DatasetIndex, *, fast: bool, progress: ProgressReporter) -> list[Inspected]:
    """Look at every picture of an index.

    Args:
        index: the pictures and their stated sizes.
        fast: read the headers only; pictures that are cut short go unnoticed.
        progress: is told about every picture.
    """

    def inspect(rows: Sequence[int]) -> list[Inspected]:
        return [_inspect(index, row, fast=fast) for row in rows]

    found: list[Inspected] = []
    chunks = [range(start, min(start + _CHUNK, len(index))) for start in range(0, len(index), _CHUNK)]
    with ThreadPoolExecutor() as pool:  # decoding and waiting for the disk both let other threads run
        for chunk in pool.map(inspect, chunks):
            found.extend(chunk)
            progress.advance(len(chunk))
    return found


def _inspect(index: DatasetIndex, row: int, *, fast: bool) -> Inspected:
    path, stated = index.paths[row], index.size(row)
    try:
        if fast:
            size, digest = image_size(path), _digest_of_ends(path)
        else:
            data = Path(path).read_bytes()
            height, width, _ = decode_image(data, where=path).shape
            size, digest = (width, height), _hash(data)
    except ImageError as error:
        return Inspected(error.what, None, (0, 0), b"")
    except OSError as error:
        return Inspected(f"cannot read this picture: {error.strerror}", None, (0, 0), b"")
    return Inspected(None, _wrong_size(index, row) if stated not in (None, size) else None, size, digest)


def _wrong_size(index: DatasetIndex, row: int) -> str | None:
    """Say what is wrong where the size of the upright picture is not the stated one: that unturned may be."""
    try:
        read_image(index.paths[row], annotated_size=index.size(row), label_picture=index.label_picture(row))
    except ImageError as error:
        return error.what
    return None


def _digest_of_ends(path: str) -> bytes:
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return _hash(start + file.read() + str(size).encode())


def content_digest(path: str) -> bytes:
    """Return a hash of all bytes of a file."""
    return _hash(Path(path).read_bytes())


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()

"""Files that `torch.save` or `pickle.dump` wrote, opened without running anything in them.

Three forms: a zip archive (torch since 1.6), pickles in a row followed by raw numbers (torch before), and one plain
pickle (Detectron2's model zoo). A zip member may not be compressed, which torch never does: so nothing can come out of
a file that is larger than the file.
"""

from __future__ import annotations

import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ymir_tmi.models.convert.pickle_machine import PickleMachine
from ymir_tmi.models.convert.records import RefusedError, StorageRecord

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

Form = Literal["torch", "pickle"]


@dataclass(frozen=True)
class OpenedFile:
    """A file whose pickle has been read; the numbers are read when they are asked for.

    Attributes:
        form: whether torch wrote it or a plain `pickle.dump`.
        content: what the pickle describes.
        read: returns the bytes of a storage; as long as the file is open.
        size: size of the file in bytes.
        not_called: what the file asks to be called and was not.
    """

    form: Form
    content: Any
    read: Callable[[StorageRecord], bytes]
    size: int
    not_called: tuple[str, ...]


@contextmanager
def open_checkpoint(path: Path) -> Iterator[OpenedFile]:
    """Open a file of any of the three forms.

    Raises:
        RefusedError: it is none of them, is damaged, or is made to do harm.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(64)
        if not start:
            raise RefusedError("is empty")
        if start.startswith(b"PK\x03\x04"):
            yield _read_archive(file, path.stat().st_size)
        elif start[:1] in b"\x80(]}":  # how pickles begin
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _read_pickles(data)
        else:
            raise RefusedError(f"is no checkpoint, but {_guess(start)}")


def _guess(start: bytes) -> str:
    """Say what a file seems to be by its first bytes."""
    if start[8:9] == b"{":
        return "a safetensors file; those that ymir-tmi wrote need no conversion"
    if re.match(rb"\xff\xd8\xff|\x89PNG|GIF8", start):
        return "a picture"
    if re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]+", start):
        return "text (perhaps the page of a server that did not have the file)"
    return "something else"


class _Archive:
    """A zip archive that torch wrote."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        with _damage_is_refused():
            self._zip = zipfile.ZipFile(file)
        members = self._zip.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
            raise RefusedError("has compressed or encrypted members, which torch does not write")
        if sum(max(member.file_size, member.compress_size) for member in members) > size:
            raise RefusedError("has members that are larger than the file")
        self.names = {member.filename for member in members}
        if len(self.names) < len(members):
            raise RefusedError("has two members of the same name")
        self.root = self._find_root()

    def _find_root(self) -> str:
        """Return the folder that torch put everything into."""
        roots = [name.partition("/")[0] for name in self.names if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise RefusedError("is a zip archive, but not one that torch wrote")
        if f"{roots[0]}/constants.pkl" in self.names:
            raise RefusedError("is a TorchScript program; the checkpoint that it was made from is needed")
        return roots[0]

    def read(self, name: str) -> bytes:
        path = f"{self.root}/{name}"
        if path not in self.names:
            raise RefusedError(f"lacks its member {name[:80]!r}")
        with _damage_is_refused():
            return self._zip.read(path)

    def read_storage(self, storage: StorageRecord) -> bytes:
        data = self.read(f"data/{storage.key}")
        if len(data) < storage.bytes:
            raise RefusedError(f"has too few numbers in its member {storage.key[:80]!r}")
        return data[: storage.bytes]


@contextmanager
def _damage_is_refused() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise RefusedError("is cut short or damaged") from error


def _read_archive(file: BinaryIO, size: int) -> OpenedFile:
    archive = _Archive(file, size)
    if f"{archive.root}/byteorder" in archive.names and archive.read("byteorder") != b"little":
        raise RefusedError("was written by a machine with another byte order")
    machine = PickleMachine(archive.read("data.pkl"))
    return OpenedFile("torch", machine.run(), archive.read_storage, size, tuple(machine.not_called))


def _read_pickles(data: mmap.mmap) -> OpenedFile:
    machine = PickleMachine(data)
    first = machine.run()
    if first == _MAGIC and type(first) is int:
        return _read_legacy(data, machine.position)

    def read(storage: StorageRecord) -> bytes:
        raise RefusedError("has tensors whose numbers are not in it")

    return OpenedFile("pickle", first, read, len(data), tuple(machine.not_called))


def _read_legacy(data: mmap.mmap, position: int) -> OpenedFile:
    """Read what follows the magic number: protocol, system, object, keys; then for each key a count and the numbers."""
    machines, values = [], []
    for _ in range(4):
        machines.append(PickleMachine(data, position))
        values.append(machines[-1].run())
        position = machines[-1].position
    protocol, system, content, keys = values
    described = machines[2]
    if protocol != _PROTOCOL or type(system) is not dict or not system.get("little_endian", True):
        raise RefusedError("was written by a machine with another byte order, or in a form that is not read")
    places = _find_storages(data, position, keys, described.storages)

    def read(storage: StorageRecord) -> bytes:
        if storage.key not in places:
            raise RefusedError("has tensors whose numbers are not in it")
        return data[places[storage.key] : places[storage.key] + storage.bytes]

    return OpenedFile("torch", content, read, len(data), tuple(described.not_called))


def _find_storages(data: mmap.mmap, position: int, keys: Any, storages: dict[str, StorageRecord]) -> dict[str, int]:
    """Return where the numbers of each storage begin."""
    places: dict[str, int] = {}
    for key in keys if type(keys) is list else []:
        if type(key) is not str or key not in storages or key in places:
            raise RefusedError("has numbers that belong to no tensor")
        storage = storages[key]
        if position + 8 + storage.bytes > len(data):
            raise RefusedError("is cut short")
        if struct.unpack("<q", data[position : position + 8])[0] != storage.count:
            raise RefusedError("has another number of numbers than it says")
        places[key] = position + 8
        position += 8 + storage.bytes
    return places

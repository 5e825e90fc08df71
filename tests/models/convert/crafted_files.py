"""Checkpoints made by hand: what a file says can be set number by number, and programs can be put into it."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


class Storage:
    """Stands for numbers that lie elsewhere in the file."""

    def __init__(self, key: str, count: int, kind: Any = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cpu", count)


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Rebuilt:
    """Pickles as a call whose result then gets a state."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Module:
    """What the name of is in a file, so that it looks like a class of another program."""


def module(**state: Any) -> Rebuilt:
    """Return a pickled module with `_parameters`, `_buffers`, `_modules` and other attributes."""
    return Rebuilt(Module, (), state)


def tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Call:
    """Return a tensor as torch pickles it, without checks."""
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, Storage) else None


def pickled(content: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol).dump(content)
    return file.getvalue()


def write_zip(
    path: Path, program: bytes, numbers: Mapping[str, bytes] = {}, *, compression: int = zipfile.ZIP_STORED
) -> Path:
    """Write a file as torch does since 1.6."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for key, data in numbers.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def write_legacy(
    path: Path, program: bytes, numbers: Mapping[str, bytes] = {}, *, counts: Mapping[str, int] = {}, system: Any = None
) -> Path:
    """Write a file as torch did before 1.6; a count is that of 4-byte numbers, unless it is given."""
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled(system or {"little_endian": True}), program]
    parts.append(pickled(list(numbers)))
    for key, data in numbers.items():
        parts += [struct.pack("<q", counts.get(key, len(data) // 4)), data]
    path.write_bytes(b"".join(parts))
    return path

"""A machine for pickles that runs nothing.

A pickle is a program for a stack machine. Python's own machine imports whatever the program names and calls it with
whatever the program says, so that to read the file of a stranger is to run the program of a stranger. This one keeps
names as names and calls as records (`records.py`); the few functions that it does apply are this package's own. Work
and memory are bounded by the size of the file: an opcode costs a fixed amount or what it reads, copies are counted, and
there may be only so many opcodes.

The opcodes are those that Python's `pickletools` documents, protocols 0 to 5.
"""

from __future__ import annotations

import mmap
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any

from ymir_tmi.models.convert.records import (
    BUILDERS,
    Name,
    Record,
    RefusedError,
    StorageRecord,
    as_text,
    fill_mapping,
    make_storage,
    set_state,
)

_MAX_OPCODES = 2_000_000  # a checkpoint of YOLOv5x6 in mid-training has about 300 000
_MAX_NAME = 1000  # characters
_MAX_DIGITS = 40  # of a number that is written as text
_MAX_INTEGER = 32  # bytes
_MAX_NOTED = 100  # functions


class PickleMachine:
    """Reads one pickle from `data`, starting at `position`; afterwards `position` is where it ends.

    Attributes:
        storages: the storages that the pickle refers to, by their keys.
        not_called: functions that it asked to be called and that were not, each once, in order.
    """

    def __init__(self, data: bytes | mmap.mmap, position: int = 0) -> None:
        self.position = position
        self.storages: dict[str, StorageRecord] = {}
        self.not_called: dict[str, None] = {}
        self._data = data
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}
        self._opcodes_left = _MAX_OPCODES
        self._copies_left = len(data)

    def run(self) -> Any:
        """Return the value that the pickle describes.

        Raises:
            RefusedError: it is cut short, damaged, or larger than any checkpoint needs to be.
        """
        try:
            while (code := self._read(1)) != pickle.STOP:
                self._opcodes_left -= 1
                if self._opcodes_left < 0:
                    raise RefusedError("describes more objects than any checkpoint has")
                _HANDLERS[code](self)
            return self._stack.pop()
        except (LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
            raise RefusedError(f"is damaged at byte {self.position}") from error

    def _read(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise RefusedError("is cut short")
        read = self._data[self.position : end]
        self.position = end
        return read

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _line(self, longest: int = _MAX_NAME) -> bytes:
        end = self._data.find(b"\n", self.position, self.position + longest + 1)
        if end < 0:
            raise RefusedError("is cut short or damaged")
        line = self._data[self.position : end]
        self.position = end + 1
        return line

    def _spend(self, count: int) -> None:
        self._copies_left -= count
        if self._copies_left < 0:
            raise RefusedError("copies its own content over and over")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    # Plain values

    def _written_integer(self) -> int | bool:
        line = self._line(_MAX_DIGITS).rstrip(b"L")
        return line == b"01" if line in (b"00", b"01") else int(line)

    def _long_integer(self, form: str) -> int:
        size = self._number(form)
        if not 0 <= size <= _MAX_INTEGER:
            raise RefusedError("has a number that no checkpoint has")
        return int.from_bytes(self._read(size), "little", signed=True)

    def _bytes(self, form: str) -> bytes:
        size = self._number(form)
        if size < 0:
            raise RefusedError("is damaged")
        return self._read(size)

    def _text(self, form: str) -> str:
        return self._bytes(form).decode("utf-8", "replace")

    def _old_text(self, form: str) -> str:
        """Return a byte string of Python 2: text, or the data of an array with one character a byte."""
        return self._bytes(form).decode("latin-1")

    def _quoted_text(self) -> str:
        line = self._line(len(self._data)).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise RefusedError("is damaged")
        return re.sub(rb"\\(x[0-9a-f]{2}|.)", _unescape, line[1:-1], flags=re.DOTALL).decode("latin-1")

    def _escaped_text(self) -> str:
        return as_text(self._line(len(self._data)).decode("raw-unicode-escape"))

    # Containers

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) != count:
            raise RefusedError("is damaged")
        del self._stack[len(self._stack) - count :]
        self._push(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target += items
        elif not isinstance(target, Record):
            raise RefusedError("is damaged")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict:
            fill_mapping(target, zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Record):
            raise RefusedError("is damaged")

    def _dict(self) -> None:
        items = self._pop_mark()
        self._push({})
        self._set_items(items)

    def _add_items(self) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise RefusedError("is damaged")
        target |= BUILDERS["builtins.set"](self._spend, items)

    def _put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    # Names, calls and objects

    def _global(self) -> None:
        self._push(Name(self._line().decode(), self._line().decode()))

    def _stack_global(self) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        if type(module) is not str or type(attribute) is not str or len(module) + len(attribute) > _MAX_NAME:
            raise RefusedError("has a name that is none")
        self._push(Name(module, attribute))

    def _make(self, kind: Any, arguments: Any) -> Any:
        """Return a plain value where this package knows how to make it, else a record."""
        builder = BUILDERS.get(str(kind)) if isinstance(kind, Name) else None
        if builder is not None and type(arguments) is tuple:
            return builder(self._spend, *arguments)
        return Record(kind)

    def _call(self, function: Any, arguments: Any) -> None:
        made = self._make(function, arguments)
        if isinstance(made, Record) and isinstance(function, Name) and len(self.not_called) < _MAX_NOTED:
            self.not_called[ascii(str(function))[1:-1]] = None
        self._push(made)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._call(function, arguments)

    def _new_object(self) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        self._push(self._make(kind, arguments))

    def _new_object_with_keywords(self) -> None:
        self._stack.pop()
        self._new_object()

    def _old_instance(self) -> None:
        kind = Name(self._line().decode(), self._line().decode())
        self._call(kind, tuple(self._pop_mark()))

    def _old_object(self) -> None:
        kind, *arguments = self._pop_mark()
        self._call(kind, tuple(arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        set_state(self._stack[-1], state)

    def _persistent(self, persistent_id: Any) -> None:
        found = make_storage(persistent_id)
        if isinstance(found, StorageRecord):
            known = self.storages.setdefault(found.key, found)
            if (known.type, known.count) != (found.type, found.count):
                raise RefusedError("speaks of the same data in two ways")
            found = known
        self._push(found)


_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescape(found: re.Match[bytes]) -> bytes:
    text = found[1]
    return bytes([int(text[1:], 16)]) if len(text) == 3 else _ESCAPED.get(text, text)


Handler = Callable[[PickleMachine], object]


def _pushes(read: Callable[[PickleMachine], object]) -> Handler:
    """Return what an opcode does that pushes what it reads."""
    return lambda machine: machine._stack.append(read(machine))


def _tuples(count: int) -> Handler:
    return lambda machine: machine._tuple(count)


# What each opcode does. Those that are missing (registered extensions, buffers outside of the file) are refused.
_HANDLERS: dict[bytes, Handler] = {
    pickle.PROTO: lambda m: m._read(1),
    pickle.FRAME: lambda m: m._read(8),
    pickle.MARK: PickleMachine._mark,
    pickle.POP: PickleMachine._pop,
    pickle.POP_MARK: PickleMachine._pop_mark,
    pickle.DUP: _pushes(lambda m: m._stack[-1]),
    pickle.NONE: _pushes(lambda m: None),
    pickle.NEWTRUE: _pushes(lambda m: True),
    pickle.NEWFALSE: _pushes(lambda m: False),
    pickle.INT: _pushes(PickleMachine._written_integer),
    pickle.LONG: _pushes(PickleMachine._written_integer),
    pickle.BININT: _pushes(lambda m: m._number("<i")),
    pickle.BININT1: _pushes(lambda m: m._number("<B")),
    pickle.BININT2: _pushes(lambda m: m._number("<H")),
    pickle.LONG1: _pushes(lambda m: m._long_integer("<B")),
    pickle.LONG4: _pushes(lambda m: m._long_integer("<i")),
    pickle.FLOAT: _pushes(lambda m: float(m._line(_MAX_DIGITS))),
    pickle.BINFLOAT: _pushes(lambda m: m._number(">d")),
    pickle.STRING: _pushes(PickleMachine._quoted_text),
    pickle.BINSTRING: _pushes(lambda m: m._old_text("<i")),
    pickle.SHORT_BINSTRING: _pushes(lambda m: m._old_text("<B")),
    pickle.UNICODE: _pushes(PickleMachine._escaped_text),
    pickle.BINUNICODE: _pushes(lambda m: m._text("<I")),
    pickle.SHORT_BINUNICODE: _pushes(lambda m: m._text("<B")),
    pickle.BINUNICODE8: _pushes(lambda m: m._text("<Q")),
    pickle.BINBYTES: _pushes(lambda m: m._bytes("<I")),
    pickle.SHORT_BINBYTES: _pushes(lambda m: m._bytes("<B")),
    pickle.BINBYTES8: _pushes(lambda m: m._bytes("<Q")),
    pickle.BYTEARRAY8: _pushes(lambda m: m._bytes("<Q")),
    pickle.EMPTY_TUPLE: _pushes(lambda m: ()),
    pickle.TUPLE: lambda m: m._push(tuple(m._pop_mark())),
    pickle.TUPLE1: _tuples(1),
    pickle.TUPLE2: _tuples(2),
    pickle.TUPLE3: _tuples(3),
    pickle.EMPTY_LIST: _pushes(lambda m: []),
    pickle.LIST: lambda m: m._push(m._pop_mark()),
    pickle.APPEND: lambda m: m._append([m._stack.pop()]),
    pickle.APPENDS: lambda m: m._append(m._pop_mark()),
    pickle.EMPTY_DICT: _pushes(lambda m: {}),
    pickle.DICT: PickleMachine._dict,
    pickle.SETITEM: lambda m: m._set_items([m._stack.pop(-2), m._stack.pop()]),
    pickle.SETITEMS: lambda m: m._set_items(m._pop_mark()),
    pickle.EMPTY_SET: _pushes(lambda m: set()),
    pickle.ADDITEMS: PickleMachine._add_items,
    pickle.FROZENSET: lambda m: m._push(m._make(Name("builtins", "set"), (m._pop_mark(),))),
    pickle.PUT: lambda m: m._put(int(m._line(_MAX_DIGITS))),
    pickle.BINPUT: lambda m: m._put(m._number("<B")),
    pickle.LONG_BINPUT: lambda m: m._put(m._number("<I")),
    pickle.MEMOIZE: lambda m: m._put(len(m._memo)),
    pickle.GET: lambda m: m._push(m._memo[int(m._line(_MAX_DIGITS))]),
    pickle.BINGET: lambda m: m._push(m._memo[m._number("<B")]),
    pickle.LONG_BINGET: lambda m: m._push(m._memo[m._number("<I")]),
    pickle.GLOBAL: PickleMachine._global,
    pickle.STACK_GLOBAL: PickleMachine._stack_global,
    pickle.REDUCE: PickleMachine._reduce,
    pickle.NEWOBJ: PickleMachine._new_object,
    pickle.NEWOBJ_EX: PickleMachine._new_object_with_keywords,
    pickle.INST: PickleMachine._old_instance,
    pickle.OBJ: PickleMachine._old_object,
    pickle.BUILD: PickleMachine._build,
    pickle.PERSID: lambda m: m._persistent(m._line().decode()),
    pickle.BINPERSID: lambda m: m._persistent(m._stack.pop()),
}

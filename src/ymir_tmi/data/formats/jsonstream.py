"""Reading the lists inside one big JSON object a batch at a time, so that the whole is never in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ymir_tmi.errors import DataError

_CHUNK = 1 << 20  # characters
_BATCH = 1 << 14  # list items
_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


class Batch(NamedTuple):
    """Some items of a list.

    Attributes:
        key: the key of the list in the object.
        items: decoded values.
        lines: the line that each item starts on, counted from 1.
    """

    key: str
    items: list[Any]
    lines: list[int]


def stream_lists(path: Path, others: dict[str, Any] | None = None) -> Iterator[Batch]:
    """Yield the lists of a JSON object in batches, in the file's order; other values go to `others`, by their keys.

    Every list yields at least one batch, which may be empty.

    Raises:
        DataError: the file cannot be read, is empty, is not JSON (with the line), or holds no object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Stream(file, path).lists(others)
    except OSError as error:
        raise DataError(f"cannot read this file: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise DataError("this is not a UTF-8 text file", where=path) from error


class _Stream:
    """A window on the text of a file; everything before `position` is done with."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._text = ""
        self._position = 0
        self._offset = 0  # of the window, in characters
        self._line = 1  # that the window starts in
        self._line_offset = 0  # where that line starts

    def lists(self, others: dict[str, Any] | None) -> Iterator[Batch]:
        self._expect_object()
        if self._next() == "}":
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._error("a key was expected")
            self._skip(":")
            if self._next() == "[":
                yield from self._items(key)
            else:
                value = self._value()
                if others is not None:
                    others[key] = value
            if self._next() == "}":
                break
            self._skip(",")
        self._position += 1
        if self._next():
            raise self._error("there is something after the end of the JSON object")

    def _expect_object(self) -> None:
        first = self._next()
        if not first:
            raise DataError("this file is empty", where=self._path)
        if first == "[":
            raise DataError(
                "this is a JSON list, as results of a detector are, and not a COCO data set",
                where=self._path,
                fix="A COCO data set is one object with 'images', 'annotations' and 'categories'.",
            )
        if first != "{":
            raise self._error("this is not a JSON object")
        self._position += 1

    def _items(self, key: str) -> Iterator[Batch]:
        """Yield the items of the list that starts here, and step over its end."""
        self._position += 1
        items: list[Any] = []
        lines: list[int] = []
        closed = self._next() == "]"
        while not closed:
            self._decode_window(items, lines)
            if len(items) < _BATCH:
                closed = self._decode_one(items, lines)
            if len(items) >= _BATCH:
                yield Batch(key, items, lines)
                items, lines = [], []
        self._position += 1
        yield Batch(key, items, lines)

    def _decode_window(self, items: list[Any], lines: list[int]) -> None:
        """Decode items until the batch is full, or the window or the list ends, or there is a mistake.

        This is where the time goes. Only an item with another one behind it is taken here: what stands at the window's
        end may go on in the next chunk.
        """
        text, position, size = self._text, self._position, len(self._text)
        starts = []
        for _ in range(_BATCH - len(items)):
            try:
                value, end = _decode(text, position)
            except json.JSONDecodeError:
                break
            comma = _COMMA.match(text, end)
            if comma is None or comma.end() == size:
                break
            starts.append(position)
            items.append(value)
            position = comma.end()
        line = self._line + text.count("\n", 0, self._position)
        if text.find("\n", self._position, position) < 0:
            lines.extend([line] * len(starts))
        else:
            for before, start in zip([self._position, *starts], starts, strict=False):
                line += text.count("\n", before, start)
                lines.append(line)
        self._position = position

    def _decode_one(self, items: list[Any], lines: list[int]) -> bool:
        """Decode one item, reading on as far as is needed; return whether it is the last of the list."""
        lines.append(self._line + self._text.count("\n", 0, self._position))
        items.append(self._value())
        if self._next() == "]":
            return True
        self._skip(",")
        self._next()
        return False

    def _value(self) -> Any:
        """Decode the value that starts here, and step over it."""
        self._next()
        failed = -1
        while True:
            try:
                value, end = _decode(self._text, self._position)
            except json.JSONDecodeError as error:
                # A value that is cut off by the window's end fails later on when there is more text, or not at all; a
                # mistake stays where it is. (A string without an end is noted where it starts.)
                place = error.pos - self._position
                mistake = place == failed and not error.msg.startswith("Unterminated string")
                failed = place
                if mistake or not self._read():
                    raise self._not_json(error, place) from None
                continue
            if end + 2 < len(self._text) or not self._read():  # a number cut off after "1e-" would be taken for 1
                self._position = end
                return value

    def _skip(self, character: str) -> None:
        found = self._next()
        if not found:
            raise self._error("this file is cut short")
        if found != character:
            raise self._error(f"this is not JSON: '{character}' was expected")
        self._position += 1

    def _next(self) -> str:
        """Step over white space; return the next character, or "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Move the window on to `position` and read at least as much again; return False at the end of the file."""
        more = self._file.read(max(_CHUNK, len(self._text) - self._position))
        if not more:
            return False
        newline = self._text.rfind("\n", 0, self._position)
        if newline >= 0:
            self._line += self._text.count("\n", 0, self._position)
            self._line_offset = self._offset + newline + 1
        self._offset += self._position
        self._text = self._text[self._position :] + more
        self._position = 0
        return True

    def _not_json(self, error: json.JSONDecodeError, place: int) -> DataError:
        """Explain a mistake `place` characters after the start of the value that is at the window's position."""
        if self._position + place >= len(self._text) or error.msg.startswith("Unterminated string"):
            return self._error("this file is cut short: it ends inside the value that starts here")
        self._position += place
        return self._error(f"this is not JSON: {error.msg[0].lower()}{error.msg[1:]}")

    def _error(self, what: str) -> DataError:
        newline = self._text.rfind("\n", 0, self._position)
        line = self._line + self._text.count("\n", 0, self._position)
        line_offset = self._line_offset if newline < 0 else self._offset + newline + 1
        column = self._offset + self._position - line_offset + 1
        return DataError(what, where=f"{self._path}, line {line}, column {column}")

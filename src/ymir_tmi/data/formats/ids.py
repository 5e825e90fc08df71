"""Ids of annotation files, which may be numbers or text, as columns of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST_TEXT_KEY = -(1 << 62)


def is_text(key: int) -> bool:
    """Return whether a key stands for an id that is not a number."""
    return key < FIRST_TEXT_KEY // 2


class IdKeys:
    """Ids as int64: whole numbers, also written as text, are their own key; other text gets a key far below zero."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def key(self, value: Any) -> int:
        """Return the key of one id; raise ValueError if it is neither text nor a whole number."""
        if isinstance(value, str):
            if value.removeprefix("-").isdecimal():
                return int(value)
            return self._texts.setdefault(value, FIRST_TEXT_KEY + len(self._texts))
        if isinstance(value, bool) or not isinstance(value, int | float) or value != math.floor(value):
            raise ValueError
        return int(value)

    def column(self, values: list[Any]) -> npt.NDArray[np.int64]:
        """Return the keys of many ids; raise ValueError or OverflowError if one has none."""
        keys = np.array(values)
        if keys.dtype == np.int64 and keys.ndim == 1:
            return keys
        return np.fromiter(map(self.key, values), np.int64, len(values))

    def text(self, key: int) -> str:
        """Return the id that has a key, as the file has it."""
        if key > FIRST_TEXT_KEY + len(self._texts):
            return str(key)
        return list(self._texts)[key - FIRST_TEXT_KEY]

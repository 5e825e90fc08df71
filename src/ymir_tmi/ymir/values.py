"""Readers of the values in config.yaml, which come from a web form: a number may be text, a truth 'True', '1' or 1.

A reader turns a value into a typed one, or raises a ValueError, and says in words what it allows. A pydantic field has
it as its `BeforeValidator`. How values change on their way is in docs/specs/ymir.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator


@dataclass(frozen=True)
class Words:
    """The same in both languages of the documentation."""

    english: str
    chinese: str


class Reader(Protocol):
    """Turns a value of config.yaml into a typed one."""

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        ...

    def __call__(self, value: Any) -> Any:
        """Return the typed value.

        Raises:
            ValueError: the value is not allowed.
        """
        ...


def is_missing(value: Any) -> bool:
    """Whether a value says nothing: null, an emptied text box, or the text None or null. Its default is taken."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null"))


@dataclass(frozen=True)
class Whole:
    """Reads a whole number; text and 20.0 are fine.

    Attributes:
        least: smallest that is allowed.
        special: a smaller one that is allowed as well.
        most: largest that is allowed.
    """

    least: int | None = None
    special: int | None = None
    most: int | None = None

    def __call__(self, value: Any) -> int:
        """Return the number."""
        number = _number(value)
        if number != int(number):
            raise ValueError("not a whole number")
        if number != self.special:
            _check_range(number, self.least, self.most)
        return int(number)

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        english, chinese = _range_words(self.least, self.most)
        special = Words("", "") if self.special is None else Words(f", or {self.special}", f"，或 {self.special}")
        return Words(f"a whole number{english}{special.english}", f"整数{chinese}{special.chinese}")


@dataclass(frozen=True)
class Number:
    """Reads a finite number; '1e-05' is fine.

    Attributes:
        least: smallest that is allowed.
        most: largest that is allowed.
    """

    least: float | None = None
    most: float | None = None

    def __call__(self, value: Any) -> float:
        """Return the number."""
        number = _number(value)
        _check_range(number, self.least, self.most)
        return number

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        english, chinese = _range_words(self.least, self.most)
        return Words(f"a number{english}", f"数{chinese}")


@dataclass(frozen=True)
class YesNo:
    """Reads a truth.

    Attributes:
        optional: whether nothing is a value too, None.
    """

    optional: bool = False

    def __call__(self, value: Any) -> bool | None:
        """Return the truth."""
        if self.optional and is_missing(value):
            return None
        text = str(value).strip().lower() if isinstance(value, bool | int | str) else ""
        if text in ("true", "t", "1"):
            return True
        if text in ("false", "f", "0"):
            return False
        raise ValueError("not a truth")

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        words = "True, False, t, f, 1 or 0"
        return Words(words, "True、False、t、f、1 或 0")


@dataclass(frozen=True)
class Text:
    """Reads text; a number becomes its digits, since YAML reads an unquoted 5 as a number."""

    def __call__(self, value: Any) -> str:
        """Return the text."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError("not text")
        return str(value).strip()

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        return Words("text", "字符串")


@dataclass(frozen=True)
class Choice:
    """Reads one of several names, in any case.

    Attributes:
        values: names as the documentation writes them, and what they mean.
        optional: whether nothing is a value too, None.
    """

    values: Mapping[str, Any]
    optional: bool = False

    def __call__(self, value: Any) -> Any:
        """Return what the name means."""
        if self.optional and is_missing(value):
            return None
        name = str(value).strip().lower()
        for known, meaning in self.values.items():
            if name == known.lower():
                return meaning
        raise ValueError("not one of the names")

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        *names, last = self.values
        if not names:
            return Words(f"{last} only", f"只能是 {last}")
        empty = Words(", or nothing", "，或留空") if self.optional else Words("", "")
        return Words(f"{', '.join(names)} or {last}{empty.english}", f"{'、'.join(names)} 或 {last}{empty.chinese}")


@dataclass(frozen=True)
class Numbers:
    """Reads numbers of 0 or more with commas between them; a list, or a single number, is fine."""

    def __call__(self, value: Any) -> tuple[float, ...]:
        """Return the numbers; none for nothing."""
        if is_missing(value):
            return ()
        parts = value.strip(" []()").split(",") if isinstance(value, str) else value
        parts = parts if isinstance(parts, list | tuple) else [parts]
        return tuple(Number(least=0)(part) for part in parts)

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        return Words("numbers of 0 or more with commas between them", "以逗号分隔的不小于 0 的数")


@dataclass(frozen=True)
class Nothing:
    """Reads a value of a parameter that must not be given."""

    def __call__(self, value: Any) -> None:
        """Return None for nothing."""
        if not is_missing(value):
            raise ValueError("must not be given")

    @property
    def allowed(self) -> Words:
        """What a value may be."""
        return Words("nothing: leave it out", "不可设置，请删除")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    number = float(value)  # of text, also of '1e-05' and ' 20 '
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _check_range(number: float, least: float | None, most: float | None) -> None:
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError("out of range")


def _range_words(least: float | None, most: float | None) -> tuple[str, str]:
    if least is not None and most is not None:
        return f" from {least} to {most}", f"（{least} 到 {most}）"
    if least is not None:
        return f" of {least} or more", f"（不小于 {least}）"
    return "", ""


Positive = Annotated[int, BeforeValidator(Whole(1))]
NonNegative = Annotated[int, BeforeValidator(Whole(0))]
AllOrPositive = Annotated[int, BeforeValidator(Whole(1, special=-1))]
Fraction = Annotated[float, BeforeValidator(Number(0, 1))]
Truth = Annotated[bool, BeforeValidator(YesNo())]
OptionalTruth = Annotated[bool | None, BeforeValidator(YesNo(optional=True))]
Line = Annotated[str, BeforeValidator(Text())]
Weights = Annotated[tuple[float, ...], BeforeValidator(Numbers())]
Refused = Annotated[None, BeforeValidator(Nothing())]

"""Values of config.yaml arrive in many forms."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ymir_tmi.ymir.values import Choice, Nothing, Number, Numbers, Reader, Text, Whole, YesNo, is_missing

ALGORITHMS = Choice({"RSAL": "rsal", "RIPU": "ripu"})


@pytest.mark.parametrize("value", [None, "", "  ", "null", "None"])
def test_nothing_is_missing(value: Any) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, False, 0.0, "0", "no", [], "false"])
def test_what_is_falsy_is_still_a_value(value: Any) -> None:
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (Whole(), 20, 20),
        (Whole(), "20", 20),
        (Whole(), " 20 ", 20),
        (Whole(), 20.0, 20),
        (Whole(), "2e1", 20),
        (Whole(1, special=-1), "-1", -1),
        (Whole(0, most=9), "9", 9),
        (Number(), "1e-05", 1e-5),  # as JSON writes it, which YAML reads as text
        (Number(), 3, 3.0),
        (Number(0, 1), "0", 0.0),
        (YesNo(), True, True),
        (YesNo(), "True", True),
        (YesNo(), "t", True),
        (YesNo(), 1, True),
        (YesNo(), "1", True),
        (YesNo(), "FALSE", False),
        (YesNo(), "f", False),
        (YesNo(), 0, False),
        (YesNo(optional=True), None, None),
        (Text(), 5, "5"),
        (Text(), " a b ", "a b"),
        (ALGORITHMS, "rsal", "rsal"),
        (ALGORITHMS, "Ripu", "ripu"),
        (Choice({"SiLU": "silu"}, optional=True), "", None),
        (Numbers(), "1.0,1.0, 0.1,0.2", (1.0, 1.0, 0.1, 0.2)),
        (Numbers(), "[1, 0.5]", (1.0, 0.5)),
        (Numbers(), [1, "0.5"], (1.0, 0.5)),
        (Numbers(), 0.5, (0.5,)),
        (Numbers(), "", ()),
        (Nothing(), None, None),
    ],
)
def test_value_is_read(reader: Reader, value: Any, expected: Any) -> None:
    found = reader(value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (Whole(), "many"),
        (Whole(), 1.5),
        (Whole(), True),
        (Whole(), [1]),
        (Whole(1), 0),
        (Whole(1, special=-1), 0),
        (Whole(1, most=7), "8"),
        (Whole(), "inf"),
        (Number(), math.nan),
        (Number(), "0,5"),
        (Number(0, 1), 1.01),
        (YesNo(), "yes"),
        (YesNo(), 2),
        (YesNo(), 1.0),
        (YesNo(), None),
        (Text(), ["a"]),
        (Text(), True),
        (ALGORITHMS, "badge"),
        (Numbers(), "1,,2"),
        (Numbers(), "1,-2"),
        (Numbers(), {"cat": 1}),
        (Nothing(), "red"),
    ],
)
def test_other_value_is_refused(reader: Reader, value: Any) -> None:
    with pytest.raises(ValueError):
        reader(value)


@pytest.mark.parametrize(
    ("reader", "english"),
    [
        (Whole(1), "a whole number of 1 or more"),
        (Whole(1, special=-1), "a whole number of 1 or more, or -1"),
        (Whole(1, most=7), "a whole number from 1 to 7"),
        (Number(0, 1), "a number from 0 to 1"),
        (ALGORITHMS, "RSAL or RIPU"),
        (Choice({"bbox": "bbox"}), "bbox only"),
    ],
)
def test_reader_says_what_it_allows(reader: Reader, english: str) -> None:
    assert reader.allowed.english == english

"""Overrides of other programs' configs: how they are written, and one table per image of what each key does here.

mm's programs write `optimizer.lr=0.01 data.samples_per_gpu=4 img_scale=(640,640)`, Detectron2 `SOLVER.BASE_LR 0.01`.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ymir_tmi.config.schema import Settings
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.effects import Effect, RunFacts, carry_out, find_field, nearest, refused

_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class OverrideTable:
    """What the keys of one program's configs do.

    Attributes:
        kind: settings of the verb that they are for.
        rows: pattern of a key (a `*` stands for any text) and effect; the first that fits holds.
        key: of config.yaml, for messages.
    """

    kind: type[Settings]
    rows: tuple[tuple[str, Effect], ...]
    key: str = "cfg_options"


@dataclass(frozen=True)
class Row:
    """A line of documentation.

    Attributes:
        option: as the other program calls it.
        kind: `sets`, `accepted` or `refused`.
        fields: that it sets, as `effects.py` names them.
        text: what is special about it, or why it is accepted or refused.
    """

    option: str
    kind: str
    fields: tuple[str, ...]
    text: str


def read_cfg_options(text: str, key: str = "cfg_options") -> list[tuple[str, Any]]:
    """Return keys and values of overrides in mm's syntax.

    A value is a number, True, False, None, text, or a list of these: `[a,b]`, `(a,b)` (a tuple) or `a,b`.

    Args:
        text: pairs with blanks between them; quotes as in a shell. Within brackets there may be blanks too.
        key: of config.yaml, for messages.

    Raises:
        ConfigError: a word is not of the form key=value, or a quote or bracket is left open.
    """
    return read_pairs(split_words(text, key), key)


def read_pairs(words: Iterable[str], key: str) -> list[tuple[str, Any]]:
    """Return keys and values of the words of overrides in mm's syntax; see `read_cfg_options`."""
    pairs = []
    for word in _join_brackets(words, key):
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise ConfigError(f"'{word}' is not of the form name=value", where=key, fix="Write no blanks around '='.")
        pairs.append((name, _read_value(value, key)))
    return pairs


def read_yacs(words: Sequence[str], key: str) -> list[tuple[str, Any]]:
    """Return keys and values of overrides in Detectron2's syntax: `SOLVER.STEPS (60000,80000) SOLVER.BASE_LR 0.01`.

    Raises:
        ConfigError: a key has no value, or a bracket is left open.
    """
    words = _join_brackets(words, key)
    if len(words) % 2:
        raise ConfigError(f"'{words[-1]}' has no value", where=key, fix="Write NAME VALUE NAME VALUE, with blanks.")
    return [(name, _literal(value)) for name, value in zip(words[::2], words[1::2], strict=True)]


def apply_overrides(
    pairs: Iterable[tuple[str, Any]], table: OverrideTable, run: RunFacts | None = None
) -> dict[str, Any]:
    """Return what overrides come to: fields of the table's settings; changes of the recipe stand in `set`.

    Args:
        pairs: of `read_cfg_options`; later ones win.
        table: of the image and task.
        run: what the other parameters say of the run.

    Raises:
        ConfigError: a key is unknown or refused, or its value is not allowed.
    """
    return carry_out(find_effects(pairs, table), table.kind, run or RunFacts(), table.key)


def find_effects(pairs: Iterable[tuple[str, Any]], table: OverrideTable) -> list[tuple[str, Any, Effect]]:
    """Return keys and values with what each does.

    Raises:
        ConfigError: a key is unknown.
    """
    return [(name, value, _find(name, table)) for name, value in pairs]


def describe_overrides(table: OverrideTable) -> list[Row]:
    """Return the table as lines of documentation."""
    return [Row(pattern, effect.kind, effect.fields, effect.text) for pattern, effect in table.rows]


def narrowed(table: OverrideTable, kind: type[Settings]) -> OverrideTable:
    """Return the table of a training for mining or inference, which know fewer fields."""
    rows = (
        (pattern, effect if _fits(effect, kind) else refused("only a training uses it"))
        for pattern, effect in table.rows
    )
    return OverrideTable(kind, tuple(rows), table.key)


def split_words(text: str, key: str) -> list[str]:
    """Return the words of a command line, quotes taken off.

    Raises:
        ConfigError: a quote is left open.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise ConfigError(f"in '{text}' a quote is left open", where=key) from None


def _fits(effect: Effect, kind: type[Settings]) -> bool:
    try:
        return all(not name.startswith("recipe.") and find_field(kind, name) for name in effect.fields)
    except KeyError:
        return False


def _find(name: str, table: OverrideTable) -> Effect:
    for pattern, effect in table.rows:
        if fnmatchcase(name, pattern):
            return effect
    known = [pattern for pattern, _ in table.rows if "*" not in pattern]
    raise ConfigError(f"'{name}' is unknown", where=table.key, fix=nearest(name, known))


def _join_brackets(words: Iterable[str], key: str) -> list[str]:
    """Put words together that a blank within brackets has parted."""
    joined: list[str] = []
    depth = 0
    for word in words:
        if depth > 0:
            joined[-1] += word
        else:
            joined.append(word)
        depth += sum(sign in _OPENING for sign in word) - sum(sign in _CLOSING for sign in word)
    if depth:
        raise ConfigError(f"the brackets of '{joined[-1]}' do not match", where=key)
    return joined


def _read_value(text: str, key: str) -> Any:
    text = text.strip().strip("'\"").replace(" ", "")
    parts = _split_commas(text)
    if len(parts) > 1:
        return [_read_value(part, key) for part in parts]
    if text[:1] in ("(", "[") and text[-1] in _CLOSING:
        items = [_read_value(part, key) for part in _split_commas(text[1:-1]) if part]
        return tuple(items) if text[0] == "(" else items
    return _literal(text, names={"true": True, "false": False, "none": None})


def _split_commas(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in _OPENING) - (sign in _CLOSING)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _literal(text: str, names: dict[str, Any] | None = None) -> Any:
    """Return the number, truth, tuple or list that a text spells in Python, or the text."""
    if names and text.lower() in names:
        return names[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

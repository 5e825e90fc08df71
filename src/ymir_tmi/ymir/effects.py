"""What one option of another program does here: it sets fields, it asks for what is so anyway, or it is refused.

Fields are named as `epochs` (of the settings of a verb) and `recipe.optimizer.lr` (of a recipe).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import Settings
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.orders import Machine

RECIPE = "recipe."
_FACTS = (("model",), ("epochs",), (RECIPE + "iterations",), ("image_size",))  # that options can be relative to


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run: options of other programs are relative to it.

    Attributes:
        machine: batches of mm's programs are meant for one of its devices.
        model: name in the catalog; None in mining and inference, where the model file says it.
        epochs: length of the run in epochs, where it is known.
        iterations: length of the run in updates, where it is known.
        image_size: side of the network's input in pixels, where it is known.
    """

    machine: Machine = field(default_factory=Machine)
    model: str | None = None
    epochs: int | None = None
    iterations: int | None = None
    image_size: int | None = None


Assign = Callable[[Any, RunFacts], dict[str, Any]]


@dataclass(frozen=True)
class Effect:
    """What an option does.

    Attributes:
        kind: what becomes of it.
        fields: that it can set.
        text: of `sets`, what is special about it; of `accepted`, what is so anyway; of `refused`, why.
        assign: from the option's value to fields and their values. Raises a `ValueError` that says what is allowed.
    """

    kind: Literal["sets", "accepted", "refused"]
    fields: tuple[str, ...]
    text: str
    assign: Assign


def sets(name: str, convert: Callable[[Any], Any] | None = None, *, text: str = "", **also: Any) -> Effect:
    """Return the effect that sets the field `name`, to the option's value or what `convert` makes of it.

    Args:
        name: of the field.
        convert: raises a `ValueError` that says what is allowed.
        text: what is special about it.
        also: further fields of the recipe that get a fixed value, such as `optimizer__lr_scaling="none"`.
    """
    fixed = {RECIPE + key.replace("__", "."): value for key, value in also.items()}

    def assign(value: Any, run: RunFacts) -> dict[str, Any]:
        return {name: value if convert is None else convert(value), **fixed}

    return Effect("sets", (name, *fixed), text, assign)


def computes(*names: str, by: Assign, text: str) -> Effect:
    """Return the effect that sets fields to values that also depend on the run."""
    return Effect("sets", names, text, by)


def accepted(text: str, *values: Any) -> Effect:
    """Return the effect of an option that asks for what is so anyway; with `values`, if it has one of them."""

    def assign(value: Any, run: RunFacts) -> dict[str, Any]:
        if values and plain(value) not in [plain(allowed) for allowed in values]:
            raise ValueError(f"only {one_of(map(str, values))} is possible, since {text}")
        return {}

    return Effect("accepted", (), text, assign)


def refused(text: str) -> Effect:
    """Return the effect of an option that has no meaning here."""

    def assign(value: Any, run: RunFacts) -> dict[str, Any]:
        raise ValueError(text)

    return Effect("refused", (), text, assign)


def carry_out(
    given: Sequence[tuple[str, Any, Effect]], kind: type[Settings], run: RunFacts, where: str
) -> dict[str, Any]:
    """Return values for `kind`; changes of the recipe stand in `set`. Later options win.

    Args:
        given: options with their values and effects.
        kind: settings of the verb.
        run: what is known of it. Its model, length and image size, where options give them, hold for the others.
        where: key of config.yaml that the options are from, for messages.

    Raises:
        ConfigError: an option is refused, or its value is not allowed.
    """
    values: dict[str, Any] = {}
    for name, value, effect in given:
        if effect.fields in _FACTS:
            facts = _carry_out(name, value, effect, kind, run, where)
            run = replace(run, **{key.removeprefix(RECIPE): number for key, number in facts.items()})
    for name, value, effect in given:
        for key, result in _carry_out(name, value, effect, kind, run, where).items():
            values.pop(key, None)  # so that the order is that of the options
            values[key] = result
    recipe = [f"{key.removeprefix(RECIPE)}={_as_yaml(value)}" for key, value in values.items() if _of_recipe(key)]
    settings = {key: value for key, value in values.items() if not _of_recipe(key)}
    return {**settings, "set": recipe} if recipe else settings


def find_field(kind: type[Settings], name: str) -> FieldInfo:
    """Return the field that is named as in this module.

    Raises:
        KeyError: there is none.
    """
    model: type[BaseModel] = Recipe if _of_recipe(name) else kind
    *groups, last = name.removeprefix(RECIPE).split(".")
    for group in groups:
        inner = model.model_fields[group].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        model = inner
    return model.model_fields[last]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "Nearest: a, b, c." for the names that are most like `name`, whatever their case."""
    spelt = {text.lower(): text for text in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=3, cutoff=0.0)
    return f"Nearest: {', '.join(spelt[text] for text in near)}."


def one_of(values: Iterable[str]) -> str:
    """Return "a, b or c"."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def plain(value: Any) -> str:
    """Return a value as text that is the same for 1 and 1.0, True and 'true', None and 'none'."""
    text = str(value).strip().lower()
    try:
        return str(float(text))
    except ValueError:
        return text


def _carry_out(
    name: str, value: Any, effect: Effect, kind: type[Settings], run: RunFacts, where: str
) -> dict[str, Any]:
    shown = name if value is True and name.startswith("-") else f"{name}={value!r}"
    try:
        results = effect.assign(value, run)
        return {key: _checked(kind, key, result) for key, result in results.items()}
    except ValueError as error:
        verb = "is refused" if effect.kind == "refused" else "is not possible"
        raise ConfigError(f"{shown} {verb}: {error}", where=where) from None


def _checked(kind: type[Settings], name: str, value: Any) -> Any:
    """Return the value in the type of its field."""
    try:
        checked: Any = TypeAdapter(find_field(kind, name).rebuild_annotation()).validate_python(value)
    except ValidationError as error:
        messages = dict.fromkeys(item["msg"][:1].lower() + item["msg"][1:] for item in error.errors())
        raise ValueError(", or ".join(messages)) from None
    return checked


def _of_recipe(name: str) -> bool:
    return name.startswith(RECIPE)


def _as_yaml(value: Any) -> str:
    if isinstance(value, str):
        return value  # a name, which YAML reads as text
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def choice(values: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a conversion by a table, whatever the case and form of the value."""
    table = {plain(key): result for key, result in values.items()}

    def convert(value: Any) -> Any:
        if plain(value) not in table:
            raise ValueError(f"only {one_of(values)} is possible here")
        return table[plain(value)]

    return convert


def whole(value: Any) -> int:
    """Return a whole number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("it must be a whole number") from None
    if number != int(number):
        raise ValueError("it must be a whole number")
    return int(number)


def square(value: Any) -> int:
    """Return the side of an image size that is one number or two equal ones."""
    sides = [whole(side) for side in (value if isinstance(value, list | tuple) else [value])]
    if len(sides) not in (1, 2) or len(set(sides)) > 1:
        raise ValueError("width and height of the network's input must be equal here")
    return sides[0]


YES_NO = choice({"True": True, "False": False})

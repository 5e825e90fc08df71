"""The settings as a page of documentation: `python -m ymir_tmi.config.describe > docs/settings.md`."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import (
    EvaluateSettings,
    ExportSettings,
    InferSettings,
    MineSettings,
    RunSettings,
    TrainSettings,
)

_INTRODUCTION = """# Settings

Made from `src/ymir_tmi/config/`; do not edit. A setting is an option (`--image-size 320`), a line of a YAML file
(`--config job.yaml`, `image_size: 320`) and a field in Python (`TrainSettings(image_size=320)`), under one name.
"""

_RECIPE = """A family brings its own recipe (`src/ymir_tmi/training/recipes/`); every field can be changed by
`--set optimizer.lr=0.002`. The defaults below are those of the base recipe.
"""

_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION, _section("Every verb that makes a run", RunSettings, skip=set())]
    for verb, kind in (
        ("train", TrainSettings),
        ("evaluate", EvaluateSettings),
        ("infer", InferSettings),
        ("mine", MineSettings),
    ):
        parts.append(_section(f"`{verb}`", kind, skip=_unchanged(kind)))
    parts.append(_section("`export`", ExportSettings, skip=set()))
    parts.append(_section("Recipe", Recipe, skip=set(), introduction=_RECIPE))
    return "\n".join(parts)


def _section(title: str, kind: type[BaseModel], *, skip: set[str], introduction: str = "") -> str:
    lines = [f"## {title}", ""]
    if introduction:
        lines += [introduction]
    lines += ["| name | type | default | meaning |", "|---|---|---|---|", *_rows(kind, "", skip)]
    return "\n".join(lines) + "\n"


def _rows(kind: type[BaseModel], prefix: str, skip: set[str]) -> list[str]:
    rows: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if name in skip:
            continue
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += _rows(inner, f"{prefix}{name}.", set())
            continue
        cells = (
            f"`{prefix}{name}`",
            _type_text(inner),
            _default_text(field),
            (field.description or "").replace("\n", " "),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _unchanged(kind: type[BaseModel]) -> set[str]:
    """Return the shared fields that a verb takes as they are."""
    return {
        name
        for name, field in RunSettings.model_fields.items()
        if (kind.model_fields[name].default, kind.model_fields[name].description) == (field.default, field.description)
    }


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default()
    if default is None or default == []:
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, list | tuple):
        return ", ".join(map(str, default))
    return str(default)


def _type_text(kind: Any) -> str:
    if kind in _NAMES:
        return _NAMES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type_text(arguments[0])
    if origin is list:
        return f"list of {_type_text(arguments[0])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type_text(argument) for argument in arguments)}]"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(argument) for argument in arguments)
    raise AssertionError(f"no words for the type {kind}")


if __name__ == "__main__":
    print(settings_page(), end="")

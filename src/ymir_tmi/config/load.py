"""From YAML, `key=value` and keyword arguments to checked settings, with messages a user can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ymir_tmi.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def build(kind: type[Model], values: Mapping[str, Any], *, where: str | Path | None = None) -> Model:
    """Return `kind(**values)`.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed; the message names the key and what is allowed.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(kind, error, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else; with the line where YAML breaks.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read this file: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("this is not a text file", where=path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"this is not YAML: {getattr(error, 'problem', error)}", where=place) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("this file does not hold 'key: value' lines", where=path)
    return {str(key): value for key, value in content.items()}


def override(model: Model, assignments: Sequence[str]) -> Model:
    """Return a copy of `model` with `path.to.field=value` assignments carried out; values are read as YAML.

    Raises:
        ConfigError: an assignment has no `=`, names an unknown field, or its value is not allowed.
    """
    values = model.model_dump()
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"'{assignment}' is not of the form field=value")
        _assign(type(model), values, path.strip().split("."), _parse(text), assignment)
    return build(type(model), values)


def _assign(kind: type[BaseModel], values: dict[str, Any], path: list[str], value: Any, assignment: str) -> None:
    name, *rest = path
    field = kind.model_fields.get(name)
    if field is None:
        raise ConfigError(f"'{assignment}': there is no field '{name}'", fix=did_you_mean(name, kind.model_fields))
    inner = field.annotation
    nested = isinstance(inner, type) and issubclass(inner, BaseModel)
    if not rest and not nested:
        values[name] = value
    elif rest and isinstance(inner, type) and issubclass(inner, BaseModel):
        _assign(inner, values[name], rest, value, assignment)
    elif nested:
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        raise ConfigError(f"'{assignment}': '{name}' is a group of fields", fix=did_you_mean("", inner.model_fields))
    else:
        raise ConfigError(f"'{assignment}': '{name}' has no fields of its own")


def _parse(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            return value
    return value


def _explain(kind: type[BaseModel], error: ValidationError, where: str | Path | None) -> ConfigError:
    errors = error.errors()
    first = errors[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, path[:-1])
        return ConfigError(f"unknown setting '{'.'.join(path)}'", where=where, fix=did_you_mean(path[-1], known))
    name = ".".join(_field_path(kind, path))
    if first["type"] == "missing":
        return ConfigError(f"setting '{name}' is missing", where=where)
    # A field of several types (a number or "auto") reports one error for each; together they say what is allowed.
    same = [item["msg"] for item in errors if _field_path(kind, [str(part) for part in item["loc"]]) == name.split(".")]
    allowed = ", or ".join(_lower_first(message) for message in dict.fromkeys(same))
    return ConfigError(f"setting '{name}' is {first['input']!r}: {allowed}", where=where)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _field_path(kind: type[BaseModel], location: list[str]) -> list[str]:
    """Cut what pydantic appends to a location (the member of a union, the position in a list) off the field's path."""
    path: list[str] = []
    for name in location:
        if name not in kind.model_fields:
            break
        path.append(name)
        inner = kind.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return path


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        inner = kind.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)

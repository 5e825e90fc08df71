"""Command-line options made from settings: one option a field, its help the string under the field."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic.fields import FieldInfo

from ymir_tmi.config.load import build, read_yaml
from ymir_tmi.config.schema import Settings
from ymir_tmi.errors import RunError
from ymir_tmi.files.layout import open_run
from ymir_tmi.files.manifest import Manifest

Verb = TypeVar("Verb", bound=Settings)

_CONFIG = typer.Option(None, "--config", metavar="FILE", help="YAML file with settings; options given here win.")
_JSON = typer.Option(False, "--json", help="Print the result as JSON, for programs.")


def add_verb(
    app: typer.Typer,
    name: str,
    kind: type[Verb],
    run: Callable[[Verb, bool], None],
    *,
    argument: str | None = None,
    inherits: bool = False,
) -> None:
    """Add the command `name` to `app`: one option for each field of `kind`, then `run(settings, as_json)`.

    The field `argument` is given without the name of an option. With `inherits`, what is not given is taken
    from the run that `--resume` names.
    """

    def command(**given: Any) -> None:
        as_json = given.pop("json")
        config = given.pop("config")
        values = read_yaml(config) if config else {}
        values.update({key: value for key, value in given.items() if value not in (None, [])})
        if inherits and values.get("resume"):
            values = {**_settings_of_run(Path(values["resume"]), name), **values}
        try:
            run(build(kind, values, where=config), as_json)
        except KeyboardInterrupt as stop:
            runs = getattr(stop, "__notes__", []) if "resume" in kind.model_fields else []  # see `Manifest.__exit__`
            remedy = f"; go on with: ymir-tmi {name} --resume {runs[0]}" if runs else ""
            print(f"stopped{remedy}", file=sys.stderr)
            raise typer.Exit(130) from None

    # A verb's own options come first in the help, those that all verbs share after them.
    names = sorted(kind.model_fields, key=lambda name: _depth(kind, name))
    parameters = [
        _argument(name, kind.model_fields[name]) if name == argument else _option(name, kind.model_fields[name])
        for name in names
    ]
    parameters.append(_parameter("config", Path | None, _CONFIG))
    parameters.append(_parameter("json", bool, _JSON))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command(name, help=kind.__doc__)(command)


def _settings_of_run(folder: Path, verb: str) -> dict[str, Any]:
    """Return what the user asked for when a run was begun.

    Raises:
        RunError: the folder is no run, or that of another verb.
    """
    content = Manifest.read(open_run(folder).manifest).content
    if content["verb"] != verb:
        raise RunError(f"this is a run of '{content['verb']}', not of '{verb}'", where=folder)
    settings: dict[str, Any] = content.get("settings", {})
    return settings


def _depth(kind: type[Settings], name: str) -> int:
    """Return how far up the inheritance a field is defined; 0 for a verb's own."""
    return next(depth for depth, base in enumerate(kind.__mro__) if name in inspect.get_annotations(base))


def _argument(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, metavar = (list[str], name.upper() + "...") if _is_list(field) else (str, name.upper())
    default: Any = ... if field.is_required() else []
    return _parameter(name, kind, typer.Argument(default, metavar=metavar, help=field.description, show_default=False))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    help_text = (field.description or "") + _default_text(field)
    if field.annotation is bool:
        return _parameter(name, bool | None, typer.Option(None, f"{flag}/--no-{flag[2:]}", help=help_text))
    # Values stay text here: the settings check them, and say what is allowed in one voice for YAML, Python and options.
    many = _is_list(field)
    default: list[str] | None = [] if many else None
    kind = list[str] if many else str | None
    return _parameter(
        name, kind, typer.Option(default, flag, metavar=_metavar(field), show_default=False, help=help_text)
    )


def _is_list(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) is list


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return " [required]"
    default = field.get_default()
    if default is None or default == [] or field.annotation is bool:
        return ""
    shown = ", ".join(map(str, default)) if isinstance(default, list) else default
    return f" [default: {shown}]"


def _metavar(field: FieldInfo) -> str:
    names = {Path: "PATH", int: "INT", float: "FLOAT"}
    pending: list[Any] = [field.annotation]
    choices: list[str] = []
    while pending:
        kind = pending.pop(0)
        if typing.get_origin(kind) is typing.Literal:
            choices += [str(value) for value in typing.get_args(kind)]
        elif kind in names:
            choices.append(names[kind])
        else:
            pending = list(typing.get_args(kind)) + pending
    return "|".join(choices) or "TEXT"

"""A data set description: one YAML file that says where the splits of a data set are and what its classes are called.

path: /data/birds            base folder; by default that of this file
train: images/train          a file, folder or glob, or a list of them; so for val, test, pool or any other name
val: [a.json, b.json]
images: pictures             further folders to look for pictures in
names: [heron, stork]        or {0: heron, 1: stork}
format: auto                 auto, coco, voc, yolo, dota, ymir, masks, instances or images

A folder with a `data.yaml` in it, such as `convert` writes, can be named in place of the file. The `env.yaml` of a task
of YMIR, or its folder, is a description, too (`data.formats.ymir_folder`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ymir_tmi.config.load import read_yaml
from ymir_tmi.config.schema import Format
from ymir_tmi.data.formats.ymir_folder import ENV_FILE, class_names_of, read_inputs
from ymir_tmi.errors import ConfigError, did_you_mean

DESCRIPTION = "data.yaml"
"""Name of the description that lies in the folder of a data set."""

_OWN_KEYS = ("path", "images", "names", "format")
# Keys of descriptions made for other tools that say nothing about what is to be read. Nothing is downloaded or run.
_IGNORED_KEYS = {"nc", "download", "roboflow", "info", "license", "licence", "url", "author", "version", "date"}


@dataclass(frozen=True)
class Description:
    """What a data set description says.

    Attributes:
        splits: files, folders and globs by the name of the split.
        images: folders to look for pictures in.
        names: the classes in the order of their labels, or None where it names none.
        format: kind of annotations.
    """

    path: Path
    splits: dict[str, list[str]]
    images: tuple[Path, ...]
    names: tuple[str, ...] | None
    format: Format

    def split(self, name: str | None) -> list[str]:
        """Return the files, folders and globs of a split; the only split has no need of a name.

        Raises:
            ConfigError: there is no such split, or no name is given and there are several.
        """
        if name is None and len(self.splits) == 1:
            return next(iter(self.splits.values()))
        if name is None:
            raise ConfigError("this description has several splits", where=self.path, fix=did_you_mean("", self.splits))
        if name not in self.splits:
            raise ConfigError(f"there is no split '{name}'", where=self.path, fix=did_you_mean(name, self.splits))
        return self.splits[name]


def find_description(source: str, format: Format = "auto") -> Path | None:
    """Return the data set description that a source is, by its suffix, or has, which then is a folder.

    Such a folder has a data.yaml, or is that of a task of YMIR. Of a folder that is to be read as pictures alone, none
    is asked for.
    """
    path = Path(source)
    if source.lower().endswith((".yaml", ".yml")):
        return path
    if format == "images" or not path.is_dir():
        return None
    return next((path / name for name in (DESCRIPTION, ENV_FILE) if (path / name).is_file()), None)


def read_description(path: Path) -> Description:
    """Read a data set description; see the module's text for its keys.

    Raises:
        ConfigError: the file is not YAML, or a key is unknown or has a wrong value.
    """
    if path.name == ENV_FILE:
        return _of_task(path)
    content = read_yaml(path)
    base = path.parent / _text(content, "path", path)
    splits = {}
    for key, value in content.items():
        if key not in _OWN_KEYS and key not in _IGNORED_KEYS:
            splits[key] = [_resolve(entry, base) for entry in _split_entries(key, value, path)]
    if not splits:
        raise ConfigError("this description has no splits", where=path, fix="Add a line such as 'train: images/train'.")
    format_ = content.get("format", "auto")
    if format_ not in get_args(Format):
        raise ConfigError(f"'format' is {format_!r}", where=path, fix=did_you_mean(str(format_), get_args(Format)))
    images = _split_entries("images", content.get("images", []), path)
    return Description(path, splits, tuple(base / entry for entry in images), _names(content, path), format_)


def _of_task(path: Path) -> Description:
    inputs = read_inputs(path.parent)
    names = class_names_of(read_yaml(inputs.config), inputs.config) or None
    splits = {split: [str(file)] for split, file in inputs.lists.items()}
    return Description(path, splits, (inputs.assets,), names, "ymir")


def _text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"'{key}' is not a text: {value!r}", where=path)
    return value


def _split_entries(key: str, value: Any, path: Path) -> list[str]:
    """Return the paths under a key that must hold some: any unknown key may be the name of a split."""
    meant = difflib.get_close_matches(key, _OWN_KEYS, n=1, cutoff=0.75)
    if meant and meant[0] != key:
        raise ConfigError(f"unknown key '{key}'", where=path, fix=f"Did you mean '{meant[0]}'?")
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(
            f"'{key}' is neither a known key nor a split, which is a path or a list of paths",
            where=path,
            fix=did_you_mean(key, _OWN_KEYS),
        )
    return entries


def _resolve(entry: str, base: Path) -> str:
    path = base / entry
    # Some tools write paths as seen from a folder below that of the file.
    if entry.startswith("../") and not path.exists() and (base / entry[3:]).exists():
        path = base / entry[3:]
    return str(path)


def _names(content: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    names = content.get("names")
    if names is None:
        return None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise ConfigError("the keys of 'names' are not 0, 1, 2, ...", where=path)
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise ConfigError("'names' is neither a list of names nor 'number: name' lines", where=path)
    texts = tuple(str(name) for name in names)
    twice = next((name for name in texts if texts.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"'names' has '{twice}' twice", where=path)
    if content.get("nc", len(texts)) != len(texts):
        raise ConfigError(f"'nc' is {content['nc']}, but there are {len(texts)} names", where=path)
    return texts

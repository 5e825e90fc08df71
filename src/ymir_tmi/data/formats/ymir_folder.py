"""The folder that YMIR hands a task: `env.yaml` says where everything is, `config.yaml` what the classes are called.

Such a folder is a data set description with the splits train and val, or pool. It may lie elsewhere than it did when
its paths were written: those below its old place are then looked for below its new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ymir_tmi.config.load import read_yaml
from ymir_tmi.errors import ConfigError

ENV_FILE = "env.yaml"
CONFIG_FILE = "config.yaml"

_LISTS = {"train": "training_index_file", "val": "val_index_file", "pool": "candidate_index_file"}


@dataclass(frozen=True)
class Inputs:
    """What a task is given.

    Attributes:
        assets: pictures, those of other tasks among them.
        models: a folder for each stage of the model that the task starts from.
        lists: files with pictures and annotations by split: train and val, or pool. A task has only those it needs.
        config: `config.yaml`.
    """

    assets: Path
    models: Path
    lists: Mapping[str, Path]
    config: Path

    @classmethod
    def of(cls, section: Mapping[str, Any], folder: Path | None = None) -> Inputs:
        """Return what the section `input` of `env.yaml` says; keys may be missing.

        Args:
            section: the section.
            folder: where the folder is now; by default where it says.
        """
        root = Path(_text(section, "root_dir") or "/in")

        def place(key: str, default: str) -> Path:
            return moved(root / (_text(section, key) or default), root, folder)

        lists = {split: place(key, "") for split, key in _LISTS.items() if _text(section, key)}
        assets, models = place("assets_dir", "assets"), place("models_dir", "models")
        return cls(assets, models, lists, config=place("config_file", CONFIG_FILE))


def moved(path: Path, root: Path, folder: Path | None) -> Path:
    """Return where `path` is now that the folder `root` is `folder`, if it is below `root`; None is its old place."""
    return folder / path.relative_to(root) if folder is not None and path.is_relative_to(root) else path


def read_inputs(folder: Path) -> Inputs:
    """Return where in a task's folder everything is.

    Raises:
        ConfigError: `env.yaml` is missing or wrong.
    """
    content = read_yaml(folder / ENV_FILE)
    return Inputs.of(read_section(content, "input", folder / ENV_FILE), folder)


def read_section(content: Mapping[str, Any], name: str, where: Path) -> Mapping[str, Any]:
    """Return a section of `env.yaml`; a missing one is empty.

    Raises:
        ConfigError: it holds no keys.
    """
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"'{name}' is not a section of 'key: value' lines", where=where)
    return section


def class_names_of(config: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Return the classes that `config.yaml` names, in the order of their ids; none where it names none.

    Raises:
        ConfigError: they are not a list of different names.
    """
    names = config.get("class_names") or []
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise ConfigError(f"'class_names' is not a list of names: {names!r}", where=where)
    texts = tuple(str(name).strip() for name in names)
    twice = next((name for name in texts if texts.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"'class_names' has '{twice}' twice", where=where)
    return texts


def class_names_beside(path: Path) -> tuple[str, ...] | None:
    """Return the classes of the task that a list of pictures belongs to; None where that does not lie beside it."""
    config = path.parent / CONFIG_FILE
    if not ((path.parent / ENV_FILE).is_file() and config.is_file()):
        return None
    return class_names_of(read_yaml(config), config) or None


def list_beside(path: Path, split: str) -> Path | None:
    """Return the list of another split of a task, if it lies beside this one under its usual name."""
    other = path.with_name({"train": "train-index.tsv", "val": "val-index.tsv"}[split])
    return other if other.is_file() else None


def _text(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key)
    return "" if value is None else str(value)

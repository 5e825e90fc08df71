"""What a task is given: its classes, the kind of its objects, and a model to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ymir_tmi.config.load import read_yaml
from ymir_tmi.data.formats.ymir import read_rows
from ymir_tmi.errors import ConfigError, DataError, ModelError, TmiError
from ymir_tmi.files.atomic import write_json
from ymir_tmi.models.checkpoint import read_model_info
from ymir_tmi.weights.cache import cache_folder
from ymir_tmi.weights.convert import convert_checkpoint
from ymir_tmi.weights.table import official_weights
from ymir_tmi.ymir.codes import ObjectTypeError
from ymir_tmi.ymir.contract import Env
from ymir_tmi.ymir.profile import Profile

INFO_FILE = "ymir-info.yaml"

WEIGHTS_KEY = "pretrained_model_params"
"""Files of the model that a training begins with."""

MODEL_KEY = "model_params_path"
"""Files of the model of mining and inference."""

_OURS = ".safetensors"
_FOREIGN = (".pth", ".pt", ".pkl")

Say = Callable[[str], None]


def read_object_type(config: Mapping[str, Any], profile: Profile) -> int:
    """Return what the task is about: 2 boxes, 3 classes of pixels, 4 masks of objects.

    Raises:
        ObjectTypeError: it is not said where the image knows several, or is one that the image does not know.
    """
    known = " or ".join(map(str, profile.object_types))
    value = config.get("object_type")
    if value in (None, ""):
        if len(profile.object_types) == 1:
            return profile.object_types[0]
        raise ObjectTypeError("it is missing", where="object_type", fix=f"Give {known}.")
    try:
        object_type = int(value)
    except (TypeError, ValueError):
        object_type = 0
    if object_type not in profile.object_types:
        raise ObjectTypeError(
            f"the image {profile.name} does not know object type {value!r}", where="object_type", fix=f"Known: {known}."
        )
    return object_type


def require_lists(env: Env, splits: Sequence[str]) -> list[Path]:
    """Return the lists of pictures of a task.

    Raises:
        DataError: one is not given, not there, or empty.
    """
    found = []
    for split in splits:
        path = env.inputs.lists.get(split)
        if path is None or not path.is_file():
            what = "there is no such list" if path else "the task has no list"
            raise DataError(f"{what} of pictures for the split '{split}'", where=path)
        if not read_rows(path):
            raise DataError("there are no pictures in this list", where=path)
        found.append(path)
    return found


def describe_data(env: Env, splits: Sequence[str], class_names: Sequence[str], path: Path) -> Path:
    """Write a data set description of the lists of a task.

    Raises:
        DataError: as `require_lists`.
    """
    lists = {split: str(file) for split, file in zip(splits, require_lists(env, splits), strict=True)}
    names = {"names": list(class_names)} if class_names else {}
    # JSON is YAML, whatever characters the names have.
    write_json(path, {**lists, **names, "format": "ymir", "images": [str(env.inputs.assets)]})
    return path


def given_files(config: Mapping[str, Any], key: str, models: Path) -> list[Path] | None:
    """Return the files of a model, whether they are there or not; None where the task has no model.

    Args:
        config: config.yaml.
        key: of it: `WEIGHTS_KEY` or `MODEL_KEY`.
        models: where files lie that are named without their folder.

    Raises:
        ConfigError: there is no list of files.
    """
    names = config.get(key)
    if not names:
        return None
    texts = [names] if isinstance(names, str) else names
    if not isinstance(texts, list) or not all(isinstance(name, str) for name in texts):
        raise ConfigError(f"this is not a list of files: {names!r}", where=key)
    return [models / text.strip() for text in texts]


def choose_weights(
    files: Sequence[Path],
    folder: Path,
    *,
    key: str,
    model: str | None,
    class_names: Sequence[str],
    partial: bool,
    say: Say,
) -> Path:
    """Return the model file to use: ours where there is one, else one made of a checkpoint of another program.

    Args:
        files: of the model.
        folder: where to write a converted model.
        key: of config.yaml, for messages.
        model: of which a checkpoint is that does not say it.
        class_names: of the task.
        partial: whether it is enough that some of a checkpoint fits.
        say: is told which file is used.

    Raises:
        ModelError: there is no file of weights, or none that can be read.
    """
    there = [file for file in files if file.is_file()]
    candidates = sorted((file for file in there if file.suffix in (_OURS, *_FOREIGN)), key=_preference)
    if not candidates:
        names = ", ".join(f"{file.name}{'' if file in there else ' (which is not there)'}" for file in files)
        raise ModelError(
            f"there are no weights ({_OURS}, {', '.join(_FOREIGN)}) among the files of the model: {names}", where=key
        )
    first: ModelError | None = None
    for file in candidates:
        try:
            found = _open(file, folder, model, class_names, partial=partial)
        except ModelError as error:
            first = first or error
            say(f"cannot use {file}: {error.what}")
        else:
            say(f"weights: {file}")
            return found
    assert first is not None
    raise first


def official_file(model: str, folder: Path, say: Say) -> Path | None:
    """Return a model file of the official weights of a model, if they are in the cache; nothing is downloaded."""
    cache = cache_folder()
    for row in official_weights():
        if row.model == model and (cache / row.file).is_file():
            try:
                convert_checkpoint(cache / row.file, folder / f"official{_OURS}", model=model)
            except TmiError as error:
                say(f"cannot use the official weights {cache / row.file}: {error.what}")
            else:
                say(f"weights: the official ones, {row.id} ({row.dataset}, licence {row.licence})")
                return folder / f"official{_OURS}"
    say(f"weights: none; {model} starts from scratch (there are no official weights of it in {cache})")
    return None


def model_of_task(models: Path, name_of: Callable[[Mapping[str, Any]], str | None]) -> str | None:
    """Return what `name_of` makes of the settings of the training that a model comes from, which lie beside it."""
    try:
        info = read_yaml(models / INFO_FILE)
        config = info.get("executor_config")
        return name_of(config) if isinstance(config, dict) else None
    except TmiError:  # written by another image, or not there
        return None


def _preference(file: Path) -> tuple[bool, bool, float]:
    return file.suffix != _OURS, "best" not in file.name, -file.stat().st_mtime


def _open(file: Path, folder: Path, model: str | None, class_names: Sequence[str], *, partial: bool) -> Path:
    if file.suffix == _OURS:
        read_model_info(file)
        return file
    target = folder / f"converted{_OURS}"
    try:
        convert_checkpoint(file, target, model=model, class_names=class_names if not partial else ())
    except ModelError:
        if not partial:
            raise
        convert_checkpoint(file, target, model=model, allow_partial=True)
    return target

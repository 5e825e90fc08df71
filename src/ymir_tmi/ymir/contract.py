"""What the platform asks for: `env.yaml` says which tasks and where everything is, `config.yaml` holds the values.

These and all other facts of the platform are in docs/specs/ymir.md; sections 2 and 3 are about the two files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ymir_tmi.config.load import read_yaml
from ymir_tmi.data.formats.ymir_folder import Inputs, moved, read_section
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.values import YesNo

ENV_FILE = Path("/in/env.yaml")
MONITOR_FILE = Path("/out/monitor.txt")  # where `env.yaml` does not tell

CONFIG_VARIABLE = "DEFAULT_CONFIG_FILE_PATH"
"""Names `config.yaml` where `env.yaml` does not, as it does for the platform's own library."""

STAGES_SINCE = Version("1.0.0")
"""From this protocol on a training may leave several models."""

MOST_STAGES = 11
"""The ten latest and the best, as the platform's own library keeps."""

DETECTION, SEMANTICS, INSTANCES = 2, 3, 4
"""Object types: what a task is about."""

GOALS = {DETECTION: "mAP", SEMANTICS: "mIoU", INSTANCES: "maskAP"}
"""The metric that stages are compared by."""

TEMPLATE_FOLDERS = {DETECTION: "det", SEMANTICS: "semantic-seg", INSTANCES: "instance-seg", 50: "multi-modal"}
"""Where in /img-man the templates of an object type lie, of an image that knows several."""

_OLDEST = "0.0.1"
_NO_NAME = "default-task"
_OUTPUTS = {
    "models_dir": "models",
    "tensorboard_dir": "tensorboard",
    "training_result_file": "models/result.yaml",
    "mining_result_file": "result.tsv",
    "infer_result_file": "infer-result.json",
    "monitor_file": "monitor.txt",
}


@dataclass(frozen=True)
class Outputs:
    """Where the platform looks for what a task leaves.

    Attributes:
        root: the folder of everything.
        models_dir, tensorboard_dir: folders.
        training_result_file, mining_result_file, infer_result_file, monitor_file: files.
    """

    root: Path
    models_dir: Path
    tensorboard_dir: Path
    training_result_file: Path
    mining_result_file: Path
    infer_result_file: Path
    monitor_file: Path

    @classmethod
    def of(cls, section: Mapping[str, Any], folder: Path | None = None) -> Outputs:
        """Return what the section `output` of `env.yaml` says; keys may be missing.

        Args:
            section: the section.
            folder: where the folder is now; by default where it says.
        """
        root = Path(str(section.get("root_dir") or "/out"))
        places = {key: root / str(section.get(key) or default) for key, default in _OUTPUTS.items()}
        return cls(folder or root, **{key: moved(path, root, folder) for key, path in places.items()})


@dataclass(frozen=True)
class Env:
    """What `env.yaml` says.

    Attributes:
        protocol: version of the contract that the platform speaks.
        task_id: of the task.
        training, mining, infer: what is to be done; mining and infer may come together.
        inputs: where what is given lies.
        outputs: where what is left is to lie.
    """

    protocol: Version
    task_id: str
    training: bool
    mining: bool
    infer: bool
    inputs: Inputs
    outputs: Outputs


def read_env(path: Path) -> Env:
    """Read `env.yaml`; what it leaves out has the platform's defaults.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    content = read_yaml(path)
    version = str(content.get("protocol_version") or _OLDEST)
    try:
        protocol = Version(version)
    except InvalidVersion:
        raise ConfigError(f"'protocol_version' is '{version}', which is no version", where=path) from None
    section = read_section(content, "input", path)
    config = section.get("config_file") or os.environ.get(CONFIG_VARIABLE)
    return Env(
        protocol=protocol,
        task_id=str(content.get("task_id") or _NO_NAME),
        training=_flag(content, "run_training", path),
        mining=_flag(content, "run_mining", path),
        infer=_flag(content, "run_infer", path),
        inputs=Inputs.of({**section, "config_file": config}),
        outputs=Outputs.of(read_section(content, "output", path)),
    )


def find_monitor(path: Path) -> tuple[Path | None, str]:
    """Return the monitor file and the name of the task, as far as `env.yaml` tells them, whatever else is wrong in it.

    Where it tells nothing, they are what the platform takes then; outside of a container of the platform there is no
    such file.
    """
    try:
        content = read_yaml(path)
        outputs = Outputs.of(read_section(content, "output", path))
    except ConfigError:
        return MONITOR_FILE if MONITOR_FILE.parent.is_dir() else None, _NO_NAME
    return outputs.monitor_file, str(content.get("task_id") or _NO_NAME)


def require_task(env: Env, where: Path) -> None:
    """Refuse a combination of tasks that there is not.

    Raises:
        ConfigError: nothing is to be done, or training together with something else.
    """
    if not (env.training or env.mining or env.infer):
        raise ConfigError(
            "there is nothing to do", where=where, fix="Set run_training, run_mining or run_infer to true."
        )
    if env.training and (env.mining or env.infer):
        raise ConfigError("a training cannot come together with mining or infer", where=where)


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.yaml`.

    Raises:
        ConfigError: it is missing or not 'key: value' lines; or asks for code from elsewhere, which is never run.
    """
    config = read_yaml(path)
    if config.get("git_url"):
        raise ConfigError(
            f"'git_url' is '{config['git_url']}', and this image runs no code from elsewhere",
            where=path,
            fix="Leave git_url empty.",
        )
    return config


def _flag(content: Mapping[str, Any], key: str, where: Path) -> bool:
    value = content.get(key) or False
    try:
        return bool(YesNo()(value))
    except ValueError:
        raise ConfigError(f"'{key}' is {value!r}, not true or false", where=where) from None

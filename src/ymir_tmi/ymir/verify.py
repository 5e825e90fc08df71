"""What `ymir-tmi ymir verify` does: would the platform accept what an image left behind."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ymir_tmi import imaging
from ymir_tmi.errors import ConfigError, DataError, ImageError
from ymir_tmi.ymir.rules.findings import Expected, Findings
from ymir_tmi.ymir.rules.image import check_image, is_image_folder
from ymir_tmi.ymir.rules.infer import check_infer
from ymir_tmi.ymir.rules.mining import check_mining
from ymir_tmi.ymir.rules.monitor import check_monitor
from ymir_tmi.ymir.rules.training import check_tensorboard, check_training

_TASKS = ("training", "mining", "infer")
# Where outputs lie below /out when env.yaml does not say.
_PLACES = {
    "models_dir": "models",
    "tensorboard_dir": "tensorboard",
    "training_result_file": "models/result.yaml",
    "mining_result_file": "result.tsv",
    "infer_result_file": "infer-result.json",
    "monitor_file": "monitor.txt",
}


@dataclass(frozen=True)
class Verification:
    """What the platform would reject, and what was looked at."""

    findings: Findings

    @property
    def ok(self) -> bool:
        """Whether the platform would reject nothing."""
        return not self.findings.problems

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        problems = [vars(problem) for problem in self.findings.problems]
        return {"ok": self.ok, "problems": problems, "checked": self.findings.checked}

    def to_text(self) -> str:
        """Return each problem in a line of its own; without one, what was checked."""
        if not self.ok:
            return "\n".join(map(str, self.findings.problems))
        return "\n".join(["The platform would accept this:", *(f"  {line}" for line in self.findings.checked)])


def verify_or_try(path: Path | None, input_folder: Path | None, profile: str | None) -> Verification:
    """Check what is in `path` (see `verify`), or what tasks of the image `profile` leave that are run for this.

    Raises:
        ConfigError: not one of the two is given, or there is no such image.
        DataError: see `verify`.
    """
    if path is not None and profile is None:
        return verify(path, input_folder)
    if profile is None or path is not None or input_folder is not None:
        raise ConfigError("give either a folder to check (and with it --in), or --profile", where="verify")
    from ymir_tmi.ymir.trial import try_profile

    found = Findings()
    try_profile(profile, found, lambda line: print(line, file=sys.stderr, flush=True))
    return Verification(found)


def verify(path: Path, input_folder: Path | None = None) -> Verification:
    """Check what an image left in /out, or its /img-man.

    Without `input_folder`, which tasks were done is told by the results that are there, and neither names of classes
    nor candidates can be compared.

    Args:
        path: the folder that was mounted as /out, or a copy of /img-man.
        input_folder: the folder that was mounted as /in.

    Raises:
        DataError: `path` is no folder, or `input_folder` holds no task.
    """
    if not path.is_dir():
        raise DataError("this is not a folder", where=path)
    found = Findings()
    if is_image_folder(path):
        check_image(path, found)
    else:
        check_output(path, {} if input_folder is None else read_yaml(input_folder / "env.yaml"), input_folder, found)
    return Verification(found)


def check_output(out: Path, environment: Mapping[str, Any], input_folder: Path | None, found: Findings) -> None:
    """Check an /out.

    Args:
        out: where it is now.
        environment: env.yaml; {} where it is not known.
        input_folder: where /in is now.
        found: where problems are noted.
    """
    places = _places(out, environment)
    results = {task: places[f"{task}_result_file"] for task in _TASKS}
    tasks = [task for task in _TASKS if environment.get(f"run_{task}", not environment and results[task].exists())]
    expected = Expected() if input_folder is None else _expected(environment, input_folder)
    if not tasks:
        names = ", ".join(file.name for file in results.values())
        found.add(out, "", f"there is no result of any task: none of {names}")
    if "training" in tasks:
        check_training(results["training"], places["models_dir"], expected, found)
        check_tensorboard(places["tensorboard_dir"], found)
    if "mining" in tasks:
        check_mining(results["mining"], expected, found)
    if "infer" in tasks:
        check_infer(results["infer"], expected, found)
    check_monitor(places["monitor_file"], expected, found)


def _places(out: Path, environment: Mapping[str, Any]) -> dict[str, Path]:
    """Return where outputs are now; env.yaml names them as they were in the container."""
    output = environment.get("output") or {}
    root = str(output.get("root_dir") or "/out")
    return {key: out / _below(root, output.get(key) or f"{root}/{name}") for key, name in _PLACES.items()}


def _below(root: str, name: str) -> str:
    """Return `name` as seen from `root`, in which it lies."""
    path = PurePosixPath(name)
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _expected(environment: Mapping[str, Any], folder: Path) -> Expected:
    """Return what /in says; `folder` is where it is now."""
    inputs = environment.get("input") or {}
    root = str(inputs.get("root_dir") or "/in")

    def place(name: str) -> Path:
        return folder / _below(root, name)

    config = read_yaml(place(inputs.get("config_file") or f"{root}/config.yaml"))
    index = inputs.get("candidate_index_file")
    candidates = None
    if index and (environment.get("run_mining") or environment.get("run_infer")):
        lines = place(index).read_text(encoding="utf-8").split("\n")
        candidates = tuple(line.split("\t")[0] for line in lines if line.strip())
    sizes = {PurePosixPath(name).name: _stored_size(place(name)) for name in candidates or ()}
    return Expected(
        object_type=config.get("object_type"),
        class_names=tuple(map(str, config.get("class_names") or ())) or None,
        candidates=candidates,
        sizes={name: size for name, size in sizes.items() if size},
        task_id=environment.get("task_id"),
    )


def _stored_size(picture: Path) -> tuple[int, int] | None:
    """Return (width, height) as the platform keeps them: those of the stored picture, which EXIF does not turn."""
    try:
        return imaging.image_size(picture, as_stored=True)
    except ImageError:
        return None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys and values of a file of a task.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"this file of the task cannot be read: {error}", where=file) from error
    if not isinstance(content, dict):
        raise DataError("this file of the task is not a list of keys and values", where=file)
    return content

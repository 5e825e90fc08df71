"""What `ymir-tmi ymir verify` does: would the platform accept what an image left behind.

The rules are in docs/specs/ymir.md; `rules` has a module for each file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ymir_tmi import imaging
from ymir_tmi.config.load import read_yaml
from ymir_tmi.data.formats.ymir import read_rows
from ymir_tmi.data.formats.ymir_folder import ENV_FILE, Inputs, moved
from ymir_tmi.errors import ConfigError, DataError, ImageError
from ymir_tmi.ymir.contract import Outputs
from ymir_tmi.ymir.rules.findings import Expected, Findings
from ymir_tmi.ymir.rules.image import check_image, is_image_folder
from ymir_tmi.ymir.rules.infer import check_infer
from ymir_tmi.ymir.rules.mining import check_mining
from ymir_tmi.ymir.rules.monitor import check_monitor
from ymir_tmi.ymir.rules.training import check_tensorboard, check_training

_TASKS = ("training", "mining", "infer")


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
        ConfigError: not one of the two is given, there is no such image, or see `verify`.
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
        ConfigError: `input_folder` holds no task.
        DataError: `path` is no folder, or the list of candidates cannot be read.
    """
    if not path.is_dir():
        raise DataError("this is not a folder", where=path)
    found = Findings()
    if is_image_folder(path):
        check_image(path, found)
    else:
        check_output(path, {} if input_folder is None else read_yaml(input_folder / ENV_FILE), input_folder, found)
    return Verification(found)


def check_output(out: Path, environment: Mapping[str, Any], input_folder: Path | None, found: Findings) -> None:
    """Check an /out.

    Args:
        out: where it is now.
        environment: env.yaml; {} where it is not known.
        input_folder: where /in is now.
        found: where problems are noted.
    """
    places = Outputs.of(environment.get("output") or {}, out)
    results: dict[str, Path] = {task: getattr(places, f"{task}_result_file") for task in _TASKS}
    tasks = [task for task in _TASKS if environment.get(f"run_{task}", not environment and results[task].exists())]
    expected = Expected() if input_folder is None else _expected(environment, input_folder)
    if not tasks:
        names = ", ".join(file.name for file in results.values())
        found.add(out, "", f"there is no result of any task: none of {names}")
    if "training" in tasks:
        check_training(results["training"], places.models_dir, expected, found)
        check_tensorboard(places.tensorboard_dir, found)
    if "mining" in tasks:
        check_mining(results["mining"], expected, found)
    if "infer" in tasks:
        check_infer(results["infer"], expected, found)
    check_monitor(places.monitor_file, expected, found)


def _expected(environment: Mapping[str, Any], folder: Path) -> Expected:
    """Return what /in says; `folder` is where it is now."""
    section = environment.get("input") or {}
    inputs, root = Inputs.of(section, folder), Path(section.get("root_dir") or "/in")
    config = read_yaml(inputs.config)
    candidates = None
    if "pool" in inputs.lists and (environment.get("run_mining") or environment.get("run_infer")):
        candidates = tuple(picture for picture, _ in read_rows(inputs.lists["pool"]))
    sizes = {Path(name).name: _stored_size(moved(Path(name), root, folder)) for name in candidates or ()}
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

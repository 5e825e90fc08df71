"""A run of every task of an image on drawn pictures, as the platform would start it, and a check of what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ymir_tmi.config.load import read_yaml
from ymir_tmi.ymir.contract import DETECTION, INSTANCES, SEMANTICS
from ymir_tmi.ymir.images import find_profile
from ymir_tmi.ymir.img_man import template, write_img_man
from ymir_tmi.ymir.profile import Profile
from ymir_tmi.ymir.rules.findings import Findings
from ymir_tmi.ymir.rules.image import check_image
from ymir_tmi.ymir.sample_task import SampleTask, TaskOrder, write_sample_task
from ymir_tmi.ymir.verify import check_output

_MM = {"max_epochs": "1", "samples_per_gpu": 2, "workers_per_gpu": 0}
_LOW, _LOW_THRES = {"conf_threshold": 1e-05}, {"conf_thres": 1e-05, "img_size": 128}
_YOLOV5 = {"epochs": "1", "batch_size_per_gpu": 2, "num_workers_per_gpu": 0, "img_size": 128}
SHORT: Mapping[tuple[str, int], Mapping[str, Mapping[str, Any]]] = {
    ("mmdet", DETECTION): {"training": {**_MM, "cfg_options": "img_scale=(128,128)"}, "infer": _LOW},
    ("mmyolo", DETECTION): {
        "training": {**_MM, "cfg_options": "img_scale=(128,128)"},
        "mining": _LOW,
        "infer": _LOW,
    },
    ("mmrotate", DETECTION): {"training": {**_MM, "img_size": 128}, "mining": _LOW, "infer": _LOW},
    ("detectron2", DETECTION): {
        "training": {"max_iter": "2", "args_options": "--opts INPUT.MIN_SIZE_TEST 128 INPUT.MIN_SIZE_TRAIN (128,)"},
        "mining": _LOW,
        "infer": _LOW,
    },
    ("all-in-one", DETECTION): {
        "training": {**_YOLOV5, "model": "yolov5n"},
        "mining": _LOW_THRES,
        "infer": _LOW_THRES,
    },
    ("all-in-one", SEMANTICS): {"training": {"max_iters": "2", "interval": "2"}},
    ("all-in-one", INSTANCES): {
        "training": {**_YOLOV5, "model": "yolov5n-seg"},
        "mining": _LOW_THRES,
        "infer": _LOW_THRES,
    },
}
"""What makes the tasks of each image short, and lets a model that has hardly learnt find something."""
PASSES = (("mining",), ("infer",), ("mining", "infer"))
_CONSOLE = "ymir-executor-out.log"
_LAST_LINES = 5  # the platform shows so many when a task has failed


def try_profile(name: str, found: Findings, say: Callable[[str], None]) -> None:
    """Write the templates of an image, train, and with that model mine and infer, separately and in one run.

    Args:
        name: of the image.
        found: where problems are noted.
        say: is told what is done next.

    Raises:
        ConfigError: there is no such image.
    """
    profile = find_profile(name)
    with tempfile.TemporaryDirectory(prefix="ymir-tmi-") as temporary:
        folder = Path(temporary)
        write_img_man(profile, folder / "img-man")
        check_image(folder / "img-man", found)
        for object_type in profile.object_types:
            say(f"{name}, object type {object_type}: training")
            home = folder / str(object_type)
            trained = run_task(profile, home / "training", order_of(profile, object_type, ("training",)), found)
            files = files_of_best(trained.output / "models")
            if not files:
                continue
            for tasks in PASSES:
                say(f"{name}, object type {object_type}: {' and '.join(tasks)}")
                order = order_of(profile, object_type, tasks, files)
                run_task(profile, home / "-".join(tasks), order, found)


def order_of(
    profile: Profile, object_type: int, tasks: tuple[str, ...], files: list[Path] | None = None, **values: Any
) -> TaskOrder:
    """Return a short task of an image: the templates of its tasks, and what changes in them."""
    named = profile.tasks[object_type].named()
    short = SHORT[profile.name, object_type]
    merged: dict[str, Any] = {}
    for task in reversed(tasks):  # the web page sends that of mining, and the documents say both
        merged |= {**template(named[task]), **short.get(task, {})}
    rotated = profile.name == "mmrotate"
    return TaskOrder(tasks, object_type, rotated, template=merged | values, files=files or [])


def run_task(profile: Profile, folder: Path, order: TaskOrder, found: Findings) -> SampleTask:
    """Write a task, run it by `ymir-tmi ymir start`, and check what is left."""
    task = write_sample_task(folder, order)
    command = [sys.executable, "-m", "ymir_tmi.cli", "ymir", "start", "--profile", profile.name]
    with (task.output / _CONSOLE).open("w") as console:
        status = subprocess.run(
            [*command, "--env", str(task.env_file)],
            stdout=console,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            check=False,
        ).returncode
    if status:
        lines = (task.output / _CONSOLE).read_text(encoding="utf-8").splitlines()[-_LAST_LINES:]
        found.add(" and ".join(order.tasks), "exit status", f"{status}: {' / '.join(lines)}")
    check_output(task.output, read_yaml(task.env_file), task.input, found)
    return task


def files_of_best(models: Path) -> list[Path]:
    """Return the files of the best stage of a training, as the platform packs them; none if there is none."""
    try:
        content = yaml.safe_load((models / "result.yaml").read_text(encoding="utf-8"))
        name = content["best_stage_name"]
        return [models / name / file for file in content["model_stages"][name]["files"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # it has been noted
        return []

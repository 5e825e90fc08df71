"""Mining and inference by `ymir-tmi ymir start`, in one run and one after the other, over the same pictures.

    python benchmarks/one_pass.py --profile mmdet --model best.safetensors --data PICTURES [--set mining_algorithm=cald]

Parameters are those of the image's templates. The start of each process counts: the platform starts one for each run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import yaml

from ymir_tmi.data.pictures import list_pictures
from ymir_tmi.models.checkpoint import read_model_info
from ymir_tmi.ymir.images import find_profile
from ymir_tmi.ymir.img_man import template

OBJECT_TYPES = {"detection": 2, "rotated": 2, "semantics": 3, "instances": 4}
COMMAND = ("-m", "ymir_tmi.cli", "ymir", "start")


def write_task(folder: Path, tasks: tuple[str, ...], options: argparse.Namespace) -> Path:
    """Write what the platform would mount as /in; return its env.yaml."""
    info = read_model_info(options.model)
    object_type = OBJECT_TYPES[info.spec.task]
    config: dict[str, Any] = {
        "class_names": list(info.spec.class_names),
        "gpu_id": "",
        "object_type": object_type,
        "model_params_path": [str(options.model.resolve())],
    }
    named = find_profile(options.profile).tasks[object_type].named()
    for task in reversed(tasks):  # where both have a parameter, mining's value counts, as on the web page
        config |= template(named[task])
    config |= dict(pair.split("=", 1) for pair in options.set)
    lists = folder / "candidate-index.tsv"
    lists.write_text("".join(f"{path}\n" for path in list_pictures(options.data.resolve())), encoding="utf-8")
    outputs = {
        "root_dir": "",
        "models_dir": "models",
        "monitor_file": "monitor.txt",
        "mining_result_file": "result.tsv",
        "infer_result_file": "infer-result.json",
    }
    environment = {
        "protocol_version": "1.1.0",
        "run_mining": "mining" in tasks,
        "run_infer": "infer" in tasks,
        "input": {"root_dir": str(folder), "candidate_index_file": str(lists)},
        "output": {key: str(folder / "out" / value) for key, value in outputs.items()},
    }
    (folder / "out").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    path = folder / "env.yaml"
    path.write_text(yaml.safe_dump(environment, allow_unicode=True), encoding="utf-8")
    return path


def cost_of(tasks: tuple[str, ...], options: argparse.Namespace) -> measure.Cost:
    """Return the cheapest of several runs of the same tasks."""
    costs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as temporary:
            env_file = write_task(Path(temporary), tasks, options)
            command = [sys.executable, *COMMAND, "--profile", options.profile, "--env", str(env_file)]
            costs.append(measure.run(command, Path(temporary) / "log.txt"))
    return min(costs, key=lambda cost: cost.wall_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, help="image: mmdet, mmyolo, mmrotate, detectron2 or all-in-one")
    parser.add_argument("--model", type=Path, required=True, help="model file")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a parameter")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    runs = {" and ".join(tasks): cost_of(tasks, options) for tasks in (("mining",), ("infer",), ("mining", "infer"))}
    mining, infer, both = runs.values()
    rows: list[dict[str, object]] = [
        {"run": name, "wall s": cost.wall_s, "processor s": cost.cpu_s} for name, cost in runs.items()
    ]
    wall, cpu = both.wall_s / (mining.wall_s + infer.wall_s), both.cpu_s / (mining.cpu_s + infer.cpu_s)
    rows.append({"run": "one pass, as a part of two", "wall s": wall, "processor s": cpu})
    print(measure.table(rows))


if __name__ == "__main__":
    main()

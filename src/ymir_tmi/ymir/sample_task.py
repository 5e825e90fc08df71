"""A task as the platform hands it out: /in with all that it writes there, of drawn pictures, and an empty /out.

What it writes is in docs/specs/ymir.md, sections 1 to 4.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ymir_tmi import imaging
from ymir_tmi.files.atomic import write_bytes, write_text
from ymir_tmi.ymir.contract import DETECTION
from ymir_tmi.ymir.sample_annotations import write_annotations
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES, SampleScene, draw_scenes

TRAINING, MINING, INFER = "training", "mining", "infer"
STAGE = "best"


@dataclass(frozen=True)
class TaskOrder:
    """What the platform is asked for.

    Attributes:
        tasks: `("training",)`, `("mining",)`, `("infer",)` or `("mining", "infer")`.
        object_type: 2 boxes, 3 semantic segmentation, 4 instance segmentation.
        rotated: objects are turned (object type 2).
        template: the image's template as the user left it.
        protocol: `protocol_version` of env.yaml; None leaves it out, as the oldest platforms do.
        files: what the chosen model consists of; none: no model was chosen.
        pictures: how many of the training set, or of the candidates; half as many again are validated with.
        uploaded: the candidates are pictures that a user uploaded, under his own names.
        seed: of the drawn pictures.
    """

    tasks: tuple[str, ...]
    object_type: int = DETECTION
    rotated: bool = False
    template: Mapping[str, Any] = field(default_factory=dict)
    protocol: str | None = "1.1.0"
    files: Sequence[Path] = ()
    pictures: int = 6
    uploaded: bool = False
    seed: int = 0


@dataclass(frozen=True)
class SampleTask:
    """Where a task was written.

    Attributes:
        input: what the platform mounts as /in, read only.
        output: what it mounts as /out.
        links: folders that links in them lead to, and that it mounts where they are.
    """

    input: Path
    output: Path
    links: tuple[Path, ...]

    @property
    def env_file(self) -> Path:
        """Return the file that says everything else."""
        return self.input / "env.yaml"


def write_sample_task(folder: Path, order: TaskOrder, *, mounted: bool = False) -> SampleTask:
    """Write `folder`/in and `folder`/out, and what links in them lead to.

    The assets and the folder for TensorBoard are links to folders beside, as in real use; that of the assets also holds
    a file that belongs to another task.

    Args:
        folder: made where it does not exist.
        order: what the platform is asked for.
        mounted: env.yaml and the lists say /in and /out, where a container has these folders; else where they are.
    """
    folder = folder.absolute()
    root = "" if mounted else str(folder)
    links = (folder / "asset_cache", folder / "tensorboard")
    for link, place in zip(links, ("in/assets", "out/tensorboard"), strict=True):
        link.mkdir(parents=True)
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).symlink_to(link)
    task = SampleTask(folder / "in", folder / "out", links)
    (folder / "out" / "models").mkdir()
    write_bytes(links[0] / "ff" / f"{'0' * 38}ff.jpg", b"the picture of another task")

    form = str(order.template.get("export_format") or "voc:raw")
    if TRAINING in order.tasks:
        _write_training_set(task, root, order, form.partition(":")[0])
    else:
        _write_candidates(task, root, order)
    _write_yaml(task.input / "env.yaml", _environment(root, order))
    _write_yaml(task.input / "config.yaml", _config(task, root, order))
    return task


def as_passed_on(template: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """Return what of a template reaches config.yaml when a user starts a task on the web page.

    Values go through JSON and YAML 1.1, so that 1e-05 becomes text. Training drops empty text, mining and infer drop
    whatever Python calls false.
    """
    values: dict[str, Any] = yaml.safe_load(json.dumps(dict(template), ensure_ascii=False))
    if TRAINING in tasks:
        return {key: value for key, value in values.items() if value != ""}
    return {key: value for key, value in values.items() if value}


def _write_training_set(task: SampleTask, root: str, order: TaskOrder, form: str) -> None:
    held_out = max(2, order.pictures // 2)
    scenes = draw_scenes(order.seed, order.pictures, rotated=order.rotated)
    others = draw_scenes(order.seed + 1, held_out, rotated=order.rotated)
    names = [_store(task, scene) for scene in scenes + others]
    files = write_annotations(task.input / "annotations", form, dict(zip(names, scenes + others, strict=True)))
    lines = [f"{root}/in/assets/{name}\t{root}/in/annotations/{files[name]}\n" for name in names]
    write_text(task.input / "train-index.tsv", "".join(lines[: len(scenes)]))
    write_text(task.input / "val-index.tsv", "".join(lines[len(scenes) :]))


def _write_candidates(task: SampleTask, root: str, order: TaskOrder) -> None:
    scenes = draw_scenes(order.seed + 2, order.pictures, rotated=order.rotated)
    uploads = [f"ein Bild, das {number}. – 图.png" if order.uploaded else None for number in range(len(scenes))]
    names = [_store(task, scene, upload) for scene, upload in zip(scenes, uploads, strict=True)]
    write_text(task.input / "candidate-index.tsv", "".join(f"{root}/in/assets/{name}\n" for name in names))


def _store(task: SampleTask, scene: SampleScene, upload: str | None = None) -> str:
    """Write a picture into the assets; return its name there."""
    data = imaging.encode_image(scene.image, ".png" if upload else ".jpg")
    key = hashlib.sha1(data).hexdigest()
    name = upload or f"{key[-2:]}/{key}.jpg"
    write_bytes(task.input / "assets" / name, data)
    return name


def _environment(root: str, order: TaskOrder) -> dict[str, Any]:
    training = TRAINING in order.tasks
    environment: dict[str, Any] = {
        "task_id": "t00000020000020167c11661328921",
        "run_training": training,
        "run_mining": MINING in order.tasks,
        "run_infer": INFER in order.tasks,
        "manifest_file": "/img-man/manifest.yaml",
        "input": {
            "root_dir": f"{root}/in",
            "assets_dir": f"{root}/in/assets",
            "annotations_dir": f"{root}/in/annotations",
            "models_dir": f"{root}/in/models",
            "training_index_file": f"{root}/in/train-index.tsv" if training else "",
            "val_index_file": f"{root}/in/val-index.tsv" if training else "",
            "candidate_index_file": "" if training else f"{root}/in/candidate-index.tsv",
            "config_file": f"{root}/in/config.yaml",
        },
        "output": {
            "root_dir": f"{root}/out",
            "models_dir": f"{root}/out/models",
            "tensorboard_dir": f"{root}/out/tensorboard",
            "training_result_file": f"{root}/out/models/result.yaml",
            "mining_result_file": f"{root}/out/result.tsv",
            "infer_result_file": f"{root}/out/infer-result.json",
            "monitor_file": f"{root}/out/monitor.txt",
            "executor_log_file": f"{root}/out/ymir-executor-out.log",
        },
    }
    if order.protocol is not None:
        environment["protocol_version"] = order.protocol
    return environment


def _config(task: SampleTask, root: str, order: TaskOrder) -> dict[str, Any]:
    config = as_passed_on(order.template, order.tasks)
    config |= {
        "task_id": "t00000020000020167c11661328921",
        "class_names": list(CLASS_NAMES),
        "gpu_count": 0,
        "gpu_id": "",
        "object_type": order.object_type,
    }
    if TRAINING not in order.tasks:
        config |= {"run_mining": MINING in order.tasks, "run_infer": INFER in order.tasks}
    if order.files:
        key = "pretrained_model_params" if TRAINING in order.tasks else "model_params_path"
        config[key] = [f"{root}/in/models/{STAGE}/{file.name}" for file in order.files]
        (task.input / "models" / STAGE).mkdir(parents=True)
        for file in order.files:
            shutil.copyfile(file, task.input / "models" / STAGE / file.name)
        _write_yaml(task.input / "models" / "ymir-info.yaml", {"executor_config": {"class_names": list(CLASS_NAMES)}})
    return config


def _write_yaml(path: Path, value: Any) -> None:
    write_text(path, yaml.safe_dump(value, allow_unicode=True))

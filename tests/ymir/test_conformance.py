"""Every task of every image, run by the command line as the platform's container would run it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from containers import Finished, has_namespaces, run_order, run_python

from ymir_tmi.models.checkpoint import load_model
from ymir_tmi.ymir.contract import DETECTION, INSTANCES, SEMANTICS
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES, draw_scenes
from ymir_tmi.ymir.sample_task import TaskOrder, write_sample_task
from ymir_tmi.ymir.trial import files_of_best, order_of
from ymir_tmi.ymir.verify import verify

IMAGES = [(name, object_type) for name, profile in PROFILES.items() for object_type in profile.object_types]
# One of each object type and one of turned boxes are enough for every day.
DAILY = {("mmyolo", DETECTION), ("mmrotate", DETECTION), ("all-in-one", SEMANTICS), ("all-in-one", INSTANCES)}
CASES = [
    pytest.param(
        name, object_type, id=f"{name}-{object_type}", marks=[] if (name, object_type) in DAILY else pytest.mark.slow
    )
    for name, object_type in IMAGES
]


def accepted(run: Finished) -> Path:
    """Return /out of a run that went well and that the platform accepts."""
    assert run.status == 0, "\n".join(run.lines[-20:])
    found = verify(run.task.output, run.task.input)
    assert found.ok, found.to_text()
    assert run.lines[-1] == "done"
    return run.task.output


def test_the_place_is_that_of_a_container(tmp_path: Path) -> None:
    """The user has no name and no home, and can write to /out and /tmp only."""
    if not has_namespaces():
        pytest.skip("this user may not make mounts")
    task = write_sample_task(tmp_path, TaskOrder(("mining",)), mounted=True)
    program = """
import os, pwd, sys
assert os.getuid() == 12345 and "HOME" not in os.environ
for place in ("/out", "/tmp", "/out/tensorboard"):
    open(place + "/try", "w").close()
for place in ("/", "/in", "/in/assets", "/usr", os.path.dirname(sys.executable)):
    try:
        open(place + "/try", "w")
    except OSError:
        continue
    raise SystemExit(place + " can be written to")
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    print("all is so")
"""
    assert run_python(task, program).lines == ["all is so"]


@pytest.mark.parametrize(("name", "object_type"), CASES)
def test_training_then_mining_and_inference_in_one_run(tmp_path: Path, name: str, object_type: int) -> None:
    profile = PROFILES[name]
    out = accepted(run_order(tmp_path / "training", order_of(profile, object_type, ("training",)), name))
    check_training(out, name, object_type)
    both = order_of(profile, object_type, ("mining", "infer"), files_of_best(out / "models"))
    out = accepted(run_order(tmp_path / "both", both, name))
    check_found(out, name, object_type)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "object_type"), IMAGES)
def test_each_task_by_itself(tmp_path: Path, name: str, object_type: int) -> None:
    profile = PROFILES[name]
    out = accepted(run_order(tmp_path / "training", order_of(profile, object_type, ("training",)), name))
    files = files_of_best(out / "models")
    for task in ("mining", "infer"):
        accepted(run_order(tmp_path / task, order_of(profile, object_type, (task,), files), name))
    # The model goes on being trained from where it was.
    again = run_order(tmp_path / "again", order_of(profile, object_type, ("training",), files), name)
    accepted(again)
    assert any("weights" in line and files[0].name in line for line in again.lines)


def check_training(out: Path, name: str, object_type: int) -> None:
    content = yaml.safe_load((out / "models" / "result.yaml").read_text(encoding="utf-8"))
    stage = content["model_stages"][content["best_stage_name"]]
    assert {"mAP", "mIoU", "maskAP"} & set(stage) == {{2: "mAP", 3: "mIoU", 4: "maskAP"}[object_type]}
    model = load_model(next(path for path in files_of_best(out / "models") if path.suffix == ".safetensors"))
    assert set(CLASS_NAMES) <= set(model.spec.class_names), "also the class that no picture has"
    if object_type != SEMANTICS:  # every object of validation has been looked for, whatever `iscrowd` says of it
        truth = sum(len(scene.objects) for scene in draw_scenes(1, 3, rotated=name == "mmrotate"))
        assert stage["tp"] + stage["fn"] == truth
    assert (out / "models" / "attachments" / "report" / "report.html").stat().st_size > 10_000


def check_found(out: Path, name: str, object_type: int) -> None:
    content = json.loads((out / "infer-result.json").read_text(encoding="utf-8"))
    if object_type == DETECTION:
        boxes = [box for image in content["detection"].values() for box in image["boxes"]]
        assert len(boxes) > 10
        assert {("rotate_angle" in box["box"]) for box in boxes} == {name == "mmrotate"}
        return
    assert content["annotations"]
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert set(names.values()) <= set(CLASS_NAMES)
    if object_type == SEMANTICS:
        pairs = Counter((row["image_id"], row["category_id"]) for row in content["annotations"])
        assert max(pairs.values()) == 1
    else:
        assert all(0 <= row["confidence"] <= 1 for row in content["annotations"])

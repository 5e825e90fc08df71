"""The entry point: what it leaves when all goes well, and that everything says the same when something does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml

from ymir_tmi.errors import DataError, DivergedError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.ymir import images, passes, processes, start, task, training
from ymir_tmi.ymir.orders import Machine, PassOrder, StagePolicy, TrainingOrder
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES
from ymir_tmi.ymir.sample_task import SampleTask, TaskOrder, write_sample_task
from ymir_tmi.ymir.verify import verify

SMALL = {"image_size": 64, "workers": 0, "precision": "fp32", "batch": 4}


class Plain:
    """An image of which the parameters are our settings, by the name of the task."""

    name = "plain"
    object_types = (2, 3, 4)

    def training(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> TrainingOrder:
        values = {"model": "yolox_tiny", "epochs": 2, **SMALL, **config.get("training", {})}
        return TrainingOrder(values, StagePolicy(keep=1), notes=("a note",))

    def mining(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        values = {"algorithm": config.get("mining_algorithm", "entropy"), **SMALL, **config.get("mining", {})}
        return PassOrder(values, notes=("a note",))

    def infer(self, config: Mapping[str, Any], object_type: int, machine: Machine) -> PassOrder:
        return PassOrder({"conf": 0.3, **SMALL, **config.get("infer", {})}, notes=("a note",))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.PROFILES, "plain", Plain())  # type: ignore[arg-type]
    monkeypatch.setenv("YMIR_TMI_PROFILE", "plain")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, write_detector: Callable[..., Path]) -> Path:
    return write_detector(tmp_path_factory.mktemp("model") / "model.safetensors", CLASS_NAMES, 1.0)


def change(given: SampleTask, **values: Any) -> None:
    """Change config.yaml; None takes a key away."""
    path = given.input / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) | values
    text = yaml.safe_dump({key: value for key, value in config.items() if value is not None}, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def told(given: SampleTask) -> list[str]:
    """Return the fields of monitor.txt."""
    return (given.output / "monitor.txt").read_text(encoding="utf-8").split("\n")[0].split("\t")


def parts_told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what will be written of how far a task is."""
    parts: list[float] = []
    write = start.Monitor._write

    def note(self: start.Monitor, *args: Any) -> None:
        parts.append(self._part)
        write(self, *args)

    monkeypatch.setattr(start.Monitor, "_write", note)
    monkeypatch.setattr("ymir_tmi.ymir.monitor._STEP", 0.0)
    return parts


def accept(given: SampleTask) -> None:
    found = verify(given.output, given.input)
    assert found.ok, found.to_text()


def test_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("training",), template={"export_format": "ark:raw"}))
    parts = parts_told(monkeypatch)
    assert start.start(env_file=given.env_file) == 0
    accept(given)
    result = yaml.safe_load((given.output / "models" / "result.yaml").read_text())
    stage = result["model_stages"][result["best_stage_name"]]
    weights = given.output / "models" / stage["stage_name"] / "model.safetensors"
    assert load_model(weights).spec.class_names == CLASS_NAMES
    assert result["attachments"] == {"report": ["report.html"]}
    assert list((tmp_path / "tensorboard").glob("events*")), "where the link leads to"
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1 and any(0.4 < part < 0.6 for part in parts)
    printed = capfd.readouterr().out.splitlines()
    assert "a note" in printed and printed[-1] == "done"
    assert any("processor" in line for line in printed) and any("from scratch" in line for line in printed)


def test_mining_and_inference(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one pass or in two, both leave the same."""
    results = []
    for folder, values in (("one", {}), ("two", {"infer": {"iou": 0.65}})):
        given = write_sample_task(tmp_path / folder, TaskOrder(("mining", "infer"), files=[model], uploaded=True))
        change(given, **values)
        with monkeypatch.context() as patch:
            parts = parts_told(patch)
            assert start.start(env_file=given.env_file) == 0
        accept(given)
        assert parts == sorted(parts) and parts[-1] == 1
        ranking = (given.output / "result.tsv").read_text(encoding="utf-8").replace(str(tmp_path / folder), "")
        results.append((ranking, json.loads((given.output / "infer-result.json").read_text())))
    assert results[0] == results[1]
    boxes = [box for image in results[0][1]["detection"].values() for box in image["boxes"]]
    assert boxes and min(box["score"] for box in boxes) > 0.3, "the threshold of inference, not that of mining"
    printed = capfd.readouterr().out
    assert printed.count("differ in iou") == 1 and printed.count("a note") == 2, "once in each run"


def test_masks_in_the_same_pass(tmp_path: Path, instance_model: Any) -> None:
    spec = instance_model.spec.model_copy(update={"class_names": CLASS_NAMES[:2]})
    renamed = create_model(spec.name, class_names=CLASS_NAMES[:2])
    renamed.load_state_dict(instance_model.state_dict())
    save_model(renamed, tmp_path / "model.safetensors")
    order = TaskOrder(("mining", "infer"), 4, files=[tmp_path / "model.safetensors"])
    given = write_sample_task(tmp_path / "task", order)
    change(given, mining_algorithm="apis", infer={"conf": 0.01, "image_size": 96}, mining={"image_size": 96})
    assert start.start(env_file=given.env_file) == 0
    accept(given)
    assert json.loads((given.output / "infer-result.json").read_text())["annotations"]


def test_a_picture_that_cannot_be_read(tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It comes last, and nothing is found in it; if all are so, the task fails."""
    given = write_sample_task(tmp_path, TaskOrder(("mining", "infer"), files=[model], pictures=3))
    pictures = [Path(line) for line in (given.input / "candidate-index.tsv").read_text().splitlines()]
    pictures[0].write_bytes(b"no picture")
    assert start.start(env_file=given.env_file) == 0
    accept(given)
    last = (given.output / "result.tsv").read_text().splitlines()[-1]
    assert last.startswith(str(pictures[0]))
    assert json.loads((given.output / "infer-result.json").read_text())["detection"][pictures[0].name]["boxes"] == []
    assert f"cannot read {pictures[0]}" in capfd.readouterr().out
    for picture in pictures:
        picture.write_bytes(b"no picture")
    assert start.start(env_file=given.env_file) == 2
    assert told(given)[4] == "300003"


def remove_pictures(given: SampleTask) -> None:
    shutil.rmtree(given.input / "assets" / "ff")
    for line in (given.input / "candidate-index.tsv").read_text().splitlines():
        Path(line).unlink()


def replace_by_semantics(given: SampleTask) -> None:
    model = create_model("fast_scnn", class_names=CLASS_NAMES).eval()
    save_model(model, given.input / "models" / "best" / "model.safetensors")


ERRORS: dict[str, tuple[str, Callable[[SampleTask], object], str]] = {
    "config.yaml is missing": ("300001", lambda given: (given.input / "config.yaml").unlink(), "config.yaml"),
    "a value is wrong": ("300001", lambda given: change(given, infer={"conf": "high"}), "conf"),
    "code from elsewhere": ("300001", lambda given: change(given, git_url="https://a.b/c"), "git_url"),
    "no list": ("300002", lambda given: (given.input / "candidate-index.tsv").unlink(), "candidate-index.tsv"),
    "an empty list": ("300002", lambda given: (given.input / "candidate-index.tsv").write_text(""), "no pictures"),
    "pictures are missing": ("300002", remove_pictures, "are missing"),
    "no model": ("300004", lambda given: change(given, model_params_path=None), "model_params_path"),
    "a model that is none": (
        "300004",
        lambda given: (given.input / "models" / "best" / "model.safetensors").write_bytes(b"x"),
        "model.safetensors",
    ),
    "classes of another model": ("300004", lambda given: change(given, class_names=["cow"]), "cow"),
    "a model of something else": ("300004", replace_by_semantics, "model for semantics"),
    "no object type": ("300005", lambda given: change(given, object_type=None), "object_type"),
    "another object type": ("300005", lambda given: change(given, object_type=50), "50"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_everywhere(name: str, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, spoil, word = ERRORS[name]
    given = write_sample_task(tmp_path, TaskOrder(("infer",), files=[model]))
    spoil(given)
    assert start.start(env_file=given.env_file) == 2
    _, _, part, state, told_code, message = told(given)
    assert (float(part), state, told_code) == (1.0, "4", code)
    *_, last = capfd.readouterr().err.splitlines()
    assert last == f"error {code}: {message}" and word in message
    assert not (given.output / "infer-result.json").exists()


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (DivergedError("the loss is no longer a finite number"), "300201", 2),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB"), "300103", 1),
        (RuntimeError("CUDA error: no kernel image"), "300101", 1),
        (RuntimeError("Caught OSError in a worker.\n" + "  File ...\n" * 99 + "OSError: /a is gone"), "160004", 1),
        (ZeroDivisionError("division by zero"), "160004", 1),
        (KeyboardInterrupt(), "160004", 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_on_the_way(
    error: BaseException,
    code: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(training, "train", fail)
    given = write_sample_task(tmp_path, TaskOrder(("training",), template={"export_format": "ark:raw"}))
    assert start.start(env_file=given.env_file) == status
    assert told(given)[3:5] == ["4", code]
    assert told(given)[5].endswith(str(error).splitlines()[-1] if str(error) else "stopped")
    assert capfd.readouterr().err.splitlines()[-1] == f"error {code}: {told(given)[5]}"


def test_remedies_are_not_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("training",), template={"export_format": "ark:raw"}))
    for where, fix, shown in [
        (None, "Use 2 or more (--batch), or 32 bits (--precision fp32).", "wrong. Use 2 or more, or 32 bits."),
        ("a.tsv", "Give class_names.", "wrong. Give class_names."),
        ("a.tsv", "Say it by --images.", "wrong"),
        (None, "`ymir-tmi check` lists more of them.", "wrong"),
        (None, None, "wrong"),
        ("args_options", "Nearest: --epochs.", "wrong. Nearest: --epochs."),
    ]:
        monkeypatch.setattr(training, "train", Mock(side_effect=DataError("it is wrong", where=where, fix=fix)))
        assert start.start(env_file=given.env_file) == 2
        place = f"{where}: " if where else ""
        assert capfd.readouterr().err.splitlines()[-1] == f"error 300002: {place}it is {shown}"


def test_training_without_pictures_or_classes(tmp_path: Path) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("training",), template={"export_format": "ark:raw"}))
    (given.input / "val-index.tsv").write_text("")
    assert start.start(env_file=given.env_file) == 2
    assert told(given)[4] == "300002"
    change(given, class_names=None)
    assert start.start(env_file=given.env_file) == 2
    assert told(given)[4] == "300001"


def test_a_report_that_cannot_be_made_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(training, "report", fail)
    given = write_sample_task(tmp_path, TaskOrder(("training",), template={"export_format": "ark:raw"}))
    assert start.start(env_file=given.env_file) == 0
    accept(given)
    assert "there is no report: 'a bug'" in capfd.readouterr().out


def test_random_mining_needs_no_model(tmp_path: Path) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    change(given, mining_algorithm="random")
    assert start.start(env_file=given.env_file) == 0
    accept(given)


def test_the_other_processes_of_a_task_are_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    monkeypatch.setattr(passes, "pass_task", lambda given: task.say("a sentence"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert start.start(env_file=given.env_file) == 0
    assert capfd.readouterr().out == "" and not (given.output / "monitor.txt").exists()


def test_an_unknown_image_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    assert start.start("plane", given.env_file) == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("there is no image 'plane'. Did you mean 'plain'?")


def test_no_env_file(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ymir_tmi.ymir.contract.MONITOR_FILE", tmp_path / "monitor.txt")
    assert start.start(env_file=tmp_path / "env.yaml") == 2
    assert (tmp_path / "monitor.txt").read_text().split("\t")[4] == "300001"
    assert "env.yaml" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("values", [{"protocol_version": "newest"}, {"run_infer": "maybe"}, {"run_infer": False}])
def test_what_is_wrong_in_the_env_file_is_told_where_it_says(tmp_path: Path, values: dict[str, Any]) -> None:
    given = write_sample_task(tmp_path, TaskOrder(("infer",)))
    content = yaml.safe_load(given.env_file.read_text(encoding="utf-8"))
    given.env_file.write_text(yaml.safe_dump(content | values), encoding="utf-8")
    assert start.start(env_file=given.env_file) == 2
    name, *_, state, code, message = told(given)
    assert (name, state, code) == (content["task_id"], "4", "300001") and "env.yaml" in message


def test_docker_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(passes, "mine", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    change(given, mining_algorithm="random")
    assert start.start(env_file=given.env_file) == 130
    assert told(given)[3:] == ["4", "160004", "the task was stopped"]
    assert capfd.readouterr().err.splitlines()[-1] == "error 160004: the task was stopped"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_warning_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def warn(_: Any) -> None:
        for text in ("a", "a", "b"):
            warnings.warn(text, stacklevel=1)

    monkeypatch.setattr(passes, "pass_task", warn)
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    assert start.start(env_file=given.env_file) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if "warning" in line] == ["warning: a", "warning: b"]


@pytest.mark.parametrize("waits", [False, True])
def test_another_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
    """It says why, and the first one fails as well, even if it waits for the other one."""
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    change(given, mining_algorithm="random")
    gone = threading.Event()

    def mine(*_: Any, **__: Any) -> None:
        assert not waits or gone.wait(300)
        raise RuntimeError("the connection was closed")

    monkeypatch.setattr(os, "_exit", lambda status: gone.set())
    monkeypatch.setattr(processes, "_PATIENCE_S", 0.0 if waits else 300.0)
    monkeypatch.setattr(passes, "mine", mine)
    monkeypatch.setattr(start, "choose_device", lambda config, say: ("cpu", Machine(devices=2)))
    arguments = ["ymir", "start", "--profile", "nonsense", "--env", str(given.env_file)]
    monkeypatch.setattr(sys, "argv", ["ymir-tmi", *arguments])
    assert start.start(env_file=given.env_file) == 1
    told_code = told(given)[4]
    assert told_code == ("300001" if waits else "160004") and gone.is_set() == waits


def test_the_failure_of_another_process_is_one_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ymir-tmi", "ymir", "start", "--profile", "nonsense", "--env", str(tmp_path)])
    with pytest.raises(RuntimeError, match="another GPU has failed"), processes.others_on(Machine(devices=2), print):
        pass


def test_a_library_that_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "pass_task", lambda given: sys.exit(0))
    given = write_sample_task(tmp_path, TaskOrder(("mining",)))
    assert start.start(env_file=given.env_file) == 1
    assert told(given)[3:5] == ["4", "160004"]


@pytest.mark.slow
def test_several_processes_share_the_images(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for several GPUs, but on the processor; the image is one that the other process knows, too."""
    given = write_sample_task(tmp_path, TaskOrder(("mining", "infer"), files=[model], pictures=40))
    arguments = ["ymir", "start", "--profile", "mmyolo", "--env", str(given.env_file)]
    monkeypatch.setattr(sys, "argv", ["ymir-tmi", *arguments])
    monkeypatch.setattr(start, "choose_device", lambda config, say: ("cpu", Machine(devices=2)))
    assert start.start("mmyolo", given.env_file) == 0
    accept(given)
    assert "WORLD_SIZE" not in os.environ


@pytest.mark.parametrize(
    ("object_type", "model", "fits"), [(2, "yolov5_n_seg", True), (3, "yolov5_n", False), (4, "yolov5_n", False)]
)
def test_what_a_model_finds_fits_the_task(tmp_path: Path, object_type: int, model: str, fits: bool) -> None:
    save_model(create_model(model, class_names=CLASS_NAMES).eval(), tmp_path / "model.safetensors")
    given = write_sample_task(
        tmp_path / "task", TaskOrder(("infer",), object_type, files=[tmp_path / "model.safetensors"])
    )
    assert start.start(env_file=given.env_file) == (0 if fits else 2)
    assert fits or told(given)[4] == "300004"

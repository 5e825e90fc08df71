"""The command line: which options there are, and what a mistake looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ymir_tmi.cli import app
from ymir_tmi.config.schema import (
    CheckSettings,
    ConvertSettings,
    ConvertWeightsSettings,
    DownloadSettings,
    EvaluateSettings,
    ExportSettings,
    InferSettings,
    MineSettings,
    SplitSettings,
    TileSettings,
    TrainSettings,
    VerifySettings,
)
from ymir_tmi.errors import RunError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.files.manifest import Manifest

RESULT = SimpleNamespace(to_text=lambda: "done")

SHARED = {
    "output", "images", "format", "classes", "image_size", "conf", "iou", "max_dets", "device", "precision", "batch",
    "workers", "seed",
}  # fmt: skip

PASS = SHARED | {"tile", "overlap", "window", "window_stride", "flip_test", "scales"}

# Adding an option is a decision: it is made here too.
OPTIONS = {
    TrainSettings: SHARED
    | {
        "model",
        "activation",
        "recipe",
        "weights",
        "data",
        "train",
        "val",
        "resume",
        "epochs",
        "blank",
        "val_interval",
        "patience",
        "compile",
        "set",
    },
    EvaluateSettings: PASS | {"model", "predictions", "data", "split"},
    InferSettings: PASS | {"model", "data", "split", "formats", "pictures", "resume"},
    MineSettings: PASS
    | {
        "model",
        "data",
        "split",
        "algorithm",
        "compat",
        "top_k",
        "gallery",
        "class_weights",
        "aggregate",
        "empty_first",
        "passes",
        "group_iou",
        "certainty",
        "superpixels",
        "max_superpixels",
        "region_size",
        "region_radius",
        "top_regions",
        "class_balance",
        "normalize",
        "kept",
        "resume",
    },
    ExportSettings: {
        "model",
        "to",
        "output",
        "outputs",
        "image_size",
        "dynamic_size",
        "batch",
        "dynamic_batch",
        "opset",
        "fp16",
        "conf",
        "iou",
        "max_dets",
        "data",
    },
    CheckSettings: {"data", "images", "format", "fast"},
    ConvertSettings: {
        "data",
        "images",
        "format",
        "to",
        "output",
        "split",
        "classes",
        "rotated",
        "blank",
        "copy_pictures",
    },
    SplitSettings: {
        "data",
        "images",
        "format",
        "to",
        "output",
        "split",
        "classes",
        "rotated",
        "blank",
        "copy_pictures",
        "parts",
        "group",
        "seed",
    },
    TileSettings: {
        "data",
        "images",
        "format",
        "output",
        "size",
        "overlap",
        "rates",
        "split",
        "classes",
        "rotated",
        "pad",
        "empty",
        "jpeg_quality",
    },
    DownloadSettings: {"names", "cache", "mirror"},
    VerifySettings: {"names", "cache"},
    ConvertWeightsSettings: {"source", "output", "model", "classes", "partial", "cache"},
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ymir_tmi.cli", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
def test_options_are_these(kind: type) -> None:
    assert set(kind.model_fields) == OPTIONS[kind]


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
def test_every_option_is_documented(kind: type) -> None:
    for name, field in kind.model_fields.items():
        assert field.description and field.description.rstrip().endswith("."), name


def test_help_names_every_verb() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in (
        "train",
        "evaluate",
        "infer",
        "mine",
        "export",
        "report",
        "models",
        "check",
        "convert",
        "split",
        "tile",
        "doctor",
        "demo",
        "weights",
    ):
        assert f"  {verb} " in done.stdout


MISTAKES = [
    (["mine", "--data", "x", "--batch", "many"], "'batch' is 'many'"),
    (
        ["mine", "--data", "x", "--algorithm", "entropie"],
        "'random', 'entropy', 'aldd', 'cald', 'apis', 'maskal', 'rsal' or 'ripu'",
    ),
    (["train", "--epochs", "0"], "'epochs' is '0'"),
    (["train", "--model", "rtmdet_tinny", "--train", "a.json", "--val", "b.json"], "rtmdet_tiny"),
    (["infer", "--model", "missing.safetensors"], "'data' is missing"),
    (["infer", "--model", "missing.safetensors", "--data", "missing.jpg"], "missing."),
    (["export", "missing.safetensors"], "missing.safetensors: there is no such model file"),
    (["export", "missing.safetensors", "--opset", "10"], "'opset' is '10'"),
    (
        ["convert", "missing.json", "--to", "cocoa", "--output", "x"],
        "'coco', 'voc', 'yolo', 'yolo-seg', 'dota' or 'masks'",
    ),
    (["tile", "missing.json", "--output", "x", "--rates", "1,0"], "'rates' is '0'"),
    (["tile", "missing.json", "--output", "x", "--size", "128"], "windows of 128 pixels cannot overlap by 200"),
    (["tile", "missing.json", "--output", "x", "--rates", "1,40"], "at rate 40 windows of 1024 pixels have 25"),
    (["infer", "--model", "m", "--data", "x", "--overlap", "64"], "'overlap' has no effect here"),
    (["evaluate", "--data", "x.json"], "--model"),
    (["report", "nowhere"], "nowhere"),
    (["train", "--config", "missing.yaml"], "missing.yaml"),
    (["weights", "convert", "missing.pth", "--output", "a.safetensors"], "no such file"),
    (["weights", "convert", "missing.pth"], "'output' is missing"),
    (["weights", "download", "rtmdet_tinny"], "Did you mean 'rtmdet_tiny'?"),
    (["train", "--train", "missing.json", "--val", "missing.json"], "missing.json"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_mistake_gives_one_message_and_no_traceback(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_mistyped_option_is_named() -> None:
    done = run("train", "--epoch", "3")
    assert done.returncode == 2
    assert "--epochs" in done.stderr


def test_json_is_only_json() -> None:
    done = run("models", "--json")
    assert done.returncode == 0
    assert "rtmdet_tiny" in [row["name"] for row in json.loads(done.stdout)["models"]]


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(settings: MineSettings) -> None:
        with Manifest.start(tmp_path / "run.json", "mine", {}):
            raise KeyboardInterrupt

    monkeypatch.setattr("ymir_tmi.mining.run.mine", interrupted)
    with pytest.raises(SystemExit) as ended:
        app(["mine", "--data", "x"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"stopped; go on with: ymir-tmi mine --resume {tmp_path}\n"


def test_ctrl_c_before_there_is_a_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(settings: MineSettings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ymir_tmi.mining.run.mine", interrupted)
    with pytest.raises(SystemExit):
        app(["mine", "--data", "x"])
    assert capsys.readouterr().err == "stopped\n"


def test_a_warning_is_one_line() -> None:
    code = "import warnings, ymir_tmi.cli as cli; cli.app = lambda: warnings.warn('this file is empty'); cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: this file is empty\n"


@pytest.fixture
def mining_run(tmp_path: Path) -> Path:
    """The folder of a mining run that was killed."""
    settings = MineSettings(data=["pool"], algorithm="random", top_k=3, gallery=7)
    Manifest.start(RunLayout(tmp_path / "run").manifest, "mine", settings.model_dump(mode="json"))
    return tmp_path / "run"


def test_resume_takes_what_is_not_given_from_the_run(mining_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[MineSettings] = []
    monkeypatch.setattr("ymir_tmi.mining.run.mine", lambda settings: asked.append(settings) or RESULT)
    done = CliRunner().invoke(app, ["mine", "--resume", str(mining_run), "--top-k", "5"])
    assert (done.exit_code, done.stdout) == (0, "done\n")
    assert asked == [MineSettings(data=["pool"], algorithm="random", top_k=5, gallery=7, resume=mining_run)]


def test_a_run_of_another_verb_is_not_gone_on_with(mining_run: Path) -> None:
    done = CliRunner().invoke(app, ["infer", "--resume", str(mining_run)])
    assert isinstance(done.exception, RunError)
    assert "this is a run of 'mine', not of 'infer'" in str(done.exception)

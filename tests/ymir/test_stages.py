"""Model stages: which stay, what they hold, and that result.yaml names nothing else."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ymir_tmi.evaluation.results import CocoNumbers, DotaNumbers
from ymir_tmi.evaluation.semantic_results import SemanticResult
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.training.observer import ValidatedEpoch
from ymir_tmi.ymir.contract import Outputs
from ymir_tmi.ymir.orders import StagePolicy
from ymir_tmi.ymir.stages import Stage, StageKeeper, stage_metrics, stages_to_keep

NO_COCO = dict.fromkeys(CocoNumbers.model_fields)


def coco(**numbers: float | None) -> CocoNumbers:
    return CocoNumbers.model_validate({**NO_COCO, **numbers})


def objects(means: Any, boxes: CocoNumbers | None = None) -> Any:
    overall = SimpleNamespace(true_positives=3, false_positives=1, missed=2)
    return SimpleNamespace(means=means, coco=boxes, overall=overall, settings=SimpleNamespace(conf=0.001))


def semantic(**numbers: float | None) -> SemanticResult:
    return SemanticResult.model_construct(**{"mIoU": None, "mAcc": None, "aAcc": None, **numbers})


def stages(*goals: float) -> list[Stage]:
    return [Stage(epoch, 0, {}, goal, ()) for epoch, goal in enumerate(goals, 1)]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (StagePolicy(), [1, 2, 3, 4, 5, 6]),
        (StagePolicy(keep=1), [2, 6]),  # the best and the latest
        (StagePolicy(keep=0), [2, 6]),
        (StagePolicy(keep=3), [2, 4, 5, 6]),
        (StagePolicy(every=2), [2, 4, 6]),
        (StagePolicy(every=3, keep=1), [2, 6]),
        (StagePolicy(every=4), [2, 4, 6]),
        (StagePolicy(best_only=True), [2, 6]),
        (StagePolicy(best_only=True, best=2), [2, 5, 6]),
    ],
)
def test_which_stages_stay(policy: StagePolicy, kept: list[int]) -> None:
    # One after the other, as a training does it: what was dropped does not come back.
    chosen: list[Stage] = []
    for stage in stages(0.1, 0.9, 0.2, 0.3, 0.4, 0.3):
        chosen = stages_to_keep([*chosen, stage], policy)
    assert [stage.epoch for stage in chosen] == kept


def test_there_are_never_more_than_the_platform_keeps() -> None:
    kept = stages_to_keep(stages(0.1, 0.9, *[0.2] * 20), StagePolicy())
    assert [stage.epoch for stage in kept] == [2, *range(13, 23)]


def test_of_equal_stages_the_latest_is_the_best() -> None:
    assert [stage.epoch for stage in stages_to_keep(stages(0.5, 0.5, 0.1), StagePolicy(keep=0))] == [2, 3]


def test_metrics_are_numbers_that_the_platform_takes() -> None:
    assert stage_metrics(objects(coco(AP50=None, AP=math.nan, AR_max=1.5)), 2) == {
        "mAP": 0.0, "AP": 0.0, "AP50": 0.0, "mAR": 1.0, "tp": 3, "fp": 1, "fn": 2,
    }  # fmt: skip
    assert stage_metrics(objects(DotaNumbers(AP50=0.4, AP=0.2)), 2)["mAP"] == 0.4
    masks = stage_metrics(objects(coco(AP50=0.6, AP=0.3), coco(AP50=0.8)), 4)
    assert (masks["maskAP"], masks["boxAP"], masks["AP"]) == (0.6, 0.8, 0.3)
    assert stage_metrics(semantic(mIoU=0.5, mAcc=-1.0), 3) == {"mIoU": 0.5, "mAcc": 0.0, "aAcc": 0.0}


class Training:
    """Stands for a training that validates epochs."""

    def __init__(self, folder: Path, policy: StagePolicy, *, single: bool = False) -> None:
        self.layout = RunLayout(folder / "run-1")
        self.layout.root.mkdir(parents=True)
        self.outputs = Outputs.of({"root_dir": str(folder)})
        self.said: list[str] = []
        self.keeper = StageKeeper(self.outputs, policy, 2, {"model": "鸟"}, single=single, say=self.said.append)
        self.keeper.started(self.layout)

    def validate(self, number: int, value: float) -> dict[str, Any]:
        self.layout.last_weights.parent.mkdir(exist_ok=True)
        replaced = self.layout.last_weights.with_suffix(".new")
        replaced.write_text(f"weights {number}")
        replaced.replace(self.layout.last_weights)
        evaluation = objects(coco(AP50=value, AP=value / 2))
        self.keeper.validated(ValidatedEpoch(number, evaluation, self.layout))
        result: dict[str, Any] = yaml.safe_load(self.outputs.training_result_file.read_text(encoding="utf-8"))
        return result


def test_after_every_epoch_the_result_names_what_is_there(tmp_path: Path) -> None:
    training = Training(tmp_path, StagePolicy(keep=1))
    for number, value in enumerate((0.2, 0.7, 0.3, 0.1), 1):
        result = training.validate(number, value)
        folders = {path.name for path in training.outputs.models_dir.iterdir() if path.is_dir()}
        assert set(result["model_stages"]) == folders
        for name, stage in result["model_stages"].items():
            assert name.isidentifier() and stage["stage_name"] == name
            assert {path.name for path in (training.outputs.models_dir / name).iterdir()} == set(stage["files"])
    assert set(result["model_stages"]) == {"epoch_2", "epoch_4"} and result["best_stage_name"] == "epoch_2"
    assert result["mAP"] == 0.7 and result["evaluate_config"] == {"iou_thr": 0.5, "conf_thr": 0.001}
    best = training.outputs.models_dir / "epoch_2"
    assert (best / "model.safetensors").read_text() == "weights 2"
    assert yaml.safe_load((best / "training.yaml").read_text(encoding="utf-8"))["settings"] == {"model": "鸟"}


def test_events_go_where_the_platform_looks(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    training = Training(tmp_path / "out", StagePolicy())
    (training.layout.tensorboard / "events").write_text("")
    assert (tmp_path / "elsewhere" / "events").exists()


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        ("", ["model.safetensors", "training.yaml"]),
        (r".*\.safetensors", ["model.safetensors"]),
        (r"model, [broken, .*\.yaml", ["model.safetensors", "training.yaml"]),
        ("[broken", ["model.safetensors", "training.yaml"]),
    ],
)
def test_patterns_choose_files(tmp_path: Path, patterns: str, files: list[str]) -> None:
    training = Training(tmp_path, StagePolicy(file_patterns=patterns))
    assert training.validate(1, 0.5)["model_stages"]["epoch_1"]["files"] == files
    assert not training.said


def test_a_pattern_that_would_leave_no_weights_keeps_them(tmp_path: Path) -> None:
    training = Training(tmp_path, StagePolicy(file_patterns=r".*\.pth"))
    for number in (1, 2):
        result = training.validate(number, 0.5)
    assert result["model_stages"]["epoch_2"]["files"] == ["model.safetensors"]
    assert len(training.said) == 1 and r".*\.pth" in training.said[0]


def test_platforms_before_stages_get_the_best_model(tmp_path: Path) -> None:
    training = Training(tmp_path, StagePolicy(), single=True)
    for number, value in enumerate((0.2, 0.7, 0.3), 1):
        result = training.validate(number, value)
    assert result == {"model": ["model.safetensors", "training.yaml"], "map": 0.7}
    models = training.outputs.models_dir
    assert {path.name for path in models.iterdir()} == {"result.yaml", *result["model"]}
    assert (models / "model.safetensors").read_text() == "weights 2"


def test_attachments(tmp_path: Path) -> None:
    training = Training(tmp_path, StagePolicy())
    training.validate(1, 0.5)
    training.keeper.attach("report", "report.html", lambda path: path.write_text("page"))
    result = yaml.safe_load(training.outputs.training_result_file.read_text())
    assert result["attachments"] == {"report": ["report.html"]}
    assert (training.outputs.models_dir / "attachments" / "report" / "report.html").read_text() == "page"


def test_what_an_earlier_training_left_does_not_matter(tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.rmtree(tmp_path / "run-1", ignore_errors=True)
        training = Training(tmp_path, StagePolicy())
        assert not training.outputs.training_result_file.exists()
        assert training.validate(1, number / 4)["mAP"] == number / 4
        training.keeper.attach("report", "report.html", lambda path: path.touch(exist_ok=False))

"""`ymir-tmi ymir verify --profile` runs every task of an image and says what is wrong with what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir import trial
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.rules.findings import Findings
from ymir_tmi.ymir.verify import verify_or_try


def test_every_image_has_short_tasks() -> None:
    kinds = {(name, kind) for name, profile in PROFILES.items() for kind in profile.object_types}
    assert set(trial.SHORT) == kinds
    for (name, kind), changes in trial.SHORT.items():
        for task, values in changes.items():
            parameters = PROFILES[name].tasks[kind].named()[task].parameters()
            assert set(values) <= {key for parameter in parameters for key in parameter.keys}


def test_what_a_task_says_and_leaves_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str], *, stdout: Any, **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        stdout.write("noise\nerror 300103: out of memory\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(trial.subprocess, "run", fail)
    found, said = Findings(), list[str]()
    trial.try_profile("mmyolo", found, said.append)
    (command,) = commands  # without a model there is nothing to mine with
    assert command[1:5] == ["-m", "ymir_tmi.cli", "ymir", "start"] and command[-2] == "--env"
    text = "\n".join(map(str, found.problems))
    assert "training: exit status: 2: noise / error 300103: out of memory" in text
    for name in ("result.yaml", "tensorboard", "monitor.txt"):
        assert name in text
    assert said == ["mmyolo, object type 2: training"]


def test_an_unknown_image_is_named() -> None:
    with pytest.raises(ConfigError, match="no image 'mmfoo'"):
        verify_or_try(None, None, "mmfoo")


def test_files_of_the_best_stage(tmp_path: Path) -> None:
    assert trial.files_of_best(tmp_path) == []
    stages = {"epoch_1": {"files": ["a"]}, "epoch_2": {"files": ["a", "b"]}}
    (tmp_path / "result.yaml").write_text(yaml.safe_dump({"model_stages": stages, "best_stage_name": "epoch_2"}))
    assert trial.files_of_best(tmp_path) == [tmp_path / "epoch_2" / "a", tmp_path / "epoch_2" / "b"]


@pytest.mark.slow
def test_the_platform_accepts_an_image(capfd: pytest.CaptureFixture[str]) -> None:
    found = verify_or_try(None, None, "mmyolo")
    assert found.ok, found.to_text()
    assert len(found.findings.checked) >= 12
    assert "mmyolo, object type 2: mining and infer" in capfd.readouterr().err

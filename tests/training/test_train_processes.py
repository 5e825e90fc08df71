"""Trainings in processes of their own: killed for real, and shared by two."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_data import write_rectangles

from ymir_tmi.files.layout import RunLayout

pytestmark = pytest.mark.slow

# Whatever the number of processes, the same pictures make the same batch only without caches.
NO_CACHES = ["augment.mosaic_cache=0", "augment.mixup_cache=0"]


def command(data: Path, run: Path, *more: str) -> list[str]:
    options = {"model": "rtmdet_tiny", "data": data, "output": run, "image-size": 64, "epochs": 5, "batch": 4}
    listed = [f"--{name}={value}" for name, value in options.items()]
    return [*listed, "--precision=fp32", "--device=cpu", *more]


def start(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "ymir_tmi.cli", "train", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def rows(run: Path) -> list[dict[str, str]]:
    table = csv.DictReader(RunLayout(run).history.read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in table]


def wait_for_epochs(run: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (RunLayout(run).history.exists() and len(rows(run)) >= count):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_run_goes_on_bit_by_bit(tmp_path: Path, workers: int) -> None:
    data = write_rectangles(tmp_path / "data", train=16, val=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(start(*command(data, whole, f"--workers={workers}")))
    killed = start(*command(data, parts, f"--workers={workers}"))
    wait_for_epochs(parts, 3)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert json.loads(RunLayout(parts).manifest.read_text())["status"] == "running"
    finish(start("--resume", str(parts)))
    assert rows(whole) == rows(parts)
    one, two = (load_file(RunLayout(run).last_weights) for run in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_ctrl_c_ends_without_a_traceback(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=16, val=4)
    process = start(*command(data, tmp_path / "run", "--workers=2"))
    wait_for_epochs(tmp_path / "run", 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors and "Warning" not in errors
    assert json.loads(RunLayout(tmp_path / "run").manifest.read_text())["status"] == "interrupted"
    assert load_file(RunLayout(tmp_path / "run").last_weights)


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=16, val=7)
    # Rounding differs, and grows with the steps: few and small ones.
    changes = ["--epochs=2", *(f"--set={change}" for change in (*NO_CACHES, "optimizer.lr=0.0005"))]
    finish(start(*command(data, tmp_path / "one", "--workers=0", *changes)))
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29611")
    output = finish(start(*command(data, tmp_path / "two", "--workers=0", *changes), launcher=torchrun))
    for name in ("loss", "loss_cls", "loss_bbox"):
        alone, together = ([float(row[name]) for row in rows(tmp_path / run)] for run in ("one", "two"))
        assert together == pytest.approx(alone, rel=1e-3), name
    evaluation = json.loads(RunLayout(tmp_path / "two").evaluation.read_text())
    assert evaluation["images"] == 7
    assert output.count("The best of 2 epochs") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one", "two"]


def test_two_processes_need_not_share_the_statistics_of_norms(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=8, val=3)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29612")
    changes = ["--epochs=1", "--set=optimizer.lr=0.0005"]
    for name, more in (("own", ["--set=sync_norms=false"]), ("shared", [])):
        finish(start(*command(data, tmp_path / name, "--workers=0", *changes, *more), launcher=torchrun))
    own, shared = (load_file(RunLayout(tmp_path / name).last_weights) for name in ("own", "shared"))
    norm = next(name for name in own if name.endswith("running_var"))
    assert not torch.allclose(own[norm], shared[norm], rtol=1e-4)

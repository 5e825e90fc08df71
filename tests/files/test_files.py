"""Atomic writing, run folders, manifests and progress."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from ymir_tmi.errors import RunError
from ymir_tmi.files.atomic import atomic_files, atomic_path, write_json, write_text
from ymir_tmi.files.layout import new_run, open_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.files.progress import ProgressReporter, speed_text


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_written_file_is_readable_by_others(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_files_that_belong_together_come_at_once(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with pytest.raises(RuntimeError), atomic_files(target) as temporary:
        (temporary / "a.xml").write_text("new")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []

    target.mkdir(parents=True)
    for name in ("a.xml", "other"):
        (target / name).write_text("old")
    with atomic_files(target) as temporary:
        for name in ("a.xml", "a.bin"):
            (temporary / name).write_text("new")
        assert sorted(path.name for path in target.iterdir() if path != temporary) == ["a.xml", "other"]
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "a.xml": "new",
        "a.bin": "new",
        "other": "old",
    }


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"AP": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RunError, match="exists already"):
        new_run(tmp_path / "run", "train")


def test_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [new_run(None, "mine").root.name for _ in range(3)] == ["mine-1", "mine-2", "mine-3"]


def test_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run\.json"):
        open_run(tmp_path)


def test_manifest_round_trip(tmp_path: Path) -> None:
    manifest = Manifest.start(tmp_path / "run.json", "train", {"epochs": 3, "name": "größe"})
    assert Manifest.read(tmp_path / "run.json").content["status"] == "running"
    manifest.finish("done", metrics={"AP": 0.5})
    content = Manifest.read(tmp_path / "run.json").content
    assert content["status"] == "done" and content["finished"] and content["metrics"] == {"AP": 0.5}
    assert content["settings"] == {"epochs": 3, "name": "größe"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": []}'], ids=["empty", "list", "cut", "another file"])
def test_broken_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError):
        Manifest.read(tmp_path / "run.json")


def test_progress_writes_events_and_plain_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    with ProgressReporter("mine", 3, events=tmp_path / "progress.jsonl", stream=stream) as progress:
        for _ in range(3):
            progress.advance(images_per_second=12.5)
    events = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [event["state"] for event in events] == ["running", "done"]
    assert events[0]["done"] == events[0]["total"] == 3 and events[0]["images_per_second"] == 12.5
    assert stream.getvalue() == "mine 3/3 images_per_second 12.5\n"


def test_progress_says_when_work_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ProgressReporter("mine", 3, events=tmp_path / "p.jsonl", stream=io.StringIO()) as progress,
    ):
        progress.advance()
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "p.jsonl").read_text().splitlines()[-1])["state"] == "stopped"


@pytest.mark.parametrize(
    "speed, text",
    [(1234.56, "1234.6"), (24.6, "24.6"), (1.0, "1.0"), (0.964, "0.96"), (0.0312, "0.031"), (0.0, "0")],
)
def test_slow_speeds_keep_their_digits(speed: float, text: str) -> None:
    assert speed_text(speed) == f"{text} images/s"

"""monitor.txt: what the platform's monitor reads from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ymir_tmi.ymir.monitor import Monitor


def fields(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[0].split("\t")


def test_a_good_task(tmp_path: Path) -> None:
    path = tmp_path / "out" / "monitor.txt"
    monitor = Monitor(path, "task-1")
    monitor.start()
    name, time, part, state = fields(path)
    assert (name, float(part), int(state)) == ("task-1", 0.0, 2) and float(time) > 1e9
    monitor.advance(0.5)
    monitor.advance(0.2)
    assert float(fields(path)[2]) == 0.5, "it never goes back"
    assert fields(path)[1] != time, "an update counts only with another time"
    monitor.advance(7.0)
    assert float(fields(path)[2]) == 1.0
    monitor.finish()
    assert fields(path)[2:] == ["1.000000", "2"]
    assert [file.name for file in path.parent.iterdir()] == ["monitor.txt"]


def test_small_steps_are_not_written(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "monitor.txt", "task")
    monitor.start()
    monitor.advance(0.5)
    before = fields(tmp_path / "monitor.txt")
    monitor.advance(0.505)
    assert fields(tmp_path / "monitor.txt") == before


def test_an_error_is_final_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "monitor.txt"
    monitor = Monitor(path, "task")
    monitor.fail(300002, "no\tpictures\nat all", "\n".join(f"line {number}" for number in range(200)))
    assert fields(path)[2:] == ["1.000000", "4", "300002", "no pictures at all"]
    lines = path.read_text().splitlines()
    assert len(lines) == 100 and lines[-1] == "line 199"
    monitor.advance(1.0)
    assert fields(path)[3] == "4"


def test_other_processes_are_silent(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "monitor.txt", "task", silent=True)
    monitor.start()
    monitor.advance(0.5)
    monitor.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first_fails", [True, False])
def test_of_several_processes_the_first_to_fail_says_why(tmp_path: Path, first_fails: bool) -> None:
    path = tmp_path / "monitor.txt"
    one, other = Monitor(path, "task"), Monitor(path, "task", silent=True)
    one.start()
    if not first_fails:
        one, other = other, one
    assert one.fail(300103, "no memory") == (300103, "no memory")
    assert other.fail(160004, "the connection was closed") == (300103, "no memory")
    assert fields(path)[3:] == ["4", "300103", "no memory"]


def test_an_error_of_an_earlier_task_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "monitor.txt"
    Monitor(path, "task").fail(300103, "no memory")
    assert Monitor(path, "task").fail(300001, "no such key") == (300001, "no such key")
    assert fields(path)[4] == "300001"

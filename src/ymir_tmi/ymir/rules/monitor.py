"""What the platform asks of monitor.txt, and what it says at the end of a run that went well."""

from __future__ import annotations

from pathlib import Path

from ymir_tmi.ymir.monitor import State
from ymir_tmi.ymir.rules.findings import Expected, Findings, is_number, read_text

_STATES = range(5)
_MOST_LINES = 100


def check_monitor(file: Path, expected: Expected, found: Findings) -> None:
    """Check the progress file of a run that has ended."""
    text = read_text(file, found)
    if text is None:
        return
    first, *rest = text.rstrip("\n").split("\n")
    fields = first.split("\t")
    if len(fields) < 4:
        found.add(file, "line 1", "there are fewer than four fields with TAB between them")
        return
    if len(rest) >= _MOST_LINES:
        found.add(file, "", f"there are {len(rest) + 1} lines; only {_MOST_LINES} are kept")
    if expected.task_id is not None and fields[0] != expected.task_id:
        found.add(file, "task", f"'{fields[0]}' is not '{expected.task_id}', which env.yaml names")
    percent, state = _number(fields[2]), _number(fields[3])
    for name, value, text in (("time", _number(fields[1]), fields[1]), ("percent", percent, fields[2])):
        if value is None:
            found.add(file, name, f"'{text}' is not a number")
    if percent is not None and not 0 <= percent <= 1:
        found.add(file, "percent", f"{fields[2]} is not from 0 to 1")
    if state is None or state not in _STATES or not fields[3].strip().isdecimal():
        found.add(file, "state", f"'{fields[3]}' is none of 0 to 4")
        return
    if len(fields) > 4 and not fields[4].strip().isdecimal():
        found.add(file, "return code", f"'{fields[4]}' is not a whole number")
    _check_end(file, int(state), percent, fields[4:], found)


def _check_end(file: Path, state: int, percent: float | None, rest: list[str], found: Findings) -> None:
    if state == State.ERROR:
        found.add(file, "state", f"the run failed: {' '.join(rest) or 'without a code'}")
    elif state not in (State.RUNNING, State.DONE) or percent != 1:
        found.add(file, "state", f"the run has not come to its end: state {state}, percent {percent}")
    else:
        found.checked.append(f"{file}: state {state}, percent {percent:g}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_number(value) else None

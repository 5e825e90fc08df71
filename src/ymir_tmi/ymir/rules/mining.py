"""What the platform asks of result.tsv."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from ymir_tmi.ymir.rules.findings import Expected, Findings, read_text


def check_mining(result: Path, expected: Expected, found: Findings) -> None:
    """Check the ranking of a mining run: every candidate once, as the list names it, by falling score."""
    rows = _read(result, found)
    if rows is None:
        return
    before = math.inf
    for number, _, score in rows:
        if score > before:
            found.add(result, f"line {number}", "its score is higher than that of the line before")
        before = score if math.isfinite(score) else before
    _check_candidates(result, [path for _, path, _ in rows], expected, found)
    found.checked.append(f"{result}: {len(rows)} images, by falling score")


def _read(result: Path, found: Findings) -> list[tuple[int, str, float]] | None:
    """Return line number, path and score (NaN if it is none) of each row; None where the file cannot be read."""
    text = read_text(result, found)
    if text is None:
        return None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        path, tab, score = line.partition("\t")
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not tab or not path:
            found.add(result, f"line {number}", "it is not a path and a score with TAB between them")
        elif not math.isfinite(value):
            found.add(result, f"line {number}", f"the score {score!r} is not a finite number")
        rows.append((number, path, value))
    return rows


def _check_candidates(result: Path, paths: list[str], expected: Expected, found: Findings) -> None:
    for path, count in Counter(paths).items():
        if count > 1:
            found.add(result, path, f"it is there {count} times")
    if expected.candidates is None:
        if not paths:
            found.add(result, "", "it has no image")
        return
    for path in sorted(set(expected.candidates) - set(paths)):
        found.add(result, path, "this candidate is missing")
    for path in sorted(set(paths) - set(expected.candidates)):
        found.add(result, path, "this path is not in the list of candidates")

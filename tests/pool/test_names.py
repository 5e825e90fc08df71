"""Names and seeds of images do not depend on where the pool lies, or on its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from ymir_tmi.data.index import Strings
from ymir_tmi.pool.names import common_folder, image_seed, relative_name


def names(*paths: str) -> list[str]:
    folder = common_folder(Strings.pack(paths))
    return [relative_name(path, folder) for path in paths]


def test_names_are_relative_to_the_deepest_common_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names("/x/pool/a/1.jpg", "/x/pool/b/1.jpg") == ["a/1.jpg", "b/1.jpg"]
    assert names("/x/pool/a/1.jpg", "/x/pool/a/2.jpg") == ["1.jpg", "2.jpg"]
    assert names("/x/pool/a.jpg", "/x/pool/b/c.jpg") == ["a.jpg", "b/c.jpg"]
    assert names("only.jpg") == ["only.jpg"]
    # One path relative to the working folder, one absolute.
    assert names("pool/a.jpg", str(tmp_path / "pool" / "b.jpg")) == ["a.jpg", "b.jpg"]


def test_seeds_follow_from_the_runs_seed_and_the_name_alone() -> None:
    seeds = {image_seed(seed, name) for seed in range(20) for name in ("a/1.jpg", "b/1.jpg", "1.jpg")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    # BLAKE2b with 64 bits, without the last one: a change would give every pool other random numbers.
    assert image_seed(0, "a/1.jpg") == 5665594482050116048

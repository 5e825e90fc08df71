from __future__ import annotations

import csv
import json
from pathlib import Path

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.mining.ranking import RankedImage, write_ranking
from ymir_tmi.pool.failures import FailedImage

RANKING = [
    RankedImage(1, "pool/ä, b.jpg", 0.75, {"cat": 0.5, "score": 0.25}, 'mostly "cat"', "heatmaps/0001.png"),
    RankedImage(2, "pool/c.jpg", 0.1, {"dog": 0.1}, "dog"),
]
FAILED = [FailedImage("pool/broken.jpg", "this JPEG is cut short")]


def write(folder: Path) -> RunLayout:
    layout = RunLayout(folder)
    settings = MineSettings(model=Path("m.safetensors"), data=["pool"], algorithm="aldd", seed=3)
    write_ranking(layout, settings, 3, RANKING, FAILED)
    return layout


def test_json(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path).ranking_json.read_text(encoding="utf-8"))
    assert content == {
        "algorithm": "aldd",
        "compat": None,
        "model": "m.safetensors",
        "seed": 3,
        "images": 3,
        "ranking": [
            {
                "rank": 1,
                "path": "pool/ä, b.jpg",
                "score": 0.75,
                "components": {"cat": 0.5, "score": 0.25},
                "reason": 'mostly "cat"',
                "heatmap": "heatmaps/0001.png",
            },
            {"rank": 2, "path": "pool/c.jpg", "score": 0.1, "components": {"dog": 0.1}, "reason": "dog"},
        ],
        "failed": [{"path": "pool/broken.jpg", "error": "this JPEG is cut short"}],
    }


def test_csv_has_a_column_for_every_component(tmp_path: Path) -> None:
    with write(tmp_path).ranking_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["rank", "path", "score", "reason", "cat", "score", "dog"],  # a class may be called "score"
        ["1", "pool/ä, b.jpg", "0.75", 'mostly "cat"', "0.5", "0.25", ""],
        ["2", "pool/c.jpg", "0.1", "dog", "", "", "0.1"],
    ]

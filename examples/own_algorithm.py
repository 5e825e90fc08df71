"""Rank a pool by an algorithm of your own: here, by how many objects the model sees but is not sure of.

python examples/own_algorithm.py MODEL.safetensors PICTURES
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ymir_tmi import load_model
from ymir_tmi.data.read import read_dataset
from ymir_tmi.models.runtime.torch_runtime import load_runtime
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows


class DoubtfulObjects(Consumer):
    """Scores an image by its number of detections between two scores; higher: label it sooner."""

    name = "doubtful"
    needs = Needs(outputs=frozenset({"detections"}), min_score=0.2)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.detections is not None  # asked for in `needs`
        doubtful = int((result.detections.scores < 0.6).sum())
        return {"score": float(doubtful), "reason": f"{doubtful} objects with a score between 0.2 and 0.6"}


def main(model: str, pictures: str) -> list[tuple[str, Row]]:
    pool = read_dataset([pictures], format="images")
    runtime = load_runtime(load_model(model), device="auto", precision="auto")
    rows = MemoryRows()
    run_pool(pool, [DoubtfulObjects()], rows, runtime=runtime)
    named = [(pool.paths[position], row) for position, row in enumerate(rows.rows("doubtful"))]
    return sorted((item for item in named if "score" in item[1]), key=lambda item: -item[1]["score"])


if __name__ == "__main__":
    for path, row in main(*sys.argv[1:3])[:10]:
        print(f"{row['score']:6.0f}  {path}  {row['reason']}")

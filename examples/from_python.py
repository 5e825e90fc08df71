"""Train a small detector, rank a pool with it and look at the first images, all from Python.

    python examples/from_python.py [FOLDER]

Works on pictures that it draws itself, in a few minutes; give `TrainSettings` your own data.yaml instead.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ymir_tmi import EvaluateSettings, MineSettings, TrainSettings, evaluate, mine, train
from ymir_tmi.demo.scenes import write_data_set


def main(folder: Path, *, pictures: int = 120, epochs: int = 20) -> None:
    data = write_data_set(folder / "data", seed=0, train=pictures, val=pictures // 4, pool=pictures // 2)

    trained = train(
        TrainSettings(data=data, model="rtmdet_tiny", image_size=192, epochs=epochs, batch=8, output=folder / "train")
    )
    measured = evaluate(EvaluateSettings(model=trained.weights, data=[str(data)], output=folder / "evaluate"))
    print(f"AP50 {measured.coco.AP50:.3f}")

    ranked = mine(
        MineSettings(model=trained.weights, data=[str(data)], algorithm="entropy", top_k=10, output=folder / "mine")
    )
    for row in ranked.ranking:
        print(f"{row.rank:3}  {row.score:8.4f}  {Path(row.path).name}  {row.reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="ymir-tmi-")))

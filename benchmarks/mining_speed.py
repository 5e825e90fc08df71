"""Mining end to end by every algorithm that a model's task has, in images per second.

    python benchmarks/mining_speed.py --data PICTURES --model MODEL.safetensors [--size PIXELS]

It is what `mine` reports of itself: decoding, network, scoring and, for `rsal`, superpixels and the masks of regions;
without start-up and without a gallery.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import measure
import torch

from ymir_tmi import MineSettings, mine
from ymir_tmi.mining.algorithm import ALGORITHMS
from ymir_tmi.models.checkpoint import read_model_info


def mining_speed(options: argparse.Namespace, algorithm: str) -> float:
    """Return images per second of ranking a pool."""
    with tempfile.TemporaryDirectory() as folder:
        done = mine(
            MineSettings(
                model=options.model, data=[options.data], format="images", image_size=options.size, device="cpu",
                algorithm=algorithm, gallery=0, output=Path(folder) / "run",
            )
        )  # fmt: skip
        return done.images_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pictures: folder, list or glob")
    parser.add_argument("--model", type=Path, required=True, help="model file")
    parser.add_argument("--size", type=int, help="longer side of the input in pixels; by default that of the model")
    options = parser.parse_args()
    torch.set_num_threads(2)
    spec = read_model_info(options.model).spec
    names = [entry.name for entry in ALGORITHMS if spec.task in entry.tasks]
    rows = [{"model": spec.name, "mine": name, "images/s": mining_speed(options, name)} for name in names]
    print(measure.table(rows))


if __name__ == "__main__":
    main()

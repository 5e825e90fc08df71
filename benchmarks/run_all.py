"""Runs every benchmark over a folder of data sets: `make bench DATA=DIR`.

python benchmarks/run_all.py --data DIR [--output runs/bench] [--yolo PATH] [--baselines FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


# A data set, the run of the model whose mining is timed, and the image of the platform that mines with such models.
TRAINED = {
    "bccd": ("rtmdet_tiny-0", "mmdet"),
    "hituav_obb": ("rotated_rtmdet_tiny-0", "mmrotate"),
    "nuclei": ("yolov5_n_seg-0", "all-in-one"),
    "lums_road": ("fast_scnn", "all-in-one"),
}


def run(script: str, *arguments: str | Path) -> None:
    print(f"== {script}", flush=True)
    subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with bccd/ and, if they are there, hituav_obb/, nuclei/, lums_road/",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    parser.add_argument("--yolo", type=Path, help="the yolo command of an environment with ultralytics")
    parser.add_argument("--baselines", type=Path, help="figures of the reference implementations of mining")
    options = parser.parse_args()
    bccd = options.data / "bccd"
    if not bccd.is_dir():
        sys.exit(f"{bccd}: there is no such folder; give the folder that holds it: make bench DATA=DIR")

    peer = ["--yolo", options.yolo] if options.yolo else []
    run("index_memory.py")
    if options.baselines:
        run("mining_scoring.py", "--baselines", options.baselines)
    run("rotated_geometry.py")
    for case in ("bccd", "hituav_obb", "nuclei"):
        if (options.data / case).is_dir():
            run("training.py", case, "--data", options.data / case, "--output", options.output / case, *peer)
    if (options.data / "lums_road").is_dir():
        run("label_maps.py", "--data", options.data / "lums_road", "--output", options.output / "lums_road")
    for case, (name, profile) in TRAINED.items():
        model = options.output / case / name / "weights" / "best.safetensors"
        if model.exists():
            run("mining_speed.py", "--model", model, "--data", options.data / case / "images")
            run("one_pass.py", "--profile", profile, "--model", model, "--data", options.data / case / "images")
    model = options.output / "bccd" / TRAINED["bccd"][0] / "weights" / "best.safetensors"
    run("inference_speed.py", "--model", model, "--data", bccd / "images", "--annotations", bccd / "val.json", *peer)
    run("variants.py", "--data", bccd / "images", "--openvino", *peer)


if __name__ == "__main__":
    main()

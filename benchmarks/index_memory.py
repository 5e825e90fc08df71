"""Time and memory of a large COCO file: while it is loaded, afterwards, and in forked loader workers.

    python benchmarks/index_memory.py --images 1000000 --boxes 10000000

Makes the file and as many empty picture files in a temporary folder (needs Linux, for /proc).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import read_dataset

BLOCK = 50_000
WORKERS = 2


def make_dataset(folder: Path, images: int, boxes: int) -> None:
    """Write the pictures and `a.json`, annotations before images, in random order of the images."""
    (folder / "images").mkdir()
    for image in range(images):
        (folder / "images" / picture_name(image)).touch()
    rng = np.random.default_rng(0)
    with (folder / "a.json").open("w") as file:
        categories = ",".join(f'{{"id":{label},"name":"class {label}"}}' for label in range(1, 81))
        file.write(f'{{"categories":[{categories}],"annotations":[')
        for start in range(0, boxes, BLOCK):
            count = min(BLOCK, boxes - start)
            owners, labels = rng.integers(0, images, count), rng.integers(1, 81, count)
            corners = np.round(rng.random((count, 4)) * 300, 2)
            rows = zip(range(start, start + count), owners.tolist(), labels.tolist(), corners.tolist(), strict=True)
            file.write("," if start else "")
            file.write(",".join(annotation(*row) for row in rows))
        file.write('],"images":[')
        for start in range(0, images, BLOCK):
            numbers = range(start, min(start + BLOCK, images))
            file.write("," if start else "")
            file.write(
                ",".join(f'{{"id":{n},"file_name":"{picture_name(n)}","width":640,"height":640}}' for n in numbers)
            )
        file.write("]}")


def picture_name(image: int) -> str:
    return f"camera_{image:09d}.jpg"


def annotation(key: int, image: int, label: int, box: list[float]) -> str:
    owner = f'"image_id":{image},"category_id":{label}'
    return f'{{"id":{key},{owner},"bbox":{box},"area":{box[2] * box[3]:.4f},"iscrowd":0,"segmentation":[]}}'


def read_everything(index: DatasetIndex) -> float:
    """Touch every path, size and box, as an epoch does."""
    total = 0.0
    for image in range(len(index)):
        total += len(index.paths[image]) + float(index.boxes[index.rows(image)].sum()) + sum(index.size(image) or ())
    return total


def memory_mb(*fields: str) -> float:
    """Return the sum of fields of this process's /proc/self/smaps_rollup."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return sum(values[field] for field in fields) / 1024


def work(index: DatasetIndex, barrier: Any, results: Any) -> None:
    before = memory_mb("Pss"), memory_mb("Private_Clean", "Private_Dirty")
    read_everything(index)
    barrier.wait()  # the proportional share is that of processes which all are there
    results.put((before, (memory_mb("Pss"), memory_mb("Private_Clean", "Private_Dirty"))))
    barrier.wait()


def run_workers(index: DatasetIndex) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(WORKERS), context.Queue()
    processes = [context.Process(target=work, args=(index, barrier, results)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    rows = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return rows


def in_another_process(function: Callable[..., None], *arguments: Any) -> None:
    """Run a function where its memory does not count."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "a.json"
        in_another_process(make_dataset, Path(folder), options.images, options.boxes)
        start_mb, started, cpu = memory_mb("Rss"), time.perf_counter(), time.process_time()
        index = read_dataset([str(path)])
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"file                {path.stat().st_size / 2**20:10,.0f} MB")
        print(f"images, boxes       {len(index):12,} {len(index.boxes):12,}")
        print(f"loading             {seconds:10,.1f} s ({cpu:,.1f} s of processor time)")
        print(f"before loading      {start_mb:10,.0f} MB resident")
        print(f"peak                {peak:10,.0f} MB resident")
        print(f"after loading       {memory_mb('Rss'):10,.0f} MB resident")
        for number, (before, after) in enumerate(run_workers(index), 1):
            print(f"worker {number} at its start  {before[0]:10,.0f} MB proportional, {before[1]:8,.0f} MB its own")
            print(f"worker {number} after an epoch{after[0]:10,.0f} MB proportional, {after[1]:8,.0f} MB its own")


if __name__ == "__main__":
    main()

"""The names of everything a run writes, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ymir_tmi.errors import RunError
from ymir_tmi.files.atomic import making

RUNS_FOLDER = Path("runs")


@dataclass(frozen=True)
class RunLayout:
    """Paths inside one run folder. Nothing is created by asking for a path."""

    root: Path

    @property
    def manifest(self) -> Path:
        """Settings, versions, seeds, data fingerprint, metrics, status."""
        return self.root / "run.json"

    @property
    def progress(self) -> Path:
        """One JSON object a line: what is being done and how far it is."""
        return self.root / "progress.jsonl"

    @property
    def history(self) -> Path:
        """Losses and metrics, one row an epoch."""
        return self.root / "metrics.csv"

    @property
    def best_weights(self) -> Path:
        """The model with the highest validation AP so far."""
        return self.root / "weights" / "best.safetensors"

    @property
    def last_weights(self) -> Path:
        """The model at the end of the last finished epoch."""
        return self.root / "weights" / "last.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Training state (optimiser, schedule, EMA) that `--resume` goes on from."""
        return self.root / "training.ckpt"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def samples(self) -> Path:
        """Pictures of what the network is shown in training."""
        return self.root / "samples"

    @property
    def evaluation(self) -> Path:
        """Every number of one evaluation, curves included."""
        return self.root / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """Detections in COCO's format, with the images they belong to."""
        return self.root / "predictions.json"

    @property
    def labels(self) -> Path:
        """Detections in YOLO's format, one text file a picture."""
        return self.root / "labels"

    @property
    def class_list(self) -> Path:
        """Names of the classes in `labels` and `label_maps`, one a line."""
        return self.root / "classes.txt"

    @property
    def annotations(self) -> Path:
        """Detections in VOC's format, one XML file a picture."""
        return self.root / "annotations"

    @property
    def dota(self) -> Path:
        """Detections for DOTA's server, one text file a class."""
        return self.root / "dota"

    @property
    def label_maps(self) -> Path:
        """Label maps as pictures with a palette: by `infer` all of them, by `evaluate` the best and the worst."""
        return self.root / "label_maps"

    @property
    def pictures(self) -> Path:
        """Annotated copies of the images."""
        return self.root / "pictures"

    @property
    def ranking_csv(self) -> Path:
        """Mined images, most informative first, for spreadsheets."""
        return self.root / "ranking.csv"

    @property
    def ranking_json(self) -> Path:
        """Mined images, most informative first, for programs."""
        return self.root / "ranking.json"

    @property
    def scores(self) -> Path:
        """Score of every image of a mined pool, ranked or not, in the order of the pool."""
        return self.root / "scores.csv"

    @property
    def heatmaps(self) -> Path:
        """Heat maps of the first images of a ranking, where the algorithm has one."""
        return self.root / "heatmaps"

    @property
    def masks(self) -> Path:
        """The regions to label in the first images of a ranking, white, where the algorithm chooses superpixels."""
        return self.root / "masks"

    @property
    def shards(self) -> Path:
        """Finished parts of a pass over a pool; a killed run goes on from them."""
        return self.root / "shards"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.root / "report.html"


def new_run(output: Path | None, verb: str) -> RunLayout:
    """Return the layout of a run folder made for this run.

    Without `output` the folder is `runs/<verb>-<n>` with the first free `n`.

    Raises:
        RunError: `output` exists and is not an empty folder, since a run never overwrites another; or it cannot be
            made.
    """
    if output is None:
        return RunLayout(_next_numbered(RUNS_FOLDER, verb))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(
            "the run folder exists already",
            where=output,
            fix="Choose another --output, or go on with this run by --resume.",
        )
    with making(output):
        output.mkdir(parents=True, exist_ok=True)
    return RunLayout(output)


def open_run(folder: Path) -> RunLayout:
    """Return the layout of a run that was made before.

    Raises:
        RunError: the folder is missing or holds no `run.json`.
    """
    layout = RunLayout(folder)
    if not layout.manifest.is_file():
        raise RunError("this is not a run folder: it has no run.json", where=folder)
    return layout


def _next_numbered(parent: Path, verb: str) -> Path:
    with making(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / f"{verb}-{number}"
            try:
                folder.mkdir()  # also the lock: two runs started together get different numbers
                return folder
            except FileExistsError:
                number += 1

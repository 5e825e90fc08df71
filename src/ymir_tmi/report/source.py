"""What a run left behind, as far as it is still there."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.load import build
from ymir_tmi.config.schema import EvaluateSettings, TrainSettings
from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError, ImageError, TmiError
from ymir_tmi.evaluation.classes import split_selection
from ymir_tmi.evaluation.label_maps import with_label_maps
from ymir_tmi.files.layout import RunLayout, open_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.report.pictures import Mark, Picture, load_heat_map, load_picture, load_tinted
from ymir_tmi.report.predictions import Predictions, read_predictions


class RunFiles:
    """Reads the files of a run and notes what is missing, so that the page can say so.

    Attributes:
        layout: where the files lie.
        manifest: `run.json`.
        missing: sentences about what cannot be shown, and why.
    """

    def __init__(self, folder: Path) -> None:
        """Open a run.

        Raises:
            RunError: the folder holds no readable `run.json`.
        """
        self.layout: RunLayout = open_run(folder)
        self.manifest: dict[str, Any] = Manifest.read(self.layout.manifest).content
        self.missing: list[str] = []
        self._unreadable: dict[str, str] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What the user asked for."""
        settings: dict[str, Any] = self.manifest.get("settings", {})
        return settings

    def notes(self) -> list[str]:
        """Return `missing` and one sentence about all the pictures that could not be read."""
        if not self._unreadable:
            return self.missing
        count = len(self._unreadable)
        what = "1 picture is" if count == 1 else f"{count} pictures are"
        path, why = next(iter(self._unreadable.items()))
        return [*self.missing, f"{what} not shown, since moved, deleted or unreadable, such as {path}: {why}."]

    def read_json(self, path: Path, contents: str) -> Any | None:
        """Return the content of a JSON file, or None (noted as missing `contents`) where that is impossible."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.missing.append(f"No {contents}: the run has no {path.name}.")
        except (OSError, ValueError) as error:
            self.missing.append(f"No {contents}: {path.name} cannot be read ({error}).")
        return None

    def history(self) -> dict[str, list[float]]:
        """Return the columns of `metrics.csv`; a cell that holds no number is NaN."""
        try:
            text = self.layout.history.read_text(encoding="utf-8")
        except OSError:
            self.missing.append(f"No curves over epochs: the run has no {self.layout.history.name}.")
            return {}
        rows = list(csv.DictReader(text.splitlines()))
        return {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else {})}

    def truth(self, class_names: Sequence[str]) -> DatasetIndex | None:
        """Return the annotations that a training or an evaluation was measured against, or None (noted).

        Args:
            class_names: The classes that were measured, in the order of the labels.
        """
        try:
            read = _read_validation if self.manifest["verb"] == "train" else _read_evaluated
            index = read(self.settings, class_names)
        except TmiError as error:
            self.missing.append(f"No boxes of annotations: they cannot be read again ({error}).")
            return None
        if index.class_names == tuple(class_names):
            return index
        self.missing.append("No boxes of annotations: their classes have changed since.")
        return None

    def label_maps(self, class_names: Sequence[str]) -> DatasetIndex | None:
        """Return the label maps that a training or an evaluation was measured against, or None (noted).

        Args:
            class_names: The classes that were measured, in the order of the labels.
        """
        try:
            validated = self.manifest["verb"] == "train"
            read = _read_validation if validated else _read_evaluated
            index = read(self.settings, class_names, label_maps=True)
        except TmiError as error:
            self.missing.append(f"No label maps of the data: they cannot be read again ({error}).")
            return None
        if index.class_names == tuple(class_names):
            return index
        self.missing.append("No label maps of the data: their classes have changed since.")
        return None

    def predictions(self) -> Predictions | None:
        """Return the content of `predictions.json`, or None (noted) where it is missing or broken."""
        path = self.layout.predictions
        if not path.is_file():
            self.missing.append(f"No detections: the run has no {path.name}.")
            return None
        try:
            return read_predictions(path)
        except DataError as error:
            self.missing.append(f"No detections: {error}.")
            return None

    def pool_scores(self) -> list[float]:
        """Return the scores of all images that were mined and could be read, ranked or not."""
        try:
            with self.layout.scores.open(encoding="utf-8", newline="") as file:
                scores = [_number(row.get("score")) for row in csv.DictReader(file)]
        except OSError:
            self.missing.append(f"The scores are those of the ranking alone: the run has no {self.layout.scores.name}.")
            return []
        return [score for score in scores if not math.isnan(score)]

    def picture(
        self, path: str | Path, alt: str, marks: Sequence[Mark] = (), *, size: tuple[int, int] | None = None
    ) -> Picture | None:
        """Return a thumbnail with boxes, or None (noted) where the picture cannot be read."""
        return self._readable(lambda: load_picture(Path(path), alt, marks, annotated_size=size))

    def tinted(
        self,
        path: str,
        alt: str,
        label_map: npt.NDArray[np.uint8],
        colours: npt.NDArray[np.uint8],
        *,
        grey: bool = False,
    ) -> Picture | None:
        """Return a thumbnail in the colours of its pixels' classes, or None (noted) where it cannot be read."""
        height, width = label_map.shape
        size = width, height
        return self._readable(lambda: load_tinted(Path(path), alt, label_map, colours, grey=grey, annotated_size=size))

    def heat_map(self, name: str, alt: str, below: str, *, size: tuple[int, int] | None = None) -> Picture | None:
        """Return the heat map `name` of the run over its picture, or None (noted) where one of them cannot be read."""
        return self._readable(lambda: load_heat_map(self.layout.root / name, alt, Path(below), annotated_size=size))

    def _readable(self, load: Callable[[], Picture]) -> Picture | None:
        try:
            return load()
        except ImageError as error:
            self._unreadable[str(error.where)] = error.what
            return None


def _read_validation(values: dict[str, Any], class_names: Sequence[str], *, label_maps: bool = False) -> DatasetIndex:
    """Read the validation split of a training again."""
    settings = build(TrainSettings, values)
    index = read_dataset(
        [str(settings.data)] if settings.data else settings.val,
        split="val",
        images=settings.images,
        format=settings.format,
        # Chosen classes may be new names of the data's, and the background is none that a file knows.
        class_names=None if settings.classes or label_maps else class_names,
    )
    if label_maps:
        index = with_label_maps(index, class_names)
    return ClassSelection.parse(settings.classes).apply(index)


def _read_evaluated(values: dict[str, Any], class_names: Sequence[str], *, label_maps: bool = False) -> DatasetIndex:
    """Read the data of an evaluation again."""
    settings = build(EvaluateSettings, values)
    index = read_dataset(settings.data, split=settings.split, images=settings.images, format=settings.format)
    if label_maps:
        index = with_label_maps(index, class_names)
    selection = ClassSelection.parse(settings.classes)
    _, of_data = split_selection(selection, [old for old, _ in selection.renames], index.class_names)
    return of_data.apply(index)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

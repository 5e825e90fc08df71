"""The two data sets of a training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.data.description import find_description, read_description
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.instances import as_instances
from ymir_tmi.data.read import ANNOTATION_PLACES, read_dataset, split_of
from ymir_tmi.data.rotated import as_rotated, as_upright, note_on_kind
from ymir_tmi.data.semantics import counts_anything, require_objects, semantic_splits
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.models.catalog import default_spec


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from, and what measures how well; both have the same classes.

    Attributes:
        note: what the user must know of the boxes, or None.
    """

    train: DatasetIndex
    val: DatasetIndex
    note: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return what `run.json` says of the data."""
        return {"train": self.train.describe(), "val": self.val.describe()}


def read_training_data(settings: TrainSettings, *, unmeasured: bool = False) -> TrainingData:
    """Read both splits, with the classes that the settings choose and the kind of truth that the model learns.

    Args:
        settings: what to train, on what.
        unmeasured: whether a val split in which nothing can be measured is a warning and no error.

    Raises:
        ConfigError: it is not clear what to train or to validate on, or a chosen class does not exist.
        DataError: annotations are wrong, or there is nothing to learn from a split.
    """
    if settings.data is not None:
        if settings.train or settings.val:
            raise ConfigError("both a data file and train or val are given", fix="Give one or the other.")
        sources = {split: [str(split_of(settings.data, split))] for split in ("train", "val")}
    else:
        sources = {"train": settings.train, "val": settings.val}
    for split, names in sources.items():
        if not names:
            raise ConfigError(f"there is nothing to {split} on", fix="Give --data FILE, or --train and --val.")
    train = _read(settings, "train", sources, None)
    if not train.class_names:
        raise DataError("the train split has no annotations", where=sources["train"][0], fix=ANNOTATION_PLACES)
    val = _read(settings, "val", sources, train.class_names)
    selection = ClassSelection.parse(settings.classes)
    task = default_spec(settings.model, class_names=train.class_names).task
    splits = {"train": selection.apply(train), "val": selection.apply(val)}
    note = None
    if task == "semantics":
        splits = semantic_splits(splits, blank=settings.blank)
    else:
        note = note_on_kind(train, rotated=task == "rotated")
        in_kind = {"rotated": as_rotated, "instances": as_instances}.get(task, as_upright)
        splits = {split: in_kind(index) for split, index in splits.items()}
    for split, index in splits.items():
        try:
            _require_truth(index, split, _place(sources[split][0], split), semantic=task == "semantics")
        except DataError as error:
            if not (unmeasured and split == "val"):
                raise
            warnings.warn(f"{error.what}: nothing is measured, and every epoch counts 0", stacklevel=2)
    return TrainingData(splits["train"], splits["val"], note)


def _require_truth(index: DatasetIndex, split: str, place: str, *, semantic: bool) -> None:
    if not semantic:
        require_objects(index, f"the {split} split has no objects", place)
    elif not counts_anything(index):
        raise DataError(
            f"no pixel of the {split} split has a class",
            where=place,
            fix="Give images with label pictures or annotations; `ymir-tmi check` tells what is in them.",
        )


def _place(source: str, split: str) -> str:
    """Return where a split is, for messages: of a description, what that names."""
    description = find_description(source)
    return source if description is None else ", ".join(read_description(description).split(split))


def images_with_objects(index: DatasetIndex) -> DatasetIndex:
    """Return the images that have objects to learn, which crowd regions and difficult objects are not."""
    return index.take(np.unique(index.image_of_box()[index.flags == 0]))


def _read(
    settings: TrainSettings, split: str, sources: dict[str, list[str]], class_names: tuple[str, ...] | None
) -> DatasetIndex:
    return read_dataset(
        sources[split], split=split, images=settings.images, format=settings.format, class_names=class_names
    )

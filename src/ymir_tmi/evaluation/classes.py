"""Classes of detections and classes of data are the same when their names are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.errors import ConfigError, DataError, did_you_mean
from ymir_tmi.models.interface import Detections

_NAMED = 10  # longest list of names in a message

# What it means that only the data, or only the detections, have classes.
_OF_DETECTIONS = (
    "classes that can never be detected, so that all their objects are missed",
    "detections of classes that the data does not have are left out",
)
_OF_PIXELS = (
    "classes that the model does not have, so that all their pixels are mistaken",
    "pixels taken for classes that the data does not have count as mistakes",
)


@dataclass(frozen=True)
class ClassMatch:
    """Which class of the data each class of the detections is.

    Attributes:
        labels: (C,) int64, position in the data's class names, or -1 where the data does not have the class.
        warnings: sentences about classes that only one side has.
    """

    labels: npt.NDArray[np.int64]
    warnings: tuple[str, ...]

    def apply(self, detections: Detections) -> Detections:
        """Return the detections whose class the data has, with the data's labels."""
        labels = self.labels[detections.labels]
        known = labels >= 0
        return dataclasses.replace(detections[known], labels=labels[known])


def match_classes(detected: Sequence[str], annotated: Sequence[str], *, pixels: bool = False) -> ClassMatch:
    """Match the class names of detections, or of `pixels` in label maps, with those of data, whatever their order.

    Raises:
        DataError: they have no name in common.
    """
    found = "label maps" if pixels else "detections"
    if not set(detected) & set(annotated):
        raise DataError(
            f"no class of the {found} ({_list(detected)}) is a class of the data ({_list(annotated)})",
            fix="Rename classes by --classes NAME=NEW, or use a model trained for these classes.",
        )
    of_unknown, of_foreign = _OF_PIXELS if pixels else _OF_DETECTIONS
    position = {name: label for label, name in enumerate(annotated)}
    unknown = [name for name in annotated if name not in detected]
    foreign = [name for name in detected if name not in position]
    warnings = [f"{of_unknown}: {_list(unknown)}"] if unknown else []
    if foreign:
        warnings.append(f"{of_foreign}: {_list(foreign)}")
    labels = np.array([position.get(name, -1) for name in detected], np.int64)
    return ClassMatch(labels, tuple(warnings))


def split_selection(
    selection: ClassSelection, detected: Sequence[str], annotated: Sequence[str]
) -> tuple[ClassSelection, ClassSelection]:
    """Return what a selection of classes means for the detections and what it means for the data.

    A rename that only one side has the class for is how two names for one thing are brought together: with
    `person=human`, the class "human" of the other side is chosen too.

    Raises:
        ConfigError: neither side has a chosen class.
    """
    for old, _ in selection.renames:
        if old not in detected and old not in annotated:
            fix = did_you_mean(old, {*detected, *annotated})
            raise ConfigError(f"neither the detections nor the data have a class '{old}'", where="classes", fix=fix)
    return _part(selection, detected), _part(selection, annotated)


def _part(selection: ClassSelection, names: Sequence[str]) -> ClassSelection:
    chosen = {old: new for old, new in selection.renames if old in names}
    for _, new in selection.renames:
        if new in names:
            chosen.setdefault(new, new)
    return ClassSelection(tuple(chosen.items()))


def _list(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

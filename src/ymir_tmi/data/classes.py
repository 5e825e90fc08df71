"""Which classes are used, in which order and under which names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import IGNORED, NO_CLASS, DatasetIndex
from ymir_tmi.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class ClassSelection:
    """A choice of classes.

    Attributes:
        renames: pairs of a class of the data (or the model) and what it is called from now on. Several classes with one
            new name are merged, which stands where the first of them does. Empty: all classes as they are.
    """

    renames: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, items: Sequence[str]) -> ClassSelection:
        """Parse the items of `--classes`: NAME or NAME=NEW.

        Raises:
            ConfigError: an item has an empty name, or a class is given twice.
        """
        renames: dict[str, str] = {}
        for item in items:
            old, separator, new = (part.strip() for part in item.partition("="))
            if not old or (separator and not new):
                raise ConfigError(f"'{item}' is not of the form NAME or NAME=NEW", where="classes")
            if old in renames:
                raise ConfigError(f"class '{old}' is given twice", where="classes")
            renames[old] = new or old
        return cls(tuple(renames.items()))

    def groups(self, class_names: Sequence[str]) -> tuple[tuple[str, ...], list[list[int]]]:
        """Return the new names, and for each the positions in `class_names` that it stands for.

        The score of a merged class is the largest of its columns.

        Raises:
            ConfigError: a chosen class is not in `class_names`.
        """
        renames = self.renames or tuple((name, name) for name in class_names)
        groups: dict[str, list[int]] = {}
        for old, new in renames:
            if old not in class_names:
                raise ConfigError(f"there is no class '{old}'", where="classes", fix=did_you_mean(old, class_names))
            groups.setdefault(new, []).append(class_names.index(old))
        return tuple(groups), list(groups.values())

    def apply(self, index: DatasetIndex) -> DatasetIndex:
        """Return the index with the chosen classes only; images left without objects stay.

        Pixels of label pictures do not count where their class is not chosen.

        A merged class has the category id of its first member.

        Raises:
            ConfigError: a chosen class is not in the index.
        """
        if not self.renames:
            return index
        names, groups = self.groups(index.class_names)
        new_labels = np.full(index.num_classes, -1, np.int32)
        for label, members in enumerate(groups):
            new_labels[members] = label
        ids = tuple(index.category_ids[members[0]] for members in groups)
        return _relabel(index, new_labels, names, ids)


def align_classes(index: DatasetIndex, class_names: Sequence[str], *, where: str | Path | None = None) -> DatasetIndex:
    """Return the index with exactly these classes, in this order; classes that it lacks have no objects.

    Args:
        index: what to change.
        class_names: the classes.
        where: the file that the index comes from, for messages.

    Raises:
        DataError: there are objects of a class that is not among `class_names`, or label pictures that have it.
    """
    class_names = tuple(class_names)
    if index.class_names == class_names:
        return index
    for label, (name, count) in enumerate(zip(index.class_names, index.class_counts(), strict=True)):
        if count and name not in class_names:
            first = index.paths[int(index.image_of_box()[(index.labels == label).argmax()])]
            raise DataError(
                f"{count:,} objects are of class '{name}', which is not one of {', '.join(class_names)}",
                where=first if where is None else f"{where}, first in {PurePath(first).name}",
                fix=did_you_mean(name, class_names) if class_names else None,
            )
    pictured = [] if index.label_of_value is None else np.unique(index.label_of_value).tolist()
    for name in (index.class_names[label] for label in pictured if label < index.num_classes):
        if name not in class_names:
            raise DataError(
                f"the label pictures have the class '{name}', which is not one of {', '.join(class_names)}",
                where=where,
                fix="Choose the classes to use with --classes.",
            )
    positions = {name: label for label, name in enumerate(class_names)}
    new_labels = np.array([positions.get(name, -1) for name in index.class_names], np.int32)
    known = dict(zip(index.class_names, index.category_ids, strict=True))
    free = max(index.category_ids, default=0)
    ids = []
    for name in class_names:
        free += name not in known
        ids.append(known.get(name, free))
    return _relabel(index, new_labels, class_names, tuple(ids))


def _relabel(
    index: DatasetIndex, new_labels: npt.NDArray[np.int32], names: tuple[str, ...], category_ids: tuple[int, ...]
) -> DatasetIndex:
    """Give every label its new one; annotations whose new label is -1 are dropped."""
    labels = new_labels[index.labels]
    pixels = np.arange(256)  # the new label of each in a label map
    known = min(len(new_labels), NO_CLASS)
    pixels[:known] = np.where(new_labels < 0, IGNORED, new_labels)[:known]
    table = None if index.label_of_value is None else pixels[index.label_of_value].astype(np.uint8)
    index = dataclasses.replace(
        index,
        class_names=names,
        category_ids=category_ids,
        labels=labels,
        label_of_value=table,
        blank=int(pixels[index.blank]),
    )
    keep = labels >= 0
    return index if keep.all() else index.keep_annotations(keep)

"""Dividing a data set into parts that have the same share of every class.

Iterative stratification: the rarest class is dealt out first, each image to the part that lacks most of that class
(Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1). Here a
group of images that must stay together is dealt out as one.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.semantics import as_semantics, count_labels
from ymir_tmi.errors import ConfigError, DataError


@dataclass(frozen=True)
class _Group:
    """Images that stay together.

    Attributes:
        rows: the images.
        classes: for each class that occurs, in how many of the images it does.
    """

    rows: list[int]
    classes: dict[int, int]


def split_dataset(
    index: DatasetIndex, fractions: Mapping[str, float], *, seed: int, group: str | None = None
) -> dict[str, DatasetIndex]:
    """Divide a data set into parts by shares of its images.

    The parts depend on the paths of the pictures, their classes and the seed, but not on their order in the file.

    Args:
        index: The data set.
        fractions: Share of each part, by its name; together 1.
        seed: Seed of the draws.
        group: Which images stay together: "folder", those of one folder; a regular expression, those in whose path it
            finds the same text (its first group, if it has one); None, no two.

    Returns:
        An index for each part, with the images in their order in `index`.

    Raises:
        ConfigError: the fractions are not positive or do not add up to 1, or the expression is wrong.
        DataError: the expression does not match a path, or there are fewer groups than parts.
    """
    if not all(share > 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        shares = ", ".join(f"{name} {share}" for name, share in fractions.items())
        raise ConfigError(f"the shares must be positive and add up to 1, they are {shares}", where="parts")
    groups = _groups(index, group)
    if len(groups) < len(fractions):
        raise DataError(f"{len(groups)} groups of images cannot be divided into {len(fractions)} parts")
    shuffled = [groups[place] for place in np.random.default_rng(seed).permutation(len(groups))]
    shuffled.sort(key=lambda item: -len(item.rows))  # large ones first: the small ones then fill the gaps
    parts = _deal(shuffled, list(fractions.values()))
    return {
        name: index.take(sorted(row for item in part for row in item.rows))
        for name, part in zip(fractions, parts, strict=True)
    }


def parse_shares(parts: Sequence[str]) -> dict[str, float]:
    """Return shares by name from texts such as `train=0.8`.

    Raises:
        ConfigError: a text has another form.
    """
    shares = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise ConfigError(f"'{part}' is not of the form name=share, such as train=0.8", where="parts") from None
    return shares


def _groups(index: DatasetIndex, group: str | None) -> list[_Group]:
    """Return the groups in an order that does not depend on that of the images."""
    paths = [index.paths[image] for image in range(len(index))]
    names = [_group_name(path, group) for path in paths]
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(paths)), key=paths.__getitem__):
        rows.setdefault(names[row], []).append(row)
    classes = _classes_of_images(index)
    return [
        _Group(members, dict(Counter(label for row in members for label in classes[row]))) for members in rows.values()
    ]


def _group_name(path: str, group: str | None) -> str:
    if group is None:
        return path
    if group == "folder":
        return os.path.dirname(path)  # noqa: PTH120, a Path for each would be slow
    try:
        match = re.search(group, path)
    except re.error as error:
        raise ConfigError(f"'{group}' is not a regular expression: {error}", where="group") from error
    if match is None:
        raise DataError(f"the expression '{group}' finds nothing in this path", where=path)
    return match.group(1 if match.re.groups else 0) or ""


def _classes_of_images(index: DatasetIndex) -> list[list[int]]:
    """Return the different labels in each image."""
    if index.label_maps is not None:
        pixels = count_labels(as_semantics(index)).pixels
        return [np.flatnonzero(counts).tolist() for counts in pixels]
    pairs = np.unique(index.image_of_box() * index.num_classes + index.labels)
    images, labels = np.divmod(pairs, max(index.num_classes, 1))
    ends = np.searchsorted(images, np.arange(len(index) + 1)).tolist()
    flat = labels.tolist()
    return [flat[start:end] for start, end in pairwise(ends)]


def _deal(groups: Sequence[_Group], shares: Sequence[float]) -> list[list[_Group]]:
    """Deal out the groups, those with the rarest class first, then those without any object."""
    total = Counter[int]()
    holders: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        total.update(group.classes)
        for label in group.classes:
            holders.setdefault(label, []).append(place)
    num_images = sum(len(group.rows) for group in groups)
    lacking_images = [share * num_images for share in shares]
    lacking = {label: [share * count for share in shares] for label, count in total.items()}
    parts: list[list[_Group]] = [[] for _ in shares]
    waiting = set(range(len(groups)))

    def deal(place: int, wanted: Sequence[float]) -> None:
        """Give a group to the part that lacks most, by `wanted`, or else most images."""
        part = max(range(len(shares)), key=lambda part: (wanted[part], lacking_images[part]))
        group = groups[place]
        waiting.remove(place)
        parts[part].append(group)
        lacking_images[part] -= len(group.rows)
        for label, count in group.classes.items():
            lacking[label][part] -= count
            total[label] -= count

    while rest := {label: count for label, count in total.items() if count}:
        rarest = min(rest, key=lambda label: (rest[label], label))
        for place in holders[rarest]:
            if place in waiting:
                deal(place, lacking[rarest])
    for place in sorted(waiting):
        deal(place, lacking_images)
    _fill_empty(parts)
    return parts


def _fill_empty(parts: list[list[_Group]]) -> None:
    """Give a part that rounding left empty the last group of the part with the most groups."""
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())

"""What is wrong with a data set, before a graphics card is started for it."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import Format
from ymir_tmi.data.box_faults import box_faults
from ymir_tmi.data.formats.reading import Reading
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.inspection import Inspected, content_digest, inspect_pictures
from ymir_tmi.data.mask_faults import Mask, Words, mask_faults
from ymir_tmi.data.read import merge_readings, parallel_folder, read_sources
from ymir_tmi.data.semantics import LabelCounts, as_semantics, count_labels
from ymir_tmi.errors import TmiError, counted
from ymir_tmi.files.progress import ProgressReporter

_SHOWN = 5
_ROTATED = "cx, cy, w, h, angle in radians"


@dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        severity: an error stops training or makes its numbers wrong; a warning may be meant so.
        split: the split, or the two splits, that it is in; "" for the whole data set.
        what: what was found.
        count: how often.
        examples: the first few cases.
    """

    severity: Literal["error", "warning"]
    split: str
    what: str
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitSummary:
    """How much there is of what in one split.

    Attributes:
        images: number of images.
        without_objects: how many of them have no annotation.
        objects: number of annotations of each class.
    """

    name: str
    images: int
    without_objects: int
    objects: dict[str, int]


@dataclass(frozen=True)
class CheckReport:
    """The result of `check_dataset`."""

    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no errors; there may be warnings."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"ok": self.ok, **dataclasses.asdict(self)}

    def to_text(self) -> str:
        """Return a table of the splits, every finding with its examples, and a verdict."""
        lines = [*_table(self.splits), ""]
        for finding in sorted(self.findings, key=lambda finding: finding.severity):
            place = f" {finding.split}:" if finding.split else ""
            lines.append(f"{finding.severity}:{place} {finding.what}")
            lines.extend(f"    {example}" for example in finding.examples)
        errors = sum(finding.severity == "error" for finding in self.findings)
        warnings = len(self.findings) - errors
        lines.append(f"{counted(errors, 'error', 'errors')}, {counted(warnings, 'warning', 'warnings')}")
        return "\n".join(lines)


def check_dataset(
    splits: Mapping[str, Sequence[str]],
    *,
    images: Sequence[Path] = (),
    format: Format = "auto",
    class_names: Sequence[str] | None = None,
    fast: bool = False,
    quiet: bool = True,
) -> CheckReport:
    """Look for faults in the splits of a data set.

    Errors: annotations and masks that cannot be understood; missing or unreadable pictures; pictures of another size
    than is stated; one picture in two splits; one class under two spellings. Warnings: boxes that reading will clip or
    drop; rotated boxes that training will leave out; masks that are empty, lie outside, do not fit their boxes or are
    lacking for some objects; the same box twice; the same picture twice; classes without objects in one split, or in
    all.

    Of a data set with label pictures every pixel is counted: those that cannot be read, are of another size than their
    picture or have a value that is no class are errors; an object is a class that a picture has anywhere.

    Args:
        splits: the sources of each split, as `data.read.list_splits` gives them.
        images: Folders to look for pictures in.
        format: Kind of annotations.
        class_names: The classes, where the files do not name them.
        fast: Read only the headers of the pictures; pictures that are cut short then go unnoticed.
        quiet: Show no progress.
    """
    findings: list[Finding] = []
    indexes: dict[str, DatasetIndex] = {}
    missing: dict[str, Mapping[str, str]] = {}
    for name, sources in splits.items():
        try:
            found = read_sources(sources, split=name, images=images, format=format, class_names=class_names)
            readings = [reading for _, reading in found]
            indexes[name] = merge_readings(readings)
        except TmiError as error:
            findings.append(Finding("error", name, error.one_line()))
            continue
        findings.extend(_reading_findings(name, readings))
        missing[name] = {path: wanted for reading in readings for path, wanted in reading.missing.items()}
    looks: dict[str, list[Inspected]] = {}
    pictured = [name for name, index in indexes.items() if index.label_maps is not None]
    total = sum(map(len, indexes.values())) + sum(len(indexes[name]) for name in pictured)
    with ProgressReporter("check", total, quiet=quiet) as progress:
        for name, index in indexes.items():
            looks[name] = inspect_pictures(index, fast=fast, progress=progress)
            findings.extend(_picture_findings(name, index, looks[name], missing[name]))
            index = _with_sizes(index, looks[name])
            findings.extend(_object_findings(name, index, box_faults(index)))
            findings.extend(_mask_findings(name, index))
        labels = {name: count_labels(as_semantics(indexes[name]), advance=progress.advance) for name in pictured}
    findings.extend(_label_findings(name, found) for name, found in labels.items() if found.problems)
    summaries = tuple(_summary(name, index, labels.get(name)) for name, index in indexes.items())
    findings.extend(_class_findings(summaries))
    findings.extend(_repeated_pictures(indexes, looks, fast=fast))
    return CheckReport(summaries, tuple(findings))


def _summary(name: str, index: DatasetIndex, labels: LabelCounts | None) -> SplitSummary:
    if labels is None:
        counts, each = index.class_counts(), np.diff(index.starts)
    else:
        counts, each = (labels.pixels > 0).sum(axis=0), labels.pixels.sum(axis=1)
    objects = dict(zip(index.class_names, counts.tolist(), strict=True))
    return SplitSummary(name, len(index), int((each == 0).sum()), objects)


def _label_findings(split: str, labels: LabelCounts) -> Finding:
    count, examples = len(labels.problems), tuple(labels.problems.values())[:_SHOWN]
    what = f"{counted(count, 'label picture', 'label pictures')} cannot be used"
    return Finding("error", split, what, count, examples)


def _reading_findings(split: str, readings: Iterable[Reading]) -> Iterator[Finding]:
    for reading in readings:
        rejected = reading.rejections
        if rejected.count:
            examples = tuple(f"{case.where}: {case.what}" for case in rejected.first)
            what = f"{counted(rejected.count, 'annotation', 'annotations')} cannot be understood"
            yield Finding("error", split, what, rejected.count, examples)
        if reading.missing:
            names, count = list(reading.missing.values()), len(reading.missing)
            what = f"{counted(count, 'picture is', 'pictures are')} missing; looked in {', '.join(reading.looked_in)}"
            yield Finding("error", split, what, count, tuple(names[:_SHOWN]))
        elif len(reading.index) and _should_have_more(reading):
            folder = parallel_folder(reading.index.paths[0])
            examples = (f"nothing in {folder} belongs to one of them",) if folder else ()
            yield Finding("warning", split, "no picture has an annotation", len(reading.index), examples)


def _should_have_more(reading: Reading) -> bool:
    """Return whether there are no annotations at all, although something says that there should be some."""
    index = reading.index
    if len(index.boxes) or index.label_maps is not None or reading.rejections.count:
        return False
    return reading.annotated or parallel_folder(index.paths[0]) is not None


def _picture_findings(
    split: str, index: DatasetIndex, looks: Sequence[Inspected], missing: Mapping[str, str]
) -> Iterator[Finding]:
    unreadable, wrong_size = [], []
    for image, look in enumerate(looks):
        if look.unreadable and index.paths[image] not in missing:
            unreadable.append(f"{index.paths[image]}: {look.unreadable}")
        if look.wrong_size:
            wrong_size.append(f"{index.paths[image]}: {look.wrong_size}")
    other_size = ("picture has another size than is stated", "pictures have another size than is stated")
    for cases, words in (
        (unreadable, ("picture cannot be read", "pictures cannot be read")),
        (wrong_size, other_size),
    ):
        if cases:
            yield Finding("error", split, counted(len(cases), *words), len(cases), tuple(cases[:_SHOWN]))


def _with_sizes(index: DatasetIndex, looks: Sequence[Inspected]) -> DatasetIndex:
    """Return the index with the sizes of the pictures where it states none."""
    seen = np.array([look.size for look in looks], np.int32).reshape(-1, 2)
    return dataclasses.replace(index, sizes=np.where(index.sizes > 0, index.sizes, seen))


def _object_findings(split: str, index: DatasetIndex, faults: Mapping[Words, Mask]) -> Iterator[Finding]:
    """Yield the faults that some annotations have."""
    for words, mask in faults.items():
        if count := int(mask.sum()):
            yield Finding("warning", split, counted(count, *words), count, _boxes(index, mask))


def _mask_findings(split: str, index: DatasetIndex) -> Iterator[Finding]:
    wrong, others = mask_faults(index)
    if wrong:
        rows = np.zeros(len(index.boxes), np.bool_)
        rows[list(wrong)] = True
        examples = zip(_boxes(index, rows), (wrong[row] for row in sorted(wrong)), strict=False)
        cases = tuple(f"{case}: {problem}" for case, problem in examples)
        what = f"{counted(len(wrong), 'mask', 'masks')} cannot be understood"
        yield Finding("error", split, what, len(wrong), cases)
    yield from _object_findings(split, index, others)


def _boxes(index: DatasetIndex, mask: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Describe the first boxes where `mask` is true."""
    examples = []
    for row in np.flatnonzero(mask)[:_SHOWN]:
        image = int(np.searchsorted(index.starts, row, side="right")) - 1
        box, numbers = ("x1, y1, x2, y2", index.boxes) if index.rotated is None else (_ROTATED, index.rotated)
        values = ", ".join(f"{value:.6g}" for value in numbers[row])
        examples.append(f"{index.paths[image]}: {index.class_names[index.labels[row]]} at {values} ({box})")
    return tuple(examples)


def _class_findings(splits: Sequence[SplitSummary]) -> Iterator[Finding]:
    names = list(dict.fromkeys(name for split in splits for name in split.objects))
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_plain(name), []).append(name)
    for same in (group for group in spellings.values() if len(group) > 1):
        having = [split.name for split in splits if set(same) & set(split.objects)]
        quoted = " and ".join(f"'{name}'" for name in same)
        yield Finding("error", ", ".join(having), f"classes {quoted}: is this one class?")
    labelled = {split.name: split.objects for split in splits if any(split.objects.values())}
    splits_with = {name: [split for split, counts in labelled.items() if counts.get(name)] for name in names}
    empty = [name for name in names if not splits_with[name]]
    if labelled and empty:
        what = f"{counted(len(empty), 'class has', 'classes have')} no objects"
        yield Finding("warning", "", what, len(empty), tuple(empty[:_SHOWN]))
    for split, counts in labelled.items():
        lacking = [name for name in names if splits_with[name] and not counts.get(name)]
        if lacking:
            examples = tuple(_lacking(name, splits_with[name], counts) for name in lacking[:_SHOWN])
            words = ("class of other splits has no objects here", "classes of other splits have no objects here")
            what = counted(len(lacking), *words)
            yield Finding("warning", split, what, len(lacking), examples)


def _lacking(name: str, having: Sequence[str], counts: Mapping[str, int]) -> str:
    near = [] if name in counts else difflib.get_close_matches(name, counts, n=1)
    return f"'{name}' is in {', '.join(having)}" + (f"; is it '{near[0]}' here?" if near else "")


def _plain(name: str) -> str:
    """Return a name without what is easily written in two ways."""
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _repeated_pictures(
    indexes: Mapping[str, DatasetIndex], looks: Mapping[str, Sequence[Inspected]], *, fast: bool
) -> Iterator[Finding]:
    places = [
        (look.digest, split, index.paths[image])
        for split, index in indexes.items()
        for image, look in enumerate(looks[split])
        if not look.unreadable
    ]
    if fast:  # the digests are those of the files' ends: look at the whole of those that agree
        often = Counter(digest for digest, _, _ in places)
        places = [(content_digest(path), split, path) for digest, split, path in places if often[digest] > 1]
    first: dict[bytes, tuple[str, str]] = {}
    cases: dict[tuple[str, str], list[str]] = {}
    for digest, split, path in places:
        if digest not in first:
            first[digest] = split, path
            continue
        first_split, first_path = first[digest]
        cases.setdefault((first_split, split), []).append(f"{first_path} and {path}")
    for (one, other), examples in cases.items():
        count, shown = len(examples), tuple(examples[:_SHOWN])
        if one == other:
            yield Finding("warning", one, f"{counted(count, 'picture is', 'pictures are')} there twice", count, shown)
        else:
            what = f"{counted(count, 'picture is', 'pictures are')} in both"
            yield Finding("error", f"{one}, {other}", what, count, shown)


def _table(splits: Sequence[SplitSummary]) -> list[str]:
    """Return the lines of a table with a column for each split."""
    names = list(dict.fromkeys(name for split in splits for name in split.objects))
    rows = [
        ["", *(split.name for split in splits)],
        ["images", *(f"{split.images:,}" for split in splits)],
        ["  without objects", *(f"{split.without_objects:,}" for split in splits)],
        ["objects", *(f"{sum(split.objects.values()):,}" for split in splits)],
        *([f"  {name}", *(f"{split.objects.get(name, 0):,}" for split in splits)] for name in names),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex, Strings, concatenate
from ymir_tmi.errors import DataError

COUNTS = (2, 0, 3, 1, 0, 4)


def make_index(seed: int = 0, *, segments: bool = True, first_id: int = 10, folder: str = "/a") -> DatasetIndex:
    """An index of six images in which every number is different."""
    rng = np.random.default_rng(seed)
    total = sum(COUNTS)
    texts = [f"[[{seed},{row}]]" if row % 3 else "" for row in range(total)]
    return DatasetIndex(
        class_names=("cat", "dog", "hen"),
        paths=Strings.pack(f"{folder}/bild-ü{image}.jpg" for image in range(len(COUNTS))),
        sizes=rng.integers(1, 99, (len(COUNTS), 2)).astype(np.int32),
        image_ids=np.arange(first_id, first_id + len(COUNTS)),
        starts=np.cumsum([0, *COUNTS]),
        boxes=rng.random((total, 4), np.float32),
        labels=rng.integers(0, 3, total).astype(np.int32),
        areas=rng.random(total, np.float32),
        flags=rng.choice([0, int(CROWD), int(DIFFICULT)], total).astype(np.uint8),
        segments=Strings.pack(texts) if segments else None,
        category_ids=(3, 7, 11),
    )


Row = tuple[Any, ...]


def unrolled(index: DatasetIndex) -> list[tuple[Row, list[Row]]]:
    """The index as plain Python objects: each image with its annotations."""
    result = []
    for image in range(len(index)):
        annotations = []
        for row in range(index.starts[image], index.starts[image + 1]):
            segment = index.segments[row] if index.segments is not None else None
            numbers = (index.labels[row], index.areas[row], index.flags[row])
            annotations.append((*index.boxes[row].tolist(), *(number.item() for number in numbers), segment))
        header = (index.paths[image], index.size(image), int(index.image_ids[image]))
        result.append((header, annotations))
    return result


def test_strings_keep_any_text() -> None:
    texts = ["", "a", "日本", "", "x" * 1000, "ß"]
    column = Strings.pack(texts)
    assert [column[row] for row in range(len(column))] == texts
    assert [column.take(np.array([5, 0, 5, 2]))[row] for row in range(4)] == ["ß", "", "ß", "日本"]
    assert len(column.take(np.zeros(0, np.int64))) == 0
    both = Strings.concatenate([column, Strings.pack([b"last"])])
    assert [both[row] for row in range(len(both))] == [*texts, "last"]


def test_strings_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(number) * (number % 5) for number in range(1000)]
    rows = np.random.default_rng(0).integers(0, 1000, 3000)
    monkeypatch.setattr("ymir_tmi.data.index._TAKE_AT_ONCE", 7)
    taken = Strings.pack(texts).take(rows)
    assert [taken[row] for row in range(3000)] == [texts[row] for row in rows]


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("images", [[], [3], [5, 0, 1], [2, 2, 4], list(range(6))])
def test_take(images: list[int], segments: bool) -> None:
    index = make_index(segments=segments)
    taken = index.take(images)
    assert unrolled(taken) == [unrolled(index)[image] for image in images]
    assert (taken.class_names, taken.category_ids) == (index.class_names, index.category_ids)


def test_keep_annotations() -> None:
    index = make_index()
    mask = np.random.default_rng(3).random(sum(COUNTS)) < 0.5
    kept = index.keep_annotations(mask)
    flat = iter(mask)
    expected = [(header, [row for row in rows if next(flat)]) for header, rows in unrolled(index)]
    assert unrolled(kept) == expected
    changed = index.keep_annotations(mask, labels=np.full(mask.sum(), 2, np.int32))
    assert (changed.labels == 2).all() and (changed.boxes == kept.boxes).all()
    assert len(index.keep_annotations(np.zeros(len(mask), np.bool_)).boxes) == 0


def test_rows_images_and_counts() -> None:
    index = make_index()
    assert index.image_of_box().tolist() == [0, 0, 2, 2, 2, 3, 5, 5, 5, 5]
    assert index.rows(2) == slice(2, 5)
    assert index.class_counts().tolist() == [list(index.labels).count(label) for label in range(3)]
    unstated = dataclasses.replace(index, sizes=np.zeros_like(index.sizes))
    assert unstated.size(0) is None


def test_concatenate_keeps_unique_ids() -> None:
    first, second = make_index(0), make_index(1, first_id=50, folder="/b")
    both = concatenate([first, second])
    assert unrolled(both) == unrolled(first) + unrolled(second)


def test_concatenate_numbers_images_anew_where_ids_clash() -> None:
    both = concatenate([make_index(0), make_index(1)])
    assert both.image_ids.tolist() == list(range(12))
    assert both.take(range(6, 12)).boxes.tolist() == make_index(1).boxes.tolist()


def test_concatenate_parts_with_and_without_segments() -> None:
    both = concatenate([make_index(0, segments=False), make_index(1)])
    assert both.segments is not None
    texts = [both.segments[row] for row in range(20)]
    assert texts[:10] == [""] * 10 and texts[11] == "[[1,1]]"


def test_concatenate_refuses_other_classes() -> None:
    with pytest.raises(DataError, match="different classes"):
        concatenate([make_index(), dataclasses.replace(make_index(), class_names=("cat", "hen", "dog"))])


SEGMENTS = [["[[1,2,3,4,5,6]]", *[""] * 9], ["[[1,2,3,4,5,7]]", *[""] * 9], ["", "[[1,2,3,4,5,6]]", *[""] * 8]]


def test_fingerprint_depends_on_the_content_only() -> None:
    index = make_index()
    same = index.fingerprint()
    assert make_index(folder="/elsewhere").fingerprint() == same
    assert pickle.loads(pickle.dumps(index)).fingerprint() == same
    assert index.take(range(6)).fingerprint() == same
    boxes = index.boxes.copy()
    boxes[4, 2] += 1e-6
    changed = [
        dataclasses.replace(index, boxes=boxes),
        dataclasses.replace(index, labels=(index.labels + 1) % 3),
        dataclasses.replace(index, flags=index.flags ^ np.uint8(1)),
        dataclasses.replace(index, class_names=("cat", "dog", "cock")),
        dataclasses.replace(index, paths=Strings.pack(f"/a/{image}.jpg" for image in range(6))),
        dataclasses.replace(index, sizes=index.sizes[:, ::-1]),
        dataclasses.replace(index, starts=np.array([0, 2, 3, 5, 6, 6, 10])),
        index.take([1, 0, 2, 3, 4, 5]),
        index.take(range(5)),
        *(dataclasses.replace(index, segments=Strings.pack(texts)) for texts in SEGMENTS),
    ]
    assert len({same, *(other.fingerprint() for other in changed)}) == len(changed) + 1


def test_pickled_size_is_that_of_the_arrays() -> None:
    """A loader worker that is not forked gets the index by pickle."""
    index = make_index()
    many = concatenate([index] * 2000)
    size = sum(
        array.nbytes
        for array in (
            many.sizes, many.image_ids, many.starts, many.boxes, many.labels, many.areas, many.flags,
            many.paths.data, many.paths.offsets, many.segments.data, many.segments.offsets,
        )
    )  # fmt: skip
    assert len(pickle.dumps(many, protocol=5)) < size + 5000

"""Lists of pictures whose annotations are in one COCO file, as YMIR hands out masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import write_picture, write_text
from label_maps import blocks, coco_of

from ymir_tmi.data.index import CROWD
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.semantics import as_semantics, read_label_map, semantic_splits
from ymir_tmi.errors import DataError

MAPS = {f"{seed}f": blocks(seed, 3, ignored=True) for seed in range(4)}
NAMES = ("circle", "square", "triangle", "star")


def write_task(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write assets, one COCO file of all pictures, with ids from 0 in an order of their own, and two lists."""
    content = coco_of(MAPS, NAMES[:3])
    for category in content["categories"]:
        category["id"] -= 1
    content["categories"].reverse()
    for annotation in content["annotations"]:
        annotation["category_id"] -= 1
        annotation["iscrowd"] = 1
    write_text(folder / "annotations" / "coco-annotations.json", json.dumps(content | (changes or {})))
    for stem in MAPS:
        write_picture(folder / "assets" / stem[0] / f"{stem}.png")
    for split, stems in (("train", ("2f", "0f")), ("val", ("3f", "1f"))):
        lines = [f"{folder}/assets/{stem[0]}/{stem}.png\t{folder}/annotations/coco-annotations.json" for stem in stems]
        write_text(folder / f"{split}-index.tsv", "\n".join(lines) + "\n")
    return folder


def test_each_list_has_its_own_pictures(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    for split, stems in (("train", ("2f", "0f")), ("val", ("3f", "1f"))):
        index = read_dataset([str(folder / f"{split}-index.tsv")], class_names=NAMES)
        assert index.class_names == NAMES
        assert [Path(index.paths[row]).stem for row in range(2)] == list(stems)
        assert not (index.flags & CROWD).any(), "these are objects, not crowds"
        for row, stem in enumerate(stems):
            labels = read_label_map(as_semantics(index), row, (60, 40))
            np.testing.assert_array_equal(labels, MAPS[stem])
            filled = read_label_map(semantic_splits({split: index})[split], row, (60, 40))
            np.testing.assert_array_equal(filled, np.where(MAPS[stem] == 255, 4, MAPS[stem]))


def test_classes_are_those_that_occur(tmp_path: Path) -> None:
    index = read_dataset([str(write_task(tmp_path) / "val-index.tsv")])
    assert index.class_names == NAMES[:3]
    np.testing.assert_array_equal(read_label_map(as_semantics(index), 0, (60, 40)), MAPS["3f"])


def test_a_picture_that_the_file_does_not_have(tmp_path: Path) -> None:
    folder = write_task(tmp_path, {"images": [], "annotations": []})
    with pytest.raises(DataError, match=r"coco-annotations\.json: the image 2f\.png is not in 'images'"):
        read_dataset([str(folder / "train-index.tsv")])


@pytest.mark.parametrize("other", ["\tannotations/b.json", ""])
def test_there_is_one_file(tmp_path: Path, other: str) -> None:
    write_task(tmp_path)
    write_text(tmp_path / "annotations" / "b.json", "{}")
    write_text(tmp_path / "a.tsv", f"assets/0/0f.png\tannotations/coco-annotations.json\nassets/1/1f.png{other}\n")
    with pytest.raises(DataError, match="not all the same COCO file"):
        read_dataset([str(tmp_path / "a.tsv")])

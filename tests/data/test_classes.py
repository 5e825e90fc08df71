from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_folders import objects, random_index

from ymir_tmi.data.classes import ClassSelection, align_classes
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ConfigError, DataError


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    return read_dataset([str(random_index(tmp_path, images=30))])  # cat, dog, hen


@pytest.mark.parametrize(
    ("items", "names", "groups"),
    [
        ([], ("cat", "dog", "hen"), [[0], [1], [2]]),
        (["hen", "cat"], ("hen", "cat"), [[2], [0]]),
        (["dog=Hund"], ("Hund",), [[1]]),
        (["hen=bird", "dog", "cat = bird"], ("bird", "dog"), [[2, 0], [1]]),  # merged where the first of them stands
        (["cat=dog", "dog=cat"], ("dog", "cat"), [[0], [1]]),  # names change places
        (["cat=animal", "dog=animal", "hen=animal"], ("animal",), [[0, 1, 2]]),
    ],
)
def test_selection(index: DatasetIndex, items: list[str], names: tuple[str, ...], groups: list[list[int]]) -> None:
    selection = ClassSelection.parse(items)
    assert selection.groups(("cat", "dog", "hen")) == (names, groups)
    chosen = selection.apply(index)
    assert chosen.class_names == names
    new_name = {("cat", "dog", "hen")[old]: new for new, olds in zip(names, groups, strict=True) for old in olds}
    expected = {
        picture: sorted((new_name[name], *rest) for name, *rest in rows if name in new_name)
        for picture, rows in objects(index).items()
    }
    assert objects(chosen) == expected
    assert chosen.category_ids == tuple(members[0] + 1 for members in groups)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["dgo"], "there is no class 'dgo'\n  Did you mean 'dog'?"),
        (["elephant"], "Known: cat, dog, hen."),
        (["cat", "cat=tom"], "class 'cat' is given twice"),
        (["=x"], "not of the form"),
        (["cat="], "not of the form"),
        ([""], "not of the form"),
    ],
)
def test_wrong_selections(index: DatasetIndex, items: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ClassSelection.parse(items).apply(index)
    assert message in str(error.value)


def test_merged_columns_of_scores() -> None:
    """How predictions follow a selection: a new class scores as the best of its members."""
    names, groups = ClassSelection.parse(["hen=bird", "cat=bird", "dog"]).groups(("cat", "dog", "hen"))
    scores = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    merged = np.stack([scores[:, group].max(axis=1) for group in groups], axis=1)
    assert names == ("bird", "dog")
    assert merged.tolist() == [[0.7, 0.2], [0.6, 0.3]]


def test_align(index: DatasetIndex) -> None:
    aligned = align_classes(index, ["hen", "emu", "cat", "dog", "owl"])
    assert aligned.class_names == ("hen", "emu", "cat", "dog", "owl")
    assert aligned.category_ids == (3, 4, 1, 2, 5)
    assert objects(aligned) == objects(index)
    assert align_classes(index, index.class_names) is index


def test_align_drops_only_classes_without_objects(index: DatasetIndex) -> None:
    cats = index.keep_annotations(index.labels == 0)
    assert align_classes(cats, ["cat"]).class_names == ("cat",)
    with pytest.raises(
        DataError, match=r"objects are of class 'dog', which is not one of cat, dogs\n  Did you mean 'dogs'"
    ):
        align_classes(index.keep_annotations(index.labels < 2), ["cat", "dogs"])

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.split import parse_shares, split_dataset
from ymir_tmi.errors import ConfigError, DataError

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def make_index(images: int = 400, seed: int = 0, root: str = "/data") -> DatasetIndex:
    """Images in 20 folders; class 0 is in most of them, class 4 in about one of 25."""
    rng = np.random.default_rng(seed)
    present = rng.random((images, 5)) < [0.9, 0.5, 0.3, 0.1, 0.04]
    rows, labels = np.nonzero(present)
    total = len(labels)
    return DatasetIndex(
        class_names=("a", "b", "c", "d", "e"),
        paths=Strings.pack(f"{root}/scene{image % 20:02d}/frame{image:04d}.jpg" for image in range(images)),
        sizes=np.full((images, 2), 100, np.int32),
        image_ids=np.arange(images),
        starts=np.searchsorted(rows, np.arange(images + 1)),
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (total, 1)),
        labels=labels.astype(np.int32),
        areas=np.ones(total, np.float32),
        flags=np.zeros(total, np.uint8),
    )


def paths(index: DatasetIndex) -> list[str]:
    return [index.paths[row] for row in range(len(index))]


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_images_and_of_every_class(seed: int) -> None:
    index = make_index(seed=seed)
    parts = split_dataset(index, SHARES, seed=seed)
    assert sorted(path for part in parts.values() for path in paths(part)) == sorted(paths(index))
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - share * len(index)) <= 2
        assert np.abs(parts[name].class_counts() - share * index.class_counts()).max() <= 2
        assert paths(parts[name]) == sorted(paths(parts[name]), key=paths(index).index)


def test_better_than_chance() -> None:
    """Rare classes are shared out as they should be, which a plain shuffle does not do."""
    index = make_index()

    def worst(parts: dict[str, DatasetIndex]) -> float:
        counts = index.class_counts()
        return max(float(np.abs(parts[name].class_counts() / counts - share).max()) for name, share in SHARES.items())

    rng = np.random.default_rng(0)
    shuffles = []
    for _ in range(20):
        order = rng.permutation(400)
        shuffles.append(
            worst(
                {"train": index.take(order[:280]), "val": index.take(order[280:360]), "test": index.take(order[360:])}
            )
        )
    assert worst(split_dataset(index, SHARES, seed=0)) < 0.5 * float(np.median(shuffles))


def test_seeds_and_orders() -> None:
    index = make_index()
    parts = split_dataset(index, SHARES, seed=3)
    shuffled = index.take(np.random.default_rng(1).permutation(len(index)))
    again = split_dataset(shuffled, SHARES, seed=3)
    moved = split_dataset(make_index(root="/elsewhere/entirely"), SHARES, seed=3)
    for name in SHARES:
        assert sorted(paths(again[name])) == sorted(paths(parts[name]))
        assert [Path(path).name for path in paths(moved[name])] == [Path(path).name for path in paths(parts[name])]
    other = split_dataset(index, SHARES, seed=4)
    assert paths(other["val"]) != paths(parts["val"])


@pytest.mark.parametrize("group", ["folder", r"scene(\d+)", r"scene\d\d", r"scene\d(\d)"])
def test_groups_stay_together(group: str) -> None:
    index = make_index()
    parts = split_dataset(index, {"train": 0.6, "val": 0.4}, seed=0, group=group)
    last = group == r"scene\d(\d)"
    keys = [{Path(path).parent.name[-1 if last else 0 :] for path in paths(part)} for part in parts.values()]
    assert not keys[0] & keys[1]
    assert len(keys[0]) == (6 if last else 12)


def test_groups_of_unlike_sizes() -> None:
    """Large groups are dealt out first, so that the small ones can fill the gaps."""
    index = make_index(images=1000)
    names = [f"/d/{'big' if row < 300 else row}/{row}.jpg" for row in range(1000)]
    index = index.take(range(1000))
    object.__setattr__(index, "paths", Strings.pack(names))
    parts = split_dataset(index, {"train": 0.5, "val": 0.5}, seed=0, group="folder")
    assert abs(len(parts["train"]) - 500) <= 2


def test_images_without_objects_are_shared_out_too() -> None:
    index = make_index()
    empty = index.keep_annotations(np.zeros(len(index.boxes), np.bool_))
    assert [len(part) for part in split_dataset(empty, SHARES, seed=0).values()] == [280, 80, 40]


def test_no_part_is_empty() -> None:
    parts = split_dataset(make_index().take(range(3)), {"train": 0.9, "val": 0.05, "test": 0.05}, seed=0)
    assert [len(part) for part in parts.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("shares", "group", "error", "message"),
    [
        ({"train": 0.7, "val": 0.2}, None, ConfigError, "add up to 1, they are train 0.7, val 0.2"),
        ({"train": 1.2, "val": -0.2}, None, ConfigError, "must be positive"),
        ({"train": 1, "val": 0}, None, ConfigError, "must be positive"),
        ({}, None, ConfigError, "add up to 1"),
        (SHARES, "camera", DataError, "frame0000.jpg: the expression 'camera' finds nothing"),
        (SHARES, "(", ConfigError, "not a regular expression"),
        (SHARES, "/data", DataError, "1 groups of images cannot be divided into 3 parts"),
    ],
)
def test_what_cannot_be_split(
    shares: dict[str, float], group: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        split_dataset(make_index(), shares, seed=0, group=group)
    assert message in str(raised.value)


def test_shares_are_read_from_text() -> None:
    assert parse_shares(["train=0.8", " val = .2"]) == {"train": 0.8, "val": 0.2}


@pytest.mark.parametrize("text", ["train", "train=", "train=most", "0.8"])
def test_shares_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not of the form name=share"):
        parse_shares([text])

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mining_data import golden, golden_facts, make_result

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.mining.scores.rsal import Rsal
from ymir_tmi.mining.select import select_by_score
from ymir_tmi.mining.superpixels import SuperpixelSpec
from ymir_tmi.pool.consumer import ImageResult, Row

GOLDEN = golden("rsal")
FACTS = golden_facts("rsal")
RUNS = sorted(key for key in FACTS if "_k" in key)
NAMES = ["road", "sky", "tree", "car", "person"]


def rsal(**settings: object) -> Rsal:
    asked = MineSettings.model_validate({"data": [], "algorithm": "rsal", **settings})
    algorithm = create_algorithm(asked, NAMES, task="semantics")
    assert isinstance(algorithm, Rsal)
    return algorithm


def result_of(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[Any], position: int = 0) -> ImageResult:
    plain = make_result(position=position, size=(labels.shape[1], labels.shape[0]))
    return replace(plain, probabilities=torch.from_numpy(probabilities), measured=labels.astype(np.int32))


POOL = [result_of(GOLDEN[f"img{image}/prob"], GOLDEN[f"img{image}/labels"], image) for image in range(6)]


def rows_of(algorithm: Rsal, results: Sequence[ImageResult] = POOL) -> list[Row]:
    """Return the concluded rows, after what JSON leaves of the others."""
    rows = [json.loads(json.dumps(row)) for row in algorithm.consume(results)]
    conclude = algorithm.conclude(lambda: iter(rows))
    return [conclude(row) for row in rows]


def options_of(run: str) -> dict[str, object]:
    facts = FACTS[run]
    return {
        "class_balance": facts["class_balance"],
        "kept": facts["max_kept_mining_image"],
        "top_regions": facts["topk_superpixel_score"],
    }


@pytest.mark.parametrize("run", RUNS)
def test_the_form_equals_golden(run: str) -> None:
    rows = rows_of(rsal(compat="mmseg", **options_of(run)))
    order = select_by_score(np.array([row["score"] for row in rows]))
    np.testing.assert_array_equal(order, GOLDEN[f"{run}/order"])
    scores = [rows[image]["score"] for image in order]
    np.testing.assert_allclose(scores, GOLDEN[f"{run}/image_scores_in_order"], rtol=1e-5)
    for image, row in enumerate(rows):
        chosen = [region["superpixel"] for region in row["regions"]]
        assert chosen == GOLDEN[f"{run}/img{image}/selected_superpixels_best_first"].tolist()
    first = POOL[order[0]].measured
    mask = np.isin(first, [region["superpixel"] for region in rows[order[0]]["regions"]])
    np.testing.assert_array_equal(np.packbits(mask), GOLDEN[f"{run}/mask_of_first_packed"])


def test_uncertainties_equal_golden() -> None:
    for image, result in enumerate(POOL):
        heat = rsal().heat_map(result)
        labels = result.measured
        for number, bvsb in zip(GOLDEN[f"img{image}/superpixel_idx"], GOLDEN[f"img{image}/bvsb"], strict=True):
            np.testing.assert_allclose(heat[labels == number], bvsb, rtol=1e-5)


def slow_scores(*, class_balance: bool, normalize: bool) -> list[dict[int, float]]:
    """Return the weighed score of every superpixel of every image, one scan of the picture for each."""
    values: list[dict[int, tuple[float, int]]] = []
    for result in POOL:
        assert result.probabilities is not None
        p, labels = result.probabilities.double().numpy(), result.measured
        ordered = np.sort(p, axis=0)
        ratio, best = ordered[-2] / ordered[-1], p.argmax(0)
        values.append(
            {
                int(number): (ratio[labels == number].mean(), int(np.bincount(best[labels == number]).argmax()))
                for number in np.unique(labels)
            }
        )
    everything = [pair for of_image in values for pair in of_image.values()]
    counts = np.bincount([label for _, label in everything], minlength=5)
    weights = np.exp(-counts / counts.sum()) if class_balance else np.ones(5)
    numbers = [value for value, _ in everything]
    low, span = (min(numbers), max(numbers) - min(numbers)) if normalize else (0.0, 1.0)
    return [
        {number: (value - low) / span * weights[label] for number, (value, label) in of_image.items()}
        for of_image in values
    ]


@pytest.mark.parametrize("class_balance", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kept", [1, 5000])
def test_default_equals_a_slow_version(class_balance: bool, normalize: bool, kept: int) -> None:
    expected = slow_scores(class_balance=class_balance, normalize=normalize)
    everything = np.array([score for of_image in expected for score in of_image.values()])
    threshold = np.percentile(everything, 100 * max(0.8, 1 - kept * 3 / len(everything)))
    rows = rows_of(rsal(class_balance=class_balance, normalize=normalize, kept=kept))
    for row, of_image in zip(rows, expected, strict=True):
        ordered = sorted(of_image, key=lambda number: -of_image[number])
        chosen = ordered[: max(3, sum(score >= threshold for score in of_image.values()))]
        assert [region["superpixel"] for region in row["regions"]] == chosen
        assert row["score"] == pytest.approx(sum(of_image[number] for number in chosen), rel=1e-5)


def halves(last: float, *, size: int = 8) -> ImageResult:
    """Return a picture of two superpixels, the first sure and the last with this ratio of probabilities."""
    labels = np.repeat([[0, 1]], size, axis=0).repeat(size // 2, axis=1)
    p = np.zeros((5, size, size), np.float32)
    p[0], p[1] = np.where(labels, 1 / (1 + last), 1), np.where(labels, last / (1 + last), 0)
    return result_of(p, labels)


def test_the_last_superpixel_counts() -> None:
    [row], [port] = (rows_of(rsal(class_balance=False, **form), [halves(0.9)]) for form in ({}, {"compat": "mmseg"}))
    assert row["regions"][0]["superpixel"] == 1 and row["score"] == pytest.approx(0.9)
    assert [region["superpixel"] for region in port["regions"]] == [0] and port["score"] == 0


def test_unsure_images_come_first() -> None:
    rows = rows_of(rsal(class_balance=False), [halves(ratio) for ratio in (0.9, 0.5, 0.1, 0.0)])
    scores = [row["score"] for row in rows]
    assert scores == pytest.approx([0.9, 0.5, 0.1, 0.0])


def test_rare_classes_come_first() -> None:
    """Two images alike but for the class, which in the pool is frequent for one and rare for the other."""
    frequent, rare = halves(0.5), halves(0.5)
    assert rare.probabilities is not None
    rare = replace(rare, probabilities=rare.probabilities[[4, 3, 2, 1, 0]])
    scores = [row["score"] for row in rows_of(rsal(), [frequent, frequent, frequent, rare])]
    assert scores[3] > scores[0] == scores[1] == scores[2]


def test_a_pool_without_regions_is_no_error() -> None:
    one = result_of(np.ones((5, 4, 4), np.float32) / 5, np.zeros((4, 4)))
    [row] = rows_of(rsal(compat="mmseg"), [one])  # its only superpixel is the last one
    assert (row["score"], row["regions"]) == (0, [])
    conclude = rsal().conclude(lambda: iter([]))
    assert conclude(rsal().consume([one])[0])["score"] > 0


def test_what_a_row_holds_is_small() -> None:
    labels = np.arange(250).reshape(10, 25)
    [row] = rsal().consume([result_of(np.full((5, 10, 25), 0.2, np.float32), labels)])
    assert len(json.dumps(row)) < 250 * 8.5


def test_numbers_that_are_none_are_refused() -> None:
    broken = GOLDEN["img0/prob"].copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(ModelError, match="the score of this image is nan"):
        rsal().consume([result_of(broken, GOLDEN["img0/labels"])])


def test_regions_are_outlined() -> None:
    picture = golden("superpixel")["drawn/bgr"][..., ::-1]
    labels = SuperpixelSpec("slico", 256).cut(picture)
    regions = [{"superpixel": number, "label": "sky", "score": 0.5} for number in range(60, 2, -3)]
    mask, outlined = rsal(max_superpixels=256).find_regions(labels, regions)
    assert [{key: region[key] for key in region if key != "rle"} for region in outlined] == regions
    assert outlined[0]["rle"]["size"] == [96, 128]
    counts = tuple(region["rle"]["counts"].encode() for region in outlined)
    bitmaps = Masks((128, 96), counts).decode()
    for region, bitmap in zip(regions, bitmaps, strict=True):
        np.testing.assert_array_equal(bitmap, labels == region["superpixel"])
    np.testing.assert_array_equal(mask, bitmaps.any(0))


@pytest.mark.parametrize(
    "wrong", [{"compat": "mmseg", "normalize": True}, {"superpixels": "seeds", "region_size": 30}, {"region_radius": 2}]
)
def test_options_without_effect_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="has no effect here"):
        rsal(**wrong)

"""Masks as run lengths, against bitmaps and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from ymir_tmi.geometry.masks import Masks

BITMAPS = arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 11)))
POLYGON = [2.0, 1.0, 12.5, 2.0, 11.0, 9.5, 3.0, 8.0]
SECOND_PART = [14.0, 12.0, 18.0, 12.0, 18.0, 15.0]


@given(BITMAPS)
def test_decoding_inverts_encoding(bitmaps: np.ndarray) -> None:
    masks = Masks.encode(bitmaps)
    assert masks.size == (bitmaps.shape[2], bitmaps.shape[1])
    assert np.array_equal(masks.decode(), bitmaps)
    assert masks.areas().tolist() == bitmaps.sum((1, 2)).tolist()


@given(BITMAPS)
def test_run_lengths_are_those_of_pycocotools(bitmaps: np.ndarray) -> None:
    expected = [reference.encode(np.asfortranarray(bitmap, np.uint8))["counts"] for bitmap in bitmaps]
    assert list(Masks.encode(bitmaps).counts) == expected


@given(BITMAPS)
def test_hulls_and_overlaps_are_those_of_the_bitmaps(bitmaps: np.ndarray) -> None:
    masks = Masks.encode(bitmaps)
    for bitmap, hull in zip(bitmaps, masks.hulls(), strict=True):
        rows, columns = np.nonzero(bitmap)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert hull.tolist() == box
    union = (bitmaps[:, None] | bitmaps).sum((2, 3))
    expected = (bitmaps[:, None] & bitmaps).sum((2, 3)) / np.maximum(union, 1)
    assert masks.iou(masks) == pytest.approx(expected)


def test_parts_of_an_object_are_joined() -> None:
    masks = Masks.from_polygons([[POLYGON, SECOND_PART], [POLYGON]], (20, 16))
    expected = reference.merge(reference.frPyObjects([POLYGON, SECOND_PART], 16, 20))["counts"]
    assert masks.counts[0] == expected
    assert masks.areas()[0] > masks.areas()[1]


def test_rows_are_chosen_by_numbers_slices_and_masks() -> None:
    masks = Masks.encode(np.eye(9, dtype=np.bool_).reshape(9, 3, 3))
    assert masks[[2, 0]].counts == (masks.counts[2], masks.counts[0])
    assert masks[1:3].counts == masks.counts[1:3]
    assert masks[np.arange(9) > 7].counts == masks.counts[8:]
    assert Masks.concatenate([masks[:4], masks[4:]]) == masks


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_of_a_file_are_checked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = 300, 200
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([(x - 150) ** 2 + (y - 90) ** 2 < radius**2 for radius in (0, 3, 80, 400)])
    bitmaps = np.concatenate([smooth, rng.random((4, height, width)) < rng.random((4, 1, 1)), ~smooth])
    masks = Masks.encode(bitmaps)
    texts = [counts.decode() for counts in masks.counts]
    assert Masks.parse(texts, (width, height)) == masks
    for text in texts:
        with pytest.raises(ValueError, match="do not add up to 300 x 201 pixels"):
            Masks.parse([text], (width, 201))
        for wrong in (text[:-1], text + "1", text.replace("0", " ", 1) if "0" in text else "", "\x7f" + text, ""):
            with pytest.raises(ValueError, match="run lengths"):
                Masks.parse([wrong], (width, height))


def test_overlap_with_a_crowd_is_the_part_inside_it() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((3, 20, 30)) < 0.4, rng.random((2, 20, 30)) < 0.6
    ious = Masks.encode(one).iou(Masks.encode(other), np.array([True, False]))
    shared = (one[:, None] & other).sum((2, 3))
    np.testing.assert_allclose(ious[:, 0], shared[:, 0] / one.sum((1, 2)))
    np.testing.assert_allclose(ious[:, 1], shared[:, 1] / (one | other[1]).sum((1, 2)))

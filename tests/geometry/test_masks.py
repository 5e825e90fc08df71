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

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ymir_tmi.mining.pool_statistics import percentile

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 0.95, 0.99999, 1.0])
@pytest.mark.parametrize(
    "values",
    [
        RNG.random(1000, np.float32),
        RNG.random(7, np.float32) * 1e-30,
        np.array([0.5], np.float32),
        np.repeat(np.float32([0.25, 0.75, 0.0]), [5, 9, 3]),  # ties
        np.concatenate([RNG.random(50, np.float32), np.float32([0.0, -0.0, 1e30])]),
    ],
)
def test_equals_numpy(values: npt.NDArray[np.float32], share: float) -> None:
    expected = np.percentile(values.astype(np.float64), 100 * share)
    batches = np.array_split(values, [1, 1, len(values) // 2])  # one of them is empty
    assert percentile(lambda: iter(batches), share) == pytest.approx(expected, rel=1e-12)

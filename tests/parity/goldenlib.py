"""Deterministic weights and inputs for parity fixtures ("goldens").

A golden pins down what a reference implementation computes without storing its weights: every
tensor of a state dict is generated from its own key name, so anyone can rebuild the same weights
under the official checkpoint's key names, load them, and compare outputs.

Rules (numpy PCG64 seeded with crc32 of the key; float32 throughout):
  *.num_batches_tracked        zeros
  *.running_var                U(0.5, 1.5)
  *.running_mean               N(0, 0.1)
  1-D tensor ending .weight    U(0.5, 1.5)          (norm scales)
  1-D tensor ending .bias      N(0, 0.1)
  tensor with >= 2 dimensions  N(0, 1) * sqrt(2 / fan_in), fan_in = prod(shape[1:])
  anything else of >= 1 dim    N(0, 0.1)
  0-D tensor                   ones
Tensors that the reference derives from its configuration (anchors, priors, integral projections)
are not generated: they are listed under "constants" and stored by value.
"""

from __future__ import annotations

import zlib

import numpy as np


def tensor_for(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float32 array that the rule above assigns to `key` with `shape`."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    shape = tuple(shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) == 0:
        return np.ones(shape, np.float32)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if key.endswith("running_mean"):
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    if key.endswith(".weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)


def image_batch(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 (N, 3, H, W) input in [0, 1) seeded by `name`; smooth plus noise, not white noise."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    n, c, h, w = shape
    yy, xx = np.meshgrid(np.linspace(0, 1, h), np.linspace(0, 1, w), indexing="ij")
    out = np.empty(shape, np.float64)
    for i in range(n):
        for j in range(c):
            f = rng.uniform(1, 6, 4)
            p = rng.uniform(0, 6.28, 4)
            base = np.sin(f[0] * xx * 6.28 + p[0]) * np.sin(f[1] * yy * 6.28 + p[1]) + np.sin(
                f[2] * (xx + yy) * 6.28 + p[2]
            )
            out[i, j] = 0.5 + 0.2 * base + 0.05 * rng.standard_normal((h, w))
    return np.clip(out, 0, 0.999).astype(np.float32)


def boxes(name: str, n: int, h: int, w: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` (x1, y1, x2, y2) float32 boxes in pixels of an h x w image, and their int64 labels."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    cx, cy = rng.uniform(0.15, 0.85, n) * w, rng.uniform(0.15, 0.85, n) * h
    bw, bh = rng.uniform(0.1, 0.5, n) * w, rng.uniform(0.1, 0.5, n) * h
    b = np.stack([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], 1)
    b[:, 0::2] = b[:, 0::2].clip(0, w - 1)
    b[:, 1::2] = b[:, 1::2].clip(0, h - 1)
    return b.astype(np.float32), rng.integers(0, num_classes, n).astype(np.int64)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Thinning of binary maps to lines of one pixel (Guo and Hall, CACM 32(3), 1989, algorithm A1)."""

import functools

import numpy as np


@functools.lru_cache(maxsize=1)
def _removable() -> tuple[np.ndarray, np.ndarray]:
    """
    Return which of the 256 neighbourhoods let their centre go, in the two subiterations.

    Bit i of a neighbourhood is neighbour x(i + 1): east first, then counter-clockwise.
    """
    codes = np.arange(256)
    x = [(codes >> (i % 8) & 1).astype(bool) for i in range(9)]
    crossings = sum((~x[i] & (x[i + 1] | x[(i + 2) % 8])).astype(int) for i in (0, 2, 4, 6))
    one = sum((x[i] | x[i + 1]).astype(int) for i in (0, 2, 4, 6))
    two = sum((x[i + 1] | x[i + 2]).astype(int) for i in (0, 2, 4, 6))
    fewest = np.minimum(one, two)
    common = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    first = common & ~((x[1] | x[2] | ~x[7]) & x[0])
    second = common & ~((x[5] | x[6] | ~x[3]) & x[4])
    return first, second


def thin(mask: np.ndarray) -> np.ndarray:
    """Return bool (h, w): `mask` reduced to its connected centre lines."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    flat, stride = padded.reshape(-1), width + 2
    around = (1, 1 - stride, -stride, -1 - stride, -1, stride - 1, stride, stride + 1)
    pixels = np.flatnonzero(flat)
    while True:
        before = len(pixels)
        for table in _removable():
            codes = np.zeros(len(pixels), dtype=np.intp)
            for bit, offset in enumerate(around):
                codes |= flat[pixels + offset].astype(np.intp) << bit
            gone = table[codes]
            flat[pixels[gone]] = False
            pixels = pixels[~gone]
        if len(pixels) == before:
            return padded[1:-1, 1:-1].copy()

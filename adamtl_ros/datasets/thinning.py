# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Thinning of binary maps to lines of one pixel (Guo and Hall, CACM 32(3), 1989, algorithm A1)."""

import functools

import cv2
import numpy as np

_BITS = np.array(((8, 4, 2), (16, 0, 1), (32, 64, 128)), dtype=np.float32)
"""The bit of each neighbour."""


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """
    Return uint8 (256), 0 where a neighbourhood lets its centre go, for the two subiterations.

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
    return (~first).astype(np.uint8), (~second).astype(np.uint8)


def thin(mask: np.ndarray) -> np.ndarray:
    """Return bool (h, w): `mask` reduced to its connected centre lines."""
    kept: np.ndarray = mask.astype(np.uint8)
    count = cv2.countNonZero(kept) if kept.size else 0
    while True:
        before = count
        for table in _tables():
            codes = cv2.filter2D(kept, -1, _BITS, borderType=cv2.BORDER_CONSTANT)
            kept = cv2.bitwise_and(kept, cv2.LUT(codes, table))
        count = cv2.countNonZero(kept)
        if count == before:
            return kept.astype(bool)

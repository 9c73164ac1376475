# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How attention windows lie over the tokens of a stage; numpy alone, for every backend."""

import numpy as np


def relative_index(window: tuple[int, int]) -> np.ndarray:
    """Return int64 (n, n): rows of the bias table for each pair of the n tokens of a window."""
    h, w = window
    y, x = (part.reshape(-1) for part in np.meshgrid(np.arange(h), np.arange(w), indexing='ij'))
    rows = y[:, None] - y[None, :] + h - 1
    return rows * (2 * w - 1) + x[:, None] - x[None, :] + w - 1


def window_tokens(
        size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> np.ndarray:
    """Return int64 (windows, n): which tokens of a flat (H * W) map each shifted window holds."""
    tokens = np.arange(size[0] * size[1]).reshape(size)
    return _cut(np.roll(tokens, (-shift[0], -shift[1]), (0, 1)), window)


def shift_mask(
        size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> np.ndarray | None:
    """
    Return float32 (windows, n, n), -100 between tokens that the cyclic shift brought together.

    None where nothing is shifted.
    """
    if shift == (0, 0):
        return None
    region = np.zeros(size, dtype=np.int64)
    for axis in (0, 1):
        if shift[axis]:
            index = np.arange(size[axis])
            part = (index >= size[axis] - window[axis]).astype(np.int64)
            part += index >= size[axis] - shift[axis]
            region += part.reshape((-1, 1) if axis == 0 else (1, -1)) * 3 ** axis
    flat = _cut(region, window)
    return (flat[:, None, :] != flat[:, :, None]).astype(np.float32) * np.float32(-100.0)


def _cut(values: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    (height, width), (h, w) = values.shape, window
    return values.reshape(height // h, h, width // w, w).transpose(0, 2, 1, 3).reshape(-1, h * w)

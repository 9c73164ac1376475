# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Optical flow from one picture to an earlier one, and results that are warped along it.

As in deep feature flow (Zhu et al., CVPR 2017) the network runs on key frames, and what it said of
them is brought to the frames between.  Here it is the results that are, not features: they are
what the flow fits, and no decoder runs either.
"""

from dataclasses import dataclass
import functools
from typing import Any
from typing import cast

import cv2
import numpy as np

from adamtl_ros.tasks import TASKS

CELL = 8
"""Pixels of the network's input in a cell, a side: so many that noise averages out."""

DIFFERS = 8.0
"""Mean difference, of 255, of a cell after warping from which on it shows something else."""

RISE = 1.0
"""
How much the errors of warped results rise, relative to those of the dense network, for each share
of the picture that shows something else.

The ratio of both means is 0.87 over 786 pairs of frames of clips that walk or stand (correlation
0.42), and 1.6 and 1.4 on two fast walks (0.80, 0.62): test/flow_errors.py measures it.
"""


@dataclass(frozen=True)
class Motion:
    """
    Where the pixels of a picture were in an earlier one.

    flow: float32 (h, w, 2), what is added to (x, y) to find them there.  maps: the same as
    cv2.remap takes it, see `maps`.  rise: how much more wrong results are expected to be that are
    warped along it, relative to those of the dense network.
    """

    flow: np.ndarray
    maps: tuple[np.ndarray, np.ndarray]
    rise: float

    def warped(self, task: str, array: np.ndarray) -> np.ndarray:
        """Return what was published of the earlier picture, (h, w) or (h, w, 3), as it is now."""
        # Between two pixels there is no class, no depth and no unit vector.
        smooth = TASKS[task].kind == 'map'
        return cv2.remap(
            array, *self.maps, cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE)


class Flow:
    """
    Finds how pictures moved since one of them; DIS (Kroeger et al., ECCV 2016), as OpenCV has it.

    pixels: uint8 (h, w, 3), that picture.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels.copy()
        self._grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._last: np.ndarray | None = None
        self._age = 0

    def to(self, pixels: np.ndarray, age: int) -> Motion:
        """Return the Motion of a later picture of this size; age: how many frames later."""
        # It goes on as it went: large motions are not found from nothing.
        start = None if self._last is None else self._last * np.float32(age / self._age)
        flow = self._search.calc(
            cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), self._grey, cast(Any, start))
        self._last, self._age = flow, age
        there = maps(flow)
        before = cv2.remap(
            self._pixels, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return Motion(flow, there, RISE * float((difference(pixels, before) >= DIFFERS).mean()))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return float32 (h / CELL, w / CELL), how much the mean colours of cells differ, of 255."""
    return np.abs(cells(one) - cells(other)).mean(-1)


def cells(pixels: np.ndarray) -> np.ndarray:
    """Return float32 (h / CELL, w / CELL, 3), the mean colours of the cells of (h, w, 3)."""
    height, width = pixels.shape[:2]
    return cv2.resize(
        pixels, (width // CELL, height // CELL), interpolation=cv2.INTER_AREA).astype(np.float32)


def maps(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pixels of a flow come from, in fixed point, the fastest for cv2.remap."""
    columns, rows = _grid(flow.shape[0], flow.shape[1])
    return cv2.convertMaps(columns + flow[..., 0], rows + flow[..., 1], cv2.CV_16SC2)


@functools.lru_cache(maxsize=8)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices((height, width), np.float32)
    return columns, rows

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Optical flow from one picture to an earlier one, and what was said of that, brought along it.

As in deep feature flow (Zhu et al., CVPR 2017) the network runs on key frames, and what it said of
them is brought to the frames between.  Here it is the results that are, not features: they are
what the flow fits, and no decoder runs either.  What depends on the camera `runtime.ego_motion`
brings to it first.

A frame that is computed is averaged with what was said before: an exponential mean along the flow
where the picture still shows the same, and of what decoders say, not of classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import functools
from typing import Any
from typing import cast

import cv2
import numpy as np

from adamtl_ros.tasks import TASKS

CELL = 8
"""Pixels of the network's input in a cell, a side: so many that noise averages out."""

STEP = 2
"""Pixels of the network's input, a side, for which one flow is found."""

DIFFERS = 8.0
"""Mean difference, of 255, of a cell after warping from which on it shows something else."""

RISE = 1.0
"""
How much the errors of warped results rise, relative to those of the dense network, for each share
of the picture that shows something else.

The ratio of both means is 1.7 on two fast walks (correlation 0.8).  On 786 pairs of clips, which
walk or stand, it is 0.1 (0.4): but their first frames, which are warped, training has seen.
test/flow_errors.py measures it.  It is less than that of walks, as it is compared with what the
policy says that a budget loses, and that is too little there as well.
"""

EARLIER = {'classes': 0.5, 'depth': 0.5, 'normals': 0.3, 'map': 0.3}
"""
Share of what was said before in the mean, by the kind of task.

On clips of training 0.5 is better than 0.3 for all but edges.  On two fast walks of which every
third frame is computed saliency and edges are worse with it than alone, and normals of one.
test/flow_errors.py measures it.
"""

MOST_PLANES = 512
"""What cv2.remap takes at once."""


@dataclass(frozen=True)
class Motion:
    """
    Where the pixels of a picture of (h, w) were in an earlier one.

    flow: float32 (h / STEP, w / STEP, 2), what is added to (x, y) to find them there, in steps.
    same: float32 (h / CELL, w / CELL), 1 where a cell shows what it showed there, 0 where it does
    not, or was not seen.  rise: how much more wrong results are expected to be that are warped
    along it, relative to those of the dense network.
    """

    flow: np.ndarray
    same: np.ndarray
    rise: float

    def warped(self, array: np.ndarray) -> np.ndarray:
        """
        Return what was published of the earlier picture, (h, w) or (h, w, 3), as it is now.

        Each pixel takes what the nearest one said: between two there is no class, no depth and no
        unit vector.
        """
        pixels = np.ascontiguousarray(array).reshape(self._places.size, -1)
        # A pixel at a time, not a number at a time.
        whole = pixels.view(np.dtype((np.void, pixels.strides[0])))[:, 0]
        return whole.take(self._places).view(array.dtype).reshape(array.shape)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """Return intp (h * w), which pixel of the earlier picture each one is."""
        height, width = (STEP * side for side in self.flow.shape[:2])
        flow = cv2.resize(self.flow, (width, height), interpolation=cv2.INTER_LINEAR)
        places = cv2.remap(
            _numbers(height, width), cv2.scaleAdd(flow, STEP, _grid(height, width)), cast(
                Any, None), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return places.astype(np.intp).ravel()

    def averaged(
            self, logits: Mapping[str, np.ndarray], earlier: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """
        Return what decoders say, float32 (channels, H, W) each, averaged with what they said.

        Of tasks that one of the two lacks, or has at another size, it is what they say now; so it
        is where they said what is not finite.
        """
        ways: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        means = {}
        for task, planes in logits.items():
            means[task] = planes
            before = earlier.get(task)
            # What is not finite would never leave the mean.
            if before is not None and before.shape == planes.shape and (
                    cv2.checkRange(before.reshape(len(before), -1))[0]):
                size = planes.shape[1:]
                if size not in ways:
                    ways[size] = self._way(size)
                means[task] = _mean(planes, before, *ways[size], EARLIER[TASKS[task].kind])
        return means

    def _way(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return where pixels of (height, width) come from, and how much those count."""
        height, width = size
        flow, step = self.flow, width / self.flow.shape[1]
        if step != 1:
            flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
        return cv2.scaleAdd(flow, step, _grid(height, width)), cv2.resize(
            self.same, (width, height), interpolation=cv2.INTER_LINEAR)


def _mean(
        planes: np.ndarray, earlier: np.ndarray, places: np.ndarray, weight: np.ndarray,
        share: float) -> np.ndarray:
    mean = np.empty_like(planes)
    for start in range(0, len(planes), MOST_PLANES):
        part = slice(start, start + MOST_PLANES)
        moved = cv2.remap(
            cv2.merge(list(earlier[part])), places, cast(Any, None), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE)
        mean[part] = np.moveaxis(np.atleast_3d(moved), -1, 0)
    mean -= planes
    mean *= np.float32(share) * weight
    mean += planes
    return mean


class Flow:
    """
    Finds how pictures moved since one of them; DIS (Kroeger et al., ECCV 2016), as OpenCV has it.

    pixels: uint8 (h, w, 3), that picture.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._picture = _steps(pixels)
        self._grey = cv2.cvtColor(self._picture, cv2.COLOR_RGB2GRAY)
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        # At a quarter of the network's input, where this preset would end with all of its pixels.
        self._search.setFinestScale(1)
        self._last: np.ndarray | None = None
        self._age = 0

    def to(self, pixels: np.ndarray, age: int) -> Motion:
        """Return the Motion of a later picture of this size; age: how many frames later."""
        # It goes on as it went: large motions are not found from nothing.
        start = None if self._last is None else self._last * np.float32(age / self._age)
        picture = _steps(pixels)
        flow = self._search.calc(
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), self._grey, cast(Any, start))
        self._last, self._age = flow, age
        height, width = picture.shape[:2]
        places = cv2.add(_grid(height, width), flow)
        before = cv2.remap(
            self._picture, places, cast(Any, None), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE)
        other = difference(picture, before, CELL // STEP) >= DIFFERS
        # What came into the picture was not seen, even if it looks like its edge.
        seen = cv2.inRange(places, (0.0, 0.0), (width - 1.0, height - 1.0))
        share = cv2.resize(
            seen, other.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return Motion(flow, np.where(other, np.float32(0), share), RISE * float(other.mean()))


def difference(one: np.ndarray, other: np.ndarray, cell: int = CELL) -> np.ndarray:
    """Return float32 (h / cell, w / cell), how much the mean colours of cells differ, of 255."""
    return apart(cells(one, cell), cells(other, cell))


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return float32 (h, w), the mean difference of the colours of cells, (h, w, 3) each."""
    return cv2.transform(cv2.absdiff(one, other), np.full((1, 3), 1 / 3))


def cells(pixels: np.ndarray, cell: int = CELL) -> np.ndarray:
    """Return float32 (h / cell, w / cell, 3), the mean colours of the cells of (h, w, 3)."""
    return _smaller(pixels, cell).astype(np.float32)


def _steps(pixels: np.ndarray) -> np.ndarray:
    return _smaller(pixels, STEP)


def _smaller(pixels: np.ndarray, times: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    return cv2.resize(pixels, (width // times, height // times), interpolation=cv2.INTER_AREA)


@functools.lru_cache(maxsize=16)
def _grid(height: int, width: int) -> np.ndarray:
    """Return float32 (h, w, 2), the (x, y) of each pixel."""
    rows, columns = np.indices((height, width), np.float32)
    return np.stack((columns, rows), -1)


@functools.lru_cache(maxsize=8)
def _numbers(height: int, width: int) -> np.ndarray:
    """Return float32 (h, w), the number of each pixel; exact below 2 ** 24 of them."""
    return np.arange(height * width, dtype=np.float32).reshape(height, width)

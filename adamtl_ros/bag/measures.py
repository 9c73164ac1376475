# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures that are kept while a recording passes by, each in memory of a fixed size."""

from array import array
from collections.abc import Mapping
from collections.abc import Sequence
import heapq
import random

import cv2
import numpy as np

from adamtl_ros.runtime.agreement import DEPTH_RATIO
from adamtl_ros.runtime.agreement import MAP_TOLERANCE
from adamtl_ros.runtime.agreement import NORMALS_TOLERANCE_DEG
from adamtl_ros.tasks import TASKS

SAMPLE = 1 << 16
"""Values that percentiles are taken from; of more, a random choice of so many."""

BINS = 240
"""Stretches of a recording at most, over which curves over time are averaged."""

WORST = 10

SCENES = 100
"""Scenes at most; what comes after belongs to the last."""

_SCENE_DISTANCE = 0.3
_SCENE_FRAMES = 3
_EDGE = 0.5


def percentiles(
        values: Sequence[float], shares: Sequence[int] = (50, 95, 99), ending: str = ''
) -> dict[str, float | None]:
    """Return p50 and the like, the names with that ending; None without values."""
    return {f'p{share}{ending}': float(np.percentile(values, share)) if len(values) else None
            for share in shares}


class Sample:
    """Values for percentiles: all of them, or a uniform choice (Vitter's algorithm R)."""

    def __init__(self) -> None:
        """Begin empty, with a fixed seed."""
        self.count = 0
        self.total = 0.0
        self.values = array('d')
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        """Take a value in."""
        self.count += 1
        self.total += value
        if len(self.values) < SAMPLE:
            self.values.append(value)
        elif (place := self._random.randrange(self.count)) < SAMPLE:
            self.values[place] = value

    def percentile(self, share: float) -> float | None:
        """Return a percentile, share in [0, 100]; None without values."""
        return float(np.percentile(self.values, share)) if self.values else None

    def mean(self) -> float | None:
        """Return the mean; None without values."""
        return self.total / self.count if self.count else None


class LatestOnly:
    """
    The node's slot at a recording's own rate: one frame in work, and the newest one waits.

    dropped: frames that a newer one replaced while they waited.
    """

    def __init__(self) -> None:
        """Begin idle."""
        self.dropped = 0
        self._free = float('-inf')
        self._waiting: tuple[float, float] | None = None

    def arrive(self, time: float, work: float) -> None:
        """Let a frame arrive at a time (s) that takes so long (s) to answer."""
        if self._waiting is not None:
            if self._free <= time:
                since, needed = self._waiting
                self._free = max(self._free, since) + needed
                self._waiting = None
            else:
                self.dropped += 1
        if self._free <= time and self._waiting is None:
            self._free = time + work
        else:
            self._waiting = (time, work)


class Difference:
    """
    How far published arrays are from those of a reference, over all frames.

    Beside the share of pixels that agree (see runtime.agreement), in each task's own terms:
    classes miou, the reference's classes being the truth; maps mae; edges also f, both taken as
    edges above 0.5, pixel by pixel; normals mean_deg; depth mae_m and abs_rel.
    """

    def __init__(self, classes: Mapping[str, int]) -> None:
        """Begin with no frames; classes: the number of classes of the class tasks."""
        self._confusion = {
            task: np.zeros((number, number), np.int64) for task, number in classes.items()}
        self._sums: dict[str, dict[str, float]] = {}
        self._frames = 0

    def update(
            self, outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray],
    ) -> dict[str, float]:
        """Add a frame; return the share of pixels, in [0, 1], on which each task agrees."""
        self._frames += 1
        agreed = {}
        for task, value in outputs.items():
            truth, kind = reference[task], TASKS[task].kind
            add: dict[str, float] = {}
            if kind == 'classes':
                table = self._confusion[task]
                pairs = cv2.calcHist(
                    [truth, value], [0, 1], None, list(table.shape),
                    [0, table.shape[0], 0, table.shape[1]])
                table += pairs.astype(np.int64)
                same = float(np.trace(pairs)) / value.size
            elif kind == 'map':
                error = cv2.absdiff(value, truth)
                add['mae'] = cv2.mean(error)[0]
                same = np.count_nonzero(error <= MAP_TOLERANCE) / value.size
                if task == 'edges':
                    mine, its = value > _EDGE, truth > _EDGE
                    add['both'] = float(np.count_nonzero(mine & its))
                    add['either'] = float(np.count_nonzero(mine) + np.count_nonzero(its))
            elif kind == 'normals':
                # The dot product of each pixel; numpy takes eight times as long.
                cosine = cv2.transform(cv2.multiply(value, truth), np.ones((1, 3), np.float32))
                same = np.count_nonzero(
                    cosine >= np.cos(np.deg2rad(NORMALS_TOLERANCE_DEG))) / cosine.size
                known = cosine[np.isfinite(cosine)]
                if known.size < cosine.size:
                    # Without a direction in both is the same answer.
                    same += np.count_nonzero(
                        np.isnan(value).any(-1) & np.isnan(truth).any(-1)) / cosine.size
                add['degrees'] = float(np.rad2deg(np.arccos(known.clip(-1, 1))).sum())
                add['known'] = known.size
            else:
                add['mae_m'] = cv2.mean(cv2.absdiff(value, truth))[0]
                ratio = value / truth
                add['abs_rel'] = float(np.abs(ratio - 1).mean())
                # As |ln ratio| <= ln DEPTH_RATIO, without logarithms.
                same = cv2.countNonZero(
                    cv2.inRange(ratio, 1 / DEPTH_RATIO, DEPTH_RATIO)) / value.size
            agreed[task] = add['same'] = float(same)
            sums = self._sums.setdefault(task, dict.fromkeys(add, 0.0))
            for name, number in add.items():
                sums[name] += number
        return agreed

    def agreement(self) -> dict[str, float]:
        """Return, per task, the mean share of pixels that agree."""
        return {task: sums['same'] / self._frames for task, sums in self._sums.items()}

    def compute(self) -> dict[str, dict[str, float | None]]:
        """Return, per task, the differences over all frames; None where nothing can be said."""
        values: dict[str, dict[str, float | None]] = {}
        for task, sums in self._sums.items():
            if task in self._confusion:
                values[task] = {'miou': _miou(self._confusion[task])}
                continue
            own: dict[str, float | None] = {
                name: sums[name] / self._frames
                for name in ('mae', 'mae_m', 'abs_rel') if name in sums}
            if 'either' in sums:
                # Two empty answers agree.
                own['f'] = float(2 * sums['both'] / sums['either']) if sums['either'] else 1.0
            if 'known' in sums:
                own['mean_deg'] = sums['degrees'] / sums['known'] if sums['known'] else None
            values[task] = own
        return values


def _miou(table: np.ndarray) -> float:
    """Return the mean intersection over union of the classes that occur."""
    union = table.sum(0) + table.sum(1) - table.diagonal()
    there = union > 0
    return float((table.diagonal()[there] / union[there]).mean()) if there.any() else 1.0


class Series:
    """Means over stretches of the recording, of as many frames each as BINS of them need."""

    def __init__(self, columns: int) -> None:
        """Begin with stretches of one frame."""
        self.width = 1
        self._sums = np.zeros((BINS, columns))
        self._counts = np.zeros(BINS, np.int64)
        self._frames = 0

    def add(self, values: Sequence[float]) -> None:
        """Add a frame."""
        place = self._frames // self.width
        if place == BINS:
            self._sums[:BINS // 2] = self._sums[::2] + self._sums[1::2]
            self._counts[:BINS // 2] = self._counts[::2] + self._counts[1::2]
            self._sums[BINS // 2:] = self._counts[BINS // 2:] = 0
            self.width *= 2
            place //= 2
        self._sums[place] += values
        self._counts[place] += 1
        self._frames += 1

    def means(self) -> np.ndarray:
        """Return (stretches, columns)."""
        there = self._counts > 0
        return self._sums[there] / self._counts[there, None]


class Worst:
    """The frames with the least agreement."""

    def __init__(self) -> None:
        """Begin with none."""
        self._heap: list[tuple[float, int]] = []

    def add(self, index: int, agreement: float) -> None:
        """Take a frame in."""
        entry = (-agreement, -index)
        if len(self._heap) < WORST:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def frames(self) -> list[tuple[int, float]]:
        """Return (index, agreement), the worst first."""
        return [(-index, -value) for value, index in sorted(self._heap, reverse=True)]


class Scenes:
    """
    Cuts a recording where its colours change for good.

    A frame's histogram of 64 colours is compared with the mean of the scene so far (half the sum
    of absolute differences, in [0, 1]); some frames in a row that are far from it begin a scene.
    """

    def __init__(self) -> None:
        """Begin before the first frame."""
        self.number = -1
        self.full = False
        self._sum = np.zeros(64)
        self._frames = 0
        self._far = 0

    def add(self, image: np.ndarray) -> int:
        """Return the number of the scene, from 0, that a uint8 (h, w, 3) frame belongs to."""
        step = max(1, image.shape[0] // 60)
        coarse = image[::step, ::step] >> 6
        codes = (coarse[..., 0] << 4) | (coarse[..., 1] << 2) | coarse[..., 2]
        histogram = np.bincount(codes.ravel(), minlength=64) / codes.size
        if self._frames:
            distance = np.abs(self._sum / self._frames - histogram).sum() / 2
            self._far = self._far + 1 if distance > _SCENE_DISTANCE else 0
        self.full = self.number + 1 >= SCENES
        if self.number < 0 or (self._far >= _SCENE_FRAMES and not self.full):
            self.number += 1
            self._sum[:] = 0
            self._frames = self._far = 0
        if not self._far:
            self._sum += histogram
            self._frames += 1
        return self.number

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The frames of one camera in order: all that one of them leaves for the next, and nothing else does.

The ledger holds the mean: what a frame cost less than the budget is credit, and credit moves the
target of the next frames, and so the price that all of their gates pay.  It is bounded, and a
frame may spend no more than there is: over any two horizons the mean is at most TOLERANCE above
the budget, whatever comes.  What still frames save beyond that is saved.  The memory holds the
last computed result and what the picture looked like then: a picture that still looks like that
has the same result, and costs nothing.  Where only some of it moves, the rest keeps its results
until a better frame comes, one that costs more, as they do now and then: what stands still is seen
well once, not badly again and again.
"""

import math
from typing import Any

import cv2
import numpy as np

from adamtl_ros.runtime.settings import Settings

STILL = 2.0
"""Mean difference, of 255, of a cell of the picture from which on something has moved in it."""

CELL = 8
"""Pixels of the network's input in a cell, a side: so many that noise averages out."""

REACH = 1
"""Cells around one that moved whose results are not kept either: they depend on it."""

BETTER = 0.05
"""How much more of dense a frame must cost than an earlier one to be better than that."""

MOST = 0.5
"""Share of the picture, and of its cells that would tell, that stands still if the camera does."""

TELLS = 2 * STILL
"""How much a cell differs from one beside it if it would tell that the camera moves."""

GAP_S = 1.0
"""Stamps that lie farther apart are of another scene."""

TOLERANCE = 0.02
"""How far the mean of two horizons may be above the budget, as a share of the dense cost."""

GAIN = 15.0
"""
How much a frame of credit moves the target, of a horizon.

Its own mean moves it as well, so that none is left in the end: at GAIN / 2 squared the two of them
settle as fast as they can without swinging.
"""


class Stream:
    """
    State of one camera's frames; give it to Engine.infer with every frame, in their order.

    price: what the gates of the next frame pay, where that is known, and its cap is that of the
    settings, and NaN takes all that the cap pays for; None leaves both to the ledger.
    fresh: whether the next frame is computed whatever it looks like.
    """

    def __init__(self, price: float | None = None) -> None:
        self.credit = 0.0
        self._bias = 0.0
        self.price = price
        self.fresh = False
        self._recent: list[float] = []
        self._key: Any = None
        self._picture: np.ndarray | None = None
        self._kept: Any = None
        self._age = 0
        # By cell of the picture: what it looked like when the result that it has was computed,
        # what that frame cost, and how many frames ago it was.
        self._seen: np.ndarray | None = None
        self._cost: np.ndarray = np.zeros((0, 0))
        self._since: np.ndarray = np.zeros((0, 0))
        self._stamp: float | None = None
        self._source = ''

    def arrived(self, stamp: float, source: str = '') -> str:
        """
        Take note of a frame's stamp in s, and of its camera, before it is inferred.

        Returns '' or, where the memory was dropped, why.
        """
        last, self._stamp = self._stamp, stamp
        before, self._source = self._source, source
        reason = ''
        if last is not None and self._kept is not None:
            if before != source:
                reason = f'frames of {source!r} follow those of {before!r}: a camera, a stream'
            elif stamp <= last:
                reason = f'a stamp of {stamp:.3f} s follows one of {last:.3f} s'
            elif stamp - last > GAP_S:
                reason = f'{stamp - last:.1f} s lie between two stamps'
        if reason:
            self.forget()
        return reason

    def forget(self) -> None:
        """Drop the memory, so that the next frame is computed; the ledger stays."""
        self._picture = self._kept = self._seen = None

    # The ledger

    @property
    def mean(self) -> float:
        """Return the mean cost of the last frames, at most a horizon of them; NaN at first."""
        return float(np.mean(self._recent)) if self._recent else math.nan

    def target(self, settings: Settings) -> float:
        """Return the mean that the next frames should have, a share of the dense cost."""
        return _budget(settings) + self._bias + GAIN * self.credit / settings.horizon

    def limit(self, settings: Settings) -> float:
        """Return the most that the next frame may cost, from the budget to the cap."""
        if self.price is not None:
            return settings.cap
        budget = _budget(settings)
        left = self.credit + TOLERANCE * settings.horizon
        return min(budget + max(left, 0.0), settings.cap)

    def spend(self, achieved: float, settings: Settings, *, reused: bool = False) -> None:
        """Enter what a frame cost, a share of the dense cost, and whether it was computed."""
        budget, bound = _budget(settings), TOLERANCE * settings.horizon
        self.credit = min(max(self.credit + budget - achieved, -bound), bound)
        # A frame that was reused says nothing of what prices do.
        if not reused:
            step = (GAIN / 2 / settings.horizon) ** 2 * self.credit
            self._bias = min(max(self._bias + step, -budget), 1.0 - budget)
        self._recent = [*self._recent, achieved][-settings.horizon:]

    # The memory

    @property
    def kept(self) -> Any:
        """Return the result that is kept, None where there is none."""
        return self._kept

    def recall(self, pixels: np.ndarray, key: Any, settings: Settings) -> Any:
        """
        Return what was kept of the last computed frame, if this one looks the same; else None.

        pixels: uint8 (h, w, 3).  key: all that the result depends on beside the picture.
        """
        self._age += 1
        self._since = self._since + 1
        if (self.fresh or not settings.reuse or self._kept is None or key != self._key
                or self._age >= settings.refresh):
            return None
        assert self._picture is not None
        moved = np.abs(_cells(pixels) - self._picture).mean(-1).max()
        return self._kept if moved < STILL else None

    def still(self, pixels: np.ndarray, key: Any, settings: Settings) -> np.ndarray:
        """
        Return bool (h / CELL, w / CELL): where a picture looks as when its results were computed.

        False as well around what has moved, where that is longer ago than settings.refresh, where
        nothing is kept, and everywhere if the camera moves: a bare wall looks as it did before,
        but is nearer now.
        """
        cells = _cells(pixels)
        if not settings.reuse or self._seen is None or key != self._key:
            return np.zeros(cells.shape[:2], bool)
        moved = np.abs(cells - self._seen).mean(-1) >= STILL
        around = np.ones((2 * REACH + 1,) * 2, np.uint8)
        tells = (cv2.dilate(self._seen, around) - cv2.erode(self._seen, around)).max(-1) >= TELLS
        if (moved & tells).sum() > (1 - MOST) * tells.sum():
            return np.zeros(cells.shape[:2], bool)
        near = cv2.dilate(moved.astype(np.uint8), around)
        return (near == 0) & (self._since < settings.refresh)

    def due(self, still: np.ndarray, settings: Settings) -> bool:
        """Return whether the next frame should be better than the mean: most of it stays so."""
        if self.price is not None:
            return math.isnan(self.price)
        if not settings.reuse or self._seen is None:
            return False
        cells = still.size
        return bool(
            still.sum() >= MOST * cells
            and (still & (self._cost > _budget(settings) + BETTER)).sum() < MOST * cells)

    def stays(self, still: np.ndarray, achieved: float) -> np.ndarray:
        """Return the cells of `still` whose results are no worse than those of a frame's cost."""
        return still & (self._cost >= achieved - BETTER) if still.any() else still

    def keep(
            self, pixels: np.ndarray, key: Any, settings: Settings, result: Any,
            achieved: float = 0.0, stays: np.ndarray | None = None) -> None:
        """
        Keep the result of a computed frame for those that look like it.

        achieved: what it cost.  stays: bool cells where the result is that of an earlier frame.
        """
        self._age = 0
        if not settings.reuse:
            self.forget()
            return
        cells = _cells(pixels)
        seen, cost, since = cells, np.full(cells.shape[:2], achieved), np.zeros(cells.shape[:2])
        if stays is not None and stays.any():
            assert self._seen is not None
            seen = np.where(stays[..., None], self._seen, cells)
            cost, since = np.where(stays, self._cost, cost), np.where(stays, self._since, since)
        self._picture, self._key, self._kept = cells, key, result
        self._seen, self._cost, self._since = seen, cost, since


def _budget(settings: Settings) -> float:
    return 1.0 if settings.budget is None else settings.budget


def _cells(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return cv2.resize(
        pixels, (width // CELL, height // CELL), interpolation=cv2.INTER_AREA).astype(np.float32)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The frames of one camera in order: all that one of them leaves for the next, and nothing else does.

The ledger holds the mean: what a frame cost less than the budget is credit, and credit moves the
target of the next frames, and so the price that all of their gates pay.  It is bounded, and a
frame may spend no more than there is: over any two horizons the mean is at most TOLERANCE above
the budget, whatever comes.  What still frames save beyond that is saved.  The memory holds the
last computed result and what the picture looked like then: a picture that still looks like that
has the same result, and costs nothing.
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
    settings; None leaves both to the ledger.
    """

    def __init__(self, price: float | None = None) -> None:
        self.credit = 0.0
        self._bias = 0.0
        self.price = price
        self._recent: list[float] = []
        self._key: Any = None
        self._picture: np.ndarray | None = None
        self._kept: Any = None
        self._age = 0
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
        self._picture = self._kept = None

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

    def recall(self, pixels: np.ndarray, key: Any, settings: Settings) -> Any:
        """
        Return what was kept of the last computed frame, if this one looks the same; else None.

        pixels: uint8 (h, w, 3).  key: all that the result depends on beside the picture.
        """
        self._age += 1
        if (not settings.reuse or self._kept is None or key != self._key
                or self._age >= settings.refresh):
            return None
        assert self._picture is not None
        moved = np.abs(_cells(pixels) - self._picture).mean(-1).max()
        return self._kept if moved < STILL else None

    def keep(self, pixels: np.ndarray, key: Any, settings: Settings, result: Any) -> None:
        """Keep the result of a computed frame for those that look like it."""
        self._age = 0
        if settings.reuse:
            self._picture, self._key, self._kept = _cells(pixels), key, result
        else:
            self.forget()


def _budget(settings: Settings) -> float:
    return 1.0 if settings.budget is None else settings.budget


def _cells(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return cv2.resize(
        pixels, (width // CELL, height // CELL), interpolation=cv2.INTER_AREA).astype(np.float32)

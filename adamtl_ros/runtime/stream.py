# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The frames of one camera in order: all that one of them leaves for the next, and nothing else does.

The ledger holds the mean: what a frame cost less than the budget is credit, and credit moves the
target of the next frames, and so the price that all of their gates pay.  It is bounded, and a
frame may spend no more than there is: over any two horizons the mean is at most TOLERANCE above
the budget, whatever comes.  What still frames save beyond that is saved.

The memory holds the last computed result and its picture.  A picture that still looks like that
has the same result, and costs nothing.  Where it moved, its result follows the picture and the
camera, which costs next to nothing, until the ledger pays for a key frame: one that takes all that
the cap pays for.  So a stream does as long as that is expected to be better than to compute every
frame within the budget: what that loses the policy predicts, what warping loses the flow tells.

What decoders say of a computed frame is averaged with what they said before, brought here alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from adamtl_ros.runtime.motion import apart
from adamtl_ros.runtime.motion import cells
from adamtl_ros.runtime.motion import Flow
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.settings import Settings

STILL = 2.0
"""Mean difference, of 255, of a cell of the picture from which on something has moved in it."""

PROBE = 8
"""Frames after which it is seen again how they move, where warping did not pay."""

GAP_S = 1.0
"""Stamps that lie farther apart are of another scene."""

TOLERANCE = 0.02
"""How far the mean of two horizons may be above the budget, as a share of the dense cost."""

ROUNDING = 1e-6
"""Of sums of costs."""

FORGIVEN = 1e-3
"""What a frame may cost beyond the budget and owe nothing: the policy itself, beside all gates."""

GAIN = 15.0
"""
How much a frame of credit moves the target, of a horizon.

Its own mean moves it as well, so that none is left in the end: at GAIN / 2 squared the two of them
settle as fast as they can without swinging.
"""


@dataclass(frozen=True)
class Known:
    """
    What is known of the next frame, as it is computed again.

    price: what its gates paid, NaN for one that took all that its cap pays for; its cap is that of
    the settings.  reused, warped: whether its results are those of the last computed frame.
    fused: whether they are averaged with what was said of that.
    """

    price: float
    reused: bool = False
    warped: bool = False
    fused: bool = False


class Stream:
    """
    State of one camera's frames; give it to Engine.infer with every frame, in their order.

    known: of the next frame, where that is computed again; None leaves all to ledger and memory.
    """

    def __init__(self, known: Known | None = None) -> None:
        self.credit = 0.0
        self.known = known
        self._bias = 0.0
        self._recent: list[float] = []
        self._key: Any = None
        self._picture: np.ndarray | None = None
        self._kept: Any = None
        # Frames since the one that is kept, and whether that was a key frame.
        self._age, self._best = 0, False
        self._flow: Flow | None = None
        # Of the next frame, since the one that is kept; found once at most.
        self._motion: Motion | None = None
        # Whether the settings of the last frame had key frames at all; whether warping paid when
        # that was last seen, and how many computed frames ago it was.
        self._keyed = False
        self._follows = True
        self._probed = 0
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
        self._picture = self._kept = self._flow = self._motion = None

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
        if self.known is not None:
            return settings.cap
        budget = _budget(settings)
        left = self.credit + TOLERANCE * settings.horizon
        return min(budget + max(left, 0.0), settings.cap)

    def spend(self, achieved: float, settings: Settings, *, priced: bool = True) -> None:
        """Enter what a frame cost, a share of the dense cost, and whether a price led to it."""
        budget, bound = _budget(settings), TOLERANCE * settings.horizon
        saved = budget - achieved
        if -FORGIVEN <= saved < 0:
            saved = 0.0
        self.credit = min(max(self.credit + saved, -bound), bound)
        if priced:
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
        self._motion = None
        if not self._has(key, settings) or (self.known is not None and not self.known.reused):
            return None
        assert self._picture is not None
        if apart(cells(pixels), self._picture).max() >= STILL:
            return None
        self._follows = True
        # What stands still is worth a better look, when there is credit for it.
        better = self.known is None and self._keyed and not self._best and (
            self.credit + _budget(settings) >= settings.cap - ROUNDING)
        return None if better else self._kept

    def follow(
            self, pixels: np.ndarray, key: Any, settings: Settings,
            expected: Callable[[float], tuple[float, float]]
    ) -> tuple[tuple[Any, Motion] | None, bool]:
        """
        Return what was kept and the Motion since then, if the result is that, warped; else None.

        And whether a frame that is computed should be a key frame: take all that the cap pays for.
        expected: for the most that frames may cost, the cost of those that are best for it, and
        how much their errors rise, relative to those of the dense network.
        """
        if self.known is not None:
            if self.known.warped and self._flow is not None:
                return (self._kept, self._moved(pixels, self._flow)), False
            return None, math.isnan(self.known.price)
        budget = _budget(settings)
        (_, rise), (cost, least) = expected(budget), expected(settings.cap)
        # What the ledger can hold has to be enough for one.
        self._keyed = settings.reuse and settings.warp and least < rise and (
            budget + TOLERANCE * settings.horizon >= cost - ROUNDING)
        if not self._keyed:
            return None, False
        if not self._has(key, settings) or self._flow is None:
            # What moves is not known yet: the first frame is better taken well.
            return None, self._follows and self.limit(settings) >= cost - ROUNDING
        if not self._follows:
            self._probed += 1
            if self._probed < PROBE:
                return None, False
        elif self.credit + budget >= cost - ROUNDING:
            return None, True
        motion = self._moved(pixels, self._flow)
        # Errors rise with every frame, and a key frame comes every cost / budget frames.
        mean = motion.rise / self._age * (cost / budget - 1) / 2
        self._follows, self._probed = mean < rise - least, 0
        if not self._follows:
            return None, False
        if motion.rise <= rise - least:
            return (self._kept, motion), False
        # A frame that shows much that is new does not wait: the next ones will pay for it.
        return None, self.limit(settings) >= cost - ROUNDING

    def fused(
            self, pixels: np.ndarray, key: Any, settings: Settings) -> tuple[Any, Motion] | None:
        """Return what was kept and the Motion since then, to average a computed frame with it."""
        wanted = settings.fuse if self.known is None else self.known.fused
        if not (wanted and settings.reuse) or self._flow is None or key != self._key:
            return None
        return self._kept, self._moved(pixels, self._flow)

    def keep(
            self, pixels: np.ndarray, key: Any, settings: Settings, result: Any, *,
            best: bool = False) -> None:
        """
        Keep the result of a computed frame for those that look like it, or moved since.

        best: whether it took all that the cap pays for.
        """
        self._age, self._best = 0, best
        if not settings.reuse:
            self.forget()
            return
        self._picture, self._key, self._kept = cells(pixels), key, result
        # Without key frames nothing is warped.
        self._flow = Flow(pixels) if (
            settings.fuse or self._keyed or self.known is not None) else None

    def _moved(self, pixels: np.ndarray, flow: Flow) -> Motion:
        if self._motion is None:
            self._motion = flow.to(pixels, self._age)
        return self._motion

    def _has(self, key: Any, settings: Settings) -> bool:
        """Return whether something is kept that this frame may have."""
        return (settings.reuse and self._kept is not None and key == self._key
                and self._age < settings.refresh)


def _budget(settings: Settings) -> float:
    return 1.0 if settings.budget is None else settings.budget

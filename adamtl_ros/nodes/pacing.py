# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which frames to take, and with how much budget: the rate limit and the latency controller."""

GAIN = 0.3
"""Share of the relative latency error by which the budget moves each frame."""

LARGEST_STEP = 0.15
"""Largest relative move of the budget in a frame: one slow frame must not empty the pictures."""


class RateLimiter:
    """
    Lets through at most `rate` frames a second on average.

    One frame of slack keeps the jitter of a camera that runs at the rate from costing frames.
    """

    def __init__(self) -> None:
        """Let the first frame through."""
        self._due = 0.0

    def accepts(self, now: float, rate: float) -> bool:
        """Return whether the frame of time `now` (s) may pass at `rate` Hz (0: no limit)."""
        if rate <= 0.0:
            self._due = now
            return True
        # A due time left by a slower rate must not hold frames back at the new one.
        self._due = min(self._due, now + 1.0 / rate)
        if now < self._due:
            return False
        # Counting from the due time, not from now, keeps the average; a pause earns one frame.
        self._due = max(self._due + 1.0 / rate, now)
        return True


def next_budget(budget: float, latency_ms: float, target_ms: float, lowest: float) -> float:
    """
    Return the budget in [lowest, 1] for the next frame, to bring the latency to its target.

    An integral controller in the logarithm: the latency of a frame grows less than
    proportionally with its budget, so a gain below 1 converges without swinging. It depends on
    nothing but its arguments.
    """
    error = GAIN * (target_ms - latency_ms) / target_ms
    step = min(max(error, -LARGEST_STEP), LARGEST_STEP)
    return min(max(budget * (1.0 + step), lowest), 1.0)

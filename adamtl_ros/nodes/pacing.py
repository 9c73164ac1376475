# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which frames to take: the rate limit."""

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

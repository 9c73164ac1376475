# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The rate limit and the latency controller, on clocks and networks that are only arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from adamtl_ros.nodes.pacing import RateLimiter


@given(rate=st.floats(1.0, 100.0), camera=st.floats(1.0, 200.0),
       jitter=st.lists(st.floats(-0.2, 0.2), min_size=50, max_size=200))
def test_no_more_frames_than_the_rate_and_no_fewer_than_can_be(rate, camera, jitter):
    times = [10.0 + (number + part) / camera for number, part in enumerate(jitter)]
    limiter = RateLimiter()
    passed = sum(limiter.accepts(time, rate) for time in times)
    span = times[-1] - times[0]
    assert passed <= span * rate + 2
    if camera <= rate:  # every frame but those that jitter brings too early
        assert passed >= len(times) - 1
    else:
        # Whole periods of the camera at worst: 30 Hz limited to 20 Hz may give 15.
        assert passed >= span / (1 / rate + 1.4 / camera) - 1


def test_no_limit_and_a_raised_limit():
    limiter = RateLimiter()
    assert all(limiter.accepts(time / 1000, 0.0) for time in range(50))
    assert limiter.accepts(1.0, 0.1)
    assert not limiter.accepts(1.2, 0.1)
    assert not limiter.accepts(1.4, 100.0)
    assert limiter.accepts(1.42, 100.0)

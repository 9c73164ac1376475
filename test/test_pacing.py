# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The rate limit and the latency controller, on clocks and networks that are only arithmetic."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from adamtl_ros.nodes.pacing import next_budget
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


@pytest.mark.parametrize(('fixed', 'full', 'target', 'budget'), [
    (10.0, 60.0, 40.0, 0.5),
    (0.0, 50.0, 40.0, 0.8),
    (10.0, 60.0, 500.0, 1.0),  # more time than it takes: all of the budget
    (10.0, 60.0, 5.0, 0.3),  # less than it can: the lowest
])
def test_the_budget_brings_the_latency_to_its_target(fixed, full, target, budget):
    now = 1.0
    for _ in range(100):
        now = next_budget(now, fixed + full * now, target, 0.3)
        assert 0.3 <= now <= 1.0
    assert now == pytest.approx(budget, rel=0.01)


@given(budget=st.floats(0.3, 1.0), latency=st.floats(0.0, 1e6), target=st.floats(0.1, 1e4))
def test_the_budget_moves_the_right_way_and_not_far(budget, latency, target):
    after = next_budget(budget, latency, target, 0.3)
    assert 0.3 <= after <= 1.0
    assert abs(after / budget - 1) <= 0.1500001
    assert (after - budget) * (target - latency) >= 0

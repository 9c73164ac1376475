# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The rules of the diagnostics, and the figures they come with."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402

from adamtl_ros.nodes.diagnostics import Report  # noqa: E402
from adamtl_ros.nodes.diagnostics import resident_mb  # noqa: E402
from adamtl_ros.nodes.slot import Counts  # noqa: E402

GOOD = Report(
    state='active', counts=Counts(30, {'replaced': 10}), before=Counts(10, {'replaced': 4}),
    seconds=2.0, topic='/image', latencies=tuple(range(1, 101)), beside=(1.0, 2.0, 3.0),
    figures={'mode': 'static', 'budget achieved': float('nan')})
IDLE = replace(GOOD, before=GOOD.counts, latencies=(), beside=())


@pytest.mark.parametrize(('report', 'level', 'words'), [
    (GOOD, 'OK', '10.0 frames/s'),
    (replace(GOOD, state='inactive'), 'OK', 'inactive'),
    (replace(IDLE, state='unconfigured', silent=99.0), 'OK', 'unconfigured'),
    (replace(IDLE, working=3.0, silent=3.0), 'OK', '0.0 frames/s'),
    (replace(GOOD, warnings=('guard: a', 'b')), 'WARN', 'guard: a; b'),
    (replace(IDLE, silent=2.0), 'WARN', 'no frames on /image'),
    (replace(GOOD, enabled=False), 'WARN', 'disabled'),
    (replace(IDLE, silent=6.0), 'STALE', 'no frames on /image for 6 s'),
    (replace(IDLE, silent=6.0, enabled=False), 'STALE', 'no frames'),
    (replace(IDLE, silent=6.0, working=6.0), 'ERROR', 'in work for 6 s'),
    (replace(GOOD, counts=Counts(30, {'encoding': 2}), last_error='hsv8'), 'ERROR',
     '2 frames dropped: hsv8'),
    (replace(GOOD, state='unconfigured', failure='cannot configure: x'), 'ERROR',
     'cannot configure: x'),
])
def test_levels(report, level, words):
    got, text = report.level()
    assert got == getattr(DiagnosticStatus, level)
    assert words in text


def test_figures():
    values = replace(GOOD, last_error='none').values()
    assert values['frames received'] == '40'
    assert values['frames processed'] == '30'
    assert values['frames dropped'] == values['dropped: replaced'] == '10'
    assert values['input rate (Hz)'] == '13'
    assert values['output rate (Hz)'] == '10'
    assert float(values['latency p50 (ms)']) == 50.5
    assert float(values['latency p95 (ms)']) == pytest.approx(95.05)
    assert float(values['latency p99 (ms)']) == pytest.approx(99.01)
    assert float(values['latency max (ms)']) == 100
    assert values['received to published without network, median (ms)'] == '2'
    assert values['budget achieved'] == 'unknown'
    assert values['last error'] == 'none'
    assert 'latency p50 (ms)' not in IDLE.values()


def test_memory_is_that_of_the_process():
    memory = resident_mb()
    if memory is None:
        pytest.skip('the system does not say')
    block = np.ones(50_000_000, dtype=np.uint8)
    assert 40 < resident_mb() - memory < 80, len(block)
    assert resident_mb(2**30) is None

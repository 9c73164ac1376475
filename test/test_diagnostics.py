# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The rules of the diagnostics, and the figures they come with."""

from dataclasses import replace
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402

from adamtl_ros.nodes.diagnostics import History  # noqa: E402
from adamtl_ros.nodes.diagnostics import Report  # noqa: E402
from adamtl_ros.nodes.diagnostics import resident_mb  # noqa: E402
from adamtl_ros.nodes.diagnostics import span  # noqa: E402
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
    (replace(IDLE, silent=2.0, silence='nobody publishes it'), 'WARN', '/image: nobody publishes'),
    (replace(GOOD, enabled=False), 'WARN', 'disabled'),
    (replace(IDLE, silent=6.0), 'STALE', 'no frames on /image for 6 s'),
    (replace(IDLE, silent=6.0, silence='another type'), 'STALE', 'for 6 s: another type'),
    # A camera that sends a frame every two seconds is slow, and not silent.
    (replace(IDLE, silent=4.9, period=2.0), 'OK', 'frames/s'),
    (replace(IDLE, silent=5.5, period=2.0), 'WARN', 'no frames'),
    (replace(IDLE, silent=11.0, period=2.0), 'STALE', 'for 11 s'),
    (replace(IDLE, silent=61.0, period=3600.0), 'STALE', 'for 61 s'),
    (replace(GOOD, lost=270, sent=300, remedy='do this'), 'WARN',
     '270 of the last 300 frames on /image never came: do this'),
    (replace(GOOD, lost=1, sent=3), 'OK', 'frames/s'),
    (replace(GOOD, lost=7, sent=150), 'OK', 'frames/s'),
    (replace(GOOD, lost=8, sent=150), 'WARN', '8 of the last 150'),
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


def test_rates_are_of_a_span_that_fits_the_camera():
    history = History(0.0, Counts())
    for second in range(1, 60):
        history.add(second + 0.01, Counts(processed=second // 2))
    for period, seconds, frames in ((1 / 15, 1, 1), (2.0, 6, 3), (100.0, 36, 18)):
        when, before = history.before(60.0, span(period))
        assert 60.0 - when == pytest.approx(seconds, abs=0.1)
        assert 30 - before.processed == frames
    assert history.before(60.0, 1000.0)[0] >= 10.0  # it does not grow for ever


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
    lossy = replace(GOOD, counts=replace(GOOD.counts, missed=5)).values()
    assert lossy['frames missed'] == '5'
    assert lossy['frames received'] == '40'
    assert lossy['input rate (Hz)'] == '13'
    assert 'latency p50 (ms)' not in IDLE.values()


def test_memory_is_that_of_the_process():
    if resident_mb() is None:
        pytest.skip('the system does not say')
    # In a process of its own: what others give back meanwhile does not count.
    code = """
from adamtl_ros.nodes.diagnostics import resident_mb
import numpy as np
before = resident_mb()
block = np.ones(50_000_000, dtype=np.uint8)
print(resident_mb() - before)
"""
    grown = float(subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
    assert 40 < grown < 80
    assert resident_mb(2**30) is None

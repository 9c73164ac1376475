# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames that come to the node: each is answered or dropped, and counted once."""

from array import array
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy import utilities  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from adamtl_ros.nodes.diagnostics import UNKNOWN  # noqa: E402
from adamtl_ros.nodes.inputs import DEPTH  # noqa: E402
from instant import InstantEngine  # noqa: E402
from ros_graph import picture  # noqa: E402
from ros_graph import SUCCESS  # noqa: E402
from ros_graph import WAIT  # noqa: E402


class SlowEngine(InstantEngine):
    """Holds every frame until it is let go."""

    working = Event()
    go = Event()

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None) -> Any:
        """Say that a frame is in work, and wait."""
        self.working.set()
        assert self.go.wait(WAIT)
        self.go.clear()
        return super().infer(image, settings, camera, stream)


@pytest.fixture(autouse=True)
def _fresh_events() -> None:
    SlowEngine.working.clear()
    SlowEngine.go.clear()


def test_frames_are_processed_or_dropped_with_their_cause(stage):
    node = stage.running(SlowEngine)
    stats, _ = stage.listen('gating_stats', 'depth')
    first = stage.send()
    stage.until(SlowEngine.working.is_set)
    for number in range(4):  # while the first is in work: each replaces the one before
        waiting = stage.send()
        stage.taken(stage.camera)
        assert node.counts.dropped == number
    assert stage.drops() == {'replaced': 3}
    SlowEngine.working.clear()
    SlowEngine.go.set()
    stage.until(SlowEngine.working.is_set)
    SlowEngine.go.set()
    stage.until(lambda: len(stats) == 2)
    assert [each.header for each in stats] == [first.header, waiting.header]
    assert (stats[-1].frames_received, stats[-1].frames_processed) == (5, 2)
    for each in stats:
        assert each.frames_received == each.frames_processed + each.frames_dropped

    # One in work is finished, one that waits is dropped, when the node is deactivated.
    SlowEngine.working.clear()
    last = stage.send()
    stage.until(SlowEngine.working.is_set)
    stage.send()
    stage.taken(stage.camera)
    SlowEngine.go.set()
    assert node.trigger_deactivate() == SUCCESS
    stage.until(lambda: len(stats) == 3)
    assert stats[-1].header == last.header
    assert stage.drops() == {'replaced': 3, 'shutdown': 1}


def test_frames_that_were_overwritten_on_the_way_are_counted(stage):
    stage.running()
    stage.listen('gating_stats')
    stage.answer()
    sent = [stage.send() for _ in range(DEPTH + 3)]  # none is taken in between
    stage.until(lambda: stage.got['gating_stats'][-1].header == sent[-1].header)
    counts = stage.got['gating_stats'][-1]
    assert counts.frames_missed == 3
    assert counts.frames_received == counts.frames_processed + counts.frames_dropped == DEPTH + 1
    assert stage.drops().keys() <= {'replaced'}
    assert stage.values()['frames missed'] == '3'


def test_what_a_middleware_does_not_tell_is_not_counted(stage, monkeypatch, capfd):
    """One line says what does not hold over it."""
    monkeypatch.setattr(
        utilities, 'get_rmw_implementation_identifier', lambda: 'rmw_cyclonedds_cpp')
    node = stage.running()
    stage.listen('gating_stats')
    stage.answer()
    sent = [stage.send() for _ in range(DEPTH + 3)]
    stage.until(lambda: stage.got['gating_stats'][-1].header == sent[-1].header)
    counts = stage.got['gating_stats'][-1]
    assert counts.frames_missed == 0
    assert counts.frames_received == counts.frames_processed + counts.frames_dropped == DEPTH + 1
    assert stage.values()['frames missed'] == UNKNOWN
    assert 'never came' not in stage.reports[-1].message
    assert node.trigger_deactivate() == SUCCESS
    said = capfd.readouterr().err
    assert said.count('rmw_cyclonedds_cpp') == 1
    assert 'never came' not in said
    assert 'FASTDDS' not in node._inputs.loss()


def test_bad_frames_are_dropped_and_the_next_ones_answered(stage, capfd):
    node = stage.running()
    stage.listen('depth')
    for number, (cause, frame) in enumerate([
            ('encoding', {'encoding': 'hsv8'}),
            ('encoding', {'encoding': '16UC1'}),
            ('step', {'step': 191}),
            ('data', {'data': array('B', bytes(48 * 192 - 1))}),
            ('data', {'data': array('B')}),
            ('size', {'width': 0}),
            ('size', {'height': 0})], 1):
        before = node.counts.dropped_by_cause.get(cause, 0)
        stage.send(picture(**frame))
        stage.until(lambda number=number: node.counts.dropped == number)
        assert node.counts.dropped_by_cause[cause] == before + 1
        stage.answer('depth')
        assert len(stage.got['depth']) == number
    assert stage.drops() == {'encoding': 2, 'step': 1, 'data': 2, 'size': 2}
    log = capfd.readouterr().err
    assert [log.count(f'frame dropped ({cause})')
            for cause in ('encoding', 'step', 'data', 'size')] == [1, 1, 1, 1]


def test_many_bad_frames_do_not_flood_the_log(stage, capfd):
    node = stage.running()
    stage.listen('depth')
    for number in range(1, 6):
        stage.send(picture(encoding='hsv8'))
        stage.until(lambda number=number: node.counts.dropped == number)
    report = stage.report(DiagnosticStatus.ERROR)
    assert capfd.readouterr().err.count('frame dropped') == 1
    assert "'hsv8'" in {each.key: each.value for each in report.values}['last error']


def test_an_engine_that_fails_costs_one_frame(stage):
    class FailingEngine(InstantEngine):
        def infer(self, image, settings, camera=None, stream=None):
            if image.shape[:2] == (20, 20):
                raise RuntimeError('out of memory')
            return super().infer(image, settings, camera, stream)

    stage.running(FailingEngine)
    stage.listen('depth')
    stage.send(picture(width=20, height=20))
    stage.until(lambda: stage.drops() == {'error': 1})
    stage.answer('depth')


def test_enabling_and_resetting_by_service(stage):
    node = stage.running()
    stage.listen('gating_stats')
    assert stage.call(SetBool, 'adamtl/enable', SetBool.Request(data=False)).success
    stage.send()
    stage.until(lambda: node.counts.dropped == 1)
    assert stage.drops() == {'disabled': 1}
    assert stage.call(SetBool, 'adamtl/enable', SetBool.Request(data=True)).success
    assert stage.answer().frames_received == 2
    assert stage.call(Trigger, 'adamtl/reset_statistics', Trigger.Request()).success
    assert stage.drops() == {}
    assert stage.answer().frames_received == 1


def test_frames_beyond_the_rate_are_dropped(stage):
    node = stage.running(max_rate_hz=0.01)
    stage.listen('gating_stats')
    for number in range(1, 5):
        stage.send()
        stage.taken(stage.camera)
        stage.until(lambda sent=number: node.counts.received == sent)
    counts = node.counts
    assert counts.dropped_by_cause['rate'] == counts.dropped >= 2

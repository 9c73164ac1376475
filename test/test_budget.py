# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node spends on frames: budgets, streams, a latency target, and the roll-out."""

from array import array
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.time import Time  # noqa: E402

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from ros_graph import picture  # noqa: E402

pytestmark = pytest.mark.slow


def test_static_asks_for_all(stage):
    node = stage.running(budget=0.5)
    stage.listen('gating_stats', 'depth')
    assert stage.answer().budget_requested == 1.0
    assert stage.values()['budget requested'] == '1'
    node.set_parameters([Parameter('mode', value='adaptive')])
    assert stage.answer().budget_requested == 0.5
    assert stage.values()['budget requested'] == '0.5'


def test_a_latency_that_cannot_be_met_takes_the_lowest_budget(bench):
    node = bench.running(mode='adaptive', target_latency_ms=10000.0, min_budget=0.4)
    bench.listen('gating_stats', 'depth')
    for target, budget in ((10000.0, 1.0), (0.001, 0.4)):
        assert bench.set(node, target_latency_ms=target).successful
        for _ in range(3):
            assert bench.answer().budget_requested == pytest.approx(budget)


def test_the_controller_stays_below_the_budget(bench):
    node = bench.running(mode='adaptive', target_latency_ms=10000.0, budget=0.6)
    bench.listen('gating_stats', 'depth')
    for budget in (0.6, 0.9, 0.4):  # such as a battery monitor sets
        assert bench.set(node, budget=budget).successful
        for _ in range(6):
            stats = bench.answer()
            assert stats.budget_achieved <= stats.budget_cap + 1e-6
        # A deadline is one of every frame.
        assert (stats.budget_requested, stats.budget_cap) == pytest.approx((budget, budget))


def test_a_frame_that_stands_still_is_reused_with_its_own_header(bench, capfd):
    node = bench.running(mode='adaptive', budget=0.6, budget_cap=0.6, refresh=4)
    stats, depth = bench.listen('gating_stats', 'depth')

    def answer(seconds, camera='camera', shade=0):
        number, message = len(stats), picture()
        message.data = array('B', bytes(np.frombuffer(message.data, np.uint8) // 2 + shade))
        message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
        message.header.frame_id = camera
        bench.met(bench.camera).publish(message)
        bench.until(lambda: len(stats) > number and len(depth) > number)
        assert stats[-1].header == depth[-1].header == message.header
        return stats[-1]

    first = answer(10.0)
    assert not first.reused and first.budget_achieved > 0 and first.price >= 0.0
    assert first.budget_cap == pytest.approx(0.6)
    for number in (1, 2, 3):
        still = answer(10.0 + number / 10)
        assert still.reused and still.budget_achieved == still.gmacs == 0.0
        assert np.isnan(still.price)
        assert bytes(depth[-1].data) == bytes(depth[0].data)
    assert still.budget_mean == pytest.approx(first.budget_achieved / 4)
    values = bench.values()
    assert float(values['budget mean']) == pytest.approx(still.budget_mean, rel=1e-3)
    assert 0.0 <= float(values['share of frames reused']) <= 1.0
    assert not answer(10.4).reused  # it is due
    assert not answer(10.5, shade=40).reused  # it looks different
    assert answer(10.6, shade=40).reused
    assert 'whatever it looks like' not in capfd.readouterr().err
    # What breaks the stream; it is told once a minute.
    for seconds, camera in ((10.6, 'camera'), (10.5, 'camera'), (10.6, 'other'), (13.0, 'other')):
        assert not answer(seconds, camera=camera, shade=40).reused
        assert answer(seconds + 0.05, camera=camera, shade=40).reused
    assert capfd.readouterr().err.count('a stamp of 10.600 s follows one of 10.600 s') == 1
    assert bench.set(node, reuse=False).successful
    assert not answer(13.2, camera='other', shade=40).reused
    # The dense network knows no stream.
    assert bench.set(node, mode='static').successful
    dense = answer(13.3, camera='other', shade=40)
    assert (dense.reused, dense.budget_cap, dense.budget_achieved) == (False, 1.0, 1.0)
    assert np.isnan(dense.price) and np.isnan(dense.budget_mean)


def test_budget_and_cap_are_raised_in_order(stage):
    node = stage.running(mode='adaptive', budget=0.4, budget_cap=0.5)
    result = stage.set(node, budget=0.7)
    assert not result.successful
    assert 'budget is 0.7 and budget_cap 0.5' in result.reason
    assert stage.set(node, budget_cap=0.8).successful
    assert stage.set(node, budget=0.7).successful
    assert stage.set(node, budget=0.9, budget_cap=1.0).successful
    settings = node._options.settings
    assert (settings.budget, settings.cap, settings.horizon, settings.refresh) == (
        0.9, 1.0, 50, 30)


class DisagreeingEngine(Engine):
    """Finds that the policy agrees with the dense network on half of the pixels."""

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None) -> Any:
        """Replace the agreement, where it was compared."""
        result = super().infer(image, settings, camera, stream)
        agreed = dict.fromkeys(result.stats.task_agreement, 0.5)
        return replace(result, stats=replace(result.stats, task_agreement=agreed))


def test_shadow_compares_the_share_of_frames_and_publishes_dense_results(bench):
    node = bench.running(mode='shadow', budget=0.4, budget_cap=0.4, compare_share=0.25)
    stats, depth, _, gates = bench.listen('gating_stats', 'depth', 'semseg', 'gating_map')
    for _ in range(8):
        bench.answer('gating_stats', 'depth')
    assert stats[-1].frames_dropped == 0
    # A picture of what the policy would have run, where it was asked.
    assert len(gates) == 2
    compared = [not np.isnan(each.agreement) for each in stats]
    assert compared == [True, False, False, False] * 2
    for each, policy_ran in zip(stats, compared):
        assert np.isnan(each.budget_achieved) != policy_ran
        # Below the size of the dense network, which costs more than the budget.
        assert 0 < each.input_width * each.input_height < 256 * 192 if policy_ran else (
            (each.input_width, each.input_height) == (0, 0))
        assert [task.name for task in each.task_stats] == ['semseg', 'depth']
        for task in each.task_stats:
            assert np.isnan(task.agreement) == np.isnan(task.token_fraction) != policy_ran
    assert stats[0].agreement == pytest.approx(
        np.mean([task.agreement for task in stats[0].task_stats]))
    # The would-be saving is reported; what is published is what mode static gives.
    values = bench.values()
    assert float(values['share of MACs that the policy would have saved']) == pytest.approx(
        1 - stats[0].budget_achieved, abs=0.01)
    assert float(values['budget achieved']) == pytest.approx(stats[4].budget_achieved, rel=1e-3)
    assert {'agreement: depth', 'agreement: semseg'} < values.keys()
    assert bench.set(node, mode='static').successful
    bench.answer('gating_stats', 'depth')
    assert len(depth) == 9
    assert len({bytes(each.data) for each in depth}) == 1  # all frames look the same
    assert 'agreement: depth' not in bench.values()


def test_the_guard_raises_the_budget_and_says_so(bench, capfd):
    node = bench.running(
        DisagreeingEngine, mode='adaptive', budget=0.8, compare_share=0.5,
        guard__action='raise_budget', guard__window=2)
    stats, _ = bench.listen('gating_stats', 'depth')

    def send(frames):
        for _ in range(frames):
            bench.answer()

    send(4)
    assert [each.budget_requested for each in stats] == pytest.approx([0.8, 0.8, 0.8, 0.9])
    assert [each.guard for each in stats] == [
        'watching', 'watching', 'raised_budget', 'raised_budget']
    assert [each.task_stats[-1].agreement for each in stats] == pytest.approx(
        [0.5, np.nan, 0.5, np.nan], nan_ok=True)
    values = bench.values()
    assert 'budget raised to 0.9' in values['guard']
    assert (values['budget requested'], values['budget set by']) == ('0.9', 'guard')
    send(8)
    assert [each.mode for each in stats[-5:]] == ['adaptive'] * 4 + ['static']
    assert stats[-1].guard == GatingStats.GUARD_STATIC
    bench.report(DiagnosticStatus.WARN)
    send(1)
    values = bench.values()
    assert 'returned to mode static: agreement of depth is 0.500' in values['guard']
    assert capfd.readouterr().err.count('guard: ') == 3
    # It stays so until somebody who knows better says otherwise.
    assert bench.set(node, budget=0.7).successful
    send(1)
    assert stats[-1].mode == 'static'
    assert bench.set(node, guard__action='off', mode='adaptive').successful
    send(1)
    assert (stats[-1].mode, stats[-1].budget_requested) == ('adaptive', pytest.approx(0.7))

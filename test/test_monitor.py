# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself."""


import weakref

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from adamtl_ros.nodes.lifecycle import AdamtlNode  # noqa: E402
from instant import InstantEngine  # noqa: E402
from ros_graph import FAILURE  # noqa: E402
from ros_graph import Stage  # noqa: E402


def test_the_report_of_a_node_that_runs(bench):
    bench.running(mode='adaptive', budget=0.5)
    bench.listen('gating_stats', 'depth')
    bench.report(DiagnosticStatus.WARN, 'no frames on /image')
    bench.answer()
    status = bench.report(DiagnosticStatus.OK)
    assert status.name == 'adamtl: inference'
    values = {each.key: each.value for each in status.values}
    assert values['frames processed'] == '1'
    assert values['budget requested'] == '0.5'
    assert values['device'] == 'cpu'
    assert status.hardware_id == 'camera'
    assert values['mode'] == 'adaptive'
    assert float(values['latency max (ms)']) >= float(values['latency p50 (ms)']) > 0
    assert float(values['memory (MB)']) > 0
    assert 'guard' in values
    assert float(values['received to published without network, median (ms)']) > 0


def test_a_failure_to_configure_is_in_the_diagnostics(bench):
    node = bench.node(backend='tvm')
    assert node.trigger_configure() == FAILURE
    report = bench.report(DiagnosticStatus.ERROR, 'cannot configure')
    assert 'tvm' in report.message
    assert bench.values()['state'] == 'unconfigured'


def test_another_node_of_that_name_is_told(stage, capfd):
    stage.running()
    stage.send()
    stage.add(AdamtlNode(engine_class=InstantEngine), spun=False)
    for _ in range(3):
        stage.until(lambda: 'another node is named /adamtl' in [stage.send(), stage.report(
            DiagnosticStatus.WARN, '')][1].message)
    assert capfd.readouterr().err.count('another node is named /adamtl') == 1


def test_the_camera_names_the_hardware(stage):
    node = stage.running()
    stage.listen('depth')
    stage.answer('depth')
    assert stage.report(DiagnosticStatus.OK, 'frames/s').hardware_id == 'camera'
    node.set_parameters([Parameter('hardware_id', value='front')])
    stage.until(lambda: [stage.send(), stage.report(DiagnosticStatus.OK, '')][
        1].hardware_id == 'front')


def test_a_listener_of_what_is_turned_off_is_told(stage, capfd):
    node = stage.running(tasks__depth__enable=False)
    stage.listen('depth')
    words = '~/depth has a listener, and tasks.depth.enable is false'
    stage.until(lambda: [
        stage.send(), stage.report(DiagnosticStatus.WARN, '')][1].message == words)
    node.set_parameters([Parameter('tasks.depth.enable', value=True)])
    stage.until(lambda: [stage.send(), stage.report(DiagnosticStatus.OK, '')])
    assert capfd.readouterr().err.count(words) == 1


def test_a_budget_below_the_least_is_said_once(stage, capfd):
    node = stage.running(mode='adaptive', budget=0.05)
    for number in range(3):
        node.set_parameters([Parameter('max_rate_hz', value=float(number))])
    assert capfd.readouterr().err.count('budget 0.05 is below the least') == 1


def test_a_graph_that_is_closed_leaves_no_node_behind():
    """Its services would answer for those of the next test's node of that name."""
    stage = Stage()
    node = weakref.ref(stage.running())
    stage.send()
    stage.close()
    assert node() is None

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a node says and does where something that it was started with cannot be."""

from array import array

import pytest

rclpy = pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.nodes.lifecycle import AdamtlNode  # noqa: E402
from adamtl_ros.nodes.parameters import unmatched  # noqa: E402
from ros_graph import Stage  # noqa: E402

SUCCESS = TransitionCallbackReturn.SUCCESS


def configured(stage: Stage, **values: str) -> AdamtlNode:
    """Return a node with these parameters, configured."""
    node = stage.node(**values)
    assert node.trigger_configure() == SUCCESS
    return node


def test_why_activating_failed_is_kept_until_it_is_cleaned_up(stage, capfd):
    node = configured(stage, **{'qos_overrides./image.subscription.reliability': 'nonsense'})
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    for _ in range(2):
        node._diagnose()
        assert node._monitor.failure.startswith('cannot activate: ')
        assert 'nonsense' in node._monitor.failure
    assert node._stuck is None
    assert 'was not finished' not in capfd.readouterr().err
    assert node.trigger_cleanup() == SUCCESS
    assert node._monitor.failure == ''


def test_an_override_of_a_topic_that_comes_later_ends_no_node(stage, capfd):
    # No other camera is there.
    stage.client.destroy_publisher(stage.camera)
    node = configured(
        stage, **{'qos_overrides./image/compressed.subscription.reliability': 'nonsense'})
    assert node.trigger_activate() == SUCCESS
    camera = stage.client.create_publisher(CompressedImage, 'image/compressed', 1)
    stage.until(lambda: 'nonsense' in node._inputs.silence())
    node._inputs.look()
    assert capfd.readouterr().err.count('cannot listen to what is published') == 1
    stage.client.destroy_publisher(camera)
    raw = stage.client.create_publisher(Image, 'image', 1)
    stage.until(raw.get_subscription_count)
    message = Image(encoding='rgb8', width=4, height=4, step=12, data=array('B', bytes(48)))

    def answered() -> bool:
        raw.publish(message)
        return bool(node.counts.processed)

    stage.until(answered)
    assert 'nonsense' not in node._inputs.silence()


@pytest.mark.parametrize(('text', 'said'), [
    ('/**:\n  ros__parameters: {hardware_id: 2024-99-99}', False),
    ('/a:\n  ros__parameters: {}\n---\n/b:\n  ros__parameters: {}', True),
    ('/a:\n  ros__parameters: {}\n---\n/adamtl:\n  ros__parameters: {}', False),
    ('/**:\n  ros__parameters: {hardware_id: !head left}', False),
    ('/**: [', False)])
def test_a_file_that_ros_has_read_is_never_a_reason_to_end(text, said, tmp_path):
    path = tmp_path / 'parameters.yaml'
    path.write_text(text)
    words = unmatched(path, '/adamtl')
    assert bool(words) == said
    assert not said or 'has parameters of /a, /b and none of /adamtl' in words

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a frame, and for whom."""

from array import array
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from rclpy.duration import Duration  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.nodes import worker  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from ros_graph import picture  # noqa: E402
from ros_graph import WAIT  # noqa: E402

pytestmark = pytest.mark.slow


def test_all_topics_answer_with_the_header_of_the_frame(bench):
    bench.running()
    names = [*TASKS, 'semseg/confidence', 'gating_map', 'overlay', 'camera_info', 'gating_stats']
    bench.listen(*names)
    info = bench.client.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1))
    bench.met(info).publish(bench.header(CameraInfo(
        width=64, height=48, k=[50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0])))
    bench.taken(info)
    for _ in range(3):
        bench.answer(*names)
    assert {len(bench.got[name]) for name in names} == {3}

    encodings = {'semseg/confidence': 'mono8', 'gating_map': 'mono8', 'overlay': 'rgb8'} | {
        task: TASKS[task].encoding for task in TASKS}
    for name, encoding in encodings.items():
        image = bench.got[name][-1]
        size = (64, 48) if name == 'overlay' else (256, 192)
        assert (image.encoding, image.width, image.height) == (encoding, *size)
        assert len(image.data) == image.step * image.height
    floats = {task: np.frombuffer(bench.got[task][-1].data, np.float32)
              for task in ('saliency', 'edges', 'normals', 'depth')}
    assert floats['saliency'].min() >= 0
    assert floats['saliency'].max() <= 1
    assert floats['depth'].min() > 0
    lengths = np.linalg.norm(floats['normals'].reshape(-1, 3), axis=1)
    assert np.allclose(lengths[np.isfinite(lengths)], 1, atol=1e-4)

    scaled = bench.got['camera_info'][-1]
    assert (scaled.width, scaled.height) == (256, 192)
    assert scaled.k.tolist() == pytest.approx([200, 0, 128, 0, 200, 96, 0, 0, 1])
    stats = bench.got['gating_stats'][-1]
    assert [each.name for each in stats.task_stats] == list(TASKS)
    assert stats.mode == 'static'
    assert stats.budget_achieved == pytest.approx(1.0)
    assert 0 < stats.gmacs == pytest.approx(stats.gmacs_dense)
    assert stats.latency_ms >= stats.preprocess_ms + stats.network_ms + stats.postprocess_ms
    assert len(stats.block_active) == len(stats.token_fraction) > 0
    assert np.isnan(stats.agreement)
    assert (stats.input_width, stats.input_height) == (256, 192)
    assert stats.guard == GatingStats.GUARD_OFF
    assert [(each.frames_received, each.frames_processed, each.frames_dropped)
            for each in bench.got['gating_stats']] == [(1, 1, 0), (2, 2, 0), (3, 3, 0)]


def test_the_age_of_a_frame_is_that_of_its_stamp(stage):
    stage.running()
    stats, _ = stage.listen('gating_stats', 'depth')
    now = stage.client.get_clock().now()
    # Just taken, without a stamp, and by clocks that are ahead or of another time.
    for number, stamp in enumerate((now, Time(), now + Duration(seconds=3600), Time(seconds=5))):
        message = picture()
        message.header.stamp = stamp.to_msg()
        stage.camera.publish(message)
        stage.until(lambda number=number: len(stats) > number)
    assert stats[0].latency_ms <= stats[0].age_ms <= 1000 * WAIT
    assert all(np.isnan(each.age_ms) for each in stats[1:])


def test_the_results_are_those_of_the_engine(bench, weights):
    node = bench.running()
    bench.listen('depth')
    message = picture()
    depth = bench.answer('depth', message=message)
    rgb = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)
    expected = Engine(weights).infer(rgb, node._options.settings).outputs['depth']
    got = np.frombuffer(depth.data, np.float32).reshape(expected.shape)
    assert got == pytest.approx(expected, rel=1e-5)


def test_results_at_the_size_of_the_camera(bench):
    bench.running(output_size='camera')
    bench.listen('semseg', 'normals')
    semseg, normals = bench.answer('semseg', 'normals')
    assert (semseg.width, semseg.height) == (64, 48)
    assert normals.step == 64 * 12


def test_compressed_frames(stage):
    stage.running(image_transport='compressed')
    camera = stage.client.create_publisher(CompressedImage, 'image/compressed', 1)
    depth = stage.listen('depth')
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    message = stage.send(CompressedImage(format='jpeg', data=array('B', jpeg)), camera)
    stage.until(lambda: depth)
    assert depth[0].header == message.header
    stage.send(CompressedImage(format='jpeg', data=array('B', jpeg[:30])), camera)
    stage.until(lambda: stage.drops() == {'decode': 1})


def test_what_nobody_listens_to_is_not_computed(bench):
    node = bench.running(overlay__tasks=['edges'])
    stats = bench.listen('gating_stats')

    def tasks_of_a_frame():
        return [each.name for each in bench.answer().task_stats]

    assert tasks_of_a_frame() == []
    assert stats[-1].gmacs == 0.0
    bench.listen('depth')
    assert tasks_of_a_frame() == ['depth']
    bench.listen('semseg/confidence')
    assert tasks_of_a_frame() == ['semseg', 'depth']
    bench.listen('overlay')
    assert tasks_of_a_frame() == ['semseg', 'edges', 'depth']
    assert bench.set(node, tasks__depth__enable=False).successful
    assert tasks_of_a_frame() == ['semseg', 'edges']
    assert len(bench.got['depth']) == 3


def test_what_nobody_wants_is_not_even_decoded(stage, monkeypatch):
    def unwanted(message):
        raise AssertionError('decoded')

    for name in ('rgb_from_compressed', 'rgb_from_image'):
        monkeypatch.setattr(worker, name, unwanted)
    node = stage.running()
    stats = stage.listen('gating_stats')
    stage.answer()
    camera = stage.client.create_publisher(CompressedImage, 'image/compressed', 10)
    stage.client.destroy_publisher(stage.camera)
    jpeg = cv2.imencode('.jpg', np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    stage.send(CompressedImage(format='jpeg', data=array('B', jpeg)), camera)
    stage.until(lambda: len(stats) == 2)
    assert (stats[1].frames_processed, stats[1].frames_dropped) == (2, 0)
    assert (stats[1].gmacs, stats[1].task_stats, stats[1].input_width) == (0.0, [], 0)
    stage.listen('depth')
    stage.send(CompressedImage(format='jpeg', data=array('B', jpeg)), camera)
    stage.until(lambda: node.counts.dropped_by_cause == {'error': 1})


def test_results_are_reliable_and_overrides_hold(stage):
    stage.running(**{
        'qos_overrides./adamtl/depth.publisher.reliability': 'best_effort',
        'qos_overrides./image.subscription.reliability': 'best_effort'})
    for name, expected in (('overlay', ReliabilityPolicy.RELIABLE),
                           ('depth', ReliabilityPolicy.BEST_EFFORT)):
        stage.until(lambda name=name: stage.client.get_publishers_info_by_topic(f'adamtl/{name}'))
        (found,) = stage.client.get_publishers_info_by_topic(f'adamtl/{name}')
        assert found.qos_profile.reliability == expected
    # Also where the publisher, as here, offers more.
    camera = stage.client.get_subscriptions_info_by_topic('image')[0].qos_profile
    assert camera.reliability == ReliabilityPolicy.BEST_EFFORT


def test_class_names_are_latched(bench):
    messages = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not on PyPI')
    bench.running()
    for task in ('semseg', 'human_parts'):
        got: list[Any] = []
        bench.client.create_subscription(
            messages.LabelInfo, f'adamtl/{task}/label_info', got.append,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        bench.until(lambda got=got: got)
        assert [(each.class_id, each.class_name) for each in got[0].class_map] == list(
            enumerate(TASKS[task].classes))


def test_the_security_policy_allows_what_the_node_has_and_no_more(bench):
    node = bench.running()
    profile = ElementTree.parse(share('config', 'sros2_policy.xml')).find(
        './/enclave[@path="/adamtl"]//profile')

    def allowed(kind, verb):
        return {f'/{each.text}' for group in profile.iter(f'{kind}s') if group.get(verb)
                for each in group}

    graph = node.get_publisher_names_and_types_by_node('adamtl', '/')
    # Where vision_msgs is not installed, two topics less.
    publishes = {name for name, _ in graph} | {
        f'/adamtl/{task}/label_info' for task in ('semseg', 'human_parts')}
    assert allowed('topic', 'publish') == publishes
    subscribes = {name for name, _ in node.get_subscriber_names_and_types_by_node('adamtl', '/')}
    assert subscribes <= allowed('topic', 'subscribe')
    assert allowed('topic', 'subscribe') - subscribes <= {
        '/image/compressed', '/clock', '/parameter_events'}
    services = {name for name, _ in node.get_service_names_and_types_by_node('adamtl', '/')}
    assert services <= allowed('service', 'reply') <= services | {'/adamtl/get_type_description'}

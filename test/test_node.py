# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node over a real ROS graph on this machine: in this process, and as an executable."""

from array import array
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
import gc
import os
from pathlib import Path
import signal
import subprocess
import sys
from threading import Event
import time
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from rcl_interfaces.msg import ParameterType  # noqa: E402
from rcl_interfaces.srv import SetParametersAtomically  # noqa: E402
from rclpy import utilities  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.network import checkpoint  # noqa: E402
from adamtl_ros.network.config import PRESETS  # noqa: E402
from adamtl_ros.network.kinds import network_of  # noqa: E402
from adamtl_ros.nodes.diagnostics import UNKNOWN  # noqa: E402
from adamtl_ros.nodes.inputs import DEPTH  # noqa: E402
from adamtl_ros.nodes.lifecycle import AdamtlNode  # noqa: E402
from adamtl_ros.nodes.parameters import PARAMETERS  # noqa: E402
from adamtl_ros.nodes.parameters import reference  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from barrier import taken  # noqa: E402

pytestmark = pytest.mark.slow

WAIT = 30.0
"""Seconds after which a wait fails."""

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE


@pytest.fixture(scope='session')
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file of random weights: what the node does is the same for good ones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    checkpoint.save(path, network_of(PRESETS['glasses']))
    return str(path)


class Bench:
    """A node under test and a client, spun together by the test."""

    def __init__(self) -> None:
        """Start an executor and the client."""
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.client = Node('client')
        self.executor.add_node(self.client)
        self.nodes: list[AdamtlNode] = []
        self.stamp = 0
        self.got: dict[str, list[Any]] = {}
        self.clients: dict[str, Any] = {}
        self.camera = self.client.create_publisher(Image, 'image', QoSProfile(depth=10))

    def node(self, weights: str, engine: type[Engine] = Engine, **values: Any) -> AdamtlNode:
        """Return a node with parameters, unconfigured; '__' stands for '.' in their names."""
        node = AdamtlNode(engine_class=engine, parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value)
            for name, value in {'model': weights, **values}.items()])
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def running(self, weights: str, engine: type[Engine] = Engine, **values: Any) -> AdamtlNode:
        """Return an active node that hears this camera."""
        node = self.node(weights, engine, **values)
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        if values.get('image_transport') != 'compressed':
            self.until(lambda: self.camera.get_subscription_count() > 0)
        return node

    def listen(self, *names: str) -> None:
        """Subscribe to topics of the node; its messages are appended to `got`."""
        for name in names:
            kind = {'gating_stats': GatingStats, 'camera_info': CameraInfo,
                    'points': PointCloud2, 'overlay/compressed': CompressedImage,
                    '/diagnostics': DiagnosticArray}.get(name, Image)
            self.got[name] = []
            topic = name if name.startswith('/') else f'adamtl/{name}'
            self.client.create_subscription(
                kind, topic, self.got[name].append, QoSProfile(depth=10))
            self.until(lambda topic=topic: self.client.count_publishers(topic) > 0)
        # Discovery in one direction does not mean that the other has happened.
        for node in self.nodes:
            for name in names:
                self.until(lambda node=node, name=name: node.count_subscribers(
                    name if name.startswith('/') else f'adamtl/{name}') > 0)
        self.spin(0.3)

    def until(self, condition: Callable[[], Any], wait: float = WAIT) -> None:
        """Spin until the condition holds."""
        end = time.monotonic() + wait
        while not condition():
            assert time.monotonic() < end, f'waited {wait} s in vain'
            self.executor.spin_once(0.02)

    def spin(self, seconds: float) -> None:
        """Spin for some time, to see that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(0.02)

    def header(self, message: Any) -> Any:
        """Give the message a stamp of its own and a frame; return it."""
        self.stamp += 1
        message.header.stamp.sec = self.stamp
        message.header.stamp.nanosec = 123456789 + self.stamp
        message.header.frame_id = 'camera'
        return message

    def send(self, message: Image | None = None) -> Image:
        """Publish an image, by default a good one of 64 x 48."""
        message = self.header(picture() if message is None else message)
        self.camera.publish(message)
        return message

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the node; return the response."""
        if name not in self.clients:
            self.clients[name] = self.client.create_client(kind, f'adamtl/{name}')
            self.until(self.clients[name].service_is_ready)
        client = self.clients[name]
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def set(self, node: AdamtlNode, **values: Any) -> Any:
        """Set parameters together over the service; return the result."""
        return self.call(
            SetParametersAtomically, 'set_parameters_atomically',
            SetParametersAtomically.Request(parameters=[
                Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
                for name, value in values.items()])).result

    def close(self) -> None:
        """End everything."""
        while self.nodes:
            node = self.nodes.pop()
            node.end()
            node.destroy_node()
        node = None
        # rclpy leaves a lifecycle node's services to be collected; until then other nodes of this
        # process see them, and find the services of that name not ready.
        gc.collect()
        self.client.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a bench that is closed after the test."""
    bench = Bench()
    yield bench
    bench.close()


def picture(encoding: str = 'rgb8', width: int = 64, height: int = 48, **changes: Any) -> Image:
    """Return an image of noise."""
    channels = {'mono8': 1}.get(encoding, 3)
    data = array('B', np.random.default_rng(0).bytes(width * height * channels))
    message = Image(encoding=encoding, width=width, height=height, step=width * channels,
                    data=data)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def drops(bench: Bench, node: AdamtlNode) -> dict[str, int]:
    """Return the drops by cause that the next diagnostics report."""
    del bench.got['/diagnostics'][:]
    bench.until(lambda: bench.got['/diagnostics'])
    values = {each.key: each.value for each in bench.got['/diagnostics'][-1].status[0].values}
    by_cause = {key.removeprefix('dropped: '): int(value) for key, value in values.items()
                if key.startswith('dropped: ')}
    assert int(values['frames dropped']) == sum(by_cause.values())
    assert (int(values['frames received'])
            == int(values['frames processed']) + int(values['frames dropped']))
    return by_cause


class SlowEngine(Engine):
    """Holds every frame until it is let go."""

    working = Event()
    go = Event()

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None) -> Any:
        """Say that a frame is in work, and wait."""
        if image.shape[:2] == (48, 64):  # not for the blank one that the engine begins with
            self.working.set()
            assert self.go.wait(WAIT)
            self.go.clear()
        return super().infer(image, settings, camera, stream)


@pytest.fixture(autouse=True)
def _fresh_events() -> None:
    SlowEngine.working.clear()
    SlowEngine.go.clear()


# Results


def test_all_topics_answer_with_the_header_of_the_frame(bench, weights):
    bench.running(weights)
    names = [*TASKS, 'semseg/confidence', 'gating_map', 'overlay', 'camera_info', 'gating_stats']
    bench.listen(*names)
    info = bench.client.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1))
    bench.until(lambda: info.get_subscription_count() > 0)
    info.publish(bench.header(CameraInfo(
        width=64, height=48, k=[50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0])))
    taken(info, bench.client, bench.until)
    sent = []
    for number in range(1, 4):
        sent.append(bench.send())
        bench.until(lambda number=number: all(len(bench.got[name]) == number for name in names))
    for name in names:
        assert [each.header for each in bench.got[name]] == [each.header for each in sent]

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


def test_the_age_of_a_frame_is_that_of_its_stamp(bench, weights):
    bench.running(weights)
    bench.listen('gating_stats', 'depth')
    stats = bench.got['gating_stats']
    now = bench.client.get_clock().now()
    # Just taken, without a stamp, and by clocks that are ahead or of another time.
    for number, stamp in enumerate((now, Time(), now + Duration(seconds=3600), Time(seconds=5))):
        message = picture()
        message.header.stamp = stamp.to_msg()
        bench.camera.publish(message)
        bench.until(lambda number=number: len(stats) > number)
    assert stats[0].latency_ms <= stats[0].age_ms <= 1000 * WAIT
    assert all(np.isnan(each.age_ms) for each in stats[1:])


def test_the_results_are_those_of_the_engine(bench, weights):
    node = bench.running(weights)
    bench.listen('depth')
    message = bench.send()
    bench.until(lambda: bench.got['depth'])
    rgb = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)
    expected = Engine(weights).infer(rgb, node._options.settings).outputs['depth']
    got = np.frombuffer(bench.got['depth'][0].data, np.float32).reshape(expected.shape)
    assert got == pytest.approx(expected, rel=1e-5)


def test_results_at_the_size_of_the_camera(bench, weights):
    bench.running(weights, output_size='camera')
    bench.listen('semseg', 'normals')
    bench.send()
    bench.until(lambda: bench.got['semseg'] and bench.got['normals'])
    assert (bench.got['semseg'][0].width, bench.got['semseg'][0].height) == (64, 48)
    assert bench.got['normals'][0].step == 64 * 12


def test_compressed_frames(bench, weights):
    bench.running(weights, image_transport='compressed')
    camera = bench.client.create_publisher(
        CompressedImage, 'image/compressed', QoSProfile(depth=1))
    bench.listen('semseg', '/diagnostics')
    bench.until(lambda: camera.get_subscription_count() > 0)
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    message = bench.header(CompressedImage(format='jpeg', data=array('B', jpeg)))
    camera.publish(message)
    bench.until(lambda: bench.got['semseg'])
    assert bench.got['semseg'][0].header == message.header
    camera.publish(CompressedImage(format='jpeg', data=array('B', jpeg[:30])))
    bench.until(lambda: drops(bench, bench.nodes[0]) == {'decode': 1})


def test_what_nobody_listens_to_is_not_computed(bench, weights):
    node = bench.running(weights, overlay__tasks=['edges'])
    bench.listen('gating_stats')
    stats = bench.got['gating_stats']

    def tasks_of_a_frame():
        number = len(stats)
        bench.send()
        bench.until(lambda: len(stats) > number)
        return [each.name for each in stats[-1].task_stats]

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


def test_results_are_reliable_and_overrides_hold(bench, weights):
    bench.running(weights, **{
        'qos_overrides./adamtl/depth.publisher.reliability': 'best_effort',
        'qos_overrides./image.subscription.reliability': 'best_effort'})
    bench.until(lambda: bench.client.get_publishers_info_by_topic('adamtl/normals'))
    results = bench.client.get_publishers_info_by_topic('adamtl/normals')[0].qos_profile
    assert results.reliability == ReliabilityPolicy.RELIABLE
    bench.until(lambda: bench.client.get_publishers_info_by_topic('adamtl/depth'))
    depth = bench.client.get_publishers_info_by_topic('adamtl/depth')[0].qos_profile
    assert depth.reliability == ReliabilityPolicy.BEST_EFFORT
    # Also where the publisher, as here, offers more.
    camera = bench.client.get_subscriptions_info_by_topic('image')[0].qos_profile
    assert camera.reliability == ReliabilityPolicy.BEST_EFFORT


def test_class_names_are_latched(bench, weights):
    messages = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not on PyPI')
    bench.running(weights)
    for task in ('semseg', 'human_parts'):
        got: list[Any] = []
        bench.client.create_subscription(
            messages.LabelInfo, f'adamtl/{task}/label_info', got.append,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        bench.until(lambda got=got: got)
        assert [(each.class_id, each.class_name) for each in got[0].class_map] == list(
            enumerate(TASKS[task].classes))


def test_the_security_policy_allows_what_the_node_has_and_no_more(bench, weights):
    node = bench.running(weights)
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


# Frames that are not answered


def test_frames_are_processed_or_dropped_with_their_cause(bench, weights):
    node = bench.running(weights, SlowEngine)
    bench.listen('gating_stats', 'depth', '/diagnostics')
    stats = bench.got['gating_stats']
    first = bench.send()
    bench.until(SlowEngine.working.is_set)
    for number in range(4):  # while the first is in work: each replaces the one before
        waiting = bench.send()
        taken(bench.camera, bench.client, bench.until)
        assert node.counts.dropped == number
    assert drops(bench, node) == {'replaced': 3}
    SlowEngine.working.clear()
    SlowEngine.go.set()
    bench.until(SlowEngine.working.is_set)
    SlowEngine.go.set()
    bench.until(lambda: len(stats) == 2)
    assert [each.header for each in stats] == [first.header, waiting.header]
    assert (stats[-1].frames_received, stats[-1].frames_processed) == (5, 2)
    for each in stats:
        assert each.frames_received == each.frames_processed + each.frames_dropped

    # One in work is finished, one that waits is dropped, when the node is deactivated.
    SlowEngine.working.clear()
    last = bench.send()
    bench.until(SlowEngine.working.is_set)
    bench.send()
    taken(bench.camera, bench.client, bench.until)
    SlowEngine.go.set()
    assert node.trigger_deactivate() == SUCCESS
    bench.until(lambda: len(stats) == 3)
    assert stats[-1].header == last.header
    assert drops(bench, node) == {'replaced': 3, 'shutdown': 1}


def test_frames_that_were_overwritten_on_the_way_are_counted(bench, weights):
    bench.running(weights)
    bench.listen('gating_stats', '/diagnostics')
    bench.send()
    bench.until(lambda: bench.got['gating_stats'])
    sent = [bench.send() for _ in range(DEPTH + 3)]  # none is taken in between
    bench.until(lambda: bench.got['gating_stats'][-1].header == sent[-1].header)
    counts = bench.got['gating_stats'][-1]
    assert counts.frames_missed == 3
    assert counts.frames_received == counts.frames_processed + counts.frames_dropped == DEPTH + 1
    assert drops(bench, bench.nodes[0]).keys() <= {'replaced'}
    assert status(bench)[1]['frames missed'] == '3'


def test_what_a_middleware_does_not_tell_is_not_counted(bench, weights, monkeypatch, capfd):
    """One line says what does not hold over it."""
    monkeypatch.setattr(
        utilities, 'get_rmw_implementation_identifier', lambda: 'rmw_cyclonedds_cpp')
    node = bench.running(weights)
    bench.listen('gating_stats', '/diagnostics')
    bench.send()
    bench.until(lambda: bench.got['gating_stats'])
    sent = [bench.send() for _ in range(DEPTH + 3)]
    bench.until(lambda: bench.got['gating_stats'][-1].header == sent[-1].header)
    counts = bench.got['gating_stats'][-1]
    assert counts.frames_missed == 0
    assert counts.frames_received == counts.frames_processed + counts.frames_dropped == DEPTH + 1
    last, values = status(bench)
    assert values['frames missed'] == UNKNOWN
    assert 'never came' not in last.message
    assert node.trigger_deactivate() == SUCCESS
    said = capfd.readouterr().err
    assert said.count('rmw_cyclonedds_cpp') == 1
    assert 'never came' not in said
    assert 'FASTDDS' not in node._inputs.loss()


def test_bad_frames_are_dropped_and_the_next_ones_answered(bench, weights, capfd):
    node = bench.running(weights)
    bench.listen('semseg', '/diagnostics')
    good = []
    for number, (cause, frame) in enumerate([
            ('encoding', {'encoding': 'hsv8'}),
            ('encoding', {'encoding': '16UC1'}),
            ('step', {'step': 191}),
            ('data', {'data': array('B', bytes(48 * 192 - 1))}),
            ('data', {'data': array('B')}),
            ('size', {'width': 0}),
            ('size', {'height': 0})], 1):
        before = node.counts.dropped_by_cause.get(cause, 0)
        bench.send(picture(**frame))
        bench.until(lambda number=number: node.counts.dropped == number)
        assert node.counts.dropped_by_cause[cause] == before + 1
        good.append(bench.send())
        bench.until(lambda number=number: len(bench.got['semseg']) == number)
    assert [each.header for each in bench.got['semseg']] == [each.header for each in good]
    assert drops(bench, node) == {'encoding': 2, 'step': 1, 'data': 2, 'size': 2}
    log = capfd.readouterr().err
    assert [log.count(f'frame dropped ({cause})')
            for cause in ('encoding', 'step', 'data', 'size')] == [1, 1, 1, 1]


def test_many_bad_frames_do_not_flood_the_log(bench, weights, capfd):
    node = bench.running(weights)
    bench.listen('depth', '/diagnostics')
    for number in range(1, 6):
        bench.send(picture(encoding='hsv8'))
        bench.until(lambda number=number: node.counts.dropped == number)
    bench.until(lambda: any(each.status[0].level == DiagnosticStatus.ERROR
                            for each in bench.got['/diagnostics']))
    assert capfd.readouterr().err.count('frame dropped') == 1
    status = bench.got['/diagnostics'][-1].status[0]
    assert "'hsv8'" in {each.key: each.value for each in status.values}['last error']


def test_an_engine_that_fails_costs_one_frame(bench, weights):
    class FailingEngine(Engine):
        def infer(self, image, settings, camera=None, stream=None):
            if image.shape[:2] == (20, 20):
                raise RuntimeError('out of memory')
            return super().infer(image, settings, camera, stream)

    bench.running(weights, FailingEngine)
    bench.listen('semseg', '/diagnostics')
    bench.send(picture(width=20, height=20))
    bench.until(lambda: drops(bench, bench.nodes[0]) == {'error': 1})
    bench.send()
    bench.until(lambda: bench.got['semseg'])


def test_diagnostics_once_a_second(bench, weights):
    bench.running(weights, mode='adaptive', budget=0.5)
    bench.listen('gating_stats', 'depth', '/diagnostics')
    bench.until(lambda: any(each.status[0].level == DiagnosticStatus.WARN
                            for each in bench.got['/diagnostics']))
    assert 'no frames on /image' in bench.got['/diagnostics'][-1].status[0].message
    bench.send()
    bench.until(lambda: bench.got['gating_stats'])
    before = len(bench.got['/diagnostics'])
    bench.until(lambda: len(bench.got['/diagnostics']) >= before + 1)
    status = bench.got['/diagnostics'][before].status[0]
    assert (status.level, status.name) == (DiagnosticStatus.OK, 'adamtl: inference')
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


def test_enabling_and_resetting_by_service(bench, weights):
    node = bench.running(weights)
    bench.listen('gating_stats', '/diagnostics')
    assert bench.call(SetBool, 'enable', SetBool.Request(data=False)).success
    bench.send()
    bench.until(lambda: node.counts.dropped == 1)
    assert drops(bench, node) == {'disabled': 1}
    assert bench.call(SetBool, 'enable', SetBool.Request(data=True)).success
    bench.send()
    bench.until(lambda: bench.got['gating_stats'])
    assert bench.got['gating_stats'][0].frames_received == 2
    assert bench.call(Trigger, 'reset_statistics', Trigger.Request()).success
    assert drops(bench, node) == {}
    bench.send()
    bench.until(lambda: len(bench.got['gating_stats']) == 2)
    assert bench.got['gating_stats'][1].frames_received == 1


def test_frames_beyond_the_rate_are_dropped(bench, weights):
    node = bench.running(weights, max_rate_hz=0.01)
    bench.listen('gating_stats', '/diagnostics')
    for number in range(1, 5):
        bench.send()
        bench.until(lambda number=number: node.counts.received == number)
    counts = node.counts
    assert counts.dropped_by_cause['rate'] == counts.dropped >= 2


# Parameters


def test_parameters_take_effect_on_the_next_frame(bench, weights):
    node = bench.running(weights)
    bench.listen('gating_stats', 'semseg', 'depth')
    stats = bench.got['gating_stats']

    def next_stats():
        number = len(stats)
        bench.send()
        bench.until(lambda: len(stats) > number)
        return stats[-1]

    assert bench.set(node, mode='adaptive', budget=0.6).successful
    after = next_stats()
    assert (after.mode, after.budget_requested) == ('adaptive', pytest.approx(0.6))
    assert bench.set(node, mode='shadow').successful
    after = next_stats()
    assert after.mode == 'shadow'
    assert 0 <= after.agreement <= 1  # the first one is compared
    assert bench.set(node, tasks__semseg__enable=False).successful
    assert [each.name for each in next_stats().task_stats] == ['depth']
    assert bench.set(node, output_size='camera').successful
    number = len(bench.got['depth'])
    next_stats()
    bench.until(lambda: len(bench.got['depth']) > number)
    assert bench.got['depth'][-1].width == 64
    # ROS tools make an integer of a whole number.
    assert bench.set(node, budget=1).successful
    assert next_stats().budget_requested == 1.0


REFUSED = [
    ({'budget': 0.0}, ('budget',)),
    ({'budget': 1.5}, ('budget', '1.5')),
    ({'budget': float('nan')}, ('budget', 'nan')),
    ({'budget': 'half'}, ('budget', 'half', 'a number')),
    ({'budget_cap': 0.4}, ('budget is 1.0', 'budget_cap 0.4', 'set the cap from the budget')),
    ({'budget_cap': 0.0}, ('budget_cap', '0.0')),
    ({'budget_horizon': 0}, ('budget_horizon', '0', '1 to 100000')),
    ({'refresh': 0}, ('refresh', '0', '1 to 100000')),
    ({'reuse': 'sometimes'}, ('reuse', 'sometimes', 'true or false')),
    ({'skip_empty': 'sometimes'}, ('skip_empty', 'sometimes', 'true or false')),
    ({'budget': True}, ('budget', 'True', 'a number')),
    ({'mode': 'fast'}, ('mode', 'fast', 'adaptive')),
    ({'mode': 3}, ('mode', '3', 'a string')),
    ({'output_size': 'huge'}, ('output_size', 'huge', 'camera')),
    ({'overlay__tasks': ['semseg', 'pose']}, ('overlay.tasks', 'pose', 'depth')),
    ({'overlay__tasks': 'semseg'}, ('overlay.tasks', 'a list of strings')),
    ({'tasks__depth__enable': 1}, ('tasks.depth.enable', 'true or false')),
    ({'tasks__depth__weight': -1.0}, ('tasks.depth.weight', '-1.0')),
    ({'tasks__depth__weight': float('nan')}, ('tasks.depth.weight', 'nan')),
    ({'target_latency_ms': float('inf')}, ('target_latency_ms', 'inf')),
    ({'min_budget': 0.0}, ('min_budget', '0.0')),
    ({'compare_share': 1.5}, ('compare_share', '1.5')),
    ({'guard__action': 'panic'}, ('guard.action', 'panic', 'raise_budget')),
    ({'guard__agreement': float('nan')}, ('guard.agreement', 'nan')),
    ({'guard__window': 0}, ('guard.window', '0')),
    ({'max_rate_hz': -1.0}, ('max_rate_hz',)),
    ({'model': 'swin_tiny'}, ('model', 'random', 'clean it up')),
    ({'device': 'cuda'}, ('device', 'cpu', 'clean it up')),
    ({'autostart': False}, ('autostart', 'read-only')),
    ({'image_transport': 'theora'}, ('image_transport', 'theora', 'compressed')),
    ({'image_reliability': 'sure'}, ('image_reliability', 'sure', 'best_effort')),
    ({'tasks__semseg__class_names': ['a']}, ('class_names', 'read-only')),
    ({'min_budget': 0.5, 'budget': 0.0}, ('budget',)),
]


def test_bad_values_are_refused_and_nothing_changes(bench, weights):
    node = bench.running(weights)
    before = node._options, node._values()
    for values, words in REFUSED:
        result = bench.set(node, **values)
        assert not result.successful, values
        assert all(word in result.reason for word in words), result.reason
        assert (node._options, node._values()) == before
        name = next(iter(values)).replace('__', '.')
        assert node.describe_parameter(name).type == Parameter.Type.from_parameter_value(
            node.get_parameter(name).value).value


def test_a_task_that_the_model_lacks_cannot_be_enabled(bench, tmp_path):
    class FourTasks(Engine):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tasks = tuple(task for task in self.tasks if task != 'depth')

    torch.manual_seed(0)
    path = tmp_path / 'random.safetensors'
    checkpoint.save(path, network_of(PRESETS['glasses']))
    node = bench.running(str(path), FourTasks)
    result = bench.set(node, tasks__depth__enable=True)
    assert not result.successful
    assert 'depth' in result.reason
    assert 'depth' not in node._options.settings.tasks


def test_parameters_are_described(bench, weights):
    node = bench.running(weights)
    for name, spec in PARAMETERS.items():
        descriptor = node.describe_parameter(name)
        assert descriptor.description
        assert descriptor.read_only == spec.fixed
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert len(descriptor.floating_point_range) == 1, name
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert len(descriptor.integer_range) == 1, name
    for task in ('semseg', 'human_parts'):
        names = node.get_parameter(f'tasks.{task}.class_names').value
        assert list(names) == list(TASKS[task].classes)
        assert 'read-only' in node.describe_parameter(
            f'tasks.{task}.class_names').additional_constraints


def test_a_node_with_a_bad_value_cannot_be_configured(bench, weights, capfd):
    for name, value, words in [
            ('budget', 0.0, ('budget', '0.0')),
            ('budget', 1.5, ('budget', '1.5')),
            ('budget', float('nan'), ('budget', 'nan')),
            ('budget', 'half', ('budget', 'half', 'a number')),
            ('mode', 'fast', ('mode', 'fast', 'adaptive')),
            ('backend', 'tvm', ('backend', 'tvm', 'torch')),
            ('device', 'tpu', ('device', 'tpu', 'cpu')),
            ('num_threads', -1, ('num_threads', '-1')),
            ('num_threads', 'all', ('num_threads', 'all', 'an integer')),
            ('image_transport', 'theora', ('image_transport', 'theora', 'compressed')),
            ('output_size', 'huge', ('output_size', 'huge', 'camera')),
            ('overlay.tasks', ['pose'], ('overlay.tasks', 'pose', 'human_parts')),
            ('tasks.depth.enable', 'yes', ('tasks.depth.enable', 'yes', 'true or false')),
            ('guard.action', 'panic', ('guard.action', 'panic', 'static')),
            ('tasks.depth.weight', 11.0, ('tasks.depth.weight', '11.0')),
            ('model', 'nothing', ('nothing', 'glasses')),
            ('model', '/dev/null', ('/dev/null',))]:
        node = bench.node(weights, **{name: value})
        assert node.trigger_configure() == FAILURE
        log = capfd.readouterr().err
        assert log.count('cannot configure') == 1
        assert all(word in log for word in words), log
        assert 'Traceback' not in log
        bench.nodes.remove(node)
        node.destroy_node()


def test_a_failure_to_configure_is_in_the_diagnostics(bench, weights):
    node = bench.node(weights, backend='tvm')
    assert node.trigger_configure() == FAILURE
    bench.listen('/diagnostics')
    bench.until(lambda: bench.got['/diagnostics'])
    status = bench.got['/diagnostics'][-1].status[0]
    assert status.level == DiagnosticStatus.ERROR
    assert 'cannot configure' in status.message
    assert 'tvm' in status.message
    assert next(each.value for each in status.values if each.key == 'state') == 'unconfigured'


def test_a_bad_value_from_the_start_can_be_corrected(bench, weights):
    node = bench.node(weights, budget='half')
    assert node.trigger_configure() == FAILURE
    assert bench.set(node, budget=0.5).successful
    assert node.trigger_configure() == SUCCESS
    assert node._options.settings.budget == 0.5


def test_whole_numbers_and_empty_lists_are_taken_as_meant(bench, weights):
    node = bench.node(weights, budget=1, overlay__tasks=[''])
    assert node.trigger_configure() == SUCCESS
    assert node._options.overlay_tasks == ()
    assert bench.set(node, overlay__tasks=['depth']).successful
    assert node._options.overlay_tasks == ('depth',)
    assert bench.set(node, overlay__tasks=[]).successful
    assert node._options.overlay_tasks == ()


def test_the_shipped_parameters_are_the_defaults():
    given = yaml.safe_load(share('config', 'glasses.yaml').read_text())['/**']['ros__parameters']
    tasks = given.pop('tasks')
    for group in ('guard', 'points'):
        given |= {f'{group}.{name}': value for name, value in given.pop(group).items()}
    flat = given | {f'tasks.{task}.{name}': value
                    for task, values in tasks.items() for name, value in values.items()}
    assert flat == {name: spec.default for name, spec in PARAMETERS.items()}


DOCS = Path(__file__).parents[1] / 'docs'


@pytest.mark.skipif(not DOCS.is_dir(), reason='the documentation is not beside the tests')
def test_the_parameter_reference_is_of_these_parameters():
    assert reference() in (DOCS / 'parameters.md').read_text(), (
        'run  python -m adamtl_ros.nodes.parameters  and put its table into docs/parameters.md')


def test_a_latency_that_cannot_be_met_takes_the_lowest_budget(bench, weights):
    node = bench.running(weights, mode='adaptive', target_latency_ms=10000.0, min_budget=0.4)
    bench.listen('gating_stats', 'depth')
    stats = bench.got['gating_stats']
    for number in range(1, 7):
        if number == 4:
            assert bench.set(node, target_latency_ms=0.001).successful
        bench.send()
        bench.until(lambda number=number: len(stats) == number)
    assert [each.budget_requested for each in stats] == pytest.approx([1.0] * 3 + [0.4] * 3)


def test_the_controller_stays_below_the_budget(bench, weights):
    node = bench.running(weights, mode='adaptive', target_latency_ms=10000.0, budget=0.6)
    bench.listen('gating_stats', 'depth')
    stats = bench.got['gating_stats']
    for budget in (0.6, 0.9, 0.4):  # such as a battery monitor sets
        assert bench.set(node, budget=budget).successful
        for _ in range(6):
            number = len(stats)
            bench.send()
            bench.until(lambda number=number: len(stats) > number)
        assert stats[-1].budget_requested == pytest.approx(budget)


# Streams


def send_at(bench: Bench, seconds: float, camera: str = 'camera', shade: int = 0) -> Image:
    """Publish a picture with a stamp."""
    message = picture()
    message.data = array('B', bytes(np.frombuffer(message.data, np.uint8) // 2 + shade))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(
        round(seconds * 1e9), 1_000_000_000)
    message.header.frame_id = camera
    bench.camera.publish(message)
    return message


def test_a_frame_that_stands_still_is_reused_with_its_own_header(bench, weights, capfd):
    node = bench.running(weights, mode='adaptive', budget=0.6, budget_cap=0.8, refresh=4)
    bench.listen('gating_stats', 'depth', '/diagnostics')
    stats, depth = bench.got['gating_stats'], bench.got['depth']

    def answer(seconds, **changes):
        number = len(stats)
        message = send_at(bench, seconds, **changes)
        bench.until(lambda: len(stats) > number and len(depth) > number)
        assert stats[-1].header == depth[-1].header == message.header
        return stats[-1]

    first = answer(10.0)
    assert not first.reused and first.budget_achieved > 0 and first.price >= 0.0
    assert first.budget_cap == 0.8
    for number in (1, 2, 3):
        still = answer(10.0 + number / 10)
        assert still.reused and still.budget_achieved == still.gmacs == 0.0
        assert np.isnan(still.price)
        assert bytes(depth[-1].data) == bytes(depth[0].data)
    assert still.budget_mean == pytest.approx(first.budget_achieved / 4)
    _, values = status(bench)
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


def test_budget_and_cap_are_raised_in_order(bench, weights):
    node = bench.running(weights, mode='adaptive', budget=0.4, budget_cap=0.5)
    result = bench.set(node, budget=0.7)
    assert not result.successful
    assert 'budget is 0.7 and budget_cap 0.5' in result.reason
    assert bench.set(node, budget_cap=0.8).successful
    assert bench.set(node, budget=0.7).successful
    assert bench.set(node, budget=0.9, budget_cap=1.0).successful
    settings = node._options.settings
    assert (settings.budget, settings.cap, settings.horizon, settings.refresh) == (
        0.9, 1.0, 50, 30)


def test_with_a_latency_target_the_budget_is_the_cap_too(bench, weights):
    bench.running(weights, mode='adaptive', target_latency_ms=10000.0, budget=0.6)
    bench.listen('gating_stats', 'depth')
    stats = bench.got['gating_stats']
    for number in range(1, 5):
        bench.send()
        bench.until(lambda number=number: len(stats) == number)
    assert all(each.budget_cap == pytest.approx(each.budget_requested) for each in stats)
    assert all(each.budget_achieved <= 0.6 + 1e-6 for each in stats)


def test_a_reused_result_that_agrees_too_little_is_computed_anew(bench, weights):
    bench.running(
        weights, DisagreeingEngine, mode='shadow', budget=0.6, compare_share=1.0)
    bench.listen('gating_stats', 'depth')
    stats = bench.got['gating_stats']
    for number in range(1, 6):
        send_at(bench, 10.0 + number / 10)
        bench.until(lambda number=number: len(stats) == number)
    assert [each.reused for each in stats] == [False, True, False, True, False]


# Roll-out


class DisagreeingEngine(Engine):
    """Finds that the policy agrees with the dense network on half of the pixels."""

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None) -> Any:
        """Replace the agreement, where it was compared."""
        result = super().infer(image, settings, camera, stream)
        agreed = dict.fromkeys(result.stats.task_agreement, 0.5)
        return replace(result, stats=replace(result.stats, task_agreement=agreed))


def status(bench: Bench) -> tuple[DiagnosticStatus, dict[str, str]]:
    """Return the next diagnostics and their values."""
    del bench.got['/diagnostics'][:]
    bench.until(lambda: bench.got['/diagnostics'])
    status = bench.got['/diagnostics'][-1].status[0]
    return status, {each.key: each.value for each in status.values}


def test_shadow_compares_the_share_of_frames_and_publishes_dense_results(bench, weights):
    node = bench.running(weights, mode='shadow', budget=0.4, compare_share=0.25)
    bench.listen('gating_stats', 'depth', 'semseg', 'gating_map', '/diagnostics')
    stats = bench.got['gating_stats']
    for number in range(1, 9):
        bench.send()
        bench.until(lambda number=number: len(stats) == number)
    bench.until(lambda: len(bench.got['depth']) == 8)
    assert stats[-1].frames_dropped == 0
    # A picture of what the policy would have run, where it was asked.
    assert len(bench.got['gating_map']) == 2
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
    _, values = status(bench)
    assert float(values['share of MACs that the policy would have saved']) == pytest.approx(
        1 - stats[0].budget_achieved, abs=0.01)
    assert float(values['budget achieved']) == pytest.approx(stats[4].budget_achieved, rel=1e-3)
    assert {'agreement: depth', 'agreement: semseg'} < values.keys()
    assert bench.set(node, mode='static').successful
    bench.send()
    bench.until(lambda: len(bench.got['depth']) == 9 and len(stats) == 9)
    assert len({bytes(each.data) for each in bench.got['depth']}) == 1  # all frames look the same
    assert 'agreement: depth' not in status(bench)[1]


def test_the_guard_raises_the_budget_and_says_so(bench, weights, capfd):
    node = bench.running(
        weights, DisagreeingEngine, mode='adaptive', budget=0.8, compare_share=0.5,
        guard__action='raise_budget', guard__window=2)
    bench.listen('gating_stats', 'depth', '/diagnostics')
    stats = bench.got['gating_stats']

    def send(frames):
        for _ in range(frames):
            number = len(stats)
            bench.send()
            bench.until(lambda number=number: len(stats) > number)

    send(4)
    assert [each.budget_requested for each in stats] == pytest.approx([0.8, 0.8, 0.8, 0.9])
    assert [each.guard for each in stats] == [
        'watching', 'watching', 'raised_budget', 'raised_budget']
    assert [each.task_stats[-1].agreement for each in stats] == pytest.approx(
        [0.5, np.nan, 0.5, np.nan], nan_ok=True)
    got, values = status(bench)
    assert 'budget raised to 0.9' in values['guard']
    assert (values['budget requested'], values['budget set by']) == ('0.9', 'guard')
    send(8)
    assert [each.mode for each in stats[-5:]] == ['adaptive'] * 4 + ['static']
    assert stats[-1].guard == GatingStats.GUARD_STATIC
    bench.until(lambda: status(bench)[0].level == DiagnosticStatus.WARN)
    send(1)
    got, values = status(bench)
    assert 'returned to mode static: agreement of depth is 0.500' in values['guard']
    assert capfd.readouterr().err.count('guard: ') == 3
    # It stays so until somebody who knows better says otherwise.
    assert bench.set(node, budget=0.7).successful
    send(1)
    assert stats[-1].mode == 'static'
    assert bench.set(node, guard__action='off', mode='adaptive').successful
    send(1)
    assert (stats[-1].mode, stats[-1].budget_requested) == ('adaptive', pytest.approx(0.7))


# Lifecycle


def state(bench: Bench) -> str:
    """Return the label of the node's state."""
    return bench.call(GetState, 'get_state', GetState.Request()).current_state.label


def test_all_transitions_over_services(bench, weights):
    bench.node(weights)
    assert state(bench) == 'unconfigured'

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert bench.call(ChangeState, 'change_state', request).success

    for _ in range(2):
        change(Transition.TRANSITION_CONFIGURE)
        assert state(bench) == 'inactive'
        bench.send()
        bench.spin(0.1)  # an inactive node does not listen
        for _ in range(2):
            change(Transition.TRANSITION_ACTIVATE)
            assert state(bench) == 'active'
            bench.until(lambda: bench.camera.get_subscription_count() == 1)
            bench.listen('semseg')
            sent = bench.send()
            bench.until(lambda: bench.got['semseg'])
            assert bench.got['semseg'][-1].header == sent.header
            change(Transition.TRANSITION_DEACTIVATE)
            assert state(bench) == 'inactive'
        change(Transition.TRANSITION_CLEANUP)
        assert state(bench) == 'unconfigured'
    change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(bench) == 'finalized'
    assert bench.nodes[0].counts.received == 4


# The executable


def start(*arguments: str, model: str) -> subprocess.Popen:
    """Start the executable's main() with ROS arguments."""
    return subprocess.Popen(
        [sys.executable, '-c',
         'import sys; from adamtl_ros.nodes.node import main; sys.exit(main())',
         '--ros-args', '-p', f'model:={model}', *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {
            f'{name}_DEFAULT_PROFILES_FILE': str(share('config', 'fastdds.xml'))
            for name in ('FASTDDS', 'FASTRTPS')})  # as the launch file does


def wait_for_line(process: subprocess.Popen, word: str) -> None:
    """Read the output up to a line with the word in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f'the node ended before it said {word!r}')


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen]]:
    """Take processes that must not outlive the test."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize('frames', [False, True])
def test_signals_end_the_node_in_good_order(bench, weights, ended, number, frames):
    process = start(model=weights)
    ended.append(process)
    wait_for_line(process, 'active')
    if frames:
        bench.listen('gating_stats', *TASKS)
        end = time.monotonic() + WAIT
        while len(bench.got['gating_stats']) < 3:
            assert time.monotonic() < end
            bench.send(picture(width=640, height=480))  # faster than it can answer: always busy
            bench.executor.spin_once(0.01)
        for _ in range(3):
            bench.send(picture(width=640, height=480))
    process.send_signal(number)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    assert 'Traceback' not in output
    assert 'stopped after' in output
    if frames:
        # The last frame whose statistics were sent was sent whole.
        bench.spin(0.5)
        answered = {name: {each.header.stamp.sec for each in bench.got[name]}
                    for name in TASKS}
        assert bench.got['gating_stats'][-1].header.stamp.sec in set.intersection(
            *answered.values())


def signals_blocked(process: subprocess.Popen) -> bool:
    """Return whether the process has come as far as to hold signals back."""
    for line in Path(f'/proc/{process.pid}/status').read_text().splitlines():
        if line.startswith('SigBlk:'):
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
    return False


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='needs /proc')
@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize('delay', [0.0, 1.5])
def test_signals_while_starting_end_the_node_in_good_order(weights, ended, number, delay):
    process = start(model=weights)
    ended.append(process)
    end = time.monotonic() + WAIT
    while not signals_blocked(process):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    assert 'Traceback' not in output


def test_signals_end_a_node_that_was_not_started(weights, ended):
    process = start('-p', 'autostart:=false', model=weights)
    ended.append(process)
    end = time.monotonic() + WAIT
    while not signals_blocked(process):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    assert 'model' not in output


@pytest.mark.parametrize(('arguments', 'word'), [
    (('-p', 'budget:=.nan'), 'nan'),
    (('-p', 'budget:=['), 'budget:=['),
    (('--params-file', '/nonexistent.yaml'), 'nonexistent'),
])
def test_what_cannot_be_started_says_so_and_fails(weights, ended, arguments, word):
    process = start(*arguments, model=weights)
    ended.append(process)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 1, output
    assert 'Traceback' not in output
    assert word in output

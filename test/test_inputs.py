# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What the node listens to, whatever its cameras offer and however often they change.

ADAMTL_CAMERA_CHANGES sets the number of random changes of publishers (default 60).
"""

from array import array
from collections.abc import Iterator
import itertools
import os
import random
import time
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from adamtl_ros.nodes import inputs  # noqa: E402
from adamtl_ros.nodes.inputs import chosen_durability  # noqa: E402
from adamtl_ros.nodes.inputs import chosen_reliability  # noqa: E402
from adamtl_ros.nodes.inputs import chosen_transport  # noqa: E402
from adamtl_ros.nodes.inputs import Inputs  # noqa: E402
from adamtl_ros.nodes.inputs import sibling  # noqa: E402
from ros_graph import Graph  # noqa: E402
from ros_graph import WAIT  # noqa: E402

CHANGES = int(os.environ.get('ADAMTL_CAMERA_CHANGES', '60'))
RELIABLE = ReliabilityPolicy.RELIABLE
BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT
RAW, JPEG = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


# What to ask for


@pytest.mark.parametrize(('asked', 'offered', 'before', 'expected'), [
    ('auto', [RELIABLE], BEST_EFFORT, RELIABLE),
    ('auto', [RELIABLE, RELIABLE], RELIABLE, RELIABLE),
    ('auto', [BEST_EFFORT], RELIABLE, BEST_EFFORT),
    ('auto', [RELIABLE, BEST_EFFORT], RELIABLE, BEST_EFFORT),
    ('auto', [], RELIABLE, RELIABLE),
    ('auto', [], BEST_EFFORT, BEST_EFFORT),
    ('reliable', [BEST_EFFORT], RELIABLE, RELIABLE),
    ('best_effort', [RELIABLE], RELIABLE, BEST_EFFORT),
])
def test_reliability(asked, offered, before, expected):
    assert chosen_reliability(asked, offered, before) == expected


def test_durability():
    latched, volatile = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE
    assert chosen_durability([latched, latched], volatile) == latched
    assert chosen_durability([latched, volatile], latched) == volatile
    assert chosen_durability([], latched) == latched


@pytest.mark.parametrize(('asked', 'topic', 'graph', 'before', 'expected'), [
    ('auto', '/image', {}, None, (Image, '/image')),
    ('auto', '/image', {'/image': {RAW}}, None, (Image, '/image')),
    ('auto', '/image', {'/image': {RAW}, '/image/compressed': {JPEG}}, None, (Image, '/image')),
    ('auto', '/image', {'/image/compressed': {JPEG}}, None,
     (CompressedImage, '/image/compressed')),
    ('auto', '/image', {'/image': {JPEG}}, None, (CompressedImage, '/image')),
    ('auto', '/image/compressed', {}, None, (CompressedImage, '/image/compressed')),
    ('auto', '/image/compressed', {'/image/compressed': {JPEG}}, None,
     (CompressedImage, '/image/compressed')),
    # A camera that is started again is not lost sight of.
    ('auto', '/image', {}, (CompressedImage, '/image/compressed'),
     (CompressedImage, '/image/compressed')),
    ('auto', '/image', {'/image': {'std_msgs/msg/String'}}, None, (Image, '/image')),
    ('raw', '/image', {'/image': {JPEG}}, None, (Image, '/image')),
    ('compressed', '/image', {'/image': {RAW}}, None, (CompressedImage, '/image/compressed')),
    ('compressed', '/image', {'/image': {JPEG}}, None, (CompressedImage, '/image')),
    ('compressed', '/image/compressed', {}, None, (CompressedImage, '/image/compressed')),
])
def test_transport(asked, topic, graph, before, expected):
    assert chosen_transport(
        asked, topic, lambda name: graph.get(name, set()), before) == expected


@pytest.mark.parametrize(('image', 'info'), [
    ('/image', '/camera_info'),
    ('/camera/color/image_raw', '/camera/color/camera_info'),
    ('/left/image_rect/compressed', '/left/camera_info'),
])
def test_camera_info_is_the_sibling_of_the_image(image, info):
    assert sibling(image) == info


# In a graph


class Listener(Graph):
    """The inputs of a node, and cameras beside it."""

    def __init__(self, *remappings: str, **values: str) -> None:
        """Open the inputs; values are parameters."""
        super().__init__()
        arguments = [part for each in remappings for part in ('-r', each)]
        self.node = self.join('listener', cli_args=['--ros-args', *arguments])
        # A participant of its own: one cannot have two types on a topic.
        self.world = self.join('world', apart=True)
        for name in ('image_transport', 'image_reliability'):
            self.node.declare_parameter(name, values.get(name, 'auto'))
        self.got: list[Any] = []
        self.missed = self.frame = 0
        self.inputs = Inputs(self.node, self._receive)
        # As the node does, ten times as often; what middleware tells of itself comes sooner.
        self.node.create_timer(0.1, self.inputs.look)
        self.inputs.open()

    def _receive(self, message: Any, received: float, missed: int) -> None:
        self.got.append(message)
        self.missed += missed

    def camera(self, topic: str = 'image', kind: type = Image,
               reliability: ReliabilityPolicy = RELIABLE, **profile: Any) -> Any:
        """Return a camera on that topic."""
        return self.world.create_publisher(
            kind, topic, QoSProfile(depth=10, reliability=reliability, **profile))

    def heard(self, camera: Any, kind: type = Image) -> None:
        """Send frames until one of this camera arrives."""
        self.frame += 1
        mine = kind(header=Header(frame_id=f'frame {self.frame}'))

        def arrived():
            camera.publish(mine)
            return any(each.header == mine.header for each in self.got)

        self.until(arrived)

    def reliability(self) -> str:
        """Return what is asked for."""
        return self.inputs.figures()['image reliability']

    def close(self) -> None:
        """End everything."""
        self.inputs.close()
        super().close()


@pytest.fixture
def graph(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """Return a graph; the parameters are remappings and the node's parameters."""
    remappings, values = getattr(request, 'param', ((), {}))
    graph = Listener(*remappings, **values)
    yield graph
    graph.close()


def test_reliability_follows_the_cameras(graph):
    assert graph.reliability() == 'reliable'
    first = graph.camera(reliability=BEST_EFFORT)
    graph.heard(first)
    assert graph.reliability() == 'best_effort'
    second = graph.camera()
    graph.heard(second)
    graph.heard(first)
    assert graph.inputs.figures()['image publishers'] == 2
    graph.world.destroy_publisher(first)
    graph.until(lambda: graph.reliability() == 'reliable')
    graph.heard(second)
    graph.world.destroy_publisher(second)
    graph.heard(graph.camera())
    assert graph.reliability() == 'reliable'


def test_an_override_holds(graph):
    graph.node._parameter_overrides['qos_overrides./image.subscription.reliability'] = Parameter(
        'qos_overrides./image.subscription.reliability', value='best_effort')
    graph.inputs.close()
    graph.inputs.open()
    graph.heard(graph.camera())
    assert graph.reliability() == 'best_effort'
    assert 'take the QoS override of reliability away' in graph.inputs.loss()


@pytest.mark.parametrize('graph', [((), {'image_reliability': 'reliable'})], indirect=True)
def test_what_is_asked_for_and_not_offered_is_said(graph):
    graph.camera(reliability=BEST_EFFORT)
    graph.until(lambda: 'incompatible QoS' in graph.inputs.silence())
    assert 'best effort publisher and reliable subscription' in graph.inputs.silence()
    assert 'set image_reliability to auto' in graph.inputs.silence()
    graph.node.set_parameters([Parameter('image_reliability', value='auto')])
    graph.heard(graph.camera(reliability=BEST_EFFORT))


@pytest.mark.parametrize('graph', [((), {'image_reliability': 'best_effort'})], indirect=True)
def test_what_is_offered_and_not_asked_for_is_said_of_losses(graph):
    graph.heard(graph.camera())
    graph.until(lambda: 'set image_reliability to auto' in graph.inputs.loss())


def test_losses_have_their_remedy(graph):
    camera = graph.camera(reliability=BEST_EFFORT)
    graph.heard(camera)
    assert 'the camera publishes best effort' in graph.inputs.loss()
    graph.world.destroy_publisher(camera)
    graph.heard(graph.camera())
    graph.until(lambda: 'lower its rate or size' in graph.inputs.loss())


@pytest.mark.parametrize('graph', [(('image:=/cam/image_raw/compressed',), {})], indirect=True)
def test_the_compressed_topic_itself(graph):
    graph.heard(graph.camera('/cam/image_raw/compressed', CompressedImage), CompressedImage)
    assert graph.inputs.topics() == [
        '/cam/image_raw/compressed', '/cam/image_raw/compressed/compressed', '/cam/camera_info']


def test_the_transport_follows_the_camera(graph):
    compressed = graph.camera('image/compressed', CompressedImage)
    graph.heard(compressed, CompressedImage)
    assert graph.inputs.topic == '/image/compressed'
    graph.heard(graph.camera())
    assert graph.inputs.topic == '/image'


@pytest.mark.parametrize('graph', [((), {'image_transport': 'raw'})], indirect=True)
def test_another_type_is_said(graph):
    camera = graph.camera(kind=CompressedImage)
    graph.until(lambda: JPEG in graph.inputs.silence())
    assert 'set image_transport to auto' in graph.inputs.silence()
    graph.world.destroy_publisher(camera)
    graph.world.create_publisher(String, 'image', 1)
    graph.until(lambda: 'std_msgs/msg/String' in graph.inputs.silence())
    assert 'remap image' in graph.inputs.silence()


def test_a_namespace_that_does_not_match_is_said(graph):
    graph.until(lambda: graph.inputs.silence() == 'nobody publishes it')
    graph.camera('/robot/depth/points_preview')
    graph.camera('/robot/image')
    graph.camera('/listener/own')
    graph.until(lambda: '/robot/image' in graph.inputs.silence())
    graph.until(lambda: 'preview' in graph.inputs.silence())
    assert graph.inputs.silence() == (
        'nobody publishes it; there are pictures on /robot/image, /robot/depth/points_preview: '
        'remap image to the right one')
    graph.camera()
    graph.until(lambda: graph.inputs.silence() == '/world offers it, and nothing arrives')


@pytest.mark.parametrize(('graph', 'topic'), [
    ((('image:=/cam/image_raw',), {}), '/cam/camera_info'),
    ((('image:=/cam/image_raw', 'camera_info:=/other/info'), {}), '/other/info'),
], indirect=['graph'])
def test_camera_info_of_the_image_or_as_remapped(graph, topic):
    latched = {'durability': DurabilityPolicy.TRANSIENT_LOCAL}
    camera = graph.camera('/cam/image_raw')
    infos = graph.camera(topic, CameraInfo, **latched)
    info = CameraInfo(header=Header(frame_id='optical'), width=64, height=48,
                      k=[50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0])
    infos.publish(info)  # once, before anybody listens
    graph.heard(camera)

    def lens():
        return graph.inputs.lens(info.header, (64, 48))

    graph.until(lambda: lens().camera is not None)
    assert lens().camera.fx == 50
    assert graph.inputs.lens(Header(frame_id='other'), (64, 48)).refused
    # Another camera is not taken for this one.
    graph.inputs.close()
    assert lens().words == 'nominal: no camera_info'


def test_the_period_of_the_camera(graph, monkeypatch):
    assert graph.inputs.period == 0.0
    ticks = itertools.count(100.0, 0.125)
    monkeypatch.setattr(inputs, 'monotonic', lambda: next(ticks))
    camera = graph.camera()
    graph.until(lambda: [graph.heard(camera), len(graph.got) > 9][1])
    assert graph.inputs.period == 0.125


def test_random_changes_of_publishers(graph):
    """Cameras of any kind come and go: of each, what lies between is received or counted."""
    generator = random.Random(1)
    cameras: dict[str, tuple[Any, type]] = {}
    sent: dict[str, int] = {}
    picture = array('B', bytes(64 * 48 * 3))

    def come(name, kind, reliability):
        cameras[name] = (graph.camera(
            'image' if kind is Image else 'image/compressed', kind, reliability,
            durability=generator.choice((
                DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL))), kind)
        sent[name] = 0

    def go(name):
        graph.world.destroy_publisher(cameras.pop(name)[0])

    def send():
        for name, (camera, kind) in cameras.items():
            message = kind(data=picture)
            message.header.frame_id = name
            message.header.stamp.sec = sent[name] = sent[name] + 1
            camera.publish(message)
        graph.executor.spin_once(0.0)

    for number in range(CHANGES):
        if len(cameras) > 3 or (cameras and generator.random() < 0.4):
            go(generator.choice(list(cameras)))
        else:
            come(f'{number}', generator.choice((Image, Image, CompressedImage)),
                 generator.choice((RELIABLE, BEST_EFFORT)))
        for _ in range(generator.randrange(8)):
            send()
        if number % 20 == 19:
            while cameras:
                go(next(iter(cameras)))
            come(f'good {number}', Image, generator.choice((RELIABLE, BEST_EFFORT)))
            end = time.monotonic() + WAIT
            while not graph.got or graph.got[-1].header.frame_id != f'good {number}':
                assert time.monotonic() < end, 'a camera is not heard'
                send()
                graph.executor.spin_once(0.01)
    numbers: dict[str, list[int]] = {}
    for each in graph.got:
        numbers.setdefault(each.header.frame_id, []).append(each.header.stamp.sec)
    assert all(each == sorted(set(each)) for each in numbers.values())
    assert graph.missed == sum(each[-1] - each[0] + 1 - len(each) for each in numbers.values())
    assert len(numbers) > CHANGES // 20

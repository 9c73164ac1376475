# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The node around the engine: its states, its parameters, its cameras and what it says of itself.

ADAMTL_CAMERA_CHANGES sets the number of random changes of cameras (default 60).
"""

from array import array
from collections.abc import Callable
from collections.abc import Iterator
import os
import random
import signal
import subprocess
import sys
from threading import Event
import time
from typing import Any

import cv2
import numpy as np
import pytest

from instant import InstantEngine

rclpy = pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.parameter import parameter_dict_from_yaml_file  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.camera import Camera  # noqa: E402
from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.nodes import lifecycle  # noqa: E402
from adamtl_ros.nodes import worker  # noqa: E402
from adamtl_ros.nodes.lifecycle import AdamtlNode  # noqa: E402
from adamtl_ros.nodes.parameters import PARAMETERS  # noqa: E402
from adamtl_ros.nodes.parameters import unmatched  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from barrier import taken  # noqa: E402

CHANGES = int(os.environ.get('ADAMTL_CAMERA_CHANGES', '60'))
WAIT = 30.0
SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
RELIABILITIES = (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
DURABILITIES = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)


class Stage:
    """Nodes under test, and a camera and a listener beside them, spun by the test."""

    def __init__(self) -> None:
        """Start the graph."""
        rclpy.init()
        self.client = rclpy.create_node('client')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.client)
        self.nodes: list[AdamtlNode] = []
        self.camera = self.client.create_publisher(Image, 'image', 10)
        self.reports: list[DiagnosticStatus] = []
        self.client.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: self.reports.append(m.status[0]), 10)
        self.frames = 0

    def node(self, engine: type[InstantEngine] = InstantEngine, *arguments: str,
             **values: Any) -> AdamtlNode:
        """Return a node, unconfigured; '__' stands for '.' in the names of parameters."""
        node = AdamtlNode(engine_class=engine, cli_args=['--ros-args', *arguments],
                          parameter_overrides=[Parameter(name.replace('__', '.'), value=value)
                                               for name, value in values.items()])
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def running(self, engine: type[InstantEngine] = InstantEngine, *arguments: str,
                **values: Any) -> AdamtlNode:
        """Return an active node."""
        node = self.node(engine, *arguments, **values)
        assert (node.trigger_configure(), node.trigger_activate()) == (SUCCESS, SUCCESS)
        return node

    def listen(self, node: AdamtlNode, name: str, kind: type = Image) -> list[Any]:
        """Return the list that messages of a topic of the node will be in."""
        got: list[Any] = []
        topic = f'{node.get_fully_qualified_name()}/{name}'
        self.client.create_subscription(kind, topic, got.append, 10)
        self.until(lambda: self.client.count_publishers(topic) and node.count_subscribers(topic))
        self.spin(0.2)
        return got

    def until(self, condition: Callable[[], Any]) -> None:
        """Spin until the condition holds."""
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, 'waited in vain'
            self.executor.spin_once(0.01)

    def spin(self, seconds: float) -> None:
        """Spin for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(0.01)

    def send(self, message: Any = None, camera: Any = None) -> Any:
        """Send a frame once somebody listens."""
        camera = camera or self.camera
        if message is None:
            message = Image(encoding='rgb8', width=64, height=48, step=192,
                            data=array('B', bytes(192 * 48)))
        self.frames += 1
        message.header.stamp.sec = self.frames
        message.header.frame_id = 'optical'
        self.until(camera.get_subscription_count)
        camera.publish(message)
        return message

    def send_until(self, condition: Callable[[], Any]) -> None:
        """
        Send frames until the condition holds.

        Of a subscription that has just come in place of another, the camera may not know yet.
        """
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, 'sent in vain'
            self.send()
            self.spin(0.1)

    def report(self, level: bytes, word: str) -> DiagnosticStatus:
        """Wait for a report of this level with the word in its message; return it."""
        del self.reports[:]
        self.until(lambda: any(each.level == level and word in each.message
                               for each in self.reports))
        return self.reports[-1]

    def value(self, key: str) -> str:
        """Return a value of the next report."""
        del self.reports[:]
        self.until(lambda: self.reports)
        return {each.key: each.value for each in self.reports[-1].values}[key]

    def close(self) -> None:
        """End everything."""
        while self.nodes:
            node = self.nodes.pop()
            node.end()
            node.destroy_node()
        self.client.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Return a stage that is cleared after the test."""
    stage = Stage()
    yield stage
    stage.close()


# States


class HangingEngine(InstantEngine):
    """Holds frames until it is let go."""

    working, go = Event(), Event()
    inside = most = 0

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None) -> Any:
        """Count who is in here, and wait."""
        HangingEngine.inside += 1
        HangingEngine.most = max(HangingEngine.most, HangingEngine.inside)
        self.working.set()
        assert self.go.wait(WAIT)
        HangingEngine.inside -= 1
        return super().infer(image, settings, camera, stream)


def test_a_frame_that_hangs_meets_no_second_worker(stage, monkeypatch, capfd):
    monkeypatch.setattr(lifecycle, 'DEACTIVATION_PATIENCE', 0.2)
    HangingEngine.most = 0
    HangingEngine.working.clear()
    HangingEngine.go.clear()
    node = stage.running(HangingEngine)
    depth = stage.listen(node, 'depth')
    stage.send()
    stage.until(HangingEngine.working.is_set)
    began = time.monotonic()
    assert node.trigger_deactivate() == SUCCESS
    assert time.monotonic() - began < 2.0  # others are served meanwhile
    assert 'was not finished in 0 s' in stage.report(DiagnosticStatus.ERROR, 'frame').message
    assert node.trigger_activate() == FAILURE
    assert 'has still not ended: try again later' in capfd.readouterr().err
    HangingEngine.go.set()
    stage.until(lambda: node.trigger_activate() == SUCCESS)
    # What came of it is of no use any more, and is counted.
    stage.until(lambda: node.counts.dropped_by_cause == {'shutdown': 1})
    stage.send_until(lambda: depth)
    assert depth[0].header.stamp.sec > 1  # not the one that hung
    assert HangingEngine.most == 1
    stage.report(DiagnosticStatus.OK, 'frames/s')


def test_an_engine_that_hangs_is_left_behind_by_cleaning_up(stage, monkeypatch):
    for name in ('DEACTIVATION_PATIENCE', 'SHUTDOWN_PATIENCE'):
        monkeypatch.setattr(lifecycle, name, 0.2)
    HangingEngine.working.clear()
    HangingEngine.go.clear()
    node = stage.running(HangingEngine)
    depth = stage.listen(node, 'depth')
    stage.send()
    stage.until(HangingEngine.working.is_set)
    before = node._engine
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert node.trigger_configure() == SUCCESS
    assert node._engine is not before
    assert node.trigger_activate() == SUCCESS
    HangingEngine.go.set()
    stage.send_until(lambda: depth)
    assert depth[0].header.stamp.sec > 1  # not the one that hung


def test_disabling_ends_with_the_configuration(stage, capfd):
    node = stage.running()
    node._enabled = False
    stage.report(DiagnosticStatus.WARN, 'disabled by ~/enable')
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert not node._enabled
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert node._enabled
    assert '~/enable is on again' in capfd.readouterr().err


def test_another_node_of_that_name_is_told(stage, capfd):
    stage.running()
    stage.send()
    stage.nodes.append(AdamtlNode(engine_class=InstantEngine))  # in nobody's executor
    for _ in range(3):
        stage.until(lambda: 'another node is named /adamtl' in [stage.send(), stage.report(
            DiagnosticStatus.WARN, '')][1].message)
    assert capfd.readouterr().err.count('another node is named /adamtl') == 1


# Cost


def test_what_nobody_wants_is_not_even_decoded(stage, monkeypatch):
    def unwanted(message):
        raise AssertionError('decoded')

    for name in ('rgb_from_compressed', 'rgb_from_image'):
        monkeypatch.setattr(worker, name, unwanted)
    node = stage.running()
    stats = stage.listen(node, 'gating_stats', GatingStats)
    stage.send()
    stage.until(lambda: stats)
    camera = stage.client.create_publisher(CompressedImage, 'image/compressed', 10)
    stage.client.destroy_publisher(stage.camera)
    jpeg = cv2.imencode('.jpg', np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    stage.send(CompressedImage(format='jpeg', data=array('B', jpeg)), camera)
    stage.until(lambda: len(stats) == 2)
    assert (stats[1].frames_processed, stats[1].frames_dropped) == (2, 0)
    assert (stats[1].gmacs, stats[1].task_stats, stats[1].input_width) == (0.0, [], 0)
    stage.listen(node, 'depth')
    stage.send(CompressedImage(format='jpeg', data=array('B', jpeg)), camera)
    stage.until(lambda: node.counts.dropped_by_cause == {'error': 1})


# Cameras


class SeeingEngine(InstantEngine):
    """Keeps the camera that it was given."""

    seen: list[Camera | None] = []

    def infer(
            self, image: np.ndarray, settings: Any, camera: Camera | None = None,
            stream: Any = None) -> Any:
        """Keep the camera."""
        self.seen.append(camera)
        return super().infer(image, settings, camera, stream)


def test_the_engine_knows_the_camera(stage, capfd):
    del SeeingEngine.seen[:]
    node = stage.running(SeeingEngine)
    depth = stage.listen(node, 'depth')
    scaled = stage.listen(node, 'camera_info', CameraInfo)
    infos = stage.client.create_publisher(CameraInfo, 'camera_info', 10)
    info = CameraInfo(width=64, height=48, k=[50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0])

    def see(frame_id):
        info.header.frame_id = frame_id
        stage.until(infos.get_subscription_count)
        infos.publish(info)
        taken(infos, stage.client, stage.until)
        number = len(depth)
        stage.send()
        stage.until(lambda: len(depth) > number)
        return SeeingEngine.seen[-1]

    stage.send()
    stage.until(lambda: depth)
    assert SeeingEngine.seen == [None]
    assert stage.value('camera') == 'nominal: no camera_info'
    assert see('optical') == Camera(64, 48, 50.0, 51.0, 32.0, 24.0)
    stage.until(lambda: scaled)
    assert stage.value('camera') == 'fx 50 of 64 pixels'
    # Of another frame or size: refused, and not given another stamp.
    assert see('left') is None
    stage.report(DiagnosticStatus.WARN, "camera_info is of the frame 'left'")
    info.width = 128
    assert see('optical') is None
    stage.report(DiagnosticStatus.WARN, 'of 128 x 48')
    assert len(scaled) == 1
    info.width, info.d = 64, [0.1, 0.0, 0.0, 0.0, 0.0]
    assert see('optical').fx == 50
    assert 'not rectified' in stage.value('camera')
    info.k = [0.0] * 9
    assert see('optical') is None
    assert 'not calibrated' in stage.value('camera')
    assert see('optical') is None
    stage.value('camera')
    log = capfd.readouterr().err
    for words in ("of the frame 'left'", 'of 128 x 48', 'not rectified', 'not calibrated'):
        assert log.count(words) == 1, log


def test_random_changes_of_cameras(stage):
    """Whatever comes and goes and sends what: the node is up, and every frame is counted once."""
    generator = random.Random(2)
    node = stage.running()
    depth = stage.listen(node, 'depth')
    got: dict[str, list[int]] = {}
    receive = node._inputs._receive

    def note(message, received, missed):
        got.setdefault(message.header.frame_id, []).append(message.header.stamp.sec)
        receive(message, received, missed)

    node._inputs._receive = note
    stage.client.destroy_publisher(stage.camera)
    # Participants of their own, as those of drivers are: one cannot have two types on a topic.
    contexts = [rclpy.Context() for _ in range(2)]
    for each in contexts:
        each.init()
    drivers = [rclpy.create_node('driver', context=each) for each in contexts]
    jpeg = array('B', cv2.imencode('.jpg', np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    cameras: dict[str, tuple[Any, Any, Any]] = {}
    sent: dict[str, int] = {}

    def come(name, message, topic, reliability):
        driver = drivers[isinstance(message, CompressedImage)]
        camera = driver.create_publisher(type(message), topic, QoSProfile(
            depth=generator.choice((1, 10)), reliability=reliability,
            durability=generator.choice(DURABILITIES)))
        message.header.frame_id = name
        cameras[name], sent[name] = (driver, camera, message), 0

    def go(name):
        driver, camera, _ = cameras.pop(name)
        driver.destroy_publisher(camera)

    def send():
        for name, (_, camera, message) in cameras.items():
            message.header.stamp.sec = sent[name] = sent[name] + 1
            camera.publish(message)
        stage.executor.spin_once(0.0)

    def message():
        if generator.random() < 0.3:
            return CompressedImage(format='jpeg', data=jpeg[:generator.choice((999999, 30))])
        encoding = generator.choice(('rgb8', 'mono8', 'bayer_rggb8', 'nv12', '32FC1', 'hsv8'))
        width, height = generator.choice(((64, 48), (320, 240), (7, 5)))
        return Image(encoding=encoding, width=width, height=height, step=3 * width,
                     data=array('B', bytes(3 * width * height)))

    for number in range(CHANGES):
        if len(cameras) > 3 or (cameras and generator.random() < 0.4):
            go(generator.choice(list(cameras)))
        else:
            each = message()
            topic = 'image' if isinstance(each, Image) else generator.choice(
                ('image', 'image/compressed'))
            come(f'{number}', each, topic, generator.choice(RELIABILITIES))
        for _ in range(generator.randrange(8)):
            send()
        if number % 20 == 19:
            while cameras:
                go(next(iter(cameras)))
            name = f'good {number}'
            come(name, Image(encoding='rgb8', width=64, height=48, step=192,
                             data=array('B', bytes(192 * 48))),
                 'image', generator.choice(RELIABILITIES))
            end = time.monotonic() + WAIT
            while not depth or depth[-1].header.frame_id != name:
                assert time.monotonic() < end, 'a good camera is not answered'
                send()
                time.sleep(0.01)
            go(name)
    received = sum(map(len, got.values()))
    stage.until(lambda: node.counts.received == received)
    counts = node.counts
    assert all(each == sorted(set(each)) for each in got.values())  # none twice
    assert counts.missed == sum(each[-1] - each[0] + 1 - len(each) for each in got.values())
    assert node._state_machine.current_state[1] == 'active'
    print(f'{CHANGES} changes: {sum(sent.values())} frames sent, {counts}')
    for driver, context in zip(drivers, contexts):
        driver.destroy_node()
        context.shutdown()


def test_the_camera_names_the_hardware(stage):
    node = stage.running()
    stage.listen(node, 'depth')
    stage.send()
    assert stage.report(DiagnosticStatus.OK, 'frames/s').hardware_id == 'optical'
    node.set_parameters([Parameter('hardware_id', value='front')])
    stage.until(lambda: [stage.send(), stage.report(DiagnosticStatus.OK, '')][
        1].hardware_id == 'front')


def test_static_asks_for_all(stage):
    node = stage.running(budget=0.5)
    stats = stage.listen(node, 'gating_stats', GatingStats)
    stage.listen(node, 'depth')
    stage.send()
    stage.until(lambda: stats)
    assert stats[0].budget_requested == 1.0
    assert stage.value('budget requested') == '1'
    node.set_parameters([Parameter('mode', value='adaptive')])
    stage.send()
    stage.until(lambda: len(stats) == 2)
    assert stats[1].budget_requested == 0.5
    assert stage.value('budget requested') == '0.5'


def test_a_listener_of_what_is_turned_off_is_told(stage, capfd):
    node = stage.running(tasks__depth__enable=False)
    stage.listen(node, 'depth')
    stage.send()
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


# Parameters


class NamedEngine(InstantEngine):
    """Knows what it was made of, and has classes."""

    def __init__(self, model: str, **values: Any) -> None:
        """Keep the values."""
        super().__init__(model)
        self.values = values
        self.tasks = tuple(TASKS)
        self.class_names = {'semseg': ('wall', 'floor') if model == 'glasses' else ('sky',)}


def test_what_is_loaded_can_be_set_until_it_is(stage):
    node = stage.node(NamedEngine)

    def classes():
        return list(node.get_parameter('tasks.semseg.class_names').value)

    def set_all():
        return node.set_parameters([
            Parameter('model', value='other'), Parameter('backend', value='torch'),
            Parameter('num_threads', value=3)])

    assert node.trigger_configure() == SUCCESS
    assert classes() == ['wall', 'floor']
    for result in set_all():
        assert not result.successful
        assert 'clean it up' in result.reason
    assert node.trigger_cleanup() == SUCCESS
    assert all(result.successful for result in set_all())
    assert node.trigger_configure() == SUCCESS
    assert (node._engine.model, node._engine.values['backend']) == ('other', 'torch')
    assert node._engine.values['num_threads'] == 3
    assert classes() == ['sky']
    (result,) = node.set_parameters([Parameter('tasks.semseg.class_names', value=['a'])])
    assert not result.successful
    assert 'read-only' in result.reason


def test_a_whole_file_can_be_loaded_into_a_node_that_runs(stage):
    node = stage.running(NamedEngine)
    # As `ros2 param load` reads it: each value once more through YAML.
    parameters = [
        Parameter.from_parameter_msg(each) for each in parameter_dict_from_yaml_file(
            str(share('config', 'glasses.yaml')), use_wildcard=True).values()]
    assert {each.name for each in parameters} == set(PARAMETERS)
    for each, result in zip(parameters, node.set_parameters(parameters)):
        assert result.successful, (each.name, result.reason)


@pytest.mark.parametrize(('name', 'given', 'taken'), [
    ('guard.action', False, 'off'), ('budget', 1, 1.0), ('guard.agreement', 0, 0.0)])
def test_values_that_yaml_reads_otherwise(stage, name, given, taken):
    node = stage.node(**{name: given})
    assert node.get_parameter(name).value == taken
    assert node.trigger_configure() == SUCCESS
    node.set_parameters([Parameter(name, value=taken)])
    (result,) = node.set_parameters([Parameter(name, value=given)])
    assert result.successful, result.reason
    assert node.get_parameter(name).value == taken
    result = node.set_parameters_atomically([Parameter('mode', value=given)])
    assert not result.successful
    assert 'mode' in result.reason


def test_what_is_not_known_is_said_with_what_was_meant(stage, capfd):
    node = stage.running(InstantEngine, '-r', 'image:=/cam/image_raw', buget=0.5, zzz=1, **{
        'tasks.depth.enabled': False, 'tasks.semseg.class_names': ['a'],
        'qos_overrides./cam/image_ra.subscription.reliability': 'reliable',
        'qos_overrides./cam/image_raw.subscription.reliability': 'best_effort',
        'qos_overrides./adamtl/depth.publisher.liveliness': 'automatic',
        'qos_overrides./cam/image_raw/compressed.subscription.depth': 3})
    log = capfd.readouterr().err
    for words in ('parameter buget is not known, and its value ignored: did you mean budget?',
                  'parameter zzz is not known, and its value ignored\n',
                  'tasks.depth.enabled is not known, and its value ignored: did you mean '
                  'tasks.depth.enable?',
                  'the node has no topic /cam/image_ra: did you mean /cam/image_raw?',
                  'liveliness is ignored: of this topic only deadline, depth, durability'):
        assert words in log, words
    for word in ('class_names is', 'image_raw.subscription.reliability is', 'compressed.'):
        assert word not in log, word
    (result,) = node.set_parameters([Parameter('buget', value=0.5)])
    assert not result.successful
    assert 'did you mean budget?' in result.reason


@pytest.mark.parametrize(('content', 'node', 'said'), [
    ('/**: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('/**/adamtl: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('/**/adamtl: {ros__parameters: {a: 1}}', '/x/y/adamtl', False),
    ('/*/adamtl: {ros__parameters: {a: 1}}', '/left/adamtl', False),
    ('/*/adamtl: {ros__parameters: {a: 1}}', '/adamtl', True),
    ('adamtl: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('left: {adamtl: {ros__parameters: {a: 1}}}', '/left/adamtl', False),
    ('adamtl: {ros__parameters: {a: 1}}', '/left/adamtl', True),
    ('{adamtll: {ros__parameters: {a: 1}}, /b/c: {ros__parameters: {}}}', '/adamtl', True),
    ('', '/adamtl', False)])
def test_a_file_for_another_node_is_told(tmp_path, content, node, said):
    path = tmp_path / 'p.yaml'
    path.write_text(content)
    words = unmatched(path, node)
    assert bool(words) == said
    if said:
        assert all(word in words for word in (str(path), node, 'they are ignored'))


# The process


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """Start the executable's main()."""
    return subprocess.Popen(
        [sys.executable, '-c',
         'import sys; from adamtl_ros.nodes.node import main; sys.exit(main())', *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment)


@pytest.mark.slow
@pytest.mark.parametrize(('arguments', 'code', 'words'), [
    (['--help'], 0, ['usage: adamtl_node', '--ros-args']),
    (['--bogus'], 2, ["'--bogus'", '--help']),
    (['budget:=0.5'], 2, ['--ros-args -p budget:=0.5']),
    (['--ros-args', '--bogus'], 1, ['--bogus']),
    (['--ros-args', '--params-file', '/'], 1, ['--params-file /', 'a folder']),
    (['--ros-args', '--params-file', '/nope.yaml'], 1, ['/nope.yaml', 'no such file']),
])
def test_a_command_line_that_is_wrong_is_one_line(arguments, code, words):
    process = start(*arguments)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == code, output
    assert all(word in output for word in words), output
    assert code == 0 or output.count('\n') == 1, output


@pytest.mark.slow
def test_a_home_without_a_place_for_logs(tmp_path):
    (tmp_path / 'file').touch()
    environment = {name: value for name, value in os.environ.items() if name != 'ROS_LOG_DIR'}
    process = subprocess.Popen(
        [sys.executable, '-m', 'adamtl_ros.nodes.node', '--ros-args', '-p', 'autostart:=false'],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment | {'HOME': str(tmp_path / 'file')})
    try:
        assert 'logs go to the terminal alone' in process.stdout.readline()
        process.terminate()
        output, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 0, output


@pytest.mark.slow
def test_a_user_without_a_home():
    code = """
import pwd, sys
from adamtl_ros.nodes import node
def nobody(user): raise KeyError(user)
pwd.getpwuid = nobody
from adamtl_ros.paths import cache
print('kept in', cache())
sys.exit(node.main(['--ros-args', '-p', 'model:=nothing']))
"""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('HOME', 'ROS_LOG_DIR', 'ROS_HOME', 'XDG_CACHE_HOME',
                                   'ADAMTL_CACHE')}
    process = subprocess.run(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, timeout=WAIT)
    assert process.returncode == 1, process.stdout  # for there is no such model
    assert 'logs go to the terminal alone' in process.stdout
    assert 'kept in /dev/null/adamtl_ros' in process.stdout
    assert 'cannot configure' in process.stdout
    assert 'Traceback' not in process.stdout


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(('autostart', 'words'), [
    (True, 'stopped while it was being started'),
    (False, 'stopped in the middle of a transition')])
def test_a_signal_while_the_model_is_loaded_ends_it_soon(number, autostart, words):
    code = """
import sys, threading, time
# Neither this thread nor those of what is imported hold signals back: they may get them.
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from adamtl_ros.nodes import node, lifecycle
class Slow(lifecycle.Engine):
    def __init__(self, *args, **kwargs):
        print('now it loads', flush=True)
        time.sleep(60)
class AdamtlNode(lifecycle.AdamtlNode):
    def __init__(self):
        super().__init__(engine_class=Slow)
        # Where it does not start by itself: as when a service asks for it.
        if not self.autostart:
            self.create_timer(0.1, self.trigger_configure)
lifecycle.AdamtlNode = AdamtlNode
sys.exit(node.main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, '-c', code, '--ros-args', '-p', f'autostart:={autostart}'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while process.stdout.readline() != 'now it loads\n':
            assert process.poll() is None
        process.send_signal(number)
        began = time.monotonic()
        output, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert time.monotonic() - began < 10.0
    assert process.returncode == 0, output
    assert 'Traceback' not in output
    assert words in output


@pytest.mark.slow
def test_why_it_did_not_start_is_in_the_diagnostics(stage):
    process = start('--ros-args', '-p', 'backend:=tvm')
    try:
        stage.until(lambda: any(
            each.level == DiagnosticStatus.ERROR and 'tvm' in each.message
            for each in stage.reports))
        output, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert output.count("'tvm'") == 1, output

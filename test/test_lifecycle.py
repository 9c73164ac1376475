# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The states of the node, and the cameras that come and go meanwhile.

ADAMTL_CAMERA_CHANGES sets the number of random changes of cameras (default 60).
"""

from array import array
import os
import random
from threading import Event
import time
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.camera import Camera  # noqa: E402
from adamtl_ros.nodes import lifecycle  # noqa: E402
from instant import InstantEngine  # noqa: E402
from ros_graph import FAILURE  # noqa: E402
from ros_graph import picture  # noqa: E402
from ros_graph import SUCCESS  # noqa: E402
from ros_graph import WAIT  # noqa: E402

CHANGES = int(os.environ.get('ADAMTL_CAMERA_CHANGES', '60'))
RELIABILITIES = (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
DURABILITIES = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)


def test_all_transitions_over_services(stage):
    node = stage.node()

    def state():
        return stage.call(
            GetState, 'adamtl/get_state', GetState.Request()).current_state.label

    def change(transition, then):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert stage.call(ChangeState, 'adamtl/change_state', request).success
        assert state() == then
        # One that is not active does not listen.
        stage.until(lambda: bool(stage.camera.get_subscription_count()) == (then == 'active'))

    assert state() == 'unconfigured'
    for _ in range(2):
        change(Transition.TRANSITION_CONFIGURE, 'inactive')
        stage.camera.publish(picture())
        for _ in range(2):
            change(Transition.TRANSITION_ACTIVATE, 'active')
            stage.listen('depth')
            stage.answer('depth')
            change(Transition.TRANSITION_DEACTIVATE, 'inactive')
        change(Transition.TRANSITION_CLEANUP, 'unconfigured')
    change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, 'finalized')
    assert node.counts.received == 4


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
    depth = stage.listen('depth')
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
    depth = stage.listen('depth')
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
    stage.running(SeeingEngine)
    depth, scaled = stage.listen('depth', 'camera_info')
    infos = stage.client.create_publisher(CameraInfo, 'camera_info', 10)
    info = CameraInfo(width=64, height=48, k=[50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0])

    def see(frame_id):
        info.header.frame_id = frame_id
        stage.met(infos).publish(info)
        stage.taken(infos)
        number = len(depth)
        stage.send()
        stage.until(lambda: len(depth) > number)
        return SeeingEngine.seen[-1]

    stage.send()
    stage.until(lambda: depth)
    assert SeeingEngine.seen == [None]
    assert stage.values()['camera'] == 'nominal: no camera_info'
    assert see('camera') == Camera(64, 48, 50.0, 51.0, 32.0, 24.0)
    stage.until(lambda: scaled)
    assert stage.values()['camera'] == 'fx 50 of 64 pixels'
    # Of another frame or size: refused, and not given another stamp.
    assert see('left') is None
    stage.report(DiagnosticStatus.WARN, "camera_info is of the frame 'left'")
    info.width = 128
    assert see('camera') is None
    stage.report(DiagnosticStatus.WARN, 'of 128 x 48')
    assert len(scaled) == 1
    info.width, info.d = 64, [0.1, 0.0, 0.0, 0.0, 0.0]
    assert see('camera').fx == 50
    assert 'not rectified' in stage.values()['camera']
    info.k = [0.0] * 9
    assert see('camera') is None
    assert 'not calibrated' in stage.values()['camera']
    assert see('camera') is None
    stage.values()['camera']
    log = capfd.readouterr().err
    for words in ("of the frame 'left'", 'of 128 x 48', 'not rectified', 'not calibrated'):
        assert log.count(words) == 1, log


def test_random_changes_of_cameras(stage):
    """Whatever comes and goes and sends what: the node is up, and every frame is counted once."""
    generator = random.Random(2)
    node = stage.running()
    depth = stage.listen('depth')
    got: dict[str, list[int]] = {}
    receive = node._inputs._receive

    def note(message, received, missed):
        got.setdefault(message.header.frame_id, []).append(message.header.stamp.sec)
        receive(message, received, missed)

    node._inputs._receive = note
    stage.client.destroy_publisher(stage.camera)
    # Participants of their own, as those of drivers are: one cannot have two types on a topic.
    drivers = [stage.join('driver', apart=True) for _ in range(2)]
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
                stage.executor.spin_once(0.01)
            go(name)
    received = sum(map(len, got.values()))
    stage.until(lambda: node.counts.received == received)
    counts = node.counts
    assert all(each == sorted(set(each)) for each in got.values())  # none twice
    assert counts.missed == sum(each[-1] - each[0] + 1 - len(each) for each in got.values())
    assert node._state_machine.current_state[1] == 'active'
    print(f'{CHANGES} changes: {sum(sent.values())} frames sent, {counts}')

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What must not bring the node down: malformed messages, dying peers, time that jumps.

ADAMTL_FUZZ_CASES sets the number of fuzzed messages of each kind (default 200).
"""

from array import array
from collections.abc import Iterator
import os
from pathlib import Path
import signal
import struct
import subprocess
import sys
from typing import Any
import zlib

import cv2
from hypothesis import example
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from rclpy.serialization import serialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.conversions import ENCODINGS  # noqa: E402
from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from ros_graph import Stage  # noqa: E402
from ros_graph import WAIT  # noqa: E402

pytestmark = pytest.mark.slow

CASES = int(os.environ.get('ADAMTL_FUZZ_CASES', '200'))


class Watched(Stage):
    """A node, and a camera and a listener that have met it."""

    def __init__(self, transport: str = 'raw', **values: Any) -> None:
        """Start the node and wait until all have met."""
        super().__init__(image_transport=transport, **values)
        self.kind = Image if transport == 'raw' else CompressedImage
        if self.kind is CompressedImage:
            self.camera = self.client.create_publisher(self.kind, 'image/compressed', 10)
        self.active = self.running()
        self.stats, self.depth = self.listen('gating_stats', 'depth')
        self.met(self.camera)
        self.sent = 0

    def give(self, message: Any) -> None:
        """Send a message as it is and wait until the node has decided about it."""
        self.sent += 1
        self.camera.publish(message)
        self.until(lambda: self.active.counts.received == self.sent)

    def good(self) -> None:
        """Send a good frame: it must be answered, and the account must be right."""
        message = good(self.kind)
        message.header.stamp.sec = 10_000 + self.sent
        self.give(message)
        self.until(lambda: all(got and got[-1].header == message.header
                               for got in (self.stats, self.depth)))
        stats = self.stats[-1]
        assert stats.frames_received == stats.frames_processed + stats.frames_dropped == self.sent


@pytest.fixture
def graph(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Return a graph; the parameter is the node's parameters."""
    graph = Watched(**getattr(request, 'param', {}))
    yield graph
    graph.close()


def good(kind: type) -> Any:
    """Return a frame that must be answered."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    if kind is Image:
        return Image(encoding='rgb8', width=64, height=48, step=192,
                     data=array('B', picture.tobytes()))
    return CompressedImage(
        format='jpeg', data=array('B', cv2.imencode('.jpg', picture)[1].tobytes()))


NUMBERS = st.one_of(
    st.integers(0, 70), st.sampled_from([640, 2**15, 2**16 + 1, 2**31, 2**32 - 1]))
# ROS strings are without NUL, and surrogates are no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=20)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Return an Image of which anything may be wrong, or nothing."""
    encoding = draw(st.one_of(st.sampled_from(sorted(ENCODINGS)), TEXTS))
    width, height = draw(NUMBERS), draw(NUMBERS)
    known = ENCODINGS.get(encoding)
    row = width * (known.channels * known.depth if known else draw(st.integers(1, 8)))
    step = draw(st.one_of(st.just(row), st.just(row + 3), NUMBERS)) % 2**32
    length = draw(st.one_of(st.just(step * height), st.integers(0, 5000)))
    if length > 50_000:
        length = draw(st.integers(0, 5000))
    seed = draw(st.binary(min_size=1, max_size=64))
    message = Image(
        encoding=encoding, width=width, height=height, step=step,
        is_bigendian=draw(st.integers(0, 255)),
        data=array('B', (seed * (length // len(seed) + 1))[:length]))
    _header(message, draw)
    return message


def _header(message: Any, draw: st.DrawFn) -> None:
    message.header.frame_id = draw(TEXTS)
    message.header.stamp.sec = draw(st.sampled_from([0, 1, -1, 2**31 - 1, -2**31]))
    message.header.stamp.nanosec = draw(st.sampled_from([0, 10**9 - 1, 2**32 - 1]))


def encoded(suffix: str) -> bytes:
    """Return a small picture as a file."""
    picture = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.imencode(suffix, picture)[1].tobytes()


FILES = [encoded(suffix) for suffix in ('.jpg', '.png', '.bmp', '.webp', '.tiff', '.ppm')]


@st.composite
def compressed(draw: st.DrawFn) -> CompressedImage:
    """Return a CompressedImage: noise, or a picture with some of it changed or cut off."""
    data = bytearray(draw(st.one_of(st.sampled_from(FILES), st.binary(max_size=300))))
    for _ in range(draw(st.integers(0, 4)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    message = CompressedImage(
        format=draw(st.one_of(st.sampled_from(['jpeg', 'png', 'rgb8; jpeg compressed bgr8']),
                              TEXTS)),
        data=array('B', bytes(data[:cut])))
    _header(message, draw)
    return message


FUZZ = settings(
    max_examples=CASES, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@FUZZ
@given(message=images(), follow=st.integers(0, 9))
def test_fuzzed_images(graph, message, follow):
    graph.give(message)
    if not follow:
        graph.good()


@pytest.mark.parametrize('graph', [{'transport': 'compressed'}], indirect=True)
@FUZZ
@given(message=compressed(), follow=st.integers(0, 9))
@example(message=CompressedImage(format='jpeg'), follow=0)
def test_fuzzed_compressed_images(graph, message, follow):
    graph.give(message)
    if not follow:
        graph.good()


@pytest.mark.parametrize('graph', [{}, {'transport': 'compressed'}], indirect=True)
def test_bytes_that_are_no_message(graph):
    generator = np.random.default_rng(0)
    whole = serialize_message(good(graph.kind))
    for number in range(CASES):
        data = bytearray(whole)
        for place in generator.integers(0, min(len(data), 120), 3):
            data[place] = generator.integers(256)
        graph.camera.publish(bytes(data[:generator.integers(1, len(data) + 1)]))
        graph.executor.spin_once(0.0)
        if number % 20 == 0:
            # What came of them is the middleware's secret; the next good frame is answered.
            stats = len(graph.stats)
            message = good(graph.kind)
            message.header.frame_id = f'good {number}'
            graph.camera.publish(message)
            graph.until(lambda stats=stats, message=message: any(
                each.header == message.header for each in graph.stats[stats:]))
    counts = graph.active.counts
    assert counts.received == counts.processed + counts.dropped
    assert counts.received >= CASES // 20


def test_frames_of_changing_size_and_encoding(graph):
    for number, (encoding, width, height) in enumerate([
            ('rgb8', 64, 48), ('bgr8', 48, 64), ('mono8', 1, 1), ('bayer_rggb8', 640, 480),
            ('yuv422_yuy2', 320, 240), ('mono16', 3, 2000), ('rgba8', 2000, 3), ('rgb8', 64, 48)]):
        known = ENCODINGS[encoding]
        step = width * known.channels * known.depth
        message = Image(encoding=encoding, width=width, height=height, step=step,
                        data=array('B', bytes(step * height)))
        message.header.stamp.sec = 100 + number
        graph.give(message)
        graph.until(lambda message=message: graph.stats
                    and graph.stats[-1].header == message.header)
        graph.until(lambda: len(graph.depth) == len(graph.stats))
    assert graph.stats[-1].frames_dropped == 0


@pytest.mark.parametrize('graph', [{'use_sim_time': True}], indirect=True)
def test_time_that_stands_still_and_jumps_backwards(graph):
    clock = graph.client.create_publisher(Clock, '/clock', 10)
    got = graph.hear('/diagnostics')
    graph.met(clock)
    graph.until(lambda: got)  # though no time has come yet
    for seconds in (1000, 1001, 5, 0, 2000):
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)
        graph.until(lambda seconds=seconds:
                    graph.active.get_clock().now().nanoseconds == seconds * 10**9)
        frame = good(Image)
        frame.header.stamp.sec = seconds
        graph.give(frame)
        graph.until(lambda frame=frame: graph.stats and graph.stats[-1].header == frame.header)
    assert [each.header.stamp.sec for each in graph.stats] == [1000, 1001, 5, 0, 2000]
    del got[:]
    graph.until(lambda: got and got[-1].header.stamp.sec == 2000)


# The installed executable, and what happens around it


def executable(name: str = 'adamtl_node') -> str:
    """Return the path of an installed command."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    for prefix in prefixes:
        if os.access(Path(prefix, 'bin', name), os.X_OK):
            return str(Path(prefix, 'bin', name))
    pytest.skip(f'{name} is not installed')


class Process(Stage):
    """The executable in a process, and a client in this one."""

    def __init__(self, log: Path) -> None:
        """Prepare the client."""
        super().__init__()
        self.log = log
        self.processes: list[subprocess.Popen] = []
        self.stats: list[GatingStats] = []
        self.client.create_subscription(GatingStats, 'adamtl/gating_stats', self.stats.append, 10)

    def popen(self, *command: str, **environment: str) -> subprocess.Popen:
        """Start a process that ends with the test."""
        profiles = {f'{name}_DEFAULT_PROFILES_FILE': str(share('config', 'fastdds.xml'))
                    for name in ('FASTDDS', 'FASTRTPS')}
        with self.log.open('ab') as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | profiles | environment)
        self.processes.append(process)
        return process

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start the node and wait until it has met this camera."""
        process = self.popen(executable(), '--ros-args', *arguments, **environment)
        self.until(lambda: self.client.count_publishers('adamtl/gating_stats'), process)
        return process

    def answered(self, process: subprocess.Popen) -> GatingStats:
        """Send frames until one is answered; return its statistics."""
        before = self.frames
        self.send_until(lambda: self.stats and self.stats[-1].header.stamp.sec > before, process)
        return self.stats[-1]

    def end(self, process: subprocess.Popen) -> None:
        """End the node by SIGTERM: in good order."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0, self.log.read_text()
        assert 'Traceback' not in self.log.read_text()

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(WAIT)
        super().close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Process]:
    """Return what runs and watches the executable."""
    world = Process(tmp_path / 'log')
    yield world
    world.close()


def test_a_camera_that_is_killed_and_a_listener_that_never_reads(world, weights, tmp_path):
    node = world.start('-p', 'num_threads:=1', '-p', f'model:={weights}')
    listener = world.popen(sys.executable, '-c', """
import rclpy, time
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('sleeper')
node.create_subscription(Image, 'adamtl/depth', print, 1)
time.sleep(600)
""")
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    cv2.imwrite(str(pictures / 'a.png'), np.zeros((48, 64, 3), np.uint8))
    player = world.popen(
        executable('adamtl_player'), str(pictures), '--loop', '--rate', '20', '--wait', '30')
    # It may stand still only once the node has met it: who is not met gets nothing.
    world.until(lambda: world.stats and [
        each.name for each in world.stats[-1].task_stats] == ['depth'], node)
    os.kill(listener.pid, signal.SIGSTOP)
    before = len(world.stats)
    world.until(lambda: len(world.stats) > before + 10, node)
    assert [each.name for each in world.stats[-1].task_stats] == ['depth']
    player.kill()
    for _ in range(5):
        stats = world.answered(node)
    assert stats.frames_received == stats.frames_processed + stats.frames_dropped
    world.end(node)
    assert 'stopped after' in world.log.read_text()


def test_nowhere_to_write(world, weights):
    # Below a file there can be no folder, whoever asks.
    nowhere = f'{world.log}/folder'
    world.log.touch()
    node = world.start(
        '-p', 'num_threads:=1', '-p', f'model:={weights}', XDG_CACHE_HOME=nowhere, HOME=nowhere)
    world.answered(node)
    world.end(node)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def test_a_picture_that_claims_to_be_huge_is_dropped(world, weights):
    node = world.start(
        '-p', 'num_threads:=1', '-p', f'model:={weights}', '-p', 'image_transport:=compressed')
    # What nobody wants results of is not decoded.
    depth = world.hear('/adamtl/depth', Image)
    camera = world.client.create_publisher(CompressedImage, 'image/compressed', 10)
    # Before the large one, that all have met: who is not met gets nothing.
    small = good(CompressedImage)
    world.send_until(lambda: depth, node, small, camera)
    head = struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0)
    bomb = (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))
    camera.publish(CompressedImage(format='png', data=array('B', bomb)))
    world.until(lambda: 'dropped: decode' in world.values(), node)
    peak = next(int(line.split()[1]) for line in
                Path(f'/proc/{node.pid}/status').read_text().splitlines() if 'VmHWM' in line)
    assert peak < 1_500_000  # kB; the picture would be 2.7 GB
    world.send(small, camera)
    world.until(lambda: depth[-1].header == small.header, node)
    world.end(node)

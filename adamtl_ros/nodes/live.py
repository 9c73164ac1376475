# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recording played into the running node over ROS 2, and what a subscriber saw of it."""

from hashlib import blake2b
import math
from pathlib import Path
import sys
from time import monotonic
from typing import Any
from typing import NamedTuple

import numpy as np
from rich.console import Console

from adamtl_ros import dds
from adamtl_ros.bag.measures import percentiles
from adamtl_ros.bag.measures import Sample
from adamtl_ros.bag.one import Options
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import CAMERA_INFO
from adamtl_ros.bag.reading import COMPRESSED
from adamtl_ros.bag.reading import decode
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.storage import Message
from adamtl_ros.bag.storage import unpacked
from adamtl_ros.conversions import readable
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.images import published_images
from adamtl_ros.runtime.settings import MOST_FRAMES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Known
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.tasks import TASKS

RUNS = ('model', 'backend', 'precision', 'device')
"""What the node must run as `adamtl bag` does, for the same results."""

DISCOVERY = 30.0
"""Seconds in which the node must be found."""

ANSWER = 10.0
"""Seconds in which the last frame must be answered."""

GRACE = 1.5
"""Seconds from being matched to the first frame: discovery goes topic by topic."""

CLOCK_PERIOD = 0.02

DIGEST = 16
"""Bytes that tell images apart."""

TASK_AT = tuple(TASKS)


def digest(data: Any, encoding: str) -> bytes:
    """Return what tells two images apart; data: anything with a buffer."""
    return blake2b(memoryview(data), digest_size=DIGEST, key=encoding.encode()).digest()


class Answered(NamedTuple):
    """What is kept of the statistics of a frame, to process it once more."""

    mode: str
    budget_requested: float
    budget_cap: float
    tasks: tuple[str, ...]
    price: float
    reused: bool
    warped: bool
    fused: bool


class Live:
    """What was played and answered; as an observer it processes the same frames once more."""

    def __init__(self, rate: float) -> None:
        """Begin with nothing played."""
        self.rate = rate
        self.sent: dict[int, int] = {}
        # Of each image of a frame: the place of its task in TASK_AT, and the digest.
        self.digests: dict[int, bytes] = {}
        self.stats: dict[int, Answered] = {}
        self.delivery = Sample()
        self.latency = Sample()
        self.unstamped = 0
        self.parameters: dict[str, Any] = {}
        self.identical = 0
        self.differing: list[dict[str, Any]] = []
        self.different = 0
        self._stream = Stream()
        # Frames are answered for few sets of tasks: one of each is enough.
        self._tasks: dict[tuple[str, ...], tuple[str, ...]] = {}

    def message(self, stamp: int, name: str, message: Any) -> None:
        """Keep a digest of an image of the node, and what its statistics tell of the way."""
        if stamp not in self.sent:
            return
        if name in TASKS:
            self.digests[stamp] = b'%b%c%b' % (
                self.digests.get(stamp, b''), TASK_AT.index(name),
                digest(readable(message.data), message.encoding))
        elif name == 'gating_stats':
            tasks = tuple(sys.intern(each.name) for each in message.task_stats)
            self.stats[stamp] = Answered(
                sys.intern(message.mode), message.budget_requested, message.budget_cap,
                self._tasks.setdefault(tasks, tasks), message.price, message.reused,
                message.warped, message.fused)
            self.latency.add(message.latency_ms)

    def completed(self, stamp: int, now: int) -> None:
        """Take in when, in ns of the ROS clock, all of a frame's statistics were there."""
        if stamp in self.sent:
            self.delivery.add((now - self.sent[stamp]) / 1e6)

    def settings(self, stats: Answered) -> Settings:
        """Return with which settings the node processed a frame."""
        budget = float(self.parameters['budget'])
        # The message has the budget in single precision.
        if np.float32(budget) != np.float32(stats.budget_requested):
            budget = float(stats.budget_requested)
        return Settings(
            mode=stats.mode, budget=budget, tasks=stats.tasks,
            weights={
                task: float(self.parameters[f'tasks.{task}.weight']) for task in stats.tasks},
            output_size=self.parameters['output_size'], cap=max(stats.budget_cap, budget),
            refresh=MOST_FRAMES,
            skip_empty=bool(self.parameters['skip_empty']))

    def frame(self, frame: RecordedFrame, engine: Engine) -> None:
        """Compare what the node published for a frame, if it did, with what we get."""
        packed, stats = self.digests.pop(frame.stamp, b''), self.stats.get(frame.stamp)
        if stats is None or not frame.stamp:
            return
        # The node tells what its gates paid, and what it took of the frames before.
        settings = self.settings(stats)
        self._stream.known = Known(stats.price, stats.reused, stats.warped, stats.fused)
        result = engine.infer(frame.image, settings, frame.camera, self._stream)
        if not packed:
            return
        seen = {TASK_AT[packed[start]]: packed[start + 1:start + 1 + DIGEST]
                for start in range(0, len(packed), 1 + DIGEST)}
        own = {name: digest(np.ascontiguousarray(values).reshape(-1).view(np.uint8), encoding)
               for name, values, encoding in published_images(result)}
        wrong = [name for name, value in seen.items() if own.get(name) != value]
        if not wrong:
            self.identical += 1
            return
        self.different += 1
        if len(self.differing) < 10:
            self.differing.append({'frame': frame.number, 'topics': wrong})

    def figures(self) -> dict[str, Any]:
        """Return the section `live` of the results."""
        played, answered = len(self.sent), len(self.stats)
        parts = [
            f'{played} frames were played at {self.rate:g} times the recorded speed; the '
            f'subscriber saw {answered} answered, {played - answered} were dropped.']
        if self.delivery.count:
            parts.append(
                f'From sending a frame to having all of its results: median '
                f'{self.delivery.percentile(50):.1f} ms, 95 % within '
                f'{self.delivery.percentile(95):.1f} ms.')
        if self.identical or self.different:
            parts.append(
                f'Offline, {self.identical} of {self.identical + self.different} answered frames '
                'give the same results bit for bit.')
        if self.different:
            parts.append('The others differ: see live.differing in results.json.')
        if self.unstamped:
            parts.append(f'{self.unstamped} frames without a stamp were not played.')
        return {
            'rate': self.rate, 'played': played, 'answered': answered,
            'dropped': played - answered,
            'latency_ms': percentiles(self.latency.values),
            'delivery_ms': percentiles(self.delivery.values),
            'identical': self.identical, 'different': self.different,
            'differing': self.differing, 'text': ' '.join(parts)}


def play(
        bag: Bag, topic: str, options: Options, *, rate: float, out: Path,
        console: Console) -> Live:
    """
    Play the topic into the running node, with /clock, and return what came of it.

    rate: times the speed of the recording.  out: folder for what the node says of its frames.
    ValueError where ROS is missing, no node listens, or it runs something else.
    """
    try:
        import rclpy
        from rosgraph_msgs.msg import Clock  # noqa: F401

        from adamtl_ros.nodes.starting import start_ros
    except ImportError as error:
        raise ValueError(
            f"--live runs over ROS 2, of which something is missing ({error}): pip install "
            "'.[jazzy]' in the package's folder, or source a ROS 2 installation") from None
    dds.use_shared_memory()
    start_ros()
    try:
        session = _Session(bag, topic, options, rate, out)
        try:
            session.meet()
            console.print(f'playing into {session.images.topic_name}', highlight=False)
            session.play()
        finally:
            session.recorder.close()
        return session.live
    finally:
        rclpy.try_shutdown()


def _is_whole(info: Message) -> bool:
    try:
        return info.kind == CAMERA_INFO and bool(decode(info))
    except ValueError:
        return False


class _Session:
    """The ROS side of playing, in one thread."""

    def __init__(
            self, bag: Bag, topic: str, options: Options, rate: float, out: Path) -> None:
        from adamtl_ros.nodes.recorder import Recorder

        self.bag, self.topic, self.options = bag, topic, options
        self.live = Live(rate)
        out.mkdir(parents=True, exist_ok=True)
        self.recorder = Recorder(out / 'live_stats.csv', node=options.node, pictures=())
        self.images: Any = None
        self.infos: Any = None
        self.clock: Any = None

    def meet(self) -> None:
        """Find the node, what it runs and where it listens; ValueError where that fails."""
        from rclpy.node import NodeNameNonExistentError
        from rclpy.parameter_client import AsyncParameterClient
        from rclpy.qos import QoSProfile
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo
        from sensor_msgs.msg import CompressedImage
        from sensor_msgs.msg import Image

        from adamtl_ros.nodes.inputs import SUFFIX

        name, recorder = self.options.node, self.recorder
        namespace, _, base = name.rpartition('/')
        found: dict[str, str] = {}

        def listens() -> bool:
            try:
                topics = recorder.get_subscriber_names_and_types_by_node(base, namespace or '/')
            except NodeNameNonExistentError:
                return False
            found.update({kind: topic for topic, kinds in topics for kind in kinds})
            return bool({IMAGE, COMPRESSED} & found.keys())

        if not recorder.spin_until(listens, DISCOVERY):
            namesakes = recorder.get_node_names_and_namespaces().count((base, namespace or '/'))
            raise ValueError(
                f'{namesakes} nodes of this ROS domain are named {name}: end all but one'
                if namesakes > 1 else
                f'no active node {name} listens to images in this ROS domain: start it with '
                'adamtl_node, or name it with --node')
        # Of a node that has just come, its subscriptions become known one by one.
        recorder.spin_until(lambda: listens() and CAMERA_INFO in found, GRACE)
        client = AsyncParameterClient(recorder, name)
        wanted_parameters = [
            *RUNS, 'num_threads', 'output_size', 'budget', 'target_latency_ms',
            'skip_empty', 'image_transport', *(f'tasks.{task}.weight' for task in TASKS)]
        answer = client.get_parameters(wanted_parameters)
        if not recorder.spin_until(answer.done, DISCOVERY) or (
                response := answer.result()) is None:
            raise ValueError(f'{name} does not tell its parameters within {DISCOVERY:g} s')
        for key, value in zip(wanted_parameters, response.values):
            self.live.parameters[key] = {
                1: value.bool_value, 2: value.integer_value, 3: value.double_value,
                4: value.string_value}[value.type]
        for key in RUNS:
            theirs = self.live.parameters[key]
            if theirs != getattr(self.options, key):
                raise ValueError(f'{name} runs {key} {theirs}: give --{key} {theirs}')
        if self.live.parameters['target_latency_ms'] > 0:
            raise ValueError(
                f'{name} moves its budget to hold a latency: set target_latency_ms to 0.0')
        kind = self.bag.topics[self.topic][0]
        compressed = kind == COMPRESSED
        if kind not in found:
            if self.live.parameters['image_transport'] != 'auto':
                raise ValueError(
                    f'{self.topic} is of type {kind}, to which {name} does not listen: start it '
                    f'with -p image_transport:={"compressed" if compressed else "raw"}')
            # Then it follows what is published, on the topic itself or beside it.
            found[kind] = found[IMAGE] + SUFFIX if compressed else found[COMPRESSED].removesuffix(
                SUFFIX)
        qos = QoSProfile(depth=1)
        self.images = recorder.create_publisher(
            CompressedImage if compressed else Image, found[kind], qos)
        if CAMERA_INFO in found:
            self.infos = recorder.create_publisher(CameraInfo, found[CAMERA_INFO], qos)
        self.clock = recorder.create_publisher(Clock, '/clock', QoSProfile(depth=10))
        topics = [f'{name}/{task}' for task in TASKS] + [f'{name}/gating_stats']
        if not recorder.spin_until(
                lambda: self.images.get_subscription_count() > 0 and any(
                    recorder.count_publishers(each) for each in topics), DISCOVERY):
            raise ValueError(f'{name} was not matched within {DISCOVERY:g} s')
        self._idle(GRACE)
        recorder.on_message, recorder.on_complete = self.live.message, self.live.completed
        recorder.expected = frozenset({'gating_stats'})

    def _idle(self, seconds: float) -> None:
        end = monotonic() + seconds
        self.recorder.spin_until(lambda: monotonic() > end, seconds + 5.0)

    def play(self) -> None:
        """Send every frame at its time, serve what comes, and wait for the last answer."""
        from rosgraph_msgs.msg import Clock

        frames, live, recorder = RecordedFrames(self.topic), self.live, self.recorder
        infos = self.topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'
        if self.infos is not None:
            # Beforehand, as a camera that runs for some time has done: topics are not ordered.
            known = next(filter(_is_whole, self.bag.messages((infos,))), None)
            if known is not None:
                recorder.spin_until(
                    lambda: self.infos.get_subscription_count() > 0, DISCOVERY)
                self.infos.publish(bytes(unpacked(known.data)))
                self._idle(GRACE)
        start, first, ticked = monotonic(), None, -math.inf

        def tick(now: int) -> None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now, 1_000_000_000)
            self.clock.publish(message)

        for message in self.bag.messages((self.topic, infos)):
            if first is None:
                first, start = message.time, monotonic()
            due = start + (message.time - first) / 1e9 / self.live.rate
            while (now := monotonic()) < due:
                if now - ticked >= CLOCK_PERIOD:
                    tick(first + round((now - start) * self.live.rate * 1e9))
                    ticked = now
                self._idle(min(due - now, CLOCK_PERIOD))
            if message.topic == infos:
                if self.infos is not None and _is_whole(message):
                    self.infos.publish(bytes(unpacked(message.data)))
                continue
            wanted = (frames.number + 1) % self.options.every == 0
            frame = frames.read(message, decoded=wanted)
            if not isinstance(frame, RecordedFrame):
                continue
            if not frame.stamp:
                live.unstamped += 1
                continue
            tick(max(message.time, first))
            live.sent[frame.stamp] = recorder.get_clock().now().nanoseconds
            self.images.publish(bytes(unpacked(message.data)))
            if self.options.max_frames and len(live.sent) >= self.options.max_frames:
                break
        if live.sent:
            # The newest frame is never replaced: its answer is the last that comes.
            last = next(reversed(live.sent))
            recorder.spin_until(lambda: last in live.stats, ANSWER)
            # Its images may be larger, and later.
            self._idle(0.5)

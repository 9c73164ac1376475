# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Subscribe to everything the node publishes, and keep account of it frame by frame."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
import csv
from pathlib import Path
import time
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from adamtl_ros.conversions import nanoseconds
from adamtl_ros.conversions import readable
from adamtl_ros.msg import GatingStats
from adamtl_ros.tasks import TASKS

PICTURES = ('gating_map', 'overlay')
"""Topics that are not tasks and carry an Image."""

_KEPT = 4
_ELEMENTS: dict[str, type] = {
    'mono8': np.uint8, 'rgb8': np.uint8, 'bgr8': np.uint8, 'mono16': np.uint16,
    '32FC1': np.float32, '32FC3': np.float32}


def image_array(message: Image) -> np.ndarray:
    """Return the array, (h, w) or (h, w, channels), of an Image as the node publishes them."""
    flat: np.ndarray = np.frombuffer(readable(message.data), _ELEMENTS[message.encoding])
    values = flat.reshape(message.height, message.width, -1)
    return values[..., 0] if values.shape[2] == 1 else values


def scalar_fields() -> list[str]:
    """Return the names of the fields of GatingStats that hold one value."""
    return [
        name for name, kind in GatingStats.get_fields_and_field_types().items()
        if '/' not in kind and 'sequence' not in kind and '[' not in kind]


class Recorder(Node):
    """
    Collects by stamp what the node publishes for a frame.

    expected: the topics that make an answer complete.  answers: for every stamp, the topics that
    answered; all else that is kept does not grow with the recording.  frame_ids: how many messages
    had each.  repeated: how often a topic answered a stamp again.  messages: those of the last few
    stamps.  latest: the last GatingStats; each is a row in the stats file as it comes.  filmed:
    tells whether the camera of frames of a (width, height) is known; of others no camera_info is
    expected.  on_message is told every message but those repeated, on_complete when all topics
    have answered a stamp, in ns of the ROS clock.
    """

    def __init__(
            self, stats_file: Path, *, node: str = 'adamtl',
            pictures: Sequence[str] = PICTURES) -> None:
        """
        Subscribe to all that the node of this name, in this node's namespace, may publish.

        pictures: which of PICTURES; without a subscriber, the node does not draw them.
        """
        super().__init__('adamtl_recorder')
        self.expected: frozenset[str] = frozenset()
        self.answers: dict[int, frozenset[str]] = {}
        self.frame_ids: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.messages: dict[int, dict[str, Any]] = {}
        self.latest: GatingStats | None = None
        self.filmed: Callable[[tuple[int, int]], bool] = lambda size: True
        self._unfilmed: set[int] = set()
        self.on_overlay: Callable[[int, np.ndarray], None] | None = None
        self.on_message: Callable[[int, str, Any], None] | None = None
        self.on_complete: Callable[[int, int], None] | None = None
        # Frames are answered by few sets of topics: one of each is enough.
        self._sets: dict[frozenset[str], frozenset[str]] = {}
        self._fields = scalar_fields()
        self._file = stats_file.open('w', newline='')
        self._rows = csv.writer(self._file)
        self._rows.writerow(['stamp', 'frame_id', *self._fields])
        # Deep enough for this process to be late by some seconds without losing a message.
        qos = QoSProfile(depth=100)
        kinds: dict[str, type] = {'gating_stats': GatingStats, 'camera_info': CameraInfo}
        kinds |= dict.fromkeys((*TASKS, *pictures), Image)
        for name, kind in kinds.items():
            self.create_subscription(kind, f'{node}/{name}', self._receiver(name), qos)
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)

    def close(self) -> None:
        """Close the stats file and the node."""
        self._file.close()
        self._spinner.shutdown()
        self.destroy_node()

    def spin_until(self, done: Callable[[], bool], limit: float) -> bool:
        """Receive until done() is true; return whether it was within limit s."""
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                return False
            self._spinner.spin_once(timeout_sec=0.02)
        return True

    def complete(self, stamp: int) -> bool:
        """Return whether every topic has answered the frame of this stamp."""
        return bool(self.expected) and not self.lacking(stamp)

    def lacking(self, stamp: int) -> frozenset[str]:
        """Return the topics that have not answered the frame of this stamp."""
        there = {'camera_info'} if stamp in self._unfilmed else set()
        return self.expected - self.answers.get(stamp, frozenset()) - there

    def _receiver(self, name: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            stamp = nanoseconds(message.header)
            before = self.answers.get(stamp, frozenset())
            done = self.complete(stamp)
            now = before | {name}
            self.answers[stamp] = self._sets.setdefault(now, now)
            self.repeated[name] += name in before
            self.frame_ids[message.header.frame_id] += 1
            # It has the size of the frame.
            if name == 'overlay' and not self.filmed((message.width, message.height)):
                self._unfilmed.add(stamp)
            if self.on_complete and not done and self.complete(stamp):
                self.on_complete(stamp, self.get_clock().now().nanoseconds)
            self.messages.setdefault(stamp, {})[name] = message
            if self.on_message and name not in before:
                self.on_message(stamp, name, message)
            while len(self.messages) > _KEPT:
                del self.messages[next(iter(self.messages))]
            if name == 'gating_stats':
                self.latest = message
                self._rows.writerow([
                    f'{stamp // 10**9}.{stamp % 10**9:09}', message.header.frame_id,
                    *(_cell(getattr(message, field)) for field in self._fields)])
                self._file.flush()
            elif name == 'overlay' and self.on_overlay:
                self.on_overlay(stamp, image_array(message))
        return receive


def _cell(value: Any) -> Any:
    """Return float32 values with the digits they have."""
    return f'{value:.7g}' if isinstance(value, float) else value

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node that publishes a source as a camera would."""

from collections.abc import Callable
import threading
import time

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adamtl_ros.nodes.messages import image_from_array
from adamtl_ros.sources import Camera
from adamtl_ros.sources import Source

FRAME_ID = 'camera_optical_frame'

GRACE = 0.5
"""Seconds from meeting a subscriber to the first frame, and from the last frame to the end."""

REMINDER = 10.0
"""Seconds between two lines that say what is waited for."""


def camera_info_message(camera: Camera, header: Header) -> CameraInfo:
    """Return the message of an unrectified monocular camera."""
    k = list(camera.k)
    return CameraInfo(
        header=header, width=camera.width, height=camera.height,
        distortion_model=camera.distortion_model, d=list(camera.d), k=k,
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])


class Player(Node):
    """Publishes `image` and, where the source knows its camera, `camera_info`."""

    def __init__(self, encoding: str = 'rgb8', *, name: str = 'adamtl_player') -> None:
        """Offer the topics; encoding: 'rgb8' or 'bgr8'."""
        super().__init__(name)
        self.encoding = encoding
        self.images = self.create_publisher(Image, 'image', QoSProfile(depth=1))
        self.infos = self.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1))
        self.stamps: list[int] = []
        self.stop = threading.Event()
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)

    def pause(self, until: float) -> bool:
        """Serve the node until the monotonic time; return whether to go on, not stop."""
        while not self.stop.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return True
            self._spinner.spin_once(timeout_sec=min(left, 0.1))
        return False

    def send(self, image: np.ndarray, camera: Camera | None, stamp: int | None = None) -> int:
        """Publish a uint8 (h, w, 3) RGB image stamped stamp ns, or now; return the stamp."""
        if stamp is None:
            stamp = self.get_clock().now().nanoseconds
        header = Header(frame_id=FRAME_ID)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        if camera:
            self.infos.publish(camera_info_message(camera, header))
        pixels = image if self.encoding == 'rgb8' else image[..., ::-1]
        self.images.publish(image_from_array(pixels, self.encoding, header))
        self.stamps.append(stamp)
        return stamp

    def await_subscriber(self, limit: float) -> bool:
        """Wait until a subscriber is matched to `image`; return whether, within limit s."""
        return self._wait_for(
            lambda: self.images.get_subscription_count() > 0,
            f'a subscriber of {self.images.topic_name}', limit
            # Discovery is mutual, and the subscriber may learn of this publisher a little later.
        ) and self.pause(time.monotonic() + GRACE)

    def await_clock(self) -> bool:
        """Wait until there is a time to stamp frames with; return whether, not stop."""
        return self._wait_for(
            lambda: self.get_clock().now().nanoseconds > 0,
            '/clock, which gives the time where use_sim_time is true; without a simulator leave '
            'use_sim_time false', float('inf'))

    def _wait_for(self, there: Callable[[], bool], what: str, limit: float) -> bool:
        begin = remind = time.monotonic()
        while not there():
            now = time.monotonic()
            if now >= remind + REMINDER:
                remind = now
                self.get_logger().info(f'waiting for {what} ({now - begin:.0f} s)')
            if now > begin + limit or not self.pause(now + 0.02):
                return False
        return True

    def play(
            self, source: Source, *, loop: bool = False, frames: int | None = None,
            recorded_stamps: bool = False) -> None:
        """
        Publish the source at its own times until its end, frames are sent or stop is set.

        A frame that is late is sent at once, and the schedule stays.
        """
        start = time.monotonic()
        while True:
            at = 0.0
            for frame in source:
                at = frame.time
                if not self.pause(start + at):
                    return
                self.send(
                    frame.image, source.camera_of(frame.image.shape[1::-1]),
                    frame.stamp if recorded_stamps else None)
                if frames is not None and len(self.stamps) >= frames:
                    return
            if not loop:
                return
            start += at + 1 / source.rate

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Play a video, a folder of pictures or a rosbag2 as if it were a camera."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import signal
import sys
import threading
import time
from types import FrameType

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adamtl_ros.nodes.conversions import image_from_array
from adamtl_ros.sources import Camera
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source
from adamtl_ros.sources import Source

FRAME_ID = 'camera_optical_frame'

GRACE = 0.5
"""Seconds from meeting a subscriber to the first frame, and from the last frame to the end."""


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
        end = time.monotonic() + limit
        while not self.images.get_subscription_count():
            if time.monotonic() > end or not self.pause(time.monotonic() + 0.02):
                return False
        # Discovery is mutual, and the subscriber may learn of this publisher a little later.
        return self.pause(time.monotonic() + GRACE)

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
                    frame.image, source.camera, frame.stamp if recorded_stamps else None)
                if frames is not None and len(self.stamps) >= frames:
                    return
            if not loop:
                return
            start += at + 1 / source.rate


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line without its ROS arguments."""
    parser = argparse.ArgumentParser(prog='adamtl_player', description=__doc__)
    parser.add_argument(
        'source', nargs='?', default=str(DEMO), metavar='SOURCE',
        help='video file, folder of pictures, or rosbag2 (default: the sequence that ships)')
    parser.add_argument('--rate', type=float, metavar='HZ', help="play at HZ, not the source's")
    parser.add_argument('--topic', help='image topic of a bag (default: its first)')
    parser.add_argument('--loop', action='store_true', help='begin again at the end')
    parser.add_argument('--frames', type=int, metavar='N', help='end after N frames')
    parser.add_argument('--encoding', choices=('rgb8', 'bgr8'), default='rgb8')
    parser.add_argument(
        '--recorded-stamps', action='store_true',
        help="stamp frames as a bag recorded them, not with this node's time")
    parser.add_argument(
        '--wait', type=float, default=0.0, metavar='S',
        help='wait up to S seconds for a subscriber before the first frame')
    parser.add_argument(
        '--report', type=Path, metavar='FILE',
        help='at the end write {"stamps": [ns, ...]} of the frames that were sent')
    options = parser.parse_args(argv)
    if options.frames is not None and options.frames < 1:
        parser.error(f'--frames: {options.frames} is not a number of frames; give 1 or more')
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the node `adamtl_player`; return 0, or 2 on a source that cannot be played."""
    argv = sys.argv if args is None else ['adamtl_player', *args]
    options = parse(remove_ros_args(argv)[1:])
    rclpy.init(args=list(argv), signal_handler_options=SignalHandlerOptions.NO)
    player = Player(options.encoding)

    def end(number: int, frame: FrameType | None) -> None:
        player.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    code = 0
    try:
        source = open_source(options.source, rate=options.rate, topic=options.topic)
        if not options.wait or player.await_subscriber(options.wait):
            player.get_logger().info(
                f'playing {source.path} at {source.rate:g} Hz on {player.images.topic_name}')
            player.play(
                source, loop=options.loop, frames=options.frames,
                recorded_stamps=options.recorded_stamps)
        elif not player.stop.is_set():
            raise ValueError(
                f'nothing subscribed to {player.images.topic_name} within {options.wait:g} s')
    except (ValueError, OSError) as error:
        print(f'adamtl_player: {error}', file=sys.stderr)
        code = 2
    finally:
        # What a subscriber has not fetched yet is lost with the publisher: its shared memory goes
        # with it. Reliable subscribers tell, others can only be given time.
        player.images.wait_for_all_acked(Duration(seconds=1.0))
        time.sleep(GRACE)
        if options.report:
            options.report.write_text(json.dumps({'stamps': player.stamps}))
        player.destroy_node()
        rclpy.try_shutdown()
    return code


if __name__ == '__main__':
    sys.exit(main())

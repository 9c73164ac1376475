# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The executable `adamtl_player`: play a video, pictures or a rosbag2 as if it were a camera."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import signal
import sys
import time
from types import FrameType

from adamtl_ros.missing import told


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line without its ROS arguments."""
    from adamtl_ros.arguments import add_camera
    from adamtl_ros.arguments import Parser

    parser = Parser(prog='adamtl_player', description=__doc__)
    parser.add_argument(
        'source', nargs='?', metavar='SOURCE',
        help='video file, folder of pictures, or rosbag2 (default: the sequence that ships, at '
             'whose end the camera stands still)')
    parser.add_argument('--rate', type=float, metavar='HZ', help="play at HZ, not the source's")
    parser.add_argument(
        '--topic', help='image topic of a bag (default: its first that can be read)')
    parser.add_argument('--loop', action='store_true', help='begin again at the end')
    parser.add_argument('--frames', type=int, metavar='N', help='end after N frames')
    parser.add_argument(
        '--encoding', choices=('rgb8', 'bgr8'), default='rgb8',
        help='of what is published (default: rgb8)')
    parser.add_argument(
        '--recorded-stamps', action='store_true',
        help="stamp frames as a bag recorded them, not with this node's time")
    parser.add_argument(
        '--wait', type=float, default=0.0, metavar='S',
        help='wait up to S seconds, or inf, for a subscriber before the first frame')
    parser.add_argument(
        '--report', type=Path, metavar='FILE',
        help='at the end write {"stamps": [ns, ...], "problems": [...]} of the frames that were '
             'sent, and what of the source was left out')
    add_camera(parser, "the source's own")
    options = parser.parse_args(argv)
    if not options.wait >= 0:
        parser.error(f'--wait: {options.wait} is no time; give seconds, or inf')
    if options.frames is not None and options.frames < 1:
        parser.error(f'--frames: {options.frames} is not a number of frames; give 1 or more')
    return options


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the node `adamtl_player` until its source or a signal ends it; return the exit code.

    args: the command line without the program's name, by default of this process.
    0, or 2 where something given to it is wrong.
    """
    # Blocked before the imports, which take their time, so that none is broken off half-way.
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    try:
        import rclpy
        from rclpy.duration import Duration
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import remove_ros_args

        from adamtl_ros.arguments import given_camera
        from adamtl_ros.nodes.playback import GRACE
        from adamtl_ros.nodes.playback import Player
        from adamtl_ros.sources import filmed_by
        from adamtl_ros.sources import open_source
    except ImportError as error:
        return told('adamtl_player', error)

    argv = sys.argv if args is None else ['adamtl_player', *args]
    try:
        options = parse(remove_ros_args(argv)[1:])
        rclpy.init(args=list(argv), signal_handler_options=SignalHandlerOptions.NO)
        player = Player(options.encoding)
    except Exception as error:  # malformed ROS arguments
        print(f'adamtl_player: {" ".join(str(error).split())}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2

    def end(number: int, frame: FrameType | None) -> None:
        player.stop.set()

    for number in signals:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = 0
    problems: list[str] = []

    def say(text: str) -> None:
        problems.append(text)
        player.get_logger().warning(text)

    try:
        source = open_source(
            options.source or None, rate=options.rate, topic=options.topic, say=say)
        source = filmed_by(source, given_camera(options))
        topic = player.images.topic_name
        ready = options.recorded_stamps or player.await_clock()
        if ready and options.wait:
            ready = player.await_subscriber(options.wait)
        if ready:
            player.get_logger().info(f'playing {source.path} at {source.rate:g} Hz on {topic}')
            player.play(
                source, loop=options.loop, frames=options.frames,
                recorded_stamps=options.recorded_stamps)
        elif not player.stop.is_set():
            raise ValueError(f'nothing subscribed to {topic} within {options.wait:g} s')
    except (ValueError, OSError) as error:
        print(f'adamtl_player: {error}', file=sys.stderr)
        code = 2
    finally:
        if player.stamps:
            # What a subscriber has not fetched yet is lost with the publisher, whose shared
            # memory goes with it. Reliable subscribers tell, others can only be given time.
            player.images.wait_for_all_acked(Duration(seconds=5.0))
            time.sleep(GRACE)
        if options.report:
            options.report.write_text(
                json.dumps({'stamps': player.stamps, 'problems': problems}))
        player.destroy_node()
        rclpy.try_shutdown()
    return code


if __name__ == '__main__':
    sys.exit(main())

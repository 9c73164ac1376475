# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The executable `adamtl_node`: start the lifecycle node, and end it in good order."""

import os
import signal
import sys
from threading import Thread

MAX_PIXELS = 2**26
"""Largest compressed picture that is decoded, 67 megapixels."""


def main(args: list[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM; return the exit code.

    args: the command line without the program's name, by default of this process.
    1 if the node was to start by itself and could not.
    """
    # Blocked before anything else and in all threads, so that a signal can break off neither an
    # import, nor the loading of the model, nor a frame: it waits until it is asked for below.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # Read when OpenCV is loaded: a few bytes of PNG may claim to be a picture of gigabytes.
    os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.signals import SignalHandlerOptions
    from rclpy.task import Future

    from adamtl_ros.nodes.lifecycle import AdamtlNode

    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = AdamtlNode()
    except Exception as error:  # malformed ROS arguments or parameter files
        print(f'adamtl_node: {type(error).__name__}: {" ".join(str(error).split())}',
              file=sys.stderr)
        rclpy.try_shutdown()
        return 1

    ended: Future = Future()

    def wait_for_signal() -> None:
        signal.sigwait(signals)
        ended.set_result(None)

    Thread(target=wait_for_signal, name='signals', daemon=True).start()

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started = not node.autostart or all(
        transition() == TransitionCallbackReturn.SUCCESS
        for transition in (node.trigger_configure, node.trigger_activate))
    if started:
        executor.spin_until_future_complete(ended)
    node.end()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if started else 1


if __name__ == '__main__':
    sys.exit(main())

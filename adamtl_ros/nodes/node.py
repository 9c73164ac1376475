# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The executable `adamtl_node`: start the lifecycle node, and end it in good order."""

from collections.abc import Sequence
import os
from pathlib import Path
import re
import signal
import sys
from threading import Event
from threading import Thread

from adamtl_ros.missing import told

MAX_PIXELS = 2**26
"""Largest compressed picture that is decoded, 67 megapixels."""

PATIENCE = 3.0
"""Seconds after a signal that a transition may still take, as loading a model, before the end."""

HELP = """\
usage: adamtl_node [--help] [--ros-args ...]

Runs the lifecycle node adamtl: camera images in, results of all tasks out. For example:

  adamtl_node --ros-args -r image:=/camera/image_raw -p mode:=adaptive -p budget:=0.6
  adamtl_node --ros-args --params-file glasses.yaml -r __ns:=/left

-r FROM:=TO remaps a topic, -p NAME:=VALUE sets a parameter; docs/parameters.md has them all.
SIGINT and SIGTERM end it with exit code 0; 1: it could not start; 2: the call is wrong.
"""


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM; return the exit code.

    args: the command line without the program's name, by default of this process.
    1 if the node was to start by itself and could not, 2 if the command line is wrong.
    """
    # Blocked before anything else, here and in all threads to come, so that a signal can break off
    # neither an import, nor the loading of the model, nor a frame: it comes to the thread below.
    # Threads that were there before, as NumPy's where it was imported first, may get it instead:
    # whoever gets it writes it into the pipe that is read below.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    # Read when OpenCV is loaded: a few bytes of PNG may claim to be a picture of gigabytes.
    os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))
    argv = list(sys.argv[1:] if args is None else args)
    if '-h' in argv or '--help' in argv:
        print(HELP, end='')
        return 0

    stopped, served, over = Event(), Event(), Event()

    def wait_for_signal() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        while os.read(reading, 1)[0] not in signals:
            pass
        stopped.set()
        # Nothing breaks off the loading of a model, and no frame waits for it.
        if not over.wait(PATIENCE):
            what = 'in the middle of a transition' if served.is_set() else (
                'while it was being started')
            print(f'adamtl_node: stopped {what}', file=sys.stderr, flush=True)
            os._exit(0)

    Thread(target=wait_for_signal, name='signals', daemon=True).start()

    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.lifecycle import TransitionCallbackReturn
        from rclpy.signals import SignalHandlerOptions
        from rclpy.task import Future
        from rclpy.utilities import remove_ros_args

        from adamtl_ros.nodes.lifecycle import AdamtlNode
        from adamtl_ros.nodes.parameters import unmatched
    except ImportError as error:
        return told('adamtl_node', error)

    files = [Path(path) for name, path in zip(argv, argv[1:]) if name == '--params-file']
    try:
        for path in files:
            if not path.is_file():
                what = 'it is a folder' if path.is_dir() else 'there is no such file'
                raise ValueError(f'--params-file {path}: {what}; give a YAML file')
        unknown = remove_ros_args(['adamtl_node', *argv])[1:]
        if unknown:
            print(f'adamtl_node: {_advice(unknown[0])}', file=sys.stderr)
            return 2
        rclpy.init(args=[*argv, *_logging()], signal_handler_options=SignalHandlerOptions.NO)
        node = AdamtlNode()
    except Exception as error:  # malformed ROS arguments or parameter files
        print(f'adamtl_node: {_words(error)}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    for path in files:
        if words := unmatched(path, node.get_fully_qualified_name()):
            node.get_logger().warning(words)

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started = True
    if node.autostart:
        for transition in (node.trigger_configure, node.trigger_activate):
            started = started and (
                stopped.is_set() or transition() == TransitionCallbackReturn.SUCCESS)
    served.set()
    if started:
        ended: Future = Future()

        def wait_for_the_end() -> None:
            stopped.wait()
            ended.set_result(None)

        Thread(target=wait_for_the_end, daemon=True).start()
        executor.spin_until_future_complete(ended)
    over.set()
    if not started:
        node.report_failure()
    node.end()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if started else 1


def _logging() -> list[str]:
    """Return ROS arguments that keep the logs to the terminal where no file can be written."""
    if 'ROS_LOG_DIR' in os.environ:  # who sets it wants to know
        return []
    home = os.environ.get('ROS_HOME') or os.environ.get('HOME', os.devnull) + '/.ros'
    folder = Path(home, 'log')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return []
    except OSError:
        pass
    print(f'adamtl_node: {folder} cannot be written: logs go to the terminal alone',
          file=sys.stderr)
    return ['--ros-args', '--disable-external-lib-logs']


def _advice(argument: str) -> str:
    """Return what is to be said of an argument that is none of ROS."""
    if ':=' not in argument:
        return f'{argument!r} is not known, see adamtl_node --help'
    return (f'{argument!r} is not known: give a parameter as --ros-args -p {argument}, and a '
            f'remapping as --ros-args -r {argument}')


def _words(error: Exception) -> str:
    """Return an error of rcl without the places in its source."""
    text = re.sub(r', at \S+:\d+', '', ' '.join(str(error).split()))
    text = re.sub(r'^failed to initialize (rcl|logging): ', '', text)
    known = type(error).__name__ in ('RCLError', 'ValueError')
    return text if known and text else f'{type(error).__name__}: {text}'


if __name__ == '__main__':
    sys.exit(main())

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The `adamtl` command."""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
import os
import signal
import sys
from threading import current_thread
from threading import main_thread

from adamtl_ros.arguments import Parser
from adamtl_ros.files import check_name
from adamtl_ros.missing import told
from adamtl_ros.paths import version
from adamtl_ros.waiting import saying

COMMANDS = {
    'demo': 'play a video into a running node over ROS 2 and record what it answers',
    'infer': 'process single images, without ROS',
    'train': 'train the network, a stage at a time, from a configuration file',
    'convert': 'read a checkpoint of the AdaMTL reference, or of a Swin classifier',
    'evaluate': 'measure the accuracy per task and budget on a labelled data set',
    'soak': 'run the node under load for a long time and report memory, latency and losses',
    'top': 'watch running nodes in the terminal: rates, budget, gates, drops',
    'quantize': 'measure the ranges that precision int8 needs, for a model of your own',
    'bench': 'measure latency, MACs and memory, static against adaptive',
    'check': 'look at this machine: what is there, how fast, whether right, what is missing',
    'warm': 'compile a model for this machine into the cache, and end',
    'export': 'write the static network as ONNX and OpenVINO IR',
    'bag': 'compare budgets with the dense network on recordings, and write a report',
}
"""What each command is for; a module of its name parses its arguments and runs it."""


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f'adamtl {version()}')
        parser.exit()


def build() -> argparse.ArgumentParser:
    """Return the parser of the name of the command."""
    parser = Parser(
        prog='adamtl', description='Multi-task dense prediction under a compute budget.')
    parser.add_argument(
        '--version', action=_Version, nargs=0, help='print the version and exit')
    commands = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, parser_class=Parser)
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 2 where something given to it is wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ''
    try:
        for name in (*arguments, os.getcwd()):
            check_name(name)
        with _leaving_at_once(), saying(f'adamtl {command}: starting'):
            run = _command(arguments)
        return run() or 0
    except ImportError as error:
        return told(f'adamtl {command}', error)
    except (ValueError, OSError) as error:
        print(f'adamtl {command}: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('adamtl: interrupted', file=sys.stderr)
        return 130


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """
    End the process at the first Ctrl-C, with one line, while modules are imported.

    An exception there is caught, or becomes another, in the middle of somebody's import.
    """
    def leave(*_: object) -> None:
        os.write(2, b'adamtl: interrupted\n')
        os._exit(130)

    if current_thread() is not main_thread() or signal.getsignal(
            signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody else listens
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _command(arguments: list[str]) -> Callable[[], int | None]:
    """Import what the command line asks for, and return what runs it."""
    if not arguments or arguments[0] not in COMMANDS:
        arguments = [build().parse_args(arguments).command]
    # What follows the command parses itself, --help included.
    return partial(import_module(f'adamtl_ros.commands.{arguments[0]}').main, arguments[1:])


if __name__ == '__main__':
    sys.exit(main())

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
from pathlib import Path
import signal
import sys
from threading import current_thread
from threading import main_thread
from typing import Any
from typing import NoReturn

from adamtl_ros.files import check_name
from adamtl_ros.missing import told
from adamtl_ros.paths import version
from adamtl_ros.waiting import saying

DELEGATED = {
    'train': (
        'adamtl_ros.training.train',
        'train the network, a stage at a time, from a configuration file'),
    'convert': (
        'adamtl_ros.convert',
        'read a checkpoint of the AdaMTL reference, or of a Swin classifier'),
    'evaluate': (
        'adamtl_ros.evaluation.command',
        'measure the accuracy per task and budget on a labelled data set'),
    'soak': (
        'adamtl_ros.soak',
        'run the node under load for a long time and report memory, latency and losses'),
    'top': (
        'adamtl_ros.top', 'watch running nodes in the terminal: rates, budget, gates, drops'),
    'quantize': (
        'adamtl_ros.quantize',
        'measure the ranges that precision int8 needs, for a model of your own'),
    'bench': (
        'adamtl_ros.bench', 'measure latency, MACs and memory, static against adaptive'),
    'check': (
        'adamtl_ros.check',
        'look at this machine: what is there, how fast, whether right, what is missing'),
    'warm': ('adamtl_ros.warm', 'compile a model for this machine into the cache, and end'),
    'export': ('adamtl_ros.export', 'write the static network as ONNX and OpenVINO IR'),
    'bag': (
        'adamtl_ros.bag.command',
        'compare budgets with the dense network on recordings, and write a report'),
}
"""Subcommands that parse their own arguments: the module whose main runs them, and what for."""


class _Help(argparse.HelpFormatter):
    """Says the default of everything that has one, unless the help says it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.help or ''
        if action.nargs == 0 or not action.option_strings or 'default' in shown or (
                action.default in (None, '', argparse.SUPPRESS) or action.default == []):
            return shown
        return f'{shown} (default: %(default)s)'


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and in the help what the defaults are."""

    def __init__(self, **keywords: Any) -> None:
        """Take what argparse takes."""
        super().__init__(formatter_class=_Help, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f'{self.prog}: {message} (see {self.prog} --help)\n')


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f'adamtl {version()}')
        parser.exit()


def _folder(value: str) -> Path:
    path = Path(value)
    existing = next((each for each in (path, *path.parents) if each.exists()), path)
    if existing.exists() and not existing.is_dir():
        raise argparse.ArgumentTypeError(f'{existing} is a file; give a folder')
    return path


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(',') if name.strip()]


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{value} is not a number of frames; give 1 or more')
    return number


def add_domain(parser: argparse.ArgumentParser) -> None:
    """Add --domain, of commands that start a node of their own."""
    parser.add_argument(
        '--domain', type=_domain, metavar='N',
        help='ROS domain to run in, with whatever else runs there (default: one of its own, cut '
             'off from other machines; ROS_DOMAIN_ID is not heeded)')


def _domain(value: str) -> int:
    if not (value.isdecimal() and int(value) <= 232):
        raise argparse.ArgumentTypeError(f'{value!r} is not a ROS domain; give 0 to 232')
    return int(value)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model', default='glasses', metavar='M',
        help='preset with shipped weights, or the path of a weights file (default: glasses)')
    parser.add_argument(
        '--mode', metavar='M',
        help='static, shadow or adaptive (default: adaptive, or static where there is no policy)')
    parser.add_argument(
        '--backend', default='auto', metavar='B',
        help='what executes the network: auto, torch or openvino; auto is openvino where it is '
             'installed and the device is a CPU')
    parser.add_argument(
        '--device', default='cpu', metavar='D', help='where it runs: cpu, cuda or cuda:N')
    parser.add_argument(
        '--precision', default='f32', metavar='P', help='of the computation: f32, bf16 or int8')
    parser.add_argument(
        '--threads', type=int, default=0, metavar='N', help='of the network; 0: automatic')
    parser.add_argument(
        '--budget', type=float, metavar='B',
        help='share, above 0 and up to 1, of the dense cost that a frame may cost on average '
             '(default: 0.6, or what the policy chooses where it was not trained with budgets)')


def build() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from adamtl_ros import intrinsics

    parser = Parser(
        prog='adamtl', description='Multi-task dense prediction under a compute budget.')
    parser.add_argument(
        '--version', action=_Version, nargs=0, help='print the version and exit')
    commands = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, parser_class=Parser)

    demo = commands.add_parser(
        'demo', help='play a video into a running node over ROS 2 and record what it answers',
        description='Start the node, play the source into it over ROS 2 topics, record all that '
                    'it publishes, and write overlay.mp4, sheet.png (frame, tasks and gating map '
                    'at three budgets), stats.csv and summary.json. Exit code 1 if a frame was '
                    'neither answered in full nor counted as dropped.')
    demo.add_argument(
        '--source', metavar='VIDEO|DIR|BAG',
        help='video file, folder of pictures (in name order), or rosbag2 (default: the sequence '
             'that ships with the package)')
    demo.add_argument('--topic', help='image topic of a bag (default: its first that '
                      'can be read)')
    demo.add_argument(
        '--rate', type=float, metavar='HZ', help="play at HZ (default: the source's own rate)")
    demo.add_argument(
        '--frames', type=_count, metavar='N', help='play the first N frames only (default: all)')
    _add_common(demo)
    add_domain(demo)
    demo.set_defaults(mode='adaptive', budget=0.6)
    intrinsics.add_arguments(demo, "the source's own, or a camera of 73 degrees")
    demo.add_argument(
        '--out', type=_folder, default=Path('adamtl_demo'), metavar='DIR',
        help='folder for the results (default: adamtl_demo)')

    infer = commands.add_parser(
        'infer', help='process single images, without ROS',
        description='Write for every image NAME.npz (an array per task, as the node publishes '
                    'it), NAME.png (a picture of all) and NAME.json (what ran and what it cost).')
    infer.add_argument('images', nargs='+', metavar='IMAGE', help='picture files')
    _add_common(infer)
    infer.add_argument(
        '--tasks', type=_names, metavar='A,B', help='tasks to compute (default: all of the model)')
    infer.add_argument(
        '--raw', action='store_true',
        help="store the decoders' own outputs, channels first and before they are brought to the "
             "network's size, in place of what the node publishes")
    intrinsics.add_arguments(infer, 'a camera of 73 degrees')
    infer.add_argument(
        '--out', type=_folder, required=True, metavar='DIR', help='folder for the results')

    for name, (_, purpose) in DELEGATED.items():
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
    command, rest = (arguments or [''])[0], arguments[1:]
    if command in DELEGATED:  # these parse what follows themselves, --help included
        return partial(import_module(DELEGATED[command][0]).main, rest)
    options = build().parse_args(arguments)
    return partial(import_module(f'adamtl_ros.{options.command}').run, options)


if __name__ == '__main__':
    sys.exit(main())

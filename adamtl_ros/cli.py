# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The `adamtl` command."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
import sys
from types import ModuleType
from typing import NoReturn

from adamtl_ros.paths import version

DELEGATED = {
    'train': 'train the network, a stage at a time, from a configuration file',
    'convert': 'read a checkpoint of the AdaMTL reference, or of a Swin classifier',
    'evaluate': 'measure the accuracy per task and budget on a labelled data set',
    'soak': 'run the node under load for a long time and report memory, latency and losses',
    'top': 'watch running nodes in the terminal: rates, budget, gates, drops',
    'quantize': 'measure the ranges that precision int8 needs, for a model of your own',
    'bench': 'measure latency, MACs and memory, static against adaptive',
    'bag': 'compare budgets with the dense network on recordings, and write a report',
}
"""Subcommands that parse their own arguments."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

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


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model', default='glasses', metavar='M',
        help='preset with shipped weights, or the path of a weights file (default: glasses)')
    parser.add_argument(
        '--mode', metavar='M',
        help='static, shadow or adaptive (default: adaptive, or static where there is no policy)')
    parser.add_argument(
        '--budget', type=float, metavar='B',
        help='share, above 0 and up to 1, of the dense cost that a frame may cost on average '
             '(default: 0.6, or what the policy chooses where it was not trained with budgets)')


def build() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
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
        '--rate', type=float, metavar='HZ', help="play at HZ instead of the source's own rate")
    demo.add_argument('--frames', type=_count, metavar='N', help='play the first N frames only')
    _add_common(demo)
    demo.set_defaults(mode='adaptive', budget=0.6)
    demo.add_argument(
        '--out', type=_folder, default=Path('adamtl_demo'), metavar='DIR',
        help='folder for the results (default: adamtl_demo)')

    infer = commands.add_parser(
        'infer', help='process single images, without ROS',
        description='Write for every image NAME.npz (an array per task, as the node publishes '
                    'it), NAME.png (a picture of all) and NAME.json (what ran and what it cost).')
    infer.add_argument('images', nargs='+', metavar='IMAGE')
    _add_common(infer)
    infer.add_argument(
        '--tasks', type=_names, metavar='A,B', help='tasks to compute (default: all of the model)')
    infer.add_argument(
        '--raw', action='store_true',
        help="store the decoders' own outputs, channels first and before they are brought to the "
             "network's size, in place of what the node publishes")
    infer.add_argument('--out', type=_folder, required=True, metavar='DIR')

    for name, purpose in DELEGATED.items():
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 2 where something given to it is wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        # These parse what follows themselves, --help included.
        if arguments[:1] == ['train']:
            from adamtl_ros.training import train
            return train.main(arguments[1:]) or 0
        if arguments[:1] == ['convert']:
            from adamtl_ros import convert
            return convert.main(arguments[1:])
        if arguments[:1] == ['evaluate']:
            from adamtl_ros.evaluation import evaluate
            return evaluate.main(arguments[1:]) or 0
        if arguments[:1] in (['soak'], ['top']):
            return _over_ros(arguments[0]).main(arguments[1:])
        if arguments[:1] == ['bench']:
            from adamtl_ros import bench
            return bench.main(arguments[1:])
        if arguments[:1] == ['quantize']:
            if find_spec('openvino') is None:
                raise ValueError("it needs OpenVINO and NNCF: pip install 'adamtl_ros[int8]'")
            from adamtl_ros import quantize
            return quantize.main(arguments[1:])
        if arguments[:1] == ['bag']:
            from adamtl_ros.bag.command import main as bag
            return bag(arguments[1:])
        options = build().parse_args(arguments)
        if options.command == 'infer':
            from adamtl_ros import infer
            return infer.run(options)
        return _over_ros('demo').run(options)
    except (ValueError, OSError) as error:
        command = arguments[0] if arguments else ''
        print(f'adamtl {command}: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('adamtl: interrupted', file=sys.stderr)
        return 130


def _over_ros(command: str) -> ModuleType:
    """Import the module of a command that runs over ROS; ValueError if that is not there."""
    try:
        return import_module(f'adamtl_ros.{command}')
    except ImportError as error:
        raise ValueError(
            f'it runs over ROS 2, of which something is missing ({error}): '
            "pip install '.[kilted]' in the package's folder, or source a ROS 2 installation and "
            'build with colcon') from error


if __name__ == '__main__':
    sys.exit(main())

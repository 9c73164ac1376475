# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the arguments of several commands have in common."""

import argparse
from pathlib import Path
from typing import Any
from typing import NoReturn

from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.intrinsics import read


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


def folder(value: str) -> Path:
    """Return the path of a folder that is there or can be made; argparse shows what is wrong."""
    path = Path(value)
    existing = next((each for each in (path, *path.parents) if each.exists()), path)
    if existing.exists() and not existing.is_dir():
        raise argparse.ArgumentTypeError(f'{existing} is a file; give a folder')
    return path


def count(value: str) -> int:
    """Return a number of frames; argparse shows what is wrong."""
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


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add what commands tell an engine."""
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


def add_camera(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add --camera and --hfov; otherwise: what is taken without them."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        '--camera', type=Path, metavar='FILE',
        help='camera_info of the pictures in YAML, as camera_calibration writes it; depth and '
             f'normals are of that camera (default: {otherwise})')
    either.add_argument(
        '--hfov', type=_degrees, metavar='DEG',
        help='angle of view of the pictures from left to right, in degrees, in place of --camera')


def _degrees(value: str) -> float:
    number = float(value)
    if not 5 <= number <= 150:
        raise argparse.ArgumentTypeError(
            f'{value} is not an angle of view of a picture without distortion; give 5 to 150')
    return number


def camera_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments that say the same to another command."""
    if options.camera:
        return ['--camera', str(options.camera.resolve())]
    return [] if options.hfov is None else ['--hfov', repr(options.hfov)]


def given_camera(options: argparse.Namespace) -> Intrinsics:
    """Return what the options of `add_camera` say; ValueError or OSError where it is wrong."""
    return Intrinsics(read(options.camera) if options.camera else None, options.hfov)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag` answers: is adaptive good enough on these recordings."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
import re
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

from adamtl_ros.arguments import add_camera
from adamtl_ros.arguments import given_camera
from adamtl_ros.arguments import Parser
from adamtl_ros.bag import many
from adamtl_ros.bag.compare import agreement_of
from adamtl_ros.bag.one import complain
from adamtl_ros.bag.one import damaged
from adamtl_ros.bag.one import evaluate_bag
from adamtl_ros.bag.one import Options
from adamtl_ros.bag.reading import recordings
from adamtl_ros.bag.sample import STORAGES
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.bag.storage import is_recording
from adamtl_ros.files import try_folder
from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.nodes.live import play
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.settings import check_budget
from adamtl_ros.runtime.settings import FIXED
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.tasks import ordered

BUDGETS = '1.0,0.8,0.6,0.5,0.4,0.3'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog='adamtl bag', description=(
            'Play recordings through the network, dense and at budgets, and write results.json, '
            'report.html and frames.csv: agreement with the dense network, latency, drops, '
            'operations, energy, stability. Exit code 0: all frames were evaluated; 1: results '
            'are written, but some of a recording could not be read; 2: nothing was evaluated.'))
    parser.add_argument(
        'bags', nargs='*', type=Path, metavar='BAG',
        help='rosbag2 folder, .mcap or .db3; or a folder of such')
    parser.add_argument('--topic', help='image topic (default: the only one)')
    parser.add_argument(
        '--budgets', default=BUDGETS, metavar='B,B', help=f'of mode adaptive (default: {BUDGETS})')
    parser.add_argument(
        '--modes', default=','.join(MODES), metavar='M,M',
        help=f'modes to compare, of {", ".join((*MODES, FIXED))}; static is always run, as the '
             f'reference; {FIXED} is the best set of blocks at a budget, which looks at nothing '
             '(default: all others)')
    parser.add_argument(
        '--mode', default='adaptive', choices=MODES, help='of --record (default: adaptive)')
    parser.add_argument(
        '--budget', type=float, default=0.6, metavar='B',
        help='of mode shadow and of --record (default: 0.6)')
    parser.add_argument('--model', default='glasses', help='preset or weights file')
    parser.add_argument('--backend', default='auto', help=f'one of {", ".join(BACKENDS)}')
    parser.add_argument(
        '--precision', default='f32', choices=PRECISIONS, help='of the network (default: f32)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    parser.add_argument(
        '--threads', type=int, default=0, metavar='N', help='of the network; 0: automatic')
    parser.add_argument(
        '--tasks', metavar='A,B', help='tasks to compute (default: all of the model)')
    add_camera(parser, 'the camera_info beside the pictures, or a camera of 73 degrees')
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='run one frame of N')
    parser.add_argument(
        '--max-frames', type=int, default=0, metavar='N', help='end after N frames; 0: never')
    parser.add_argument(
        '--no-reuse', action='store_true',
        help='compute also frames that look like the one before, as with reuse:=false in the node')
    parser.add_argument(
        '--no-warp', action='store_true',
        help='warp no results along the optical flow, as with warp:=false in the node')
    parser.add_argument(
        '--no-fuse', action='store_true',
        help='average no computed frame with those before, as with fuse:=false in the node')
    parser.add_argument(
        '--keep', type=float, default=0.95, metavar='A',
        help='agreement, in (0, 1], that the recommended budget holds (default: 0.95)')
    parser.add_argument(
        '--truth', action='append', default=[], metavar='TASK=TOPIC',
        help='topic with labels of a task, stamped as the pictures are; may be repeated')
    parser.add_argument(
        '--labels', type=Path, metavar='DIR',
        help='folder with labels, TASK/NAME.png: NAME is the stamp in ns, or the order')
    parser.add_argument(
        '--record', type=Path, metavar='OUT',
        help='write what the node would publish, at --mode and --budget, as a bag')
    parser.add_argument(
        '--live', action='store_true',
        help='first play the bag into the running node over ROS 2 and compare what it answers')
    parser.add_argument(
        '--rate', type=float, default=1.0, metavar='R',
        help='of --live: times the speed of the recording (default: 1.0)')
    parser.add_argument(
        '--node', default='adamtl', metavar='NAME',
        help='of --live and --record, with its namespace if it has one: left/adamtl '
             '(default: adamtl)')
    parser.add_argument(
        '--jobs', type=int, default=0, metavar='N',
        help='recordings at the same time; 0: one a core (needs the extra cluster)')
    parser.add_argument(
        '--scheduler', metavar='ADDRESS',
        help='of a Dask cluster whose machines see the recordings, such as tcp://host:8786')
    parser.add_argument(
        '--fresh', action='store_true',
        help='of several recordings, evaluate again also those with results')
    parser.add_argument(
        '--out', type=Path, default=Path('adamtl_bag'), metavar='DIR',
        help='folder for the results (default: adamtl_bag)')
    sample = parser.add_argument_group('sample bag')
    sample.add_argument(
        '--sample', type=Path, metavar='OUT',
        help='write the sequence that ships with the package as a bag, and end')
    sample.add_argument(
        '--storage', default='mcap', choices=sorted(STORAGES), help='of the sample')
    sample.add_argument('--size', metavar='WxH', help='of its pictures (default: 256x192)')
    sample.add_argument('--compressed', action='store_true', help='its pictures are JPEGs')
    sample.add_argument('--frames', type=int, metavar='N', help='of the sample (default: 90)')
    return parser


def check(options: argparse.Namespace) -> Options:
    """Return what is asked for; ValueError or OSError for what is wrong before anything runs."""
    budgets = tuple(dict.fromkeys(
        check_budget(_number('budgets', part))
        for part in options.budgets.split(',') if part.strip()))
    modes = tuple(part.strip() for part in options.modes.split(',') if part.strip())
    for mode in modes:
        if mode not in (*MODES, FIXED):
            raise ValueError(
                f'modes: {mode!r} is unknown; choose of {", ".join((*MODES, FIXED))}')
    if {'adaptive', FIXED} & set(modes) and not budgets:
        raise ValueError('budgets: name at least one, in (0, 1]')
    tasks = None if options.tasks is None else ordered(
        part.strip() for part in options.tasks.split(',') if part.strip())
    if tasks == ():
        raise ValueError('tasks: name at least one')
    for name, least in (('every', 1), ('max_frames', 0), ('jobs', 0)):
        if getattr(options, name) < least:
            raise ValueError(
                f'--{name.replace("_", "-")} {getattr(options, name)}: give {least} or more')
    if not 0 < options.keep <= 1:
        raise ValueError(f'--keep {options.keep}: give a share above 0 and at most 1')
    if not 0 < options.rate <= 100:
        raise ValueError(f'--rate {options.rate}: give a factor above 0 and at most 100')
    known = given_camera(options)
    if options.live and known != Intrinsics():
        raise ValueError(
            '--live: the node goes by the camera_info that was recorded; leave out --camera and '
            '--hfov')
    truth = dict(part.partition('=')[::2] for part in options.truth)
    if len(ordered(truth)) != len(options.truth) or not all(truth.values()):
        raise ValueError('--truth: give TASK=TOPIC, once a task, such as depth=/camera/depth')
    if truth and options.labels:
        raise ValueError('--truth and --labels: give one of the two')
    same = ('topic', 'mode', 'model', 'backend', 'precision', 'device', 'threads', 'every',
            'max_frames', 'keep', 'labels', 'record')
    return Options(
        budgets=budgets, budget=check_budget(options.budget), modes=modes, tasks=tasks,
        known=known, reuse=not options.no_reuse, warp=not options.no_warp,
        fuse=not options.no_fuse, truth=truth, node=full_name(options.node),
        **{name: getattr(options, name) for name in same})


def full_name(node: str) -> str:
    """Return a node's name with its namespace, '/left/adamtl'; ValueError where it is none."""
    # https://design.ros2.org/articles/topic_and_service_names.html
    if not re.fullmatch(r'/?([A-Za-z_][A-Za-z0-9_]*/)*[A-Za-z_][A-Za-z0-9_]*', node):
        raise ValueError(
            f'--node {node!r}: is no name of a node; give one of letters, digits and _, with its '
            'namespace before it if it has one, such as adamtl or /left/adamtl')
    return f'/{node.lstrip("/")}'


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{name}: {text.strip()!r} is not a number') from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f'--size {text}: give WIDTHxHEIGHT in pixels, such as 640x480')
    return int(width), int(height)


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """Return the recordings at the paths, those below a folder included; ValueError if none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f'{path}: there is no such bag')
        if not path.is_dir():
            found.append(path)
            continue
        there = []
        for folder in [path, *sorted(folder for folder in path.rglob('*') if folder.is_dir())]:
            try:
                there += recordings(folder) if is_recording(folder) else []
            except OSError:  # evaluating it says why it cannot be read
                there.append(folder)
        if not there:
            raise ValueError(f'{path}: holds no recording (rosbag2 folder, .mcap or .db3)')
        found += there
    return list(dict.fromkeys(path.resolve() for path in found))


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the rows and the recommendation."""
    table = Table(title=f'{figures["bag"]} {figures["topic"]}, {figures["frames"]} frames')
    for heading in ('mode', 'budget', 'achieved', 'reused', 'warped', 'agreement', 'mean ms',
                    'p50 ms', 'p95 ms', 'dropped', 'J a frame'):
        table.add_column(heading, justify='right')
    for row in figures['rows']:
        energy = row['energy_j']
        table.add_row(
            row['mode'], f'{row["budget"]:.2f}', f'{row["achieved"]:.3f}',
            f'{row["reused"]:.0%}', f'{row["warped"]:.0%}', f'{agreement_of(row):.3f}',
            *(f'{row[name]:.1f}' for name in ('mean_ms', 'p50_ms', 'p95_ms')), str(row['dropped']),
            '-' if energy is None else f'{energy:.3f}')
    console.print(table)
    console.print(figures['recommendation']['text'], highlight=False)
    if 'live' in figures:
        console.print(figures['live']['text'], highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl bag ...`; return the exit code."""
    options = parser().parse_args(argv)
    try:
        if options.sample:
            if options.frames is not None and options.frames < 1:
                raise ValueError(f'--frames {options.frames}: give 1 or more')
            count = write_sample(
                options.sample, storage=options.storage, size=_size(options.size),
                compressed=options.compressed, frames=options.frames)
            print(f'{options.sample}: {count} frames')
            return 0
        if not options.bags:
            raise ValueError('name a recording, or make one with --sample OUT')
        asked = check(options)
        bags = find_bags(options.bags)
        # Of many recordings, those with results are not done again.
        several = len(bags) > 1 or options.scheduler
        try_folder(options.out, () if several else many.FILES)
        if asked.record and len(bags) == 1:
            if asked.record.exists():
                raise ValueError(f'{asked.record}: exists already; give the name of a new bag')
            try_folder(asked.record.absolute().parent)
        if several:
            if options.live:
                raise ValueError('--live plays one recording; name one')
            return many.run(
                bags, asked, options.out, options.jobs, options.scheduler, options.fresh)
        console = Console(stderr=True)
        columns = (
            TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            live = partial(play, rate=options.rate, out=options.out, console=progress.console)
            figures = evaluate_bag(
                bags[0], asked, options.out, progress=progress,
                live=live if options.live else None)
        show(figures, Console(width=120))
        print(f'{options.out / "report.html"} and results.json')
        complain(figures)
        if figures['interrupted']:
            return 130
        return int(damaged(figures))
    except (ValueError, OSError) as error:
        print(f'adamtl bag: {" ".join(str(error).split())}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())

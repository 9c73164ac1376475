# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl demo`: play a source into a running node over ROS 2, and show what it answers."""

from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

from adamtl_ros.arguments import add_camera
from adamtl_ros.arguments import add_domain
from adamtl_ros.arguments import add_engine
from adamtl_ros.arguments import camera_arguments
from adamtl_ros.arguments import count
from adamtl_ros.arguments import folder
from adamtl_ros.arguments import given_camera
from adamtl_ros.arguments import Parser
from adamtl_ros.files import plain
from adamtl_ros.files import try_folder
from adamtl_ros.files import whole
from adamtl_ros.network.checkpoint import find
from adamtl_ros.network.config import PRESETS
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import filmed_by
from adamtl_ros.sources import open_source
from adamtl_ros.waiting import saying

FILES = ('overlay.mp4', 'sheet.png', 'stats.csv', 'summary.json')
"""What a run writes."""


def parser() -> Parser:
    """Return the parser of the command's arguments."""
    parse = Parser(
        prog='adamtl demo',
        description='Start the node, play the source into it over ROS 2 topics, record all that '
                    'it publishes, and write overlay.mp4, sheet.png (frame, tasks and gating map '
                    'at three budgets), stats.csv and summary.json. Exit code 1 if a frame was '
                    'neither answered in full nor counted as dropped.')
    parse.add_argument(
        '--source', metavar='VIDEO|DIR|BAG',
        help='video file, folder of pictures (in name order), or rosbag2 (default: the sequence '
             'that ships with the package, at whose end the camera stands still)')
    parse.add_argument(
        '--topic', help='image topic of a bag (default: its first that can be read)')
    parse.add_argument(
        '--rate', type=float, metavar='HZ', help="play at HZ (default: the source's own rate)")
    parse.add_argument(
        '--frames', type=count, metavar='N', help='play the first N frames only (default: all)')
    add_engine(parse)
    add_domain(parse)
    parse.set_defaults(mode='adaptive', budget=0.6)
    add_camera(parse, "the source's own, or a camera of 73 degrees")
    parse.add_argument(
        '--out', type=folder, default=Path('adamtl_demo'), metavar='DIR',
        help='folder for the results (default: adamtl_demo)')
    return parse


def report(summary: dict[str, Any], out: Path, console: Console) -> None:
    """Print the figures that people look for first."""
    frames = summary['frames']
    table = Table(box=None, show_header=False)
    table.add_row('frames', ', '.join(f'{number} {name}' for name, number in frames.items()))
    for row in summary['budgets']:
        table.add_row(
            f'budget {row["requested"]:.2f}',
            f'{row["achieved"]:.3f} achieved over {row["frames"]} frames')
    for name, part in (
            ('while it played', summary['played']),
            *((f'{part["name"]} part', part) for part in summary['parts'])):
        if part['mean_cost'] is not None:
            number = f'{part["frames"]} frames, ' if 'frames' in part else ''
            table.add_row(
                name, f'{number}{part["mean_cost"]:.3f} of the dense cost a frame, '
                      f'{part["reused"]} reused, {part["warped"]} warped')
    latency = summary['latency_ms']
    if latency['p50'] is not None:
        table.add_row('latency', f'{latency["p50"]:.1f} ms median, {latency["p95"]:.1f} ms p95')
    if summary['node_memory_peak_mb'] is not None:
        table.add_row('node memory', f'{summary["node_memory_peak_mb"]:.0f} MB peak')
    names = [name for name in FILES if (out / name).exists()]
    table.add_row('results', f'{", ".join(names)} in {out}')
    console.print(table, highlight=False, soft_wrap=True)


def main(argv: Sequence[str]) -> int:
    """
    Run `adamtl demo`; return 0, 1 if a frame is unaccounted for or a step failed, 130 on Ctrl-C.

    ValueError or OSError where something given on the command line is wrong.
    """
    options = parser().parse_args(argv)
    # Not at the top, as --help needs no ROS.
    with saying('adamtl demo: starting'):
        from adamtl_ros.nodes import trial

    Settings(mode=options.mode, budget=options.budget)
    # What is odd about it the player tells, which plays it to its end.
    source = open_source(
        options.source or None, rate=options.rate, topic=options.topic, say=lambda text: None)
    source = filmed_by(source, given_camera(options))
    model = find(options.model)
    if options.model not in PRESETS:  # the node runs in another folder
        options.model = str(model.resolve())
    out = options.out.resolve()
    if source.path.resolve() in (out, *(out / name for name in FILES)):
        raise ValueError(
            f'{source.path}: results would be written over the source; give another --out')
    try_folder(out, FILES)
    for name in (*FILES, 'player.log'):
        (out / name).unlink(missing_ok=True)  # of an earlier run
    player = camera_arguments(options)
    for name in ('rate', 'topic'):
        if getattr(options, name) is not None:
            player += [f'--{name}', str(getattr(options, name))]
    wanted = trial.Wanted(out, {
        'mode': options.mode, 'budget': options.budget, 'model': options.model,
        'backend': options.backend, 'device': options.device, 'precision': options.precision,
        'num_threads': options.threads}, options.frames, tuple(player))
    console = Console()
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), (
        TimeElapsedColumn())
    summary = trial.run(wanted, source, options.domain, Progress(*columns, console=console))
    with whole(out / 'summary.json') as aside:
        aside.write_text(json.dumps(plain(summary), indent=2, allow_nan=False) + '\n')
    report(summary, out, console)
    for wrong in (*summary['problems'], *summary['violations']):
        print(f'adamtl demo: {wrong}', file=sys.stderr)
    if summary['interrupted']:
        return 130
    return 1 if summary['violations'] else 0

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Watch running nodes in the terminal: rates, latency, budget, gates per task and block, drops.

It only listens to ~/gating_stats and /diagnostics, so it costs the nodes next to nothing and
makes no task run.
"""

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
import os
from pathlib import Path
import statistics
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.console import Group
from rich.console import RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adamtl_ros.arguments import Parser
from adamtl_ros.files import try_file
from adamtl_ros.files import whole
from adamtl_ros.msg import GatingStats
from adamtl_ros.nodes.diagnostics import UNKNOWN
from adamtl_ros.nodes.starting import start_ros

WINDOW = 5.0
"""Seconds over which rates and medians are taken."""

GONE = 5.0
"""Seconds without a word, of diagnostics or of a frame, after which a node is taken to be gone."""

REFRESH = 0.5
"""Seconds between two pictures."""

LEVELS = (('OK', 'green'), ('WARN', 'yellow'), ('ERROR', 'red'), ('STALE', 'magenta'))
ERROR = 2
SUFFIX = ': inference'
TYPE = 'adamtl_ros/msg/GatingStats'


@dataclass
class Watched:
    """
    What a node has said lately: its last messages, and (time, latency, cost, computed) of each.

    gated: the last statistics in which the policy ran or was not asked for, in mode shadow only
    those of the compared frames.  heard: when it said anything last.
    """

    stats: GatingStats | None = None
    gated: GatingStats | None = None
    frames: deque[tuple[float, float, float, bool]] = field(default_factory=deque)
    level: int = 3
    message: str = 'no diagnostics yet'
    values: dict[str, str] = field(default_factory=dict)
    heard: float = math.inf

    def add(self, stats: GatingStats, now: float) -> None:
        """Take in a frame's statistics."""
        self.stats, self.heard = stats, now
        if stats.budget_achieved == stats.budget_achieved:
            self.gated = stats
        self.frames.append((
            now, stats.latency_ms, stats.budget_achieved, not (stats.reused or stats.warped)))
        self.forget(now)

    def forget(self, now: float) -> None:
        """Leave out of rates and medians what is too long ago."""
        while self.frames and now - self.frames[0][0] > WINDOW:
            self.frames.popleft()


def bar(share: float, width: int = 20) -> str:
    """Return a share in [0, 1] as a bar of characters; empty for NaN."""
    if share != share:
        return ''
    full = min(max(round(share * width), 0), width)
    return '█' * full + '·' * (width - full)


def would_save(saving: str) -> str:
    """Return in words what share of the MACs the policy would have saved, by the diagnostics."""
    share = float(saving)
    if share < 0:
        return f'nothing: the policy itself costs {-share:.1%} of the MACs; set a budget below 1'
    return f'{share:.1%} of the MACs'


def picture(name: str, watched: Watched, now: float) -> RenderableType:
    """Return what is shown of a node."""
    watched.forget(now)
    values, stats, gated = watched.values, watched.stats, watched.gated
    if now - watched.heard > GONE:
        return Panel(Text.assemble(
            (' GONE ', 'bold reverse red'), f' not a word for {now - watched.heard:.0f} s; the '
            f'last was: {watched.message}'), title=f'/{name}', title_align='left')
    label, colour = LEVELS[watched.level]
    head = Text.assemble((f' {label} ', f'bold reverse {colour}'), f' {watched.message}')
    rows = Table.grid(padding=(0, 2))
    seconds = min(WINDOW, max(now - watched.frames[0][0], 1e-3)) if watched.frames else WINDOW
    rows.add_row('rate', f'in {values.get("input rate (Hz)", "?")} Hz, '
                         f'out {len(watched.frames) / seconds:.1f} Hz')
    if watched.frames:
        latencies = sorted(frame[1] for frame in watched.frames)
        rows.add_row('latency', f'median {statistics.median(latencies):.1f} ms, '
                                f'max {latencies[-1]:.1f} ms over {WINDOW:g} s')
    parts: list[RenderableType] = [head, rows]
    if stats is not None:
        achieved = [frame[2] for frame in watched.frames if frame[2] == frame[2]]
        rows.add_row('mode', stats.mode)
        budget = f'{stats.budget_requested:.2f} asked'
        if gated is not None:
            mean = statistics.mean(achieved) if achieved else gated.budget_achieved
            budget += (f', {mean:.2f} achieved  {bar(mean)}  {mean * stats.gmacs_dense:.2f} of '
                       f'{stats.gmacs_dense:.2f} GMACs')
        rows.add_row('budget', budget)
        if gated is not None and gated.budget_mean == gated.budget_mean:
            computed = statistics.mean(frame[3] for frame in watched.frames or [(
                0, 0, 0, not (gated.reused or gated.warped))])
            rows.add_row('stream', f'mean {gated.budget_mean:.2f}, cap {gated.budget_cap:.2f}, '
                                   f'{computed:.0%} of the frames computed')
        rows.add_row('frames', f'{stats.frames_received} received = {stats.frames_processed} '
                               f'processed + {stats.frames_dropped} dropped'
                               + ('' if values.get('frames missed') == UNKNOWN else
                                  f', {stats.frames_missed} never came'))
    drops = ', '.join(f'{value} {key.removeprefix("dropped: ")}'
                      for key, value in values.items() if key.startswith('dropped: '))
    rows.add_row('drops', drops or 'none')
    if 'device' in values:
        rows.add_row('runs', f'{values["model"]} on {values["device"]} with {values["backend"]}, '
                             f'{values.get("memory (MB)", "?")} MB')
    if values.get('guard', 'off') != 'off':
        rows.add_row('guard', values['guard'])
    saving = values.get('share of MACs that the policy would have saved')
    if saving is not None:
        rows.add_row('would save', would_save(saving))
    if stats is not None and not stats.task_stats:
        rows.add_row('tasks', 'none runs, as nobody subscribes to one that is enabled')
    if stats is not None and stats.task_stats:
        tasks = Table(box=None, padding=(0, 2), header_style='bold')
        for column in ('task', 'tokens asked for', '', 'agreement'):
            tasks.add_column(column)
        asked = {each.name: each.token_fraction for each in gated.task_stats} if gated else {}
        for each in stats.task_stats:
            share = asked.get(each.name, math.nan)
            tasks.add_row(each.name, bar(share), '' if share != share else f'{share:.2f}',
                          values.get(f'agreement: {each.name}', ''))
        parts.append(tasks)
    if gated is not None and gated.token_fraction:
        blocks = Text('blocks  ', style='bold')
        for active, share in zip(gated.block_active, gated.token_fraction):
            blocks.append('▁▂▃▄▅▆▇█'[min(int(share * 8), 7)] if active else '·', style='not bold')
        blocks.append('  tokens executed, first to last; · closed', style='dim not bold')
        parts.append(blocks)
    return Panel(Group(*parts), title=f'/{name}', title_align='left')


class Top(Node):
    """Listens to all nodes of this graph, or to one."""

    def __init__(self, only: str = '') -> None:
        """Listen to the diagnostics at once, and to statistics as nodes appear."""
        super().__init__('adamtl_top')
        self.only = only.strip('/')
        self.watched: dict[str, Watched] = {}
        self._heard: set[str] = set()
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 50)
        self.create_timer(1.0, self._discover)
        self._discover()

    def _wanted(self, name: str) -> bool:
        return self.only in ('', name)

    def _discover(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            name = topic.strip('/').removesuffix('/gating_stats')
            if TYPE in types and self._wanted(name) and name not in self._heard:
                self._heard.add(name)
                self.create_subscription(
                    GatingStats, topic, lambda message, name=name: self.watched.setdefault(
                        name, Watched()).add(message, time.monotonic()), QoSProfile(depth=10))

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.removesuffix(SUFFIX)
            if status.name.endswith(SUFFIX) and self._wanted(name):
                watched = self.watched.setdefault(name, Watched())
                watched.level, watched.message = status.level[0], status.message
                watched.heard = time.monotonic()
                watched.values = {each.key: each.value for each in status.values}

    @property
    def awaited(self) -> str:
        """Return what is listened to, in words."""
        return f'the node /{self.only}' if self.only else 'any adamtl node'

    def picture(self) -> RenderableType:
        """Return what is shown now."""
        if not self.watched:
            return Text(f'waiting for {self.awaited}; Ctrl-C ends')
        now = time.monotonic()
        return Group(*(picture(name, each, now) for name, each in sorted(self.watched.items())))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `adamtl top`."""
    parser = Parser(prog='adamtl top', description=' '.join(str(__doc__).split()))
    parser.add_argument('node', nargs='?', default='', help='full name of one node (default: all)')
    parser.add_argument(
        '--once', type=float, metavar='S', help='listen for S seconds, print one picture, end')
    parser.add_argument('--svg', type=Path, metavar='FILE', help='with --once, write it as SVG')
    parser.add_argument(
        '--healthy', action='store_true',
        help='with --once: exit code 1 as well where a node reports ERROR')
    options = parser.parse_args(argv)
    if options.once is not None and not 0.0 < options.once < 3600.0:
        parser.error(f'--once: {options.once} is not a time; give seconds above 0, to 3600')
    if options.svg and options.once is None:
        parser.error('--svg: it needs --once S')
    if options.healthy and options.once is None:
        parser.error('--healthy: it needs --once S')
    return options


def main(argv: Sequence[str]) -> int:
    """Run `adamtl top`; return 0, 1 where --once heard nothing (good), 2 for a wrong call."""
    options = parse(argv)
    try_file(options.svg)
    start_ros()
    top = Top(options.node)
    executor = SingleThreadedExecutor()
    executor.add_node(top)
    console = Console(record=options.svg is not None)
    try:
        if options.once is not None:
            end = time.monotonic() + options.once
            while time.monotonic() < end:
                executor.spin_once(0.1)
            console.print(top.picture())
            if options.svg:
                with whole(options.svg) as aside:
                    aside.write_text(console.export_svg(title='adamtl top'))
            if top.watched:
                levels = {watched.level for watched in top.watched.values()}
                return int(options.healthy and ERROR in levels)
            where = os.environ.get('ROS_DOMAIN_ID') or '0'
            print(
                f'adamtl top: {top.awaited} said nothing within {options.once:g} s in the ROS '
                f'domain {where} (ROS_DOMAIN_ID): is it running, there, and longer than a second?',
                file=sys.stderr)
            return 1
        with Live(top.picture(), console=console, auto_refresh=False) as live:
            while rclpy.ok():
                end = time.monotonic() + REFRESH
                while time.monotonic() < end:
                    executor.spin_once(0.1)
                live.update(top.picture(), refresh=True)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        print(file=sys.stderr)
    finally:
        executor.shutdown()
        top.destroy_node()
        rclpy.try_shutdown()
    return 0

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Run the node under load for a long time, and say whether it stayed as it was.

A player sends the demo sequence (or another source), enlarged to --size, to a node of its own;
this process listens to what the node publishes and, with --changes, sets parameters at random
while frames flow.  Reported: frames by their fate, the drift of latency, the growth of memory.
Exit code 1 if a frame is unaccounted for, the node ended, or a valid change was refused.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
import json
from pathlib import Path
import random
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from adamtl_ros import dds
from adamtl_ros.arguments import add_domain
from adamtl_ros.arguments import Parser
from adamtl_ros.bag.measures import percentiles
from adamtl_ros.files import try_file
from adamtl_ros.files import whole
from adamtl_ros.msg import GatingStats
from adamtl_ros.network.checkpoint import find
from adamtl_ros.nodes.diagnostics import resident_mb
from adamtl_ros.nodes.diagnostics import UNKNOWN
from adamtl_ros.nodes.starting import start_ros
from adamtl_ros.processes import child
from adamtl_ros.processes import last_lines
from adamtl_ros.processes import Stop
from adamtl_ros.runtime.points import FIELDS
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import OUTPUT_SIZES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source
from adamtl_ros.tasks import TASKS

START_LIMIT = 120.0
"""Seconds in which the node must have loaded its model."""

SETTLE = 3.0
"""Seconds to receive what is on its way after the last frame."""

STATUS = 'adamtl: inference'
"""Name of the node's own among the diagnostics."""

BESIDE = 'received to published without network, median (ms)'


def _size(value: str) -> tuple[int, int]:
    width, _, height = value.partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{value!r} is not a size; give one such as 640x480')
    return int(width), int(height)


def _positive(value: str) -> float:
    number = float(value)
    if not 0.0 < number < 1e6:
        raise argparse.ArgumentTypeError(f'{value} is not a positive number')
    return number


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `adamtl soak`."""
    parser = Parser(prog='adamtl soak', description=' '.join(str(__doc__).split()))
    parser.add_argument(
        '--minutes', type=_positive, default=30.0, metavar='N', help='how long frames are sent')
    parser.add_argument(
        '--rate', type=_positive, default=15.0, metavar='HZ', help='of the camera')
    parser.add_argument(
        '--size', type=_size, default=(640, 480), metavar='WxH',
        help='of the frames, in pixels (default: 640x480)')
    parser.add_argument('--source', help='video, folder or bag (default: the demo sequence)')
    parser.add_argument(
        '--model', default='glasses', metavar='M', help='preset, or path of a weights file')
    parser.add_argument('--mode', choices=MODES, default='adaptive', help='of the node')
    parser.add_argument(
        '--budget', type=float, default=0.5, metavar='B',
        help='share, above 0 and up to 1, of the dense cost')
    parser.add_argument(
        '--threads', type=int, default=0, metavar='N', help='of the network; 0: automatic')
    parser.add_argument(
        '--tasks', default=','.join(TASKS), metavar='A,B',
        help='tasks to listen to (default: all)')
    parser.add_argument(
        '--changes', type=int, default=0, metavar='N',
        help='set parameters at random so many times, evenly over the run')
    parser.add_argument(
        '--warm-up', type=_positive, metavar='MINUTES',
        help='left out of the fits (default: a tenth of the run)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE',
        help='write the report there as well (default: it is printed alone)')
    parser.add_argument(
        '--log', type=Path, metavar='FILE', help="keep the node's log (default: it is not kept)")
    add_domain(parser)
    options = parser.parse_args(argv)
    options.tasks = [task for task in options.tasks.split(',') if task]
    # Here, before anything is started: a bad value is an error of the command line.
    Settings(mode=options.mode, budget=options.budget, tasks=tuple(options.tasks))
    if options.changes < 0:
        parser.error(f'--changes: {options.changes} is not a number of changes; give 0 or more')
    return options


def slope(times: Sequence[float], values: Sequence[float]) -> dict[str, float] | None:
    """
    Fit a line by least squares to values over times in s.

    Returns its slope per hour with its standard error, and the residual's standard deviation; None
    for fewer than three points.
    """
    if len(times) < 3:
        return None
    x = np.asarray(times) / 3600
    y = np.asarray(values, dtype=np.float64)
    x = x - x.mean()
    spread = float(x @ x)
    if spread == 0.0:
        return None
    gradient = float(x @ y) / spread
    residual = y - y.mean() - gradient * x
    deviation = float(np.sqrt(residual @ residual / (len(x) - 2)))
    return {'per_hour': gradient, 'standard_error': deviation / spread ** 0.5,
            'residual': deviation, 'points': len(x)}


def random_change(generator: random.Random) -> list[Parameter]:
    """Return parameters, one to three of them, with values that the node must take."""
    task = generator.choice(list(TASKS))
    choices: dict[str, Any] = {
        'mode': generator.choice(MODES),
        'budget': generator.uniform(0.25, 1.0),
        # Not below any budget.
        'budget_cap': 1.0,
        'budget_horizon': generator.randint(1, 200),
        'reuse': generator.random() < 0.5,
        'warp': generator.random() < 0.5,
        'fuse': generator.random() < 0.5,
        'refresh': generator.randint(1, 100),
        'skip_empty': generator.random() < 0.5,
        'min_budget': generator.uniform(0.1, 1.0),
        'target_latency_ms': generator.choice((0.0, 20.0, 50.0, 200.0)),
        'compare_share': generator.choice((0.0, 0.1, 0.5)),
        'guard.action': generator.choice(('off', 'raise_budget', 'static')),
        'guard.agreement': generator.uniform(0.0, 1.0),
        'guard.window': generator.randint(1, 30),
        'output_size': generator.choice(OUTPUT_SIZES),
        'max_rate_hz': generator.choice((0.0, 5.0, 30.0)),
        # Others would lose sight of the player.
        'image_transport': generator.choice(('auto', 'raw')),
        'image_reliability': generator.choice(('auto', 'reliable')),
        'hardware_id': generator.choice(('', 'front')),
        'overlay.tasks': generator.sample(list(TASKS), generator.randint(1, len(TASKS))),
        'points.fields': generator.sample(FIELDS, generator.randint(1, len(FIELDS))),
        'points.stride': generator.randint(1, 8),
        'points.min_range': generator.uniform(0.0, 1.0),
        'points.max_range': generator.uniform(2.0, 20.0),
        'points.edge': generator.uniform(0.0, 1.0),
        f'tasks.{task}.enable': generator.random() < 0.7,
        f'tasks.{task}.weight': generator.uniform(0.0, 10.0),
    }
    names = generator.sample(list(choices), generator.randint(1, 3))
    return [Parameter(name, value=choices[name]) for name in names]


class Soak:
    """One run: what was sent, what came back, and how the node did meanwhile."""

    def __init__(self, options: argparse.Namespace, stop: Stop) -> None:
        """Subscribe to the node that is to come; the ROS context is initialised."""
        self.options = options
        self.stop = stop
        self.begin = time.monotonic()
        self.last: GatingStats | None = None
        self.answers: Counter[str] = Counter()
        self.rows: list[tuple[float, float, float]] = []
        self.memory: list[tuple[float, float]] = []
        self.beside: list[float] = []
        self.beyond: list[float] = []
        self.drops: dict[str, int] = {}
        self.levels: Counter[str] = Counter()
        self.latest = ''
        self.missed: int | None = 0
        self.accepted = 0
        self.refused: list[str] = []
        self.node = rclpy.create_node('adamtl_soak')
        self.client = AsyncParameterClient(self.node, 'adamtl')
        for task in options.tasks:
            self.node.create_subscription(
                Image, f'adamtl/{task}', lambda _, task=task: self.answers.update([task]),
                QoSProfile(depth=50))
        self.node.create_subscription(
            GatingStats, 'adamtl/gating_stats', self._receive, QoSProfile(depth=50))
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 50)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def _receive(self, message: GatingStats) -> None:
        self.last = message
        self.answers['gating_stats'] += 1
        self.rows.append((time.monotonic(), message.latency_ms, message.budget_achieved))
        self.beyond.append(message.latency_ms - message.network_ms)

    def _diagnose(self, message: DiagnosticArray) -> None:
        status = next((each for each in message.status if each.name == STATUS), None)
        if status is None:  # of somebody else in the domain
            return
        values = {each.key: each.value for each in status.values}
        self.latest = status.message
        self.levels[('OK', 'WARN', 'ERROR', 'STALE')[status.level[0]]] += 1
        self.drops = {key.removeprefix('dropped: '): int(value)
                      for key, value in values.items() if key.startswith('dropped: ')}
        missed = values.get('frames missed', '0')
        self.missed = None if missed == UNKNOWN else int(missed)
        if BESIDE in values:
            self.beside.append(float(values[BESIDE]))

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(0.05)

    def change(self, generator: random.Random) -> None:
        """Set parameters at random and wait for the answer."""
        parameters = random_change(generator)
        future = self.client.set_parameters_atomically(parameters)
        self.executor.spin_until_future_complete(future, 10.0)
        answer = future.result()
        if answer is not None and answer.result.successful:
            self.accepted += 1
        else:
            text = ', '.join(f'{each.name}={each.value!r}' for each in parameters)
            self.refused.append(f'{text}: {answer.result.reason if answer else "no answer"}')

    def run(self, folder: Path) -> dict[str, Any]:
        """Run node and player; return the report."""
        options = self.options
        pictures = self._pictures(folder)
        frames = max(round(60 * options.minutes * options.rate), 1)
        parameters = folder / 'parameters.yaml'
        parameters.write_text(json.dumps({'/**': {'ros__parameters': {
            'model': options.model, 'mode': options.mode, 'budget': options.budget,
            'num_threads': options.threads}}}))
        log = options.log.resolve() if options.log else folder / 'node.log'
        sent = folder / 'player.json'
        generator = random.Random(0)
        with child('adamtl_ros.nodes.node',
                   ['--ros-args', '--params-file', str(parameters)], log) as node:
            end = time.monotonic() + START_LIMIT
            while not self.node.count_publishers('adamtl/gating_stats'):
                if self.stop.set:
                    raise KeyboardInterrupt
                if time.monotonic() > end or node.poll() is not None:
                    raise ValueError(f'the node did not start: {last_lines(log)}')
                self.spin(0.1)
            self.spin(2.0)
            self.begin = time.monotonic()
            with child('adamtl_ros.nodes.player', [
                    str(pictures), '--loop', '--frames', str(frames), '--rate', str(options.rate),
                    '--wait', '60', '--report', str(sent)], folder / 'player.log') as player:
                self._watch(node, player, generator)
            self.spin(SETTLE)
            alive = node.poll() is None
        return self._report(len(json.loads(sent.read_text())['stamps']), alive, node.returncode)

    def _watch(self, node: Any, player: Any, generator: random.Random) -> None:
        every = 60 * self.options.minutes / self.options.changes if self.options.changes else 0.0
        sampled = shown = 0.0
        changed = 0
        while player.poll() is None and node.poll() is None and not self.stop.set:
            self.spin(0.1)
            now = time.monotonic()
            if now - sampled >= 1.0:
                sampled = now
                memory = resident_mb(node.pid)
                if memory is not None:
                    self.memory.append((now, memory))
            while every and changed < self.options.changes and (
                    now - self.begin >= (changed + 0.5) * every):
                self.change(generator)
                changed += 1
                now = time.monotonic()
            if now - shown >= 60.0 and self.memory:
                shown = now
                print(f'{(now - self.begin) / 60:5.1f} min: {self.answers["gating_stats"]} frames '
                      f'answered, {self.memory[-1][1]:.1f} MB, {self.latest}', file=sys.stderr)

    def _pictures(self, folder: Path) -> Path:
        source = open_source(self.options.source or DEMO)
        pictures = folder / 'pictures'
        pictures.mkdir()
        for number, frame in enumerate(source):
            # A loop over some seconds is enough, and a long video would fill the disk.
            if number == 300:
                break
            picture = cv2.resize(frame.image, self.options.size, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(pictures / f'{number:04}.png'), picture[..., ::-1])
        return pictures

    def _report(self, sent: int, alive: bool, code: int | None) -> dict[str, Any]:
        options, last = self.options, self.last
        warm_up = 60 * (options.warm_up or options.minutes / 10)
        received = last.frames_received if last else 0
        processed = last.frames_processed if last else 0
        dropped = last.frames_dropped if last else 0
        # The last drops may come after the last answer, and only diagnostics tell of them.
        gone = max(dropped, sum(self.drops.values()))
        # What the node cannot know is known here.
        missed = sent - processed - gone if self.missed is None else max(
            last.frames_missed if last else 0, self.missed)
        rows = [row for row in self.rows if row[0] - self.begin >= warm_up]
        memory = [row for row in self.memory if row[0] - self.begin >= warm_up]
        fit = slope([row[0] for row in memory], [row[1] for row in memory])
        drift = slope([row[0] for row in rows], [row[1] for row in rows])
        unexplained = sent - processed - missed - gone
        problems = []
        if not alive:
            problems.append(f'the node ended by itself with code {code}')
        elif code:
            problems.append(f'the node ended with code {code}')
        if unexplained:
            problems.append(
                f'{unexplained} frames are neither answered nor counted as dropped or missed')
        if not options.changes and any(
                self.answers[task] != processed for task in options.tasks):
            problems.append(
                f'of {processed} processed frames, tasks answered {dict(self.answers)}')
        if self.refused:
            problems.append(f'{len(self.refused)} valid changes were refused, the first: '
                            f'{self.refused[0]}')
        achieved = [row[2] for row in rows if not np.isnan(row[2])]
        return {
            'minutes': round((time.monotonic() - self.begin) / 60, 2), 'rate_hz': options.rate,
            'size': '{}x{}'.format(*options.size), 'mode': options.mode,
            'budget': options.budget, 'tasks': options.tasks, 'warm_up_minutes': warm_up / 60,
            'frames': {'sent': sent, 'received': received, 'processed': processed,
                       'dropped': dropped, 'missed': missed, 'by_cause': self.drops,
                       'unexplained': unexplained},
            'answers': dict(self.answers),
            'latency_ms': _spread([row[1] for row in rows]),
            'latency_slope_ms': drift,
            'beyond_network_ms': _spread(self.beyond),
            'received_to_published_without_network_ms_median': (
                float(np.median(self.beside)) if self.beside else None),
            # Unknown of frames of mode shadow that were not compared.
            'budget_achieved': float(np.mean(achieved)) if achieved else None,
            'memory_mb': {'first': self.memory[0][1], 'last': self.memory[-1][1],
                          'peak': max(row[1] for row in self.memory),
                          'slope': fit} if self.memory else None,
            'changes': {'accepted': self.accepted, 'refused': len(self.refused)},
            'diagnostics': dict(self.levels), 'problems': problems,
        }

    def close(self) -> None:
        """End this process's part."""
        self.executor.shutdown()
        self.node.destroy_node()


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    told = {**percentiles(values), 'max': max(values, default=None)}
    return {name: round(value, 2) for name, value in told.items() if value is not None} or None


def main(argv: Sequence[str]) -> int:
    """
    Run `adamtl soak`; return 0, 1 where something is wrong with the node, 2 with the call.

    130 where it was told to end early: the report is of what there was.
    """
    options = parse(argv)
    try_file(options.json)
    try_file(options.log)
    open_source(options.source or DEMO)
    find(options.model)
    with dds.domain(options.domain), closing(Stop()) as stop:
        start_ros()
        try:
            with closing(Soak(options, stop)) as soak, TemporaryDirectory() as folder:
                report = soak.run(Path(folder))
        finally:
            rclpy.try_shutdown()
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        with whole(options.json) as aside:
            aside.write_text(text + '\n')
    for problem in report['problems']:
        print(f'adamtl soak: {problem}', file=sys.stderr)
    if stop.set:
        return 130
    return 1 if report['problems'] else 0

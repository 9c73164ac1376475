# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure latency, MACs and memory: static against adaptive, interleaved in one run.

Every row, a mode with its budget or a reference, takes its turn at the next few frames of the
source, in order; the rows in another order every round.  Times are of whole frames, image in to
arrays out, and of the network alone; of references, which are the static network, the latter.
`adaptive` computes each frame within the budget by itself; in a `stream` the budget is the mean,
as in the node, and some frames cost next to nothing: look at its mean time, not at the median.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
from itertools import cycle
from itertools import islice
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
import warnings

import numpy as np
from rich.console import Console
from rich.table import Table

from adamtl_ros.arguments import Parser
from adamtl_ros.bag.energy import Meter
from adamtl_ros.bag.measures import percentiles
from adamtl_ros.files import FIGURES
from adamtl_ros.files import try_figure
from adamtl_ros.files import try_file
from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.processes import processors
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.latency import processor
from adamtl_ros.runtime.settings import check_budget
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source
from adamtl_ros.waiting import saying

REFERENCES = ('torch', 'compile', 'openvino')

_START = """
import sys, time
started = time.perf_counter()
import numpy as np
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
model, backend, device, threads, precision = sys.argv[1:]
engine = Engine(
    model, backend=backend, device=device, num_threads=int(threads), precision=precision)
engine.infer(np.zeros((480, 640, 3), np.uint8), Settings('static', tasks=engine.tasks))
print(time.perf_counter() - started)
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parse = Parser(prog='adamtl bench', description=__doc__)
    parse.add_argument('--model', default='glasses', help='preset or weights file')
    parse.add_argument(
        '--backend', default='auto', choices=BACKENDS, help='what executes the network')
    parse.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    parse.add_argument(
        '--precision', default='f32', choices=PRECISIONS, help='of the computation')
    parse.add_argument('--threads', type=int, default=0, help='of the network; 0: automatic')
    parse.add_argument('--budgets', default='1.0,0.75,0.5,0.35', help='comma-separated shares')
    parse.add_argument('--tasks', help='comma-separated (default: all of the model)')
    parse.add_argument(
        '--source', help='video, folder of pictures or bag (default: the sequence shipped)')
    parse.add_argument('--rounds', type=int, default=90, help='frames for every row')
    parse.add_argument('--warm-up', type=int, default=10, help='frames before those')
    parse.add_argument(
        '--turn', type=int, default=6,
        help='frames that a row runs before the next one does; the first of more than one does '
        'not count, as others have used the caches (1: all count)')
    parse.add_argument(
        '--reference', action='append', default=[], choices=REFERENCES,
        help='also run the static network in eager torch, torch.compile or plain OpenVINO '
             '(default: none)')
    parse.add_argument(
        '--energy', action='store_true',
        help='joules a frame, of the whole processor, GPU or module (RAPL, NVIDIA, Jetson)')
    parse.add_argument('--start-up', action='store_true', help='time a cold and a warm start')
    parse.add_argument(
        '--json', type=Path, metavar='F', help='write the figures to F (default: nowhere)')
    parse.add_argument(
        '--figure', type=Path, metavar='F',
        help=f'plot latency over budget to F, {" ".join(FIGURES)} (default: nowhere)')
    return parse


def reference(
        kind: str, model: str, tasks: Sequence[str], device: str = 'cpu', threads: int = 0
) -> Callable[[], object]:
    """
    Return a call that runs the static network, as its users would without this package.

    threads: 0 leaves them; torch's are those of the whole process.
    """
    import torch

    from adamtl_ros.runtime.device import device as device_of

    if kind == 'openvino' and device != 'cpu':
        raise ValueError(f"--reference openvino: it runs on 'cpu' alone, not on {device!r}")
    place = device_of(device)
    network = checkpoint.load(model).to(place)
    image = torch.randn(1, 3, *network.config.input_size, device=place)

    class Static(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network(image, tasks).values())

    static = Static().eval()
    if kind == 'openvino':
        import openvino as ov

        from adamtl_ros.runtime.openvino_parts import core

        with torch.no_grad(), warnings.catch_warnings():
            # Of shapes that a trace holds to be fixed: here they are.
            warnings.simplefilter('ignore')
            static(image)  # what the blocks keep for inference is no part of the trace then
            traced = torch.jit.trace(static, image, check_trace=False)
        plain = ov.convert_model(traced, input=list(image.shape))
        options: dict[str, object] = {
            'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        request = core().compile_model(plain, 'CPU', options).create_infer_request()
        array = image.numpy()
        return lambda: request.infer({0: array}, share_inputs=True)
    if threads:
        torch.set_num_threads(threads)
    call = torch.compile(static) if kind == 'compile' else static

    @torch.inference_mode()
    def run() -> object:
        outputs = call(image)
        if place.type == 'cuda':
            torch.cuda.synchronize(place)
        return outputs

    return run


def memory_mb() -> float:
    """Return the resident memory of this process in MB (NaN where /proc is not)."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return float('nan')
    return pages * os.sysconf('SC_PAGESIZE') / 2 ** 20


def start_up(
        model: str, backend: str, device: str, threads: int, precision: str) -> dict[str, float]:
    """Return the seconds from a new interpreter to the first result, cold and warm cache."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = [float(subprocess.run(
            [sys.executable, '-c', _START, model, backend, device, str(threads), precision],
            check=True, text=True, stdout=subprocess.PIPE, timeout=300,
            env={**os.environ, 'ADAMTL_CACHE': folder}
        ).stdout.split()[-1]) for _ in range(2)]
    return {'cold_s': seconds[0], 'warm_s': seconds[1]}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and return the figures; ValueError or OSError name what is wrong."""
    budgets = [check_budget(each) for each in options.budgets.split(',') if each]
    if options.rounds < 1 or options.warm_up < 0:
        raise ValueError(f'--rounds {options.rounds}: 1 or more (--warm-up: 0 or more)')
    if options.turn < 1:
        raise ValueError(f'--turn {options.turn}: 1 or more')
    with saying(f'adamtl bench: loading {options.model}'):
        engine = Engine(
            options.model, backend=options.backend, device=options.device,
            num_threads=options.threads, precision=options.precision)
    named = tuple(options.tasks.split(',')) if options.tasks else engine.tasks
    tasks = Settings(tasks=named).tasks
    settings = [Settings(tasks=tasks)]
    streams: list[Stream | None] = [None]
    if 'adaptive' in engine.modes:
        for budget in budgets:
            ways = [None, Stream()] if isinstance(engine.config, LiteConfig) else [None]
            settings += [Settings('adaptive', budget, tasks)] * len(ways)
            streams += ways
    for each in settings:
        engine.check(each)
        engine.warm(each)
    pictures = [frame.image for frame in islice(
        open_source(options.source or DEMO).read(), options.rounds)]
    if not pictures:
        raise ValueError(f'{options.source}: there are no pictures in it')
    references = {
        kind: reference(kind, options.model, tasks, options.device, options.threads)
        for kind in options.reference}
    load = os.getloadavg()[0]  # of others: what disturbs the figures
    times: list[list[float]] = [[] for _ in settings]
    network: list[list[float]] = [[] for _ in settings]
    spent: list[list[float]] = [[] for _ in settings]
    beside: dict[str, list[float]] = {kind: [] for kind in references}
    meter = Meter(engine.device) if options.energy else None
    joules: dict[int | str, float] = dict.fromkeys([*range(len(settings)), *references], 0.0)
    # In another order every round: what runs before leaves the caches in a state of its own.
    rng, runs = np.random.default_rng(0), [*range(len(settings)), *references]
    # Where there is more than one, the first frame of a turn finds them cold, and does not count.
    skipped = 1 if options.turn > 1 else 0
    source, done = cycle(pictures), 0
    while done < options.warm_up + options.rounds:
        counts = done >= options.warm_up
        left = options.warm_up + (options.rounds if counts else 0) - done
        turn = list(islice(source, min(options.turn - skipped, left) + skipped))
        done += len(turn) - skipped
        for run in (runs[place] for place in rng.permutation(len(runs))):
            for number, picture in enumerate(turn):
                # Over all frames of a turn that count: the counters move about every millisecond.
                if meter and number == skipped:
                    before = meter.read()
                started = time.perf_counter()
                if isinstance(run, str):
                    references[run]()
                else:
                    stats = engine.infer(picture, settings[run], None, streams[run]).stats
                taken = 1e3 * (time.perf_counter() - started)
                if not counts or number < skipped:
                    continue
                if isinstance(run, str):
                    beside[run].append(taken)
                else:
                    times[run].append(taken)
                    network[run].append(stats.network_ms)
                    spent[run].append(stats.budget_achieved)
            if meter and counts:
                joules[run] += meter.read() - before
    energy = {
        run: total / options.rounds if meter and meter.available else None
        for run, total in joules.items()}
    dense = engine.cost.dense(tasks) / 1e9
    memory = memory_mb()
    rows = [{
        'mode': each.mode if stream is None else 'stream',
        'budget': each.budget if each.mode == 'adaptive' else None,
        'achieved': statistics.fmean(spent[row]), 'gmacs': dense * statistics.fmean(spent[row]),
        **percentiles(times[row], ending='_ms'), 'mean_ms': statistics.fmean(times[row]),
        'network_ms': (statistics.fmean if stream else statistics.median)(network[row]),
        'ratio': _ratio(times[row], times[0], stream),
        'network_ratio': _ratio(network[row], network[0], stream),
        'rss_mb': memory, 'energy_j': energy[row]}
        for row, (each, stream) in enumerate(zip(settings, streams))]
    figures: dict[str, Any] = {
        'backend': engine.backend, 'device': engine.device, 'precision': engine.precision,
        'processor': processor(), 'threads': options.threads or len(processors()),
        'load': load, 'model': options.model,
        'tasks': list(tasks), 'rounds': options.rounds, 'rows': rows,
        'references': [{
            'name': kind, **percentiles(taken, ending='_ms'), 'ratio': _ratio(taken, network[0]),
            'energy_j': energy[kind]} for kind, taken in beside.items()]}
    if meter:
        figures['energy'] = meter.source
    if options.start_up:
        figures['start_up'] = start_up(
            options.model, engine.backend, options.device, options.threads, options.precision)
    return figures


def _ratio(
        own: Sequence[float], static: Sequence[float], stream: Stream | None = None) -> float:
    """Return the median of the ratios round by round; of a stream, that of the means."""
    if stream is not None:
        return statistics.fmean(own) / statistics.fmean(static)
    return statistics.median(one / other for one, other in zip(own, static))


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table(title=(
        f"{figures['model']}, {', '.join(figures['tasks'])}: {figures['backend']} "
        f"{figures['precision']} on {figures['device']}, {figures['threads']} threads, "
        f"{figures['rounds']} frames"))
    # Only where it was asked for, as few machines can tell.
    energy = 'energy' in figures
    for name in ('mode', 'budget', 'achieved', 'GMACs', 'mean ms', 'p50 ms', 'p95 ms', 'p99 ms',
                 'of static', 'network ms', 'of static', 'MB', *(['mJ'] if energy else [])):
        table.add_column(name, justify='right')
    for row in figures['rows']:
        table.add_row(
            row['mode'], '' if row['budget'] is None else f"{row['budget']:.2f}",
            f"{row['achieved']:.3f}", f"{row['gmacs']:.3f}", f"{row['mean_ms']:.1f}",
            f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['p99_ms']:.1f}",
            f"{row['ratio']:.3f}", f"{row['network_ms']:.1f}", f"{row['network_ratio']:.3f}",
            f"{row['rss_mb']:.0f}",
            *([_millijoules(row)] if energy else []))
    for row in figures['references']:
        table.add_row(
            f"static network, {row['name']}", '', '', '', '', '', f"{row['p95_ms']:.1f}",
            f"{row['p99_ms']:.1f}", '', f"{row['p50_ms']:.1f}", f"{row['ratio']:.3f}", '',
            *([_millijoules(row)] if energy else []))
    console = Console(width=max(Console().width, 120))
    console.print(table)
    if energy:
        console.print(f"energy: {figures['energy']}", highlight=False)
    if 'start_up' in figures:
        console.print('start to first result: {cold_s:.1f} s, with a warm cache '
                      '{warm_s:.1f} s'.format(**figures['start_up']))


def _millijoules(row: dict[str, Any]) -> str:
    return '' if row['energy_j'] is None else f"{1e3 * row['energy_j']:.1f}"


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw latency over achieved budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    static, *rows = figures['rows']
    streams = [row for row in rows if row['mode'] == 'stream']
    rows = [row for row in rows if row['mode'] != 'stream']
    axes.plot([0, 1], [0, static['p50_ms']], ':', color='grey', label='in proportion to MACs')
    axes.axhline(static['p50_ms'], color='black', label='static')
    axes.fill_between(
        [row['achieved'] for row in rows], [row['p50_ms'] for row in rows],
        [row['p95_ms'] for row in rows], alpha=0.2, label='to p95')
    axes.plot([row['achieved'] for row in rows], [row['p50_ms'] for row in rows], 'o-',
              label='adaptive, median')
    axes.plot([row['achieved'] for row in streams], [row['mean_ms'] for row in streams], '^-',
              label='stream, mean')
    axes.set(xlabel='achieved budget (share of the dense MACs)', ylabel='ms a frame',
             xlim=(0, 1.05), ylim=(0, None))
    axes.legend()
    with whole(path) as aside:
        figure.savefig(aside)


def main(argv: Sequence[str]) -> int:
    """Run `adamtl bench`; return its exit code."""
    options = parser().parse_args(argv)
    try_file(options.json)
    try_figure(options.figure)
    figures = run(options)
    show(figures)
    if options.json:
        with whole(options.json) as aside:
            aside.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    if options.figure:
        plot(figures, options.figure)
    return 0

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Compile a model and time its pieces for this machine, into the cache, and end.

The first start of a node then takes as long as every other one: for images of containers, for
the installation of a robot, after a change of the model.
"""

import argparse
from collections.abc import Sequence
import time

import numpy as np

from adamtl_ros.arguments import Parser
from adamtl_ros.paths import cache
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source

BUDGETS = 8
"""How many budgets are tried, so that what is compiled at its first use is."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parse = Parser(
        prog='adamtl warm', description=__doc__,
        epilog='Give what the node will be given: what is kept depends on it.')
    parse.add_argument('--model', default='glasses', help='preset or weights file')
    parse.add_argument(
        '--backend', default='auto', choices=BACKENDS, help='what executes the network')
    parse.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    parse.add_argument('--precision', default='f32', choices=PRECISIONS, help='of the computation')
    parse.add_argument('--threads', type=int, default=0, help='num_threads of the node')
    return parse


def warm(engine: Engine) -> None:
    """Run frames at budgets from the whole down to the least, then calibrate."""
    pictures = [frame.image for frame in open_source(DEMO).read()][::9]
    everything = Settings(tasks=engine.tasks)
    engine.infer(pictures[0], everything)
    if 'adaptive' not in engine.modes:
        return
    least = engine.min_budget(engine.tasks)
    for budget in np.linspace(1.0, least, BUDGETS):
        for picture in pictures:
            engine.infer(picture, Settings('adaptive', min(float(budget), 1.0), engine.tasks))
    engine.calibrate()


def main(argv: Sequence[str]) -> int:
    """Run `adamtl warm`; return its exit code."""
    options = parser().parse_args(argv)
    started = time.perf_counter()
    engine = Engine(
        options.model, backend=options.backend, device=options.device,
        num_threads=options.threads, precision=options.precision)
    warm(engine)
    folder = cache()
    files = [path for path in folder.rglob('*') if path.is_file()] if folder.is_dir() else []
    if not files and (engine.backend == 'openvino' or 'adaptive' in engine.modes):
        raise ValueError(
            f'nothing is kept, as the cache {folder} cannot be written: name another folder in '
            'ADAMTL_CACHE')
    size = sum(path.stat().st_size for path in files) / 2 ** 20
    print(f'{options.model} on {engine.device} with {engine.backend} {engine.precision}: warm '
          f'after {time.perf_counter() - started:.1f} s, {size:.0f} MB in {folder}')
    return 0

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure `adamtl bag`: its rate beside that of the engine alone, and its memory on large bags.

    python test/benchmark_bag.py rate [FRAMES]
    python test/benchmark_bag.py memory FOLDER MEGABYTES [MEGABYTES ...]

rate: a 640x480 bag, dense and one budget; the engine alone does the same on the same frames,
decoded beforehand, in turns with the evaluation in one process.
memory: writes a raw 640x480 bag of each size, evaluates it in a process of its own (every frame
is read; one of so many is run that each bag has the same number of runs), and removes it.
"""

from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
from time import perf_counter

import numpy as np

from adamtl_ros.bag.compare import Evaluation
from adamtl_ros.bag.compare import Plan
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.sample import TOPIC
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.runtime.engine import Engine

SIZE = (640, 480)
RUNS = 100
ROUNDS = 9


def rate(count: int) -> None:
    """Print frames a second of both, and their ratio, round after round."""
    engine = Engine('glasses')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'bag')
        write_sample(path, size=SIZE, frames=count)
        plan = Plan(TOPIC, engine.tasks, (0.6,), 0.6, modes=('static', 'adaptive'))
        frames, bag = RecordedFrames(TOPIC), Bag(path)
        found = (frames.read(message) for message in bag.messages((TOPIC,)))
        images = [frame.image for frame in found if isinstance(frame, RecordedFrame)]
        ratios = []
        for number in range(ROUNDS + 1):
            start = perf_counter()
            for image in images:
                for settings in plan.settings():
                    engine.infer(image, settings)
            alone = len(images) / (perf_counter() - start)
            evaluation = Evaluation(Bag(path), engine, plan, table=Path(folder, 'frames.csv'))
            evaluation.run()
            whole = evaluation.evaluated / evaluation.seconds
            if number:  # the first round warms up
                ratios.append(whole / alone)
                print(f'engine alone {alone:.2f} frames/s, adamtl bag {whole:.2f} frames/s, '
                      f'ratio {ratios[-1]:.3f}')
    print(f'median ratio {np.median(ratios):.3f}')


def memory(folder: Path, sizes: list[int]) -> None:
    """Print the most memory that the evaluation of each bag held."""
    for megabytes in sizes:
        path = folder / f'{megabytes}mb'
        frames = write_sample(
            path, size=SIZE, frames=megabytes * 1_000_000 // (SIZE[0] * SIZE[1] * 3))
        try:
            done = subprocess.run(
                ['/usr/bin/env', 'python3', '-c',
                 'import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); '
                 'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)',
                 sys.executable, '-m', 'adamtl_ros.cli', 'bag', str(path), '--budgets', '0.6',
                 '--every', str(max(1, frames // RUNS)), '--out', str(folder / 'out')],
                check=True, text=True, capture_output=True)
            peak = int(re.findall(r'^\d+$', done.stdout, re.MULTILINE)[-1]) / 1024
            print(f'{megabytes} MB, {frames} frames: {peak:.0f} MiB at most', flush=True)
        finally:
            shutil.rmtree(path)


if __name__ == '__main__':
    if sys.argv[1:2] == ['memory'] and len(sys.argv) > 3:
        memory(Path(sys.argv[2]), [int(each) for each in sys.argv[3:]])
    elif sys.argv[1:2] == ['rate']:
        rate(int(sys.argv[2]) if len(sys.argv) > 2 else 60)
    else:
        sys.exit(__doc__)

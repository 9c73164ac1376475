# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure the engine, dense against adaptive, interleaved in one process; no ROS.

    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_engine.py

Prints, per budget, the medians of the network's time and of its ratio to the dense run beside it.
Not a test: figures depend on the machine and on what else it does.
"""

import argparse
import statistics

import cv2

from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO


def main():
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='glasses')
    parser.add_argument('--budgets', default='1.0,0.8,0.6,0.5,0.4,0.3')
    parser.add_argument('--rounds', type=int, default=45)
    parser.add_argument('--threads', type=int, default=0)
    options = parser.parse_args()
    engine = Engine(options.model, num_threads=options.threads)
    runs = [Settings(tasks=engine.tasks)] + [
        Settings(mode='adaptive', budget=float(budget), tasks=engine.tasks)
        for budget in options.budgets.split(',')]
    frames = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
              for path in sorted(DEMO.glob('*.jpg'))[::6]]
    times = [[] for _ in runs]
    for number in range(options.rounds):
        for run, taken in zip(runs, times):
            taken.append(engine.infer(frames[number % len(frames)], run).stats.network_ms)
    for run, taken in zip(runs, times):
        ratio = statistics.median(own / dense for own, dense in zip(taken, times[0]))
        print(f'{run.mode} budget {run.budget:.2f}: {statistics.median(taken):.1f} ms, '
              f'{ratio:.2f} of dense')


if __name__ == '__main__':
    main()

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Hold a latency while a second process takes one core, from frame 150 to 300 of 450; no ROS.

    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_latency.py --target 20

Not a test: figures depend on the machine and on what else it does.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')


def main():
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--target', type=float, default=20.0, help='ms')
    target = parser.parse_args().target
    engine = Engine('glasses')
    started = time.perf_counter()
    model = engine.calibrate()
    print(f'{engine.backend}, {time.perf_counter() - started:.1f} s to calibrate: {model}')
    frames = [frame.image for frame in open_source(DEMO).read()]
    ratios = []
    for number, frame in enumerate(frames[:60]):
        budget = (0.8, 0.6, 0.5, 0.4)[number % 4]
        stats = engine.infer(frame, Settings('adaptive', budget, TASKS)).stats
        ratios.append(stats.predicted_ms / stats.network_ms)
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    print(f'predicted / taken: median {middle:.2f}, 10 to 90 % {low:.2f} to {high:.2f}')
    control, taken, budgets, load = LatencyControl(model, engine.cost), [], [], None
    for number in range(450):
        if number == 150:
            load = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
        if number == 300:
            load.kill()
            load.wait()
        started = time.perf_counter()
        budget = control.budget(TASKS, target, 0.25, 1.0)
        stats = engine.infer(
            frames[number % len(frames)], Settings('adaptive', budget, TASKS)).stats
        taken.append(1e3 * (time.perf_counter() - started))
        control.observe(stats.predicted_ms, stats.network_ms, taken[-1])
        budgets.append(budget)
    for name, start in (('idle', 0), ('loaded', 150), ('idle again', 300)):
        part, after = taken[start:start + 150], taken[start + 30:start + 150]
        settled = next((first for first in range(140) if abs(
            np.mean(part[first:first + 10]) / target - 1) < 0.1), None)
        print(f'{name}: mean {np.mean(part):.1f} ms, after 30 frames {np.mean(after):.1f} ms '
              f'(p95 {np.percentile(after, 95):.1f}); ten frames within 10 % from {settled}; '
              f'budget {np.mean(budgets[start + 30:start + 150]):.2f} '
              f'+- {np.std(budgets[start + 30:start + 150]):.2f}')


if __name__ == '__main__':
    main()

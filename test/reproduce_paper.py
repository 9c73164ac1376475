# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Train what docs/paper.md compares, on the corpus, and measure it.

Single-task networks, the static multi-task network, and task-agnostic and task-aware policies:
the same encoder, data and steps.  A run that was stopped goes on where it was.
"""

import argparse
import json
from pathlib import Path
import sys

import cv2
import numpy as np
import torch

from adamtl_ros.commands import train as command
from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.evaluation.metrics import delta_m
from adamtl_ros.evaluation.metrics import HEADLINE
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.network import checkpoint
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.network.normalise import normalise
from adamtl_ros.runtime.publish import published

CONFIG = Path(__file__).resolve().parent.parent / 'config' / 'reproduction.yaml'
TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
POLICIES = ('task_agnostic', 'task_aware')


def fit(folder: Path, name: str, *settings: str) -> Path:
    """Train one run unless it is there; return its weights."""
    out = folder / f'{name}.safetensors'
    print(f'== {out}', flush=True)
    if command.main([str(CONFIG), f'out={out}', *settings]):
        raise SystemExit(2)
    return out


def static(folder: Path, name: str, steps: int, more: int, *settings: str) -> tuple[Path, Path]:
    """Train a static network, and the same for `more` steps; return both weights."""
    first = fit(folder, name, f'steps={steps}', *settings)
    return first, fit(folder, f'{name}_more', f'start={first}', f'steps={more}', *settings)


def run_seed(folder: Path, seed: int, options: argparse.Namespace) -> None:
    """Train all runs of one seed."""
    steps, more = options.steps, options.more
    common = (f'data={options.corpus}/train', f'seed={seed}', *options.setting)
    tasks = f'tasks=[{", ".join(TASKS)}]'
    first, _ = static(folder, 'multi', steps, more, tasks, *common)
    for policy in POLICIES:
        network = f'network={{policy: {policy}}}'
        opened = fit(
            folder, f'{policy}_open', f'start={first}', 'stage=open', network,
            f'steps={max(more // 3, 1)}', *common)
        fit(folder, policy, f'start={opened}', 'stage=adaptive', 'objective=efficiency',
            network, f'steps={more}', *common)
    for task in TASKS:
        static(folder, f'single_{task}', steps, more, f'tasks=[{task}]', *common)


@torch.no_grad()
def measure(network: AdaMTL, corpus: EgoRooms, budget: float | None = None) -> tuple[dict, float]:
    """
    Return the metrics per task and the mean GMACs.

    budget: None is dense, 0 is the policy's own choice (its threshold, no budget).
    """
    tasks = network.config.tasks
    size, dense = network.config.input_size, network.cost.dense(tasks)
    scores = {t: TaskMetrics(t, len(network.config.classes.get(t, ()))) for t in tasks}
    spent = []
    for index in range(len(corpus)):
        frame = corpus[index]
        small = cv2.resize(frame['image'], size[::-1], interpolation=cv2.INTER_AREA)
        image = normalise(torch.from_numpy(small)[None])
        if budget is None:
            outputs, macs = network(image, tasks), float(dense)
        else:
            outputs, trace = network.run_policy(image, tasks, budget or None)
            macs = trace.macs
        spent.append(macs)
        for task in tasks:
            value = published(task, outputs[task][0].float().numpy(), frame[task].shape[:2])
            scores[task].update(value, frame[task])
    return {task: score.compute() for task, score in scores.items()}, float(np.mean(spent)) / 1e9


def report(folder: Path, corpus: Path, limit: int) -> list[dict]:
    """Measure what a seed's folder holds."""
    data = EgoRooms(corpus / 'val', TASKS)
    if limit:
        data.ids = data.ids[::max(len(data) // limit, 1)]
    rows, single, gmacs = [], {}, 0.0
    for task in TASKS:
        data.tasks = (task,)
        network = checkpoint.load(str(folder / f'single_{task}_more.safetensors'))
        values, macs = measure(network, data)
        single |= values
        gmacs += macs
    data.tasks = TASKS
    rows.append({'run': 'single-task', 'gmacs': gmacs, 'tasks': single, 'delta_m': 0.0})
    for name, budgets in (('multi_more', (None,)), ('task_agnostic', (None, 0, 0.8, 0.6, 0.5)),
                          ('task_aware', (None, 0, 0.8, 0.6, 0.5))):
        network = checkpoint.load(str(folder / f'{name}.safetensors'))
        for budget in budgets:
            values, macs = measure(network, data, budget)
            how = {None: 'dense', 0: 'own choice'}.get(budget, f'budget {budget}')
            rows.append({'run': f'{name}, {how}', 'gmacs': macs, 'tasks': values,
                         'delta_m': delta_m(values, single)})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('corpus', help='folder with train and val')
    parser.add_argument('out', type=Path, help='folder for weights and results.json')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--steps', type=int, default=500, help='of the static networks')
    parser.add_argument('--more', type=int, default=300, help='further steps, or with a policy')
    parser.add_argument('--limit', type=int, default=0, help='validation frames, 0: all')
    parser.add_argument('--setting', nargs='*', default=[], help='key=value for every run')
    parser.add_argument('--measure', action='store_true', help='only measure what is there')
    options = parser.parse_args()
    results = {}
    for seed in options.seeds:
        folder = options.out / f'seed{seed}'
        if not options.measure:
            run_seed(folder, seed, options)
        results[seed] = report(folder, Path(options.corpus), options.limit)
        for row in results[seed]:
            print(f'{row["run"]:26} {row["gmacs"]:.4f} GMACs {row["delta_m"]:+6.1f} % ' + ' '.join(
                f'{task} {value[HEADLINE[task]]:.3f}' for task, value in row['tasks'].items()))
        (options.out / 'results.json').write_text(json.dumps(results, indent=1), encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())

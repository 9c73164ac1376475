# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a model on annotated frames: dense, and adaptive at several budgets."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.evaluation.baselines import constants
from adamtl_ros.evaluation.metrics import delta_m
from adamtl_ros.evaluation.metrics import HEADLINE
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings


def evaluate(
        engine: Engine, data: EgoRooms, budgets: Sequence[float], limit: int = 0,
        baseline: EgoRooms | None = None) -> dict[str, object]:
    """
    Return {'dataset', 'frames', 'rows'}: a row for the dense network and one per budget.

    limit: use so many evenly spaced frames; 0 is all.  baseline: a training split whose best
    constant answers become a row of mode 'constant'.
    """
    tasks = data.tasks
    runs = [Settings(mode='static', tasks=tasks)]
    runs += [Settings(mode='adaptive', budget=budget, tasks=tasks) for budget in budgets]
    answers = constants(baseline) if baseline is not None else None

    def metrics() -> dict[str, TaskMetrics]:
        return {t: TaskMetrics(t, len(engine.class_names.get(t, ()))) for t in tasks}

    scores = [metrics() for _ in runs]
    trivial = metrics()
    achieved: list[list[float]] = [[] for _ in runs]
    count = min(limit, len(data)) if limit else len(data)
    console = Console(stderr=True)
    for index in track(
            np.linspace(0, len(data) - 1, count).astype(int), 'evaluating', console=console):
        frame = data[int(index)]
        for run, score, spent in zip(runs, scores, achieved):
            result = engine.infer(frame['image'], run)
            spent.append(result.stats.budget_achieved)
            for task in tasks:
                score[task].update(result.outputs[task], frame[task])
        if answers is not None:
            for task in tasks:
                trivial[task].update(answers[task], frame[task])
    values = [{task: metric.compute() for task, metric in score.items()} for score in scores]
    rows: list[dict[str, object]] = [
        {'mode': run.mode, 'budget': run.budget, 'achieved': float(np.mean(spent)),
         'achieved_std': float(np.std(spent)), 'tasks': value,
         'delta_m': delta_m(value, values[0])}
        for run, spent, value in zip(runs, achieved, values)]
    if answers is not None:
        value = {task: metric.compute() for task, metric in trivial.items()}
        rows.append({'mode': 'constant', 'budget': None, 'achieved': 0.0, 'achieved_std': 0.0,
                     'tasks': value, 'delta_m': delta_m(value, values[0])})
    return {'dataset': str(data.root), 'frames': count, 'rows': rows}


def table(report: dict[str, object]) -> Table:
    """Return the report as a table, a row a run and a column a task."""
    rows: list[dict[str, object]] = report['rows']  # type: ignore[assignment]
    first: dict[str, dict[str, float]] = rows[0]['tasks']  # type: ignore[assignment]
    view = Table(title=f'{report["dataset"]}, {report["frames"]} frames')
    for heading in ('mode', 'budget', 'achieved', *(f'{t} {HEADLINE[t]}' for t in first), 'Δm %'):
        view.add_column(heading, justify='right')
    for row in rows:
        tasks: dict[str, dict[str, float]] = row['tasks']  # type: ignore[assignment]
        budget = '' if row['budget'] is None else f'{row["budget"]:.2f}'
        view.add_row(
            str(row['mode']), budget, f'{row["achieved"]:.3f}',
            *(f'{metrics[HEADLINE[task]]:.3f}' for task, metrics in tasks.items()),
            f'{row["delta_m"]:+.1f}')
    return view


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl evaluate DATASET ...`; 2 on bad arguments."""
    parser = argparse.ArgumentParser(prog='adamtl evaluate', description=__doc__)
    parser.add_argument('dataset', help='folder of a split: image/, semseg/, depth/ ...')
    parser.add_argument('--model', default='glasses', help='preset or weights file')
    parser.add_argument(
        '--budgets', default='1.0,0.8,0.6,0.5,0.4', help='comma-separated, each in (0, 1]')
    parser.add_argument('--limit', type=int, default=0, help='evenly spaced frames, 0: all')
    parser.add_argument('--baseline', help='training split: add the best constant answers')
    parser.add_argument('--threads', type=int, default=0, help='of torch; 0: automatic')
    parser.add_argument('--json', help='write the report to this file')
    arguments = parser.parse_args(argv)
    try:
        budgets = [float(part) for part in arguments.budgets.split(',') if part]
        engine = Engine(arguments.model, num_threads=arguments.threads)
        if arguments.limit < 0:
            raise ValueError(f'limit {arguments.limit}: 0 for all frames, or how many')
        data = EgoRooms(arguments.dataset, engine.tasks)
        baseline = None
        if arguments.baseline:
            baseline = EgoRooms(arguments.baseline, engine.tasks)
        report = evaluate(engine, data, budgets, arguments.limit, baseline)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(report, indent=1), encoding='utf-8')
    except (ValueError, OSError) as error:
        print(f'adamtl evaluate: {error}', file=sys.stderr)
        return 2
    Console(width=170).print(table(report))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())

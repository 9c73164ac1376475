# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a model on annotated frames, and what it costs: dense, and adaptive per budget."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from adamtl_ros.datasets.frames import Frames
from adamtl_ros.evaluation.baselines import constants
from adamtl_ros.evaluation.metrics import delta_m
from adamtl_ros.evaluation.metrics import HEADLINE
from adamtl_ros.evaluation.metrics import PUBLISHED
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.evaluation.metrics import undefined
from adamtl_ros.evaluation.oracle import choose
from adamtl_ros.evaluation.oracle import errors
from adamtl_ros.evaluation.oracle import RUNGS
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import BLIND
from adamtl_ros.runtime.settings import FIXED
from adamtl_ros.runtime.settings import RANDOM
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream

STREAM = 'stream'
"""Mode of the rows whose budget is the mean of a stream."""

UNFUSED = 'unfused'
"""Mode of the rows of streams whose computed frames are not averaged with those before."""

ORACLE = 'oracle'
"""Mode of the rows whose sets of blocks were chosen by the labels."""

SMALLER = 'smaller'
"""Mode of the rows of other, smaller networks, as earlier reports have them, dense."""


def compares_frames(engine: Engine) -> bool:
    """Return whether the policy of a model tells what one frame gains from what others do."""
    return isinstance(engine.config, LiteConfig) and 'adaptive' in engine.modes


def evaluate(
        engine: Engine, data: Frames, budgets: Sequence[float | None], limit: int = 0,
        baseline: Frames | None = None,
        reference: Mapping[str, Mapping[str, float]] | None = None,
        counterpart: Mapping[str, Any] | None = None, yardsticks: bool = False,
        smaller: Sequence[Mapping[str, Any]] = (), memory: bool = False) -> dict[str, Any]:
    """
    Return {'dataset', 'frames', 'headline', 'rows'}: a row for the dense network, some per budget.

    mode of a row: 'static'; 'adaptive', each frame within the budget by itself; 'stream', the
    frames in their order as a stream whose mean is the budget; 'fixed', the best set of blocks for
    frames in general within it.  With yardsticks also 'random', sets drawn for each frame, and
    'oracle', see evaluation.oracle; rows 'stream' get 'worth' then, the share of the way in Δm
    from fixed to oracle that they come.

    A row's `left_out` are the tasks that its Δm leaves out: what it compares with has no value.
    budgets: each in (0, 1], or None for the policy's own choice.  limit: use so many evenly
    spaced frames; 0 is all.  baseline: a training split whose best constant answers become a row
    of mode 'constant'.  reference: metrics per task that Δm compares with; None is the dense row.
    counterpart: a report on the same frames, with whose row of the same mode and budget each row's
    Δm compares instead; ValueError where it has none.  smaller: reports on the same frames of
    smaller networks, whose dense rows come as rows of mode 'smaller'; what they achieve is their
    share of this network's dense cost.  memory: the frames are those of cameras in their order,
    and rows 'stream' remember from one to the next, but for the first of each clip; beside them
    are rows 'unfused', of streams with fuse off.
    """
    tasks = data.tasks
    headline = HEADLINE if data.layout == 'egorooms' else PUBLISHED
    runs = [Settings(mode='static', tasks=tasks, output_size='camera')]
    # Of networks whose policy compares frames, each budget is also that of a stream's mean, and
    # of the best fixed set of blocks: what looking at the frame is worth lies between.
    modes: tuple[str, ...] = ('adaptive',)
    if compares_frames(engine):
        modes = ('adaptive', STREAM, *([UNFUSED] if memory else ()), FIXED,
                 *([RANDOM] if yardsticks else ()))
    elif yardsticks:
        raise ValueError(
            f'yardsticks: the blocks of the model {engine.model!r} run in parts; only networks '
            'whose blocks run whole have sets of them to compare with')
    names = ['static', *(mode for _ in budgets for mode in modes)]
    runs += [Settings(mode=mode if mode in BLIND else 'adaptive', budget=budget, tasks=tasks,
                      output_size='camera', reuse=memory, fuse=mode != UNFUSED)
             for budget in budgets for mode in modes]
    streams = [Stream() if name in (STREAM, UNFUSED) else None for name in names]
    answers = constants(baseline) if baseline is not None else None

    def metrics() -> dict[str, TaskMetrics]:
        return {
            t: TaskMetrics(t, len(engine.class_names.get(t, ())), data.edge_tolerance)
            for t in tasks}

    scores = [metrics() for _ in runs]
    trivial = metrics()
    spent: list[list[tuple[float, float, float]]] = [[] for _ in runs]
    count = min(limit, len(data)) if limit else len(data)
    for report in smaller:
        known = report['rows'][0]['tasks']
        if report['frames'] != count or set(tasks) - set(known):
            raise ValueError(
                f'the report on the smaller network {report["model"]} has {report["frames"]} '
                f'frames and the tasks {", ".join(known)}: make it with the same arguments, but '
                'for the model')
    if memory and limit:
        raise ValueError(
            f'memory and limit {limit}: what a stream remembers is of the frame before; leave out '
            'one of the two')
    starts = {clip[0] for clip in data.clips()} if memory else set()
    console = Console(stderr=True)
    chosen = np.linspace(0, len(data) - 1, count).astype(int)
    rungs = [replace(runs[0], mode=FIXED, budget=rung) for rung in RUNGS] if yardsticks else []
    wrong: list[list[list[float]]] = []
    prices: list[list[float]] = []
    for index in track(chosen, 'evaluating', console=console):
        frame = data[int(index)]
        answers_of = [
            engine.infer(frame['image'], rung, data.camera(int(index))) for rung in rungs]
        wrong.append([errors(answer.outputs, frame) for answer in answers_of])
        prices.append([answer.stats.budget_achieved for answer in answers_of])
        for run, stream, score, costs in zip(runs, streams, scores, spent):
            if stream is not None and int(index) in starts:
                stream.forget()
            result = engine.infer(frame['image'], run, data.camera(int(index)), stream)
            costs.append((
                result.stats.budget_achieved, result.stats.gmacs, result.stats.gmacs_dense))
            for task in tasks:
                score[task].update(result.outputs[task], frame[task])
        if answers is not None:
            for task in tasks:
                trivial[task].update(answers[task], frame[task])
    if yardsticks:
        for budget in budgets:
            best = choose(np.array(wrong), np.array(prices), budget or 1.0)
            score, costs = metrics(), []
            for index, place in zip(track(chosen, f'oracle {budget:g}', console=console), best):
                frame = data[int(index)]
                result = engine.infer(frame['image'], rungs[place], data.camera(int(index)))
                costs.append((
                    result.stats.budget_achieved, result.stats.gmacs, result.stats.gmacs_dense))
                for task in tasks:
                    score[task].update(result.outputs[task], frame[task])
            names.append(ORACLE)
            runs.append(replace(runs[0], mode=FIXED, budget=budget))
            scores.append(score)
            spent.append(costs)
    rows: list[dict[str, Any]] = []
    for name, run, score, costs in zip(names, runs, scores, spent):
        achieved, gmacs, dense = np.mean(costs, axis=0)
        rows.append({
            'mode': name, 'budget': run.budget, 'achieved': float(achieved),
            'achieved_std': float(np.std([cost[0] for cost in costs])), 'gmacs': float(gmacs),
            'gmacs_dense': float(dense),
            'tasks': {task: metric.compute() for task, metric in score.items()}})
    for report in smaller:
        row = report['rows'][0]
        share = row['gmacs_dense'] / rows[0]['gmacs_dense']
        rows.append({**row, 'mode': SMALLER, 'achieved': share, 'budget': None,
                     'tasks': {task: row['tasks'][task] for task in tasks}})
    if answers is not None:
        rows.append({
            'mode': 'constant', 'budget': None, 'achieved': 0.0, 'achieved_std': 0.0,
            'gmacs': 0.0, 'gmacs_dense': rows[0]['gmacs_dense'],
            'tasks': {task: metric.compute() for task, metric in trivial.items()}})
    for row in rows:
        compared = reference or rows[0]['tasks']
        if counterpart is not None:
            compared = _counterpart(row, counterpart, count)
        row['delta_m'] = delta_m(row['tasks'], compared, headline)
        row['left_out'] = undefined(compared, tasks, headline)
    if yardsticks:
        by = {(row['mode'], row['budget']): row['delta_m'] for row in rows}
        for row in rows:
            if row['mode'] == STREAM:
                least, most = (by[mode, row['budget']] for mode in (FIXED, ORACLE))
                row['worth'] = (row['delta_m'] - least) / (most - least) if most > least else None
    return {'dataset': str(data.root), 'frames': count, 'model': engine.model,
            'backend': engine.backend, 'precision': engine.precision, 'memory': memory,
            'reference': dict(reference) if reference else None,
            'headline': {task: headline[task] for task in tasks}, 'rows': rows}


def _counterpart(
        row: Mapping[str, Any], report: Mapping[str, Any], frames: int) -> dict[str, Any]:
    for other in report['rows']:
        if report['frames'] == frames and (other['mode'], other['budget']) == (
                row['mode'], row['budget']):
            return other['tasks']
    raise ValueError(
        f'the counterpart has no row for mode {row["mode"]}, budget {row["budget"]} and {frames} '
        'frames: make it with the same arguments, but for model, backend and precision')


def read_report(path: str) -> dict[str, Any]:
    """Return an earlier report; ValueError on other files."""
    read_reference([path])
    return json.loads(Path(path).read_text(encoding='utf-8'))


def read_reference(paths: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the dense metrics per task of earlier reports; ValueError on other files."""
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        try:
            report = json.loads(Path(path).read_text(encoding='utf-8'))
            found |= report['rows'][0]['tasks']
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f'{path} is no report that `adamtl evaluate --json` wrote ({error!r})') from error
    return found


def table(report: Mapping[str, Any]) -> Table:
    """Return the report as a table, a row a run and a column a task."""
    headline = report['headline']
    left_out = dict.fromkeys(task for row in report['rows'] for task in row['left_out'])
    view = Table(
        title=f'{report["dataset"]}, {report["frames"]} frames',
        caption=f'Δm leaves out {", ".join(left_out)}: no frame has a label' if left_out else None)
    for heading in ('mode', 'budget', 'achieved', 'GMACs',
                    *(f'{task} {name}' for task, name in headline.items()), 'Δm %'):
        view.add_column(heading, justify='right')
    for row in report['rows']:
        view.add_row(
            row['mode'], _budget(row), f'{row["achieved"]:.3f}', f'{row["gmacs"]:.3f}',
            *(f'{row["tasks"][task][name]:.3f}' for task, name in headline.items()),
            f'{row["delta_m"]:+.1f}')
    return view


def _budget(row: Mapping[str, Any]) -> str:
    if row['mode'] in ('static', 'constant', SMALLER):
        return ''
    return 'own' if row['budget'] is None else f'{row["budget"]:.2f}'


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy against cost to a picture file: Δm, and each task's metric."""
    from matplotlib.figure import Figure
    headline, dense = report['headline'], report['rows'][0]
    panels = ['Δm %', *headline]
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3 * columns, 2.7 * lines), layout='constrained')
    for axes, panel in zip(figure.subplots(lines, columns, squeeze=False).flat, panels):
        def value(row: Mapping[str, Any], panel: str = panel) -> float:
            if panel not in headline:
                return row['delta_m']
            return row['tasks'][panel][headline[panel]]
        for mode, mark in ((STREAM, '^-'), ('adaptive', 'o-'), (FIXED, 'x:'), (RANDOM, '.:'),
                           (ORACLE, '*--'), (SMALLER, 'D')):
            rows = sorted((row for row in report['rows'] if row['mode'] == mode),
                          key=lambda row: row['gmacs'])
            if rows:
                axes.plot([row['gmacs'] for row in rows], [value(row) for row in rows], mark,
                          label=mode)
        axes.plot([dense['gmacs']], [value(dense)], 's', color='black', label='dense')
        axes.set_xlabel('GMACs a frame')
        axes.set_title(f'{panel} {headline.get(panel, "")}')
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(panels):]:
        axes.remove()
    # In the place that a panel leaves, else beside the first.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc='lower right')
    figure.savefig(path)


def check_classes(engine: Engine, data: Frames) -> None:
    for task in data.tasks:
        mine, theirs = len(engine.class_names.get(task, ())), len(data.classes.get(task, ()))
        if task in data.classes and mine != theirs:
            raise ValueError(
                f'the model has {mine} classes of {task}, {data.root} has {theirs}: choose a '
                'model that was trained for these data, or other --tasks')

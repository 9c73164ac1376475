# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure accuracy per task and budget against labels."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys

from adamtl_ros.arguments import Parser
from adamtl_ros.files import FIGURES
from adamtl_ros.files import try_figure
from adamtl_ros.files import try_file
from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.settings import check_budget
from adamtl_ros.tasks import ordered
from adamtl_ros.waiting import saying


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and look at all that needs no model; ValueError if it is wrong."""
    parser = Parser(prog='adamtl evaluate', description=__doc__)
    parser.add_argument(
        'dataset', help='PASCAL-Context, NYUDv2 or the corpus, as docs/datasets.md describes')
    parser.add_argument('--split', default='val', help='of the data set')
    parser.add_argument('--model', default='glasses', help='preset or weights file')
    parser.add_argument(
        '--budgets', default='1.0,0.8,0.6,0.5,0.4',
        help="comma-separated, each in (0, 1], or own for the policy's own choice; '' for none")
    parser.add_argument(
        '--tasks', metavar='A,B', help='comma-separated (default: those of the model)')
    parser.add_argument(
        '--reference', nargs='+', metavar='JSON', default=[],
        help='earlier reports whose dense rows Δm compares with, single-task networks, say '
             '(default: the dense row of this one)')
    parser.add_argument(
        '--counterpart', metavar='JSON', help='earlier report, of precision f32, say, with whose '
        'row of the same mode and budget Δm compares (default: none)')
    parser.add_argument(
        '--smaller', nargs='+', metavar='JSON', default=[],
        help='earlier reports on smaller networks, whose dense rows are shown beside (default: '
             'none)')
    parser.add_argument(
        '--backend', default='auto', choices=BACKENDS, help='what executes the network')
    parser.add_argument(
        '--precision', default='f32', choices=PRECISIONS, help='of the computation')
    parser.add_argument(
        '--limit', type=int, default=0, metavar='N', help='evenly spaced frames, 0: all')
    parser.add_argument(
        '--baseline', metavar='DATASET',
        help='training split: add the best constant answers (default: none)')
    parser.add_argument(
        '--yardsticks', action='store_true',
        help='beside each budget also random sets of blocks, and an oracle that knows the labels')
    parser.add_argument(
        '--memory', action='store_true',
        help='streams remember, as the node does: of frames that follow one another')
    parser.add_argument(
        '--threads', type=int, default=0, metavar='N', help='of the backend; 0: automatic')
    parser.add_argument('--json', metavar='FILE', help='write the report there (default: nowhere)')
    parser.add_argument(
        '--figure', metavar='FILE',
        help=f'draw accuracy against cost there, {" ".join(FIGURES)} (default: nowhere)')
    options = parser.parse_args(argv)
    options.budgets = [
        None if part == 'own' else check_budget(_number(part))
        for part in options.budgets.split(',') if part]
    if options.limit < 0:
        raise ValueError(f'limit {options.limit}: 0 for all frames, or how many')
    options.tasks = ordered(options.tasks.split(',')) if options.tasks else None
    checkpoint.find(options.model)
    if not Path(options.dataset).is_dir():
        raise FileNotFoundError(f'{options.dataset}: there is no such folder of a data set')
    try_file(options.json)
    try_figure(options.figure)
    return options


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'budgets: {text.strip()!r} is not a number, nor own') from None


def run(options: argparse.Namespace) -> None:
    """Evaluate, print the table, write what was asked for; ValueError or OSError say why not."""
    # With torch, which takes seconds to import: not to refuse an argument.
    with saying('adamtl evaluate: loading torch'):
        from rich.console import Console

        from adamtl_ros.datasets import open_dataset
        from adamtl_ros.evaluation.accuracy import check_classes
        from adamtl_ros.evaluation.accuracy import draw
        from adamtl_ros.evaluation.accuracy import evaluate
        from adamtl_ros.evaluation.accuracy import read_reference
        from adamtl_ros.evaluation.accuracy import read_report
        from adamtl_ros.evaluation.accuracy import table
        from adamtl_ros.runtime.engine import Engine

    reference = read_reference(options.reference)
    counterpart = None
    smaller = [read_report(path) for path in options.smaller]
    if options.counterpart:
        counterpart = read_report(options.counterpart)
    with saying(f'adamtl evaluate: loading {options.model}'):
        engine = Engine(
            options.model, backend=options.backend, num_threads=options.threads,
            precision=options.precision)
    tasks = options.tasks or engine.tasks
    data = open_dataset(options.dataset, tasks, options.split)
    check_classes(engine, data)
    baseline = open_dataset(options.baseline, tasks, 'train') if options.baseline else None
    report = evaluate(
        engine, data, options.budgets, options.limit, baseline, reference or None, counterpart,
        options.yardsticks, smaller, options.memory)
    Console(width=180).print(table(report))
    if options.json:
        with whole(Path(options.json)) as aside:
            aside.write_text(json.dumps(report, indent=1), encoding='utf-8')
    if options.figure:
        with whole(Path(options.figure)) as aside:
            draw(report, aside)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl evaluate DATASET ...`; 2 on bad arguments."""
    try:
        run(parse(argv))
    except (ValueError, OSError) as error:
        print(f'adamtl evaluate: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    raise SystemExit(main())

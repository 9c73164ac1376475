# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure what docs/model.md says of the shipped network, and write its tables.

    python test/model_card.py labels CORPUS   # against labels, all frames and by kind
    python test/model_card.py page            # the tables of docs/model.md

The first writes docs/model.json, from which the other makes every table between its markers in
the page.
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path

import numpy as np

from adamtl_ros.datasets import open_dataset
from adamtl_ros.datasets.frames import read_json
from adamtl_ros.evaluation.baselines import constants
from adamtl_ros.files import whole
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

DOCS = Path(__file__).parents[1] / 'docs'

FIGURES = {
    'semseg': ('semseg mIoU', 3), 'human_parts': ('human parts mIoU', 3),
    'saliency': ('saliency MAE', 3), 'normals': ('normals °', 1),
    'edges': ('edges F strict', 3), 'depth': ('depth RMSE m', 3)}
"""Heading and digits of each task's headline."""

KINDS = {
    'view_type': ('simple', 'medium', 'cluttered'),
    'lighting': ('day', 'lamp', 'dim', 'night'),
    'first_person_hand': (False, True)}
"""What the frames' metadata tell of their kind."""

NAMES = {'first_person_hand False': 'own hand not seen', 'first_person_hand True': 'own hand seen'}


def added(task: str, classes: int, said: np.ndarray, label: np.ndarray) -> np.ndarray:
    """
    Return numbers of one frame whose sums over frames give the headline of a task, by `headline`.

    As adamtl_ros.evaluation.metrics has it, but additive, so that frames fall into any kinds.
    """
    kind = TASKS[task].kind
    if kind == 'classes':
        known = label != IGNORE
        if task == 'human_parts' and not (label[known] > 0).any():
            return np.zeros(classes ** 2)
        pairs = label[known].astype(np.int64) * classes + said[known]
        return np.bincount(pairs, minlength=classes ** 2).astype(float)
    if kind == 'normals':
        known = label.any(-1)
        target = label[known] / 127.5 - 1
        cosine = (said[known] * target).sum(-1) / np.linalg.norm(target, axis=-1)
        return np.array([np.degrees(np.arccos(cosine.clip(-1, 1))).sum(), known.sum()])
    if kind == 'depth':
        known = label > 0
        return np.array([((said[known] - label[known] / 1000) ** 2).sum(), known.sum()])
    if task == 'edges':
        reached = (said * 100 + 1e-4).astype(np.int64)
        return np.stack([
            np.bincount(part.ravel(), minlength=101) for part in (reached[label > 0], reached)]
        ).astype(float)
    return np.array([np.abs(said - label / 255).sum(), label.size])


def value(task: str, sums: np.ndarray) -> float:
    """Return the headline metric of a task."""
    kind = TASKS[task].kind
    if kind == 'classes':
        counts = sums.reshape(2 * (round(sums.size ** 0.5),))
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        return float((counts.diagonal()[union > 0] / union[union > 0]).mean())
    if task == 'edges':
        right, found = sums[:, ::-1].cumsum(1)
        return float((2 * right / (found + right[-1])).max())
    return float((sums[0] / sums[1]) ** (0.5 if kind == 'depth' else 1))


def labels(engine: Engine, root: str) -> dict:
    """Return the dense network's and the constants' headlines, of all frames and of each kind."""
    data, train = (open_dataset(root, engine.tasks, split) for split in ('val', 'train'))
    answers = constants(train)
    numbers: dict[str, int] = {}
    sums: dict[tuple[str, str, str], np.ndarray] = {}
    settings = Settings(tasks=engine.tasks, output_size='camera')
    for index, name in enumerate(data.ids):
        frame, told = data[index], read_json(data.root / 'meta' / f'{name}.json')
        result = engine.infer(frame['image'], settings, data.camera(index))
        kinds = ('all', *(f'{key} {told[key]}' for key in KINDS))
        for kind in kinds:
            numbers[kind] = numbers.get(kind, 0) + 1
        for who, outputs in (('network', result.outputs), ('constant', answers)):
            for task in engine.tasks:
                part = added(
                    task, len(engine.class_names.get(task, ())), outputs[task], frame[task])
                for kind in kinds:
                    sums[kind, who, task] = sums.get((kind, who, task), 0) + part
    scores: dict[str, dict] = {
        kind: {'frames': number, 'network': {}, 'constant': {}} for kind, number in
        numbers.items()}
    for (kind, who, task), total in sums.items():
        scores[kind][who][task] = value(task, total)
    return {'gmacs': result.stats.gmacs_dense, 'kinds': scores}


def table(heads: list[str], rows: list[list]) -> str:
    """Return a table of Markdown; numbers are to have their digits already."""
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in (
        heads, ['---'] * len(heads), *rows))


def headline(scores: dict) -> list[str]:
    return [f'{scores[task]:.{digits}f}' for task, (_, digits) in FIGURES.items()]


def of_labels(told: dict) -> str:
    every = told['labels']['kinds']['all']
    return table(['who', *(name for name, _ in FIGURES.values())], [
        ['network', *headline(every['network'])],
        ['best constant answer', *headline(every['constant'])]])


def of_kinds(told: dict) -> str:
    kinds, rows = told['labels']['kinds'], []
    for name in (f'{key} {value}' for key, values in KINDS.items() for value in values):
        if name in kinds:
            mine, constant = (headline(kinds[name][who]) for who in ('network', 'constant'))
            short = NAMES.get(name, name.split()[-1])
            rows.append([short, kinds[name]['frames'], *(
                f'{value} ({other})' for value, other in zip(mine, constant))])
    return table(['frames of kind', 'number', *(name for name, _ in FIGURES.values())], rows)


TABLES: dict[str, Callable[[dict], str]] = {
    'labels': of_labels, 'kinds': of_kinds}
"""By the names that the page has between its markers."""


def filled(page: str, told: dict) -> str:
    """Return the page with each table as the figures have it; ValueError where one is missing."""
    for name, make in TABLES.items():
        begin, end = f'<!-- figures: {name} -->\n', '\n<!-- end -->'
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f'the page has no {begin.strip()} with {end.strip()} after it')
        page = f'{before}{begin}\n{make(told)}\n{end}{after}'
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=('labels', 'page'))
    parser.add_argument('folder', nargs='?', help='CORPUS')
    parser.add_argument('--model', default='glasses', help='preset or weights file')
    options = parser.parse_args()
    if options.what == 'labels' and not options.folder:
        parser.error('labels needs a folder')
    path, page = DOCS / 'model.json', DOCS / 'model.md'
    told = json.loads(path.read_text()) if path.is_file() else {}
    if options.what == 'page':
        text = filled(page.read_text(encoding='utf-8'), told)
        with whole(page) as aside:
            aside.write_text(text, encoding='utf-8')
        return
    told['labels'] = labels(Engine(options.model, num_threads=1), options.folder)
    with whole(path) as aside:
        aside.write_text(json.dumps(told, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()

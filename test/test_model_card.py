# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of the pages: how they are measured, and that the pages have them."""

import re

import numpy as np
import pytest

from adamtl_ros.evaluation.accuracy import draw
from adamtl_ros.evaluation.metrics import HEADLINE
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from model_card import added
from model_card import DOCS
from model_card import figures
from model_card import filled
from model_card import ordered_right
from model_card import overlap
from model_card import PAGES
from model_card import shares
from model_card import value

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(('name', 'tables'), PAGES.items())
def test_pages_have_the_tables_of_the_figures(name, tables):
    page = (DOCS.parent / name).read_text(encoding='utf-8')
    told = figures()
    assert filled(page, told, tables) == page, 'run  python test/model_card.py page'
    assert tables == tuple(re.findall('<!-- figures: (.*) -->', page))
    for table in tables:
        with pytest.raises(ValueError, match=f'figures: {table}'):
            filled(page.replace(f'figures: {table} ', 'figures: other '), told, tables)


def test_curves_have_every_kind_of_row_and_every_task(tmp_path):
    matplotlib = pytest.importorskip('matplotlib')
    report, picture = figures()['evaluate'], tmp_path / 'accuracy.svg'
    with matplotlib.rc_context({'svg.fonttype': 'none'}):  # so that words stay words
        draw(report, picture)
    said = re.findall('<text[^>]*>([^<]*)</text>', picture.read_text(encoding='utf-8'))
    for mode in {row['mode'] for row in report['rows']} - {'static'}:
        assert said.count(mode) == 1
    assert said.count('dense') == 1
    assert said.count('GMACs a frame') == 1 + len(report['headline'])
    for task, name in report['headline'].items():
        assert f'{task} {name}' in said


def _frame(rng, task, classes):
    """Return what might be said of a frame, and its label."""
    kind, shape = TASKS[task].kind, (40, 50)
    if kind == 'classes':
        label = rng.integers(0, classes - 1, shape).astype(np.uint8)
        said = np.where(rng.random(shape) < 0.5, label, 1).astype(np.uint8)
        label[:3] = IGNORE
        return said, label
    if kind == 'normals':
        label = rng.integers(1, 255, (*shape, 3)).astype(np.uint8)
        label[:3] = 0
        said = rng.normal(size=(*shape, 3)).astype(np.float32)
        return said / np.linalg.norm(said, axis=-1, keepdims=True), label
    if kind == 'depth':
        label = rng.integers(0, 5000, shape).astype(np.uint16)
        label[:3] = 0
        return rng.uniform(0.3, 5, shape).astype(np.float32), label
    if task == 'edges':
        label = (rng.random(shape) < 0.1).astype(np.uint8)
        return (0.6 * label + 0.4 * rng.random(shape)).astype(np.float32), label
    return rng.random(shape).astype(np.float32), rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize('task', TASKS)
def test_sums_over_frames_give_the_metric(task):
    rng = np.random.default_rng(1)
    classes = len(TASKS[task].classes or ())
    meter, sums = TaskMetrics(task, classes), 0
    for _ in range(3):
        said, label = _frame(rng, task, classes)
        meter.update(said, label)
        sums = sums + added(task, classes, said, label)
    assert value(task, sums) == pytest.approx(meter.compute()[HEADLINE[task]], rel=1e-3)


def test_parts_of_a_frame_without_people_do_not_count():
    nobody = np.zeros((4, 4), np.uint8)
    assert not added('human_parts', 7, nobody + 1, nobody).any()


def test_order_of_depths():
    truth = np.random.default_rng(0).uniform(1, 9, (30, 40))
    truth[:2] = np.nan
    assert ordered_right(2 * truth + 1, truth) == 1
    assert ordered_right(-truth, truth) == 0
    assert ordered_right(np.ones_like(truth), truth) == 0.5
    # Pairs that hardly differ do not count: here those that are the wrong way round.
    close = np.where(np.arange(40) % 2, 1.0, 1.04) * np.ones((30, 1))
    close[:15] *= 3
    wrong = np.where(close > 2, 5.0, 0.0) - close
    assert ordered_right(wrong, close) == 1


def test_overlap_of_masks():
    found, reference = np.zeros((2, 10, 10), bool)
    found[:6], reference[3:9] = True, True
    both = shares([overlap(found, reference)])
    assert both == {'iou': 30 / 90, 'recall': 0.5, 'precision': 0.5}

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures of the pages: how they are measured, and that the pages have them."""

import re

import numpy as np
import pytest
import torch

from adamtl_ros.evaluation.accuracy import draw
from adamtl_ros.evaluation.edges import EdgeCounts
from adamtl_ros.evaluation.metrics import HEADLINE
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from model_card import added
from model_card import best_f
from model_card import canny
from model_card import DOCS
from model_card import figures
from model_card import filled
from model_card import ordered_right
from model_card import overlap
from model_card import PAGES
from model_card import Pictures
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


def _square(channel, low, high):
    """Return an RGB picture, dark but for a square of one colour."""
    picture = np.full((37, 51, 3), low, np.uint8)
    picture[10:30, 10:40, channel] = high
    return picture


def test_canny_finds_a_strong_edge_at_higher_thresholds_than_a_weak_one():
    weak, strong = (canny(_square(1, 50, high), 0) for high in (90, 250))
    for edges in (weak, strong):
        rows, columns = np.nonzero(edges)
        assert rows.min() in (9, 10) and columns.max() in (39, 40)
        assert not edges[13:27, 13:37].any()
    assert 0 < weak.max() < strong.max()
    assert not canny(np.full((9, 9, 3), 7, np.uint8), 2).any()


def test_f_is_at_the_threshold_that_is_best_for_all_pictures():
    label = np.zeros((40, 40), bool)
    label[20] = True
    sure, unsure = np.zeros((2, 40, 40), np.float32)
    sure[20], unsure[20], unsure[5] = 0.9, 0.4, 0.3  # the line at 5 is wrong
    counts = [EdgeCounts() for _ in range(3)]
    for each, edges in zip(counts, (sure, unsure, sure)):
        each.update(edges, label)
    assert best_f(counts) == (1, [1, 1, 1])
    # Best for the one alone is another threshold than best for all.
    many = [EdgeCounts() for _ in range(4)]
    unsure[5] = 0.6
    for each, edges in zip(many, (sure, unsure, sure, sure)):
        each.update(edges, label)
    f, each = best_f(many)
    assert each == [1, pytest.approx(2 / 3, abs=0.01), 1, 1]
    assert f == pytest.approx(8 / 9, abs=0.01)


def test_hed_is_computed_as_its_layers_say(monkeypatch):
    """Layers that let the horizontal gradient of blue through, at full size alone."""
    def layer(out, of, size):
        return torch.zeros(out, of, size, size), torch.zeros(out)

    blocks = [[layer(2, of, 3), layer(2, 2, 3)] for of in (3, 2, 2, 2, 2)]
    blocks[0][0][0][0, 0, 1] = torch.tensor([-1.0, 0, 1])  # channels are blue, green, red
    blocks[0][1][0][0, 0, 1, 1] = 1
    sides = [layer(1, 2, 1) for _ in blocks]
    sides[0][0][0, 0] = 0.1
    fuse = layer(1, 5, 1)
    fuse[0][0, 0], fuse[1][0] = 1, -5
    monkeypatch.setattr(Pictures, '_hed', lambda self: (blocks, sides, fuse))
    edges = Pictures('.').hed(_square(2, 0, 250))
    assert edges.shape == (37, 51)  # odd sides survive four halvings
    inner = edges[:, 1:-1]  # beyond its border a picture is of the mean colour
    rows, columns = np.nonzero(inner > 0.5)
    assert set(columns + 1) == {9, 10} and set(rows) == set(range(10, 30))
    assert inner[0, 0] == pytest.approx(1 / (1 + np.exp(5)), rel=1e-4)
    assert not (Pictures('.').hed(_square(0, 0, 250))[:, 1:-1] > 0.5).any()

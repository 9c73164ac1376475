# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses, metrics and evaluation on a tiny corpus."""

import json
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from adamtl_ros.commands import evaluate as command
from adamtl_ros.datasets import benchmarks
from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.evaluation import accuracy
from adamtl_ros.evaluation.baselines import constants
from adamtl_ros.evaluation.metrics import delta_m
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import TASKS
from adamtl_ros.training.losses import normals_of
from adamtl_ros.training.losses import plain_loss
from corpus import write_corpus


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('corpus'))


def perfect(frame, task):
    label = frame[task]
    if TASKS[task].kind == 'classes':
        return label
    if task == 'normals':
        return normals_of(torch.from_numpy(label)[None])[0][0].permute(1, 2, 0).numpy()
    scale = {'saliency': 255, 'edges': 1, 'depth': 1000}[task]
    return np.maximum(label.astype(np.float32) / scale, 1e-3 if task == 'depth' else 0)


@pytest.mark.parametrize('task, name, best', [
    ('semseg', 'miou', 1), ('human_parts', 'miou', 1), ('saliency', 'mae', 0),
    ('normals', 'mean_deg', 0), ('edges', 'f_strict', 1), ('depth', 'rmse_m', 0)])
def test_metrics_of_perfect_and_constant_answers(corpus, task, name, best):
    data = EgoRooms(corpus, tuple(TASKS))
    good, trivial, answers = TaskMetrics(task, 18), TaskMetrics(task, 18), constants(data)
    for index in range(len(data)):
        good.update(perfect(data[index], task), data[index][task])
        trivial.update(answers[task], data[index][task])
    assert good.compute()[name] == pytest.approx(best, abs=0.1 if task == 'normals' else 1e-3)
    assert abs(trivial.compute()[name] - best) > 0.1


def test_known_metric_values():
    metric = TaskMetrics('semseg', 3)
    metric.update(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 255]], np.uint8))
    assert metric.compute()['miou'] == pytest.approx((1 / 2 + 1 / 2) / 2)
    depth = TaskMetrics('depth')
    depth.update(np.array([[1, 2, 9]], np.float32), np.array([[2000, 2000, 0]], np.uint16))
    assert depth.compute()['rmse_m'] == pytest.approx(math.sqrt(0.5))
    assert depth.compute()['abs_rel'] == pytest.approx(0.25)
    values = {'semseg': {'miou': 0.55}, 'depth': {'rmse_m': 1.1, 'abs_rel': 1}}
    reference = {'semseg': {'miou': 0.5}, 'depth': {'rmse_m': 1.0, 'abs_rel': 1}}
    assert delta_m(values, reference) == pytest.approx(0)


def test_losses_know_right_from_wrong(corpus):
    frame = EgoRooms(corpus, tuple(TASKS))[0]
    for task, record in TASKS.items():
        label = torch.from_numpy(frame[task].astype(np.int32))[None]
        right = torch.from_numpy(perfect(frame, task).astype(np.float32))
        if record.kind == 'classes':
            one_hot = torch.nn.functional.one_hot(right.long().clamp(max=17), 18)
            logits = one_hot.permute(2, 0, 1)[None].float() * 8
        elif record.kind == 'normals':
            logits = right.permute(2, 0, 1)[None]
        elif record.kind == 'depth':
            logits = right.log()[None, None]
        else:
            logits = (right[None, None] - 0.5) * 16
        good, bad = plain_loss(task, logits, label), plain_loss(task, -logits + 1, label)
        assert float(good) < 0.02 and float(bad) > 0.5, task


def test_agreement_of_known_pairs():
    flat = np.zeros((2, 2), np.uint8)
    assert agreement('semseg', flat, np.array([[0, 0], [0, 1]], np.uint8)) == 0.75
    one = np.full((2, 2), 0.5, np.float32)
    assert agreement('edges', one, one + np.array([[0, 0.05], [0.2, -0.2]])) == 0.5
    assert agreement('depth', one, one * np.array([[1, 1.05], [1.2, 0.8]])) == 0.5
    up, tilted = np.array([[[0, 0, -1.0]]]), np.array([[[0, 0.5, -1.0]]]) / np.hypot(0.5, 1)
    assert agreement('normals', up, up) == 1 and agreement('normals', up, tilted) == 0
    # No direction is an answer as well.
    some = np.broadcast_to(up, (2, 2, 3)).copy()
    some[0, 0] = math.nan
    fewer = some.copy()
    fewer[1, 1] = math.nan
    assert agreement('normals', some, some) == 1
    assert agreement('normals', some, fewer) == agreement('normals', fewer, some) == 0.75


@pytest.mark.slow
def test_evaluate_command(corpus, tmp_path, capsys):
    out = tmp_path / 'report.json'
    assert command.main([
        str(corpus), '--budgets', '0.5', '--limit', '2', '--baseline', str(corpus),
        '--json', str(out), '--figure', str(tmp_path / 'f.png')]) == 0
    report = json.loads(out.read_text())
    assert cv2.imread(str(tmp_path / 'f.png')).std() > 1
    dense, half, stream, fixed, _ = report['rows']
    assert fixed['achieved'] <= 0.5 and stream['budget'] == 0.5
    assert half['gmacs'] / dense['gmacs'] == pytest.approx(half['achieved'], rel=1e-3)
    assert [row['mode'] for row in report['rows']] == [
        'static', 'adaptive', 'stream', 'fixed', 'constant']
    assert report['frames'] == 2 and report['rows'][0]['delta_m'] == 0
    # What is left over does not pay for one more block.
    network = checkpoint.load('glasses')
    least = min(block.macs for block in network.config.gated) / network.cost.dense(TASKS)
    # Frames of this corpus may have no people, and then no decoder of their parts.
    empty = network.cost.decoders['human_parts'] / network.cost.dense(TASKS)
    assert 0.5 - least - empty < report['rows'][1]['achieved'] <= 0.5
    assert set(report['rows'][0]['tasks']) == set(TASKS)
    for arguments, words in (
            (['/nowhere'], 'no such folder of a data set'),
            ([str(corpus), '--budgets', '0'], 'budget'),
            ([str(corpus), '--budgets', 'half'], 'half'), ([str(corpus), '--model', 'x'], 'model'),
            ([str(corpus), '--limit', '-1'], 'limit'),
            ([str(corpus), '--tasks', 'colour'], 'colour'),
            ([str(corpus), '--reference', __file__], 'no report')):
        assert command.main(arguments) == 2
        assert words in capsys.readouterr().err


class Shifted:
    """Answers as an engine would: edges that lie some pixels below the labelled ones."""

    model, backend, precision, class_names = 'none', 'none', 'f32', {}

    def __init__(self, data, pixels):
        self.answers = {
            frame['image'].tobytes(): np.roll(perfect(frame, 'edges'), pixels, 0)
            for frame in map(data.__getitem__, range(len(data)))}

    config = None

    def infer(self, image, settings, camera=None, stream=None):
        return SimpleNamespace(
            outputs={'edges': self.answers[image.tobytes()]},
            stats=SimpleNamespace(budget_achieved=1.0, gmacs=1.0, gmacs_dense=1.0))


def test_edges_are_matched_within_the_tolerance_of_the_data(corpus):
    data = EgoRooms(corpus, ('edges',))
    engine = Shifted(data, 3)
    # The diagonal has 320 pixels.
    for tolerance, least, most in ((0.0075, 0, 0.6), (0.011, 0.9, 1)):
        data.edge_tolerance = tolerance
        report = accuracy.evaluate(engine, data, (), baseline=data)
        assert least <= report['rows'][0]['tasks']['edges']['ods_f'] <= most
    assert benchmarks.NYUD.edge_tolerance == 0.011


def test_what_has_no_labels_is_left_out_and_named(corpus, tmp_path, capsys):
    """Frames without people say nothing about human parts."""
    root = write_corpus(tmp_path / 'corpus', 2)
    for path in (root / 'human_parts').glob('*.png'):
        cv2.imwrite(str(path), np.zeros((192, 256), np.uint8))
    out = tmp_path / 'report.json'
    assert command.main([
        str(root), '--tasks', 'human_parts,depth', '--budgets', '0.5', '--json', str(out)]) == 0
    assert 'Δm leaves out human_parts' in capsys.readouterr().out
    row = json.loads(out.read_text())['rows'][1]
    assert row['left_out'] == ['human_parts'] and math.isfinite(row['delta_m'])


def test_evaluate_against_single_tasks(corpus, tmp_path):
    one = tmp_path / 'depth.json'
    common = [str(corpus), '--limit', '1', '--tasks', 'depth', '--budgets', '']
    assert command.main([*common, '--json', str(one)]) == 0
    report = json.loads(one.read_text())
    report['rows'][0]['tasks']['depth']['rmse_m'] *= 2
    one.write_text(json.dumps(report))
    out = tmp_path / 'out.json'
    assert command.main([*common, '--reference', str(one), '--json', str(out)]) == 0
    found = json.loads(out.read_text())
    assert found['rows'][0]['delta_m'] == pytest.approx(50)
    assert found['reference'] == report['rows'][0]['tasks']


def test_shipped_weights_keep_their_budget_and_know_the_demo_scene():
    """The shipped policy spends what is asked, and more compute brings it closer to dense."""
    engine = Engine('glasses')
    folder = checkpoint.WEIGHTS.parent / 'data' / 'demo'
    paths = sorted(folder.glob('*.jpg'))[::15]
    assert len(paths) >= 3
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    agreements = []
    for budget in (0.4, 0.6, 0.9):
        stats = [engine.infer(image, Settings(
            mode='shadow', budget=budget, tasks=engine.tasks)).stats for image in images]
        # A frame by itself does not exceed its budget, and comes as near as whole blocks allow.
        assert budget - 0.04 < np.mean([s.budget_achieved for s in stats]) <= budget + 1e-4
        agreements.append(np.mean([s.agreement for s in stats]))
    assert agreements[0] < agreements[1] < agreements[2]
    classes = [np.unique(engine.infer(image, Settings(tasks=('semseg',))).outputs['semseg'])
               for image in images]
    assert all({0, 1} <= set(found.tolist()) for found in classes), 'no wall or floor'


@pytest.mark.slow
def test_yardsticks_of_a_policy(corpus, tmp_path):
    out = tmp_path / 'report.json'
    assert command.main([
        str(corpus), '--budgets', '0.6', '--limit', '3', '--yardsticks', '--tasks', 'semseg,depth',
        '--json', str(out)]) == 0
    rows = {row['mode']: row for row in json.loads(out.read_text())['rows']}
    assert list(rows) == ['static', 'adaptive', 'stream', 'fixed', 'random', 'oracle']
    for mode in ('fixed', 'random', 'oracle'):
        assert rows[mode]['achieved'] <= 0.6 + 1e-6
    assert rows['random']['achieved'] > 0.55
    best = rows['oracle']['delta_m'] - rows['fixed']['delta_m']
    worth = rows['stream']['worth']
    if best > 0:
        assert worth == pytest.approx(
            (rows['stream']['delta_m'] - rows['fixed']['delta_m']) / best)
    else:
        assert worth is None


@pytest.mark.slow
def test_streams_remember_within_a_clip(tmp_path, capsys):
    root, out = write_corpus(tmp_path / 'clips', frames=6, cameras=True, clips=3), tmp_path / 'o'
    first, *others = sorted((root / 'image').glob('*.jpg'))
    for path in others:
        path.write_bytes(first.read_bytes())
    arguments = [str(root), '--budgets', '0.6', '--tasks', 'semseg,depth', '--json', str(out)]
    achieved = []
    for more in (['--memory'], []):
        assert command.main([*arguments, *more]) == 0
        report = json.loads(out.read_text())
        assert report['memory'] == bool(more)
        rows = {row['mode']: row for row in report['rows']}
        assert ('unfused' in rows) == bool(more)
        achieved.append(rows['stream']['achieved'])
    # The first frame of each clip alone is computed.
    assert achieved[0] == pytest.approx(2 / 6, abs=0.02) and achieved[1] > 0.5
    assert command.main([*arguments, '--memory', '--limit', '3']) == 2
    assert 'memory and limit 3' in capsys.readouterr().err


@pytest.mark.slow
def test_smaller_networks_stand_beside(corpus, tmp_path, capsys):
    small, out = tmp_path / 'small.json', tmp_path / 'report.json'
    arguments = [str(corpus), '--budgets', '0.6', '--limit', '3', '--tasks', 'semseg,depth']
    assert command.main([*arguments, '--json', str(small)]) == 0
    told = json.loads(small.read_text())
    told['rows'][0]['gmacs_dense'] /= 2
    small.write_text(json.dumps(told))
    assert command.main([
        *arguments, '--smaller', str(small), '--json', str(out),
        '--figure', str(tmp_path / 'figure.png')]) == 0
    rows = json.loads(out.read_text())['rows']
    assert [row['mode'] for row in rows] == ['static', 'adaptive', 'stream', 'fixed', 'smaller']
    assert rows[-1]['achieved'] == pytest.approx(0.5) and rows[-1]['delta_m'] == 0
    assert 'smaller' in capsys.readouterr().out
    # Of other frames, or without a task, it says nothing of this one.
    for change in (['--limit', '2'], ['--tasks', 'semseg,edges']):
        assert command.main([*arguments, *change, '--smaller', str(small)]) == 2
        assert 'smaller network glasses has 3 frames' in capsys.readouterr().err


def test_sets_drawn_differ_between_pictures_alone(corpus):
    engine = Engine('glasses')
    settings = Settings('random', 0.6, engine.tasks)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (192, 256, 3), dtype=np.uint8) for _ in range(6)]
    spent = [engine.infer(picture, settings).stats.budget_achieved for picture in pictures]
    assert len(set(spent)) > 2 and max(spent) <= 0.6
    assert spent == [
        engine.infer(picture, settings).stats.budget_achieved for picture in pictures]

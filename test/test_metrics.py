# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics against small cases that were worked out by hand."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from adamtl_ros.datasets.augment import encode_normals
from adamtl_ros.evaluation import oracle
from adamtl_ros.evaluation.edges import EdgeCounts
from adamtl_ros.evaluation.edges import matched
from adamtl_ros.evaluation.metrics import delta_m
from adamtl_ros.evaluation.metrics import PUBLISHED
from adamtl_ros.evaluation.metrics import TaskMetrics
from adamtl_ros.evaluation.metrics import undefined
from adamtl_ros.tasks import TASKS


def ids(*rows):
    return np.array(rows, dtype=np.uint8)


def test_semseg_counts_the_background_and_no_unlabelled_pixel():
    metric = TaskMetrics('semseg', 3)
    # Over both frames: background 2 of 3, one taken for class 1; class 1: 1 of 3; class 2: 1 of 2.
    metric.update(ids([0, 0, 1], [1, 2, 2]), ids([0, 0, 0], [1, 1, 255]))
    metric.update(ids([2, 0, 0]), ids([2, 255, 255]))
    assert metric.compute()['miou'] == pytest.approx((2 / 3 + 1 / 3 + 1 / 2) / 3)


def test_classes_that_8_bits_do_not_tell():
    metric = TaskMetrics('semseg', 300)
    metric.update(np.array([[255, 299, 299, 7]], np.uint16),
                  np.array([[255, 299, 0, 65535]], np.uint16))
    # Class 255 right, 299 1 of 2, 0 never; the last pixel has no label.
    assert metric.compute()['miou'] == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_human_parts_leave_out_images_without_people():
    metric = TaskMetrics('human_parts', 7)
    assert math.isnan(metric.compute()['miou'])
    metric.update(ids([3, 3, 3]), ids([0, 0, 255]))
    metric.update(ids([3, 3, 3]), ids([255, 255, 255]))
    assert math.isnan(metric.compute()['miou'])
    # Background 1 of 2, head 1 of 2.
    metric.update(ids([0, 1, 1]), ids([0, 0, 1]))
    assert metric.compute()['miou'] == pytest.approx(0.5)


def test_saliency_is_averaged_over_images_and_maximal_over_thresholds():
    metric = TaskMetrics('saliency')
    label = ids([255, 255, 0, 0])
    # Up to 0.35 all of the first three lie above, then one each to 0.55 and 0.8.
    metric.update(np.array([[0.81, 0.56, 0.36, 0.1]], np.float32), label)
    values = metric.compute()
    # Between 0.36 and 0.56 just the salient two: perfect.
    assert values['max_f'] == values['max_miou'] == pytest.approx(1)
    assert values['mae'] == pytest.approx((0.19 + 0.44 + 0.36 + 0.1) / 4)
    # A second image in which one salient pixel of four is found at 0.8, and nothing else ever.
    metric.update(np.array([[0.85, 0.0, 0.0, 0.0]], np.float32), ids([255, 255, 255, 255]))
    values = metric.compute()
    # The best threshold stays: IoU (1 + 1/4) / 2; precision 1, recall (1 + 1/4) / 2.
    assert values['max_miou'] == pytest.approx(0.625)
    assert values['max_f'] == pytest.approx(2 * 0.625 / 1.625)


def test_saliency_of_nothing_salient():
    """Nothing there and nothing found is an IoU of 1, and no precision."""
    metric = TaskMetrics('saliency')
    metric.update(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8))
    assert metric.compute() == {'mae': 0, 'max_f': 0, 'max_miou': 1}


def test_normals():
    degrees = np.array([0, 10, 20, 25, 40, 90.0])
    predicted = np.zeros((1, 8, 3), np.float32)
    predicted[0, :6, 0] = np.sin(np.deg2rad(degrees))
    predicted[0, :6, 2] = -np.cos(np.deg2rad(degrees))
    predicted[0, 6] = math.nan
    label = encode_normals(np.full((1, 8, 3), (0.0, 0.0, -1.0)))
    label[0, 7] = 0
    metric = TaskMetrics('normals')
    metric.update(predicted[:, :6], label[:, :6])
    values = metric.compute()
    # Labels of 8 bits are half a degree off.
    assert values['mean_deg'] == pytest.approx(185 / 6, abs=0.5)
    assert values['median_deg'] == pytest.approx((20 + 25) / 2, abs=0.5)
    assert values['within_11_25'] == pytest.approx(2 / 6)
    assert values['within_22_5'] == pytest.approx(3 / 6)
    assert values['within_30'] == pytest.approx(4 / 6)
    # No answer is the worst, and no label is no pixel.
    metric.update(predicted[:, 6:], label[:, 6:])
    values = metric.compute()
    assert values['mean_deg'] == pytest.approx((185 + 180) / 7, abs=0.5)
    assert values['median_deg'] == pytest.approx(25, abs=0.5)
    assert values['within_30'] == pytest.approx(4 / 7)


def test_depth_pools_the_labelled_pixels():
    metric = TaskMetrics('depth')
    metric.update(np.array([[1.0, 2.0, 9.0]], np.float32), np.array([[2000, 2000, 0]], np.uint16))
    metric.update(np.array([[4.0]], np.float32), np.array([[1000]], np.uint16))
    values = metric.compute()
    assert values['rmse_m'] == pytest.approx(math.sqrt((1 + 0 + 9) / 3))
    assert values['log_rmse'] == pytest.approx(
        math.sqrt((math.log(2) ** 2 + math.log(4) ** 2) / 3))
    assert values['abs_rel'] == pytest.approx((0.5 + 0 + 3) / 3)


def test_edges_are_matched_one_to_one_within_the_tolerance():
    label = np.zeros((40, 40), bool)
    label[20, 5:15] = True
    near, far, thick = np.zeros((3, 40, 40), bool)
    near[22, 5:15] = far[23, 5:15] = True
    thick[19, 5:15] = thick[22, 5:15] = True
    assert matched(near, label, 2.0) == 10
    assert matched(far, label, 2.0) == 0
    # Two lines cannot both answer for one.
    assert matched(thick, label, 2.0) == 10
    diagonal = np.zeros((40, 40), bool)
    diagonal[22, 17] = True
    assert matched(diagonal, label, 2.5) == 0 and matched(diagonal, label, 3.7) == 1
    assert matched(np.zeros((40, 40), bool), label, 2.0) == 0


@pytest.mark.parametrize('share', [0.05, 0.2, 0.6])
def test_as_many_edges_are_matched_as_can_be(share):
    rng = np.random.default_rng(1)
    predicted, label = rng.random((2, 30, 50)) < [[[share]], [[share / 2]]]
    (y, x), (v, u) = np.nonzero(predicted), np.nonzero(label)
    near = (y[:, None] - v) ** 2 + (x[:, None] - u) ** 2 <= 3.0 ** 2
    pairs = maximum_bipartite_matching(csr_array(near.astype(np.int8)), perm_type='column')
    assert matched(predicted, label, 3.0) == (pairs >= 0).sum() > 0


def test_ods_f():
    label = np.zeros((40, 40), np.uint8)
    label[20, 5:15] = 1
    predicted = np.zeros((40, 40), np.float32)
    predicted[21, 5:13] = 0.8
    predicted[3, 5:15] = 0.3
    # The tolerance is 0.05 of a diagonal of 56.6: 2.8 pixels.
    counts = EdgeCounts(0.05)
    assert math.isnan(counts.ods_f())
    counts.update(predicted, label)
    # At 0.35 to 0.8: 8 of 8 right, 8 of 10 found; below: 8 of 18.
    assert counts.ods_f() == pytest.approx(2 * 1.0 * 0.8 / 1.8)
    # In the second frame only the low threshold finds anything: F is 2 * 18 / (28 + 20) there,
    # and 2 * 8 / (8 + 20) at the higher ones.
    other = np.zeros((40, 40), np.float32)
    other[20, 5:15] = 0.3
    counts.update(other, label)
    assert counts.ods_f() == pytest.approx(36 / 48)
    metric = TaskMetrics('edges', tolerance=0.05)
    metric.update(predicted, label)
    values = metric.compute()
    assert values['ods_f'] == pytest.approx(1.6 / 1.8)
    # Nothing lies exactly: all pixels as edges are best, 10 of 1600.
    assert values['f_strict'] == pytest.approx(2 * 10 / 1610)


def test_delta_m_by_hand():
    single = {'semseg': {'miou': 0.5}, 'normals': {'mean_deg': 20.0},
              'saliency': {'max_miou': 0.8, 'mae': 0.2}, 'edges': {'ods_f': 0.6, 'f_strict': 0.3}}
    mine = {'semseg': {'miou': 0.55}, 'normals': {'mean_deg': 22.0},
            'saliency': {'max_miou': 0.84, 'mae': 0.1}, 'edges': {'ods_f': 0.6, 'f_strict': 0.4}}
    assert delta_m(mine, single, PUBLISHED) == pytest.approx((10 - 10 + 5 + 0) / 4)
    assert delta_m({'saliency': mine['saliency']}, single) == pytest.approx(50)
    assert delta_m(single, single) == 0
    # A task without labels does not count; one that lost its value does.
    none = {**single, 'depth': {'rmse_m': math.nan}}
    assert undefined(none, none) == ['depth']
    assert delta_m(none, none) == 0
    assert delta_m({**single, 'depth': {'rmse_m': 9.0}}, none) == 0
    assert math.isnan(delta_m(none, {**single, 'depth': {'rmse_m': 1.0}}))
    assert math.isnan(delta_m({'depth': {'rmse_m': 1.0}}, {'depth': {'rmse_m': math.nan}}))
    perfect, worse = {'depth': {'rmse_m': 0.0}}, {'depth': {'rmse_m': 0.1}}
    assert delta_m(perfect, perfect) == 0 and delta_m(worse, perfect) == -math.inf
    with pytest.raises(ValueError, match='no reference for depth'):
        delta_m({'depth': {'rmse_m': 1.0}}, single)
    with pytest.raises(ValueError, match='no task'):
        delta_m({}, single)


@pytest.mark.parametrize('task', TASKS)
def test_sizes_must_agree(task):
    label = np.zeros((4, 6, 3) if task == 'normals' else (4, 6), np.uint8)
    predicted = np.zeros((4, 5, 3) if task == 'normals' else (4, 5), np.float32)
    with pytest.raises(ValueError, match=f'{task}: the result is 5x4 pixels, the label 6x4'):
        TaskMetrics(task, 3).update(predicted, label)


def test_an_oracle_spends_where_it_gains():
    """Of three frames one gains from the dear run; there is money for one."""
    wrong = np.array([[[1.0], [1.0]], [[3.0], [1.0]], [[1.1], [1.0]]])
    costs = np.array([[0.4, 1.0]] * 3)
    assert oracle.choose(wrong, costs, 0.6).tolist() == [0, 1, 0]
    assert oracle.choose(wrong, costs, 0.4).tolist() == [0, 0, 0]
    assert oracle.choose(wrong, costs, 1.0)[1:].tolist() == [1, 1]
    # What is not labelled says nothing.
    unknown = np.concatenate((wrong, np.full_like(wrong, np.nan)), 2)
    assert oracle.choose(unknown, costs, 0.6).tolist() == [0, 1, 0]


def test_errors_of_a_frame():
    frame = {
        'semseg': np.array([[0, 1, 255, 2]], np.uint8), 'edges': np.array([[1, 0, 1, 255]]),
        'saliency': np.array([[0, 255, 0, 255]], np.uint8),
        'normals': np.array([[[128, 128, 0], [0, 0, 0], [255, 128, 128], [0, 0, 0]]], np.uint8),
        'depth': np.array([[1000, 0, 3000, 0]], np.uint16)}
    away = np.array([0.0, 0.0, -1.0], np.float32)
    outputs = {
        'semseg': np.array([[0, 0, 0, 2]]), 'edges': np.array([[0.9, 0.8, 0.1, 1.0]]),
        'saliency': np.array([[0.5, 1.0, 0.0, 1.0]]), 'normals': np.tile(away, (1, 4, 1)),
        'depth': np.array([[2.0, 9.0, 3.0, 9.0]])}
    found = dict(zip(outputs, oracle.errors(outputs, frame)))
    assert found['semseg'] == pytest.approx(1 / 3) and found['edges'] == pytest.approx(0.5)
    assert found['saliency'] == pytest.approx(0.125)
    assert found['normals'] == pytest.approx(45, abs=1) and found['depth'] == pytest.approx(0.5)
    empty = {'semseg': np.full((1, 4), 255, np.uint8)}
    assert np.isnan(oracle.errors({'semseg': outputs['semseg']}, empty)[0])

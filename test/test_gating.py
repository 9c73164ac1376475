# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From logits to gates: the best tokens, in the order of their logits, as many as may be paid."""

import contextlib
from functools import partial

from hypothesis import given
from hypothesis import strategies
import numpy as np
import pytest

from adamtl_ros.gating.tokens import FrameGates
from adamtl_ros.gating.tokens import TokenGates
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.cost import BlockCost
from adamtl_ros.network.cost import CostModel
from networks import random_image
from networks import random_network

CONFIG = PRESETS['swin_tiny']
COST = CostModel(CONFIG)
GATES = [TokenGates(block) for block in COST.blocks]

# Coarse, so that some are equal.
scores = strategies.lists(strategies.integers(-4, 4).map(lambda n: n / 2), min_size=8, max_size=8)


@given(scores, strategies.none() | strategies.integers(-100, 1200))
def test_the_number_of_tokens_is_the_wanted_or_the_nearest_that_is_paid(logits, allowed):
    cost = BlockCost(0, 100, 60, 3, 8)
    choice = TokenGates(cost).choose(np.array(logits), allowed)
    order = np.argsort(-np.array(logits), kind='stable')
    costs = [300 * bool(count) + 60 * count for count in range(9)]
    wanted = sum(logit > 0 for logit in logits)
    if allowed is not None:
        wanted = int(np.abs(np.array(costs) - allowed).argmin())
    assert sorted(np.flatnonzero(choice.gate)) == sorted(order[:wanted])
    assert (choice.tokens, choice.cost) == (wanted, costs[wanted])
    assert choice.whole == (wanted == 8)
    # No token that stays closed has a logit above the threshold, and none that runs one below.
    if 0 < wanted < 8:
        assert logits[order[wanted]] <= choice.threshold <= logits[order[wanted - 1]]


def walk(tasks, budget, seed, weights=None) -> FrameGates:
    """Return the decisions of a policy of random logits."""
    rng = np.random.default_rng(seed)
    frame = FrameGates(COST, GATES, tasks, budget, weights)
    for stage, depth in enumerate(CONFIG.depths):
        size = len(tasks), COST.block(stage).tokens
        for runs in frame.open_stage(stage, rng.normal(size=(len(tasks), depth))):
            if runs:
                frame.open_tokens(partial(rng.normal, size=size))
            else:
                frame.close()
    return frame


@given(strategies.integers(0, 1000), strategies.floats(0.3, 1.0))
def test_blocks_run_whole_but_for_one_that_is_paid_in_part(seed, budget):
    frame = walk(CONFIG.tasks, budget, seed)
    trace = frame.trace()
    assert abs(trace.macs / COST.dense(CONFIG.tasks) - budget) < 0.02
    assert sum(0 < gate.mean() < 1 for gate in trace.gates) <= 2
    assert [choice.whole for choice in frame.choices] == [gate.all() for gate in trace.gates]


def test_a_block_that_is_paid_whole_needs_no_logits_of_its_tokens():
    frame = FrameGates(COST, GATES, CONFIG.tasks, 0.9)
    opened = frame.open_stage(0, np.ones((len(CONFIG.tasks), CONFIG.depths[0])))
    assert opened[0]
    assert frame.open_tokens(lambda: pytest.fail('asked for logits')).whole


def test_each_task_is_told_what_it_asked_for_and_weights_count():
    tasks = ('semseg', 'normals')
    asked, ran = [], []
    for weights in ({}, {'normals': 1e6}):
        frames = [walk(tasks, 0.6, seed, weights) for seed in range(30)]
        asked.append(np.array([frame.trace().task_fraction for frame in frames]))
        ran.append([np.mean([choice.gate.mean() for choice in frame.choices]) for frame in frames])
        assert (asked[-1].max(1) <= np.array(ran[-1]) + 1e-9).all()
    assert asked[0].mean(0) == pytest.approx([asked[0].mean()] * 2, rel=0.15)
    np.testing.assert_allclose(
        asked[1][:, 1], ran[1], atol=0.02, err_msg='the heavier task decides alone')
    assert asked[1][:, 0].mean() < asked[1][:, 1].mean() / 2


@pytest.mark.parametrize('budget', [None, 0.5, 1.0])
def test_what_is_told_of_a_frame_cannot_change_others(budget):
    """Writing to a trace is refused where frames share its arrays, or changes nothing."""
    network = random_network('small')
    image, tasks = random_image(network), network.config.tasks
    whole = network.run_dense(image, tasks)[1]
    before = network.run_policy(image, tasks, budget)[1]
    kept = [gate.copy() for gate in before.gates]
    for trace in (whole, before):
        for gate in trace.gates:
            with contextlib.suppress(ValueError):
                gate[:] = ~gate
    after = network.run_policy(image, tasks, budget)[1]
    for gate, expected in zip(after.gates, kept):
        np.testing.assert_array_equal(gate, expected)
    assert all(gate.all() for gate in network.run_dense(image, tasks)[1].gates)


@pytest.mark.parametrize('name', ['task_agnostic', 'small'])
@pytest.mark.parametrize('tasks', [('semseg',), ('semseg', 'saliency', 'normals')])
def test_every_enabled_task_has_its_share_of_tokens(name, tasks):
    network = random_network(name)
    trace = network.run_policy(random_image(network), tasks, 0.5)[1]
    assert len(trace.task_fraction) == len(tasks)
    assert all(0 <= share <= 1 for share in trace.task_fraction) and max(trace.task_fraction) > 0
    if name == 'task_agnostic':
        # One controller speaks for all.
        assert len(set(trace.task_fraction)) == 1

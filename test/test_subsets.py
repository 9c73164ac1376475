# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which size and set of blocks a frame gets, against trying all of them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from adamtl_ros.gating.subsets import BlockPolicy
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite import trace_of
from adamtl_ros.network.lite_network import LiteNetwork
from networks import CONFIGS
from networks import random_network

LIMITS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)


@pytest.fixture(scope='module')
def network() -> LiteNetwork:
    return random_network('lite')


@pytest.fixture(params=[None, ('semseg', 'depth')])
def chooser(network, request) -> BlockPolicy:
    config = network.config
    tasks = request.param or config.tasks
    policy = BlockPolicy(config, network.cost, network.policy_arrays(), tasks, {'depth': 3.0})
    policy.tasks = tasks
    return policy


def spent(config: LiteConfig, size: tuple[int, int], gates: np.ndarray, tasks) -> float:
    """Return what a set costs, without the policy, as a share of the dense network."""
    cost = LiteCost(config.at(size))
    return trace_of(cost, tasks, gates, None).macs / LiteCost(config).dense(tasks)


def every(network, tasks):
    """Yield (size, gates, cost, rise) of all sets, worked out one by one."""
    config, weights = network.config, network.policy_arrays()
    rows = [config.tasks.index(task) for task in tasks]
    heed = np.array([3.0 if task == 'depth' else 1.0 for task in tasks])
    heed /= heed.sum()
    typical = heed @ weights['policy.typical'][rows]
    pairs = np.tensordot(heed, weights['policy.pairs'][rows], 1)
    smaller = np.r_[0.0, heed @ weights['policy.smaller'][rows]]
    inside = [number for number, block in enumerate(config.gated[:-1])
              if block.stage >= config.coarse]
    count = len(config.gated)
    sets = [np.array(gates) for gates in product((False, True), repeat=count)]
    for place, size in enumerate(config.sizes):
        for gates in sets:
            if gates[inside].any() and not gates[-1]:
                continue
            closed = np.flatnonzero(~gates)
            rise = smaller[place] + typical[closed].sum() + sum(
                pairs[b, c] for i, b in enumerate(closed) for c in closed[i + 1:]
                # What early and late gates are to one another counts once.
            )
            yield size, gates, spent(config, size, gates, tasks), rise


def test_the_best_of_all_sets_and_sizes_within_a_limit(network, chooser):
    sets = list(every(network, chooser.tasks))
    least = min(cost for *_, cost, _ in sets)
    sizes = set()
    for limit in LIMITS:
        size, gates = chooser.fixed(limit)
        fits = [rise for *_, cost, rise in sets if cost <= max(limit, least) + 1e-7]
        mine = next(rise for other, open_, _, rise in sets
                    if other == size and np.array_equal(open_, gates))
        assert mine == pytest.approx(min(fits), abs=1e-6), limit
        sizes.add(size)
    assert len(sizes) > 1


def test_no_frame_costs_more_than_its_limit(network, chooser):
    config, rng = network.config, np.random.default_rng(0)
    least = LiteCost(config.at(config.sizes[-1])).fixed(chooser.tasks) / (
        network.cost.dense(chooser.tasks))
    for limit in LIMITS:
        for price in (0.0, 0.3, 30.0):
            start = chooser.begin(limit, price, 0.6)
            seen = rng.normal(size=config.features()).astype(np.float32)
            gates = chooser.finish(start, seen, limit, price).gates
            assert spent(config, start.size, gates, chooser.tasks) <= max(limit, least) + 1e-7
        size, gates = chooser.random(limit, 5)
        assert spent(config, size, gates, chooser.tasks) <= max(limit, least) + 1e-7


def test_the_mean_alone_decides_the_size(chooser):
    """Frames of a stream, of which some may cost more than others, are of one size."""
    for mean in LIMITS:
        size = chooser.begin(mean).size
        for limit, price in product((mean, 1.0), (0.0, 0.2, 5.0)):
            assert chooser.begin(limit, price, mean).size == size
    # But no frame may cost more than its limit.
    assert chooser.begin(0.2, 0.0, 1.0).size == chooser.begin(0.2).size


def test_a_smaller_size_that_costs_too_much_is_not_taken(network):
    config, weights = network.config, dict(network.policy_arrays())
    weights['policy.smaller'] = np.full_like(weights['policy.smaller'], 1e3)
    chooser = BlockPolicy(config, network.cost, weights, config.tasks, {})
    full = network.cost.fixed(config.tasks) / network.cost.dense(config.tasks)
    assert chooser.begin(full + 1e-6).size == config.input_size
    # Below what it costs at the least in full there is no other way.
    assert chooser.begin(full - 0.01).size in config.sizes[1:]


@pytest.mark.parametrize('size, expected', [
    ((192, 256), [(192, 256), (160, 224), (160, 192), (128, 160)]),
    ((160, 288), [(160, 288), (128, 224), (128, 224), (96, 192)]),
    ((256, 192), [(256, 192), (224, 160), (192, 160), (160, 128)]),
    ((32, 32), [(32, 32)] * 4)])
def test_sizes_keep_the_shape_of_the_picture(size, expected):
    config = LiteConfig('glasses', reduced=(0.73, 0.62, 0.42)).at(size)
    assert list(config.sizes) == expected


@pytest.mark.parametrize('reduced', [(0.5, 0.7), (1.0,), (0.05,), (0.5, 0.5), [0.5], ('a',),
                                     (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)])
def test_shares_that_cannot_be(reduced):
    with pytest.raises(ValueError, match='reduced is .*descending, from 0.1 to below 1'):
        replace(CONFIGS['lite'], reduced=reduced).check()


def test_where_all_may_open_no_look_is_needed(network, chooser):
    config = network.config
    for place, size in enumerate(config.sizes):
        most = spent(config, size, np.ones(len(config.gated), bool), chooser.tasks)
        start = chooser.start(place, most)
        choice = chooser.foregone(start, most)
        assert choice.gates.all() and set(choice.wishes) == {1.0}
        assert chooser.foregone(start, most - 0.01) is None
        assert chooser.foregone(start, most, 0.1) is None

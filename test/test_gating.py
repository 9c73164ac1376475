# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From logits to gates: the best cells, in the order of their logits, as many as may be paid."""

from hypothesis import given
from hypothesis import strategies
import numpy as np
import pytest

from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.cost import BlockCost
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.gating import block_geometries
from adamtl_ros.network.gating import BlockGeometry
from adamtl_ros.network.gating import FrameGates
from adamtl_ros.network.gating import LEAST_SHARE

CONFIG = PRESETS['glasses']
COST = CostModel(CONFIG)
GEOMETRY = block_geometries(CONFIG, COST)

# Coarse, so that some are equal.
scores = strategies.lists(strategies.integers(-4, 4).map(lambda n: n / 2), min_size=8, max_size=8)
bounds = strategies.integers(-100, 1200)


@given(scores, bounds, strategies.integers(0, 400), strategies.booleans())
def test_the_number_of_cells_is_the_wanted_or_the_nearest_that_fits(logits, low, width, skips):
    cost = BlockCost(0, 100, 30, 3, 16)
    window_of = [0, 0, 1, 1, 1, 2, 2, 0]
    geometry = BlockGeometry(cost, 8, 2, window_of if skips else None)
    high = low + width
    choice = geometry.choose(logits, low, high)
    order = np.argsort(-np.array(logits), kind='stable')
    costs = []
    for count in range(9):
        windows = len({window_of[cell] for cell in order[:count]}) if skips else 3 * bool(count)
        costs.append(cost.gated(windows, 2 * count))
    wanted = sum(logit > 0 for logit in logits)
    if not low <= costs[wanted] <= high:
        bound = high if costs[wanted] > high else low
        wanted = int(np.abs(np.array(costs) - bound).argmin())
    assert choice.cells == order[:wanted].tolist()
    assert choice.cost == costs[wanted]
    assert sorted(np.flatnonzero(choice.gate)) == sorted(choice.cells)
    if skips:
        assert sorted(choice.windows) == sorted({window_of[cell] for cell in choice.cells})
        assert [choice.windows[slot] for slot in choice.slots] == [
            window_of[cell] for cell in choice.cells]
    # No cell that stays closed has a logit above the threshold, and none that runs one below.
    if 0 < wanted < 8:
        assert logits[order[wanted]] <= choice.threshold <= logits[order[wanted - 1]]


@given(strategies.integers(0, 1000), strategies.floats(0.3, 1.0))
def test_blocks_are_closed_or_well_used(seed, budget):
    rng = np.random.default_rng(seed)
    frame = FrameGates(CONFIG, COST, GEOMETRY, CONFIG.tasks, budget)
    for stage, depth in enumerate(CONFIG.depths):
        cells = GEOMETRY[len(frame.choices)].cells
        opened = frame.open_stage(stage, rng.normal(size=(len(CONFIG.tasks), depth)))
        frame.open_tokens(opened, rng.normal(size=(depth, len(CONFIG.tasks), cells)))
    trace = frame.trace()
    assert abs(trace.macs / COST.dense(CONFIG.tasks) - budget) < 0.02
    sparse = [
        macs for macs, geometry in zip(trace.block_macs, GEOMETRY)
        # The nearest number of cells may be half a cell and a window short of it.
        if 0 < macs < LEAST_SHARE * geometry.cost.dense - geometry.cost.window
        - geometry.cell_tokens * geometry.cost.token]
    # The last of them gets what remains.
    assert len(sparse) <= 1


def test_each_task_is_told_what_it_asked_for_and_weights_count():
    tasks = ('semseg', 'depth')
    asked = []
    for weights in ({}, {'depth': 1e6}):
        rng = np.random.default_rng(0)
        frame = FrameGates(CONFIG, COST, GEOMETRY, tasks, 0.6, weights)
        for stage, depth in enumerate(CONFIG.depths):
            cells = GEOMETRY[len(frame.choices)].cells
            opened = frame.open_stage(stage, rng.normal(size=(2, depth)))
            frame.open_tokens(opened, rng.normal(size=(depth, 2, cells)))
        trace = frame.trace()
        ran = np.mean([choice.gate.mean() for choice in frame.choices])
        asked.append(trace.task_fraction)
        assert max(trace.task_fraction) <= ran + 1e-9
    assert asked[0] == pytest.approx([np.mean(asked[0])] * 2, rel=0.15)
    assert asked[1][1] == pytest.approx(ran, abs=0.02), 'the heavier task decides alone'
    assert asked[1][0] < asked[1][1] / 2

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The latency model and the control that uses it, on made-up devices: nothing is timed here."""

from functools import partial
import os

import numpy as np
import pytest

from adamtl_ros.gating.tokens import FrameGates
from adamtl_ros.gating.tokens import TokenGates
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.trace import Trace
from adamtl_ros.processes import processors
from adamtl_ros.runtime import latency
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.runtime.latency import LatencyModel

COST = CostModel(PRESETS['swin_tiny'])
CONFIG = COST.config
GATES = [TokenGates(block) for block in COST.blocks]
TRUE = LatencyModel(3.0, 0.7, 0.3, 3.0)


def gates(tasks: tuple[str, ...], budget: float, seed: int) -> Trace:
    """Return what a policy of random logits would run."""
    rng = np.random.default_rng(seed)
    frame = FrameGates(COST, GATES, tasks, budget)
    for stage, depth in enumerate(CONFIG.depths):
        size = len(tasks), COST.block(stage).tokens
        for runs in frame.open_stage(stage, rng.normal(size=(len(tasks), depth))):
            if runs:
                frame.open_tokens(partial(rng.normal, size=size))
            else:
                frame.close()
    return frame.trace()


def test_a_device_that_is_linear_is_found_again():
    def run(pixels, tasks, budget):
        trace = gates(tasks, budget, int(pixels.sum()) % 1000)
        return trace, TRUE.predict(trace, tasks)

    found = latency.measured(CONFIG, run)
    for seed, (tasks, budget) in enumerate([(CONFIG.tasks, 0.7), (('normals',), 0.5)]):
        trace = gates(tuple(tasks), budget, seed)
        assert found.predict(trace, tasks) == pytest.approx(TRUE.predict(trace, tasks), rel=0.02)


def test_the_cost_of_the_blocks_adds_up():
    trace = gates(CONFIG.tasks, 0.6, 0)
    assert trace.macs == COST.minimum(CONFIG.tasks) + sum(trace.block_macs)
    assert [macs > 0 for macs in trace.block_macs] == [gate.any() for gate in trace.gates]


def test_budget_and_prediction_are_inverse():
    tasks = CONFIG.tasks
    everything = Trace([], 0, [], [], [block.dense for block in COST.blocks])
    most = TRUE.predict(everything, tasks)
    # With every gate open the policy's own cost comes on top of the dense one.
    expected = (COST.minimum(tasks) + sum(everything.block_macs)) / COST.dense(tasks)
    assert TRUE.budget(COST, tasks, most) == pytest.approx(expected)
    assert TRUE.expect(COST, tasks, expected) == pytest.approx(most)
    assert TRUE.budget(COST, tasks, 0.8 * most) < TRUE.budget(COST, tasks, 0.9 * most)


@pytest.mark.parametrize('slower', [1.0, 1.6, 0.7])
def test_the_target_is_held_through_a_step_of_load_without_swinging(slower):
    """The device is `slower` from frame 60 on; noise of 5 %."""
    control, rng = LatencyControl(TRUE, COST), np.random.default_rng(0)
    tasks, target, taken, asked = CONFIG.tasks, 18.0, [], []
    for number in range(160):
        budget = control.budget(tasks, target, 0.25, 1.0)
        trace = gates(tasks, budget, number)
        predicted = TRUE.predict(trace, tasks)
        network = predicted * (slower if number >= 60 else 1.0) * rng.normal(1, 0.05)
        control.observe(predicted, network, network + 2.0)
        taken.append(network + 2.0)
        asked.append(budget)
    assert np.mean(taken[10:60]) == pytest.approx(target, rel=0.05)
    assert np.mean(taken[80:]) == pytest.approx(target, rel=0.07)
    # Settled: what is left is the noise, not a swing.
    assert np.std(asked[85:]) < 0.04


def test_one_stalled_frame_does_not_empty_the_pictures():
    control = LatencyControl(TRUE, COST)
    tasks = CONFIG.tasks
    for network in (15.0, 15.0, 900.0):
        before = control.budget(tasks, 18.0, 0.25, 1.0)
        control.observe(15.0, network, network + 2.0)
    assert control.budget(tasks, 18.0, 0.25, 1.0) > 0.6 * before


def test_limits():
    control = LatencyControl(TRUE, COST)
    assert control.budget(CONFIG.tasks, 0.1, 0.3, 0.9) == 0.3
    assert control.budget(CONFIG.tasks, 1e4, 0.3, 0.9) == 0.9


def test_measurements_are_kept(tmp_path):
    path = tmp_path / 'new' / 'model.json'
    assert latency.load(path) is None
    latency.save(path, TRUE)
    assert latency.load(path) == TRUE
    for text in ('', '{}', '[1]', path.read_text()[:40], path.read_text().replace('task', 'x'),
                 path.read_text().replace('0.7', '-1')):
        path.write_text(text)
        assert latency.load(path) is None
    latency.save(tmp_path / 'new' / 'model.json' / 'below_a_file', TRUE)  # cannot be: no error


def test_a_file_that_is_not_finite_is_no_measurement(tmp_path):
    path = tmp_path / 'model.json'
    latency.save(path, TRUE)
    for value in ('Infinity', 'NaN'):
        path.write_text(path.read_text().replace('0.7', value))
        assert latency.load(path) is None


def test_the_key_tells_weights_settings_and_machines_apart(tmp_path, monkeypatch):
    one, other = tmp_path / 'one', tmp_path / 'other'
    one.write_bytes(b'1')
    other.write_bytes(b'2')
    cards = {'cuda': 'one card', 'cuda:1': 'another'}
    monkeypatch.setattr(latency, '_gpu', lambda device: cards.get(device, ''))
    monkeypatch.setattr(latency, '_release', lambda backend: f'{backend} 1')

    def keys():
        return [latency.key(weights, backend, device, 'f32', threads)
                for weights in (one, other) for threads in (0, 1) for backend, device in (
                    ('openvino', 'cpu'), ('torch', 'cpu'), ('torch', 'cuda'))]

    before = keys()
    assert len(set(before)) == len(before)
    assert keys() == before
    for name, changed in (
            ('processors', lambda: [7]), ('processor', lambda: 'another'),
            ('version', lambda: '9'), ('_release', lambda backend: f'{backend} 2')):
        with monkeypatch.context() as patch:
            patch.setattr(latency, name, changed)
            assert not set(keys()) & set(before), name
    cards['cuda'] = 'a new card'
    assert [now != then for now, then in zip(keys(), before)] == [False, False, True] * 4


def test_the_processors_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {3, 1}, raising=False)
    assert processors() == [1, 3]
    # Systems other than Linux do not tell.
    monkeypatch.delattr(os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    assert processors() == [0, 1]


def test_what_a_measurement_is_named_after_is_asked_of_the_machine():
    assert latency._gpu('cpu') == ''
    assert latency._release('numpy') == np.__version__

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The laws that every network keeps, whatever its weights."""

from dataclasses import replace
import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.flop_counter import sdpa_flop_count

from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from networks import CONFIGS
from networks import random_image
from networks import random_network

pytestmark = pytest.mark.slow

every_network = pytest.mark.parametrize('name', CONFIGS)


def random_gates(network, seed, open_share=None):
    """Return gates that hold closed, sparse, patchy and full blocks."""
    rng = np.random.default_rng(seed)
    if isinstance(network, LiteNetwork):
        opened = rng.random(len(network.config.gated)) < (open_share or 0.5)
        inside = [block.stage >= network.config.coarse for block in network.config.gated]
        # Of three seeds one leaves the level at stride 32 out.
        opened[-1] = open_share is not None or seed % 3 > 0
        return [np.array([gate]) for gate in opened & (~np.array(inside) | opened[-1])]
    shares = itertools.cycle([0.1, 0.0, 0.5, 1.0, 0.9])
    gates = []
    for block, share in zip(network.cost.blocks, shares):
        count = block.tokens
        share = share if open_share is None else open_share
        # A run of neighbours, so that some windows are fully inactive and others mixed.
        gate = (np.arange(count) + rng.integers(count)) % count < share * count
        gates.append(gate ^ (rng.random(count) < 0.1) if 0 < share < 1 else gate)
    return gates


def flops():
    """Return a counter that knows the fused attention of the CPU too, which torch's does not."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={
        fused: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)})


def as_tensors(gates):
    return [torch.from_numpy(gate)[None].float() for gate in gates]


def assert_equal(one, other, tolerance):
    assert one.keys() == other.keys()
    for task in one:
        scale = float(one[task].abs().max())
        assert scale > 1e-2, 'the outputs say nothing'
        assert float((one[task] - other[task]).abs().max()) <= tolerance * max(scale, 1), task


@every_network
def test_all_gates_open_is_the_dense_network(name):
    network = random_network(name)
    image, tasks = random_image(network), network.config.tasks
    everything = random_gates(network, 0, open_share=1.0)
    with torch.no_grad():
        dense = network(image)
        assert_equal(dense, network(image, gates=as_tensors(everything)), 1e-5)
    assert_equal(dense, network.run_gates(image, tasks, everything), 1e-5)
    assert_equal(dense, network.run_dense(image, tasks)[0], 1e-5)


@every_network
@pytest.mark.parametrize('seed', range(3))
def test_gathered_is_masked(name, seed):
    network = random_network(name, seed)
    image, gates = random_image(network, seed), random_gates(network, seed)
    with torch.no_grad():
        masked = network(image, gates=as_tensors(gates))
        dense = network(image)
    assert_equal(masked, network.run_gates(image, network.config.tasks, gates), 1e-4)
    assert max(float((masked[task] - dense[task]).abs().max()) for task in dense) > 1e-2


@every_network
def test_masked_batch_is_masked_singles(name):
    network = random_network(name)
    images = random_image(network, batch=2)
    gates = [random_gates(network, seed) for seed in (1, 2)]
    with torch.no_grad():
        both = network(images, gates=[
            torch.cat(pair) for pair in zip(*(as_tensors(gate) for gate in gates))])
        for index in (0, 1):
            single = network(images[index:index + 1], gates=as_tensors(gates[index]))
            assert_equal(single, {k: v[index:index + 1] for k, v in both.items()}, 1e-4)


def test_a_closed_block_changes_nothing():
    network = random_network('small')
    image, tasks = random_image(network), network.config.tasks
    gates = random_gates(network, 0, open_share=1.0)
    gates[1] = np.zeros_like(gates[1])
    without = network.run_gates(image, tasks, gates)
    del network.encoder.stages[0].blocks[1]
    del gates[1]
    assert_equal(without, network.run_gates(image, tasks, gates), 1e-5)


@pytest.fixture(scope='module')
def engine(weights):
    return Engine(weights)


def picture(seed, height=120, width=160):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    fine = coarse.repeat(height // 6, 0).repeat(width // 8, 1)
    return fine // (1 + seed % 4) + rng.integers(0, 20, fine.shape, dtype=np.uint8)


@pytest.mark.parametrize('mode', ['static', 'shadow', 'adaptive'])
def test_same_frame_same_answer(engine, mode):
    settings = Settings(mode=mode, budget=0.6, tasks=engine.tasks, gating_map=True, raw=True)
    first = engine.infer(picture(0), settings)
    engine.infer(picture(1), Settings(mode='adaptive', budget=0.9, tasks=('depth',)))
    second = engine.infer(picture(0), settings)
    assert first.stats.block_active == second.stats.block_active
    assert first.stats.token_fraction == second.stats.token_fraction
    np.testing.assert_array_equal(first.gating_map, second.gating_map)
    for task in engine.tasks:
        np.testing.assert_array_equal(first.outputs[task], second.outputs[task])
        np.testing.assert_array_equal(first.raw[task], second.raw[task])


@every_network
def test_cost_model_counts_what_runs(name):
    network = random_network(name)
    image, tasks = random_image(network), network.config.tasks
    for chosen in (tasks, tasks[:1], tasks[1:3]):
        with flops() as counter:
            _, trace = network.run_dense(image, chosen)
        assert counter.get_total_flops() == 2 * trace.macs == 2 * network.cost.dense(chosen)
        for budget in (0.4, 0.6, 0.9):
            with flops() as counter:
                _, trace = network.run_policy(image, chosen, budget)
            # The policy of the convolutional network is computed outside torch.
            beside = network.cost.policy if isinstance(network, LiteNetwork) else 0
            assert counter.get_total_flops() == 2 * (trace.macs - beside)


@every_network
def test_given_gates_cost_what_the_model_says(name):
    network = random_network(name)
    tasks = network.config.tasks
    gates = random_gates(network, 3)
    with flops() as counter:
        network.run_gates(random_image(network), tasks, gates)
    macs = network.cost.fixed(tasks)
    if isinstance(network, LiteNetwork):
        macs += sum(block.macs for block, gate in zip(network.cost.blocks, gates) if gate)
        assert counter.get_total_flops() == 2 * macs
        return
    macs += sum(
        block.gated(int(gate.sum())) for block, gate in zip(network.cost.blocks, gates))
    assert counter.get_total_flops() == 2 * macs


def test_a_task_turned_off_changes_no_other(engine):
    everything = engine.infer(picture(2), Settings(tasks=engine.tasks, raw=True))
    for off in engine.tasks:
        kept = tuple(task for task in engine.tasks if task != off)
        result = engine.infer(picture(2), Settings(tasks=kept, raw=True))
        assert set(result.outputs) == set(kept)
        for task in kept:
            np.testing.assert_array_equal(result.raw[task], everything.raw[task])
        assert result.stats.gmacs < everything.stats.gmacs
        for mode, budget in (('adaptive', 0.5), ('shadow', 0.9)):
            fewer, more = (
                engine.infer(picture(2), Settings(mode=mode, budget=budget, tasks=tasks)).stats
                for tasks in (kept, engine.tasks))
            # Each of its own dense network, of which it is a share.
            assert fewer.gmacs <= budget * fewer.gmacs_dense * 1.001
            assert fewer.gmacs_dense < more.gmacs_dense


@every_network
def test_the_budget_is_kept_and_monotone(name):
    config = CONFIGS[name]
    # Where a smaller size is best with all of its gates open, nothing is left to spend.
    network = random_network(
        replace(config, reduced=()) if isinstance(config, LiteConfig) else config)
    tasks = network.config.tasks
    dense, least = network.cost.dense(tasks), network.cost.minimum(tasks)
    budgets = [0.05, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    means = []
    for budget in budgets:
        spent = [
            network.run_policy(random_image(network, seed), tasks, budget)[1].macs / dense
            for seed in range(4)]
        means.append(np.mean(spent))
    for budget, mean in zip(budgets, means):
        wanted = max(budget, least / dense)
        assert abs(mean - wanted) <= 0.02, (budget, mean)
    assert all(np.diff(means) >= 0), means


def test_masked_policy_is_the_gathered_policy():
    network = random_network('small')
    tasks = network.config.tasks
    images = random_image(network, batch=3)
    budgets = torch.tensor([0.4, 0.7, 0.95])
    with torch.no_grad():
        routing = network.forward_policy(images, budgets, tasks, noise=0.0)
        masked, spent = routing.outputs, routing.spent
    for index, budget in enumerate(budgets):
        gathered, trace = network.run_policy(images[index:index + 1], tasks, float(budget))
        assert trace.macs / network.cost.dense(tasks) == pytest.approx(float(spent[index]))
        assert_equal(gathered, {k: v[index:index + 1] for k, v in masked.items()}, 1e-4)


def test_task_weight_steers_the_policy():
    network = random_network('glasses')
    image, tasks = random_image(network), network.config.tasks
    plain, favoured = (
        [network.run_policy(image, tasks, budget, weights)[1] for budget in (0.3, 0.5, 0.7, 0.9)]
        for weights in ({}, {'depth': 10.0, 'semseg': 0.0}))
    assert any(
        one.size != other.size or any((a != b).any() for a, b in zip(one.gates, other.gates))
        for one, other in zip(plain, favoured))


def test_gradient_reaches_the_whole_network():
    network = random_network('small').train()
    routing = network.forward_policy(
        random_image(network, batch=2), torch.tensor([0.9, 0.9]), network.config.tasks)
    (sum(value.square().mean() for value in routing.outputs.values())
     + routing.wish.mean()).backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # The last bias of a stage may be without: a closed block passes no gradient.
    assert not [n for n in missing if not n.startswith('encoder.stages')], missing


def test_what_inference_keeps_follows_the_weights():
    """A network that was run is, after it got other weights, as one that was not."""
    network, other = random_network('small'), random_network('small', seed=1)
    image = random_image(network)
    gates, tasks = random_gates(network, 0), network.config.tasks
    with torch.no_grad():
        network(image)
        network.load_state_dict(other.state_dict())
        assert_equal(network(image), other(image), 0)
        for block in network.encoder.modules():
            if hasattr(block, 'relative_position_bias_table'):
                table = block.relative_position_bias_table.roll(1, 0)
                block.load_state_dict({
                    **block.state_dict(), 'relative_position_bias_table': table})
        changed = network(image)
        fresh = AdaMTL(network.config).eval()
        fresh.load_state_dict(network.state_dict())
        assert_equal(changed, fresh(image), 0)
        assert max(float((changed[t] - other(image)[t]).abs().max()) for t in tasks) > 1e-2
        assert_equal(
            network.run_gates(image, tasks, gates), fresh.run_gates(image, tasks, gates), 0)
        # In another type, and without values on another device.
        assert all(value.dtype == torch.float64 for value in network.double()(
            image.double()).values())
        assert all(value.is_meta for value in network.to('meta')(image.double().to(
            'meta')).values())

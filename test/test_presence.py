# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames that have nothing for a task: its decoder rests, and nothing else changes."""

from dataclasses import replace
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import read_config
from adamtl_ros.network.lite import RARE
from adamtl_ros.network.lite_network import extremes
from adamtl_ros.runtime.backends import openvino_backend
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Known
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.runtime.torch_backend import TorchBackend
from adamtl_ros.training import presence
from networks import CONFIGS
from networks import random_image
from networks import random_network

CONFIG = replace(CONFIGS['lite'], name='rare', presence=True, reduced=())
PLAIN, LOUD = 3, 4
"""Seeds of a picture that has nothing for the task, and of one that has."""

SETS = CONFIG.tasks, (RARE,), ('semseg', RARE)


def pixels(seed):
    """Return uint8 (64, 96, 3); their contrast tells PLAIN and LOUD apart."""
    rng = np.random.default_rng(seed)
    spread = 12 if seed == PLAIN else 120
    coarse = 128 + rng.integers(-spread, spread, (4, 6, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """Return weights whose head tells PLAIN from LOUD, under all gates of these tests."""
    network, seen = random_network(CONFIG), []

    def keep(module, inputs, outputs):
        seen.append(extremes(inputs[0])[0])

    hook = network.presence.register_forward_hook(keep)
    for seed in (PLAIN, LOUD):
        for tasks in SETS:
            image = network.inputs(torch.from_numpy(pixels(seed))[None])
            network.run_policy(image, tasks, 0.6, skip_empty=True)
    hook.remove()
    x = torch.stack(seen).double()
    goal = torch.tensor([-1.0] * len(SETS) + [1.0] * len(SETS)).double()
    weight = torch.linalg.pinv(x - x.mean(0), rtol=1e-6) @ goal
    network.presence.weight.copy_(weight[None])
    network.presence.bias.fill_(-float(x.mean(0) @ weight))
    assert (((x - x.mean(0)) @ weight) * goal > 0.1).all()
    file = tmp_path_factory.mktemp('weights') / 'rare.safetensors'
    checkpoint.save(file, network, half=False)
    return str(file)


@pytest.fixture(scope='module', params=['openvino', 'torch'])
def engine(request, path):
    """Return an engine of each backend."""
    return Engine(path, backend=request.param)


def adaptive(**changes):
    """Return settings of mode adaptive."""
    return Settings(**{'mode': 'adaptive', 'budget': 0.6, 'tasks': CONFIG.tasks, **changes})


def equal(one, other):
    """Check that outputs are the same bits."""
    assert list(one) == list(other)
    for task, value in one.items():
        np.testing.assert_array_equal(value, other[task])


@pytest.mark.parametrize('tasks', [*SETS, ('depth',)])
@pytest.mark.parametrize('seed', [PLAIN, LOUD])
def test_both_backends_agree(path, tasks, seed):
    (one, trace), (other, wanted) = (
        backend.priced(pixels(seed), tasks, 0.6, {}, 0.0, True)
        for backend in (openvino_backend(path), TorchBackend(path)))
    assert trace.empty == wanted.empty == ((RARE,) if seed == PLAIN and RARE in tasks else ())
    assert trace.macs == wanted.macs
    assert list(one) == list(other) == [task for task in tasks if task not in trace.empty]
    for task, value in one.items():
        assert np.abs(value - other[task]).max() < 1e-3 * np.abs(other[task]).max()


def test_costs_add_up(path):
    network = checkpoint.load(path)
    cost = network.cost
    for seed in (PLAIN, LOUD):
        image = network.inputs(torch.from_numpy(pixels(seed))[None])
        with FlopCounterMode(display=False) as counter:
            _, trace = network.run_policy(image, CONFIG.tasks, 0.6, skip_empty=True)
        assert counter.get_total_flops() == 2 * (trace.macs - cost.policy)
        _, whole = network.run_policy(image, CONFIG.tasks, 0.6)
        saved = cost.decoders[RARE] if seed == PLAIN else 0
        assert whole.macs - trace.macs == saved - cost.presence
        assert cost.presence == network.presence.weight.numel()
        # Without another task the pyramid rests as well.
        with FlopCounterMode(display=False) as counter:
            _, alone = network.run_policy(image, (RARE,), 0.6, skip_empty=True)
        assert counter.get_total_flops() == 2 * (alone.macs - cost.policy)


def test_an_empty_task_says_that_there_is_nothing(engine):
    result = engine.infer(pixels(PLAIN), adaptive(gating_map=True, confidence=True))
    every = engine.infer(pixels(PLAIN), adaptive(
        gating_map=True, confidence=True, skip_empty=False))
    assert result.stats.tasks_empty == (RARE,) and every.stats.tasks_empty == ()
    assert result.stats.tasks == every.stats.tasks == CONFIG.tasks
    assert every.outputs[RARE].any() and not result.outputs[RARE].any()
    assert result.outputs[RARE].shape == every.outputs[RARE].shape
    assert result.outputs[RARE].dtype == every.outputs[RARE].dtype
    assert list(result.outputs) == list(every.outputs)
    # The same blocks ran, and it cost less by the decoder.
    assert result.stats.block_active == every.stats.block_active
    np.testing.assert_array_equal(result.gating_map, every.gating_map)
    cost = engine.cost
    assert 1e9 * (every.stats.gmacs - result.stats.gmacs) == pytest.approx(
        cost.decoders[RARE] - cost.presence)
    assert result.stats.gmacs_dense == every.stats.gmacs_dense
    for task in CONFIG.tasks:
        if task != RARE:
            assert np.abs(result.outputs[task].astype(float) - every.outputs[task]).mean() < 1e-4


def test_a_frame_that_has_something_is_as_without(engine):
    result, every = (
        engine.infer(pixels(LOUD), adaptive(skip_empty=skip)) for skip in (True, False))
    assert result.stats.tasks_empty == () and result.outputs[RARE].any()
    for task, value in result.outputs.items():
        assert np.abs(value.astype(float) - every.outputs[task]).mean() < 1e-4


def test_the_same_bits_whatever_was_left_out_before(engine):
    first = {seed: engine.infer(pixels(seed), adaptive()).outputs for seed in (PLAIN, LOUD)}
    for seed in (LOUD, PLAIN, PLAIN, LOUD, LOUD):
        engine.infer(pixels(PLAIN), adaptive(tasks=('semseg', RARE), budget=0.9))
        equal(engine.infer(pixels(seed), adaptive()).outputs, first[seed])
    # Nor do later frames write into results that were handed out.
    assert not first[PLAIN][RARE].any() and first[LOUD][RARE].any()


def test_other_modes_compute_everything(engine):
    dense = engine.infer(pixels(PLAIN), adaptive(mode='static'))
    assert dense.stats.tasks_empty == () and dense.outputs[RARE].any()
    assert dense.stats.budget_achieved == 1.0
    fixed = engine.infer(pixels(PLAIN), adaptive(mode='fixed'))
    assert fixed.stats.tasks_empty == () and fixed.outputs[RARE].any()
    # The comparison is of what adaptive would give, and so is the cost.
    shadow = engine.infer(pixels(PLAIN), adaptive(mode='shadow'))
    equal(shadow.outputs, dense.outputs)
    gated = engine.infer(pixels(PLAIN), adaptive(compare=True))
    assert shadow.stats.tasks_empty == gated.stats.tasks_empty == (RARE,)
    assert shadow.stats.task_agreement == gated.stats.task_agreement
    assert shadow.stats.task_agreement[RARE] == (dense.outputs[RARE] == 0).mean() < 1
    assert shadow.stats.gmacs == gated.stats.gmacs
    apart = engine.infer(pixels(PLAIN), adaptive(mode='shadow', compare=False))
    assert apart.stats.tasks_empty == () and math.isnan(apart.stats.budget_achieved)


def test_a_stream_keeps_what_was_empty(engine):
    stream, settings = Stream(Known(0.0)), adaptive(cap=0.6)
    first = engine.infer(pixels(PLAIN), settings, None, stream)
    stream.known = Known(math.nan, reused=True)
    second = engine.infer(pixels(PLAIN), settings, None, stream)
    stream.known = Known(0.0)
    assert not first.stats.reused and second.stats.reused
    assert first.stats.tasks_empty == second.stats.tasks_empty == (RARE,)
    equal(first.outputs, second.outputs)
    assert second.stats.budget_achieved == 0.0
    # What is saved is credit, and a change of the setting is answered at once.
    assert stream.mean == pytest.approx(first.stats.budget_achieved / 2)
    third = engine.infer(pixels(PLAIN), replace(settings, skip_empty=False), None, stream)
    assert not third.stats.reused and third.outputs[RARE].any()
    fourth = engine.infer(pixels(LOUD), settings, None, stream)
    assert not fourth.stats.reused and fourth.stats.tasks_empty == ()


def test_a_warped_frame_has_nothing_for_what_its_key_frame_had_nothing_for(engine):
    scene, stream = pixels(PLAIN), Stream(Known(0.0))
    before = engine.infer(scene, adaptive(cap=0.6), None, stream)
    stream.known = Known(math.nan, warped=True)
    after = engine.infer(np.roll(scene, 2, 1), adaptive(cap=0.6), None, stream)
    assert after.stats.warped and not before.stats.warped
    assert before.stats.tasks_empty == after.stats.tasks_empty == (RARE,)
    assert not after.outputs[RARE].any()


def test_without_the_head_nothing_is_left_out(tmp_path):
    file = tmp_path / 'lite.safetensors'
    checkpoint.save(file, random_network('lite'), half=False)
    engine = Engine(str(file))
    results = [engine.infer(pixels(PLAIN), adaptive(skip_empty=skip)) for skip in (True, False)]
    equal(results[0].outputs, results[1].outputs)
    assert results[0].stats.tasks_empty == () and results[0].outputs[RARE].any()
    assert engine.cost.presence == 0


@pytest.mark.parametrize('change', [
    {'presence': False}, {'policy': 'none'}, {'outputs': {'depth': 1}, 'classes': {}}])
def test_networks_that_have_no_head(change):
    config = replace(CONFIG, **change)
    names = random_network(config).state_dict()
    assert config.rare == () and not any(name.startswith('presence') for name in names)
    assert read_config(config.to_json()) == config


def test_a_head_that_has_not_learned_leaves_nothing_out():
    network = random_network(CONFIG)
    torch.nn.init.zeros_(network.presence.weight)
    torch.nn.init.ones_(network.presence.bias)
    for seed in range(3):
        _, trace = network.run_policy(
            random_image(network, seed), CONFIG.tasks, 0.6, skip_empty=True)
        assert trace.empty == ()


@pytest.mark.parametrize('value', [1, 'yes', None])
def test_bad_presence_is_refused(value):
    with pytest.raises(ValueError, match=r'^rare: presence is .*: give true or false$'):
        replace(CONFIG, presence=value).check()


@pytest.mark.parametrize('value', [1, 'sometimes', None])
def test_bad_skip_empty_is_refused(value):
    with pytest.raises(ValueError, match=r'^skip_empty .*: give true or false$'):
        adaptive(skip_empty=value)


def test_the_head_learns_and_misses_hardly_any():
    """One of the features is high where there is something; all have noise."""
    rng = np.random.default_rng(0)
    network = random_network(CONFIG)
    count = 400
    shares = np.where(rng.random(count) < 0.5, 0.0, rng.uniform(0.001, 0.3, count))
    seen = rng.normal(size=(count, 3, CONFIG.looks()))
    seen[..., 5] += 3 + 4.0 * (shares > 0)[:, None]
    told = presence.fit(network, seen.astype(np.float32), shares)
    assert told['missed'] <= presence.MISSED and told['spared'] > 0.75
    logits = torch.nn.functional.linear(
        torch.from_numpy(seen).float(), network.presence.weight, network.presence.bias)[..., 0]
    large = torch.from_numpy(shares > presence.LARGE)
    assert (logits[large] <= 0).float().mean() <= presence.MISSED
    assert (logits[torch.from_numpy(shares == 0)] <= 0).float().mean() > 0.6
    with pytest.raises(ValueError, match='at least 5 of each are needed'):
        presence.fit(network, seen.astype(np.float32), np.full(count, 0.2))


def test_what_is_looked_at_is_what_the_head_sees():
    network = random_network(CONFIG)
    label = torch.zeros(1, 64, 96, dtype=torch.uint8)
    label[0, :16, :48], label[0, 16:] = 2, 255
    frame = {'image': torch.from_numpy(pixels(LOUD))[None], RARE: label}
    seen, shares = presence.look(network, [frame, frame], 2)
    assert seen.shape == (2, 3, CONFIG.looks()) and shares.tolist() == [0.125, 0.125]
    with torch.no_grad():
        taps = network.taps(network.inputs(frame['image']))
    np.testing.assert_allclose(seen[0, 0], extremes(taps[2:])[0], rtol=1e-4, atol=1e-4)

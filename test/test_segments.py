# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pieces in which a GPU replays the convolutional network, run here without recording."""

from contextlib import nullcontext
from dataclasses import dataclass
from dataclasses import replace
import gc
from unittest.mock import MagicMock
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from adamtl_ros.network import checkpoint
from adamtl_ros.network.lite import RARE
from adamtl_ros.runtime import torch_backend
from adamtl_ros.runtime.backends import backend_of
from adamtl_ros.runtime.segments import Segments
from adamtl_ros.runtime.torch_backend import TorchBackend
from adamtl_ros.training import worth
from networks import CONFIGS
from networks import random_network


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp('segments') / 'lite.safetensors'
    network = random_network(replace(CONFIGS['lite'], presence=True))
    network.policy.bias.data.normal_(0, 1)
    network.policy.second.weight.data.normal_(0, 1)
    checkpoint.save(path, network, half=False)
    return str(path)


@pytest.fixture
def pair(model):
    """Return a backend that runs layer by layer, and one that replays pieces."""
    plain, pieces = TorchBackend(model), TorchBackend(model)
    pieces._recorded = True
    return plain, pieces


def picture(seed, size):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def same(first, second):
    assert first[1].macs == second[1].macs and first[1].empty == second[1].empty
    assert list(first[0]) == list(second[0])
    assert [gate.tolist() for gate in first[1].gates] == [
        gate.tolist() for gate in second[1].gates]
    for task, value in first[0].items():
        np.testing.assert_allclose(value, second[0][task], rtol=1e-5, atol=1e-6)


def test_pieces_are_the_network_whatever_ran_before(pair):
    plain, pieces = pair
    size, tasks = plain.config.input_size, plain.config.tasks
    for seed in range(12):
        pixels = picture(seed, size)
        some = tasks[seed % 3:]
        budget = (0.4, 0.6, 0.8, 1.0)[seed % 4]
        for run in ('dense', 'adaptive', 'priced', 'fixed'):
            arguments = {
                'dense': (), 'adaptive': (budget, {}),
                'priced': (1.0, {}, 0.3 * (seed % 4), seed % 2 == 0),
                'fixed': (budget, {})}[run]
            first, second = (
                getattr(each, run)(pixels, some, *arguments) for each in (plain, pieces))
            same(first, second)


def test_decoders_rest_where_there_is_nothing(pair):
    plain, pieces = pair
    size, seen = plain.config.input_size, set()
    for bias in (-1e3, 1e3, -1e3):
        for each in pair:
            each._network.presence.bias.fill_(bias)
        for tasks in (plain.config.tasks, (RARE,), ('depth', RARE), ('depth',)):
            answers = [each.priced(picture(0, size), tasks, 0.6, {}, 0.0, True) for each in pair]
            same(*answers)
            seen.add(answers[0][1].empty)
            assert list(answers[0][0]) == [
                task for task in tasks if task not in answers[0][1].empty]
    assert seen == {(), (RARE,)}


def test_any_set_after_any_other(pair):
    plain, pieces = pair
    network, tasks = plain._network, plain.config.tasks
    pixels = picture(0, plain.config.input_size)
    for gates in worth.sample(network, 30, np.random.default_rng(0)) > 0:
        expected = network.run_gates(plain._inputs(pixels), tasks, list(gates[:, None]))
        found = pieces._at(pixels).under(pixels, tasks, gates)
        for task, value in expected.items():
            np.testing.assert_allclose(value[0].numpy(), found[task], rtol=1e-5, atol=1e-6)


def test_each_size_has_its_own_pieces_and_few_are_kept(pair, monkeypatch):
    monkeypatch.setattr(torch_backend, 'SIZES', 2)
    plain, pieces = pair
    tasks = plain.config.tasks
    for size in ((64, 96), (96, 64), (32, 64), (64, 96)):
        same(*(each.dense(picture(0, size), tasks) for each in pair))
    assert list(pieces._segments) == [(32, 64), (64, 96)]


def test_answers_are_the_callers_own(pair):
    _, pieces = pair
    size, tasks = pieces.config.input_size, pieces.config.tasks
    first, _ = pieces.dense(picture(0, size), tasks)
    kept = {task: value.copy() for task, value in first.items()}
    pieces.dense(picture(1, size), tasks)
    assert all(np.array_equal(kept[task], value) for task, value in first.items())


def test_what_cannot_be_recorded_runs_all_the_same(pair, monkeypatch):
    plain, pieces = pair

    def fail(self, network, size, record):
        if record:
            raise RuntimeError('operation not permitted when stream is capturing')
        create(self, network, size, record)

    create = Segments.__init__
    monkeypatch.setattr(Segments, '__init__', fail)
    monkeypatch.setattr(pieces, '_device', torch.device('cuda'))
    pixels = picture(0, plain.config.input_size)
    with pytest.warns(RuntimeWarning, match='runs slower.*not permitted'):
        answer = pieces.dense(pixels, plain.config.tasks)
    same(plain.dense(pixels, plain.config.tasks), answer)


def test_precision_of_torch(model):
    with pytest.raises(ValueError, match='bf16 for convolutional networks on CUDA'):
        backend_of(model, 'torch', 'cpu', 0, 'bf16')
    with pytest.raises(ValueError, match='precision'):
        backend_of(model, 'torch', 'cpu', 0, 'int8')


class Recorder(TorchDispatchMode):
    """
    What CUDA graphs do, without CUDA: keep what is called, and where its arguments lie.

    A graph holds its own results, but nothing that was there before.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.results = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        numbers = {id(value): number for number, value in enumerate(self.results)}

        def named(part):
            if not isinstance(part, torch.Tensor):
                return part
            return Found(numbers[id(part)]) if id(part) in numbers else weakref.ref(part)

        self.calls.append((func, *tree_map(named, (args, kwargs or {}))))
        self.results.append(result)
        return result

    def __exit__(self, *error):
        super().__exit__(*error)
        self.results = []

    def replay(self):
        results = []

        def there(part):
            if isinstance(part, Found):
                return results[part.number]
            if isinstance(part, weakref.ref):
                assert part() is not None, 'a graph works on what was freed'
                return part()
            return part

        for func, args, kwargs in self.calls:
            results.append(func(*tree_map(there, args), **tree_map(there, kwargs)))


@dataclass(frozen=True)
class Found:
    """The result of an earlier call."""

    number: int


def test_what_a_recording_works_on_stays(model, monkeypatch):
    for name in ('Stream', 'current_stream', 'graph_pool_handle'):
        monkeypatch.setattr(torch.cuda, name, lambda *_: MagicMock())
    monkeypatch.setattr(torch.cuda, 'stream', lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', Recorder)
    monkeypatch.setattr(torch.cuda, 'graph', lambda recorder, **_: recorder)
    monkeypatch.setattr(Segments, '_host', lambda _, shape, kind: torch.zeros(
        tuple(shape), dtype=kind))
    network = checkpoint.load(model)
    network.prepare()
    size, tasks = network.config.input_size, network.config.tasks
    plain, pieces = Segments(network, size, False), Segments(network, size, True)
    gc.collect()
    for seed in range(3):
        same(plain.dense(picture(seed, size), tasks), pieces.dense(picture(seed, size), tasks))


def test_bfloat16_leaves_what_chooses_as_it_is(pair):
    plain, half = pair
    torch_backend._halve(half._network)
    size, tasks = plain.config.input_size, plain.config.tasks
    for run in ('dense', 'adaptive'):
        (exact, _), (found, trace) = (
            getattr(each, run)(picture(0, size), tasks, *((1.0, {}) if run == 'adaptive' else ()))
            for each in pair)
        for task, value in exact.items():
            assert found[task].dtype == np.float32
            assert np.abs(found[task] - value).mean() < 0.1 * np.abs(value).mean()
    for name, value in plain._network.policy_arrays().items():
        np.testing.assert_array_equal(value, half._network.policy_arrays()[name])

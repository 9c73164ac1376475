# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights files: round trip, shipped weights, damage."""

from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.config import PRESETS
from adamtl_ros.tasks import TASKS
from networks import CONFIGS
from networks import random_image
from networks import random_network


@pytest.mark.parametrize('name', CONFIGS)
def test_round_trip(tmp_path, name):
    network = random_network(name)
    path = tmp_path / 'model.safetensors'
    checkpoint.save(path, network, half=False, notes={'licence': 'Apache-2.0'})
    again = checkpoint.load(str(path))
    assert again.config == network.config
    image = random_image(network)
    with torch.no_grad():
        for task, value in network(image).items():
            assert torch.equal(value, again(image)[task])
    with safe_open(str(path), 'pt') as file:
        assert file.metadata()['licence'] == 'Apache-2.0'


def test_shipped_weights_are_the_glasses_preset():
    network = checkpoint.load('glasses')
    assert network.config == PRESETS['glasses']
    assert network.config.tasks == tuple(TASKS)
    assert checkpoint.find('glasses').stat().st_size <= 25e6
    four = ('semseg', 'human_parts', 'saliency', 'normals')
    assert network.cost.dense(four) <= 1.5e9
    with safe_open(str(checkpoint.find('glasses')), 'pt') as file:
        assert 'licence' in file.metadata()


def test_presets_fit_together():
    for config in PRESETS.values():
        config.check()
        assert NetworkConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize('change, words', [
    ({'input_size': (100, 128)}, 'do not divide'), ({'window': (5, 8)}, 'do not divide'),
    ({'cells': ((6, 4), (3, 4), (3, 4), (2, 2))}, 'cells that lie in one window'),
    ({'heads': (1, 2)}, 'one entry a stage'), ({'outputs': {}}, 'at least one')])
def test_configuration_that_cannot_work(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PRESETS['glasses'], **change).check()


def test_damaged_files_say_so(tmp_path):
    path = tmp_path / 'model.safetensors'
    network = random_network('small')
    checkpoint.save(path, network)
    whole = path.read_bytes()
    with safe_open(str(path), 'pt') as file:
        metadata = file.metadata()
    for damage in (whole[:1000], whole[:len(whole) // 2], b'', b'x' * 4096):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match='damaged or was not written by adamtl_ros'):
            checkpoint.load(str(path))
    for tensors, notes in (
            ({'a': torch.zeros(1)}, metadata), ({'a': torch.zeros(1)}, {'format': 'x'}),
            ({'a': torch.zeros(1)}, {**metadata, 'config': '{"name": "x", "speed": 9}'}),
            ({'a': torch.zeros(1)}, {**metadata, 'config': 'nonsense'})):
        save_file(tensors, str(path), notes)
        with pytest.raises(ValueError, match='cannot load the weights'):
            checkpoint.load(str(path))

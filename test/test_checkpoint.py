# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights files: round trip, shipped weights, damage."""

from dataclasses import asdict
from dataclasses import replace
import json
import os
import re
import stat

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.config import read_config
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
    # And tell a frame without people.
    assert network.config == replace(PRESETS['glasses'], presence=True)
    assert network.config.tasks == tuple(TASKS)
    assert checkpoint.find('glasses').stat().st_size <= 25e6
    four = ('semseg', 'human_parts', 'saliency', 'normals')
    assert network.cost.dense(four) <= 1.5e9
    with safe_open(str(checkpoint.find('glasses')), 'pt') as file:
        notes = file.metadata()
        assert 'licence' in notes and not re.search(r'"/', notes['settings'])


def test_presets_fit_together():
    for config in PRESETS.values():
        config.check()
        assert read_config(config.to_json()) == config


@pytest.mark.parametrize('change, words', [
    ({'input_size': (100, 128)}, 'do not divide'), ({'window': (5, 8)}, 'do not divide'),
    ({'heads': (1, 2)}, 'one entry a stage'), ({'outputs': {}}, 'at least one'),
    ({'name': 3}, 'name 3: a text'), ({'policy': ('none',)}, 'policy .* choose one of'),
    ({'stem': 'cnv'}, "stem 'cnv': choose one of linear, conv"),
    ({'policy': 'task'}, "policy 'task': choose one of task_aware, task_agnostic, none"),
    ({'depths': (2, 2, 0, 2)}, 'depths .* whole numbers from 1 to'),
    ({'depths': (2, 2, 100, 2)}, 'depths .* from 1 to 99'), ({'depths': 3}, 'depths 3: whole'),
    ({'depths': ()}, 'depths'), ({'heads': (2, 4, 8, -16)}, 'heads .* whole numbers from 1'),
    ({'heads': (2, 4, 8.0, 16)}, 'heads'), ({'mlp_ratio': 0}, 'mlp_ratio 0: a whole number'),
    ({'mlp_ratio': 17}, 'from 1 to 16'), ({'mlp_ratio': True}, 'mlp_ratio True'),
    ({'embed_dim': '48'}, "embed_dim '48'"), ({'embed_dim': 10 ** 9}, 'from 1 to 4096'),
    ({'decoder_dim': 0}, 'decoder_dim 0'), ({'policy_hidden': -1}, 'policy_hidden -1'),
    ({'input_size': (192, 256, 3)}, 'two whole numbers'), ({'input_size': 192}, 'two whole'),
    ({'input_size': (10 ** 6, 256)}, 'from 1 to 8192'), ({'window': (0, 8)}, 'window .* from 1'),
    ({'linear_depth': 1}, 'linear_depth 1: true or false'),
    ({'linear_depth': None}, 'linear_depth'), ({'normals_axes': (1, 1)}, 'three signs'),
    ({'normals_axes': (1, 0, 1)}, 'three signs'), ({'normals_axes': (1,) * 4}, 'three signs'),
    ({'outputs': {'pose': 1}}, 'of the tasks'),
    ({'outputs': {'semseg': 3}}, 'semseg 3, with 18 names'),
    ({'outputs': {'semseg': 0}, 'classes': {'semseg': ()}}, 'one output a class'),
    ({'outputs': {'semseg': 1}, 'classes': {}}, 'with 0 names'),
    ({'outputs': {'semseg': 1}, 'classes': {'semseg': (3,)}}, 'one output a class'),
    ({'outputs': {'depth': 2}}, 'depth 2: it has 1'), ({'outputs': {'depth': '1'}}, 'it has 1'),
    ({'outputs': {'depth': True}}, 'depth True')])
def test_configuration_that_cannot_work(tmp_path, change, words):
    config = replace(PRESETS['swin_tiny'], **change)
    with pytest.raises(ValueError, match=words):
        config.check()
    # Nor does it come in with a file.
    path = tmp_path / 'model.safetensors'
    save_file({'a': torch.zeros(1)}, path, {
        'format': checkpoint.FORMAT, 'config': json.dumps(asdict(config))})
    with pytest.raises(ValueError, match=f'cannot load the weights .*{words}'):
        checkpoint.read(str(path))


def test_a_configuration_that_is_no_mapping_is_refused():
    for text in ('3', '[]', '{"name": "x", "cells": [[3, 4]]}', '{"depths": [2]}'):
        with pytest.raises(ValueError, match='not one of an adamtl_ros network'):
            read_config(text)
    for classes in ('3', '[["a"]]', '{"semseg": 4}'):
        with pytest.raises(ValueError, match='names of classes'):
            read_config(f'{{"name": "x", "classes": {classes}}}')


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


@pytest.mark.parametrize('mask', [0o022, 0o077])
def test_the_umask_decides_who_may_read_weights(tmp_path, mask):
    """Whoever trains for others must not have to think of it."""
    path = tmp_path / 'model.safetensors'
    before = os.umask(mask)
    try:
        checkpoint.save(path, random_network('small'))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Precision int8: its ranges are used, kept with the weights, or refused."""

from itertools import islice
import json

import numpy as np
import pytest

pytest.importorskip('openvino', reason="pip install 'adamtl_ros[openvino]'")

from adamtl_ros.network import checkpoint  # noqa: E402
from adamtl_ros.runtime import int8  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.runtime.openvino_backend import OpenVinoBackend  # noqa: E402
from adamtl_ros.runtime.settings import Settings  # noqa: E402
from adamtl_ros.sources import DEMO  # noqa: E402
from adamtl_ros.sources import open_source  # noqa: E402
from networks import random_network  # noqa: E402


@pytest.fixture(scope='module')
def engines() -> tuple[Engine, Engine]:
    """Return the shipped model in f32 and in int8."""
    return Engine(backend='openvino'), Engine(backend='openvino', precision='int8')


@pytest.mark.parametrize('settings', [
    {'mode': 'static'}, {'mode': 'adaptive', 'budget': 1.0}, {'mode': 'adaptive', 'budget': 0.5}])
def test_the_shipped_model_is_close_to_f32(engines, settings):
    chosen = Settings(tasks=engines[0].tasks, raw=True, output_size='network', **settings)
    for frame in islice(open_source(DEMO).read(), 0, 30, 10):
        exact, rounded = (engine.infer(frame.image, chosen) for engine in engines)
        assert rounded.stats.budget_achieved == pytest.approx(
                exact.stats.budget_achieved, abs=0.01)
        for task, value in exact.raw.items():
            difference = np.abs(rounded.raw[task] - value).mean() / np.abs(value).mean()
            assert 1e-4 < difference < (0.15 if chosen.budget == 1.0 else 0.5), task


def test_dense_and_open_gates_agree(engines):
    engine = engines[1]
    frame = next(iter(open_source(DEMO).read())).image
    dense, adaptive = (
        engine.infer(frame, Settings(mode, 1.0, engine.tasks, raw=True)).raw
        for mode in ('static', 'adaptive'))
    for task, value in dense.items():
        assert np.abs(adaptive[task] - value).mean() < 0.02 * np.abs(value).mean()


def test_ranges_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / 'small.safetensors'
    checkpoint.save(path, random_network('small'))
    with pytest.raises(ValueError, match='has no ranges.*adamtl quantize'):
        Engine(str(path), backend='openvino', precision='int8')
    ranges = int8.write(str(path), {'encoder.stages.0.blocks.0.mlp.0': (-4.0, 4.0)})
    assert int8.read(str(path)) == {'encoder.stages.0.blocks.0.mlp.0': (-4.0, 4.0)}
    ranges.write_text('{"weights": 1, "ranges": {"a": 3}}')
    with pytest.raises(ValueError, match='damaged.*adamtl quantize'):
        int8.read(str(path))
    int8.write(str(path), {})
    checkpoint.save(path, random_network('small', seed=1))
    with pytest.raises(ValueError, match='of other weights.*adamtl quantize'):
        Engine(str(path), backend='openvino', precision='int8')


def test_torch_refuses_it():
    with pytest.raises(ValueError, match="'int8': the backend torch has f32 alone"):
        Engine(backend='torch', precision='int8')


def test_quantize_makes_ranges_that_run(tmp_path, capsys):
    pytest.importorskip('nncf', reason="pip install 'adamtl_ros[int8]'")
    from adamtl_ros.quantize import main

    path = tmp_path / 'small.safetensors'
    checkpoint.save(path, random_network('small'))
    assert main([str(path), '--source', str(tmp_path / 'absent')]) == 2
    assert main([str(path), '--source', str(DEMO), '--frames', '0']) == 2
    assert not int8.path_of(str(path)).exists()
    assert main([str(path), '--source', str(DEMO), '--frames', '4', '--every', '8']) == 0
    found = json.loads(int8.path_of(str(path)).read_text())['ranges']
    for layer in ('attn.qkv', 'attn.proj', 'mlp.0', 'mlp.2'):
        low, high = found[f'encoder.stages.1.blocks.1.{layer}']
        assert low < 0 < high
    assert not any(name.startswith('encoder.stem') for name in found)
    backend = OpenVinoBackend(str(path), precision='int8')
    image = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    exact = OpenVinoBackend(str(path)).dense(image, ('semseg',))[0]['semseg']
    rounded = backend.dense(image, ('semseg',))[0]['semseg']
    assert 1e-4 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.3

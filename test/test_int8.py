# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Precision int8: its ranges are used, kept with the weights, or refused."""

from itertools import islice
import json
import math

import numpy as np
import pytest

pytest.importorskip('openvino', reason="pip install 'adamtl_ros[openvino]'")

import openvino as ov  # noqa: E402
import openvino.opset13 as ops  # noqa: E402

from adamtl_ros.network import checkpoint  # noqa: E402
from adamtl_ros.runtime import int8  # noqa: E402
from adamtl_ros.runtime.backends import openvino_backend  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.runtime.graphs import Graphs
from adamtl_ros.runtime.lite_graphs import LiteGraphs  # noqa: E402
from adamtl_ros.runtime.settings import Settings  # noqa: E402
from adamtl_ros.sources import DEMO  # noqa: E402
from adamtl_ros.sources import open_source  # noqa: E402
from networks import random_network  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def engines() -> tuple[Engine, Engine]:
    """Return the shipped model in f32 and in int8."""
    return Engine(backend='openvino'), Engine(backend='openvino', precision='int8')


@pytest.mark.parametrize('settings', [
    {'mode': 'static'}, {'mode': 'adaptive', 'budget': 1.0}, {'mode': 'adaptive', 'budget': 0.5}])
def test_the_shipped_model_is_close_to_f32(engines, settings):
    # Whether anybody is there is a matter of yes and no: rounding may turn it.
    chosen = Settings(
        tasks=engines[0].tasks, raw=True, output_size='network', skip_empty=False, **settings)
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
        engine.infer(
            frame, Settings(mode, 1.0, engine.tasks, raw=True, skip_empty=False)).raw
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
    from adamtl_ros.commands.quantize import main

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
    backend = openvino_backend(str(path), precision='int8')
    image = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    exact = openvino_backend(str(path)).dense(image, ('semseg',))[0]['semseg']
    rounded = backend.dense(image, ('semseg',))[0]['semseg']
    assert 1e-4 < np.abs(rounded - exact).mean() / np.abs(exact).mean() < 0.3


def layers_of(graphs: Graphs | LiteGraphs) -> dict[str, list]:
    """Return, by name, the layers with weights of their own, controllers not included."""
    config = graphs.config
    models = [graphs.encoder(), graphs.outputs(config.tasks)] if isinstance(
        graphs, LiteGraphs) else [
            graphs.stem(), *map(graphs.decoder, config.tasks), *(
                graphs.dense(stage) for stage in range(len(config.depths)))]
    return {
        node.get_friendly_name(): [value.get_node().get_type_name() for value in (
            node.input_values())]
        for model in models for node in model.get_ordered_ops()
        if node.get_type_name() in ('MatMul', 'Convolution', 'GroupConvolution')}


@pytest.mark.parametrize('name', ['glasses', 'small'])
def test_every_layer_with_a_range_is_rounded(name):
    network = random_network(name)
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    kind = LiteGraphs if network.config.kind == 'lite' else Graphs
    exact = layers_of(kind(network.config, weights))
    assert any(layer.endswith(('segment.3', '.out')) for layer in exact)
    assert not any('FakeQuantize' in types for types in exact.values())
    ranges = dict.fromkeys(exact, (-4.0, 4.0))
    for layer, types in layers_of(kind(network.config, weights, ranges)).items():
        assert types == ['FakeQuantize', 'FakeQuantize'], layer


def test_the_range_of_a_layer_is_that_of_its_input_wherever_its_weights_are():
    pytest.importorskip('nncf', reason="pip install 'adamtl_ros[int8]'")
    from adamtl_ros.commands.quantize import ranges

    x = ops.parameter([4, 8], np.float32)
    weights = ops.constant(np.full((3, 8), 0.01, np.float32))
    first = ops.matmul(x, weights, False, True, name='input first')
    last = ops.matmul(weights, x, False, True, name='weights first')
    model = ov.Model([ops.result(first), ops.result(last)], [x], 'two')
    found = ranges(model, [np.linspace(-2, 3, 32, dtype=np.float32).reshape(4, 8)] * 4)
    assert found.keys() == {'input first', 'weights first'}
    for low, high in found.values():
        assert low == pytest.approx(-2, abs=0.1) and high == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize('given, words', [
    ([-0.1, 0.2], ''), ([-0.1, -0.7, 0.2], '-0.70 %'), ([math.nan, 0.1], 'cannot be told'),
    ([0.1, math.nan], 'cannot be told'), ([-0.7, math.nan], 'cannot be told')])
def test_the_check_passes_nothing_that_is_no_number(tmp_path, monkeypatch, capsys, given, words):
    from adamtl_ros.commands import quantize

    path = tmp_path / 'small.safetensors'
    checkpoint.save(path, random_network('small'))
    report = {
        'dataset': 'some', 'frames': 1, 'headline': {}, 'rows': [{
            'mode': 'static', 'budget': None, 'achieved': 1.0, 'gmacs': 1.0, 'tasks': {},
            'left_out': [], 'delta_m': value} for value in given]}
    monkeypatch.setattr(quantize, 'calibrate', lambda *_: {})
    monkeypatch.setattr(quantize, 'check', lambda *_: report)
    assert quantize.main([
        str(path), '--source', str(DEMO), '--frames', '1', '--check', 'some']) == bool(words)
    assert words in capsys.readouterr().err

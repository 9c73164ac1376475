# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The engine: outputs, extras, settings and errors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from adamtl_ros.bag.measures import Difference
from adamtl_ros.drawing import overlay
from adamtl_ros.network import checkpoint
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.processes import processors
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.images import published_images
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.torch_backend import TorchBackend
from adamtl_ros.tasks import TASKS
from networks import CONFIGS
from networks import random_network


@pytest.fixture(scope='module')
def model(weights):
    return weights


def image(height=97, width=161, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('size, shape', [('network', (160, 288)), ('camera', (97, 161))])
def test_outputs_are_as_published(engine, size, shape):
    settings = Settings(
        mode='adaptive', budget=0.5, tasks=engine.tasks, output_size=size, confidence=True,
        gating_map=True, raw=True)
    result = engine.infer(image(), settings)
    assert tuple(result.outputs) == engine.tasks == tuple(TASKS)
    for task in ('semseg', 'human_parts'):
        assert result.outputs[task].dtype == np.uint8 and result.outputs[task].shape == shape
        assert result.outputs[task].max() < len(engine.class_names[task])
    for task in ('saliency', 'edges'):
        assert result.outputs[task].dtype == np.float32 and result.outputs[task].shape == shape
        assert 0 <= result.outputs[task].min() <= result.outputs[task].max() <= 1
    assert result.outputs['depth'].min() > 0
    normals = result.outputs['normals']
    assert normals.shape == (*shape, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert result.confidence['semseg'].shape == result.gating_map.shape == shape
    # The decoders' own outputs are of the size at which the frame ran.
    assert result.raw['semseg'].shape == (18, *(side // 4 for side in result.stats.size[::-1]))
    if size == 'network':
        large = cv2.resize(result.raw['semseg'].transpose(1, 2, 0), (288, 160))
        np.testing.assert_array_equal(large.argmax(-1), result.outputs['semseg'])


def test_statistics_belong_together(engine):
    stats = engine.infer(image(), Settings(
        mode='adaptive', budget=0.6, tasks=('depth', 'semseg'), gating_map=True)).stats
    assert stats.tasks == ('semseg', 'depth')
    assert stats.budget_requested == 0.6
    assert stats.budget_achieved == pytest.approx(stats.gmacs / stats.gmacs_dense)
    assert len(stats.task_token_fraction) == 2
    assert len(stats.block_active) == len(stats.token_fraction) == 10
    for active, fraction in zip(stats.block_active, stats.token_fraction):
        assert active == float(fraction > 0)
    assert np.isnan(stats.agreement)


def test_static_ignores_the_policy(engine):
    result = engine.infer(image(), Settings(budget=0.3, tasks=engine.tasks, gating_map=True))
    assert result.stats.budget_achieved == 1.0
    assert (result.gating_map == 255).all()
    assert set(result.stats.block_active) == {1.0}


def test_each_mode_compares_when_told_to(engine):
    settings = {'budget': 0.5, 'tasks': engine.tasks}
    shadow = engine.infer(image(), Settings(mode='shadow', **settings))
    unchecked = engine.infer(image(), Settings(mode='shadow', compare=False, **settings))
    adaptive = engine.infer(image(), Settings(mode='adaptive', **settings))
    checked = engine.infer(image(), Settings(mode='adaptive', compare=True, **settings))
    assert np.isnan(unchecked.stats.agreement) and np.isnan(unchecked.stats.budget_achieved)
    assert unchecked.stats.token_fraction == ()
    # Where the policy did not run there is nothing to draw; where it did, what it would have run.
    maps = [engine.infer(image(), Settings(
        mode=mode, gating_map=True, compare=compare, **settings)).gating_map
        for mode, compare in (('shadow', False), ('shadow', True), ('adaptive', False))]
    assert maps[0] is None and maps[1].any()
    np.testing.assert_array_equal(maps[1], maps[2])
    assert np.isnan(adaptive.stats.agreement) and not adaptive.stats.task_agreement
    assert checked.stats.task_agreement == shadow.stats.task_agreement
    assert checked.stats.budget_achieved == adaptive.stats.budget_achieved
    for task in engine.tasks:
        np.testing.assert_array_equal(unchecked.outputs[task], shadow.outputs[task])
        np.testing.assert_array_equal(checked.outputs[task], adaptive.outputs[task])


def test_shadow_publishes_dense_and_reports_the_policy(engine):
    settings = {'budget': 0.5, 'tasks': engine.tasks}
    static = engine.infer(image(), Settings(mode='static', **settings))
    shadow = engine.infer(image(), Settings(mode='shadow', **settings))
    adaptive = engine.infer(image(), Settings(mode='adaptive', **settings))
    for task in engine.tasks:
        np.testing.assert_array_equal(shadow.outputs[task], static.outputs[task])
        assert shadow.stats.task_agreement[task] == pytest.approx(
            agreement(task, static.outputs[task], adaptive.outputs[task]))
    assert shadow.stats.gmacs == adaptive.stats.gmacs
    assert shadow.stats.token_fraction == adaptive.stats.token_fraction
    assert shadow.stats.agreement == pytest.approx(
        np.mean(list(shadow.stats.task_agreement.values())))
    assert shadow.stats.agreement < 1


def test_nothing_wanted_nothing_computed(engine, monkeypatch):
    def fail(*_):
        raise AssertionError('the network ran')
    monkeypatch.setattr(engine._backend, 'dense', fail)
    monkeypatch.setattr(engine._backend, 'adaptive', fail)
    result = engine.infer(image(), Settings(mode='shadow', gating_map=True))
    assert result.outputs == {} and result.stats.gmacs == 0 and not result.gating_map.any()


def test_gating_map_shows_where_blocks_ran(engine):
    full = engine.infer(image(), Settings(tasks=engine.tasks, gating_map=True)).gating_map
    half = engine.infer(
        image(), Settings(mode='adaptive', budget=0.5, tasks=engine.tasks, gating_map=True))
    # What is left beside the encoder's blocks is a small part of the cost.
    assert full.mean() == 255 and 0.3 < half.gating_map.mean() / 255 < 0.55


@pytest.mark.parametrize('bad', [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
    np.zeros((4, 4, 3), np.float32)])
def test_bad_image(engine, bad):
    with pytest.raises(ValueError, match='expected uint8'):
        engine.infer(bad, Settings(tasks=engine.tasks))


@pytest.mark.parametrize('budget', [0, -0.1, 1.5, float('nan'), float('inf'), 'half'])
def test_bad_budget(budget):
    with pytest.raises(ValueError, match='share of the dense cost'):
        Settings(budget=budget)


@pytest.mark.parametrize('field, value, words', [
    ('mode', 'turbo', 'static, shadow, adaptive'), ('tasks', ('pose',), 'unknown task .pose.'),
    ('output_size', 'huge', 'network, camera'), ('weights', {'depth': 11.0}, 'from 0 to 10'),
    ('weights', {'depth': float('nan')}, 'from 0 to 10'), ('weights', {'x': 1.0}, 'unknown task')])
def test_bad_settings(field, value, words):
    with pytest.raises(ValueError, match=words):
        Settings(**{field: value})


def test_bad_engine_arguments(model):
    with pytest.raises(FileNotFoundError, match='preset'):
        Engine('sunglasses')
    with pytest.raises(FileNotFoundError, match='no weights in this package'):
        Engine('swin_base')
    with pytest.raises(ValueError, match='auto, torch'):
        Engine(model, backend='tensorrt')
    for device in ('tpu', 'cuda:x', 'cpu:1'):
        with pytest.raises(ValueError, match='cpu, cuda or cuda:N'):
            Engine(model, device=device)
    with pytest.raises(ValueError, match='num_threads'):
        Engine(model, num_threads=-1)
    for backend in ('torch', 'auto'):
        most = len(processors())
        for number in (most + 1, 1000):
            with pytest.raises(ValueError, match=f'num_threads {number}: .*to {most}'):
                Engine(model, backend=backend, num_threads=number)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='not there'):
            Engine(model, device='cuda')


def test_threads_take_turns(engine):
    """Each gets the results of its own frames, to the bit, as one thread alone does."""
    frames = [np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
              for seed in range(4)]
    settings = [Settings(mode, 0.5, engine.tasks, gating_map=True)
                for mode in ('static', 'adaptive')]
    jobs = [(frame, each) for frame in frames for each in settings]

    def results(job):
        result = engine.infer(*job)
        return [*result.outputs.values(), result.gating_map]

    expected = [results(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(results, jobs * 5), expected * 5):
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_task_that_the_model_lacks(tmp_path):
    path = tmp_path / 'small.safetensors'
    checkpoint.save(path, random_network('small'))
    small = Engine(str(path))
    assert 'depth' not in small.tasks
    with pytest.raises(ValueError, match="has no task 'depth'"):
        small.infer(image(), Settings(tasks=('depth',)))


@pytest.mark.parametrize('height, width', [
    (480, 640), (576, 768), (1080, 1920), (192, 256), (97, 161), (2000, 300), (385, 515)])
def test_shrinking_averages(height, width):
    """Fine stripes become their mean, wherever they lie, and coarse structure stays in place."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), (width, height))
    fine = coarse.astype(np.int16) + np.where(np.arange(width) % 2, 50, -50)[None, :, None]
    one = shrink(np.clip(fine, 0, 255).astype(np.uint8), (256, 192)).astype(int)
    assert one.shape == (192, 256, 3)
    wanted = cv2.resize(coarse, (256, 192), interpolation=cv2.INTER_AREA)
    # Three stripes leave a third; with less than two pixels to average, they hardly fade.
    limit = 20 if min(width / 256, height / 192) >= 2 else 60
    assert np.abs(one - wanted).mean() < limit


@pytest.mark.parametrize('name', ['glasses', 'small'])
def test_the_torch_backend_computes_what_the_network_does(tmp_path, name):
    """Its decoders have their batch norms in the weights of the convolutions."""
    path = tmp_path / 'random.safetensors'
    checkpoint.save(path, random_network(name))
    backend, network = TorchBackend(str(path)), checkpoint.load(str(path))
    norms = [each for each in backend._network.modules() if isinstance(
        each, torch.nn.BatchNorm2d)]
    assert len(norms) < len([each for each in network.modules() if isinstance(
        each, torch.nn.BatchNorm2d)])
    pixels = image(*network.config.input_size)
    with torch.no_grad():
        expected = network(network.inputs(torch.from_numpy(pixels)[None]))
    logits, _ = backend.dense(pixels, network.config.tasks)
    for task, value in expected.items():
        np.testing.assert_allclose(
            logits[task], value[0].numpy(), atol=1e-4 * float(value.abs().max()))


@pytest.fixture(scope='module', params=['torch', 'openvino'])
def many(tmp_path_factory, request):
    """Return the engine of a network with 300 classes."""
    if request.param == 'openvino':
        pytest.importorskip('openvino')
    names = tuple(f'class {number}' for number in range(300))
    config = replace(
        CONFIGS['small'], outputs={'semseg': 300}, classes={'semseg': names})
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('many') / 'many.safetensors'
    network = AdaMTL(config)
    with torch.no_grad():
        network.decoders['semseg'].segment[3].bias[:290] = -100.0
    checkpoint.save(path, network)
    return Engine(str(path), backend=request.param)


@pytest.mark.slow
def test_more_classes_than_8_bits_tell(many):
    """Frames are answered, in 16 bits, at either size, and drawn, and compared."""
    for size, shape in (('network', (112, 112)), ('camera', (97, 161))):
        result = many.infer(image(), Settings(
            mode='shadow', budget=0.5, tasks=many.tasks, output_size=size, confidence=True))
        ids = result.outputs['semseg']
        assert ids.dtype == np.uint16 and ids.shape == shape
        assert ids.min() >= 290 and ids.max() < 300
        assert [(name, encoding) for name, _, encoding in published_images(result)] == [
            ('semseg', 'mono16'), ('semseg/confidence', 'mono8')]
        assert 0 <= result.stats.agreement <= 1
        assert overlay(image(), result.outputs).shape == (97, 161, 3)
        difference = Difference({'semseg': 300})
        assert difference.update(result.outputs, result.outputs) == {'semseg': 1.0}
        assert difference.compute()['semseg']['miou'] == 1.0

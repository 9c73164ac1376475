# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The OpenVINO backend against torch, on random weights; and what it may need."""

from itertools import combinations
import subprocess
import sys

import numpy as np
import pytest

ov = pytest.importorskip('openvino', reason="pip install 'adamtl_ros[openvino]'")

from adamtl_ros.network import checkpoint  # noqa: E402
from adamtl_ros.processes import processors  # noqa: E402
from adamtl_ros.runtime import openvino_backend as swin_backend  # noqa: E402
from adamtl_ros.runtime import openvino_parts  # noqa: E402
from adamtl_ros.runtime.backends import Backend  # noqa: E402
from adamtl_ros.runtime.backends import openvino_backend  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.runtime.settings import Settings  # noqa: E402
from adamtl_ros.runtime.torch_backend import TorchBackend  # noqa: E402
from networks import CONFIGS  # noqa: E402
from networks import random_network  # noqa: E402


def pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return uint8 (*size, 3) of coarse random structure."""
    coarse = np.random.default_rng(seed).integers(0, 255, (size[0] // 16, size[1] // 16, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)


@pytest.fixture(scope='module', params=CONFIGS)
def pair(request, tmp_path_factory) -> tuple[Backend, TorchBackend]:
    """Return the same random network in both backends."""
    path = tmp_path_factory.mktemp('weights') / f'{request.param}.safetensors'
    checkpoint.save(path, random_network(request.param), half=False)
    return openvino_backend(str(path)), TorchBackend(str(path))


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Check that outputs agree to 1e-3 of their largest value."""
    assert list(one) == list(other)
    for task, value in one.items():
        assert value.shape == other[task].shape
        assert np.abs(value - other[task]).max() < 1e-3 * np.abs(other[task]).max()


def test_dense_agrees_with_torch(pair):
    image = pixels(pair[0].config.input_size)
    (one, trace), (other, wanted) = (
        backend.dense(image, backend.config.tasks) for backend in pair)
    close(one, other)
    assert trace.macs == wanted.macs


@pytest.mark.parametrize('budget', [1.0, 0.7, 0.45, 0.3])
@pytest.mark.parametrize('tasks', [None, ('normals',)])
def test_adaptive_agrees_with_torch(pair, budget, tasks):
    config = pair[0].config
    for seed in range(2):
        image = pixels(config.input_size, seed)
        (one, trace), (other, wanted) = (
            backend.adaptive(image, tasks or config.tasks, budget, {'normals': 2.0})
            for backend in pair)
        for gates, expected in zip(trace.gates, wanted.gates):
            np.testing.assert_array_equal(gates, expected)
        assert trace.macs == wanted.macs
        close(one, other)


@pytest.mark.slow
def test_any_set_of_tasks_agrees_with_torch(pair):
    """The controllers of more sets than stay compiled, and of the first one again."""
    config = pair[0].config
    image = pixels(config.input_size)
    sets = list(combinations(config.tasks, 2))[:swin_backend.KEPT + 1]
    for tasks in (*sets, sets[0]):
        (one, trace), (other, wanted) = (
            backend.adaptive(image, tasks, 0.6, {}) for backend in pair)
        assert trace.macs == wanted.macs
        assert trace.task_fraction == pytest.approx(wanted.task_fraction)
        close(one, other)


def test_the_same_frame_gives_the_same_bits(pair):
    backend, image = pair[0], pixels(pair[0].config.input_size)
    first, _ = backend.adaptive(image, backend.config.tasks, 0.6, {})
    backend.adaptive(pixels(backend.config.input_size, 7), backend.config.tasks, 0.9, {})
    again, _ = backend.adaptive(image, backend.config.tasks, 0.6, {})
    for task, value in first.items():
        np.testing.assert_array_equal(value, again[task])


def test_it_needs_no_torch(tmp_path):
    code = (
        'import sys, numpy as np\n'
        'from adamtl_ros.runtime.engine import Engine\n'
        'from adamtl_ros.runtime.settings import Settings\n'
        'engine = Engine("glasses")\n'
        'assert engine.backend == "openvino"\n'
        'image = np.zeros((48, 64, 3), np.uint8)\n'
        'for mode in ("static", "shadow", "adaptive"):\n'
        '    settings = Settings(mode, 0.5, engine.tasks, confidence=True, gating_map=True)\n'
        '    assert engine.infer(image, settings).outputs.keys() == set(engine.tasks)\n'
        'assert "torch" not in sys.modules\n')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


@pytest.mark.slow
def test_a_cache_that_cannot_be_used_is_done_without(tmp_path):
    path = tmp_path / 'lite.safetensors'
    checkpoint.save(path, random_network('lite'))
    blocked = tmp_path / 'file'
    blocked.write_text('in the way')
    image = pixels((64, 96))
    expected = openvino_backend(str(path), folder=blocked).dense(image, ('semseg',))[0]
    below = openvino_backend(str(path), folder=blocked / 'folder').dense(image, ('semseg',))[0]
    close(below, expected)
    cache = tmp_path / 'cache'
    openvino_backend(str(path), folder=cache).dense(image, ('semseg',))
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:1000])  # as a full disk leaves it
    close(openvino_backend(str(path), folder=cache).dense(image, ('semseg',))[0], expected)


@pytest.mark.slow
def test_the_one_pool_of_threads_is_left_where_it_cannot_be_used(tmp_path, monkeypatch):
    path = tmp_path / 'lite.safetensors'
    checkpoint.save(path, random_network('lite'))
    image, compile_model = pixels((64, 96)), ov.Core.compile_model
    expected = openvino_backend(str(path)).dense(image, ('semseg',))[0]
    given = []

    def without(core, model, device, options):
        given.append(dict(options))
        if not_known and openvino_parts.ONE_POOL in options:
            raise RuntimeError('Unsupported property')
        return compile_model(core, model, device, options)

    monkeypatch.setattr(ov.Core, 'compile_model', without)
    for not_known, threads in ((True, 0), (False, 1)):
        found = openvino_backend(str(path), num_threads=threads).dense(image, ('semseg',))[0]
        close(found, expected)
        # Its threads are as many as there are processors, whatever was asked for.
        pooled = threads == len(processors()) and not not_known
        assert (openvino_parts.ONE_POOL in given[-1]) == pooled


@pytest.mark.slow
def test_signals_are_survived_after_another_thread_let_it_go(tmp_path):
    path = tmp_path / 'lite.safetensors'
    checkpoint.save(path, random_network('lite'))
    code = (
        'import os, signal, sys, threading\n'
        'from adamtl_ros.runtime.backends import openvino_backend\n'
        'heard = []\n'
        'signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))\n'
        'for _ in range(3):\n'
        f'    held = [openvino_backend({str(path)!r})]\n'
        '    thread = threading.Thread(target=held.clear)\n'
        '    thread.start()\n'
        '    thread.join()\n'
        '    os.kill(os.getpid(), signal.SIGUSR1)\n'
        'assert len(heard) == 3\n')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


@pytest.mark.slow
def test_compiled_models_are_kept(tmp_path):
    path = tmp_path / 'lite.safetensors'
    checkpoint.save(path, random_network('lite'))
    image = pixels((64, 96))
    first = openvino_backend(str(path), folder=tmp_path / 'cache')
    first.adaptive(image, ('semseg',), 0.6, {})
    kept = sorted(file.name for file in (tmp_path / 'cache').iterdir())
    assert kept
    second = openvino_backend(str(path), folder=tmp_path / 'cache')
    second.adaptive(image, ('semseg',), 0.6, {})
    assert kept == sorted(file.name for file in (tmp_path / 'cache').iterdir())
    close(first.dense(image, ('semseg',))[0], second.dense(image, ('semseg',))[0])
    # Other weights are another content.
    checkpoint.save(path, random_network('lite', seed=1))
    third = openvino_backend(str(path), folder=tmp_path / 'cache')
    difference = third.dense(image, ('semseg',))[0]['semseg'] - first.dense(
        image, ('semseg',))[0]['semseg']
    assert np.abs(difference).max() > 0.01


def test_what_it_cannot_do_is_refused(tmp_path):
    path = tmp_path / 'small.safetensors'
    checkpoint.save(path, random_network('small'))
    with pytest.raises(ValueError, match="openvino runs on 'cpu' alone"):
        Engine(str(path), backend='openvino', device='cuda')
    with pytest.raises(ValueError, match='torch has f32 alone'):
        Engine(str(path), backend='torch', precision='bf16')
    with pytest.raises(ValueError, match='f32, bf16, int8'):
        Engine(str(path), precision='fp8')
    assert Engine(str(path), backend='torch').backend == 'torch'
    engine = Engine(str(path))
    with pytest.raises(ValueError, match='has no task'):
        engine.infer(pixels((112, 112)), Settings(tasks=('depth',)))

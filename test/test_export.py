# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl export`: files that other runtimes read, and that give what torch gives."""

from dataclasses import replace
import hashlib
import json

import numpy as np
import pytest

from adamtl_ros import cli
from adamtl_ros.commands import export
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from networks import CONFIGS
from networks import random_network

pytest.importorskip('openvino', reason='pip install openvino')
pytest.importorskip('onnxscript', reason='pip install onnx onnxscript')

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'small.safetensors'
    # Each layer costs the exporter seconds: here two blocks, one in windows that are shifted.
    checkpoint.save(path, random_network(replace(CONFIGS['small'], depths=(2,), heads=(1,))))
    return str(path)


def test_both_formats_give_what_the_engine_gives(tmp_path, model, capsys):
    out = tmp_path / 'exported'
    assert cli.main([
        'export', '--model', model, '--tasks', 'saliency,semseg', '--frames', '2', '--out',
        str(out)]) == 0
    manifest = json.loads((out / 'manifest.json').read_text())
    assert sorted(file.name for file in out.iterdir()) == [
        'manifest.json', 'network.bin', 'network.onnx', 'network.xml']
    for each in manifest['files'].values():
        assert max(each['difference'].values()) <= manifest['limit'] == 1e-4
        for name, digest in each['sha256'].items():
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert [each['name'] for each in manifest['outputs']] == ['semseg', 'saliency']
    assert len(manifest['outputs'][0]['class_names']) == manifest['outputs'][0]['shape'][1]

    # A picture that the export has not seen, against the engine from the picture on.
    engine = Engine(model, backend='torch')
    shape = manifest['input']['shape']
    picture = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    wanted = engine.infer(picture[0], Settings(tasks=('semseg', 'saliency'), raw=True))
    assert manifest['gmacs'] == pytest.approx(wanted.stats.gmacs_dense)
    for name in ('network.onnx', 'network.xml'):
        found = export.openvino_run(out / name)[1](picture)
        for task, value in wanted.raw.items():
            assert found[task].shape[1:] == value.shape
            assert np.abs(found[task][0] - value).max() <= 1e-4 * np.abs(value).max()
    assert 'network.onnx' in capsys.readouterr().out


def test_what_differs_is_not_written(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr(export, 'LIMIT', -1.0)
    out = tmp_path / 'exported'
    assert cli.main(['export', '--model', model, '--format', 'openvino', '--out', str(out)]) == 2
    assert 'differs from torch' in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--frames', '0'], '--frames 0'), (['--tasks', 'pose'], "unknown task 'pose'"),
    (['--model', 'nothing'], "no model 'nothing'"), (['--source', 'nowhere'], 'nowhere')])
def test_bad_arguments_say_so(tmp_path, model, arguments, message, capsys):
    assert cli.main(
        ['export', '--model', model, '--out', str(tmp_path / 'out'), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_missing_packages_are_named(tmp_path, model, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'onnxscript', None)
    assert cli.main(['export', '--model', model, '--out', str(tmp_path / 'out')]) == 2
    assert 'pip install onnxscript' in capsys.readouterr().err

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl check` and `adamtl warm`: right numbers pass, wrong ones do not, and what is kept."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from adamtl_ros import cli
from adamtl_ros import reference
from adamtl_ros.commands import check
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from networks import random_network


@pytest.mark.slow
def test_shipped_reference_is_of_the_shipped_weights():
    """Weights that change need `adamtl check --write-reference`."""
    picture, expected, achieved = reference.read('glasses')
    found, cost = reference.outputs(Engine(backend='torch'), picture)
    assert reference.deviation(found, expected, 'f32')[0] <= reference.LIMITS['f32']
    assert cost == pytest.approx(achieved, abs=0.02) == pytest.approx(reference.BUDGET, abs=0.05)
    modes = {'static', 'adaptive'}
    assert expected.keys() == {f'{mode}.{task}' for mode in modes for task in Engine().tasks}


@pytest.mark.parametrize(('precision', 'change', 'limit'), [
    ('f32', 2e-3, 1e-3), ('bf16', 0.1, 0.05), ('int8', 0.3, 0.15)])
def test_deviation_is_seen(precision, change, limit):
    expected = {'static.depth': np.linspace(0.5, 1.0, 60, dtype=np.float32).reshape(1, 6, 10)}
    right = {'static.depth': expected['static.depth'] * np.float32(1 + limit / 10)}
    wrong = {'static.depth': expected['static.depth'] * np.float32(1 + change)}
    assert reference.deviation(right, expected, precision)[0] <= reference.LIMITS[precision]
    assert reference.deviation(wrong, expected, precision)[0] > reference.LIMITS[precision]
    for broken in ({}, {'static.depth': expected['static.depth'][:, 1:]},
                   {'static.depth': expected['static.depth'] * np.nan}):
        assert reference.deviation(broken, expected, precision) == (np.inf, 'static.depth')


@pytest.mark.slow
def test_page_of_a_machine_and_wrong_numbers(tmp_path, capsys, monkeypatch):
    """Once as it is, once with a reference that says otherwise."""
    monkeypatch.setattr(check, 'PROBES', (('torch', 'f32'),))
    path = tmp_path / 'model.safetensors'
    checkpoint.save(path, random_network('small'))
    page = tmp_path / 'page.json'
    arguments = ['check', '--model', str(path), '--json', str(page)]
    assert cli.main([*arguments, '--write-reference']) == 0
    assert reference.path_of(str(path)).is_file()

    code = cli.main(arguments)
    row, = json.loads(page.read_text())['network']
    assert row['deviation'] <= 1e-6 and row['static_ms'] > 0
    states = {line['state'] for line in json.loads(page.read_text())['lines']}
    assert code == int('bad' in states)
    text = capsys.readouterr().out
    assert 'torch f32' in text and 'right to' in text and 'machine' in text

    child = check._child
    monkeypatch.setattr(check, '_child', lambda arguments, extra: (  # DDS was asked above
        subprocess.CompletedProcess(arguments, 0, 'DDS', '') if arguments[0] == '-c'
        else child(arguments, extra)))
    picture, expected, _ = reference.read(str(path))
    expected['static.saliency'] *= 1.5
    with np.load(reference.path_of(str(path))) as file:
        kept = {name: file[name] for name in file.files}
    np.savez(reference.path_of(str(path)), **{**kept, **expected})
    assert cli.main(arguments) == 1
    assert 'WRONG: static.saliency' in capsys.readouterr().out

    checkpoint.save(path, random_network('small', seed=1))
    cli.main(arguments)
    assert 'of other weights' in capsys.readouterr().out


def test_crash_of_a_backend_is_a_finding(monkeypatch):
    monkeypatch.setattr(check, '_child', lambda arguments, extra: subprocess.CompletedProcess(
        arguments, -11, '', 'warning\n'))
    lines, rows = check.network('glasses', 'cpu', 0)
    crashed = [line for line in lines if line.state == 'bad']
    assert len(crashed) == len(rows) + 1  # and that nothing runs the model
    assert 'signal 11' in crashed[0].text
    monkeypatch.setattr(check, '_child', lambda arguments, extra: None)
    lines, _ = check.network('glasses', 'cpu', 0)
    assert 'no answer' in lines[0].text


def test_what_is_missing_names_its_remedy(monkeypatch):
    monkeypatch.setattr(check, 'lacking', lambda names: list(names))
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    bad = [line for line in check.packages() if line.state == 'bad']
    assert [line.remedy for line in bad] == [
        *(f'pip install {wheel}' for wheel, _ in check.NEEDED.values()), 'pip install openvino']
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert any('apt-get install python3-opencv' in line.remedy for line in check.packages())
    assert check.ros()[0].state == 'bad'


def test_shared_memory_that_is_too_small(monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=2**26))
    assert check.shared_memory()[0].state == 'note'
    assert 'shm-size' in check.shared_memory()[0].remedy


@pytest.mark.parametrize(('middleware', 'said'), [
    ('rmw_fastrtps_cpp', '/dev/shm'), ('rmw_cyclonedds_cpp', 'not counted'),
    ('rmw_zenoh_cpp', 'for Fast DDS alone')])
def test_page_says_what_does_not_hold_over_another_middleware(monkeypatch, middleware, said):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.setattr(check, 'lacking', lambda names: [])
    monkeypatch.setattr(check, '_child', lambda arguments, extra: subprocess.CompletedProcess(
        arguments, 0, f'{middleware}\n', ''))
    lines = check.ros()
    assert not any(line.state == 'bad' for line in lines)
    assert any(f'crosses {middleware}' in line.text for line in lines)
    assert any(said in line.text for line in lines)
    assert any('/dev/shm' in line.text for line in lines) == (middleware == 'rmw_fastrtps_cpp')


@pytest.mark.slow
def test_warm_leaves_nothing_to_compile(tmp_path, monkeypatch, capsys):
    pytest.importorskip('openvino', reason="pip install 'adamtl_ros[openvino]'")
    monkeypatch.setenv('ADAMTL_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'model.safetensors'
    checkpoint.save(path, random_network('small'))
    assert cli.main(['warm', '--model', str(path), '--backend', 'openvino']) == 0
    assert str(tmp_path / 'cache') in capsys.readouterr().out
    kept = {file.name for file in (tmp_path / 'cache').rglob('*')}
    assert any(name.startswith('latency') for name in kept)
    engine = Engine(str(path), backend='openvino')
    image = np.random.default_rng(1).integers(0, 255, (112, 112, 3), np.uint8)
    for budget in (1.0, 0.8, engine.min_budget(engine.tasks)):
        engine.infer(image, Settings('adaptive', budget, engine.tasks))
    engine.calibrate()
    assert {file.name for file in (tmp_path / 'cache').rglob('*')} == kept


@pytest.mark.slow
def test_warm_says_where_nothing_can_be_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('ADAMTL_CACHE', str(tmp_path / 'file' / 'cache'))
    path = tmp_path / 'model.safetensors'
    checkpoint.save(path, random_network('lite'))
    assert cli.main(['warm', '--model', str(path), '--backend', 'torch']) == 2
    assert 'nothing is kept' in capsys.readouterr().err

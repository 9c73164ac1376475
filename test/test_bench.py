# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bench`: what it reports, not how long things take."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from adamtl_ros import cli
from adamtl_ros.commands import bench
from adamtl_ros.runtime import device
from adamtl_ros.runtime import engine
from adamtl_ros.runtime.latency import processor


@pytest.mark.slow
def test_rows_of_static_and_every_budget(tmp_path, capsys):
    out = tmp_path / 'bench.json'
    assert cli.main([
        'bench', '--rounds', '3', '--warm-up', '1', '--budgets', '0.8,0.4', '--json', str(out),
        '--tasks', 'depth,semseg', '--backend', 'torch', '--reference', 'torch']) == 0
    figures = json.loads(out.read_text())
    assert figures['processor'] == processor() and figures['load'] >= 0
    assert figures['backend'] == 'torch' and figures['tasks'] == ['semseg', 'depth']
    assert [(row['mode'], row['budget']) for row in figures['rows']] == [
        ('static', None), ('adaptive', 0.8), ('stream', 0.8), ('adaptive', 0.4), ('stream', 0.4)]
    for row, achieved in zip(figures['rows'][::2] + figures['rows'][1::2], (
            1.0, 0.8, 0.4, 0.729, 0.4)):
        # Of 0.8 the best size spends 0.729, all of its gates open; of a stream so short, the mean
        # is what key frames happened to be in it.
        assert row['achieved'] == pytest.approx(
            achieved, abs=0.4 if row['mode'] == 'stream' else 0.02)
        assert 0 < row['p50_ms'] <= row['p95_ms'] <= row['p99_ms'] and row['rss_mb'] > 50
        assert row['mean_ms'] > 0 < row['network_ms'] and row['ratio'] > 0
    assert figures['rows'][3]['gmacs'] < figures['rows'][1]['gmacs'] < figures['rows'][0]['gmacs']
    assert figures['references'][0]['name'] == 'torch'
    assert 'adaptive' in capsys.readouterr().out


@pytest.mark.slow
def test_start_up_and_figure(weights, tmp_path):
    pytest.importorskip('matplotlib', reason="pip install 'adamtl_ros[plot]'")
    out, plot = tmp_path / 'bench.json', tmp_path / 'bench.png'
    assert cli.main(['bench', '--model', weights, '--rounds', '2', '--warm-up', '0',
                     '--budgets', '0.5', '--start-up', '--json', str(out), '--figure',
                     str(plot)]) == 0
    assert json.loads(out.read_text())['start_up'].keys() == {'cold_s', 'warm_s'}
    assert plot.read_bytes()[:4] == b'\x89PNG'


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--budgets', '0.5,2'], "budget '2'"), (['--tasks', 'pose'], "unknown task 'pose'"),
    (['--rounds', '0'], '--rounds 0'), (['--turn', '0'], '--turn 0'),
    (['--source', 'nowhere'], 'nowhere'), (['--model', 'nothing'], "no model 'nothing'")])
def test_bad_arguments_say_so(arguments, message, capsys):
    assert cli.main(['bench', *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_references_keep_to_threads_and_device(weights, monkeypatch):
    torch.set_num_threads(2)
    bench.reference('torch', weights, ('depth',))
    assert torch.get_num_threads() == 2
    bench.reference('torch', weights, ('depth',), threads=1)()
    assert torch.get_num_threads() == 1
    with pytest.raises(ValueError, match="'tpu': choose cpu, cuda or cuda:N"):
        bench.reference('torch', weights, ('depth',), 'tpu')
    # Without a second device, one that has no memory shows where the network lies.
    monkeypatch.setattr(device, 'device', torch.device)
    assert bench.reference('torch', weights, ('depth',), 'meta')()[0].is_meta
    with pytest.raises(ValueError, match="openvino: it runs on 'cpu' alone, not on 'cuda'"):
        bench.reference('openvino', weights, ('depth',), 'cuda')


@pytest.mark.slow
@pytest.mark.parametrize('threads', [0, 1])
def test_the_reference_in_openvino_keeps_to_threads_and_prints_nothing(
        weights, monkeypatch, recwarn, capfd, threads):
    parts = pytest.importorskip('adamtl_ros.runtime.openvino_parts')
    core, compiled = parts.core(), []

    class Watched:
        def compile_model(self, *given):
            compiled.append(core.compile_model(*given))
            return compiled[-1]

    monkeypatch.setattr(parts, 'core', Watched)
    given = {'threads': threads} if threads else {}
    bench.reference('openvino', weights, ('depth',), **given)()
    found = compiled[0].get_property('INFERENCE_NUM_THREADS')
    assert found == 1 if threads else found >= 1
    assert not recwarn.list
    written = capfd.readouterr()
    assert written.out + written.err == ''


def test_a_start_is_that_of_the_engine_that_was_measured(monkeypatch, capsys):
    made, arguments = {}, []

    class Fake:
        tasks = ('depth',)

        def __init__(self, model, **given):
            made.update(given, model=model)

        def infer(self, image, settings):
            made['ran'] = settings.tasks

    def run(command, **_):
        arguments.append(command[3:])
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'argv', ['-c', *command[3:]])
            exec(command[2], {})
        return SimpleNamespace(stdout=capsys.readouterr().out)

    monkeypatch.setattr(engine, 'Engine', Fake)
    monkeypatch.setattr(bench.subprocess, 'run', run)
    taken = bench.start_up('mine', 'torch', 'cuda:1', 3, 'bf16')
    assert taken.keys() == {'cold_s', 'warm_s'} and len(arguments) == 2
    assert made == {'model': 'mine', 'backend': 'torch', 'device': 'cuda:1', 'num_threads': 3,
                    'precision': 'bf16', 'ran': ('depth',)}

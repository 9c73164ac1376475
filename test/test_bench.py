# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bench`: what it reports, not how long things take."""

import json

import pytest

from adamtl_ros import cli


def test_rows_of_static_and_every_budget(tmp_path, capsys):
    out = tmp_path / 'bench.json'
    assert cli.main([
        'bench', '--rounds', '3', '--warm-up', '1', '--budgets', '0.8,0.4', '--json', str(out),
        '--tasks', 'depth,semseg', '--backend', 'torch', '--reference', 'torch']) == 0
    figures = json.loads(out.read_text())
    assert figures['backend'] == 'torch' and figures['tasks'] == ['semseg', 'depth']
    assert [(row['mode'], row['budget']) for row in figures['rows']] == [
        ('static', None), ('adaptive', 0.8), ('adaptive', 0.4)]
    for row, achieved in zip(figures['rows'], (1.0, 0.8, 0.4)):
        assert row['achieved'] == pytest.approx(achieved, abs=0.02)
        assert 0 < row['p50_ms'] <= row['p95_ms'] <= row['p99_ms'] and row['rss_mb'] > 50
    assert figures['rows'][2]['gmacs'] < figures['rows'][1]['gmacs'] < figures['rows'][0]['gmacs']
    assert figures['references'][0]['name'] == 'torch'
    assert 'adaptive' in capsys.readouterr().out


def test_start_up_and_figure(tmp_path):
    pytest.importorskip('matplotlib', reason="pip install 'adamtl_ros[plot]'")
    out, plot = tmp_path / 'bench.json', tmp_path / 'bench.png'
    assert cli.main(['bench', '--rounds', '2', '--warm-up', '0', '--budgets', '0.5',
                     '--start-up', '--json', str(out), '--figure', str(plot)]) == 0
    assert json.loads(out.read_text())['start_up'].keys() == {'cold_s', 'warm_s'}
    assert plot.read_bytes()[:4] == b'\x89PNG'


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--budgets', '0.5,2'], 'budget 2.0'), (['--tasks', 'pose'], "unknown task 'pose'"),
    (['--rounds', '0'], '--rounds 0'), (['--turn', '0'], '--turn 0'),
    (['--source', 'nowhere'], 'nowhere'), (['--model', 'nothing'], "no model 'nothing'")])
def test_bad_arguments_say_so(arguments, message, capsys):
    assert cli.main(['bench', *arguments]) == 2
    assert message in capsys.readouterr().err

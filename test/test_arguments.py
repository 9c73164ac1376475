# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of every command: one line, exit code 2, and nothing that was there is lost."""

from importlib import import_module
import json
from pathlib import Path
import shutil

import pytest

from adamtl_ros import cli
from adamtl_ros.nodes.player import main as player
from adamtl_ros.sources import DEMO

WRONG = {
    'demo': ['--frames', 'x'], 'infer': [], 'train': [], 'convert': [], 'evaluate': [],
    'soak': ['--size', '3'], 'top': ['--once', 'x'], 'quantize': [],
    'bench': ['--precision', 'x'], 'check': ['--threads', 'x'], 'warm': ['--precision', 'x'],
    'export': [], 'bag': ['--every', 'x']}
"""Arguments that argparse itself refuses, by command."""


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line with which a call is refused, but for what it is busy with."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines()
             if not line.endswith(': starting') and ': loading ' not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f'adamtl {arguments[0]}: ')
    return lines[0]


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_a_wrong_argument_is_told_in_one_line(command, capsys):
    import_module(f'adamtl_ros.commands.{command}')
    assert f'(see adamtl {command} --help)' in refused(capsys, command, *WRONG[command])


def test_a_wrong_argument_of_the_player_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit, match='2'):
        player(['--wait', 'x'])
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('adamtl_player: argument --wait: ')


@pytest.mark.parametrize(('command', 'beside'), [('bench', []), ('quantize', [
    'glasses', '--source', str(DEMO)])])
@pytest.mark.parametrize('budget', ['x', '2', 'nan'])
def test_a_wrong_budget_says_what_budgets_are(command, beside, budget, capsys):
    if command == 'quantize':
        pytest.importorskip('nncf')
    line = refused(capsys, command, *beside, '--budgets', f'0.5,{budget}')
    assert f'budget {budget!r}' in line and 'above 0 and at most 1' in line


@pytest.mark.parametrize('ending', ['.png', '.json', '.npz'])
def test_infer_writes_over_no_picture_that_it_reads(ending, tmp_path, capsys):
    first, second = tmp_path / f'photo{ending}', tmp_path / 'photo.jpg'
    for path in (first, second):
        shutil.copy(sorted(DEMO.glob('*.jpg'))[0], path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # By its own results, and by those of another picture.
    for paths in ([first], [second, first]):
        line = refused(capsys, 'infer', *map(str, paths), '--out', str(tmp_path))
        assert f'{first}: results would be written over it' in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_demo_writes_over_no_source(tmp_path, capsys):
    pytest.importorskip('rclpy')
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    shutil.copy(sorted(DEMO.glob('*.jpg'))[0], pictures / 'sheet.png')
    line = refused(capsys, 'demo', '--source', str(pictures), '--out', str(pictures))
    assert 'results would be written over the source' in line
    assert [path.name for path in pictures.iterdir()] == ['sheet.png']


def test_check_tries_where_it_is_to_write(tmp_path, capsys, monkeypatch):
    check = import_module('adamtl_ros.commands.check')
    monkeypatch.setattr(check, 'machine', lambda: pytest.fail('it works before it has tried'))
    path = tmp_path / 'nowhere' / 'page.json'
    assert 'there is no folder' in refused(capsys, 'check', '--json', str(path))
    monkeypatch.setattr(check, 'machine', list)
    for name in ('packages', 'ros'):
        monkeypatch.setattr(check, name, list)
    monkeypatch.setattr(check, 'network', lambda *_: ([], []))
    assert cli.main(['check', '--json', str(Path(tmp_path, 'page.json'))]) == 0
    assert json.loads((tmp_path / 'page.json').read_text()) == {'lines': [], 'network': []}


def test_soak_heeds_the_diagnostics_of_its_own_node_alone():
    soak = import_module('adamtl_ros.commands.soak')
    messages = pytest.importorskip('diagnostic_msgs.msg')
    run = soak.Soak.__new__(soak.Soak)
    run.levels, run.beside, run.drops, run.missed = soak.Counter(), [], {}, 0

    def status(name: str, **values: str) -> object:
        return messages.DiagnosticStatus(
            level=messages.DiagnosticStatus.WARN, name=name, message=name, values=[
                messages.KeyValue(key=key.replace('_', ' '), value=value)
                for key, value in values.items()])

    camera = status('camera: driver', frames_missed='many')
    run._diagnose(messages.DiagnosticArray())
    run._diagnose(messages.DiagnosticArray(status=[camera]))
    assert (run.levels, run.missed) == ({}, 0)
    run._diagnose(messages.DiagnosticArray(status=[camera, status(
        'adamtl: inference', frames_missed='3')]))
    assert (run.levels, run.missed, run.latest) == ({'WARN': 1}, 3, 'adamtl: inference')

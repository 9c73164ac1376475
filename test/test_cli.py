# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The `adamtl` command: what it writes, and what it says to bad input."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
import io
import json
from pathlib import Path
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from adamtl_ros import cli
from adamtl_ros import waiting
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.files import plain
from adamtl_ros.files import unique_names
from adamtl_ros.picture_files import read_picture
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.tasks import TASKS
from processes import until

FRAME = DEMO / 'seq_a_0030.jpg'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say nothing while these tests wait, on however slow a machine."""
    monkeypatch.setattr(waiting, 'AFTER', 1e6)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that must be refused with code 2, and return its one line."""
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr().err
    assert code == 2, written
    assert written.count('\n') == 1, written
    assert 'Traceback' not in written
    return written


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz."""
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_infer_writes_what_the_engine_gives(tmp_path: Path) -> None:
    """Arrays as published, a picture, the gating; images of the same name stay apart."""
    other = tmp_path / 'elsewhere' / FRAME.name
    other.parent.mkdir()
    cv2.imwrite(str(other), np.full((120, 200, 3), 128, np.uint8))
    out = tmp_path / 'new' / 'out'
    assert cli.main(
        ['infer', str(FRAME), str(other), '--budget', '0.7', '--out', str(out)]) == 0
    stem = FRAME.stem
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f'{name}.{kind}' for name in (stem, f'{stem}_2') for kind in ('npz', 'png', 'json'))

    engine = Engine()
    result = engine.infer(
        read_picture(FRAME), Settings(mode='adaptive', budget=0.7, tasks=engine.tasks))
    arrays = load(out / f'{stem}.npz')
    assert tuple(arrays) == engine.tasks
    for task in engine.tasks:
        assert arrays[task].dtype == (
            np.uint8 if TASKS[task].kind == 'classes' else np.float32)
        np.testing.assert_array_equal(arrays[task], result.outputs[task])

    gating = json.loads((out / f'{stem}.json').read_text())
    assert gating['mode'] == 'adaptive'
    assert gating['budget_requested'] == 0.7
    assert gating['budget_achieved'] == pytest.approx(result.stats.budget_achieved)
    assert gating['agreement'] is None
    assert gating['tasks'] == list(engine.tasks)
    assert gating['image'] == str(FRAME.resolve())
    assert json.loads((out / f'{stem}_2.json').read_text())['width'] == 200
    assert cv2.imread(str(out / f'{stem}.png')).shape[1] == 256 * (len(engine.tasks) + 3)


def test_infer_raw_and_tasks(tmp_path: Path) -> None:
    """Decoder outputs, channels first, of the chosen tasks only."""
    assert cli.main([
        'infer', str(FRAME), '--raw', '--tasks', 'normals,semseg', '--mode', 'static',
        '--out', str(tmp_path)]) == 0
    arrays = load(tmp_path / f'{FRAME.stem}.npz')
    assert list(arrays) == ['semseg', 'normals']
    assert arrays['normals'].shape == (3, 48, 64)
    assert arrays['semseg'].shape == (len(TASKS['semseg'].classes), 48, 64)
    assert json.loads((tmp_path / f'{FRAME.stem}.json').read_text())['budget_achieved'] == 1.0


@pytest.mark.parametrize('arguments, named', [
    (['--budget', '0'], 'budget 0'),
    (['--budget', '1.5'], 'budget 1.5'),
    (['--budget', 'nan'], 'budget nan'),
    (['--budget', 'much'], "'much'"),
    (['--mode', 'fast'], "'fast'"),
    (['--tasks', 'semseg,flow'], "'flow'"),
    (['--tasks', ','], 'tasks'),
    (['--model', 'huge'], "'huge'"),
    (['--model', str(FRAME)], FRAME.name),
    (['--nonsense'], '--nonsense'),
])
def test_infer_refuses_bad_settings(
        capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str],
        named: str) -> None:
    """One line that names the value."""
    assert named in refused(
        capsys, 'infer', str(FRAME), '--out', str(tmp_path / 'o'), *arguments)


def test_infer_refuses_bad_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One line that names the file, before anything is written."""
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'x')
    out = tmp_path / 'o'
    for bad in (broken, tmp_path / 'missing.png', tmp_path):
        assert str(bad) in refused(capsys, 'infer', str(FRAME), str(bad), '--out', str(out))
    assert not out.exists()


@pytest.mark.parametrize('command', [['infer', str(FRAME)], ['demo']])
def test_out_must_not_be_a_file(
        capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]) -> None:
    """Neither itself nor a folder above it."""
    file = tmp_path / 'file'
    file.write_text('mine')
    for out in (file, file / 'below'):
        assert f'{file} is a file' in refused(capsys, *command, '--out', str(out))
    assert file.read_text() == 'mine'


@pytest.mark.parametrize('arguments, named', [
    (['--source', '/nowhere'], '/nowhere'),
    (['--rate', '0'], 'rate'),
    (['--frames', '0'], '--frames'),
    (['--model', 'huge'], "'huge'"),
    (['--budget', '2'], 'budget 2'),
    (['--mode', 'fast'], "'fast'"),
])
def test_demo_refuses_bad_settings(
        capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str],
        named: str) -> None:
    """One line that names the value, before anything is started."""
    pytest.importorskip('rclpy')
    assert named in refused(capsys, 'demo', '--out', str(tmp_path / 'o'), *arguments)
    assert not (tmp_path / 'o').exists()


WITHOUT_ROS = ('rclpy', 'sensor_msgs', 'adamtl_ros.msg')


def outcomes(folder: Path, calls: Sequence[Sequence[str]], *missing: str,
             before: str = '') -> list[tuple[int, str]]:
    """
    Run command lines one after the other in a process of their own; return codes and errors.

    missing: modules that cannot be imported there.  before: code that runs before the first.
    """
    script = (
        'import contextlib, io, json, sys\n'
        f'sys.modules.update(dict.fromkeys({missing!r}))\n'
        'from adamtl_ros import cli, waiting\n'
        'waiting.AFTER = 1e6\n'
        f'{before}\n'
        'found = []\n'
        'for call in json.load(sys.stdin):\n'
        '    with contextlib.redirect_stderr(io.StringIO()) as said:\n'
        '        try:\n'
        '            code = cli.main(call)\n'
        '        except SystemExit as end:\n'
        '            code = end.code\n'
        '    found.append((code, said.getvalue()))\n'
        'print("\\n" + json.dumps(found))\n')
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=folder, input=json.dumps(calls), capture_output=True,
        text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


def test_demo_without_ros_says_how_to_get_it(tmp_path: Path) -> None:
    """The missing module and the remedy."""
    ((code, said),) = outcomes(tmp_path, [['demo']], *WITHOUT_ROS)
    assert code == 2
    assert said.count('\n') == 1
    assert 'rclpy' in said
    assert "pip install '.[jazzy]'" in said


@pytest.mark.parametrize(('module', 'package', 'calls'), [
    ('cv2', 'opencv-python-headless', [['infer', str(FRAME), '--out', 'o']]),
    ('mcap', 'mcap', [['bag', 'bag']]), ('rosbags', 'rosbags', [['bag', 'bag']]),
    ('torch', 'torch', [
        ['infer', str(FRAME), '--out', 'o', '--backend', 'torch'], ['train', 'x.yaml'],
        ['convert', 'x.pth', 'y'], ['evaluate', '.'], ['bench', '--backend', 'torch']]),
    ('matplotlib', 'matplotlib', [['bench', '--figure', 'x.png']]),
    ('openvino', 'openvino', [['quantize', 'glasses', '--source', 'x']]),
])
def test_a_package_that_is_missing_is_named(
        tmp_path: Path, module: str, package: str, calls: list[list[str]]) -> None:
    """One line: what, and the command that installs it."""
    if calls[0][-1] == 'bag':
        write_sample(tmp_path / 'bag', frames=1)
    for call, (code, said) in zip(calls, outcomes(tmp_path, calls, module)):
        assert code == 2, said
        last = said.splitlines()[-1]
        assert last.startswith(f'adamtl {call[0]}: ')
        assert module in last
        assert f'pip install {package}' in last
        assert 'Traceback' not in said


@pytest.mark.parametrize(('program', 'module', 'package'), [
    ('node', 'cv2', 'opencv-python-headless'), ('player', 'cv2', 'opencv-python-headless'),
    ('node', 'rclpy', "'.[jazzy]'"), ('player', 'sensor_msgs', "'.[jazzy]'")])
def test_nodes_name_what_is_missing(
        tmp_path: Path, program: str, module: str, package: str) -> None:
    """Likewise."""
    pytest.importorskip('rclpy')
    script = (
        f'import sys\nsys.modules[{module!r}] = None\n'
        f'from adamtl_ros.nodes.{program} import main\nsys.exit(main([]))\n')
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f'adamtl_{program}: ')
    assert done.stderr.count('\n') == 1
    assert module in done.stderr
    assert f'pip install {package}' in done.stderr


@pytest.mark.slow
def test_only_the_demo_needs_ros(tmp_path: Path) -> None:
    """Single images are processed without it."""
    others = [[name, '--help'] for name in cli.COMMANDS if name not in ('soak', 'top')]
    found = outcomes(tmp_path, [['infer', str(FRAME), '--out', 'o'], *others], *WITHOUT_ROS)
    assert [code for code, _ in found] == [0] * len(found), found
    assert (tmp_path / 'o' / f'{FRAME.stem}.npz').exists()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command is in the help; the version is a number."""
    for arguments in (['--help'], ['demo', '--help'], ['infer', '--help'], ['--version']):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
    written = capsys.readouterr().out
    for word in ('demo', 'infer', 'train', 'evaluate', '--budget', '--source', '--raw'):
        assert word in written
    assert written.splitlines()[-1].split()[1][0].isdigit()


@pytest.mark.parametrize('command', ['train', 'evaluate', 'convert'])
def test_commands_parse_for_themselves(
        capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Their --help is their own."""
    with pytest.raises(SystemExit) as end:
        cli.main([command, '--help'])
    assert end.value.code == 0
    assert f'adamtl {command}' in capsys.readouterr().out


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for."""
    assert 'COMMAND' in refused(capsys)
    assert 'dance' in refused(capsys, 'dance')


def test_names_stay_unique() -> None:
    """A number is only given where a name is taken, and takes no other's name."""
    paths = [Path(name) for name in ('a/x.png', 'b/x.png', 'x_2.png', 'x.jpg', 'y.png')]
    assert unique_names(paths) == ['x', 'x_3', 'x_2', 'x_4', 'y']


def test_json_has_no_nan() -> None:
    """Python would write NaN, which is no JSON."""
    assert plain({'a': (float('nan'), 1.0), 'b': [float('inf'), 'x', None]}) == {
        'a': [None, 1.0], 'b': [None, 'x', None]}


class CapturedError(Exception):
    """Carries a parser out of its command."""


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    def capture(parser: argparse.ArgumentParser, *_: object) -> None:
        raise CapturedError(parser)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', capture)
    with pytest.raises(CapturedError) as caught:
        cli.main([command])
    return caught.value.args[0]


@pytest.mark.parametrize('command', [
    'demo', 'infer', 'bench', 'evaluate', 'soak', 'top', 'quantize', 'bag'])
def test_help_tells_what_every_option_is_for_and_its_default(
        command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nobody has to look into the code for what happens if it is left out."""
    needed = {'soak': 'rclpy', 'top': 'rclpy', 'quantize': 'openvino', 'evaluate': 'torch'}
    if command in needed:
        pytest.importorskip(needed[command])
    parser = parser_of(command, monkeypatch)
    formatter = parser._get_formatter()
    lacking = []
    for action in parser._actions:
        text = formatter._expand_help(action) if action.help else ''
        tells = 'default' in text or action.nargs == 0 or action.required or (
            not action.option_strings or action.default in (None, []))
        if not text or not tells or text.count('default') > 1:
            lacking.append((action.dest, text))
    assert not lacking


def test_who_waits_is_told_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long says so; what does not, says nothing."""
    said = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', said)
    before = set(threading.enumerate())
    with waiting.saying('adamtl: at once'):
        (timer,) = set(threading.enumerate()) - before
    timer.join(1.0)
    assert not timer.is_alive()
    assert said.getvalue() == ''
    monkeypatch.setattr(waiting, 'AFTER', 0.01)
    with waiting.saying('adamtl: loading'):
        until(said.getvalue)
    assert said.getvalue() == 'adamtl: loading\n'


@pytest.mark.slow
@pytest.mark.parametrize('module', [
    'adamtl_ros.commands.infer', 'cv2', 'adamtl_ros.runtime.engine', 'openvino',
    'adamtl_ros.drawing'])
def test_ctrl_c_at_the_start_is_one_line(tmp_path: Path, module: str) -> None:
    """From the first line of ours on, whatever is just being imported."""
    if module == 'openvino':
        pytest.importorskip('openvino')
    script = """
import os
import signal
import sys
from adamtl_ros import cli
from adamtl_ros import waiting
waiting.AFTER = 1e6
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
sys.exit(cli.main(['infer', sys.argv[2], '--out', 'o']))
"""
    done = subprocess.run(
        [sys.executable, '-c', script, module, str(FRAME)], cwd=tmp_path, capture_output=True,
        text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, 'adamtl: interrupted\n')


IMPOSSIBLE = [
    (['bench', '--json', '{}/none/x.json'], 'make it first'),
    (['bench', '--figure', '{}/x.docx'], 'ends in'),
    (['evaluate', '.', '--json', '{}/none/x.json'], 'make it first'),
    (['evaluate', '.', '--json', '{}'], 'is a folder'),
    (['evaluate', '.', '--figure', '{}/x.docx'], 'ends in'),
    (['evaluate', '{}/none'], 'no such folder'), (['evaluate', '.', '--budgets', 'x'], "'x'"),
    (['evaluate', '.', '--backend', 'x'], "'x'"), (['evaluate', '.', '--limit', '-1'], '-1'),
    (['evaluate', '.', '--model', 'x'], "'x'"), (['evaluate', '.', '--tasks', 'x'], "'x'"),
    (['soak', '--json', '{}/none/x.json'], 'make it first'),
    (['soak', '--log', '{}'], 'is a folder'), (['soak', '--source', '{}/x.mp4'], 'x.mp4'),
    (['soak', '--model', 'x'], "'x'"),
    (['top', '--once', '1', '--svg', '{}/none/x.svg'], 'make it first'),
    (['demo', '--out', '/proc/x'], 'cannot be written'),
    (['infer', str(FRAME), '--out', '/proc/x'], 'cannot be written'),
]


@pytest.fixture(scope='module')
def impossible(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """
    Return what was said to each of them.

    Neither torch, which takes its time to import, nor a model or a node is needed for it.
    """
    folder = tmp_path_factory.mktemp('impossible')
    calls = [arguments for arguments, _ in IMPOSSIBLE
             if find_spec('rclpy') or arguments[0] not in ('soak', 'top', 'demo')]
    found = outcomes(
        folder, [[each.format(folder) for each in call] for call in calls], 'torch', before=(
            'from adamtl_ros.runtime import engine\n'
            'def no(*_, **__):\n'
            '    raise AssertionError("the work began")\n'
            'engine.Engine.__init__ = no\n'))
    return {str(call): each for call, each in zip(calls, found)}


@pytest.mark.parametrize(('arguments', 'said'), IMPOSSIBLE)
def test_what_cannot_be_is_refused_before_the_work(
        impossible: dict[str, tuple[int, str]], arguments: list[str], said: str) -> None:
    """One line."""
    if str(arguments) not in impossible:
        pytest.skip('rclpy is not installed')
    code, written = impossible[str(arguments)]
    assert code == 2, written
    assert said in written
    assert written.count('\n') == 1


def test_results_that_are_replaced_are_named(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And files of others stay."""
    (tmp_path / 'mine.txt').write_text('x')
    arguments = ['infer', str(FRAME), '--out', str(tmp_path), '--tasks', 'depth']
    assert cli.main(arguments) == 0
    assert 'replaced' not in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert f'{FRAME.stem}.npz, {FRAME.stem}.png, {FRAME.stem}.json: replaced' in (
        capsys.readouterr().err)
    assert len(list(tmp_path.iterdir())) == 4


def test_infer_takes_what_executes_the_network(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the parameters of the node do."""
    given: dict[str, object] = {}

    def engine(model: str, **keywords: object) -> None:
        given.update(keywords, model=model)
        raise ValueError('enough')

    monkeypatch.setattr('adamtl_ros.commands.infer.Engine', engine)
    assert cli.main(['infer', str(FRAME), '--out', str(tmp_path), '--backend', 'torch',
                     '--device', 'cuda:1', '--precision', 'bf16', '--threads', '3']) == 2
    assert given == {'model': 'glasses', 'backend': 'torch', 'device': 'cuda:1',
                     'precision': 'bf16', 'num_threads': 3}

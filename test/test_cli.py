# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The `adamtl` command: what it writes, and what it says to bad input."""

import json
from pathlib import Path
import subprocess
import sys

import cv2
import numpy as np
import pytest

from adamtl_ros import cli
from adamtl_ros.infer import plain
from adamtl_ros.infer import unique_names
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import read_picture
from adamtl_ros.tasks import TASKS

FRAME = DEMO / 'seq_a_0030.jpg'


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


def without_ros(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where rclpy and the messages cannot be imported."""
    script = (
        'import sys\n'
        "for name in ('rclpy', 'sensor_msgs', 'adamtl_ros.msg'):\n"
        '    sys.modules[name] = None\n'
        'from adamtl_ros.cli import main\n'
        'sys.exit(main(sys.argv[1:]))\n')
    return subprocess.run(
        [sys.executable, '-c', script, *arguments], cwd=folder, capture_output=True, text=True,
        timeout=120, check=False)


def test_demo_without_ros_says_how_to_get_it(tmp_path: Path) -> None:
    """The missing module and the remedy."""
    done = without_ros(tmp_path, 'demo')
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert 'rclpy' in done.stderr
    assert "pip install '.[kilted]'" in done.stderr


def test_only_the_demo_needs_ros(tmp_path: Path) -> None:
    """Single images are processed without it."""
    done = without_ros(tmp_path, 'infer', str(FRAME), '--out', str(tmp_path / 'o'))
    assert done.returncode == 0, done.stderr
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
def test_delegated_commands_parse_for_themselves(
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

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, and outputs that are tried before the work."""

import os
from pathlib import Path
import stat
import subprocess
import sys

import numpy as np
import pytest

from adamtl_ros import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'results.npz'
    with files.whole(path) as aside:
        assert aside.suffix == '.npz'
        np.savez(aside, a=np.zeros(3))
        assert not path.exists()
    assert np.load(path)['a'].shape == (3,)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), files.whole(path) as aside:
        aside.write_bytes(b'half')
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / 'report.html'
    path.write_text('earlier')
    with pytest.raises(OSError, match=r'cannot be written: No space left.*report\.html'), (
            files.whole(path)) as aside:
        aside.write_text('half')
        with open('/dev/full', 'w') as full:
            full.write('x')
    assert path.read_text() == 'earlier'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        with files.whole(tmp_path / 'x') as aside:
            aside.unlink()  # as those do who write aside themselves
            aside.touch(mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'x').stat().st_mode) == 0o666 & ~mask


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / 'far').mkdir()
    link, target = tmp_path / 'link.json', tmp_path / 'far' / 'target.json'
    link.symlink_to(target)
    for text in ('one', 'two'):
        with files.whole(link) as aside:
            aside.write_text(text)
        assert link.is_symlink()
        assert target.read_text() == text
    for device in (Path('/dev/null'), Path('/dev/stdout')):
        files.try_file(device)
        with files.whole(device) as aside:
            assert aside == device
    assert Path('/dev/null').is_char_device()


def test_outputs_are_tried(tmp_path, capsys):
    files.try_file(None)
    files.try_file(tmp_path / 'new.json')
    files.try_folder(tmp_path / 'a' / 'b', ['x.png'])
    assert list(tmp_path.iterdir()) == [tmp_path / 'a']
    assert list((tmp_path / 'a' / 'b').iterdir()) == []
    assert capsys.readouterr().err == ''
    (tmp_path / 'old.json').write_text('{}')
    files.try_file(tmp_path / 'old.json')
    for number in range(5):
        (tmp_path / 'a' / f'{number}.png').touch()
    files.try_folder(tmp_path / 'a', [f'{number}.png' for number in range(9)])
    said = capsys.readouterr().err.splitlines()
    assert said == [f'{tmp_path / "old.json"}: is replaced',
                    f'{tmp_path / "a"}: 0.png, 1.png, 2.png and 2 more: replaced']


@pytest.mark.parametrize(('name', 'endings', 'word'), [
    ('none/x.json', (), 'make it first'), ('', (), 'is a folder'),
    ('x.docx', ('.png',), 'ends in'), ('file/x.json', (), 'no folder'),
    ('caf\udce9.json', (), 'not UTF-8'),
    ('/proc/x.json', (), 'cannot be written')])
def test_a_file_that_cannot_be_written_is_named(tmp_path, name, endings, word):
    (tmp_path / 'file').write_text('')
    with pytest.raises((ValueError, OSError), match=word):
        files.try_file(tmp_path / name, endings)


@pytest.mark.parametrize('name', ['file', 'file/below', '/proc/x'])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='cannot be written'):
        files.try_folder(tmp_path / name)


@pytest.mark.parametrize('arguments', [
    ['infer', b'caf\xe9.jpg', '--out', 'o'], ['infer', 'x.jpg', '--out', b'caf\xe9'],
    ['demo', '--source', b'caf\xe9.mp4'], ['bag', b'caf\xe9'], ['bag', 'x', '--out', b'\xff'],
    ['bench', '--source', b'caf\xe9.mp4'], ['soak', '--source', b'caf\xe9']])
def test_names_that_are_not_utf8_are_refused_before_anything_runs(tmp_path, arguments):
    (tmp_path / os.fsdecode(b'caf\xe9.jpg')).write_bytes(b'')
    ended = subprocess.run(
        [sys.executable, '-m', 'adamtl_ros.cli', *arguments], cwd=tmp_path, capture_output=True,
        text=True, timeout=60)
    assert ended.returncode == 2
    assert 'the name is not UTF-8; rename it' in ended.stderr
    assert ended.stderr.count('\n') == 1


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, '-m', 'adamtl_ros.cli', 'infer', 'x.png', '--out', 'o'], cwd=folder,
        capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert 'the name is not UTF-8; rename it' in ended.stderr

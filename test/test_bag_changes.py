# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag` where something changes: camera and pictures on the way, files between two runs."""

from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from adamtl_ros.bag import many
from adamtl_ros.bag.compare import Evaluation
from adamtl_ros.bag.many import fingerprint
from adamtl_ros.bag.many import model_state
from adamtl_ros.bag.one import Options
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import CAMERA_INFO
from adamtl_ros.bag.reading import decode
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import MORE_PROBLEMS
from adamtl_ros.bag.reading import STORE
from adamtl_ros.bag.report import summary
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.commands.bag import main
from adamtl_ros.network import checkpoint
from networks import random_network

TYPES = STORE.types
LAND, PORTRAIT = (96, 64), (64, 96)
"""Sizes of pictures that the network runs at as they are."""


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a small network."""
    path = tmp_path_factory.mktemp('models') / 'model.safetensors'
    checkpoint.save(path, random_network('lite'))
    return path


def write(
        path: Path, sizes: Sequence[tuple[int, int]],
        focals: Sequence[tuple[tuple[int, int], float]] = (), encoding: str = 'rgb8') -> Path:
    """Write pictures of (width, height), each after the size and focal length of its lens."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection('/cam/image', IMAGE, typestore=STORE)
        infos = writer.add_connection('/cam/camera_info', CAMERA_INFO, typestore=STORE)
        for number, (width, height) in enumerate(sizes):
            time = (number + 1) * 10**8
            header = TYPES['std_msgs/msg/Header'](
                TYPES['builtin_interfaces/msg/Time'](*divmod(time, 10**9)), 'optical')
            if focals:
                (wide, high), focal = focals[number]
                k = np.array([focal, 0, wide / 2, 0, focal, high / 2, 0, 0, 1.0])
                info = TYPES[CAMERA_INFO](
                    header, high, wide, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(),
                    np.insert(k, [3, 6, 9], 0.0), 0, 0,
                    TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False))
                writer.write(infos, time - 1, STORE.serialize_cdr(info, CAMERA_INFO))
            pixels = np.random.default_rng(number).integers(
                0, 255, 3 * width * height, dtype=np.uint8)
            message = TYPES[IMAGE](header, height, width, encoding, 0, 3 * width, pixels)
            writer.write(images, time, STORE.serialize_cdr(message, IMAGE))
    return path


def evaluated(bag: Path, out: Path, model: Path, *arguments: str) -> dict[str, Any]:
    """Return the results of a recording, all of which was used."""
    assert main([
        str(bag), '--budgets', '0.6', '--modes', 'adaptive', '--tasks', 'depth', '--model',
        str(model), '--out', str(out), *arguments]) == 0
    return json.loads((out / 'results.json').read_text())


def infos(path: Path) -> list[Any]:
    """Return the camera_infos of a bag of results."""
    return [decode(message) for message in Bag(path).messages(('/adamtl/camera_info',))]


# On the way


def test_pictures_that_change_their_shape_are_evaluated(model, tmp_path):
    bag = write(tmp_path / 'bag', [LAND, LAND, PORTRAIT, PORTRAIT, PORTRAIT])
    results = evaluated(bag, tmp_path / 'out', model)
    assert results['frames'] == 5
    assert results['notes'] == ['the size of the pictures changes: 2 of 96x64, 3 of 64x96']
    assert all(0 < row['stability']['depth'] <= 1 for row in results['rows'])


def test_a_camera_info_holds_until_the_next(model, tmp_path):
    lenses = [(LAND, 60.0), (LAND, 90.0), (PORTRAIT, 50.0)]
    bag = write(tmp_path / 'bag', [size for size, _ in lenses], lenses)
    results = evaluated(bag, tmp_path / 'out', model, '--record', str(tmp_path / 'record'))
    assert results['notes'] == ['the size of the pictures changes: 2 of 96x64, 1 of 64x96']
    found = [((info.width, info.height), info.k[0]) for info in infos(tmp_path / 'record')]
    assert found == lenses  # results are of the pictures' own size here
    assert len(results['rows'][1]['worst']) == 3  # whose pictures are drawn of the same lens


@pytest.mark.slow
def test_what_is_recorded_beside_depth_is_the_lens_it_is_of(model, tmp_path):
    bag = write(tmp_path / 'bag', [LAND, PORTRAIT], [(LAND, 60.0)] * 2)
    results = evaluated(bag, tmp_path / 'a', model, '--record', str(tmp_path / 'refused'))
    assert any('publish both of one size' in note for note in results['notes'])
    assert [info.width for info in infos(tmp_path / 'refused')] == [96]
    evaluated(bag, tmp_path / 'b', model, '--hfov', '90', '--record', str(tmp_path / 'given'))
    assert [(info.width, round(info.k[0])) for info in infos(tmp_path / 'given')] == [
        (96, 48), (64, 32)]


def test_problems_of_every_message_are_not_all_listed():
    bag = Bag.__new__(Bag)
    bag.problems = []
    for number in range(1000):
        bag.problem(f'a message was recorded at {number} ns')
    assert len(bag.problems) == 51
    assert bag.problems[49:] == ['a message was recorded at 49 ns', MORE_PROBLEMS]


def test_no_frame_leaves_no_bag_of_results(model, tmp_path, capsys):
    bag = write(tmp_path / 'bag', [LAND], encoding='nonsense')
    for _ in range(2):
        assert main([str(bag), '--model', str(model), '--out', str(tmp_path / 'out'), '--record',
                     str(tmp_path / 'records' / 'record')]) == 2
        assert 'no frame of /cam/image could be used' in capsys.readouterr().err
        assert list((tmp_path / 'records').iterdir()) == []


def test_ctrl_c_before_the_first_frame_is_no_fault_of_the_recording(
        model, tmp_path, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, '_frame', interrupted)
    bag = write(tmp_path / 'bag', [LAND])
    with pytest.raises(KeyboardInterrupt):
        main([str(bag), '--model', str(model), '--out', str(tmp_path / 'out')])


# Between two runs


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Return a folder of two recordings."""
    for name in 'ab':
        write_sample(tmp_path / 'bags' / name, frames=3)
    return tmp_path / 'bags'


@pytest.mark.slow
def test_ctrl_c_ends_all_and_leaves_no_half_result(several, model, tmp_path, monkeypatch):
    frame, calls = Evaluation._frame, []

    def interrupted(self: Evaluation, *arguments: Any) -> None:
        calls.append(self.bag.path.name)
        if len(calls) == 5:  # in the middle of the second
            raise KeyboardInterrupt
        frame(self, *arguments)

    monkeypatch.setattr(Evaluation, '_frame', interrupted)
    out, record = tmp_path / 'out', tmp_path / 'record'
    arguments = ('--jobs', '1', '--record', str(record))
    with pytest.raises(KeyboardInterrupt):
        evaluated(several, out, model, *arguments)
    assert calls == ['a'] * 3 + ['b'] * 2
    assert (out / 'a' / 'results.json').exists() and not (out / 'b' / 'results.json').exists()
    assert sorted(path.name for path in record.iterdir()) == ['a']
    del calls[:]
    monkeypatch.setattr(Evaluation, '_frame', lambda self, *arguments: (
        calls.append(self.bag.path.name), frame(self, *arguments)))
    assert evaluated(several, out, model, *arguments)['frames'] == 6
    assert calls == ['b'] * 3


@pytest.mark.slow
def test_other_weights_of_the_same_name_are_another_model(several, model, tmp_path, monkeypatch):
    work, done = many.work, []
    monkeypatch.setattr(many, 'work', lambda bag, options: (
        done.append(bag.name), work(bag, options))[-1])
    own = shutil.copy(model, tmp_path / 'own.safetensors')
    before = evaluated(several, tmp_path / 'out', own, '--jobs', '1')
    evaluated(several, tmp_path / 'out', own, '--jobs', '1')
    assert done == ['a', 'b']
    checkpoint.save(own, random_network('lite', seed=1))
    after = evaluated(several, tmp_path / 'out', own, '--jobs', '1')
    assert done == ['a', 'b'] * 2
    assert after['rows'][1]['agreement'] != before['rows'][1]['agreement']


def test_a_fingerprint_is_of_all_that_a_result_is_of(model, tmp_path, monkeypatch):
    bag = write(tmp_path / 'bag', [LAND])
    (tmp_path / 'labels' / 'depth').mkdir(parents=True)
    options = Options((0.6,), 0.6, ('adaptive',), model=str(model), labels=tmp_path / 'labels')
    state = model_state(options)
    first = fingerprint(bag, options, state)
    assert fingerprint(bag, replace(options, threads=7), state) == first
    (tmp_path / 'labels' / 'depth' / '0.png').write_bytes(b'x')
    second = fingerprint(bag, options, state)
    assert second != first
    monkeypatch.setattr(many, 'version', lambda: '99.0.0')
    assert model_state(options) != state
    monkeypatch.undo()
    assert model_state(options) == state
    int8 = replace(options, precision='int8')
    before = model_state(int8)
    ranges = model.with_suffix('.int8.json')
    ranges.write_text('{}')
    assert model_state(int8) != before and model_state(options) == state
    ranges.unlink()


def test_a_model_that_is_not_there_is_said_once(several, tmp_path, capsys):
    assert main([str(several), '--model', 'nope.safetensors', '--out', str(tmp_path / 'o')]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum('nope.safetensors' in line for line in said) == 1


# The page of several


def test_several_without_budgets_have_a_page(several, model, tmp_path):
    results = evaluated(several, tmp_path / 'out', model, '--modes', 'static', '--jobs', '1')
    assert results['frames'] == 6
    assert 'No budget was compared' in (tmp_path / 'out' / 'report.html').read_text()


def test_links_lead_to_recordings_of_any_name():
    row = {'mode': 'static', 'budget': 1.0, 'achieved': 1.0, 'agreement': {'depth': 1.0},
           'least_agreement': 1.0, 'mean_ms': 1.0, 'dropped': 0}
    page = summary({
        'bags': [{'name': '<50% #1?', 'bag': '', 'report': '<50% #1?/report.html', 'frames': 1,
                  'skipped': 0, 'problems': [], 'recommendation': {
                      'budget': None, 'agreement': None, 'time_saved': None, 'text': ''}}],
        'frames': 1, 'rows': [row],
        'recommendation': {'mode': 'static', 'budget': None, 'text': ''}})
    assert '<a href="%3C50%25%20%231%3F/report.html">&lt;50% #1?</a>' in page

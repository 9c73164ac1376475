# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera of recordings and played sources: recorded beside them, or given by the user."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.rosbag2 import Writer

from adamtl_ros.bag import reading
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import CAMERA_INFO
from adamtl_ros.bag.reading import camera_info
from adamtl_ros.bag.reading import decode
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import intrinsics_of
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.reading import STORE
from adamtl_ros.bag.sample import TOPIC
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.commands.bag import main
from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import filmed_by
from adamtl_ros.sources import open_source


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sample bag of two frames."""
    path = tmp_path_factory.mktemp('bags') / 'sample'
    write_sample(path, frames=2, size=(320, 180))
    return path


def depths(path: Path) -> list[np.ndarray]:
    """Return what was recorded of depth."""
    return [
        np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        for message in map(decode, Bag(path).messages(('/adamtl/depth',)))]


def run(bag: Path, out: Path, *arguments: str) -> tuple[dict, list[np.ndarray]]:
    """Evaluate and record the bag's depth; return results and depths."""
    assert main([
        str(bag), '--modes', 'static', '--mode', 'static', '--tasks', 'depth', '--out', str(out),
        '--record', str(out / 'record'), *arguments]) == 0
    return json.loads((out / 'results.json').read_text()), depths(out / 'record')


@pytest.mark.slow
def test_depth_is_of_the_camera_that_was_recorded_or_given(bag, tmp_path):
    engine, settings = Engine('glasses'), Settings(tasks=('depth',))
    frames, opened = RecordedFrames(TOPIC), Bag(bag)
    pictures = [frames.read(message).image for message in opened.messages((TOPIC,))]
    info = camera_info(opened, TOPIC)
    for name, arguments, known, lens in (
            ('recorded', (), Intrinsics(info), 'given'),
            ('hfov', ('--hfov', '40'), Intrinsics(hfov=40.0), 'given'),
            ('wide', ('--hfov', '120'), Intrinsics(hfov=120.0), 'extreme')):
        results, found = run(bag, tmp_path / name, *arguments)
        assert results['lens'] == lens
        assert any('depth is a guess' in note for note in results['notes']) == (lens == 'extreme')
        assert len(found) == 2
        for picture, depth in zip(pictures, found):
            expected = engine.infer(picture, settings, known.camera((320, 180)))
            np.testing.assert_allclose(depth, expected.outputs['depth'], rtol=1e-5)


def test_a_camera_info_of_something_else_is_told_and_not_used(bag):
    opened = Bag(bag)
    known = intrinsics_of(opened, TOPIC)
    assert known.recorded and not known.rectified
    assert intrinsics_of(opened, '/camera/image_rect').rectified
    header = SimpleNamespace(frame_id='camera_optical_frame', stamp=None)
    assert known.camera((320, 180), header).width == 320
    with pytest.raises(ValueError, match='publish both of one size'):
        known.camera((160, 90), header)
    frames = RecordedFrames(TOPIC, known)
    assert all(frames.read(message).camera is not None for message in opened.messages((TOPIC,)))
    assert frames.refused == ''
    known.info.header.frame_id = 'other'
    frames = RecordedFrames(TOPIC, known)
    assert all(frames.read(message).camera is None for message in opened.messages((TOPIC,)))
    assert "the frame 'other'" in frames.refused


@pytest.mark.parametrize('arguments, words', [
    (['--live', '--hfov', '60'], '--live: the node goes by the camera_info'),
    (['--camera', '/nope.yaml'], '/nope.yaml'), (['--hfov', '179'], '5 to 150')])
def test_what_cannot_be_is_refused_before_anything_is_loaded(
        bag, tmp_path, capsys, arguments, words):
    try:
        code = main([str(bag), '--out', str(tmp_path / 'out'), *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_source_is_filmed_by_what_is_known_of_it():
    source = open_source(DEMO)
    assert filmed_by(source, Intrinsics()) is source
    camera = filmed_by(source, Intrinsics(hfov=90.0)).camera
    assert (camera.width, camera.height) == (256, 192)
    assert camera.k == pytest.approx((128, 0, 127.5, 0, 128, 95.5, 0, 0, 1))
    info = SimpleNamespace(
        width=512, height=384, k=[400.0, 0, 250.0, 0, 400.0, 190.0, 0, 0, 1], p=[0.0] * 12,
        d=[0.1, 0, 0, 0, 0], distortion_model='plumb_bob', binning_x=0, binning_y=0,
        roi=SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0))
    camera = filmed_by(source, Intrinsics(info)).camera
    assert camera.k[0] == 200 and camera.d == (0.1, 0, 0, 0, 0)


@pytest.mark.parametrize('rectified', [False, True])
def test_the_camera_of_a_played_recording_is_that_of_its_pictures(rectified, tmp_path):
    """Binned: the CameraInfo is of the whole sensor. Rectified: P holds, and no lens bends it."""
    topic, types = f'/cam/image_{"rect" if rectified else "raw"}', STORE.types
    header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](1, 0), 'optical')
    info = types[CAMERA_INFO](
        header, 48, 64, 'plumb_bob', np.full(5, 0.1),
        np.array([40, 0, 31.5, 0, 40, 23.5, 0, 0, 1.0]), np.eye(3).ravel(),
        np.array([50, 0, 31.5, 0, 0, 50, 23.5, 0, 0, 0, 1.0, 0]), 2, 2,
        types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False))
    image = types[IMAGE](header, 24, 32, 'rgb8', 0, 96, np.zeros(96 * 24, np.uint8))
    with Writer(tmp_path / 'bag', version=9) as writer:
        for name, kind, message in (
                ('/cam/camera_info', CAMERA_INFO, info), (topic, IMAGE, image)):
            writer.write(writer.add_connection(name, kind, typestore=STORE), 10**9,
                         STORE.serialize_cdr(message, kind))
    camera = open_source(tmp_path / 'bag').camera
    assert (camera.width, camera.height) == (32, 24)
    assert camera.k[0] == (25 if rectified else 20)
    assert any(camera.d) != rectified


def test_a_camera_info_of_another_frame_is_not_played(tmp_path, capsys):
    write_sample(tmp_path / 'bag', frames=2)
    source = open_source(tmp_path / 'bag')
    assert source.camera.width == 256 and capsys.readouterr().err == ''
    wanted = reading.intrinsics_of
    with pytest.MonkeyPatch.context() as patch:
        def other(*arguments):
            known = wanted(*arguments)
            known.info.header.frame_id = 'other'
            return known
        patch.setattr(reading, 'intrinsics_of', other)
        assert open_source(tmp_path / 'bag').camera is None
    assert "camera_info is of the frame 'other'" in capsys.readouterr().err


def test_pictures_of_several_shapes_have_their_own_camera():
    source = filmed_by(open_source(DEMO), Intrinsics(hfov=90.0))
    assert source.camera_of((256, 192)) is source.camera
    upright = source.camera_of((192, 256))
    assert (upright.width, upright.height, round(upright.k[0])) == (192, 256, 96)
    # A calibration holds for what was resized, and for no other shape; one that came with the
    # source for its own size alone.
    info = SimpleNamespace(
        width=512, height=384, k=[400.0, 0, 250.0, 0, 400.0, 190.0, 0, 0, 1], p=[0.0] * 12,
        d=[], distortion_model='plumb_bob', binning_x=0, binning_y=0,
        roi=SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0))
    source = filmed_by(open_source(DEMO), Intrinsics(info))
    assert source.camera_of((128, 96)).k[0] == 100
    assert source.camera_of((192, 256)) is None
    assert open_source(DEMO).camera_of((128, 96)) is None


def test_no_camera_info_is_missed_of_a_picture_whose_camera_is_not_known():
    recorder = pytest.importorskip('adamtl_ros.nodes.recorder')
    record = recorder.Recorder.__new__(recorder.Recorder)
    record.expected = frozenset({'overlay', 'camera_info', 'depth'})
    record.answers = {1: frozenset({'overlay', 'depth'}), 2: frozenset({'overlay'})}
    record._unfilmed = {2}
    assert (record.lacking(1), record.lacking(2)) == ({'camera_info'}, {'depth'})
    record.answers[2] |= {'depth'}
    assert record.complete(2) and not record.complete(1)

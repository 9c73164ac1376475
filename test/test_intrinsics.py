# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cameras that a user gives to the commands."""

import argparse
import json
import math

import cv2
import numpy as np
import pytest

from adamtl_ros import cli
from adamtl_ros import intrinsics
from adamtl_ros.arguments import add_camera
from adamtl_ros.arguments import given_camera
from adamtl_ros.camera import Camera
from adamtl_ros.intrinsics import Intrinsics

CALIBRATION = """
image_width: 640
image_height: 480
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 310, 0, 510, 250, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [500, 0, 310, 0, 0, 510, 250, 0, 0, 0, 1, 0]}
"""
ECHO = """
header: {stamp: {sec: 3, nanosec: 4}, frame_id: head}
height: 480
width: 640
distortion_model: plumb_bob
d: [0.1, 0.0, 0.0, 0.0, 0.0]
k: [500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [500.0, 0.0, 310.0, 0.0, 0.0, 510.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
"""
CAMERA = Camera(640, 480, 500.0, 510.0, 310.0, 250.0)


@pytest.mark.parametrize('text', [CALIBRATION, ECHO])
def test_calibration_files(tmp_path, text):
    path = tmp_path / 'head.yaml'
    path.write_text(text)
    known = Intrinsics(intrinsics.read(path))
    assert known.camera((640, 480)) == CAMERA
    assert known.camera((320, 240)) == CAMERA.resized(320, 240)
    assert known.camera((1281, 961)) == CAMERA.resized(1281, 961)
    with pytest.raises(ValueError, match='of 640 x 480 pixels, the picture has 1280 x 720'):
        known.camera((1280, 720))


@pytest.mark.parametrize('text, words', [
    ('', 'no mapping'), ('- 1', 'no mapping'), ('a: [', 'flow'), ('a: 1', 'missing'),
    (CALIBRATION.replace('image_width', 'w'), 'image_width.* is missing'),
    (CALIBRATION.replace('[500, 0, 310, 0, 510', '[500, 0, 310, 0'), '8 values of k'),
    (CALIBRATION.replace('510', '-510'), 'above 0'), (CALIBRATION.replace('510', 'far'), 'far'),
    (ECHO.replace('k: [500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0]',
                  'k: [0, 0, 0, 0, 0, 0, 0, 0, 0]'), 'not calibrated')])
def test_files_that_are_none(tmp_path, text, words):
    path = tmp_path / 'head.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'head.yaml: not a camera_info.*{words}'):
        intrinsics.read(path)


def test_an_angle_of_view():
    camera = Intrinsics(hfov=90.0).camera((640, 480))
    assert camera.fx == camera.fy == pytest.approx(320)
    assert (camera.cx, camera.cy) == (319.5, 239.5)
    assert Intrinsics().camera((640, 480)) is None


@pytest.mark.parametrize('given', [['--hfov', '180'], ['--hfov', 'wide'], ['--hfov', 'nan'],
                                   ['--hfov', '60', '--camera', 'x.yaml']])
def test_wrong_arguments(given, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(['infer', 'x.png', '--out', 'o', *given])
    assert caught.value.code == 2
    assert '--hfov' in capsys.readouterr().err


def test_infer_takes_the_camera(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    calibration = tmp_path / 'head.yaml'
    calibration.write_text(CALIBRATION)
    depths, lenses = [], []
    focal = 0.67 * 64
    for number, given in enumerate((
            [], ['--hfov', str(math.degrees(2 * math.atan(32 / focal)))],
            ['--hfov', str(math.degrees(2 * math.atan(16 / focal)))],
            ['--camera', str(calibration)], ['--hfov', '140'])):
        out = tmp_path / str(number)
        assert cli.main(['infer', str(tmp_path / 'x.png'), '--mode', 'static', '--tasks', 'depth',
                         '--out', str(out), *given]) == 0
        depths.append(np.load(out / 'x.npz')['depth'])
        lenses.append(json.loads((out / 'x.json').read_text())['lens'])
    assert lenses == ['nominal', 'given', 'given', 'given', 'extreme']
    np.testing.assert_allclose(depths[1], depths[0], rtol=1e-5)
    np.testing.assert_allclose(depths[2], 2 * depths[0], rtol=1e-5)
    ratio = math.sqrt(500 * 510) / 640 / 0.67
    np.testing.assert_allclose(depths[3], ratio * depths[0], rtol=1e-5)
    assert 'outside of what' in capsys.readouterr().out
    assert cli.main(['infer', str(tmp_path / 'x.png'), '--out', str(tmp_path / 'o'), '--camera',
                     str(tmp_path / 'none.yaml')]) == 2
    assert 'none.yaml' in capsys.readouterr().err


def test_the_options_are_those_given():
    parser = argparse.ArgumentParser()
    add_camera(parser, 'none')
    assert given_camera(parser.parse_args([])) == Intrinsics()
    assert given_camera(parser.parse_args(['--hfov', '60'])) == Intrinsics(hfov=60.0)

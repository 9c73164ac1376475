# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which camera a CameraInfo says is behind a picture, and which one belongs to a picture."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adamtl_ros.calibration import Calibrations
from adamtl_ros.calibration import camera_of
from adamtl_ros.calibration import distorted
from adamtl_ros.calibration import is_rectified
from adamtl_ros.calibration import KEPT
from adamtl_ros.calibration import Lens
from adamtl_ros.camera import Camera

K = (600.0, 0.0, 321.0, 0.0, 610.0, 243.0, 0.0, 0.0, 1.0)
P = (500.0, 0.0, 300.0, 0.0, 0.0, 510.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def info(**changes: Any) -> SimpleNamespace:
    """Return a CameraInfo of a VGA camera."""
    roi = SimpleNamespace(**dict(zip(
        ('x_offset', 'y_offset', 'width', 'height'), changes.pop('roi', (0, 0, 0, 0)))))
    header = SimpleNamespace(
        stamp=changes.pop('stamp', 0), frame_id=changes.pop('frame', 'optical'))
    return SimpleNamespace(**{
        'header': header, 'width': 640, 'height': 480, 'k': K, 'p': P, 'd': (), 'roi': roi,
        'binning_x': 0, 'binning_y': 0, **changes})


def test_of_the_whole_sensor():
    assert camera_of(info(), (640, 480)) == Camera(640, 480, 600, 610, 321, 243)
    assert camera_of(info(), (640, 480), rectified=True) == Camera(640, 480, 500, 510, 300, 200)
    # Drivers that give no P mean K.
    assert camera_of(info(p=(0.0,) * 12), (640, 480), rectified=True).fx == 600
    # Drivers that give no size mean that of the picture.
    assert camera_of(info(width=0, height=0), (320, 200)).width == 320


def test_a_region_moves_the_axis_and_keeps_the_focal_length():
    part = camera_of(info(roi=(100, 50, 320, 200)), (320, 200))
    assert part == Camera(320, 200, 600, 610, 221, 193)
    # The same direction is seen by the same pixel of the sensor.
    whole = camera_of(info(), (640, 480)).rays()
    assert part.rays()[10, 20] == pytest.approx(whole[60, 120], abs=1e-6)
    assert camera_of(info(roi=(100, 50, 320, 200)), (640, 480)).width == 640


@pytest.mark.parametrize('size', [(320, 240), (213, 160), (214, 160)])
def test_binning_shortens_the_focal_length(size):
    bins = round(640 / size[0])
    binned = camera_of(info(binning_x=bins, binning_y=bins), size)
    assert (binned.width, binned.height) == size
    assert binned.fx == pytest.approx(600 / bins)
    # The middle of the bin at (10, 20) looks along the middle of the pixels that it is made of.
    whole = camera_of(info(), (640, 480)).rays()
    pixels = whole[20 * bins:21 * bins, 10 * bins:11 * bins].mean((0, 1))
    assert binned.rays()[20, 10] == pytest.approx(pixels / np.linalg.norm(pixels), abs=1e-3)


def test_of_a_binned_region():
    both = camera_of(info(roi=(100, 50, 320, 200), binning_x=2, binning_y=2), (160, 100))
    assert both.fx == 300
    assert both.cx == pytest.approx((221 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(('changes', 'size', 'words'), [
    ({}, (320, 240), ('640 x 480', '320 x 240')),
    ({'binning_x': 2, 'binning_y': 2}, (640, 480), ('binned 2 x 2', '640 x 480')),
    ({'roi': (0, 0, 100, 100)}, (99, 100), ('region of interest 100 x 100', '99 x 100')),
    ({'k': (-1.0, *K[1:])}, (640, 480), ('camera_info is wrong', '-1.0')),
    ({'k': (float('nan'), *K[1:])}, (640, 480), ('camera_info is wrong', 'nan')),
])
def test_what_does_not_fit_is_refused(changes, size, words):
    with pytest.raises(ValueError) as error:
        camera_of(info(**changes), size)
    assert all(word in str(error.value) for word in words), error.value


def test_zeros_are_uncalibrated():
    assert camera_of(info(k=(0.0,) * 9), (640, 480)) is None


def test_distortion_and_rectification():
    assert distorted(info(d=(0.0, -0.1)))
    assert not distorted(info(d=(0.0,) * 5))
    for topic in ('/left/image_rect', '/image_rect_color', '/image_rect/compressed'):
        assert is_rectified(topic), topic
    for topic in ('/image_raw', '/rect/image_raw', '/direct', '/image_raw/compressed'):
        assert not is_rectified(topic), topic


def test_the_one_with_the_stamp_of_the_picture_or_else_the_latest():
    kept = Calibrations()
    header = SimpleNamespace(stamp=3, frame_id='optical')
    assert kept.lens(header, (640, 480)) == Lens()
    infos = [info(stamp=stamp) for stamp in range(KEPT + 3)]
    for each in infos:
        kept.put(each)
    assert kept.lens(header, (640, 480)).info is infos[3]
    header.stamp = 1  # too long ago
    assert kept.lens(header, (640, 480)).info is infos[-1]
    kept.clear()
    assert kept.lens(header, (640, 480)).info is None


@pytest.mark.parametrize(('changes', 'words', 'refused'), [
    ({'frame': 'other'}, ("'other'", "'optical'", 'remap camera_info'), True),
    ({'width': 1280}, ('1280 x 480', '640 x 480'), True),
    ({'k': (0.0,) * 9}, ('not calibrated',), False),
])
def test_a_lens_that_is_not_known_is_nominal_and_says_why(changes, words, refused):
    kept = Calibrations()
    kept.put(info(**changes))
    lens = kept.lens(SimpleNamespace(stamp=0, frame_id='optical'), (640, 480))
    assert (lens.camera, lens.refused) == (None, refused)
    assert (lens.info is None) == refused
    assert all(word in lens.words for word in ('nominal', *words)), lens.words


def test_a_picture_that_is_not_rectified_says_so():
    kept = Calibrations()
    kept.put(info(d=(0.1, 0.0, 0.0, 0.0, 0.0)))
    header = SimpleNamespace(stamp=0, frame_id='optical')
    raw, rectified = (
        kept.lens(header, (640, 480), rectified=rectified) for rectified in (False, True))
    assert raw.distorted
    assert 'not rectified' in raw.words
    assert not rectified.distorted
    assert rectified.words == 'fx 500 of 640 pixels'

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Clouds of points against surfaces that are known."""

import cv2
import numpy as np
import pytest

from adamtl_ros.camera import Camera
from adamtl_ros.runtime.points import point_type
from adamtl_ros.runtime.points import points
from adamtl_ros.runtime.points import shape

CAMERA = Camera(256, 192, 170.0, 175.0, 120.0, 100.0)


def floor_and_wall(camera: Camera = CAMERA) -> np.ndarray:
    """Return depth (h, w) of a floor 1.4 m below the camera and a wall 3 m before it."""
    down = (np.arange(camera.height) - camera.cy) / camera.fy
    floor = np.where(down > 0, 1.4 / np.maximum(down, 1e-9), np.inf)
    return np.repeat(np.minimum(floor, 3.0)[:, None], camera.width, 1).astype(np.float32)


def known(cloud: np.ndarray) -> np.ndarray:
    """Return bool (h, w): which points have all of x, y and z; the others have none."""
    finite = np.stack([np.isfinite(cloud[name]) for name in 'xyz'])
    assert (finite.all(0) == finite.any(0)).all()
    return finite.all(0)


@pytest.mark.parametrize('stride', [1, 2, 5])
def test_points_lie_on_the_surfaces(stride):
    cloud = points(floor_and_wall(), CAMERA, stride=stride)
    assert cloud.shape == shape((192, 256), stride)
    assert known(cloud).all()
    on_floor, on_wall = np.isclose(cloud['y'], 1.4, atol=1e-5), np.isclose(cloud['z'], 3.0)
    assert (on_floor | on_wall).all() and on_floor.any() and on_wall.any()
    # Organised as the picture: each point is on the ray of its pixel.
    v, u = np.mgrid[:192:stride, :256:stride]
    np.testing.assert_allclose(cloud['x'] / cloud['z'] * CAMERA.fx + CAMERA.cx, u, atol=1e-3)
    np.testing.assert_allclose(cloud['y'] / cloud['z'] * CAMERA.fy + CAMERA.cy, v, atol=1e-3)


@pytest.mark.parametrize('reach', [1, 5])
def test_there_is_nothing_between_two_surfaces(reach):
    """A box before a wall, blurred as upsampling does: no point lies between them."""
    depth = np.full((192, 256), 4.0, np.float32)
    depth[60:140, 80:160] = 1.5
    coarse = cv2.resize(depth, (64, 48), interpolation=cv2.INTER_AREA)
    depth = cv2.resize(coarse, (256, 192), interpolation=cv2.INTER_LINEAR)
    camera = CAMERA
    if reach > 1:
        depth = cv2.resize(depth, (1280, 960), interpolation=cv2.INTER_NEAREST)
        camera = CAMERA.resized(1280, 960)
    assert ((depth > 1.6) & (depth < 3.8)).sum() > 1000
    cloud = points(depth, camera, reach=reach)
    z = cloud['z'][known(cloud)]
    assert ((z < 1.5 * 1.1) | (z > 4 / 1.1)).all()
    assert ((z < 1.51) | (z > 3.99)).mean() > 0.999
    assert known(cloud).mean() > 0.8 and (z < 2).any()
    assert known(points(depth, camera, edge=0.0)).all()


def test_limits_and_what_is_no_depth():
    depth = np.full((192, 256), 2.0, np.float32)
    depth[:50], depth[50:100], depth[0, 0] = 0.1, 9.0, np.nan
    cloud = points(depth, CAMERA, nearest=0.2, farthest=8.0, edge=0)
    assert (known(cloud) == (depth == 2)).all()


def test_colour_and_class_are_those_of_the_pixel():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (192, 256, 3), np.uint8)
    classes = rng.integers(0, 18, (192, 256), np.uint8)
    cloud = points(floor_and_wall(), CAMERA, colour=colour, classes=classes, stride=3)
    assert cloud.dtype == point_type(colour=True, classes=True)
    assert (cloud['class'] == classes[::3, ::3]).all()
    for channel, shift in enumerate((16, 8, 0)):
        assert (cloud['rgb'] >> shift & 255 == colour[::3, ::3, channel]).all()


def test_classes_of_16_bits():
    classes = np.full((192, 256), 299, np.uint16)
    cloud = points(floor_and_wall(), CAMERA, classes=classes)
    assert cloud.dtype == point_type(classes=True, wide=True)
    assert (cloud['class'] == 299).all() and str(cloud['class'].dtype) == 'uint16'


def test_layouts():
    assert point_type().itemsize == point_type(colour=True).itemsize == 16
    assert point_type(colour=True, classes=True).itemsize == 32
    fields = point_type(colour=True, classes=True).fields
    assert [(name, str(kind), offset) for name, (kind, offset) in fields.items()] == [
        ('x', 'float32', 0), ('y', 'float32', 4), ('z', 'float32', 8), ('rgb', 'uint32', 12),
        ('class', 'uint8', 16)]
    assert [(name, offset) for name, (_, offset) in point_type(classes=True).fields.items()][
        -1] == ('class', 12)


def test_points_are_written_where_told():
    memory = bytearray(192 * 256 * 16)
    out = np.frombuffer(memory, point_type()).reshape(192, 256)
    assert points(floor_and_wall(), CAMERA, out=out) is out
    assert np.frombuffer(memory, np.float32)[2] == 3.0


def test_sizes_must_fit():
    depth = floor_and_wall()
    with pytest.raises(ValueError, match='of 256 x 192 for a camera of 128 x 96'):
        points(depth, CAMERA.resized(128, 96))
    with pytest.raises(ValueError, match='picture of 64 x 48'):
        points(depth, CAMERA, classes=np.zeros((48, 64), np.uint8))

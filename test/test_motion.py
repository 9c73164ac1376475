# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Optical flow between pictures, and results that are warped along it."""

import cv2
import numpy as np
import pytest

from adamtl_ros.runtime.motion import CELL
from adamtl_ros.runtime.motion import cells
from adamtl_ros.runtime.motion import difference
from adamtl_ros.runtime.motion import Flow
from adamtl_ros.runtime.motion import maps
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.motion import RISE

SIZE = (192, 256)


def world(seed=0):
    """Return a large textured picture, of which a camera sees a part."""
    generator = np.random.default_rng(seed)
    fine, coarse = (
        cv2.resize(generator.integers(0, 255, (*shape, 3)).astype(np.uint8), (512, 448),
                   interpolation=cv2.INTER_CUBIC) for shape in ((90, 100), (12, 14)))
    return cv2.addWeighted(fine, 0.3, coarse, 0.7, 0)


def seen(x, y, seed=0):
    """Return what a camera sees that looks from (x, y)."""
    return np.ascontiguousarray(
        world(seed)[100 + y:100 + y + SIZE[0], 100 + x:100 + x + SIZE[1]])


@pytest.mark.parametrize(('x', 'y'), [(0, 0), (3, 0), (-2, 4), (9, -6)])
def test_what_a_camera_turned_past_is_found_and_results_go_along(x, y):
    motion = Flow(seen(0, 0)).to(seen(x, y), 1)
    inner = slice(24, -24), slice(24, -24)
    assert np.abs(motion.flow[inner] - (x, y)).mean() < 0.5
    assert motion.rise < 0.1 * RISE
    ids = (world()[..., 0] // 64).astype(np.uint8)
    before, now = (ids[100 + b:100 + b + SIZE[0], 100 + a:100 + a + SIZE[1]]
                   for a, b in ((0, 0), (x, y)))
    warped = motion.warped('semseg', before)
    assert (warped == now)[inner].mean() > 0.9
    if (x, y) != (0, 0):
        assert (before == now)[inner].mean() < (warped == now)[inner].mean()
    else:
        assert np.array_equal(warped, before)


def test_a_large_motion_is_found_if_it_was_followed():
    flow = Flow(seen(0, 0))
    motions = [flow.to(seen(20 * age, 0), age) for age in (1, 2, 3)]
    alone = Flow(seen(0, 0)).to(seen(60, 0), 3)
    inner = slice(24, -24), slice(24, -84)
    followed, lost = (np.abs(each.flow[inner] - (60, 0)).mean() for each in (motions[-1], alone))
    assert followed < 1.0 < lost
    # What came into the picture was not in the one before.
    assert motions[0].rise <= motions[1].rise <= motions[2].rise < alone.rise


def test_another_scene_is_worth_nothing_of_what_was_seen():
    assert Flow(seen(0, 0, 1)).to(seen(0, 0, 2), 1).rise > 0.5 * RISE


def test_a_thing_that_comes_is_seen_in_its_share_of_the_picture():
    before, now = seen(0, 0), seen(0, 0)
    now[40:40 + 5 * CELL, 80:80 + 6 * CELL] = (250, 20, 20)
    rise = Flow(before).to(now, 1).rise
    assert 0.5 <= rise / (RISE * 30 / (24 * 32)) <= 1.5


def half(x):
    """Return the Motion of a picture of which all was so many pixels further right."""
    flow = np.zeros((*SIZE, 2), np.float32)
    flow[..., 0] = x
    return Motion(flow, maps(flow), 0.0)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_between_two_classes_there_is_none(kind):
    ids = np.zeros(SIZE, kind)
    ids[:, 128:] = 7
    warped = half(2.5).warped('semseg', ids)
    assert warped.dtype == kind and set(np.unique(warped)) == {0, 7}
    assert np.array_equal(warped[:, :120], ids[:, :120])


def test_depth_has_nothing_between_two_surfaces_and_normals_stay_of_length_one():
    depth = np.full(SIZE, 1.0, np.float32)
    depth[:, 128:] = 4.0
    assert set(np.unique(half(0.4).warped('depth', depth))) == {1.0, 4.0}
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[:, :128, 0], normals[:, 128:, 2], normals[:50] = 1.0, -1.0, np.nan
    warped = half(0.4).warped('normals', normals)
    length = np.linalg.norm(warped, axis=-1)
    assert np.isnan(length[:50]).all() and np.allclose(length[50:], 1.0)


def test_maps_stay_within_their_range_and_nothing_comes_from_outside():
    values = np.random.default_rng(0).uniform(0, 1, SIZE).astype(np.float32)
    warped = half(300.0).warped('saliency', values)
    assert warped.min() >= 0.0 and warped.max() <= 1.0
    # The edge of the picture goes on.
    assert np.allclose(warped, values[:, -1:])


def test_cells_are_means_and_their_difference_of_colours():
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:8, 8:16] = (30, 60, 90)
    assert cells(picture).shape == (2, 3, 3)
    expected = np.zeros((2, 3))
    expected[0, 1] = 60
    assert np.array_equal(difference(picture, np.zeros_like(picture)), expected)


@pytest.mark.parametrize('size', [(32, 32), (32, 96), (224, 160)])
def test_every_size_of_the_input_has_a_flow(size):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    motion = Flow(picture).to(picture, 1)
    assert motion.flow.shape == (*size, 2) and motion.rise == 0.0


def test_the_picture_may_be_written_into_afterwards():
    picture = seen(0, 0)
    flow = Flow(picture)
    picture[:] = 0
    assert flow.to(seen(0, 0), 1).rise == 0.0

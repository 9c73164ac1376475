# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Optical flow between pictures, and results that are warped along it."""

import cv2
import numpy as np
import pytest

from adamtl_ros.runtime.motion import CELL
from adamtl_ros.runtime.motion import cells
from adamtl_ros.runtime.motion import difference
from adamtl_ros.runtime.motion import EARLIER
from adamtl_ros.runtime.motion import Flow
from adamtl_ros.runtime.motion import MOST_PLANES
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.motion import RISE
from adamtl_ros.runtime.motion import STEP
from adamtl_ros.tasks import TASKS

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


def flow_of(motion):
    """Return the flow of a Motion at the picture's size, in the picture's pixels."""
    return STEP * motion.flow.repeat(STEP, 0).repeat(STEP, 1)


@pytest.mark.parametrize(('x', 'y'), [(0, 0), (3, 0), (-2, 4), (9, -6)])
def test_what_a_camera_turned_past_is_found_and_results_go_along(x, y):
    motion = Flow(seen(0, 0)).to(seen(x, y), 1)
    inner = slice(24, -24), slice(24, -24)
    assert np.abs(flow_of(motion)[inner] - (x, y)).mean() < 0.5
    assert motion.rise < 0.1 * RISE
    ids = (world()[..., 0] // 64).astype(np.uint8)
    before, now = (ids[100 + b:100 + b + SIZE[0], 100 + a:100 + a + SIZE[1]]
                   for a, b in ((0, 0), (x, y)))
    warped = motion.warped(before)
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
    followed, lost = (
        np.abs(flow_of(each)[inner] - (60, 0)).mean() for each in (motions[-1], alone))
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
    flow = np.zeros((SIZE[0] // STEP, SIZE[1] // STEP, 2), np.float32)
    flow[..., 0] = x / STEP
    return Motion(flow, np.ones((SIZE[0] // CELL, SIZE[1] // CELL), np.float32), 0.0)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_between_two_classes_there_is_none(kind):
    ids = np.zeros(SIZE, kind)
    ids[:, 128:] = 7
    warped = half(2.5).warped(ids)
    assert warped.dtype == kind and set(np.unique(warped)) == {0, 7}
    assert np.array_equal(warped[:, :120], ids[:, :120])


def test_depth_has_nothing_between_two_surfaces_and_normals_stay_of_length_one():
    depth = np.full(SIZE, 1.0, np.float32)
    depth[:, 128:] = 4.0
    assert set(np.unique(half(0.4).warped(depth))) == {1.0, 4.0}
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[:, :128, 0], normals[:, 128:, 2], normals[:50] = 1.0, -1.0, np.nan
    warped = half(0.4).warped(normals)
    length = np.linalg.norm(warped, axis=-1)
    assert np.isnan(length[:50]).all() and np.allclose(length[50:], 1.0)


def test_maps_stay_within_their_range_and_nothing_comes_from_outside():
    values = np.random.default_rng(0).uniform(0, 1, SIZE).astype(np.float32)
    warped = half(300.0).warped(values)
    assert warped.min() >= 0.0 and warped.max() <= 1.0
    # The edge of the picture goes on.
    assert np.allclose(warped, values[:, -1:])


def test_cells_are_means_and_their_difference_of_colours():
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:8, 8:16] = (30, 60, 90)
    assert cells(picture).shape == (2, 3, 3)
    expected = np.zeros((2, 3))
    expected[0, 1] = 60
    np.testing.assert_allclose(difference(picture, np.zeros_like(picture)), expected, rtol=1e-6)


# What is averaged


def planes(number, seed=0, size=(48, 64)):
    """Return float32 planes of smooth values, as decoders give them."""
    small = np.random.default_rng(seed).normal(0, 3, (number, 6, 8)).astype(np.float32)
    return np.stack([cv2.resize(plane, size[::-1]) for plane in small])


@pytest.mark.parametrize(('task', 'number', 'size'), [
    ('semseg', 18, (48, 64)), ('depth', 1, (48, 64)), ('edges', 1, (96, 128)),
    ('normals', 3, (40, 56)), ('saliency', 1, (192, 256)), ('semseg', MOST_PLANES + 3, (6, 8))])
def test_the_mean_is_of_the_same_places(task, number, size):
    """Of each kind with its own share, whatever the size of what its decoder says."""
    x = 32
    step = size[1] / SIZE[1]
    earlier, now = planes(number, 1, size), planes(number, 2, size)
    mean = half(x).averaged({task: now}, {task: earlier})[task]
    share = EARLIER[TASKS[task].kind]
    kept = size[1] - round(x * step)
    expected = (1 - share) * now[..., :kept] + share * earlier[..., -kept:]
    assert mean.dtype == np.float32 and mean.flags.c_contiguous
    np.testing.assert_allclose(mean[..., :kept], expected, atol=1e-4)


def test_where_the_picture_shows_something_else_what_was_said_before_does_not_count():
    before, now = seen(0, 0), seen(6, 0)
    now[40:40 + 6 * CELL, 80:80 + 6 * CELL] = (250, 20, 20)
    motion = Flow(before).to(now, 1)
    one, other = planes(4, 1), planes(4, 2)
    mean = motion.averaged({'semseg': one}, {'semseg': other})['semseg']
    changed = np.abs(mean - one).mean(0)
    # The thing that came, but for its edge, and what the camera turned to at the right.
    assert changed[12:20, 22:30].max() == 0.0
    assert changed[:, -1].mean() < 0.1 * changed[:, 2:16].mean()


def test_what_cannot_be_averaged_is_as_it_is_said_now():
    now = {'semseg': planes(3), 'depth': planes(1), 'edges': planes(1)}
    earlier = {'depth': planes(1, 1, (24, 32)), 'edges': planes(1, 1)}
    mean = half(0).averaged(now, earlier)
    assert list(mean) == list(now)
    assert mean['semseg'] is now['semseg'] and mean['depth'] is now['depth']
    assert not np.array_equal(mean['edges'], now['edges'])


@pytest.mark.parametrize('size', [(48, 64), (96, 128), (6, 600)])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_was_not_finite_once_is_gone_with_the_next_frame(value, size):
    earlier = planes(18, 1, size)
    earlier[7, 3, 5] = value
    now = {'semseg': planes(18, 2, size)}
    assert half(0).averaged(now, {'semseg': earlier})['semseg'] is now['semseg']


@pytest.mark.parametrize('size', [(32, 32), (32, 96), (224, 160)])
def test_every_size_of_the_input_has_a_flow(size):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    motion = Flow(picture).to(picture, 1)
    assert motion.flow.shape == (size[0] // STEP, size[1] // STEP, 2) and motion.rise == 0.0
    assert motion.warped(picture).shape == picture.shape
    said = {'normals': planes(3, 1, (size[0] // 4, size[1] // 4))}
    np.testing.assert_allclose(
        motion.averaged(said, said)['normals'], said['normals'], atol=1e-5)


def test_the_picture_may_be_written_into_afterwards():
    picture = seen(0, 0)
    flow = Flow(picture)
    picture[:] = 0
    assert flow.to(seen(0, 0), 1).rise == 0.0

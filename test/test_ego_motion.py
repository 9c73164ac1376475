# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the camera moved, from flow and depth, and what that changes of depth and normals."""

import cv2
import numpy as np
import pytest

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.runtime.ego_motion import ego_motion
from adamtl_ros.runtime.ego_motion import moved_logits
from adamtl_ros.runtime.ego_motion import moved_results
from adamtl_ros.runtime.geometry import geometry
from adamtl_ros.runtime.motion import CELL
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.motion import STEP

CAMERA = Camera(256, 192, 160.0, 150.0, 120.0, 100.0)
PLANES = np.array([[0.0, 1.0, 0.0], [0.3, 0.0, 1.0], [-1.0, 0.0, 0.4]])
FAR = np.array([1.4, 3.0, 2.5])
"""Floor and two walls: points of which `PLANES @ point` is `FAR`."""


def met(rays, planes, far):
    """Return (h, w), how far along rays (h, w, 3) of z = 1 a plane is met, and which."""
    with np.errstate(divide='ignore'):
        distance = far / (rays @ planes.T)
    distance[distance <= 0] = np.inf
    return distance.min(-1), distance.argmin(-1)


def rays(camera, x, y):
    return np.stack((
        (x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)), -1)


def moved(turn, shift, camera=CAMERA):
    """
    Return the Motion of a camera that turned (rad) and of points that shifted (m), by its frame.

    And depth and normals of the earlier picture, then of this one.
    """
    rotation, shift = cv2.Rodrigues(np.array(turn, float))[0], np.array(shift, float)
    x, y = np.meshgrid(np.arange(camera.width, dtype=float), np.arange(camera.height, dtype=float))
    before, which = met(rays(camera, x, y), PLANES, FAR)
    normals = -PLANES / np.linalg.norm(PLANES, axis=1, keepdims=True)
    # Of P = R p + t the planes are R n, and the distances d + R n . t.
    planes = PLANES @ rotation.T
    now, here = met(rays(camera, x, y), planes, FAR + planes @ shift)
    points = (rays(camera, x, y) * now[..., None] - shift) @ rotation
    places = points / points[..., 2:]
    flow = np.stack((places[..., 0] * camera.fx + camera.cx - x,
                     places[..., 1] * camera.fy + camera.cy - y), -1).astype(np.float32) / STEP
    size = camera.width // STEP, camera.height // STEP
    same = np.ones((camera.height // CELL, camera.width // CELL), np.float32)
    return Motion(cv2.resize(flow, size, interpolation=cv2.INTER_AREA), same, 0.0), (
        before.astype(np.float32), normals[which].astype(np.float32)), (
        now.astype(np.float32), (normals @ rotation.T)[here].astype(np.float32)), rotation


@pytest.mark.parametrize('turn, shift', [
    ((0.0, 0.05, 0.0), (0, 0, 0)), ((0.03, -0.04, 0.02), (0.05, 0.02, -0.15)),
    ((0, 0, 0), (0, 0, -0.3)), ((0.0, -0.1, 0.0), (0.1, 0, 0))])
def test_turn_and_shift_are_found(turn, shift):
    motion, (depth, normals), (now, facing), rotation = moved(turn, shift)
    found = ego_motion(motion, CAMERA, depth)
    off = np.degrees(np.linalg.norm(cv2.Rodrigues(found.rotation @ rotation.T)[0]))
    assert off < 0.3 + 0.1 * np.degrees(np.linalg.norm(turn))
    assert np.linalg.norm(found.shift - shift) < 0.03
    inner = slice(40, -40), slice(40, -40)

    def wrong(depths, vectors):
        angles = np.degrees(np.arccos((vectors * facing).sum(-1).clip(-1, 1)))
        return np.median(np.abs(depths / now - 1)[inner]), angles[inner].mean()

    plain = wrong(motion.warped(depth), motion.warped(normals))
    better = wrong(*(motion.warped(value) for value in (
        found.depth(depth, CAMERA), found.normals(normals))))
    assert better[0] < 0.012 and better[1] < 0.5 * plain[1] + 0.3
    if shift[2]:
        assert better[0] < 0.3 * plain[0]


def test_it_does_not_matter_at_which_size_camera_and_depth_are():
    motion, (depth, _), _, _ = moved((0.02, 0.05, 0.0), (0.05, 0, -0.1))
    one = ego_motion(motion, CAMERA, depth)
    other = ego_motion(motion, CAMERA.resized(640, 480), cv2.resize(
        depth, (64, 48), interpolation=cv2.INTER_NEAREST_EXACT))
    assert np.abs(one.rotation - other.rotation).max() < 2e-3
    assert np.abs(one.shift - other.shift).max() < 0.01
    small = cv2.resize(depth, (64, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(
        one.depth(small, CAMERA), cv2.resize(
            one.depth(depth, CAMERA), (64, 48), interpolation=cv2.INTER_AREA), rtol=2e-3)


def test_what_moves_by_itself_tells_nothing():
    motion, (depth, _), _, rotation = moved((0.0, 0.05, 0.0), (0, 0, 0))
    motion.flow[30:80, 20:70] += (6.0, 2.0)
    found = ego_motion(motion, CAMERA, depth)
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(found.rotation @ rotation.T)[0])) < 0.5
    motion.same[4:20, 4:18] = 0
    motion.flow[30:80, 20:70] = 500.0
    found = ego_motion(motion, CAMERA, depth)
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(found.rotation @ rotation.T)[0])) < 0.5


def test_depth_that_is_no_number_tells_nothing():
    motion, (depth, _), _, rotation = moved((0.0, 0.05, 0.0), (0.05, 0, -0.1))
    depth[:30], depth[30:40], depth[80:90, :50] = np.nan, np.inf, -np.inf
    found = ego_motion(motion, CAMERA, depth)
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(found.rotation @ rotation.T)[0])) < 1.0
    depth[:] = np.nan
    assert ego_motion(motion, CAMERA, depth) is not None


@pytest.mark.parametrize('turn, shift, least', [
    ((0.02, 0.06, -0.01), (0, 0, 0), 0.5), ((0, 0, 0), (0.1, 0, 0), 1.0),
    ((0, 0, 0), (0, 0.05, -0.1), 0.5), ((0, 0.05, 0), (0.1, 0, 0), 1.0)])
def test_without_depth_turns_are_found_and_shifts_are_not_taken_for_them(turn, shift, least):
    motion, _, _, rotation = moved(turn, shift)
    found = ego_motion(motion, CAMERA, None)
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(found.rotation @ rotation.T)[0])) < least


def test_what_no_camera_does_is_not_believed():
    motion, (depth, _), _, _ = moved((0, 0, 0), (0, 0, -1.2))
    assert ego_motion(motion, CAMERA, depth) is None


def test_a_camera_that_stands_and_one_that_nothing_tells_of():
    motion, (depth, _), _, _ = moved((0, 0, 0), (0, 0, 0))
    motion.flow[40:60, 40:60] = 3.0
    assert ego_motion(motion, CAMERA, depth) is None
    motion, (depth, _), _, _ = moved((0.0, 0.05, 0.0), (0, 0, 0))
    motion.same[2:] = 0
    assert ego_motion(motion, CAMERA, depth) is None
    rng = np.random.default_rng(0)
    motion = Motion(rng.normal(0, 100, motion.flow.shape).astype(np.float32),
                    np.ones_like(motion.same), 0.0)
    assert ego_motion(motion, CAMERA, depth) is None


def test_normals_stay_unit_vectors_and_what_is_none_stays_none():
    motion, (depth, normals), _, _ = moved((0.02, 0.05, 0.0), (0, 0, 0))
    normals[:20] = np.nan
    turned = ego_motion(motion, CAMERA, depth).normals(normals)
    assert np.isnan(turned[:20]).all()
    np.testing.assert_allclose(np.linalg.norm(turned[20:], axis=-1), 1.0, rtol=1e-5)


def test_depth_stays_above_nothing():
    motion, (depth, _), _, _ = moved((0, 0, 0), (0, 0, -0.5))
    found = ego_motion(motion, CAMERA, depth)
    assert found.depth(np.full((12, 16), 0.2, np.float32), CAMERA).min() == pytest.approx(0.02)


@pytest.mark.parametrize('focal, middle', [
    (CANONICAL_FOCAL, 127.5), (0.7 * CANONICAL_FOCAL, 127.5), (2 * CANONICAL_FOCAL, 127.5),
    (1.2 * CANONICAL_FOCAL, 180.0)])
def test_what_decoders_said_becomes_what_they_would_say_now(focal, middle):
    camera = Camera(256, 192, focal, 0.95 * focal, middle, 95.5)
    lens = geometry(camera, True)
    motion, before, now, _ = moved((0.03, -0.06, 0.02), (0.1, 0.0, -0.3), camera)

    def logits(depth, normals):
        small = [cv2.resize(part, (64, 48), interpolation=cv2.INTER_AREA)
                 for part in (depth, normals)]
        return {'depth': np.log(small[0] / lens.depth_ratio)[None].astype(np.float32),
                'normals': np.einsum('ijhw,hwi->jhw', lens.turns((48, 64)), small[1]),
                'semseg': np.ones((3, 48, 64), np.float32)}

    said, goal = logits(*before), logits(*now)
    found = moved_logits(said, motion, lens)
    assert found['semseg'] is said['semseg']
    places = np.indices((48, 64), np.float32)[::-1] + cv2.resize(
        motion.flow, (64, 48), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) / 2
    for task, least in (('depth', 0.02), ('normals', 0.01)):
        apart = [np.median(np.abs(goal[task] - np.stack([cv2.remap(
            plane, *places, cv2.INTER_LINEAR) for plane in each[task]]))[:, 8:-8, 8:-8])
            for each in (said, found)]
        assert apart[1] < least and apart[1] < apart[0] / 2, task
    assert moved_logits({'semseg': said['semseg']}, motion, lens).keys() == {'semseg'}
    # Nothing is said of depth: a turn is found all the same.
    motion = moved((0.03, -0.06, 0.02), (0, 0, 0), camera)[0]
    alone = moved_logits({'normals': said['normals']}, motion, lens)
    assert np.abs(alone['normals'] - said['normals']).max() > 0.02


def test_results_without_depth_and_normals_are_as_they_were():
    motion, (depth, normals), _, _ = moved((0.0, 0.05, 0.0), (0, 0, 0))
    ids = np.zeros((192, 256), np.uint8)
    results = moved_results({'semseg': ids, 'depth': depth, 'normals': normals}, motion, CAMERA)
    assert results['semseg'] is ids
    assert np.abs(results['normals'] - normals).max() > 0.02
    assert moved_results({'semseg': ids}, motion, CAMERA) == {'semseg': ids}

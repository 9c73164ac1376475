# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth and normals against a scene whose surfaces are known in every camera."""

from dataclasses import replace

import numpy as np
import pytest

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.camera import turned
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.geometry import Geometry
from adamtl_ros.runtime.geometry import resized_depth
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.runtime.publish import published
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import NOMINAL_FOCAL
from networks import CONFIGS
from networks import random_network

SIZE = (256, 192)
WHOLE = Camera(640, 480, 430.0, 425.0, 310.0, 250.0)
WIDE_SCREEN = Camera(1280, 720, 860.0, 860.0, 639.5, 359.5)
CAMERAS = {
    'whole': WHOLE, 'half': WHOLE.cropped(160, 120, 320, 240),
    'corner': WHOLE.cropped(300, 10, 320, 240), 'flat crop': WHOLE.cropped(100, 200, 480, 180),
    'mirrored': WHOLE.mirrored(), '16:9': WIDE_SCREEN}

PLANES = np.array([
    (0.0, -1.0, 0.0, 1.4), (0.6, 0.0, -0.8, 2.5), (-0.707, 0.0, -0.707, 3.0),
    (0.0, 0.1, -0.995, 4.0)])
"""Normals towards the camera, and the distances of the planes from it, in metres."""


def scene(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (h, w) in metres and unit normals (h, w, 3) of the nearest plane a pixel."""
    rays = camera.rays().astype(np.float64)
    rays /= rays[..., 2:]
    facing = rays @ PLANES[:, :3].T
    depths = np.where(facing < -1e-3, -PLANES[:, 3] / np.minimum(facing, -1e-3), np.inf)
    normals = PLANES[depths.argmin(-1), :3]
    return depths.min(-1), normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def said(camera: Camera, canonical: bool) -> dict[str, np.ndarray]:
    """
    Return what a network without a fault says: 'depth' (1, h, w) and 'normals' (3, h, w).

    It knows nothing of the lens.  To one that was taught what pictures show, a squashed picture
    is one of a squashed scene; what is canonical is as the training has it.
    """
    depth, normals = scene(camera)
    focal = camera.focal
    if canonical:
        nominal = Camera.nominal(camera.width, camera.height, CANONICAL_FOCAL)
        apparent = turned(normals, camera.rays(), nominal.rays())
        depth = depth * CANONICAL_FOCAL / focal
    else:
        apparent = normals * (focal / camera.fx, focal / camera.fy, 1)
        apparent /= np.linalg.norm(apparent, axis=-1, keepdims=True)
        depth = depth * NOMINAL_FOCAL * camera.width / focal
    return {
        'depth': np.log(depth)[None].astype(np.float32),
        'normals': apparent.transpose(2, 0, 1).astype(np.float32)}


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors, in degrees."""
    return np.degrees(2 * np.arcsin(np.linalg.norm(one - other, axis=-1) / 2))


@pytest.mark.parametrize('canonical', [False, True])
@pytest.mark.parametrize('name', CAMERAS)
def test_a_network_without_a_fault_gives_the_scene_through_any_lens(name, canonical):
    camera = CAMERAS[name].resized(*SIZE)
    depth, normals = scene(camera)
    for task, logits in said(camera, canonical).items():
        found = published(task, logits, SIZE[::-1], camera=camera, canonical=canonical)
        if task == 'depth':
            seen = depth < 40
            np.testing.assert_allclose(found[seen], depth[seen], rtol=1e-4)
        else:
            assert angles(found, normals).max() < 0.05


@pytest.mark.parametrize('canonical', [False, True])
@pytest.mark.parametrize('ran', [(160, 128), (224, 160), (192, 96)])
@pytest.mark.parametrize('name', CAMERAS)
def test_what_ran_smaller_is_of_the_same_scene(name, ran, canonical):
    camera = CAMERAS[name].resized(*SIZE)
    depth, normals = scene(camera)
    # Between two planes there is nothing to compare.
    steady = np.ones(SIZE[::-1], bool)
    for axis in (0, 1):
        for step in range(-4, 5):
            steady &= (np.roll(normals, step, axis) == normals).all(-1)
    small = said(CAMERAS[name].resized(*ran), canonical)
    found = {
        task: published(task, logits, SIZE[::-1], camera=camera, canonical=canonical,
                        ran=ran[::-1])
        for task, logits in small.items()}
    seen = steady & (depth < 8)
    assert seen[8:-8, 8:-8].mean() > 0.2
    np.testing.assert_allclose(
        found['depth'][8:-8, 8:-8][seen[8:-8, 8:-8]], depth[8:-8, 8:-8][seen[8:-8, 8:-8]],
        rtol=0.02)
    assert angles(found['normals'], normals)[8:-8, 8:-8][steady[8:-8, 8:-8]].max() < 0.5


def test_squashing_costs_nothing():
    """Without the stretching back, the normals of a 16:9 picture are off by degrees."""
    camera = WIDE_SCREEN.resized(*SIZE)
    logits, (_, normals) = said(camera, False)['normals'], scene(camera)
    ignored = published('normals', logits, SIZE[::-1])
    assert angles(ignored, normals).mean() > 3
    assert angles(
        published('normals', logits, SIZE[::-1], camera=camera), normals).max() < 0.05


@pytest.mark.parametrize('canonical', [False, True])
def test_normals_look_at_the_real_camera(canonical):
    camera = CAMERAS['corner'].resized(*SIZE)
    vectors = np.random.default_rng(0).normal(size=(*SIZE[::-1], 3)).astype(np.float32)
    vectors[50:60, 50:60] = 0
    found = Geometry(camera, canonical).normals(vectors.transpose(2, 0, 1))
    invalid = np.isnan(found).any(-1)
    assert invalid[50:60, 50:60].all() and invalid.sum() == 100
    assert np.nanmax((found * camera.rays()).sum(-1)) <= 1e-5
    np.testing.assert_allclose(np.linalg.norm(found[~invalid], axis=-1), 1, atol=1e-5)


@pytest.fixture(scope='module', params=['lite', 'small'])
def engine(tmp_path_factory, request):
    """Return one that was taught what the canonical camera sees, and one that was not."""
    change = {'input_size': SIZE[::-1], 'outputs': {'normals': 3, 'depth': 1}, 'classes': {}}
    if request.param == 'small':
        change['window'] = (6, 8)
    path = tmp_path_factory.mktemp('model') / 'random.safetensors'
    checkpoint.save(path, random_network(replace(CONFIGS[request.param], **change)))
    return Engine(str(path), backend='torch')


def test_a_picture_and_its_crop_agree(engine, monkeypatch):
    """Law 9: depth in metres and normals of the same things do not depend on the lens."""
    whole = Camera(768, 576, 516.0, 510.0, 372.0, 300.0)
    left, top = 201, 150
    answers = []
    settings = Settings(tasks=('normals', 'depth'))
    _, trace = engine._backend.dense(np.zeros((*SIZE[::-1], 3), np.uint8), settings.tasks)
    for camera in (whole, whole.cropped(left, top, 256, 192)):
        logits = said(camera.resized(*SIZE), engine.config.canonical)
        monkeypatch.setattr(engine._backend, 'dense', lambda *_, answer=(logits, trace): answer)
        picture = np.zeros((camera.height, camera.width, 3), np.uint8)
        answers.append(engine.infer(picture, settings, camera))
    # Every third pixel of the part, which is not resized, is the middle of one of the whole.
    part = slice(top // 3, top // 3 + 64), slice(left // 3, left // 3 + 85)
    one = {task: array[part] for task, array in answers[0].outputs.items()}
    other = {task: array[1::3, 1::3] for task, array in answers[1].outputs.items()}
    assert angles(one['normals'], other['normals']).max() < 0.05
    seen = one['depth'] < 40
    np.testing.assert_allclose(one['depth'][seen], other['depth'][seen], rtol=1e-4)
    # Who does not give the intrinsics of the part gets it a third as far, or near that.
    alone = engine.infer(picture, settings).outputs['depth'][1::3, 1::3]
    assert 2 < np.median(one['depth'] / alone) < 4
    assert [answer.stats.lens for answer in answers] == ['given', 'extreme']


def test_lenses_are_told_apart(engine):
    picture, settings = np.zeros((48, 64, 3), np.uint8), Settings()
    for focal, lens in ((0.67, 'given'), (0.46, 'given'), (1.89, 'given'), (0.44, 'extreme'),
                        (1.91, 'extreme')):
        camera = Camera.nominal(64, 48, focal * 64)
        assert engine.infer(picture, settings, camera).stats.lens == lens
    assert engine.infer(picture, settings).stats.lens == 'nominal'
    with pytest.raises(ValueError, match='64 x 47 pixels for a picture of 64 x 48'):
        engine.infer(picture, settings, Camera.nominal(64, 47, 50))


def test_without_intrinsics_the_picture_is_of_the_nominal_camera(engine):
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    settings = Settings(tasks=('normals', 'depth'))
    alone = engine.infer(picture, settings).outputs
    camera = Camera.nominal(160, 90, NOMINAL_FOCAL * 160)
    given = engine.infer(picture, settings, camera).outputs
    twice = engine.infer(picture, settings, Camera.nominal(160, 90, NOMINAL_FOCAL * 320)).outputs
    for task in alone:
        np.testing.assert_array_equal(alone[task], given[task])
    np.testing.assert_allclose(twice['depth'], 2 * alone['depth'], rtol=1e-6)


def test_seen_by_brings_the_camera_along():
    seen = seen_by(WIDE_SCREEN, (1280, 720), SIZE)
    assert (seen.width, seen.height) == SIZE
    assert (seen.fx, seen.fy) == (860 / 5, 860 * 192 / 720)


@pytest.mark.parametrize('size', [(1280, 720), (640, 480), (300, 211), (200, 150)])
def test_depth_is_not_blended_over_edges(size):
    y, x = np.mgrid[:192, :256].astype(np.float32)
    surface = 2 + x / 256 + y / 192
    depth = surface + np.where((np.abs(x - 100) < 30) & (np.abs(y - 90) < 40), 3, 0)
    depth = depth.astype(np.float32)
    found = resized_depth(depth, size)
    assert found.shape == size[::-1] and found.dtype == np.float32
    v, u = np.mgrid[:size[1], :size[0]].astype(np.float32)
    plain = 2 + (u + 0.5) / size[0] + (v + 0.5) / size[1]
    # Every pixel is of one of the surfaces; none lies in the 3 m between.
    off = np.minimum(np.abs(found - plain), np.abs(found - plain - 3))
    assert off.max() < 0.05
    # Away from edges it is smooth: no steps of the nearest pixel.
    inside = found[:, -size[0] // 3:]
    assert np.abs(np.diff(inside, axis=1)).max() < 1.5 / size[0]

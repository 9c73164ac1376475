# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes of frames in training: geometry stays true, light changes as cameras change it."""

import cv2
import numpy as np
import pytest
import torch

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.tasks import IGNORE
from adamtl_ros.training import augment

HEIGHT, WIDTH = 96, 128
CAMERA = Camera(WIDTH, HEIGHT, 90.0, 95.0, 60.0, 50.0)
PLAIN = augment.Strength(zoomed=0, rotated=0, pasted=0, photometric=0)


def plane(camera, normal, distance):
    """Return depth (h, w) in metres of the plane n . p = distance."""
    rays = camera.rays() / camera.rays()[..., 2:]
    return distance / (rays @ normal)


def frame(camera=CAMERA, normal=(0.15, -0.1, -0.98), distance=-1.5):
    """Return a batch of one frame: a plane, whose colours are where its points lie."""
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = plane(camera, normal, distance)
    height, width = depth.shape
    points = camera.rays() / camera.rays()[..., 2:] * depth[..., None]
    image = np.clip(points * 45 + 127, 0, 255)
    return {
        'image': torch.from_numpy(image.astype(np.uint8))[None],
        'semseg': torch.zeros(1, height, width, dtype=torch.uint8),
        'edges': torch.zeros(1, height, width, dtype=torch.uint8),
        'normals': torch.from_numpy(np.broadcast_to(
            np.rint((normal + 1) * 127.5), (1, height, width, 3)).astype(np.uint8)),
        'depth': torch.from_numpy((depth * 1000).astype(np.int32))[None]}


@pytest.mark.parametrize('size', [(96, 128), (128, 96), (64, 128), (48, 64)])
def test_labels_stay_those_of_what_the_picture_shows(size):
    """Each pixel tells by its colour which point it shows, so what is true of it is known."""
    rng = np.random.default_rng(0)
    strength = augment.Strength(zoomed=1, rotated=1, pasted=0, photometric=0)
    rays = Camera.nominal(size[1], size[0], CANONICAL_FOCAL).rays()
    normal = frame()['normals'][0, 0, 0].numpy() / 127.5 - 1
    for _ in range(8):
        changed = augment.augmented(frame(), [CAMERA], rng, size, strength=strength)
        depth = changed['depth'][0].numpy() / 1000
        assert changed['image'].shape == (1, *size, 3) and depth.shape == size
        points = (changed['image'][0].numpy().astype(np.float32) - 126.5) / 45
        # Depth is that of the point, in units of the focal length: one ratio for the picture.
        ratio = depth / points[..., 2]
        assert ratio.std() < 0.02 * ratio.mean()
        # Seen by its camera, a surface is as steep as by the one that took the picture.
        steep = (points / np.linalg.norm(points, axis=-1, keepdims=True)) @ normal
        found = ((changed['normals'][0].numpy() / 127.5 - 1) * rays).sum(-1)
        assert np.abs(steep - found).max() < 0.04


def test_mirror_alone_turns_labels_and_pictures_alike():
    rng = np.random.default_rng(1)
    straight = augment.canonical(frame(), [CAMERA])
    seen = set()
    for _ in range(10):
        changed = augment.augmented(frame(), [CAMERA], rng, (HEIGHT, WIDTH), strength=PLAIN)
        same = torch.equal(changed['image'], frame()['image'])
        seen.add(same)
        if same:
            assert torch.equal(changed['depth'], straight['depth'])
            assert (changed['normals'].int() - straight['normals'].int()).abs().max() <= 1
        else:
            assert torch.equal(changed['image'], frame()['image'].flip(2))
            assert torch.equal(changed['depth'], straight['depth'].flip(2))
            turned = 255 - straight['normals'][..., 0].flip(2).int()
            assert (changed['normals'][..., 0].int() - turned).abs().max() <= 1
    assert seen == {True, False}


def test_canonical_is_what_the_numpy_camera_says():
    from adamtl_ros.camera import turned
    changed = augment.canonical(frame(), [CAMERA])
    vectors = turned(
        frame()['normals'][0].numpy().astype(np.float32) / 127.5 - 1, CAMERA.rays(),
        Camera.nominal(WIDTH, HEIGHT, CANONICAL_FOCAL).rays())
    assert np.abs(changed['normals'][0].numpy() / 127.5 - 1 - vectors).max() < 0.009
    assert np.abs(changed['depth'][0].numpy() - (
        frame()['depth'][0].numpy() * CANONICAL_FOCAL / CAMERA.focal)).max() <= 1


def test_what_has_no_surface_keeps_none():
    given = frame()
    given['normals'] = torch.zeros_like(given['normals'])
    given['depth'] = torch.zeros_like(given['depth'])
    rng = np.random.default_rng(2)
    changed = augment.augmented(given, [CAMERA], rng, (HEIGHT, WIDTH))
    assert not changed['normals'].any() and not changed['depth'].any()


def test_edges_of_enlarged_pictures_are_not_known():
    rng = np.random.default_rng(3)
    near = augment.augmented(frame(), [CAMERA], rng, (HEIGHT, WIDTH), strength=PLAIN)
    assert not near['edges'].any()
    far = augment.augmented(frame(), [CAMERA], rng, (2 * HEIGHT, 2 * WIDTH), strength=PLAIN)
    assert (far['edges'] == IGNORE).all()


def test_things_are_put_in_front_of_what_lies_behind():
    first, other = frame(), frame()
    other['semseg'][:, 20:60, 30:90] = 4
    other['depth'][:, 20:60, 30:60] = 500
    other['depth'][:, 20:60, 60:90] = 60000
    other['image'] = torch.full_like(other['image'], 7)
    first['depth'] = torch.full_like(first['depth'], 2000)
    for seed in range(30):
        changed = augment.paste(first, other, np.random.default_rng(seed))
        if changed['semseg'].any():
            break
    mask = changed['semseg'][0] == 4
    assert mask[20:60, 30:60].all() and mask.sum() == 40 * 30
    assert (changed['depth'][0][mask] == 500).all() and (changed['depth'][0][~mask] == 2000).all()
    assert (changed['image'][0, 25:55, 35:55] == 7).all()
    assert torch.equal(changed['image'][0, 70:], first['image'][0, 70:])
    # Before a border: the last pixels of it at its right and lower side, those before it else.
    edges = changed['edges'][0] == 1
    assert edges[40, 59] and edges[40, 29] and not edges[40, 30] and not edges[40, 60]
    assert edges[59, 40] and edges[19, 40] and not edges[20, 40] and not edges[60, 40]
    unknown = dict(other, edges=torch.full_like(other['edges'], IGNORE))
    assert (augment.paste(first, unknown, np.random.default_rng(seed))['edges'] == IGNORE).all()


def test_compression_is_that_of_jpeg():
    rng = np.random.default_rng(4)
    image = cv2.GaussianBlur(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8), (0, 0), 3)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    for quality in (30, 60, 90):
        coded = cv2.imencode('.jpg', image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
        found = augment.compressed(
            torch.from_numpy(image).permute(2, 0, 1)[None].float(), np.array([quality]))
        found = found[0].permute(1, 2, 0).numpy()
        lost = np.abs(expected - image).mean()
        assert np.abs(expected - found).mean() < 0.35 * lost


def test_light_changes_pictures_and_depends_on_its_generator_alone():
    image = frame()['image'].expand(16, -1, -1, -1).contiguous()
    once, again = (augment.light(image, np.random.default_rng(5), 1.0) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, augment.light(image, np.random.default_rng(6), 1.0))
    assert ((once != image).flatten(1).float().mean(1) > 0.5).all()
    assert torch.equal(augment.light(image, np.random.default_rng(5), 0.0), image)
    bright = once.float().mean((1, 2, 3))
    assert bright.std() > 5


def test_frames_of_different_cameras_in_one_batch():
    other = Camera(WIDTH, HEIGHT, 180.0, 180.0, 64.0, 48.0)
    both = {key: torch.cat((value, value)) for key, value in frame().items()}
    changed = augment.canonical(both, [CAMERA, other])
    near, far = changed['depth'].float().mean((1, 2))
    assert float(near / far) == pytest.approx(180.0 / CAMERA.focal, rel=1e-3)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Changes of frames for training on rendered pictures that are to serve for real ones.

Geometry comes first: mirror, zoom, aspect and rotation in one step, which the camera follows, so
that depth and normals stay right; what the network is taught of them is for the canonical camera
(`adamtl_ros.camera`).  Then people and things of another frame may be put in, by depth.  Last
comes what cameras do to light: blur, noise, exposure, colour, compression.
"""

from collections.abc import Callable
from dataclasses import dataclass
import math

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.camera import turned

Frame = dict[str, np.ndarray]
Rng = np.random.Generator

EDGE_ZOOM = 1.25
"""Edges are one pixel wide: of a picture that is enlarged more than this they are not learned."""

FORWARD = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 0]], np.uint8)
"""A pixel with those right of and below it: edges lie before a border."""

PASTED = (4, 5, 10, 11, 12, 17)
"""Classes put into other frames: person, chair, plant, screen, lamp, object of the corpus."""


@dataclass(frozen=True)
class Strength:
    """
    How often and how far frames are changed; the corpus is learned with the defaults.

    zoom, rotation (degrees) and aspect (ratio) are the largest; the others are probabilities.
    """

    zoom: float = 2.0
    zoomed: float = 0.5
    rotation: float = 10.0
    rotated: float = 0.25
    aspect: float = 1.15
    pasted: float = 0.25
    photometric: float = 0.85


def augmented(
        read: Callable[[int], tuple[Frame, Camera]], index: int, count: int, rng: Rng,
        size: tuple[int, int], strength: Strength = Strength()) -> Frame:
    """
    Return frame `index` of `count`, changed, at (height, width) = size, for the canonical camera.

    read: gives a frame, as datasets.frames describes it, and its camera.
    """
    frame = _geometry(*read(index), rng, size, strength)
    if rng.random() < strength.pasted:
        other = _geometry(*read(int(rng.integers(count))), rng, size, strength)
        _paste(frame, other, rng)
    frame['image'] = light(frame['image'], rng, strength.photometric)
    return {key: np.ascontiguousarray(value) for key, value in frame.items()}


def canonical(frame: Frame, camera: Camera) -> Frame:
    """
    Return a frame whose depth (uint16 mm) and normals are those of the canonical camera.

    camera: that of the picture as it is.
    """
    frame = dict(frame)
    height, width = frame['image'].shape[:2]
    if 'depth' in frame:
        scale = CANONICAL_FOCAL / camera.focal
        frame['depth'] = np.minimum(frame['depth'] * np.float32(scale), 65535).astype(np.uint16)
    if 'normals' in frame:
        label = frame['normals']
        vectors = turned(
            label.astype(np.float32) / 127.5 - 1, camera.rays(),
            Camera.nominal(width, height, CANONICAL_FOCAL).rays())
        frame['normals'] = np.where(label.any(-1, keepdims=True), _bytes(vectors), 0)
    return frame


def _bytes(vectors: np.ndarray) -> np.ndarray:
    # 0 is kept for what has no surface.
    return np.clip(np.rint((vectors + 1) * 127.5), 1, 255).astype(np.uint8)


def _geometry(
        frame: Frame, camera: Camera, rng: Rng, size: tuple[int, int], strength: Strength
) -> Frame:
    """Mirror, zoom, stretch and turn a frame to (height, width) in one step."""
    height, width = size
    # The least zoom at which the picture fills the new one.
    fill = max(width / camera.width, height / camera.height)
    zoom = angle = 0.0
    if rng.random() < strength.zoomed:
        zoom = rng.random() ** 1.5 * math.log(strength.zoom)
    aspect = math.exp(rng.uniform(-1, 1) * math.log(strength.aspect) / 2) if zoom else 1.0
    if rng.random() < strength.rotated:
        angle = math.radians(rng.uniform(-1, 1) * strength.rotation)
        # So that no corner of the new picture lies outside.
        longer = max(width / height, height / width)
        zoom += math.log(math.cos(angle) + abs(math.sin(angle)) * longer)
    scale = fill * math.exp(zoom) * max(aspect, 1 / aspect)
    mirror = -1 if rng.random() < 0.5 else 1
    across, down = scale * aspect, scale / aspect
    cosine, sine = math.cos(angle), math.sin(angle)
    # Mirror, then turn, then stretch; in 2 x 2 for pixels, and for x and y of vectors alike.
    turn = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    matrix = np.diag([across, down]) @ turn
    # Where the middle of the new picture comes from: as far from the old middle as fits.
    half = np.abs(np.linalg.inv(matrix)) @ [(width - 1) / 2, (height - 1) / 2]
    room = np.maximum(np.array([camera.width - 1, camera.height - 1]) / 2 - half, 0)
    middle = np.array([camera.width - 1, camera.height - 1]) / 2 + room * rng.uniform(-1, 1, 2)
    offset = np.array([(width - 1) / 2, (height - 1) / 2]) - matrix @ middle
    affine = np.hstack([matrix, offset[:, None]])
    centre = affine @ [camera.cx, camera.cy, 1]
    new = Camera(width, height, camera.fx * across, camera.fy * down, *map(float, centre))
    plain = (width, height) == (camera.width, camera.height) and np.allclose(
        np.abs(matrix), np.eye(2))
    result = {}
    for key, value in frame.items():
        smooth = cv2.INTER_LINEAR if key == 'image' else cv2.INTER_NEAREST
        if plain:
            result[key] = value[:, ::-1] if mirror < 0 else value
        elif key == 'image' and scale < 0.9:
            # What gets much smaller is averaged first.
            soft = cv2.GaussianBlur(value, (0, 0), 0.5 / scale)
            result[key] = cv2.warpAffine(
                soft, affine, (width, height), flags=smooth, borderMode=cv2.BORDER_REFLECT_101)
        else:
            result[key] = cv2.warpAffine(
                value, affine, (width, height), flags=smooth, borderMode=cv2.BORDER_REFLECT_101)
    if 'normals' in result:
        label = result['normals']
        vectors = label.astype(np.float32) / 127.5 - 1
        vectors[..., :2] = vectors[..., :2] @ turn.T.astype(np.float32)
        result['normals'] = np.where(label.any(-1, keepdims=True), _bytes(vectors), 0)
    if 'edges' in result and not 1 / EDGE_ZOOM < scale < EDGE_ZOOM:
        result['edges'] = np.full((height, width), 255, np.uint8)
    return canonical(result, new)


def _paste(frame: Frame, other: Frame, rng: Rng) -> None:
    """Put things of some classes of another frame in front of what lies behind them."""
    if not {'semseg', 'depth'} <= set(frame):
        return
    chosen = [label for label in PASTED if rng.random() < 0.6]
    mask = np.isin(other['semseg'], chosen) & (other['depth'] > 0)
    mask &= (other['depth'] < frame['depth']) | (frame['depth'] == 0)
    if not 0.005 < mask.mean() < 0.6:
        return
    outline = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, FORWARD)
    for key, value in frame.items():
        new = other[key]
        if key == 'image':
            soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0.7)[..., None]
            frame[key] = (value * (1 - soft) + new * soft).astype(np.uint8)
            continue
        value = value.copy()
        value[mask] = new[mask]
        if key == 'edges':
            if 255 in (frame['edges'].flat[0], new.flat[0]):
                value[:] = 255
            else:
                value[outline > 0] = 1
        frame[key] = value


def light(image: np.ndarray, rng: Rng, often: float) -> np.ndarray:
    """Change uint8 (h, w, 3) as cameras and their light do, with the probability `often`."""
    if rng.random() >= often:
        return image
    if rng.random() < 0.25:
        image = _blurred(image, rng)
    if rng.random() < 0.12:
        image = _coarse(image, rng)
    value = image.astype(np.float32) / 255
    value = _exposed(value, rng)
    value = _coloured(value, rng)
    if rng.random() < 0.4:
        value = _noisy(value, rng)
    if rng.random() < 0.15:
        _cut(value, rng)
    image = np.clip(value * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.integers(30, 96))
        coded = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return image


def _blurred(image: np.ndarray, rng: Rng) -> np.ndarray:
    if rng.random() < 0.6:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))
    length = int(rng.integers(2, 5)) * 2 + 1
    angle, middle = rng.uniform(0, math.pi), length // 2
    kernel = np.zeros((length, length), np.float32)
    reach = np.array([math.cos(angle), math.sin(angle)]) * middle
    start, end = (tuple(int(round(v)) for v in middle + sign * reach) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _coarse(image: np.ndarray, rng: Rng) -> np.ndarray:
    height, width = image.shape[:2]
    scale = rng.uniform(0.35, 0.8)
    small = cv2.resize(
        image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _exposed(value: np.ndarray, rng: Rng) -> np.ndarray:
    gain = math.exp(rng.normal(0, 0.3))
    if rng.random() < 0.05:
        gain *= rng.uniform(0.1, 0.4)  # night
    value = value * gain
    value = np.power(np.clip(value, 1e-4, None), math.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.5:
        mean = value.mean()
        value = (value - mean) * rng.uniform(0.6, 1.4) + mean
    if rng.random() < 0.2:
        height, width = value.shape[:2]
        y, x = np.ogrid[-1:1:height * 1j, -1:1:width * 1j]
        value = value * (1 - rng.uniform(0, 0.5) * (x * x + y * y) / 2)[..., None]
    return value.astype(np.float32)


def _coloured(value: np.ndarray, rng: Rng) -> np.ndarray:
    value = value * np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    kind = rng.random()
    if kind < 0.06:
        value = np.repeat(value.mean(-1, keepdims=True), 3, -1)
    elif kind < 0.5:
        grey = value.mean(-1, keepdims=True)
        value = grey + (value - grey) * np.float32(rng.uniform(0.4, 1.7))
        # A turn about the grey axis is a turn of the hue.
        angle = rng.normal(0, 0.2)
        cosine, sine = math.cos(angle), math.sin(angle)
        third, part = (1 - cosine) / 3, sine / math.sqrt(3)
        turn = np.array([
            [cosine + third, third - part, third + part],
            [third + part, cosine + third, third - part],
            [third - part, third + part, cosine + third]], np.float32)
        value = value @ turn
    elif kind < 0.55:
        value = value[..., rng.permutation(3)]
    return value


def _noisy(value: np.ndarray, rng: Rng) -> np.ndarray:
    sigma = rng.uniform(0.005, 0.06)
    shape = value.shape if rng.random() < 0.7 else (*value.shape[:2], 1)
    noise = rng.standard_normal(shape, np.float32)
    # Shot noise grows with the root of the light.
    return value + noise * np.float32(sigma) * np.sqrt(0.2 + np.clip(value, 0, 1))


def _cut(value: np.ndarray, rng: Rng) -> None:
    height, width = value.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        h, w = int(rng.uniform(0.05, 0.25) * height), int(rng.uniform(0.05, 0.25) * width)
        top, left = rng.integers(height - h), rng.integers(width - w)
        value[top:top + h, left:left + w] = rng.random(3)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From a decoder's output to the array that is published; OpenCV and numpy, for every backend."""

from collections.abc import Sequence
import functools

import cv2
import numpy as np

from adamtl_ros.tasks import DEPTH_RANGE
from adamtl_ros.tasks import NOMINAL_FOCAL
from adamtl_ros.tasks import TASKS


def published(
        task: str, logits: np.ndarray, size: tuple[int, int], *,
        axes: Sequence[int] = (1, 1, 1), linear_depth: bool = False) -> np.ndarray:
    """
    Turn decoder outputs, float32 (channels, H, W), into the array of (height, width) = size.

    Logits are upsampled bilinearly first, as in the reference.  Returns uint8 class ids, float32
    in [0, 1] or metres, or float32 (height, width, 3) unit normals turned towards the camera, NaN
    where the network gave no direction.  axes: signs that take normals to the optical frame.
    linear_depth: the decoder gives metres, not their logarithm.
    """
    kind = TASKS[task].kind
    if kind == 'classes':
        return _classes(logits, size)
    if kind == 'normals':
        return _normals(upsampled(logits * _column(axes), size))
    full = _plane(logits[0], size)
    if kind == 'map':
        return 1 / (1 + cv2.exp(-full))
    if linear_depth:
        return np.clip(full, *DEPTH_RANGE)
    low, high = np.log(DEPTH_RANGE)
    return cv2.exp(np.clip(full, np.float32(low), np.float32(high)))


def confidence(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 (height, width), the probability of the chosen class x 255."""
    planes = [_plane(each, size) for each in logits]
    best = functools.reduce(cv2.max, planes)
    total = np.zeros(size, dtype=np.float32)
    for plane in planes:
        cv2.exp(cv2.subtract(plane, best, dst=plane), dst=plane)
        cv2.add(total, plane, dst=total)
    return np.rint(255 / total).astype(np.uint8)


def upsampled(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (channels, H, W) bilinearly to (height, width, channels)."""
    last = np.ascontiguousarray(logits.transpose(1, 2, 0))
    full = cv2.resize(last, size[::-1], interpolation=cv2.INTER_LINEAR)
    return full.reshape(*size, -1)


def _plane(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR)


def _classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Return the class with the largest upsampled logit, the first of equals.

    Plane by plane: an argmax over the last axis of the upsampled array takes three times as long.
    """
    best = _plane(logits[0], size)
    ids = np.zeros(size, dtype=np.uint8)
    for number in range(1, len(logits)):
        plane = _plane(logits[number], size)
        better = cv2.compare(plane, best, cv2.CMP_GT)
        np.maximum(ids, np.bitwise_and(better, number, out=better), out=ids)
        cv2.max(best, plane, dst=best)
    return ids


def _normals(vectors: np.ndarray) -> np.ndarray:
    x, y, z = cv2.split(vectors)
    ray_x, ray_y = _rays(*vectors.shape[:2])
    # A zero vector becomes 0 / 0, the NaN that marks it.
    with np.errstate(invalid='ignore', divide='ignore'):
        scale = np.copysign(1 / cv2.sqrt(x * x + y * y + z * z), -(x * ray_x + y * ray_y + z))
        return cv2.merge((x * scale, y * scale, z * scale))


def _column(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1)


@functools.lru_cache(maxsize=4)
def _rays(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, (1, width) and (height, 1), of rays with z = 1, at the nominal focal."""
    focal = NOMINAL_FOCAL * width
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / focal
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / focal
    return x[None].astype(np.float32), y[:, None].astype(np.float32)

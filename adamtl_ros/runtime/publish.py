# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From a decoder's output to the array that is published; OpenCV and numpy, for every backend."""

from collections.abc import Sequence
import functools

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.runtime.geometry import Geometry
from adamtl_ros.runtime.geometry import geometry
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.tasks import DEPTH_RANGE
from adamtl_ros.tasks import MOST_IDS
from adamtl_ros.tasks import TASKS


def published(
        task: str, logits: np.ndarray, size: tuple[int, int], *,
        axes: Sequence[int] = (1, 1, 1), linear_depth: bool = False,
        camera: Camera | None = None, canonical: bool = False,
        ran: tuple[int, int] | None = None) -> np.ndarray:
    """
    Turn decoder outputs, float32 (channels, H, W), into the array of (height, width) = size.

    Logits are upsampled bilinearly first, as in the reference.  Returns uint8 class ids (uint16 of
    more than MOST_IDS classes), float32 in [0, 1] or metres, or float32 (height, width, 3) unit
    normals turned towards the camera, NaN where the network gave no direction.
    axes: signs that take normals to the optical frame.
    linear_depth: the decoder gives metres, not their logarithm.  camera: of the picture at this
    size, a nominal one if None.  canonical: depth and normals are for the canonical camera.
    ran: the (height, width) of the network's input where that is not `size`.
    """
    kind = TASKS[task].kind
    if kind == 'classes':
        return _classes(logits, size)
    if kind == 'normals':
        signs = np.array(axes, dtype=np.float32).reshape(-1, 1, 1)
        return lens_of(camera, size, canonical, ran).normals(logits * signs)
    full = _plane(logits[0], size)
    if kind == 'map':
        return 1 / (1 + cv2.exp(-full))
    if linear_depth:
        metres = np.clip(full, *DEPTH_RANGE)
    else:
        low, high = np.log(DEPTH_RANGE)
        metres = cv2.exp(np.clip(full, np.float32(low), np.float32(high)))
    return lens_of(camera, size, canonical, ran).depth(metres)


def nothing(task: str, size: tuple[int, int], classes: int) -> np.ndarray:
    """Return what is published, of (height, width) = size, of a class task without an object."""
    assert TASKS[task].kind == 'classes'
    return np.zeros(size, dtype=np.uint16 if classes > MOST_IDS else np.uint8)


def confidence(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 (height, width), the probability of the chosen class x 255."""
    planes = [_plane(each, size) for each in logits]
    best = functools.reduce(cv2.max, planes)
    total = np.zeros(size, dtype=np.float32)
    for plane in planes:
        cv2.exp(cv2.subtract(plane, best, dst=plane), dst=plane)
        cv2.add(total, plane, dst=total)
    return np.rint(255 / total).astype(np.uint8)


def _plane(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR)


def _classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Return the class with the largest upsampled logit, the first of equals.

    Plane by plane: an argmax over the last axis of the upsampled array takes three times as long.
    """
    best = _plane(logits[0], size)
    wide = len(logits) > MOST_IDS
    ids = np.zeros(size, dtype=np.uint16 if wide else np.uint8)
    for number in range(1, len(logits)):
        plane = _plane(logits[number], size)
        better = cv2.compare(plane, best, cv2.CMP_GT)
        if wide:
            ids[better > 0] = number
        else:
            np.maximum(ids, np.bitwise_and(better, number, out=better), out=ids)
        cv2.max(best, plane, dst=best)
    return ids


def lens_of(
        camera: Camera | None, size: tuple[int, int], canonical: bool,
        ran: tuple[int, int] | None) -> Geometry:
    """Return the Geometry of results of (height, width) = size; arguments as for `published`."""
    width_height = (size[1], size[0])
    return geometry(
        camera or seen_by(None, width_height, width_height), canonical,
        None if ran in (None, size) else (ran[1], ran[0]))

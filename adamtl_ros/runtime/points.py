# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From depth to an organised cloud of points, as a structured array; it needs no ROS."""

import functools

import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.runtime.geometry import EDGE
from adamtl_ros.runtime.geometry import edges

FIELDS = ('rgb', 'class')
"""What a point may have beside x, y and z."""


@functools.cache
def point_type(*, colour: bool = False, classes: bool = False, wide: bool = False) -> np.dtype:
    """
    Return the type of a point: x, y, z float32, and where wanted rgb uint32 and class uint8.

    wide: class is uint16, see tasks.MOST_IDS.
    x points right, y down, z forward, in metres.  A point is a multiple of 16 bytes.  rgb is
    0x00rrggbb, as RViz and PCL read it.
    """
    names = ['x', 'y', 'z'] + ['rgb'] * colour + ['class'] * classes
    formats = {'rgb': '<u4', 'class': '<u2' if wide else 'u1'}
    last = 4 * len(names)
    return np.dtype({
        'names': names, 'formats': [formats.get(name, '<f4') for name in names],
        'offsets': list(range(0, last, 4)), 'itemsize': -(-last // 16) * 16})


def shape(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the (height, width) of the cloud of (height, width) pixels, every stride-th."""
    return -(-size[0] // stride), -(-size[1] // stride)


def points(
        depth: np.ndarray, camera: Camera, *, colour: np.ndarray | None = None,
        classes: np.ndarray | None = None, stride: int = 1, nearest: float = 0.0,
        farthest: float = np.inf, edge: float = EDGE, reach: int = 1,
        out: np.ndarray | None = None) -> np.ndarray:
    """
    Return the points of float32 depth (h, w) in metres that `camera` of that size sees.

    One of every `stride` rows and columns is taken, from the first on; the array is organised as
    the picture is.  Points that are not known have x, y and z of NaN: those nearer or farther
    than the limits, and those at an edge, where depth within `reach` pixels changes by a ratio
    above 1 + edge: a network's depth passes smoothly from one surface to the next, and what lies
    between is an obstacle where nothing is.  edge: 0 keeps all.  reach: pixels of the depth
    that one pixel of the network has become.

    colour: uint8 (h, w, 3) RGB.  classes: uint8 or uint16 (h, w).  out: where to write, of
    `point_type` and `shape`.  ValueError: sizes that do not fit together.
    """
    size = camera.height, camera.width
    for array in (depth, colour, classes):
        if array is not None and array.shape[:2] != size:
            raise ValueError(
                f'picture of {array.shape[1]} x {array.shape[0]} for a camera of {size[1]} x '
                f'{size[0]} pixels: depth, colour, classes and camera must be of one size')
    every = slice(None, None, stride)
    if out is None:
        out = np.empty(
            shape(size, stride),
            point_type(
                colour=colour is not None, classes=classes is not None,
                wide=classes is not None and classes.dtype.itemsize > 1))
    z = depth[every, every]
    # Negated, so that NaN is not known.
    unknown = ~((z >= nearest) & (z <= farthest))
    if edge:
        unknown |= edges(depth, edge=edge, reach=reach)[every, every].view(bool)
    z = np.where(unknown, np.float32(np.nan), z)
    x, y = _directions(camera, stride)
    np.multiply(x, z, out=out['x'])
    np.multiply(y, z, out=out['y'])
    out['z'] = z
    if colour is not None:
        red, green, blue = (
            colour[every, every, channel].astype(np.uint32) for channel in range(3))
        np.bitwise_or(red << 16 | green << 8, blue, out=out['rgb'])
    if classes is not None:
        out['class'] = classes[every, every]
    return out


@functools.lru_cache(maxsize=8)
def _directions(camera: Camera, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, float32 (1, w) and (h, 1), of the rays with z = 1 of pixels taken."""
    x = (np.arange(0, camera.width, stride) - camera.cx) / camera.fx
    y = (np.arange(0, camera.height, stride) - camera.cy) / camera.fy
    return x.astype(np.float32)[None], y.astype(np.float32)[:, None]

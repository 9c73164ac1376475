# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The camera behind a picture, and what a network that does not know the lens is taught instead.

A picture tells a network how large a thing appears, not how long the lens is.  So networks here
see every picture as if a canonical camera had taken it: of CANONICAL_FOCAL pixels, looking along
the middle of the picture.  What they say of it is brought back to the real one by its intrinsics:
depth by the ratio of the focal lengths, normals by turning the canonical ray of each pixel to the
real one.  The picture of a scene and a part of it, each with its own intrinsics, then agree.
"""

from dataclasses import dataclass
from dataclasses import replace
import functools
import math

import numpy as np

CANONICAL_FOCAL = 172.0
"""Focal length in pixels of the network's input that depth and normals are learned for."""


@dataclass(frozen=True)
class Camera:
    """
    Pinhole intrinsics of a rectified picture, in pixels, pixel centres at integer coordinates.

    ValueError: a size or focal length that is not above 0, or a number that is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if min(self.width, self.height, self.fx, self.fy) <= 0 or not all(
                map(math.isfinite, numbers)):
            raise ValueError(
                f'camera of {self.width} x {self.height} with fx, fy, cx, cy = {numbers}: size '
                'and focal lengths must be above 0, and all numbers finite')

    @classmethod
    def nominal(cls, width: int, height: int, focal: float) -> 'Camera':
        """Return a camera of that focal length in pixels, its axis through the middle."""
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def focal(self) -> float:
        """Return the focal length in pixels: the geometric mean of both axes."""
        return math.sqrt(self.fx * self.fy)

    def resized(self, width: int, height: int) -> 'Camera':
        """Return the camera of the same picture, resized to width x height."""
        x, y = width / self.width, height / self.height
        return Camera(
            width, height, self.fx * x, self.fy * y,
            (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5)

    def cropped(self, left: int, top: int, width: int, height: int) -> 'Camera':
        """Return the camera of a part of the picture, whose first pixel is (left, top)."""
        return replace(
            self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)

    def mirrored(self) -> 'Camera':
        """Return the camera of the picture with left and right exchanged."""
        return replace(self, cx=self.width - 1 - self.cx)

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return float32 (width) and (height), x and y of the pixels' rays at a distance of 1.

        They are kept: not to be written into.
        """
        return _slopes(self)

    def rays(self) -> np.ndarray:
        """Return float32 (height, width, 3), the unit vector of each pixel's ray."""
        x, y = self.slopes()
        rays = np.empty((self.height, self.width, 3), np.float32)
        rays[..., 0], rays[..., 1], rays[..., 2] = x[None], y[:, None], 1.0
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


@functools.lru_cache(maxsize=32)
def _slopes(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    return (((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32),
            ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32))


def turn(start: Camera, end: Camera) -> np.ndarray:
    """
    Return float32 (3, 3, height, width), by pixel what turns rays of one camera to the other's.

    Both are of pictures of one size.  By the least rotation, see `turned`.
    """
    first, last = start.rays(), end.rays()
    columns = [turned(np.broadcast_to(axis, first.shape), first, last)
               for axis in np.eye(3, dtype=np.float32)]
    return np.ascontiguousarray(np.stack(columns).transpose(3, 0, 1, 2), np.float32)


def turned(vectors: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """
    Turn vectors (..., 3) by the least rotation that takes unit vectors `start` to `end`.

    By Rodrigues' formula: v + a x v + a x (a x v) / (1 + start . end), with a = start x end.
    """
    axis = np.cross(start, end)
    across = np.cross(axis, vectors)
    cosine = (start * end).sum(-1, keepdims=True)
    return vectors + across + np.cross(axis, across) / (1 + cosine)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From what a network makes of a picture to the real camera: depth in metres, normals."""

from collections.abc import Sequence
import functools

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.camera import turn
from adamtl_ros.tasks import NOMINAL_FOCAL

TRAINED_FOCALS = (0.45, 1.9)
"""Focal lengths, in widths of the network's picture, beyond which its depth is a guess."""

EDGE = 0.1
"""Ratio of depths, less 1, of pixels next but one, above which two surfaces meet there."""


class Geometry:
    """
    What brings depth and normals of one network to one camera.

    camera: of the picture at the size of the results.  canonical: whether the network was taught
    as if the canonical camera had taken every picture; one that was not was taught in the geometry
    that its pictures show, by cameras whose focal length is NOMINAL_FOCAL widths on average.
    ran: the (width, height) of the network's input, where that is another size.

    A picture that was squashed to the network's shape shows a scene of other angles.  A network
    that was taught what pictures show cannot know that; its normals are stretched back, exactly.
    """

    def __init__(
            self, camera: Camera, canonical: bool, ran: tuple[int, int] | None = None) -> None:
        """Work out the ratio of depths and the map of the normals."""
        self.extreme = not TRAINED_FOCALS[0] <= camera.focal / camera.width <= TRAINED_FOCALS[1]
        size = camera.width, camera.height
        ran = ran or size
        taught = CANONICAL_FOCAL if canonical else NOMINAL_FOCAL * ran[0]
        apparent = camera.resized(*ran)
        self.depth_ratio = apparent.focal / taught
        # Points of the real scene are those of the apparent one times diag(focal / fx, focal /
        # fy, 1); normals are covectors, so they take the inverse.
        self._stretch = (
            np.float32(apparent.fx / apparent.focal), np.float32(apparent.fy / apparent.focal))
        self.camera = camera
        self._taught = Camera.nominal(*ran, CANONICAL_FOCAL) if canonical else None
        self._turns: dict[tuple[int, int], np.ndarray] = {}

    def depth(self, metres: np.ndarray) -> np.ndarray:
        """Return float32 (h, w), metres along the axis of the real camera."""
        return metres if self.depth_ratio == 1 else metres * np.float32(self.depth_ratio)

    def normals(self, planes: np.ndarray) -> np.ndarray:
        """
        Return float32 (h, w, 3) unit normals towards the real camera; NaN for zero vectors.

        planes: float32 (3, H, W), vectors of any length in the geometry that the network was
        taught, of the same picture at any size; they are upsampled bilinearly.
        """
        x, y, z = planes
        if self._taught is not None:
            # Before they are upsampled: what turns them changes less than they do.
            x, y, z = (dot(row, (x, y, z)) for row in self.turns(x.shape))
        elif self._stretch != (1, 1):
            x, y = x * self._stretch[0], y * self._stretch[1]
        across, down = self.camera.slopes()
        ray_x, ray_y = across[None], down[:, None]
        size = self.camera.width, self.camera.height
        x, y, z = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (x, y, z))
        # A zero vector becomes 0 / 0, the NaN that marks it.
        with np.errstate(invalid='ignore', divide='ignore'):
            scale = np.copysign(
                1 / cv2.sqrt(x * x + y * y + z * z), -(x * ray_x + y * ray_y + z))
            return cv2.merge((x * scale, y * scale, z * scale))

    def turns(self, shape: tuple[int, int]) -> np.ndarray:
        """
        Return float32 (3, 3, H, W): by pixel, what turns canonical normals to the real camera's.

        shape: (H, W), any size of the picture.  Of networks of the canonical camera alone.
        """
        if shape not in self._turns:
            assert self._taught is not None
            self._turns[shape] = turn(*(
                camera.resized(shape[1], shape[0]) for camera in (self._taught, self.camera)))
        return self._turns[shape]


def dot(factors: Sequence[np.ndarray] | np.ndarray, planes: Sequence[np.ndarray] | np.ndarray
        ) -> np.ndarray:
    """Return the sum of the products of three planes (h, w) each."""
    total = factors[0] * planes[0]
    for factor, plane in zip(factors[1:], planes[1:]):
        total += factor * plane
    return total


def edges(depth: np.ndarray, *, edge: float = EDGE, reach: int = 1) -> np.ndarray:
    """
    Return uint8 (h, w), 1 where depths within `reach` pixels differ by a ratio above 1 + edge.

    depth: float32 (h, w), above 0.
    """
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    farthest, nearest = cv2.dilate(depth, around), cv2.erode(depth, around)
    return (farthest > nearest * np.float32(1 + edge)).view(np.uint8)


def resized_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Return the depth, float32 (h, w), at (width, height), bilinearly but not over edges.

    Where two surfaces meet, every pixel is of one of them: what lies between is an obstacle that
    nobody would find there.
    """
    full = cv2.resize(depth, size, interpolation=cv2.INTER_LINEAR)
    height, wide = depth.shape[0], (size[0], depth.shape[0])
    meeting, nearest = (
        cv2.resize(each, wide, interpolation=cv2.INTER_NEAREST_EXACT)
        for each in (edges(depth), depth))
    # Row by row of what is small: whole masks of a large picture take four times as long.
    starts = np.ceil(np.arange(height + 1) * (size[1] / height) - 0.5).astype(int)
    for row in np.flatnonzero(meeting.any(1)):
        np.copyto(
            full[starts[row]:starts[row + 1]], nearest[row], where=meeting[row].view(bool))
    return full


@functools.lru_cache(maxsize=16)
def geometry(
        camera: Camera, canonical: bool, ran: tuple[int, int] | None = None) -> Geometry:
    """Return the Geometry of the camera, which is kept: its maps take a while to work out."""
    return Geometry(camera, canonical, ran)


def seen_by(camera: Camera | None, picture: tuple[int, int], size: tuple[int, int]) -> Camera:
    """
    Return the camera of a picture (width, height) after it was brought to `size`.

    None stands for a camera of NOMINAL_FOCAL.  ValueError: a camera of another picture.
    """
    if camera is None:
        camera = Camera.nominal(*picture, NOMINAL_FOCAL * picture[0])
    elif (camera.width, camera.height) != tuple(picture):
        raise ValueError(
            f'camera of {camera.width} x {camera.height} pixels for a picture of {picture[0]} x '
            f'{picture[1]}: give the intrinsics of this picture')
    return camera.resized(*size)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The camera behind a picture, read from its sensor_msgs/CameraInfo, without ROS.

Messages are whatever has their fields: those of rclpy, or those that rosbags reads from a bag.
"""

from dataclasses import dataclass
import math
from typing import Any

from adamtl_ros.camera import Camera

KEPT = 8
"""How many camera_infos are kept, to find the one with the stamp of a picture that comes late."""


def region(info: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """
    Return left, top, width and height of what a picture shows, in pixels of the full sensor.

    size: (width, height) of the picture.  The region of interest and the binning are heeded, but
    a picture of the whole sensor shows that, whatever the region says.  Raises ValueError if the
    picture is of another size.
    """
    full = (info.width or size[0], info.height or size[1])
    bins = (max(info.binning_x, 1), max(info.binning_y, 1))
    roi = info.roi
    choices = [(0, 0, *full)]
    if roi.width and roi.height:
        choices.insert(0, (roi.x_offset, roi.y_offset, roi.width, roi.height))
    for choice in choices:
        # What is left over of a bin at the end is dropped or kept, as drivers like.
        if all(abs(choice[2 + axis] - size[axis] * bins[axis]) < bins[axis] for axis in (0, 1)):
            return choice
    asked = (f'region of interest {roi.width} x {roi.height}' if len(choices) == 2
             else f'{full[0]} x {full[1]}')
    binned = f' binned {bins[0]} x {bins[1]}' if bins != (1, 1) else ''
    raise ValueError(
        f'camera_info is of {asked}{binned}, the picture has {size[0]} x {size[1]}: '
        'publish both of one size')


def camera_of(info: Any, size: tuple[int, int], *, rectified: bool = False) -> Camera | None:
    """
    Return the camera of a picture of `size` (width, height), None if it is not calibrated.

    rectified: the picture is, so that its intrinsics are those of P and not of K.  Raises
    ValueError with the reason for a camera_info of another size, or with numbers that no camera
    has.
    """
    left, top, _, _ = region(info, size)
    fx, _, cx, _, fy, cy = (float(value) for value in list(info.k)[:6])
    if rectified and info.p[0]:
        fx, _, cx, _, _, fy, cy = (float(value) for value in list(info.p)[:7])
    if not (fx or fy or cx or cy):
        return None
    # Pixels lie at integers, so that the first bin, of pixels 0 and 1, is at 0.5 before it is 0.
    across, down = 1 / max(info.binning_x, 1), 1 / max(info.binning_y, 1)
    try:
        return Camera(
            *size, fx * across, fy * down,
            (cx - left + 0.5) * across - 0.5, (cy - top + 0.5) * down - 0.5)
    except ValueError as error:
        raise ValueError(f'camera_info is wrong: {error}') from None


def distorted(info: Any) -> bool:
    """Return whether the lens bends straight lines, as far as the camera_info says."""
    return any(math.isfinite(value) and value != 0.0 for value in info.d)


def is_rectified(topic: str) -> bool:
    """Return whether pictures of a topic are rectified, by the names that image_proc gives."""
    return 'rect' in topic.rstrip('/').removesuffix('/compressed').rpartition('/')[2].split('_')


@dataclass(frozen=True)
class Lens:
    """
    What is known of the camera behind a picture.

    info: its camera_info, None without one that fits.  camera: its intrinsics, None if unknown.
    words: for people.  refused: the camera_info that there is belongs to something else.
    distorted: its lens bends straight lines, and the picture is not rectified.
    """

    info: Any | None = None
    camera: Camera | None = None
    words: str = 'nominal: no camera_info'
    refused: bool = False
    distorted: bool = False


class Calibrations:
    """
    The camera_infos that came last; whose picture is asked for decides which one holds.

    One thread puts, another asks.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._infos: tuple[Any, ...] = ()

    def put(self, info: Any) -> None:
        """Take in a camera_info."""
        self._infos = (*self._infos[1 - KEPT:], info)

    def clear(self) -> None:
        """Forget all, as for another camera."""
        self._infos = ()

    def lens(self, header: Any, size: tuple[int, int], *, rectified: bool = False) -> Lens:
        """
        Return what is known of the camera of a picture of `size` (width, height).

        By the camera_info with the picture's stamp if there is one, or else by the latest:
        drivers send it after the picture as often as before.  One of another frame or size is
        refused.
        """
        infos = self._infos
        if not infos:
            return Lens()
        info = next((each for each in reversed(infos) if each.header.stamp == header.stamp),
                    infos[-1])
        if info.header.frame_id != header.frame_id:
            return Lens(refused=True, words=(
                f'nominal: camera_info is of the frame {info.header.frame_id!r}, the picture of '
                f'{header.frame_id!r}: remap camera_info to the topic of the same camera'))
        try:
            camera = camera_of(info, size, rectified=rectified)
        except ValueError as error:
            return Lens(refused=True, words=f'nominal: {error}')
        if camera is None:
            return Lens(info, words='nominal: the camera is not calibrated (K of zeros)')
        bent = not rectified and distorted(info)
        return Lens(info, camera, distorted=bent, words=(
            f'fx {camera.fx:.4g} of {camera.width} pixels'
            + (', not rectified: depth and normals are off towards the edges; listen to the '
               'image_rect of image_proc' if bent else '')))

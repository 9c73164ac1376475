# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The camera that a user gives to a command: a calibration file, or an angle of view."""

from dataclasses import dataclass
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from adamtl_ros.calibration import Calibrations
from adamtl_ros.calibration import camera_of
from adamtl_ros.camera import Camera


@dataclass(frozen=True)
class Intrinsics:
    """
    What is known of the camera of pictures: `hfov`, or else `info`, or nothing.

    info: fields of a sensor_msgs/CameraInfo.  hfov: angle of view from left to right, degrees;
    square pixels, the axis through the middle.  recorded: the info came with the pictures, and
    holds for those of its size and frame alone.  rectified: so are the pictures.
    """

    info: Any = None
    hfov: float | None = None
    recorded: bool = False
    rectified: bool = False

    def camera(self, size: tuple[int, int], header: Any = None) -> Camera | None:
        """
        Return the camera of a picture of (width, height), None if nothing is known.

        A calibration holds for its own size and for those that it was resized to; ValueError for
        others.  header: of the picture, for an info that was recorded.
        """
        if self.hfov is not None:
            focal = size[0] / 2 / math.tan(math.radians(self.hfov) / 2)
            return Camera.nominal(*size, focal)
        if self.info is None:
            return None
        if self.recorded:
            infos = Calibrations()
            infos.put(self.info)
            lens = infos.lens(header, size, rectified=self.rectified)
            if lens.refused:
                raise ValueError(lens.words)
            return lens.camera
        own = self.info.width or size[0], self.info.height or size[1]
        camera = camera_of(self.info, own)
        # A pixel more or less is what halving odd sizes takes.
        if abs(own[0] * size[1] - own[1] * size[0]) > max(*own, *size):
            raise ValueError(
                f'the calibration is of {own[0]} x {own[1]} pixels, the picture has {size[0]} x '
                f'{size[1]}, which is another shape: calibrate for this one, or give --hfov')
        return None if camera is None else camera.resized(*size)


def read(path: Path) -> Any:
    """
    Return the fields of a CameraInfo from a YAML file; ValueError or OSError name what is wrong.

    As camera_calibration and camera_info_manager write it, or as `ros2 topic echo --once
    camera_info` prints it.
    """
    try:
        values = next(iter(yaml.safe_load_all(path.read_text())), None)
        if not isinstance(values, dict):
            raise ValueError('it holds no mapping')
        if 'camera_matrix' in values:
            k, d, p = (
                list(map(float, values.get(name, {}).get('data', ())))
                for name in ('camera_matrix', 'distortion_coefficients', 'projection_matrix'))
            width, height = values['image_width'], values['image_height']
            model = values.get('distortion_model', values.get('camera_model', 'plumb_bob'))
        else:
            k, d, p = (list(map(float, values.get(name, ()))) for name in ('k', 'd', 'p'))
            width, height = values['width'], values['height']
            model = values.get('distortion_model', 'plumb_bob')
        if len(k) != 9 or len(p) not in (0, 12):
            raise ValueError(f'{len(k)} values of k and {len(p)} of p: they need 9 and 12')
        region = values.get('roi') or {}
        info = SimpleNamespace(
            width=int(width), height=int(height), distortion_model=str(model), d=d, k=k,
            p=p or [0.0] * 12, binning_x=int(values.get('binning_x', 0)),
            binning_y=int(values.get('binning_y', 0)), roi=SimpleNamespace(**{
                name: int(region.get(name, 0))
                for name in ('x_offset', 'y_offset', 'width', 'height')}))
        if Intrinsics(info).camera((info.width, info.height)) is None:
            raise ValueError('a matrix of zeros: the camera is not calibrated')
        return info
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        reason = f'{error} is missing' if isinstance(error, KeyError) else ' '.join(
            str(error).split())
        raise ValueError(
            f'{path}: not a camera_info in YAML ({reason}); it is what camera_calibration writes, '
            'or what `ros2 topic echo --once camera_info` prints') from None

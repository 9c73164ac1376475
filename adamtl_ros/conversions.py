# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The contents of ROS messages as arrays and back, without ROS.

Messages are whatever has their fields: those of rclpy, or those that rosbags reads from a bag.
No cv_bridge: PyPI's is broken with current numpy, and the few encodings below are quickly done.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class BadFrameError(ValueError):
    """A frame that cannot be read; `cause` ('encoding', 'size', ...) is what it is counted as."""

    def __init__(self, cause: str, message: str) -> None:
        """Keep the cause beside the message."""
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class _Encoding:
    """
    How the pixels of an encoding lie in a row.

    channels: samples a pixel.  depth: bytes a sample.  code: OpenCV's conversion to RGB, or None
    for pixels that are RGB already.  even: the conversion needs even (height, width).
    """

    channels: int
    depth: int = 1
    code: int | None = None
    even: tuple[bool, bool] = (False, False)


# OpenCV names a Bayer pattern after the pixels (1, 1) and (1, 2), ROS after (0, 0) and (0, 1).
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}
_UYVY = _Encoding(2, code=cv2.COLOR_YUV2RGB_UYVY, even=(False, True))
_YUYV = _Encoding(2, code=cv2.COLOR_YUV2RGB_YUY2, even=(False, True))

ENCODINGS: dict[str, _Encoding] = {
    'mono8': _Encoding(1, code=cv2.COLOR_GRAY2RGB),
    'mono16': _Encoding(1, 2, cv2.COLOR_GRAY2RGB),
    'rgb8': _Encoding(3),
    'bgr8': _Encoding(3, code=cv2.COLOR_BGR2RGB),
    'rgba8': _Encoding(4, code=cv2.COLOR_RGBA2RGB),
    'bgra8': _Encoding(4, code=cv2.COLOR_BGRA2RGB),
    'rgb16': _Encoding(3, 2),
    'bgr16': _Encoding(3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': _Encoding(4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': _Encoding(4, 2, cv2.COLOR_BGRA2RGB),
    # OpenCV's own names say nothing of colour; its order is blue, green, red.
    '8UC1': _Encoding(1, code=cv2.COLOR_GRAY2RGB),
    '8UC3': _Encoding(3, code=cv2.COLOR_BGR2RGB),
    '8UC4': _Encoding(4, code=cv2.COLOR_BGRA2RGB),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
} | {
    f'bayer_{pattern}{8 * depth}': _Encoding(1, depth, code, (True, True))
    for pattern, code in _BAYER.items() for depth in (1, 2)
}
"""The encodings of sensor_msgs/Image that `rgb_from_image` reads."""


def rgb_from_image(message: Any) -> NDArray[np.uint8]:
    """
    Return the picture of an Image as uint8 (height, width, 3) RGB.

    16-bit samples keep their high byte. Alpha is dropped. Row padding is skipped. The array may
    be a view into the message's data. Raises BadFrameError with the causes 'encoding', 'size',
    'step' and 'data'.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise BadFrameError(
            'encoding', f'encoding {message.encoding!r} is not supported: let the camera publish '
                        f'one of {", ".join(ENCODINGS)}')
    height, width, step = message.height, message.width, message.step
    if not (height and width):
        raise BadFrameError(
            'size', f'image of {width} x {height} pixels: both must be at least 1')
    for name, size, even in (('height', height, encoding.even[0]),
                             ('width', width, encoding.even[1])):
        if even and size % 2:
            raise BadFrameError(
                'size', f'{name} of {size} pixels: encoding {message.encoding} needs an even one')
    row = width * encoding.channels * encoding.depth
    if step < row:
        raise BadFrameError(
            'step', f'step of {step} bytes is smaller than a row: {width} pixels of '
                    f'{message.encoding} take {row}; set step to the row length in bytes')
    data = np.frombuffer(message.data, dtype=np.uint8)
    if data.size < step * height:
        raise BadFrameError(
            'data', f'data of {data.size} bytes is shorter than step * height = {step} * {height} '
                    f'= {step * height}; send the whole image')
    pixels = data[:step * height].reshape(height, step)[:, :row]
    if encoding.depth == 2:
        pixels = pixels[:, (0 if message.is_bigendian else 1)::2]
    if encoding.channels > 1:
        pixels = pixels.reshape(height, width, encoding.channels)
    if encoding.code is None:
        return pixels
    # OpenCV takes padded rows as they are, but neither every second byte nor a read-only view.
    if encoding.depth == 2:
        pixels = np.ascontiguousarray(pixels)
    return cv2.cvtColor(pixels, encoding.code).astype(np.uint8, copy=False)


def rgb_from_compressed(message: Any) -> NDArray[np.uint8]:
    """
    Return the picture of a CompressedImage, JPEG or PNG, as uint8 (h, w, 3) RGB.

    Raises BadFrameError with the cause 'decode'.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    bgr = None
    # OpenCV fills what is missing of a cut-off JPEG with grey and calls it a success.  The end
    # may be padded; the marker of an embedded thumbnail lies in the front.
    cut_off = data[:2].tobytes() == b'\xff\xd8' and b'\xff\xd9' not in data[
        data.size // 2:].tobytes()
    # OpenCV would read twenty other formats as well, whose decoders nobody here has use for.
    known = data[:8].tobytes().startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'))
    if known and not cut_off:
        try:
            # A camera's EXIF orientation must not turn the frame against its camera_info.
            bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # e.g. dimensions beyond OpenCV's limit
            bgr = None
    if bgr is None:
        raise BadFrameError(
            'decode', f'{data.size} bytes of format {message.format!r} cannot be decoded'
                      f'{" (the JPEG is cut off)" if cut_off else ""}: send JPEG or PNG, or use '
                      'image_transport:=raw')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def scaled_camera_info(
        info: Any, image_size: tuple[int, int], output_size: tuple[int, int],
        header: Any) -> Any:
    """
    Return the CameraInfo of an image (width, height) resized to the output size.

    Follows image_geometry and image_proc: the principal point scales like the focal length. A
    region of interest (unless the image is the full one) moves the principal point and then is
    the whole picture; binning is part of the scale. Distortion is in unitless coordinates, so it
    stays. An uncalibrated camera (K of zeros) stays so.
    """
    full = (info.width or image_size[0], info.height or image_size[1])
    region = info.roi
    cropped = region.width > 0 and region.height > 0 and image_size != full
    left, top = (region.x_offset, region.y_offset) if cropped else (0, 0)
    base = (region.width, region.height) if cropped else full
    across, down = output_size[0] / base[0], output_size[1] / base[1]

    scaled = deepcopy(info)
    scaled.header = header
    scaled.width, scaled.height = output_size
    scaled.binning_x = scaled.binning_y = 0
    scaled.roi = type(info.roi)(
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=info.roi.do_rectify)
    for name in ('k', 'p'):
        matrix = np.array(getattr(info, name), dtype=np.float64).reshape(3, -1)
        matrix[0] -= left * matrix[2]
        matrix[1] -= top * matrix[2]
        matrix[0] *= across
        matrix[1] *= down
        setattr(scaled, name, matrix.ravel())
    return scaled

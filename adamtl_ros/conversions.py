# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The contents of ROS messages as arrays and back, without ROS.

Messages are whatever has their fields: those of rclpy, or those that rosbags reads from a bag.
What cv_bridge converts as well can be left to it, where a ROS installation has it.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
import re
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


def nanoseconds(header: Any) -> int:
    """Return the stamp of a header as one number."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


@dataclass(frozen=True)
class _Encoding:
    """
    How the pixels of an encoding lie in a row.

    channels: samples a pixel, in planes of luma and chroma those of the luma.  depth: bytes a
    sample.  code: OpenCV's conversion to RGB, or None for pixels that are RGB already.  even: the
    conversion needs even (height, width).  chroma: rows, as long as those of the luma, that follow
    them, a luma row.  bridged: cv_bridge gives the same pixels.
    """

    channels: int
    depth: int = 1
    code: int | None = None
    even: tuple[bool, bool] = (False, False)
    chroma: Fraction = Fraction(0)
    bridged: bool = False


# OpenCV names a Bayer pattern after the pixels (1, 1) and (1, 2), ROS after (0, 0) and (0, 1).
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}
_UYVY = _Encoding(2, code=cv2.COLOR_YUV2RGB_UYVY, even=(False, True), bridged=True)
_YUYV = _Encoding(2, code=cv2.COLOR_YUV2RGB_YUY2, even=(False, True), bridged=True)
_VIDEO_RANGE = np.array([
    [1.164383, 0.0, 1.596027, -222.921], [1.164383, -0.391762, -0.812968, 135.576],
    [1.164383, 2.017232, 0.0, -276.836]])
"""Rows of red, green and blue of Y, U, V, 1 (ITU-R BT.601-7), which OpenCV has for 4:2:0 alone."""

ENCODINGS: dict[str, _Encoding] = {
    'mono8': _Encoding(1, code=cv2.COLOR_GRAY2RGB, bridged=True),
    'mono16': _Encoding(1, 2, cv2.COLOR_GRAY2RGB),
    'rgb8': _Encoding(3),
    'bgr8': _Encoding(3, code=cv2.COLOR_BGR2RGB, bridged=True),
    'rgba8': _Encoding(4, code=cv2.COLOR_RGBA2RGB, bridged=True),
    'bgra8': _Encoding(4, code=cv2.COLOR_BGRA2RGB, bridged=True),
    'rgb16': _Encoding(3, 2),
    'bgr16': _Encoding(3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': _Encoding(4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': _Encoding(4, 2, cv2.COLOR_BGRA2RGB),
    # OpenCV's own names say nothing of colour; its order is blue, green, red.
    '8UC1': _Encoding(1, code=cv2.COLOR_GRAY2RGB),
    '8UC3': _Encoding(3, code=cv2.COLOR_BGR2RGB),
    '8UC4': _Encoding(4, code=cv2.COLOR_BGRA2RGB),
    '16UC3': _Encoding(3, 2, cv2.COLOR_BGR2RGB),
    '16UC4': _Encoding(4, 2, cv2.COLOR_BGRA2RGB),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': _Encoding(1, code=cv2.COLOR_YUV2RGB_NV12, even=(True, True), chroma=Fraction(1, 2)),
    'nv21': _Encoding(1, code=cv2.COLOR_YUV2RGB_NV21, even=(True, True), chroma=Fraction(1, 2)),
    'nv24': _Encoding(1, chroma=Fraction(2)),
} | {
    f'bayer_{pattern}{8 * depth}': _Encoding(1, depth, code, (True, True), bridged=depth == 1)
    for pattern, code in _BAYER.items() for depth in (1, 2)
}
"""The encodings of sensor_msgs/Image that `rgb_from_image` reads."""


_REFUSED = {
    '16UC1': 'that is depth, or grey of a range that nobody knows; a grey picture is mono16',
    '32FC1': 'that is depth, or a map of numbers, not a picture',
    '64FC1': 'that is depth, or a map of numbers, not a picture',
}
"""Why encodings of sensor_msgs are not read; the rest are numbers whose colours nobody knows."""

_NUMBERS = re.compile('(8|16|32|64)[USF]C[1-4]')


def _encoding(name: str) -> _Encoding:
    """Return the encoding of this name; BadFrameError with the reason if it is not read."""
    encoding = ENCODINGS.get(name)
    if encoding is not None:
        return encoding
    reason = _REFUSED.get(name)
    if reason is None and _NUMBERS.fullmatch(name):
        reason = 'those are numbers of which nobody knows what they are, not colours'
    raise BadFrameError(
        'encoding', f'encoding {name!r} is not supported{f" ({reason})" if reason else ""}: let '
                    f'the camera publish one of {", ".join(ENCODINGS)}')


def rgb_from_image(
        message: Any, *, bridge: Callable[[Any], NDArray[np.uint8]] | None = None
) -> NDArray[np.uint8]:
    """
    Return the picture of an Image as uint8 (height, width, 3) RGB.

    16-bit samples keep their high byte. Alpha is dropped. Row padding is skipped. The array may
    be a view into the message's data. bridge: converts a message, found whole, of an encoding
    that cv_bridge knows. Raises BadFrameError with the causes 'encoding', 'size', 'step' and
    'data'.
    """
    encoding = _encoding(message.encoding)
    height, width, step = message.height, message.width, message.step
    _check_size(message.encoding, encoding, height, width)
    row = width * encoding.channels * encoding.depth
    rows = int(height * (1 + encoding.chroma))
    data = np.frombuffer(readable(message.data), dtype=np.uint8)
    if encoding.chroma and step == row * (1 + encoding.chroma) and data.size == height * step:
        step = row  # some drivers count the chroma of a row to it, though it lies elsewhere
    if step < row:
        raise BadFrameError(
            'step', f'step of {step} bytes is smaller than a row: {width} pixels of '
                    f'{message.encoding} take {row}; set step to the row length in bytes')
    if data.size < step * rows:
        raise BadFrameError(
            'data', f'data of {data.size} bytes is shorter than step * rows = {step} * {rows} '
                    f'= {step * rows}; send the whole image')
    if bridge is not None and encoding.bridged:
        return bridge(message)
    lines = data[:step * rows].reshape(rows, step)
    if message.encoding == 'nv24':
        # A row of chroma takes two of luma, its padding too.
        chroma = lines[height:].reshape(height, 2 * step)[:, :2 * width]
        planes = lines[:height, :width, None], chroma.reshape(height, width, 2)
        return cv2.transform(np.concatenate(planes, -1), _VIDEO_RANGE).astype(np.uint8, copy=False)
    pixels = lines[:, :row]
    if encoding.depth == 2:
        pixels = pixels[:, (0 if message.is_bigendian else 1)::2]
    if encoding.channels > 1:
        pixels = pixels.reshape(height, width, encoding.channels)
    if encoding.code is None:
        return pixels
    # OpenCV takes padded rows as they are, but not every second byte.
    if encoding.depth == 2:
        pixels = np.ascontiguousarray(pixels)
    return cv2.cvtColor(pixels, encoding.code).astype(np.uint8, copy=False)


def readable(data: Any) -> Any:
    """
    Return the data of a message as np.frombuffer and memoryview take it.

    Lyrical's rosidl_buffer.Buffer may lie in the memory of a GPU, and before Python 3.12 no class
    can have the buffer protocol: its bytes.  An array of another library: that of NumPy.
    """
    if hasattr(data, 'to_bytes'):
        return data.to_bytes()
    return np.ascontiguousarray(data) if hasattr(data, '__array__') else data


def _check_size(name: str, encoding: _Encoding, height: int, width: int) -> None:
    if not (height and width):
        raise BadFrameError(
            'size', f'image of {width} x {height} pixels: both must be at least 1')
    for side, size, even in (('height', height, encoding.even[0]),
                             ('width', width, encoding.even[1])):
        if even and size % 2:
            raise BadFrameError(
                'size', f'{side} of {size} pixels: encoding {name} needs an even one')


def rgb_from_compressed(message: Any) -> NDArray[np.uint8]:
    """
    Return the picture of a CompressedImage, JPEG or PNG, as uint8 (h, w, 3) RGB.

    What image_transport says in `format` of the picture that was compressed is heeded: a mosaic
    is made a picture, 16-bit samples keep their high byte, depth is refused. Raises BadFrameError
    with the causes 'decode', 'encoding' and 'size'.
    """
    # "<encoding>; <jpeg or png> compressed <encoding of the compressed pixels>" or "jpeg".
    original, named, how = (part.strip() for part in message.format.partition(';'))
    if 'compressedDepth' in how:
        raise BadFrameError(
            'encoding', f'format {message.format!r} is depth, not a picture: subscribe to the '
                        "camera's colour or grey pictures")
    # The last word says that the publisher made a picture of it; only mosaics are then left.
    mosaic = None
    if named and how.rpartition('compressed')[2].strip() in ('', original):
        if original.startswith('bayer_'):
            mosaic = _encoding(original)
        elif _NUMBERS.fullmatch(original):
            _encoding(original)
    data = np.frombuffer(readable(message.data), dtype=np.uint8)
    jpeg = data[:3].tobytes() == b'\xff\xd8\xff'
    # OpenCV fills what is missing of a cut-off JPEG with grey and calls it a success.
    cut_off = jpeg and not jpeg_ends(data.tobytes())
    pixels = None
    # OpenCV would read twenty other formats as well, whose decoders nobody here has use for.
    if not cut_off and (jpeg or data[:8].tobytes() == b'\x89PNG\r\n\x1a\n'):
        # A camera's EXIF orientation must not turn the frame against its camera_info.
        colour = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            pixels = cv2.imdecode(data, colour if mosaic is None else cv2.IMREAD_UNCHANGED)
        except cv2.error:  # e.g. dimensions beyond OpenCV's limit
            pixels = None
    if pixels is None:
        raise BadFrameError(
            'decode', f'{data.size} bytes of format {message.format!r} cannot be decoded'
                      f'{" (the JPEG is cut off)" if cut_off else ""}: send JPEG or PNG, or use '
                      'image_transport:=raw')
    if pixels.dtype == np.uint16:
        pixels = np.right_shift(pixels, 8).astype(np.uint8)
    code = cv2.COLOR_BGR2RGB
    if mosaic is not None and pixels.ndim == 2:
        _check_size(original, mosaic, *pixels.shape)
        assert mosaic.code is not None
        code = mosaic.code
    elif pixels.ndim == 2:
        code = cv2.COLOR_GRAY2RGB
    elif pixels.shape[2] == 4:
        code = cv2.COLOR_BGRA2RGB
    return cv2.cvtColor(pixels, code).astype(np.uint8, copy=False)


def jpeg_ends(jpeg: bytes) -> bool:
    """
    Return whether a JPEG has its end, however much padding follows (ITU-T T.81, B.1).

    Segments are skipped by their lengths: the end of a thumbnail within them is not the end.
    """
    at = 2
    while jpeg[at:at + 1] == b'\xff' and at + 4 <= len(jpeg):
        kind = jpeg[at + 1]
        if kind == 0xff:  # fill bytes before a marker
            at += 1
            continue
        at += 2 + int.from_bytes(jpeg[at + 2:at + 4], 'big')
        if kind == 0xda:  # from here on no byte but that of a marker follows 0xff but 0
            return jpeg.find(b'\xff\xd9', at) >= 0
    return False


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

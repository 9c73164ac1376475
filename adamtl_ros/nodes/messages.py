# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arrays to ROS messages; the other way needs no ROS and is in adamtl_ros.conversions."""

from array import array
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from adamtl_ros import conversions


def _bridge() -> Callable[[Image], NDArray[np.uint8]] | None:
    """Return what converts an Image to RGB by ROS's cv_bridge, or None where that is missing."""
    if find_spec('cv_bridge') is None:
        return None
    try:
        # 1.13, which PyPI has, is of ROS 1 and reads some encodings wrongly.
        if int(metadata.version('cv_bridge').split('.')[0]) < 3:
            return None
    except metadata.PackageNotFoundError:  # built by colcon
        pass
    try:
        from cv_bridge import CvBridge
    except ImportError:  # built against another numpy or OpenCV than those that are here
        return None
    convert = CvBridge().imgmsg_to_cv2
    return lambda message: convert(message, 'rgb8')


BRIDGE = _bridge()
"""cv_bridge's conversion, None where there is none."""


def rgb_from_image(message: Image) -> NDArray[np.uint8]:
    """Do as adamtl_ros.conversions does, with cv_bridge where that is installed."""
    return conversions.rgb_from_image(message, bridge=BRIDGE)


def image_from_array(values: NDArray[np.generic], encoding: str, header: Header) -> Image:
    """
    Return an Image of the array (h, w) or (h, w, channels), its bytes as they are.

    The array must have the element type of the encoding, which is not checked.
    """
    values = np.ascontiguousarray(values)
    message = Image(header=header, height=values.shape[0], width=values.shape[1],
                    encoding=encoding, is_bigendian=False,
                    step=values.nbytes // values.shape[0])
    # Anything but array.array is copied byte by byte by the message's setter.
    data = array('B')
    data.frombytes(values.data.cast('B'))
    message.data = data
    return message


def compressed_from_rgb(picture: NDArray[np.uint8], header: Header) -> CompressedImage:
    """Return a JPEG of the uint8 (h, w, 3) RGB picture, named as image_transport does."""
    encoded = cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data = array('B', encoded.tobytes())
    return message


_FIELD_TYPES = {
    'f4': PointField.FLOAT32, 'u4': PointField.UINT32, 'u2': PointField.UINT16,
    'u1': PointField.UINT8}


def memory_of_points(size: tuple[int, int], kind: np.dtype) -> tuple[array, NDArray[np.void]]:
    """
    Return the data of a message for (height, width) points of a structured type, and its view.

    What is written into the view is in the message: no copy is made.
    """
    data = array('B', [0]) * (size[0] * size[1] * kind.itemsize)
    return data, np.frombuffer(data, kind).reshape(size)


def points_message(
        data: array, size: tuple[int, int], kind: np.dtype, header: Header) -> PointCloud2:
    """Return the cloud of (height, width) points in `data`, see `memory_of_points`."""
    assert kind.fields is not None
    message = PointCloud2(
        header=header, height=size[0], width=size[1], is_bigendian=False, is_dense=False,
        point_step=kind.itemsize, row_step=size[1] * kind.itemsize, fields=[
            PointField(name=name, offset=offset, datatype=_FIELD_TYPES[each.str[1:]], count=1)
            for name, (each, offset, *_) in kind.fields.items()])
    # What is given to the constructor is copied.
    message.data = data
    return message

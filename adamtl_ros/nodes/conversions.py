# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Arrays to ROS messages; the other way needs no ROS and is in adamtl_ros.conversions."""

from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adamtl_ros.conversions import BadFrameError
from adamtl_ros.conversions import ENCODINGS
from adamtl_ros.conversions import rgb_from_compressed
from adamtl_ros.conversions import rgb_from_image
from adamtl_ros.conversions import scaled_camera_info

__all__ = [
    'BadFrameError', 'ENCODINGS', 'image_from_array', 'rgb_from_compressed', 'rgb_from_image',
    'scaled_camera_info']


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

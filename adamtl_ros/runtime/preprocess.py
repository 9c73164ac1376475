# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images to network input."""

import cv2
import numpy as np


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Resize uint8 (h, w, 3) to (width, height), averaging where it gets smaller.

    A camera image is first averaged over whole blocks of pixels, for which OpenCV is several
    times as fast as for fractions of pixels; what is left to shrink is less than twofold.
    """
    height, width = image.shape[:2]
    block = min(width // size[0], height // size[1])
    if block > 1 and width % block == 0 and height % block == 0:
        image = cv2.resize(
            image, (width // block, height // block), interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        # What is left to shrink is too little for bilinear interpolation to skip pixels.
        how = cv2.INTER_LINEAR
    else:
        how = cv2.INTER_AREA if width > size[0] and height > size[1] else cv2.INTER_LINEAR
    if (width, height) == tuple(size):
        return image
    return cv2.resize(image, size, interpolation=how)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Picture files, read and written."""

from pathlib import Path

import cv2
import numpy as np

from adamtl_ros.conversions import jpeg_ends
from adamtl_ros.files import whole

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


def read_picture(path: Path) -> np.ndarray:
    """
    Read one picture as uint8 (height, width, 3) RGB, upright as its EXIF has it.

    That is for photos; what has labels is read by datasets.frames.read_stored.
    FileNotFoundError or ValueError, naming the file, where it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f'{path}: there is no such picture')
    if not path.is_file():
        raise ValueError(f'{path}: not a picture file ({" ".join(PICTURES)})')
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f'{path}: cannot be read: {error.strerror}') from None
    cut_off = data.startswith(b'\xff\xd8') and not jpeg_ends(data)
    image = None
    if data and not cut_off:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            pass  # some broken headers raise instead of giving None
    if image is None:
        raise ValueError(
            f'{path}: not a readable picture, or damaged (supported: {" ".join(PICTURES)})')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 (h, w, 3) RGB picture, whole or not at all; OSError where that fails."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    with whole(path) as aside:
        aside.write_bytes(encoded.tobytes())

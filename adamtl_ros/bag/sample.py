# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A bag of the sequence that ships with the package, for a first try and for the tests."""

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from adamtl_ros.bag.reading import CAMERA_INFO
from adamtl_ros.bag.reading import COMPRESSED
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import STORE
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source

TOPIC = '/camera/image_raw'
STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
START = 1_700_000_000_000_000_000
"""Stamp of the first frame, ns."""


def write_sample(
        path: Path, *, storage: str = 'mcap', size: tuple[int, int] | None = None,
        compressed: bool = False, frames: int | None = None) -> int:
    """
    Write the shipped sequence as a rosbag2; return the number of frames.

    size: (width, height) to enlarge the pictures to.  compressed: as JPEG in
    sensor_msgs/CompressedImage.  frames: how many, by going through the sequence again and again.
    ValueError where the path is taken.
    """
    if path.exists():
        raise ValueError(f'{path}: exists already; give the name of a new bag')
    source = open_source(DEMO)
    camera = source.camera
    assert camera is not None
    types = STORE.types
    size = size or (camera.width, camera.height)
    across, down = size[0] / camera.width, size[1] / camera.height
    scale = np.array([across, 1, across, 1, down, down, 1, 1, 1])
    k = np.array(camera.k) * scale
    pictures = [
        cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC)
        if frame.image.shape[1::-1] != size else frame.image for frame in source]
    jpegs = [
        cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].ravel()
        for picture in pictures] if compressed else []
    count = len(pictures) if frames is None else frames
    with Writer(path, version=9, storage_plugin=STORAGES[storage]) as writer:
        kind = COMPRESSED if compressed else IMAGE
        images = writer.add_connection(
            f'{TOPIC}/compressed' if compressed else TOPIC, kind, typestore=STORE)
        infos = writer.add_connection('/camera/camera_info', CAMERA_INFO, typestore=STORE)
        for number in range(count):
            time = START + round(number * 1e9 / source.rate)
            header = types['std_msgs/msg/Header'](
                types['builtin_interfaces/msg/Time'](*divmod(time, 1_000_000_000)),
                'camera_optical_frame')
            info = types[CAMERA_INFO](
                header, size[1], size[0], camera.distortion_model, np.array(camera.d), k,
                np.eye(3).ravel(), np.insert(k, [3, 6, 9], 0.0), 0, 0,
                types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False))
            picture = pictures[number % len(pictures)]
            message = types[kind](
                header, 'jpeg', jpegs[number % len(jpegs)]) if compressed else types[kind](
                header, size[1], size[0], 'rgb8', 0, 3 * size[0], picture.reshape(-1))
            writer.write(infos, time, STORE.serialize_cdr(info, CAMERA_INFO))
            writer.write(images, time, STORE.serialize_cdr(message, kind))
    return count

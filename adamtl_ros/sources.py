# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Picture sources that stand in for a camera: a video file, a folder of pictures, a rosbag2."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from itertools import pairwise
import json
from math import isfinite
from pathlib import Path
import re
import statistics
from typing import Any
from typing import NamedTuple

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.highlevel import AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

from adamtl_ros.conversions import jpeg_ends
from adamtl_ros.conversions import rgb_from_compressed
from adamtl_ros.conversions import rgb_from_image

DEMO = Path(__file__).parent / 'data' / 'demo'
"""The sequence that ships with the package."""

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
BAGS = ('.db3', '.mcap')
SUPPORTED = (
    'a video file that OpenCV reads, a folder of pictures '
    f'({" ".join(PICTURES)}), or a rosbag2 folder (sqlite3 or mcap)')
DEFAULT_RATE = 10.0
"""Rate in Hz of a folder of pictures that has no camera.json."""

_IMAGE = 'sensor_msgs/msg/Image'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
_CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'


class Camera(NamedTuple):
    """Intrinsics: size in pixels, distortion d, and the 3x3 matrix k in row-major order."""

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]


class Frame(NamedTuple):
    """
    One picture.

    image: uint8 (height, width, 3) RGB.  time: s since the first frame.
    stamp: the recorded header stamp in ns; None where the source has none.
    """

    image: np.ndarray
    time: float
    stamp: int | None = None


@dataclass(frozen=True)
class Source:
    """
    Pictures in order, with what is known about them; iterate it as often as needed.

    kind: 'video', 'pictures' or 'bag'.  rate: Hz.  length: number of frames (of a video: what its
    header claims), None if unknown.  topic: of a bag.
    """

    path: Path
    kind: str
    rate: float
    length: int | None
    camera: Camera | None
    topic: str | None
    read: Callable[[], Iterator[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        """Read the frames from the first; ValueError naming the file that cannot be read."""
        return self.read()


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names the way people count: frame2 before frame10."""
    parts = re.split(r'(\d+)', path.name.lower())
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts], path.name


def read_picture(path: Path) -> np.ndarray:
    """
    Read one picture as uint8 (height, width, 3) RGB.

    FileNotFoundError or ValueError, naming the file, where that is not possible.
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


def open_source(
        path: str | Path, *, rate: float | None = None, topic: str | None = None) -> Source:
    """
    Open a video file, a folder of pictures or a rosbag2, decided by what lies at the path.

    rate: Hz to play at instead of the source's own.  topic: the image topic of a bag; None takes
    the first.  FileNotFoundError or ValueError name the path, what is wrong and what is supported.
    """
    path = Path(path)
    if rate is not None and not (isfinite(rate) and 0 < rate <= 1000):
        raise ValueError(f'rate: {rate} is not a frame rate; give a number in (0, 1000] Hz')
    if not path.exists():
        raise FileNotFoundError(f'{path}: there is no such source; give {SUPPORTED}')
    is_bag = path.suffix in BAGS or (path.is_dir() and (
        (path / 'metadata.yaml').exists() or any(path.glob('*.mcap')) or any(path.glob('*.db3'))))
    if topic is not None and not is_bag:
        raise ValueError(f'{path}: a topic ({topic}) can only be chosen in a bag')
    if is_bag:
        return _open_bag(path, rate, topic)
    if path.is_dir():
        return _open_pictures(path, rate)
    if path.suffix.lower() in PICTURES:
        raise ValueError(
            f'{path}: a single picture is no source; give its folder, or use: adamtl infer')
    return _open_video(path, rate)


def _open_pictures(path: Path, rate: float | None) -> Source:
    files = sorted(
        (file for file in path.iterdir()
         if file.suffix.lower() in PICTURES and not file.name.startswith('.')), key=natural_key)
    if not files:
        raise ValueError(f'{path}: holds no pictures; give {SUPPORTED}')
    own_rate, camera = _camera_file(path / 'camera.json')
    hertz = rate or own_rate or DEFAULT_RATE

    def read() -> Iterator[Frame]:
        for index, file in enumerate(files):
            image = read_picture(file)
            if camera and image.shape[:2] != (camera.height, camera.width):
                raise ValueError(
                    f'{file}: is {image.shape[1]}x{image.shape[0]}, but camera.json beside it '
                    f'says {camera.width}x{camera.height}')
            yield Frame(image, index / hertz)

    next(read())
    return Source(path, 'pictures', hertz, len(files), camera, None, read)


def _camera_file(path: Path) -> tuple[float | None, Camera | None]:
    """Read rate_hz and camera_info, both optional, from a JSON file that may be missing."""
    if not path.exists():
        return None, None
    try:
        values = json.loads(path.read_text())
        rate = values.get('rate_hz')
        if rate is not None and not (isfinite(rate) and 0 < rate <= 1000):
            raise ValueError(f'rate_hz is {rate}')
        return rate, _camera(values['camera_info']) if 'camera_info' in values else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: not a camera file ({error}); it may have "rate_hz", and "camera_info" with '
            'width, height, distortion_model, d and k') from None


def _camera(values: dict[str, Any]) -> Camera:
    camera = Camera(
        int(values['width']), int(values['height']), str(values['distortion_model']),
        tuple(float(value) for value in values['d']), tuple(float(value) for value in values['k']))
    if len(camera.k) != 9:
        raise ValueError(f'k has {len(camera.k)} values, not 9')
    return camera


def _open_video(path: Path, rate: float | None) -> Source:
    unreadable = f'{path}: not a video that can be read; give {SUPPORTED}'
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.read()[0]:
            raise ValueError(unreadable)
        own_rate = float(video.get(cv2.CAP_PROP_FPS))
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        video.release()
    if rate is None and not (isfinite(own_rate) and 0 < own_rate <= 1000):
        raise ValueError(f'{path}: the video states no frame rate; give one with --rate')
    hertz = rate or own_rate

    def read() -> Iterator[Frame]:
        video = cv2.VideoCapture(str(path))
        if not video.isOpened():
            raise ValueError(unreadable)
        try:
            index = 0
            while True:
                there, image = video.read()
                if not there:
                    return
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), index / hertz)
                index += 1
        finally:
            video.release()

    return Source(path, 'video', hertz, count if count > 0 else None, None, None, read)


def _open_bag(path: Path, rate: float | None, topic: str | None) -> Source:
    with _reader(path) as reader:
        connection = _image_connection(reader.connections, topic)
        times = [time for _, time, _ in islice(reader.messages([connection]), 100)]
        if not times:
            raise ValueError(f'topic {connection.topic} has no messages')
        gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
        # The median stands a pause in the recording.
        own_rate = 1e9 / statistics.median(gaps) if gaps else DEFAULT_RATE
        camera = _bag_camera(reader, connection.topic)
        name = connection.topic

    def read() -> Iterator[Frame]:
        with _reader(path) as reader:
            connection = _image_connection(reader.connections, name)
            convert: Callable[[Any], np.ndarray] = (
                rgb_from_image if connection.msgtype == _IMAGE else rgb_from_compressed)
            for index, (_, time, data) in enumerate(reader.messages([connection])):
                try:
                    message: Any = reader.deserialize(data, connection.msgtype)
                    image = convert(message)
                except (ValueError, AnyReaderError) as error:
                    raise ValueError(
                        f'message {index} of {name} cannot be used: {error}') from None
                stamp = message.header.stamp
                yield Frame(
                    image, index / rate if rate else (time - times[0]) / 1e9,
                    stamp.sec * 1_000_000_000 + stamp.nanosec)

    next(read())
    return Source(path, 'bag', rate or own_rate, connection.msgcount, camera, name, read)


@contextmanager
def _reader(path: Path) -> Iterator[AnyReader]:
    """Open a rosbag2; what goes wrong then or while it is read becomes a ValueError."""
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
            yield reader
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    # A damaged bag surfaces as whatever the storage, the YAML or the type parser raises.
    except Exception as error:
        raise ValueError(
            f'{path}: not a rosbag2 that can be read ({error}); give {SUPPORTED}') from None


def _image_connection(connections: list[Connection], topic: str | None) -> Connection:
    images = [
        connection for connection in connections
        if connection.msgtype in (_IMAGE, _COMPRESSED)]
    if not images:
        raise ValueError(f'the bag has no topic of type {_IMAGE} or {_COMPRESSED}')
    for connection in images:
        if topic is None and connection.msgcount or connection.topic == topic:
            return connection
    if topic is None:
        return images[0]
    raise ValueError(
        f'the bag has no image topic {topic}; it has '
        + ', '.join(connection.topic for connection in images))


def _bag_camera(reader: AnyReader, topic: str) -> Camera | None:
    """Return the first CameraInfo recorded beside the image topic."""
    wanted = topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'
    for connection in reader.connections:
        if connection.topic == wanted and connection.msgtype == _CAMERA_INFO:
            for _, _, data in reader.messages([connection]):
                message: Any = reader.deserialize(data, connection.msgtype)
                return Camera(
                    message.width, message.height, message.distortion_model,
                    tuple(message.d.tolist()), tuple(message.k.tolist()))
    return None

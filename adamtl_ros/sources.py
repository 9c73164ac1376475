# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Picture sources that stand in for a camera: a video file, a folder of pictures, a rosbag2."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from itertools import pairwise
import json
from math import isfinite
from pathlib import Path
import statistics
import sys
from typing import Any
from typing import NamedTuple

import cv2
import numpy as np

from adamtl_ros.bag.storage import is_recording
from adamtl_ros.files import check_name
from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.paths import natural_key
from adamtl_ros.picture_files import PICTURES
from adamtl_ros.picture_files import read_picture

DEMO = Path(__file__).parent / 'data' / 'demo'
"""The sequence that ships with the package."""

HELD_S = 2.0
"""Seconds for which its last picture is held where it stands for a camera."""

NOISE = 2.0
"""Deviation, of 255, of the noise on each sample of a picture that is held, as of a sensor."""

SUPPORTED = (
    'a video file that OpenCV reads, a folder of pictures '
    f'({" ".join(PICTURES)}), or a rosbag2 folder (sqlite3 or mcap)')
DEFAULT_RATE = 10.0
"""Rate in Hz of a folder of pictures that has no camera.json."""

LOOKED_AT = 100
"""Frames whose times tell the rate of a source."""

Say = Callable[[str], None]
"""Is told what is odd about a source, once each."""


class Camera(NamedTuple):
    """Intrinsics: size in pixels, distortion d, and the 3x3 matrix k in row-major order."""

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]


class SourceFrame(NamedTuple):
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

    kind: 'video', 'pictures' or 'bag'.  rate: Hz, of most of the frames.  length: number of frames
    (of a video: what its header claims), None if unknown.  topic: of a bag.  camera: of the first
    picture, None if unknown; known: what tells that of pictures of other sizes.  still: how many
    frames at the end are the last picture, held.
    """

    path: Path
    kind: str
    rate: float
    length: int | None
    camera: Camera | None
    topic: str | None
    read: Callable[[], Iterator[SourceFrame]]
    known: Intrinsics = Intrinsics()
    still: int = 0

    def camera_of(self, size: tuple[int, int]) -> Camera | None:
        """Return the camera of pictures of (width, height), None if it is not known of those."""
        if self.camera is None or self.camera[:2] == size:
            return self.camera
        try:
            return _filmed(self.known, size)
        except ValueError:  # a calibration for pictures of another shape
            return None

    def __iter__(self) -> Iterator[SourceFrame]:
        """Read the frames from the first; ValueError naming the file that cannot be read."""
        return self.read()


def filmed_by(source: Source, known: Intrinsics) -> Source:
    """Return the source with the camera that is known of it, with its own if nothing is."""
    size = next(iter(source)).image.shape[1::-1]
    camera = _filmed(known, (size[0], size[1]))
    return source if camera is None else replace(source, camera=camera, known=known)


def _filmed(known: Intrinsics, size: tuple[int, int]) -> Camera | None:
    camera = known.camera(size)
    if camera is None:
        return None
    distortion = tuple(known.info.d) if known.info is not None else ()
    return Camera(
        camera.width, camera.height,
        known.info.distortion_model if distortion else 'plumb_bob', distortion or (0.0,) * 5,
        (camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0))


def _print(text: str) -> None:
    print(text, file=sys.stderr)


def open_source(
        path: str | Path | None, *, rate: float | None = None, topic: str | None = None,
        say: Say = _print) -> Source:
    """
    Open a video file, a folder of pictures or a rosbag2, decided by what lies at the path.

    path: None is the sequence that ships, and then HELD_S at the end of its way.
    rate: Hz to play at instead of at the times of its frames.  topic: the image topic of a bag;
    None takes the first that can be read.  say: is told what of it is left out or odd, and why.
    FileNotFoundError or ValueError name the path, what is wrong and what is supported.
    """
    if path is None:
        return _held(open_source(DEMO, rate=rate, topic=topic, say=say))
    path = Path(path)
    check_name(path.absolute())
    if rate is not None and not (isfinite(rate) and 0 < rate <= 1000):
        raise ValueError(f'rate: {rate} is not a frame rate; give a number in (0, 1000] Hz')
    if not path.exists():
        raise FileNotFoundError(f'{path}: there is no such source; give {SUPPORTED}')
    if is_recording(path):
        return _open_bag(path, rate, topic, say)
    if topic is not None:
        raise ValueError(f'{path}: a topic ({topic}) can only be chosen in a bag')
    if path.is_dir():
        return _open_pictures(path, rate)
    if path.suffix.lower() in PICTURES:
        raise ValueError(
            f'{path}: a single picture is no source; give its folder, or use: adamtl infer')
    return _open_video(path, rate, say)


def _open_pictures(path: Path, rate: float | None) -> Source:
    files = sorted(
        (file for file in path.iterdir()
         if file.suffix.lower() in PICTURES and not file.name.startswith('.')), key=natural_key)
    if not files:
        raise ValueError(f'{path}: holds no pictures; give {SUPPORTED}')
    own_rate, camera = _camera_file(path / 'camera.json')
    hertz = rate or own_rate or DEFAULT_RATE

    def read() -> Iterator[SourceFrame]:
        for index, file in enumerate(files):
            image = read_picture(file)
            if camera and image.shape[:2] != (camera.height, camera.width):
                raise ValueError(
                    f'{file}: is {image.shape[1]}x{image.shape[0]}, but camera.json beside it '
                    f'says {camera.width}x{camera.height}')
            yield SourceFrame(image, index / hertz)

    next(read())
    return Source(path, 'pictures', hertz, len(files), camera, None, read)


def _held(source: Source) -> Source:
    """Return the source, and then its last picture, as a camera that stands still sees it."""
    still = max(1, round(HELD_S * source.rate))

    def read() -> Iterator[SourceFrame]:
        for frame in source:
            yield frame
        for number in range(1, still + 1):
            noise = np.random.default_rng(number).normal(0.0, NOISE, frame.image.shape)
            image = (frame.image + noise).round().clip(0, 255).astype(np.uint8)
            yield SourceFrame(image, frame.time + number / source.rate)

    return replace(
        source, length=source.length and source.length + still, read=read, still=still)


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


def _open_video(path: Path, rate: float | None, say: Say) -> Source:
    unreadable = f'{path}: not a video that can be read; give {SUPPORTED}'
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.read()[0]:
            raise ValueError(unreadable)
        claimed = float(video.get(cv2.CAP_PROP_FPS))
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        times = [_seconds(video)]
        while len(times) < LOOKED_AT and video.grab():
            times.append(_seconds(video))
    finally:
        video.release()
    # Headers tell a mean, or what the writer made up: 1000 is common.
    hertz = rate or _likely(rate_of(times)) or _likely(claimed)
    if hertz is None:
        raise ValueError(f'{path}: the video states no frame rate; give one with --rate')
    if rate is None and not 2 / 3 < claimed / hertz < 3 / 2:
        say(f'{path}: the header claims {claimed:g} frames/s, the times of the frames say '
            f'{hertz:g}: they are played at their times')

    def read() -> Iterator[SourceFrame]:
        video = cv2.VideoCapture(str(path))
        if not video.isOpened():
            raise ValueError(unreadable)
        try:
            first = latest = 0.0
            for index in count_from(0):
                there, image = video.read()
                if not there:
                    return
                if rate is not None:
                    latest = index / hertz
                elif not index:
                    first = _seconds(video)
                else:
                    at = _seconds(video) - first
                    # Some frames have no time, or that of another.
                    latest = at if isfinite(at) and at > latest else latest + 1 / hertz
                yield SourceFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), latest)
        finally:
            video.release()

    return Source(path, 'video', hertz, count if count > 0 else None, None, None, read)


def _seconds(video: cv2.VideoCapture) -> float:
    """Return the time of the frame that was read last, by its stamp in the file."""
    return float(video.get(cv2.CAP_PROP_POS_MSEC)) / 1000


def _likely(rate: float | None) -> float | None:
    """Return a rate that a camera can have, None for others."""
    return rate if rate is not None and isfinite(rate) and 0 < rate <= 1000 else None


def _open_bag(path: Path, rate: float | None, topic: str | None, say: Say) -> Source:
    # What reads bags is needed for bags alone.
    from adamtl_ros.bag import reading

    told: set[str] = set()

    def tell(texts: Iterable[str]) -> None:
        for text in texts:
            if text not in told:
                told.add(text)
                say(f'{path}: {text}')

    bag = reading.Bag(path)
    name = reading.choose_topic(bag, topic) if topic else reading.first_topic(bag)
    times = [message.time for message in islice(bag.messages((name,)), LOOKED_AT)]
    hertz = rate or rate_of([time / 1e9 for time in times]) or DEFAULT_RATE
    known = reading.intrinsics_of(bag, name)
    tell(bag.notes)
    cameras: list[Camera | None] = []

    def read() -> Iterator[SourceFrame]:
        frames = reading.RecordedFrames(name, known)
        skipped: Counter[str] = Counter()
        first, latest, reason = None, 0.0, ''
        for message in bag.messages((name,)):
            if first is None and frames.number >= reading.LOOKED_AT:
                break
            found = frames.read(message)
            if isinstance(found, reading.RecordedFrame):
                if first is None:
                    first = found.time
                    tell(filter(None, [frames.refused]))
                    cameras[:] = [_camera_of(found, known.rectified)]
                latest = max(latest, (found.time - first) / 1e9)
                yield SourceFrame(
                    found.image, found.number / rate if rate else latest, found.stamp or None)
            elif isinstance(found, reading.Skipped):
                skipped[found.cause] += 1
                reason = f'message {found.number} of {name} cannot be used: {found.reason}'
                if skipped[found.cause] == 1:
                    tell([reason])
        if first is None:
            raise ValueError(
                f'{path}: no message of {name} can be used: '
                f'{"; ".join([*filter(None, [reason]), *bag.problems])}'
                f'{reading.others_than(bag, name)}')
        tell(f'{number} messages of {name} cannot be used ({cause})'
             for cause, number in skipped.items() if number > 1)
        expected = bag.expected(name)
        if expected and frames.number + 1 < expected:
            tell([f'{expected} messages of {name} were recorded, {frames.number + 1} can be read'])
        tell(bag.problems)

    next(read())
    tell(bag.problems)
    return Source(path, 'bag', hertz, bag.topics[name][1], cameras[0], name, read)


def rate_of(times: Iterable[float]) -> float | None:
    """Return the rate in Hz of frames at these times in s, None where they do not tell it."""
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    # The median stands a pause in the recording.
    return 1 / statistics.median(gaps) if gaps else None


def _camera_of(frame: Any, rectified: bool) -> Camera | None:
    """Return the camera of a recorded frame: region, binning and rectification are in it."""
    camera, info = frame.camera, frame.info
    if camera is None:
        return None
    return Camera(
        camera.width, camera.height, str(info.distortion_model),
        (0.0,) * len(info.d) if rectified else tuple(info.d.tolist()),
        (camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0))

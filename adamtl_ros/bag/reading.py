# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a rosbag2, a message at a time, from whatever of it can be read."""

from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
import re
import shutil
import tempfile
from time import perf_counter
from types import ModuleType
from typing import Any
from typing import NamedTuple
import weakref

import numpy as np
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
import yaml

from adamtl_ros.bag.storage import Contents
from adamtl_ros.bag.storage import kind_of
from adamtl_ros.bag.storage import LATEST
from adamtl_ros.bag.storage import line
from adamtl_ros.bag.storage import Message
from adamtl_ros.bag.storage import recording_files
from adamtl_ros.bag.storage import unpack
from adamtl_ros.bag.storage import unpacked
from adamtl_ros.calibration import Calibrations
from adamtl_ros.calibration import is_rectified
from adamtl_ros.calibration import Lens
from adamtl_ros.camera import Camera
from adamtl_ros.conversions import BadFrameError
from adamtl_ros.conversions import nanoseconds
from adamtl_ros.conversions import rgb_from_compressed
from adamtl_ros.conversions import rgb_from_image
from adamtl_ros.intrinsics import Intrinsics

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

STORE = get_typestore(Stores.ROS2_KILTED)
"""The standard message types; sensor_msgs is the same in every ROS 2."""

REMEMBERED = 1000
"""Frames among which a stamp that comes again is found."""

TRIED = 3
"""Messages of a topic none of which is a picture where the topic is none of a camera."""

LOOKED_AT = 500
"""Messages among which these are looked for."""

PROBLEMS = 50
"""Problems of a recording that are listed: where every message is wrong, each has its own."""

MORE_PROBLEMS = 'there are more problems than are listed here'

NOTHING_KNOWN = Intrinsics()

_PART = re.compile(r'(.+)_(\d+)\.')


class RecordedFrame(NamedTuple):
    """
    One picture.

    number: among the messages of the topic, from 0, bad ones counted.  time: of recording, ns.
    stamp: of the header, ns, 0 where the camera set none.  image: uint8 (h, w, 3) RGB.
    header: std_msgs/Header.  seconds: that turning the message into the image took.  camera: that
    took it, None if that is not known.  info: the CameraInfo that says so, None if none does.
    """

    number: int
    time: int
    stamp: int
    image: np.ndarray
    header: Any
    seconds: float
    camera: Camera | None = None
    info: Any = None


class Skipped(NamedTuple):
    """A message that is no frame: number and time as of one that is, the cause and the reason."""

    number: int
    time: int
    cause: str
    reason: str


class Promise(NamedTuple):
    """What metadata.yaml says: the names of the files, and (type, number) of each topic."""

    files: list[str]
    topics: dict[str, tuple[str, int]]


def promised(folder: Path) -> Promise:
    """Read metadata.yaml; FileNotFoundError, or ValueError where it is damaged."""
    try:
        values = yaml.safe_load((folder / 'metadata.yaml').read_text(encoding='utf-8'))[
            'rosbag2_bagfile_information']
        return Promise(
            # The folders that older ones name are those of the machine that recorded.
            list(dict.fromkeys(Path(name).name for name in values['relative_file_paths'])),
            {str(entry['topic_metadata']['name']): (
                str(entry['topic_metadata']['type']), int(entry['message_count']))
             for entry in values['topics_with_message_count']})
    except FileNotFoundError:
        raise
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f'metadata.yaml cannot be read ({line(error)})') from None


def recordings(folder: Path) -> list[Path]:
    """
    Return the recordings that lie right in a folder, not those in folders below.

    The folder itself where it is one: by its metadata.yaml, or because its files are the parts
    that one recorder wrote; else each of its files.
    """
    files = recording_files(folder)
    try:
        promised(folder)
    except (FileNotFoundError, ValueError):
        alone = len(files) == 1 and not any(each.is_dir() for each in folder.iterdir())
        return files if files and not alone and not _are_parts(files) else [folder]
    return [folder]


def _are_parts(files: list[Path]) -> bool:
    """Return whether files are NAME_0, NAME_1, ... of one recorder, each after the other."""
    names = [match[1] for file in files if (match := _PART.match(file.name))]
    return len(names) == len(files) > 0 and len(set(names)) == 1 and _are_apart(files)


def _are_apart(files: list[Path]) -> bool:
    """Return whether no two files were recorded at the same time, as far as their indices tell."""
    spans: list[tuple[int, int] | None] = []
    for file in files:
        with suppress(ValueError):
            spans.append(_format(file).span(file))
    known = sorted(span for span in spans if span is not None)
    return all(end <= start for (_, end), (start, _) in pairwise(known))


def _format(file: Path) -> ModuleType:
    """Return the module that reads a file; ValueError where none does."""
    kind = kind_of(file)
    if kind == 'mcap':
        from adamtl_ros.bag import mcap_file
        return mcap_file
    if kind == 'sqlite3':
        from adamtl_ros.bag import sqlite_file
        return sqlite_file
    if kind == 'ros1':
        raise ValueError(
            f'a ROS 1 bag: convert it with rosbags-convert --src {file} --dst {file.stem}')
    raise ValueError(f'neither mcap nor sqlite3{f", but {kind}" if kind else ""}')


class Bag:
    """
    A rosbag2 folder or a single file of one, sqlite3 or mcap, compressed or not.

    What the files hold counts; metadata.yaml only tells whether something of it is missing.

    topics: name to (type, number of messages or None).  problems: what is wrong with the files,
    which grows while they are read; nothing that can still be read is held back for it.
    notes: what is odd, and costs nothing.
    FileNotFoundError or ValueError where there is no bag at the path or nothing in it.
    """

    def __init__(self, path: str | Path) -> None:
        """Find the files and topics; a file is read through only where it has no index."""
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(
                f'{self.path}: there is no such bag; give a rosbag2 folder, an .mcap or a .db3')
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.topics: dict[str, tuple[str, int | None]] = {}
        self._promised: dict[str, tuple[str, int]] = {}
        self._plain: tuple[Path, Path, Any] | None = None
        starts = {}
        for file in self._find() if self.path.is_dir() else [self.path]:
            starts[file] = self._look_into(file)
        # The name of a file may be anybody's; the time is the recorder's.
        self.files = sorted(starts, key=lambda file: starts[file])
        self._compare()
        if not self.topics:
            reasons = '; '.join(self.problems) or 'no topic in it'
            raise ValueError(f'{self.path}: not a rosbag2 that can be read: {reasons}')

    def _find(self) -> list[Path]:
        """Return the files of a folder that are the recording's."""
        files = recording_files(self.path)
        if not files:
            raise ValueError(
                f'{self.path}: holds no .mcap or .db3 file; give a rosbag2 folder, an .mcap or '
                'a .db3')
        try:
            names, self._promised = promised(self.path)
        except (FileNotFoundError, ValueError) as error:
            if len(files) > 1 and not _are_parts(files):
                raise ValueError(
                    f'{self.path}: holds {len(files)} recordings, name one: '
                    f'{", ".join(file.name for file in files)}') from None
            self.problem(
                f'{error}' if isinstance(error, ValueError) else
                'metadata.yaml is missing: the recording was not ended in order')
            return files
        chosen = [file for file in files if file.name in names]
        missing = [name for name in names if not (self.path / name).exists()]
        others = [file for file in files if file.name not in names]
        instead: list[Path] = []
        for file in others:
            if len(instead) < len(missing) and _are_apart([*chosen, *instead, file]):
                instead.append(file)
        if instead:
            self.note(
                f'metadata.yaml names {", ".join(missing[:len(instead)])}, which is not there; '
                f'{", ".join(file.name for file in instead)} is read instead')
        for name in missing[len(instead):]:
            self.problem(f'{name} is missing')
        chosen += instead
        others = [file for file in others if file not in instead]
        later = [file for file in others if _are_parts([*chosen, file])]
        if later:
            self.problem(
                f'metadata.yaml does not name {", ".join(file.name for file in later)}, which is '
                'read as well: the recording was not ended in order')
        if others[len(later):]:
            left = [file.name for file in others if file not in later]
            self.note(f'metadata.yaml does not name {", ".join(left)}: left out')
        return chosen + later

    def _look_into(self, file: Path) -> int:
        """Add the topics of a file; return when its first message was recorded, ns."""
        try:
            plain = self._unpacked(file)
            contents: Contents = _format(plain).contents(plain, self.problem)
        except (ValueError, OSError) as error:
            self.problem(f'{file.name} is damaged or no recording ({line(error)})')
            return LATEST
        for topic, kind, number in contents.topics:
            known, before = self.topics.get(topic, (kind, 0))
            if kind == known:
                total = None if number is None or before is None else before + number
                self.topics[topic] = (kind, total)
                continue
            self.note(f'{topic} has messages of the types {known} and {kind}')
            if kind in (IMAGE, COMPRESSED) and known not in (IMAGE, COMPRESSED):
                self.topics[topic] = (kind, number)
        return contents.span[0] if contents.span else LATEST

    def _compare(self) -> None:
        """Note where metadata.yaml tells another story than the files."""
        for topic, (kind, _) in self.topics.items():
            told = self._promised.get(topic, (kind, 0))[0]
            if told != kind:
                self.note(f'metadata.yaml says that {topic} is of type {told}: it is of {kind}')
            elif self._promised and topic not in self._promised and kind in (IMAGE, COMPRESSED):
                self.note(f'metadata.yaml does not name the topic {topic}')

    def expected(self, topic: str) -> int | None:
        """Return how many messages of a topic were recorded, as far as anything tells."""
        numbers = (self.topics.get(topic, ('', None))[1], self._promised.get(topic, ('', 0))[1])
        return max((number for number in numbers if number), default=None)

    def problem(self, text: str) -> None:
        """Note a problem, once, and of a great many the first ones."""
        if text not in self.problems and len(self.problems) <= PROBLEMS:
            self.problems.append(text if len(self.problems) < PROBLEMS else MORE_PROBLEMS)

    def note(self, text: str) -> None:
        """Note something that costs nothing, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _unpacked(self, file: Path) -> Path:
        """Return the file itself, or a copy without its compression, of which one is kept."""
        kind = kind_of(file)
        if kind not in ('zstd', 'lz4'):
            return file
        if self._plain is None or self._plain[0] != file:
            if self._plain is not None:
                self._plain[2]()
            folder = tempfile.mkdtemp(prefix='adamtl_bag_')
            remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._plain = (file, Path(folder, file.stem), remove)
            unpack(file, kind, self._plain[1], self.problem)
        return self._plain[1]

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Read the messages of the topics, file after file, in the order of recording."""
        for file in self.files:
            try:
                plain = self._unpacked(file)
                module = _format(plain)
            except (ValueError, OSError) as error:
                self.problem(f'{file.name} is damaged or no recording ({line(error)})')
                continue
            for message in module.messages(plain, topics, self.problem):
                if 0 <= message.time <= LATEST:
                    yield message
                else:
                    self.problem(
                        f'{file.name}: a message of {message.topic} was recorded at '
                        f'{message.time} ns, which is no time: left out')


def image_topics(bag: Bag) -> dict[str, tuple[str, int | None]]:
    """Return the topics of pictures, with their type and number of messages."""
    return {
        name: (kind, number) for name, (kind, number) in bag.topics.items()
        if kind in (IMAGE, COMPRESSED) and number != 0}


def unreadable(bag: Bag, topics: Collection[str]) -> dict[str, str]:
    """Return the topics of pictures that are none of a camera, and why: the first ones tell."""
    frames = {topic: RecordedFrames(topic) for topic in topics}
    reasons: dict[str, str] = {}
    for count, message in enumerate(bag.messages(topics)):
        if message.topic in frames:
            frame = frames[message.topic].read(message)
            if isinstance(frame, Skipped):
                reasons[message.topic] = frame.reason
            if isinstance(frame, RecordedFrame):
                reasons.pop(message.topic, None)
            if isinstance(frame, RecordedFrame) or frames[message.topic].number + 1 >= TRIED:
                del frames[message.topic]
        if not frames or count >= LOOKED_AT:
            break
    return reasons


def choose_topic(
        bag: Bag, topic: str | None, ask: Callable[[list[str]], str] | None = None,
        other: Collection[str] = ()) -> str:
    """
    Return the topic to evaluate; ValueError, naming what there is, where that is not clear.

    topic: what was asked for.  ask: chooses among several.  other: topics that are no cameras.
    """
    found = {name: entry for name, entry in image_topics(bag).items() if name not in other}
    listed = ', '.join(
        f'{name} ({kind.rpartition("/")[2]}, {"?" if number is None else number} messages)'
        for name, (kind, number) in found.items())
    if topic is not None:
        if topic in found:
            return topic
        raise ValueError(
            f'{bag.path}: has no pictures on the topic {topic}; it has '
            f'{listed or "no image topic at all"}')
    if not found:
        empty = [name for name, (kind, _) in bag.topics.items() if kind in (IMAGE, COMPRESSED)]
        if empty:
            raise ValueError('; '.join([
                f'{bag.path}: its image topic {", ".join(empty)} has no messages', *bag.problems]))
        types = ', '.join(sorted({kind for kind, _ in bag.topics.values()})) or 'nothing'
        raise ValueError(
            f'{bag.path}: has no topic of type {IMAGE} or {COMPRESSED} with messages; it has '
            f'{types}')
    if len(found) == 1:
        return next(iter(found))
    reasons = unreadable(bag, found)
    good = [name for name in found if name not in reasons]
    if len(good) == 1:
        for name, reason in reasons.items():
            bag.note(f'{name} is no camera that can be read: {reason}')
        return good[0]
    if ask is not None:
        return ask(good or list(found))
    raise ValueError(f'{bag.path}: has several image topics, choose one with --topic: {listed}')


def first_topic(bag: Bag) -> str:
    """Return the first topic of pictures that can be read; ValueError where there is none."""
    found = list(image_topics(bag))
    if len(found) < 2:
        return choose_topic(bag, None)
    reasons = unreadable(bag, found)
    for name in found:
        if name not in reasons:
            return name
        bag.note(f'{name} is no camera that can be read: {reasons[name]}')
    raise ValueError(f'{bag.path}: none of its image topics can be read: ' + '; '.join(
        f'{name}: {reason}' for name, reason in reasons.items()))


def others_than(bag: Bag, topic: str) -> str:
    """Return words that name the other topics of pictures, '' where there is none."""
    others = [name for name in image_topics(bag) if name != topic]
    return f'; choose another topic with --topic: {", ".join(others)}' if others else ''


def info_topic(topic: str) -> str:
    """Return the topic of the CameraInfo beside an image topic."""
    return topic.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'


def camera_info(bag: Bag, topic: str) -> Any:
    """Return the first CameraInfo recorded beside the image topic, None if there is none."""
    wanted = info_topic(topic)
    if bag.topics.get(wanted, ('', 0))[0] != CAMERA_INFO:
        return None
    for message in bag.messages((wanted,)):
        try:
            return decode(message)
        except ValueError as error:
            bag.problem(f'{wanted}: {error}')
    return None


def intrinsics_of(bag: Bag, topic: str) -> Intrinsics:
    """Return what a recording tells of the camera of a topic."""
    return Intrinsics(camera_info(bag, topic), recorded=True, rectified=is_rectified(topic))


def decode(message: Message) -> Any:
    """Return the message as an object with its fields; ValueError where it is damaged."""
    if not message.data:
        raise ValueError('the message is empty')
    try:
        data = unpacked(message.data)
        if data[0]:  # of CDR the first byte is 0, whatever the representation
            raise ValueError('neither CDR nor compressed with zstd or lz4')
        return STORE.deserialize_cdr(data, message.kind)
    except Exception as error:
        raise ValueError(f'the message is damaged ({line(error)})') from None


class RecordedFrames:
    """
    The frames of a topic, one at a time.

    sizes: frames by 'WIDTHxHEIGHT'.  zero_stamps: frames that the camera did not stamp.
    refused: why the camera is not that of the pictures, '' while it is.  infos: the topic, if
    there is one, whose messages `calibrate` wants.
    """

    def __init__(self, topic: str, known: Intrinsics = NOTHING_KNOWN) -> None:
        """Begin before the first message; known: of the camera."""
        self.topic = topic
        self.known = known
        self.infos = (info_topic(topic),) if known.info is not None and known.recorded else ()
        self.refused = ''
        self.number = -1
        self.sizes: Counter[str] = Counter()
        self.zero_stamps = 0
        self._known: set[int] = set()
        self._order: deque[int] = deque()
        self._calibrations = Calibrations()
        if self.infos:
            # It holds from the start, as that of a camera that has been running.
            self._calibrations.put(known.info)

    def calibrate(self, message: Message) -> None:
        """Take in a CameraInfo, for the frames to come; ValueError where it is damaged."""
        if message.kind == CAMERA_INFO:
            self._calibrations.put(decode(message))

    def read(self, message: Message, *, decoded: bool = True) -> RecordedFrame | Skipped | None:
        """
        Turn the next message of the topic into a frame, or say why it is none.

        decoded: if False, only count it and return None.
        """
        self.number += 1
        if not decoded:
            return None
        try:
            start = perf_counter()
            if message.kind not in (IMAGE, COMPRESSED):
                raise ValueError(f'the message is of type {message.kind}')
            content = decode(message)
            convert = rgb_from_image if message.kind == IMAGE else rgb_from_compressed
            stamp = nanoseconds(content.header)
            if stamp in self._known:
                return Skipped(
                    self.number, message.time, 'duplicate_stamp',
                    f'its stamp {stamp / 1e9:.9f} s was there before')
            image = convert(content)
            if not image.flags.writeable:  # torch warns of those
                image = image.copy()
            seconds = perf_counter() - start
        except BadFrameError as error:
            return Skipped(self.number, message.time, error.cause, str(error))
        except ValueError as error:
            return Skipped(self.number, message.time, 'message', str(error))
        if stamp:
            self._known.add(stamp)
            self._order.append(stamp)
            if len(self._order) > REMEMBERED:
                self._known.discard(self._order.popleft())
        else:
            self.zero_stamps += 1
        self.sizes[f'{image.shape[1]}x{image.shape[0]}'] += 1
        lens = self._lens((image.shape[1], image.shape[0]), content.header)
        return RecordedFrame(
            self.number, message.time, stamp, image, content.header, seconds, lens.camera,
            lens.info)

    def _lens(self, size: tuple[int, int], header: Any) -> Lens:
        if self.infos:
            lens = self._calibrations.lens(header, size, rectified=self.known.rectified)
            self.refused = lens.words if lens.refused else self.refused
            return lens
        try:
            return Lens(camera=self.known.camera(size, header))
        except ValueError as error:
            self.refused = str(error)
            return Lens()

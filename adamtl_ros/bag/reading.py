# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a rosbag2, a message at a time, from whatever of it can be read."""

from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
import sqlite3
import struct
import tempfile
from time import perf_counter
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

from mcap.opcode import Opcode
from mcap.records import Channel
from mcap.records import Chunk
from mcap.records import Message as McapMessage
from mcap.records import Schema
from mcap.stream_reader import breakup_chunk
from mcap.stream_reader import StreamReader
import numpy as np
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
import yaml
import zstandard

from adamtl_ros.conversions import BadFrameError
from adamtl_ros.conversions import rgb_from_compressed
from adamtl_ros.conversions import rgb_from_image
from adamtl_ros.sources import natural_key

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'

STORE = get_typestore(Stores.ROS2_KILTED)
"""The standard message types; sensor_msgs is the same in every ROS 2."""

REMEMBERED = 1000
"""Frames among which a stamp that comes again is found."""

_SUFFIXES = ('.mcap', '.db3')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


class Message(NamedTuple):
    """One message: its topic and type, when it was recorded (ns), and its CDR bytes."""

    topic: str
    kind: str
    time: int
    data: bytes


class Frame(NamedTuple):
    """
    One picture.

    number: among the messages of the topic, from 0, bad ones counted.  time: of recording, ns.
    stamp: of the header, ns, 0 where the camera set none.  image: uint8 (h, w, 3) RGB.
    header: std_msgs/Header.  seconds: that turning the message into the image took.
    """

    number: int
    time: int
    stamp: int
    image: np.ndarray
    header: Any
    seconds: float


class Skipped(NamedTuple):
    """A message that is no frame: its number and time as of a Frame, the cause and the reason."""

    number: int
    time: int
    cause: str
    reason: str


class Bag:
    """
    A rosbag2 folder or a single file of one, sqlite3 or mcap, compressed or not.

    topics: name to (type, number of messages or None).  problems: what is wrong with the files,
    which grows while they are read; nothing that can still be read is held back for it.
    FileNotFoundError or ValueError where there is no bag at the path or nothing in it.
    """

    def __init__(self, path: str | Path) -> None:
        """Find the files and topics; a file is read through only where it has no index."""
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(
                f'{self.path}: there is no such bag; give a rosbag2 folder, an .mcap or a .db3')
        self.problems: list[str] = []
        self.topics: dict[str, tuple[str, int | None]] = {}
        self.files = self._find()
        if not self.topics:
            for file in self.files:
                self._add_topics(file)
        if not self.topics:
            reasons = '; '.join(self.problems) or 'no topic in it'
            raise ValueError(f'{self.path}: not a rosbag2 that can be read: {reasons}')

    def _find(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        files = sorted(
            (file for file in self.path.iterdir()
             if file.suffix in _SUFFIXES or file.name.endswith(('.mcap.zstd', '.db3.zstd'))),
            key=natural_key)
        metadata = self.path / 'metadata.yaml'
        try:
            values = yaml.safe_load(metadata.read_text())['rosbag2_bagfile_information']
            named = [self.path / Path(name).name for name in values['relative_file_paths']]
            for entry in values['topics_with_message_count']:
                topic = entry['topic_metadata']
                self.topics[str(topic['name'])] = (str(topic['type']), entry['message_count'])
        except FileNotFoundError:
            if files:
                self.problem('metadata.yaml is missing: the recording was not ended in order')
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            self.problem(f'metadata.yaml cannot be read ({_line(error)})')
        else:
            for file in named:
                if not file.exists():
                    self.problem(f'{file.name} is missing')
            files = [file for file in named if file.exists()]
        if not files:
            raise ValueError(
                f'{self.path}: holds no .mcap or .db3 file; give a rosbag2 folder, an .mcap or '
                'a .db3')
        return files

    def problem(self, text: str) -> None:
        """Note a problem, once."""
        if text not in self.problems:
            self.problems.append(text)

    def _add_topics(self, file: Path) -> None:
        """Add what a file says of its topics, or what is found in it where it says nothing."""
        with self._unpacked(file) as plain:
            try:
                with Reader(plain) as reader:
                    found = [(c.topic, c.msgtype, c.msgcount) for c in reader.connections]
            except Exception as error:  # a damaged file surfaces as whatever its reader raises
                self.problem(f'{file.name} is damaged or cut off ({_line(error)})')
                counts = Counter(
                    (message.topic, message.kind) for message in self._recover(plain, None))
                found = [(*key, number) for key, number in counts.items()]
        for topic, kind, number in found:
            before = self.topics.get(topic, (kind, 0))[1]
            self.topics[topic] = (kind, (before or 0) + number)

    @contextmanager
    def _unpacked(self, file: Path) -> Iterator[Path]:
        """Give the file itself, or a temporary copy without its compression."""
        if file.suffix != '.zstd':
            yield file
            return
        with tempfile.TemporaryDirectory(prefix='adamtl_bag_') as folder:
            plain = Path(folder, file.stem)
            with plain.open('wb') as target, file.open('rb') as packed:
                try:
                    zstandard.ZstdDecompressor().copy_stream(packed, target)
                except zstandard.ZstdError as error:
                    self.problem(f'{file.name} is damaged or cut off ({_line(error)})')
            yield plain

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Read the messages of the topics, file after file, in the order of recording."""
        for file in self.files:
            with self._unpacked(file) as plain:
                yield from self._read(plain, topics)

    def _read(self, file: Path, topics: Collection[str]) -> Iterator[Message]:
        count = 0
        try:
            with Reader(file) as reader:
                wanted = [c for c in reader.connections if c.topic in topics]
                for connection, time, data in reader.messages(wanted) if wanted else ():
                    count += 1
                    yield Message(connection.topic, connection.msgtype, time, data)
                return
        except Exception as error:
            self.problem(f'{file.name} is damaged or cut off ({_line(error)})')
        # What is there is read in the file's order, which is that of the time but for messages
        # that were recorded within the same moments.
        for number, message in enumerate(self._recover(file, topics)):
            if number >= count:
                yield message

    def _recover(self, file: Path, topics: Collection[str] | None) -> Iterator[Message]:
        recover = _recover_mcap if file.suffix == '.mcap' else _recover_sqlite
        for message in recover(file, self.problem):
            if topics is None or message.topic in topics:
                yield message


def _line(error: BaseException) -> str:
    return ' '.join(f'{error or type(error).__name__}'.split()).rstrip('.')


def _recover_mcap(file: Path, problem: Callable[[str], None]) -> Iterator[Message]:
    """Read an mcap from its start, past damaged chunks, as far as it goes."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with file.open('rb') as stream:
        for record in _records(stream, file.name, problem):
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, McapMessage) and record.channel_id in channels:
                channel = channels[record.channel_id]
                schema = schemas.get(channel.schema_id)
                yield Message(
                    channel.topic, schema.name if schema else '', record.log_time, record.data)


def _records(stream: BinaryIO, name: str, problem: Callable[[str], None]) -> Iterator[Any]:
    records = iter(StreamReader(stream, emit_chunks=True).records)
    while True:
        start = stream.tell()
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # what the bytes happen to mean
            problem(f'{name} ends in the middle ({_line(error)})')
            with suppress(Exception):
                yield from _begun_chunk(stream, start)
            return
        if not isinstance(record, Chunk):
            yield record
            continue
        try:
            inner = breakup_chunk(record, True)
        except Exception as error:
            problem(f'{name} has a damaged chunk ({_line(error)})')
            continue
        yield from inner


def _begun_chunk(stream: BinaryIO, start: int) -> Iterator[Any]:
    """Read the records of a chunk that was cut off; ends with whatever error the cut gives."""
    # https://mcap.dev/spec#chunk-op0x06: opcode, length, start, end, size, checksum, compression.
    stream.seek(start)
    opcode, length = struct.unpack('<B36xI', stream.read(41))
    if opcode != Opcode.CHUNK:
        return
    compression = stream.read(length).decode()
    stream.seek(8, 1)
    source: Any = stream
    if compression == 'zstd':
        source = zstandard.ZstdDecompressor().stream_reader(stream)
    elif compression:
        return
    yield from StreamReader(source, skip_magic=True).records


def _recover_sqlite(file: Path, problem: Callable[[str], None]) -> Iterator[Message]:
    """Read the rows of an sqlite3 storage in the order they were written, as far as it goes."""
    try:
        with closing(sqlite3.connect(f'file:{file}?mode=ro&immutable=1', uri=True)) as database:
            # Without this, SQLite refuses a file that is shorter than its header says.
            database.execute('PRAGMA writable_schema = ON')
            topics = {
                number: (name, kind)
                for number, name, kind in database.execute('SELECT id, name, type FROM topics')}
            for topic, time, data in database.execute(
                    'SELECT topic_id, timestamp, data FROM messages ORDER BY id'):
                if topic in topics:
                    yield Message(*topics[topic], time, data)
    except sqlite3.Error as error:
        problem(f'{file.name} ends in the middle ({_line(error)})')


def image_topics(bag: Bag) -> dict[str, tuple[str, int | None]]:
    """Return the topics of pictures, with their type and number of messages."""
    return {
        name: (kind, number) for name, (kind, number) in bag.topics.items()
        if kind in (IMAGE, COMPRESSED) and number != 0}


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
        types = ', '.join(sorted({kind for kind, _ in bag.topics.values()})) or 'nothing'
        raise ValueError(
            f'{bag.path}: has no topic of type {IMAGE} or {COMPRESSED} with messages; it has '
            f'{types}')
    if len(found) == 1:
        return next(iter(found))
    if ask is not None:
        return ask(list(found))
    raise ValueError(f'{bag.path}: has several image topics, choose one with --topic: {listed}')


def payload(data: bytes) -> bytes:
    """Return a message's CDR bytes, which some bags compress one by one."""
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def decode(message: Message) -> Any:
    """Return the message as an object with its fields; ValueError where it is damaged."""
    if not message.data:
        raise ValueError('the message is empty')
    try:
        return STORE.deserialize_cdr(payload(message.data), message.kind)
    except Exception as error:
        raise ValueError(f'the message is damaged ({_line(error)})') from None


def nanoseconds(header: Any) -> int:
    """Return the stamp as one number."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


class Frames:
    """
    The frames of a topic, one at a time.

    sizes: frames by 'WIDTHxHEIGHT'.  zero_stamps: frames that the camera did not stamp.
    """

    def __init__(self, topic: str) -> None:
        """Begin before the first message."""
        self.topic = topic
        self.number = -1
        self.sizes: Counter[str] = Counter()
        self.zero_stamps = 0
        self._known: set[int] = set()
        self._order: deque[int] = deque()

    def read(self, message: Message, *, decoded: bool = True) -> Frame | Skipped | None:
        """
        Turn the next message of the topic into a frame, or say why it is none.

        decoded: if False, only count it and return None.
        """
        self.number += 1
        if not decoded:
            return None
        try:
            start = perf_counter()
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
        return Frame(
            self.number, message.time, stamp, image, content.header,
            seconds)

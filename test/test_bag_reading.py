# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags of both storages, compressed or not, whole and damaged: what can be read is read."""

from pathlib import Path
from typing import Any

import cv2
from mcap.writer import IndexType
from mcap.writer import Writer as McapWriter
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import choose_topic
from adamtl_ros.bag.reading import COMPRESSED
from adamtl_ros.bag.reading import Frame
from adamtl_ros.bag.reading import Frames
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import Skipped
from adamtl_ros.bag.reading import STORE
from adamtl_ros.bag.sample import STORAGES
from adamtl_ros.bag.sample import TOPIC
from adamtl_ros.bag.sample import write_sample

TYPES = STORE.types


def header(stamp: int) -> Any:
    """Return a header of a stamp in ns."""
    return TYPES['std_msgs/msg/Header'](
        TYPES['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9)), 'cam')


def image(stamp: int, value: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    """Return an rgb8 message of one grey value."""
    width, height = size
    return bytes(STORE.serialize_cdr(TYPES[IMAGE](
        header(stamp), height, width, 'rgb8', 0, 3 * width,
        np.full(3 * width * height, value, np.uint8)), IMAGE))


def jpeg(stamp: int, keep: float = 1.0) -> bytes:
    """Return a JPEG message; keep: the share of the file that is there."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    data = cv2.imencode('.jpg', noise)[1].ravel()
    return bytes(STORE.serialize_cdr(TYPES[COMPRESSED](
        header(stamp), 'jpeg', data[:int(keep * data.size)]), COMPRESSED))


def write(
        path: Path, messages: list[tuple[str, str, int, bytes]], storage: str = 'mcap',
        mode: CompressionMode = CompressionMode.NONE) -> Path:
    """Write (topic, type, time, data); types that are not known get a definition of their own."""
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, time, data in messages:
            if topic not in connections:
                known = {'typestore': STORE} if kind in TYPES else {
                    'msgdef': 'strange/Thing[<=4] these\n???', 'rihs01': 'RIHS01_0'}
                connections[topic] = writer.add_connection(topic, kind, **known)
            writer.write(connections[topic], time, data)
    return path


def read(bag: Bag, topic: str) -> list[Frame | Skipped | None]:
    """Return all that a topic has."""
    frames = Frames(topic)
    return [frames.read(message) for message in bag.messages((topic,))]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('mode', [
    CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_every_storage_and_compression(
        storage: str, mode: CompressionMode, tmp_path: Path) -> None:
    """The pictures, their stamps and their order are the same."""
    if storage == 'sqlite3' and mode == CompressionMode.STORAGE:
        pytest.skip('only mcap compresses by itself')
    bag = Bag(write(
        tmp_path / 'bag', [('/cam', IMAGE, 100 + n, image(7 + n, n)) for n in range(5)], storage,
        mode))
    assert choose_topic(bag, None) == '/cam'
    frames = read(bag, '/cam')
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.stamp for frame in frames] == [7, 8, 9, 10, 11]
    assert [frame.time for frame in frames] == [100, 101, 102, 103, 104]
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 1, 2, 3, 4]
    assert bag.problems == []


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('metadata', [True, False])
def test_cut_off_in_the_middle(storage: str, metadata: bool, tmp_path: Path) -> None:
    """What comes before the cut is read, whether or not the recorder wrote its metadata."""
    path = tmp_path / 'bag'
    write_sample(path, storage=storage, frames=30)
    file = next(file for file in path.iterdir() if file.suffix in ('.mcap', '.db3'))
    whole = file.stat().st_size
    with file.open('r+b') as stream:
        stream.truncate(whole // 2)
    if not metadata:
        (path / 'metadata.yaml').unlink()
    bag = Bag(path)
    frames = read(bag, choose_topic(bag, None))
    assert 12 <= len(frames) <= 15
    assert all(isinstance(frame, Frame) for frame in frames)
    text = ' '.join(bag.problems)
    assert file.name in text
    assert 'ends in the middle' in text
    assert ('metadata.yaml is missing' in text) is not metadata


def test_file_compression_cut_off(tmp_path: Path) -> None:
    """A damaged archive gives what can be unpacked."""
    path = write(tmp_path / 'bag', [
        ('/cam', IMAGE, n, image(7 + n, size=(640, 480))) for n in range(40)],
        mode=CompressionMode.FILE)
    file = next(path.glob('*.zstd'))
    with file.open('r+b') as stream:
        stream.truncate(file.stat().st_size * 3 // 4)
    bag = Bag(path)
    frames = read(bag, '/cam')
    assert 0 < len(frames) < 40
    assert any('damaged or cut off' in problem for problem in bag.problems)


@pytest.mark.parametrize('chunked', [True, False])
def test_unindexed_mcap(chunked: bool, tmp_path: Path) -> None:
    """Without summary and index, and with messages that are out of order."""
    path = tmp_path / 'plain.mcap'
    with path.open('wb') as stream:
        writer = McapWriter(
            stream, index_types=IndexType.NONE, use_chunking=chunked, use_statistics=False,
            use_summary_offsets=False, repeat_channels=False, repeat_schemas=False)
        writer.start('ros2')
        schema = writer.register_schema(IMAGE, 'ros2msg', b'')
        channel = writer.register_channel('/cam', 'cdr', schema)
        for stamp in (1, 2, 4, 3, 5):
            writer.add_message(channel, log_time=stamp, data=image(stamp), publish_time=stamp)
        writer.finish()
    bag = Bag(path)
    stamps = [frame.stamp for frame in read(bag, choose_topic(bag, None))]
    assert sorted(stamps) == [1, 2, 3, 4, 5]


def test_damaged_chunk_costs_only_itself(tmp_path: Path) -> None:
    """An mcap whose middle is overwritten gives the frames before and behind."""
    path = tmp_path / 'bag'
    write_sample(path, frames=60)
    file = path / 'bag.mcap'
    with file.open('r+b') as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(bytes(1000))
    # The writer of this bag leaves out checksums; a damaged record shows by its form.
    bag = Bag(path)
    assert len(read(bag, TOPIC)) >= 50


def test_bad_frames_are_skipped_one_by_one(tmp_path: Path) -> None:
    """Each for a reason, and the good ones between them stay."""
    bag = Bag(write(tmp_path / 'bag', [
        ('/cam', IMAGE, 1, image(10)),
        ('/cam', IMAGE, 2, b''),
        ('/cam', IMAGE, 3, image(11)[:40]),
        ('/cam', IMAGE, 4, image(10)),
        ('/other', 'strange/msg/Unknown', 4, b'\0\1\0\0abc'),
        ('/cam', IMAGE, 5, image(0)),
        ('/cam', IMAGE, 6, image(0)),
        ('/cam', IMAGE, 7, image(12, size=(16, 12))),
    ]))
    assert choose_topic(bag, None) == '/cam'
    frames = Frames('/cam')
    found = [frames.read(message) for message in bag.messages(('/cam',))]
    assert [each.cause if isinstance(each, Skipped) else 'frame' for each in found] == [
        'frame', 'message', 'message', 'duplicate_stamp', 'frame', 'frame', 'frame']
    assert 'empty' in found[1].reason
    assert frames.zero_stamps == 2
    assert frames.sizes == {'8x6': 3, '16x12': 1}


def test_corrupt_jpegs_are_skipped(tmp_path: Path) -> None:
    """Cut off, empty, and not a JPEG at all."""
    empty = bytes(STORE.serialize_cdr(
        TYPES[COMPRESSED](header(3), 'jpeg', np.empty(0, np.uint8)), COMPRESSED))
    noise = bytes(STORE.serialize_cdr(
        TYPES[COMPRESSED](header(4), 'jpeg', np.arange(99, dtype=np.uint8)), COMPRESSED))
    bag = Bag(write(tmp_path / 'bag', [
        ('/cam', COMPRESSED, n, data) for n, data in enumerate(
            [jpeg(1), jpeg(2, 0.6), empty, noise, jpeg(5)])]))
    found = read(bag, '/cam')
    assert [each.cause if isinstance(each, Skipped) else 'frame' for each in found] == [
        'frame', 'decode', 'decode', 'decode', 'frame']


def test_topic_is_asked_for_only_where_several(tmp_path: Path) -> None:
    """With nobody to ask, an error lists them; topics without messages do not count."""
    bag = Bag(write(tmp_path / 'bag', [
        ('/left', IMAGE, 1, image(1)), ('/right', COMPRESSED, 2, jpeg(1)),
        ('/label', IMAGE, 2, image(1))]))
    with pytest.raises(ValueError, match=r'--topic: .*/left \(Image, 1 .*/right \(CompressedIm'):
        choose_topic(bag, None)
    assert choose_topic(bag, None, lambda topics: topics[1]) == '/right'
    assert choose_topic(bag, None, other=('/right', '/label')) == '/left'
    with pytest.raises(ValueError, match='no pictures on the topic /up; it has /left'):
        choose_topic(bag, '/up')


def test_bag_without_images(tmp_path: Path) -> None:
    """The error says what types there are instead."""
    bag = Bag(write(tmp_path / 'bag', [('/other', 'strange/msg/Unknown', 4, b'\0\1\0\0abc')]))
    with pytest.raises(ValueError, match='it has strange/msg/Unknown'):
        choose_topic(bag, None)


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    """A path that is missing, an empty folder, a file of something else, an empty file."""
    with pytest.raises(FileNotFoundError, match='nowhere'):
        Bag(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='holds no .mcap or .db3'):
        Bag(tmp_path)
    for name in ('x.mcap', 'x.db3', 'x.txt'):
        file = tmp_path / name
        file.write_text('no bag')
        with pytest.raises(ValueError, match=name):
            Bag(file)


def test_missing_file_of_several(tmp_path: Path) -> None:
    """Of a bag in two files, one of which is gone, the other is read."""
    path = write(tmp_path / 'bag', [('/cam', IMAGE, n, image(n + 1)) for n in range(4)])
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(
        '- bag.mcap\n', '- gone.mcap\n  - bag.mcap\n', 1))
    bag = Bag(path)
    assert 'gone.mcap is missing' in bag.problems
    assert len(read(bag, '/cam')) == 4


def test_sample_is_what_ships(tmp_path: Path) -> None:
    """Raw and compressed, of any size, repeated beyond its length."""
    assert write_sample(tmp_path / 'raw') == 90
    frames = read(Bag(tmp_path / 'raw'), TOPIC)
    assert frames[0].image.shape == (192, 256, 3)
    assert len({frame.stamp for frame in frames}) == 90
    assert write_sample(tmp_path / 'big', size=(320, 240), compressed=True, frames=91) == 91
    bag = Bag(tmp_path / 'big')
    assert read(bag, f'{TOPIC}/compressed')[90].image.shape == (240, 320, 3)
    with pytest.raises(ValueError, match='exists already'):
        write_sample(tmp_path / 'raw')
    assert StoragePlugin.MCAP in STORAGES.values()

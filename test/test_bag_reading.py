# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags of both storages, compressed or not, whole and damaged: what can be read is read."""

import bz2
from contextlib import closing
from pathlib import Path
import sqlite3
import tempfile
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
from adamtl_ros.bag.reading import first_topic
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import others_than
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.reading import recordings
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


def read(bag: Bag, topic: str) -> list[RecordedFrame | Skipped | None]:
    """Return all that a topic has."""
    frames = RecordedFrames(topic)
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
    assert all(isinstance(frame, RecordedFrame) for frame in frames)
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
    assert all(isinstance(frame, RecordedFrame) for frame in frames)
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
    assert any('ends in the middle' in problem for problem in bag.problems)


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
    frames = RecordedFrames('/cam')
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


# What metadata.yaml says, and what the files hold


def walk(path: Path, storage: str = 'mcap', first: int = 1) -> Path:
    """Write a bag of four frames, stamped first, first + 1, ..."""
    return write(path, [
        ('/cam', IMAGE, number, image(number)) for number in range(first, first + 4)], storage)


def edit(bag: Path, *changes: tuple[str, str]) -> None:
    """Change the text of metadata.yaml."""
    text = (bag / 'metadata.yaml').read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (bag / 'metadata.yaml').write_text(text)


def stamps(bag: Bag, topic: str = '/cam') -> list[int]:
    """Return the stamps of all frames; everything else fails."""
    found = read(bag, topic)
    assert all(isinstance(each, RecordedFrame) for each in found), found
    return [each.stamp for each in found]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_renamed_file_is_read(storage: str, tmp_path: Path) -> None:
    """It costs nothing, so it is a note and no problem."""
    path = walk(tmp_path / 'bag', storage)
    file = next(file for file in path.iterdir() if file.suffix != '.yaml')
    file.rename(path / f'evening #1?{file.suffix}')
    bag = Bag(path)
    assert stamps(bag) == [1, 2, 3, 4]
    assert bag.problems == []
    assert f'metadata.yaml names {file.name}, which is not there; evening #1?' in bag.notes[0]


@pytest.mark.parametrize('change, note', [
    (('message_count: 4', 'message_count: 0'), None),
    (('message_count: 4', 'message_count: many'), 'cannot be read'),
    (('type: sensor_msgs/msg/Image', 'type: std_msgs/msg/String'),
     '/cam is of type std_msgs/msg/String: it is of sensor_msgs/msg/Image'),
    (('name: /cam', 'name: /left'), 'does not name the topic /cam'),
    (('- bag.mcap\n', '- bag.mcap\n  - bag.mcap\n  - /home/you/bag/bag.mcap\n'), None),
    (('version: 9', 'version: 10'), None),
    (('storage_identifier: mcap', 'storage_identifier: sqlite3'), None),
    (("compression_mode: ''", 'compression_mode: FILE'), None),
    (('serialization_format: cdr', 'serialization_format: xml'), None),
])
def test_the_files_are_believed_over_their_metadata(
        change: tuple[str, str], note: str | None, tmp_path: Path) -> None:
    """Counts, types, names and versions there are those of whoever wrote it last."""
    path = walk(tmp_path / 'bag')
    edit(path, change)
    bag = Bag(path)
    assert stamps(bag) == [1, 2, 3, 4]
    assert bag.topics['/cam'] == (IMAGE, 4)
    assert choose_topic(bag, None) == '/cam'
    told = ' '.join(bag.notes + bag.problems)
    assert note in told if note else not told


def test_more_was_recorded_than_is_there(tmp_path: Path) -> None:
    """The count in metadata.yaml is what tells that some is lost."""
    path = walk(tmp_path / 'bag')
    edit(path, ('message_count: 4', 'message_count: 9'))
    assert Bag(path).expected('/cam') == 9


def test_files_beside_the_recording(tmp_path: Path) -> None:
    """A later part that a killed recorder did not note is read, another recording is not."""
    path = walk(tmp_path / 'bag')
    (path / 'bag.mcap').rename(path / 'bag_0.mcap')
    edit(path, ('- bag.mcap', '- bag_0.mcap'))
    other = next(walk(tmp_path / 'other', first=3).glob('*.mcap'))
    other.rename(path / 'copy.mcap')
    bag = Bag(path)
    assert stamps(bag) == [1, 2, 3, 4]
    assert (bag.problems, bag.notes) == ([], ['metadata.yaml does not name copy.mcap: left out'])
    next(walk(tmp_path / 'late', first=5).glob('*.mcap')).rename(path / 'bag_1.mcap')
    bag = Bag(path)
    assert stamps(bag) == list(range(1, 9))
    assert 'does not name bag_1.mcap, which is read as well' in bag.problems[0]


def test_a_copy_beside_stands_in_for_no_missing_file(tmp_path: Path) -> None:
    """What was recorded at the same time as the rest is another recording."""
    path = walk(tmp_path / 'bag')
    edit(path, ('- bag.mcap', '- bag.mcap\n  - gone.mcap'))
    (path / 'copy.mcap').write_bytes((path / 'bag.mcap').read_bytes())
    bag = Bag(path)
    assert stamps(bag) == [1, 2, 3, 4]
    assert bag.problems == ['gone.mcap is missing']
    assert bag.notes == ['metadata.yaml does not name copy.mcap: left out']
    (path / 'copy.mcap').unlink()
    next(walk(tmp_path / 'late', first=5).glob('*.mcap')).rename(path / 'second half.mcap')
    bag = Bag(path)
    assert stamps(bag) == list(range(1, 9))
    assert bag.problems == []


def test_unpacked_copies_go_with_their_bag(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several compressed files one copy is kept, and in the end none."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
    (tmp_path / 'tmp').mkdir()
    path = tmp_path / 'bag'
    path.mkdir()
    for number in range(3):
        made = write(tmp_path / f'{number}', [
            ('/cam', IMAGE, stamp, image(stamp)) for stamp in (2 * number + 1, 2 * number + 2)],
            mode=CompressionMode.FILE)
        next(made.glob('*.zstd')).rename(path / f'walk_{number}.mcap.zstd')
    bag = Bag(path)
    assert stamps(bag) == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / 'tmp').iterdir())) == 1
    del bag
    assert list((tmp_path / 'tmp').iterdir()) == []


def test_parts_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Whatever they are called."""
    path = tmp_path / 'bag'
    path.mkdir()
    for number, first in enumerate((9, 1, 5)):
        next(walk(tmp_path / f'{first}', first=first).glob('*.mcap')).rename(
            path / f'walk_{number}.mcap')
    assert stamps(Bag(path)) == list(range(1, 13))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('names', [('a', 'b'), ('walk_0', 'walk_1')])
def test_loose_files_are_recordings_of_their_own(
        names: tuple[str, str], storage: str, tmp_path: Path) -> None:
    """But for the parts of one, which follow on one another; folders below do not count."""
    for name in names:
        made = walk(tmp_path / f'made_{name}', storage)
        file = next(file for file in made.iterdir() if file.suffix != '.yaml')
        (tmp_path / 'loose').mkdir(exist_ok=True)
        file.rename(tmp_path / 'loose' / f'{name}{file.suffix}')
    files = sorted((tmp_path / 'loose').iterdir())
    assert recordings(tmp_path / 'loose') == files
    with pytest.raises(ValueError, match=f'holds 2 recordings, name one: {files[0].name}, '):
        Bag(tmp_path / 'loose')
    assert stamps(Bag(files[1])) == [1, 2, 3, 4]


# Other messages beside the pictures


@pytest.mark.parametrize('encoding, data', [('json', b'{"a": 1}'), ('protobuf', b'\x08\x01')])
@pytest.mark.parametrize('index', [True, False])
def test_other_encodings_are_no_fault(
        encoding: str, data: bytes, index: bool, tmp_path: Path) -> None:
    """Neither beside the pictures, nor on a topic that is called like them."""
    path = tmp_path / 'plain.mcap'
    with path.open('wb') as stream:
        writer = McapWriter(stream, index_types=IndexType.ALL if index else IndexType.NONE)
        writer.start('')
        image_type = writer.register_schema(IMAGE, 'ros2msg', b'')
        other_type = writer.register_schema(IMAGE, 'jsonschema', b'{}')
        cam = writer.register_channel('/cam', 'cdr', image_type)
        others = [writer.register_channel(name, encoding, other_type)
                  for name in ('/other', '/cam')]
        for stamp in (1, 2):
            for channel, content in ((cam, image(stamp)), *((each, data) for each in others)):
                writer.add_message(channel, log_time=stamp, data=content, publish_time=stamp)
        writer.finish()
    bag = Bag(path)
    assert choose_topic(bag, None) == '/cam'
    assert bag.problems == []
    assert bag.topics['/other'] == (f'{IMAGE} ({encoding})', 2)
    frames = [each for each in read(bag, '/cam') if isinstance(each, RecordedFrame)]
    assert [frame.stamp for frame in frames] == [1, 2]


def test_an_index_orders_what_chunks_mix(tmp_path: Path) -> None:
    """By the time of recording, over chunks that overlap."""
    path = tmp_path / 'mixed.mcap'
    times = [5, 1, 9, 2, 8, 3, 7, 4, 6, 10]
    with path.open('wb') as stream:
        writer = McapWriter(stream, chunk_size=2 * len(image(0)))
        writer.start('ros2')
        cam = writer.register_channel('/cam', 'cdr', writer.register_schema(IMAGE, 'ros2msg', b''))
        for time in times:
            writer.add_message(cam, log_time=time, data=image(time), publish_time=time)
        writer.finish()
    assert stamps(Bag(path)) == sorted(times)


# Damage, and what only looks like it


def test_a_database_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """The pages that lead to the rows may be gone; those with the rows are found anyway."""
    path = tmp_path / 'bag'
    write_sample(path, storage='sqlite3', frames=30)
    whole = [frame.image for frame in read(Bag(path), TOPIC)]
    file = path / 'bag.db3'
    data = file.read_bytes()
    (path / 'metadata.yaml').unlink()
    for share in (0.99, 0.9, 0.7, 0.5, 0.3, 0.2):
        file.write_bytes(data[:int(share * len(data))])
        bag = Bag(path)
        frames = read(bag, choose_topic(bag, None))
        assert 30 * share - 2.5 <= len(frames) <= 30 * share
        # A page that is there in part counts as none, not as zeros.
        assert all((a.image == b).all() for a, b in zip(frames, whole))
        assert any('bag.db3 is damaged or ends in the middle' in each for each in bag.problems)
    # Here not even the page with the beginnings of the first messages is there.
    file.write_bytes(data[:len(data) // 20])
    with pytest.raises(ValueError, match='/camera/image_raw.* has no messages; .*ends in the mid'):
        choose_topic(Bag(path), None)


def test_a_database_with_a_damaged_middle(tmp_path: Path) -> None:
    """Frames whose pages are overwritten are lost, those behind them are not."""
    path = tmp_path / 'bag'
    write_sample(path, storage='sqlite3', frames=60, size=(32, 24))
    file = path / 'bag.db3'
    with file.open('r+b') as stream:
        stream.seek(file.stat().st_size // 2 // 4096 * 4096)
        stream.write(b'\xff' * 3 * 4096)
    frames = [each for each in read(Bag(path), TOPIC) if isinstance(each, RecordedFrame)]
    assert 40 <= len(frames) < 60
    assert len({frame.stamp for frame in frames}) == len(frames)


def test_the_log_of_a_database_counts(tmp_path: Path) -> None:
    """What a recorder that was killed had not yet moved into the file."""
    path = walk(tmp_path / 'bag', 'sqlite3')
    target = tmp_path / 'killed'
    target.mkdir()
    with closing(sqlite3.connect(path / 'bag.db3')) as database:
        database.execute('PRAGMA journal_mode = WAL')
        database.execute('PRAGMA wal_autocheckpoint = 0')
        database.execute(
            'INSERT INTO messages (topic_id, timestamp, data) VALUES (1, 9, ?)', (image(9),))
        database.commit()
        for name in ('bag.db3', 'bag.db3-wal'):
            (target / name).write_bytes((path / name).read_bytes())
    before = sorted(target.iterdir())
    assert stamps(Bag(target)) == [1, 2, 3, 4, 9]
    assert sorted(target.iterdir()) == before


def test_rows_that_hold_something_else_are_named(tmp_path: Path) -> None:
    """SQLite takes anything in any column."""
    path = walk(tmp_path / 'bag', 'sqlite3')
    with closing(sqlite3.connect(path / 'bag.db3')) as database:
        database.execute("UPDATE messages SET data = 'text' WHERE id = 1")
        database.execute("UPDATE messages SET timestamp = 'noon' WHERE id = 2")
        database.execute('UPDATE messages SET timestamp = -5 WHERE id = 3')
        database.commit()
    bag = Bag(path)
    assert stamps(bag) == [4]
    told = ' '.join(bag.problems)
    for words in ('row 1 of its messages holds int and str', 'row 2 of its messages holds str and',
                  '/cam was recorded at -5 ns, which is no time'):
        assert words in told


def test_messages_and_files_in_lz4(tmp_path: Path) -> None:
    """As recorders with a plugin for it write them."""
    frame = pytest.importorskip('lz4.frame')
    path = write(tmp_path / 'bag', [
        ('/cam', IMAGE, n, frame.compress(image(n))) for n in (1, 2)])
    assert stamps(Bag(path)) == [1, 2]
    whole = next(walk(tmp_path / 'whole').glob('*.mcap'))
    packed = tmp_path / 'walk.mcap.lz4'
    packed.write_bytes(frame.compress(whole.read_bytes()))
    assert stamps(Bag(packed)) == [1, 2, 3, 4]


def test_messages_compressed_in_another_way_are_called_that(tmp_path: Path) -> None:
    """Not something about CDR that only its authors understand."""
    bag = Bag(write(tmp_path / 'bag', [('/cam', IMAGE, 1, bz2.compress(image(1)))]))
    found, = read(bag, '/cam')
    assert isinstance(found, Skipped)
    assert 'neither CDR nor compressed with zstd or lz4' in found.reason


def test_a_bag_of_ros_1_is_called_that(tmp_path: Path) -> None:
    """With the command that converts it; whatever its name."""
    for name in ('walk.bag', 'walk.mcap'):
        (tmp_path / name).write_bytes(b'#ROSBAG V2.0\n' + bytes(100))
        with pytest.raises(ValueError, match=f'a ROS 1 bag: .*rosbags-convert --src .*{name}'):
            Bag(tmp_path / name)


def test_a_file_is_what_it_holds(tmp_path: Path) -> None:
    """Not what its name says."""
    file = next(walk(tmp_path / 'bag', 'sqlite3').glob('*.db3'))
    file.rename(tmp_path / 'walk.mcap')
    assert stamps(Bag(tmp_path / 'walk.mcap')) == [1, 2, 3, 4]


def test_depth_is_no_camera(tmp_path: Path) -> None:
    """Where it lies beside one, that one is meant; chosen by name it says what else there is."""
    depth = bytes(STORE.serialize_cdr(TYPES[IMAGE](
        header(1), 6, 8, '16UC1', 0, 16, np.zeros(96, np.uint8)), IMAGE))
    bag = Bag(write(tmp_path / 'bag', [
        ('/depth', IMAGE, 1, depth), ('/cam', IMAGE, 2, image(2))]))
    assert choose_topic(bag, None) == first_topic(bag) == '/cam'
    assert '/depth is no camera that can be read: ' in bag.notes[0]
    assert '16UC1' in bag.notes[0]
    assert others_than(bag, '/depth') == '; choose another topic with --topic: /cam'
    bag = Bag(write(tmp_path / 'two', [
        ('/depth', IMAGE, 1, depth), ('/far', IMAGE, 1, depth)]))
    with pytest.raises(ValueError, match='none of its image topics can be read: /depth: .*/far: '):
        first_topic(bag)


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

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sources: order, rates, bags of both storages, and what is said about bad ones."""

from collections.abc import Callable
import json
from pathlib import Path
import struct

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
import zstandard

from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import image_topics
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.paths import natural_key
from adamtl_ros.picture_files import read_picture
from adamtl_ros.runtime.motion import cells
from adamtl_ros.runtime.stream import STILL
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source

STORE = get_typestore(Stores.ROS2_KILTED)
TIME = STORE.types['builtin_interfaces/msg/Time']
HEADER = STORE.types['std_msgs/msg/Header']
IMAGE = STORE.types['sensor_msgs/msg/Image']
COMPRESSED = STORE.types['sensor_msgs/msg/CompressedImage']
CAMERA_INFO = STORE.types['sensor_msgs/msg/CameraInfo']
REGION = STORE.types['sensor_msgs/msg/RegionOfInterest']

HEIGHT, WIDTH = 6, 8


def grey(value: int) -> np.ndarray:
    """Return a small picture of one grey value."""
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def write_pictures(folder: Path, names: dict[str, int]) -> Path:
    """Write a picture of one grey value per name."""
    folder.mkdir(exist_ok=True)
    for name, value in names.items():
        assert cv2.imwrite(str(folder / name), grey(value))
    return folder


def header(index: int) -> object:
    """Return a header whose stamp is not the time of recording."""
    return HEADER(TIME(100 + index, 5), 'cam')


def image(index: int) -> object:
    """Return a bgr8 message with two bytes of padding a row; red is 10 index, blue 200."""
    rows = np.zeros((HEIGHT, 3 * WIDTH + 2), np.uint8)
    rows[:, 0:3 * WIDTH:3] = 200
    rows[:, 2:3 * WIDTH:3] = 10 * index
    return IMAGE(header(index), HEIGHT, WIDTH, 'bgr8', 0, 3 * WIDTH + 2, rows.ravel())


def camera_info() -> object:
    """Return intrinsics."""
    k = np.array([50.0, 0, 4, 0, 60.0, 3, 0, 0, 1])
    return CAMERA_INFO(
        header(0), HEIGHT, WIDTH, 'plumb_bob', np.array([0.1, 0, 0, 0, 0.0]), k,
        np.eye(3).ravel(), np.zeros(12), 0, 0, REGION(0, 0, 0, 0, False))


def write_bag(
        path: Path, storage: StoragePlugin, topics: dict[str, list[object]],
        gap: int = 50_000_000) -> Path:
    """Write a message per topic every gap ns."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__ if messages else 'sensor_msgs/msg/Image'
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for index, message in enumerate(messages):
                writer.write(
                    connection, 1_000_000_000 + index * gap, STORE.serialize_cdr(message, kind))
    return path


def test_numbers_in_names_are_counted_not_spelt() -> None:
    """frame2 comes before frame10, and sorting is total."""
    names = ['frame10.png', 'frame2.png', 'Frame1.png', 'a.png', '3.png', '20.png', 'frame02.png']
    assert [path.name for path in sorted(map(Path, names), key=natural_key)] == [
        '3.png', '20.png', 'a.png', 'Frame1.png', 'frame02.png', 'frame2.png', 'frame10.png']


def test_pictures_come_in_name_order_at_the_rate(tmp_path: Path) -> None:
    """Files that are no pictures are left out; times follow from the rate."""
    folder = write_pictures(tmp_path / 'p', {'f10.png': 30, 'f2.png': 20, 'f1.png': 10})
    (folder / 'notes.txt').write_text('x')
    source = open_source(folder, rate=4.0)
    frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [10, 20, 30]
    assert [frame.time for frame in frames] == [0.0, 0.25, 0.5]
    assert (source.kind, source.length, source.rate, source.camera) == ('pictures', 3, 4.0, None)
    assert len(list(source)) == 3  # a second time, from the start


def test_channels_are_rgb(tmp_path: Path) -> None:
    """A red picture has its value in the first channel."""
    path = tmp_path / 'red.png'
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 2] = 255
    cv2.imwrite(str(path), picture)
    assert read_picture(path)[0, 0].tolist() == [255, 0, 0]


def test_shipped_sequence_knows_its_camera() -> None:
    """It is small, complete, credited, and has intrinsics for its size."""
    source = open_source(DEMO)
    frames = list(source)
    assert source.rate == 15.0
    assert len(frames) == source.length >= 60
    assert source.camera is not None
    assert frames[0].image.shape == (source.camera.height, source.camera.width, 3)
    assert sum(file.stat().st_size for file in DEMO.iterdir()) < 3_000_000
    assert 'CC BY 3.0' in (DEMO / 'ATTRIBUTION.md').read_text()


def test_no_source_is_the_shipped_sequence_and_then_a_camera_that_stands_still() -> None:
    """For two seconds at any rate; the same noise each time, and too little to be a change."""
    walk, source = open_source(DEMO), open_source(None)
    assert (walk.still, source.still, source.length) == (0, 30, walk.length + 30)
    assert open_source(None, rate=5.0).still == 10
    assert (source.path, source.rate, source.camera) == (walk.path, walk.rate, walk.camera)
    frames, again = list(source), list(source)
    assert [frame.time for frame in frames] == pytest.approx([n / 15 for n in range(len(frames))])
    for frame, same in zip(frames, again, strict=True):
        assert np.array_equal(frame.image, same.image)
    for frame, same in zip(frames, walk):
        assert np.array_equal(frame.image, same.image)
    before = last = frames[walk.length - 1].image
    for frame in frames[walk.length:]:
        noise = frame.image.astype(float) - last
        assert 1.5 < noise.std() < 2.5
        assert not np.array_equal(frame.image, before)
        assert np.abs(cells(frame.image) - cells(last)).mean(-1).max() <= STILL / 2
        before = frame.image
    assert np.abs(cells(last) - cells(frames[walk.length - 2].image)).mean(-1).max() > STILL


def test_video(tmp_path: Path) -> None:
    """Frames, rate and length of a video that OpenCV wrote."""
    path = tmp_path / 'v.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 12.0, (64, 48))
    for value in (0, 80, 160, 240):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    source = open_source(path)
    frames = list(source)
    assert (source.kind, source.length) == ('video', 4)
    assert source.rate == pytest.approx(12.0)
    assert [round(float(frame.image.mean()) / 80) for frame in frames] == [0, 1, 2, 3]
    assert frames[3].time == pytest.approx(0.25)


def mp4(path: Path, gaps: list[tuple[int, float]]) -> Path:
    """Write a video of black to white whose frames are apart by gaps: (how many, seconds)."""
    count = sum(number for number, _ in gaps)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10.0, (64, 48))
    for index in range(count):
        writer.write(np.full((48, 64, 3), 255 * index // (count - 1), np.uint8))
    writer.release()
    data = path.read_bytes()
    # The box stts has (how many, ticks) of the frames; OpenCV writes one entry, of 0.1 s.
    place = data.index(b'stts') - 4
    ticks = 10 * struct.unpack('>I', data[place + 20:place + 24])[0]
    entries = b''.join(struct.pack('>II', number, round(gap * ticks)) for number, gap in gaps)
    box = struct.pack('>I4sII', 16 + len(entries), b'stts', 0, len(gaps)) + entries
    changed = bytearray(data)
    for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl'):
        start = data.index(name) - 4
        size = struct.unpack('>I', data[start:start + 4])[0] + len(box) - 24
        changed[start:start + 4] = struct.pack('>I', size)
    changed[place:place + 24] = box
    path.write_bytes(changed)
    return path


def test_frames_of_a_video_come_at_their_times(tmp_path: Path) -> None:
    """A variable rate stays one; the rate is that of most frames, not the mean."""
    gaps = [(12, 0.04), (2, 0.5), (4, 0.04)]
    source = open_source(mp4(tmp_path / 'v.mp4', gaps))
    expected = np.cumsum([0.0, *(gap for number, gap in gaps for _ in range(number))])[:-1]
    frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx(expected.tolist(), abs=1e-3)
    assert source.rate == pytest.approx(25.0, rel=1e-3)
    assert frames[0].image.mean() < 5 < 250 < frames[-1].image.mean()
    at_rate = [frame.time for frame in open_source(source.path, rate=4.0)]
    assert at_rate == pytest.approx([index / 4 for index in range(18)])


@pytest.mark.parametrize('claimed', [1000.0, 90000.0, 0.0, float('nan'), 2.0])
def test_what_the_header_claims_does_not_count(
        claimed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    """Browsers write 1000 frames/s, others none: the times of the frames are right."""
    path = mp4(tmp_path / 'v.mp4', [(9, 0.05)])
    opened = cv2.VideoCapture

    class Liar:
        def __init__(self, path: str) -> None:
            self.video = opened(path)

        def __getattr__(self, name: str) -> object:
            return getattr(self.video, name)

        def get(self, which: int) -> float:
            return claimed if which == cv2.CAP_PROP_FPS else self.video.get(which)

    monkeypatch.setattr(cv2, 'VideoCapture', Liar)
    source = open_source(path)
    assert source.rate == pytest.approx(20.0)
    assert [frame.time for frame in source] == pytest.approx([0.05 * i for i in range(9)])
    assert 'the times of the frames say 20' in capsys.readouterr().err


def test_a_video_without_times_has_its_rate(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the header says stands in for them; without that, the rate is asked for."""
    path = mp4(tmp_path / 'v.mp4', [(5, 0.05)])
    monkeypatch.setattr('adamtl_ros.sources._seconds', lambda video: 0.0)
    assert [frame.time for frame in open_source(path)] == pytest.approx(
        [0.0, 0.05, 0.1, 0.15, 0.2], rel=1e-3)
    monkeypatch.setattr('adamtl_ros.sources._likely', lambda rate: None)
    with pytest.raises(ValueError, match='states no frame rate; give one with --rate'):
        open_source(path)
    assert [frame.time for frame in open_source(path, rate=2.0)][1] == 0.5


@pytest.mark.parametrize('storage', [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_bag(tmp_path: Path, storage: StoragePlugin) -> None:
    """Frames as recorded: pixels, recorded times, header stamps, camera."""
    path = write_bag(tmp_path / 'bag', storage, {
        '/cam/camera_info': [camera_info()], '/cam/image': [image(i) for i in range(5)]})
    source = open_source(path)
    frames = list(source)
    assert (source.kind, source.topic, source.length) == ('bag', '/cam/image', 5)
    assert source.rate == pytest.approx(20.0)
    assert [frame.image[3, 3].tolist() for frame in frames] == [
        [10 * index, 0, 200] for index in range(5)]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [frame.stamp for frame in frames] == [
        (100 + index) * 1_000_000_000 + 5 for index in range(5)]
    assert source.camera is not None
    assert (source.camera.width, source.camera.k[0], source.camera.k[4]) == (WIDTH, 50.0, 60.0)
    assert [frame.time for frame in open_source(path, rate=2.0)][:3] == [0.0, 0.5, 1.0]


def test_bag_with_compressed_images_and_a_chosen_topic(tmp_path: Path) -> None:
    """The first image topic is the default; a named one is taken instead."""
    data = cv2.imencode('.png', grey(77))[1].ravel()
    path = write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3, {
        '/a/image': [image(1)],
        '/b/image/compressed': [COMPRESSED(header(0), 'png', data)]})
    assert open_source(path).topic == '/a/image'
    source = open_source(path, topic='/b/image/compressed')
    assert next(iter(source)).image[0, 0].tolist() == [77, 77, 77]
    with pytest.raises(ValueError, match='/b/image/compressed'):
        open_source(path, topic='/c')


def odd(index: int, encoding: str = '16UC1') -> object:
    """Return a message that is no picture of a camera."""
    return IMAGE(header(index), HEIGHT, WIDTH, encoding, 0, 2 * WIDTH,
                 np.zeros(2 * WIDTH * HEIGHT, np.uint8))


def test_bag_with_messages_that_cannot_be_used(tmp_path: Path) -> None:
    """They are left out, and each cause is told once, with the first message of it."""
    path = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, {'/image': [
        odd(0, 'nonsense'), image(1), odd(2, 'nonsense'), image(1), image(4)]})
    said: list[str] = []
    source = open_source(path, say=said.append)
    assert [frame.image[3, 3, 0] for frame in source] == [10, 40]
    assert [frame.time for frame in source] == pytest.approx([0.0, 0.15])
    assert len(said) == 3
    assert all(text.startswith(f'{path}: ') for text in said)
    assert 'message 0 of /image cannot be used: ' in said[0]
    assert 'nonsense' in said[0]
    assert 'message 3 of /image cannot be used: its stamp' in said[1]
    assert '2 messages of /image cannot be used (encoding)' in said[2]


def test_bag_whose_first_topic_is_depth(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The camera is played; depth asked for by name is refused, and the camera named."""
    path = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, {
        '/depth': [odd(0), odd(1)], '/cam': [image(0), image(1)]})
    assert open_source(path).topic == '/cam'
    assert '/depth is no camera that can be read: ' in capsys.readouterr().err
    with pytest.raises(ValueError, match=r'/depth can be used: .*16UC1.*with --topic: /cam'):
        open_source(path, topic='/depth')


def test_bag_without_images(tmp_path: Path) -> None:
    """The error names the types that are looked for."""
    path = write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3, {'/info': [camera_info()]})
    with pytest.raises(ValueError, match=r'bag: has no topic of.*sensor_msgs/msg/Image'):
        open_source(path)
    empty = write_bag(tmp_path / 'empty', StoragePlugin.SQLITE3, {'/image': []})
    with pytest.raises(ValueError, match='/image has no messages'):
        open_source(empty)


def no_metadata(path: Path) -> Path:
    """Remove metadata.yaml."""
    (path / 'metadata.yaml').unlink()
    return path


def edited(old: str, new: str) -> Callable[[Path], Path]:
    """Return what changes the text of metadata.yaml."""
    def edit(path: Path) -> Path:
        text = (path / 'metadata.yaml').read_text()
        assert old in text
        (path / 'metadata.yaml').write_text(text.replace(old, new))
        return path
    return edit


def renamed(path: Path) -> Path:
    """Rename the file."""
    (path / 'bag.mcap').rename(path / 'walk.mcap')
    return path


def packed(path: Path) -> Path:
    """Return the file alone, compressed."""
    target = path.parent / 'walk.mcap.zstd'
    target.write_bytes(zstandard.compress((path / 'bag.mcap').read_bytes()))
    return target


def cut(path: Path) -> Path:
    """Take the end of the file away."""
    with (path / 'bag.mcap').open('r+b') as stream:
        stream.truncate(stream.seek(0, 2) * 2 // 3)
    return path


@pytest.mark.parametrize('change', [
    no_metadata, renamed, packed, cut, lambda path: path / 'bag.mcap',
    edited('version: 9', 'version: 10'), edited('message_count: 5', 'message_count: 0'),
    edited('offered_qos_profiles: []', "offered_qos_profiles: '- history: 1'"),
    edited('type: sensor_msgs/msg/Image', 'type: x/msg/Y')])
def test_a_source_is_what_the_command_bag_reads(
        change: Callable[[Path], Path], tmp_path: Path) -> None:
    """The same frames of the same topic, whatever is odd about the recording."""
    path = change(write_bag(tmp_path / 'bag', StoragePlugin.MCAP, {
        '/image': [image(index) for index in range(5)]}))
    bag = Bag(path)
    topic, = image_topics(bag)
    frames = RecordedFrames(topic)
    expected = [frames.read(message) for message in bag.messages((topic,))]
    assert len(expected) == 5 or change is cut and 2 <= len(expected) < 5
    source = open_source(path, say=lambda text: None)
    assert source.topic == topic
    assert [frame.stamp for frame in source] == [frame.stamp for frame in expected]
    for frame, other in zip(source, expected):
        assert np.array_equal(frame.image, other.image)


def test_several_recordings_are_no_source(tmp_path: Path) -> None:
    """One has to be named."""
    for name in ('a', 'b'):
        write_bag(tmp_path / name, StoragePlugin.MCAP, {'/image': [image(0)]})
        (tmp_path / name / f'{name}.mcap').rename(tmp_path / f'{name}.mcap')
    with pytest.raises(ValueError, match=r'holds 2 recordings, name one: a\.mcap, b\.mcap'):
        open_source(tmp_path)


@pytest.mark.parametrize('storage', [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_damaged_bag(tmp_path: Path, storage: StoragePlugin) -> None:
    """Bytes that are no bag are a ValueError with the path, whatever reads them."""
    path = write_bag(tmp_path / 'bag', storage, {'/image': [image(0)]})
    data = next(file for file in path.iterdir() if file.suffix in ('.db3', '.mcap'))
    data.write_bytes(b'garbage' * 100)
    with pytest.raises(ValueError, match='bag: not a rosbag2'):
        open_source(path)
    (path / 'metadata.yaml').write_text(': [')
    with pytest.raises(ValueError, match='bag: not a rosbag2'):
        open_source(path)


def test_missing_source(tmp_path: Path) -> None:
    """The error names the path and what is supported."""
    with pytest.raises(FileNotFoundError, match='nowhere.*video.*folder.*rosbag2'):
        open_source(tmp_path / 'nowhere')


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without pictures is none."""
    (tmp_path / 'readme.txt').write_text('x')
    with pytest.raises(ValueError, match='holds no pictures.*rosbag2'):
        open_source(tmp_path)


@pytest.mark.parametrize('content', [b'', b'not a video at all', bytes(5000)])
def test_unreadable_video(tmp_path: Path, content: bytes) -> None:
    """Neither an empty file nor one of something else is a video."""
    path = tmp_path / 'film.mp4'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'film\.mp4: not a video.*supported|film\.mp4: not a v'):
        open_source(path)


def test_single_picture_is_no_source(tmp_path: Path) -> None:
    """OpenCV would take its name as a pattern and go on counting."""
    write_pictures(tmp_path, {'f1.png': 1, 'f2.png': 2})
    with pytest.raises(ValueError, match='single picture.*adamtl infer'):
        open_source(tmp_path / 'f1.png')


def test_unreadable_picture_in_a_folder_is_named(tmp_path: Path) -> None:
    """It is neither skipped nor does it hide the frames before it."""
    write_pictures(tmp_path, {'f1.png': 1, 'f3.png': 3})
    (tmp_path / 'f2.png').write_bytes(b'broken')
    frames = iter(open_source(tmp_path))
    next(frames)
    with pytest.raises(ValueError, match=r'f2\.png: not a readable picture'):
        next(frames)


def test_cut_off_jpeg_is_an_error(tmp_path: Path) -> None:
    """OpenCV would fill the rest with grey."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = cv2.imencode('.jpg', noise)[1].tobytes()
    path = tmp_path / 'cut.jpg'
    path.write_bytes(data)
    assert read_picture(path).shape == (64, 64, 3)
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match=r'cut\.jpg'):
        read_picture(path)


@pytest.mark.parametrize('rate', [0.0, -1.0, float('nan'), float('inf')])
def test_bad_rate(tmp_path: Path, rate: float) -> None:
    """The value and the range are said."""
    write_pictures(tmp_path, {'f1.png': 1})
    with pytest.raises(ValueError, match=f'rate: {rate}'):
        open_source(tmp_path, rate=rate)


def test_camera_file(tmp_path: Path) -> None:
    """Rate and intrinsics come from it; wrong content and a wrong size are named."""
    write_pictures(tmp_path, {'f1.png': 1})
    file = tmp_path / 'camera.json'
    info = {'width': WIDTH, 'height': HEIGHT, 'distortion_model': 'plumb_bob', 'd': [],
            'k': [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    file.write_text(json.dumps({'rate_hz': 7.5, 'camera_info': info}))
    source = open_source(tmp_path)
    assert source.rate == 7.5
    assert source.camera is not None
    assert source.camera.k[0] == 1.0
    for wrong in ('[', '{"rate_hz": 0}', '{"rate_hz": "x"}', '{"camera_info": {}}', '[]',
                  json.dumps({'camera_info': info | {'k': [1]}})):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r'camera\.json: not a camera file'):
            open_source(tmp_path)
    file.write_text(json.dumps({'camera_info': info | {'width': 9}}))
    with pytest.raises(ValueError, match=r'f1\.png: is 8x6, but camera\.json beside it says 9x6'):
        open_source(tmp_path)


def test_topic_only_makes_sense_for_bags(tmp_path: Path) -> None:
    """It is refused elsewhere, not ignored."""
    write_pictures(tmp_path, {'f1.png': 1})
    with pytest.raises(ValueError, match='/camera'):
        open_source(tmp_path, topic='/camera')


def test_a_cut_off_jpeg_with_a_thumbnail_is_refused(tmp_path: Path) -> None:
    """The end of the thumbnail is not that of the picture."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data, thumbnail = (
        cv2.imencode('.jpg', each)[1].tobytes() for each in (noise, noise[::4, ::4]))
    segment = b'\xff\xe1' + (len(thumbnail) + 8).to_bytes(2, 'big') + b'Exif\0\0' + thumbnail
    path = tmp_path / 'picture.jpg'
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_picture(path).shape == (48, 64, 3)
    path.write_bytes(path.read_bytes()[:-len(data) // 2])
    with pytest.raises(ValueError, match='damaged'):
        read_picture(path)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sources: order, rates, bags of both storages, and what is said about bad ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

from adamtl_ros.sources import DEMO
from adamtl_ros.sources import natural_key
from adamtl_ros.sources import open_source
from adamtl_ros.sources import read_picture

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


def test_bag_with_a_message_that_cannot_be_used(tmp_path: Path) -> None:
    """Frames before it come; then its number and reason are said."""
    bad = IMAGE(header(1), HEIGHT, WIDTH, 'nonsense', 0, 3 * WIDTH, np.zeros(1, np.uint8))
    frames = iter(open_source(
        write_bag(tmp_path / 'bag', StoragePlugin.MCAP, {'/image': [image(0), bad]})))
    next(frames)
    with pytest.raises(ValueError, match='message 1 of /image.*nonsense'):
        next(frames)


def test_bag_without_images(tmp_path: Path) -> None:
    """The error names the types that are looked for."""
    path = write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3, {'/info': [camera_info()]})
    with pytest.raises(ValueError, match=r'bag: the bag has no topic.*sensor_msgs/msg/Image'):
        open_source(path)
    empty = write_bag(tmp_path / 'empty', StoragePlugin.SQLITE3, {'/image': []})
    with pytest.raises(ValueError, match='/image has no messages'):
        open_source(empty)


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

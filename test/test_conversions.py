# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding against colours worked out by hand, and back."""

import array
from importlib.machinery import ModuleSpec
from pathlib import Path
import re
import sys
from types import ModuleType
from types import SimpleNamespace

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

import sensor_msgs  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from adamtl_ros import conversions  # noqa: E402
from adamtl_ros.conversions import BadFrameError  # noqa: E402
from adamtl_ros.conversions import ENCODINGS  # noqa: E402
from adamtl_ros.conversions import readable  # noqa: E402
from adamtl_ros.conversions import rgb_from_compressed  # noqa: E402
from adamtl_ros.conversions import scaled_camera_info  # noqa: E402
from adamtl_ros.nodes import messages  # noqa: E402
from adamtl_ros.nodes.live import digest  # noqa: E402
from adamtl_ros.nodes.messages import image_from_array  # noqa: E402
from adamtl_ros.nodes.messages import rgb_from_image  # noqa: E402
from adamtl_ros.nodes.recorder import image_array  # noqa: E402

COLOUR = (200, 100, 50)


IN_BOTH_ORDERS = pytest.mark.parametrize('bigendian', [False, True])


def message(encoding: str, rows: list[bytes], width: int, *, bigendian: bool = False) -> Image:
    """Return an Image whose rows are as long as the bytes given."""
    return Image(encoding=encoding, height=len(rows), width=width, step=len(rows[0]),
                 is_bigendian=bigendian, data=array.array('B', b''.join(rows)))


def uniform(encoding: str, pixels: bytes, *, bigendian: bool = False) -> Image:
    """Return an 8 x 6 image that repeats the bytes of two pixels."""
    return message(encoding, [pixels * 4] * 6, 8, bigendian=bigendian)


@pytest.mark.parametrize(('encoding', 'two_pixels', 'expected'), [
    ('mono8', bytes([70, 70]), (70, 70, 70)),
    ('8UC1', bytes([70, 70]), (70, 70, 70)),
    ('rgb8', bytes([200, 100, 50] * 2), COLOUR),
    ('bgr8', bytes([50, 100, 200] * 2), COLOUR),
    ('8UC3', bytes([50, 100, 200] * 2), COLOUR),
    ('rgba8', bytes([200, 100, 50, 7] * 2), COLOUR),
    ('bgra8', bytes([50, 100, 200, 7] * 2), COLOUR),
    ('8UC4', bytes([50, 100, 200, 7] * 2), COLOUR),
])
def test_colours_of_8_bit_encodings(encoding, two_pixels, expected):
    rgb = rgb_from_image(uniform(encoding, two_pixels))
    assert rgb.shape == (6, 8, 3)
    assert rgb.dtype == np.uint8
    assert (rgb == expected).all()


@IN_BOTH_ORDERS
@pytest.mark.parametrize(('encoding', 'samples'), [
    ('16UC3', [50, 100, 200]), ('16UC4', [50, 100, 200, 7]),
    ('mono16', [70]), ('rgb16', [200, 100, 50]), ('bgr16', [50, 100, 200]),
    ('rgba16', [200, 100, 50, 7]), ('bgra16', [50, 100, 200, 7])])
def test_16_bit_samples_keep_their_high_byte(encoding, samples, bigendian):
    dtype = '>u2' if bigendian else '<u2'
    pixel = (np.array(samples, np.uint16) * 256 + 199).astype(dtype).tobytes()
    rgb = rgb_from_image(uniform(encoding, pixel * 2, bigendian=bigendian))
    assert (rgb == ((70, 70, 70) if encoding == 'mono16' else COLOUR)).all()


def yuv(red: float, green: float, blue: float) -> tuple[int, int, int]:
    """Return video-range BT.601 luma and chroma (ITU-R BT.601-7, table 3) of 8-bit R'G'B'."""
    r, g, b = red / 255, green / 255, blue / 255
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return (round(16 + 219 * luma), round(128 + 224 * (b - luma) / 1.772),
            round(128 + 224 * (r - luma) / 1.402))


@pytest.mark.parametrize('colour', [COLOUR, (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)])
@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_colours_of_yuv_encodings(encoding, colour):
    y, u, v = yuv(*colour)
    pixels = bytes([u, y, v, y]) if encoding in ('yuv422', 'uyvy') else bytes([y, u, y, v])
    rgb = rgb_from_image(uniform(encoding, pixels))
    assert np.abs(rgb.astype(int) - colour).max() <= 3


def planes(encoding: str, colours: np.ndarray, padding: int = 0) -> Image:
    """
    Return an Image of luma and interleaved chroma, as Linux defines NV12, NV21 and NV24.

    colours: (height, width, 3) RGB, the same in every 2 x 2 pixels.  padding: bytes a luma row.
    """
    values = np.array([[yuv(*colour) for colour in row] for row in colours], np.uint8)
    chroma = values[..., 1:] if encoding == 'nv24' else values[::2, ::2, 1:]
    if encoding == 'nv21':
        chroma = chroma[..., ::-1]
    chroma = chroma.reshape(len(chroma), -1)
    ends = padding * chroma.shape[1] // values.shape[1]
    luma = np.pad(values[..., 0], ((0, 0), (0, padding)), constant_values=99)
    chroma = np.pad(chroma, ((0, 0), (0, ends)), constant_values=99)
    return Image(encoding=encoding, height=len(values), width=values.shape[1],
                 step=luma.shape[1], data=array.array('B', luma.tobytes() + chroma.tobytes()))


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_colours_of_planes(encoding, padding):
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).repeat(2, 0).repeat(2, 1)
    rgb = rgb_from_image(planes(encoding, colours, padding))
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - colours).max() <= 4


@pytest.mark.parametrize('encoding', ['nv12', 'nv24'])
def test_planes_whose_step_counts_the_chroma(encoding):
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).repeat(2, 0).repeat(2, 1)
    image = planes(encoding, colours)
    expected = rgb_from_image(image)
    image.step = len(image.data) // image.height
    assert (rgb_from_image(image) == expected).all()


def test_planes_that_are_cut_off_or_odd():
    image = planes('nv12', np.full((6, 8, 3), 90))
    image.data = image.data[:-1]
    with pytest.raises(BadFrameError, match='71 bytes is shorter') as caught:
        rgb_from_image(image)
    assert caught.value.cause == 'data'
    image.height = 5
    with pytest.raises(BadFrameError, match='height of 5 pixels: encoding nv12 needs an even'):
        rgb_from_image(image)


def in_sensor_msgs() -> list[str]:
    """Return the encodings that the installed sensor_msgs has constants for."""
    header = next((
        path for parent in Path(sensor_msgs.__file__).parents
        if (path := parent / 'include' / 'sensor_msgs' / 'sensor_msgs' / 'image_encodings.hpp')
        .is_file()), None)
    if header is None:  # another layout than that of the wheels and of ROS installations
        numbers = [f'{bits}C{n}' for bits in ('8U', '8S', '16U', '16S', '32S', '32F', '64F')
                   for n in range(1, 5)]
        return [*ENCODINGS, *numbers]
    return re.findall(r'const char \w+\[\] = "(\w+)";', header.read_text())


@pytest.mark.parametrize('name', in_sensor_msgs())
def test_every_encoding_of_sensor_msgs_is_read_or_refused_with_a_reason(name):
    image = message(name, [bytes(64)] * 24, 8)
    image.height = 8
    if name in ENCODINGS:
        assert rgb_from_image(image).shape == (8, 8, 3)
        return
    with pytest.raises(BadFrameError, match='(depth|numbers).*let the camera publish') as caught:
        rgb_from_image(image)
    assert caught.value.cause == 'encoding'


@IN_BOTH_ORDERS
@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_colours_of_bayer_patterns(pattern, depth, bigendian):
    value = dict(zip('rgb', COLOUR, strict=True))
    mosaic = np.array([[value[pattern[2 * (y % 2) + x % 2]] for x in range(8)] for y in range(6)])
    samples = mosaic.astype(np.uint8) if depth == 8 else (256 * mosaic + 3).astype(
        '>u2' if bigendian else '<u2')
    rgb = rgb_from_image(message(
        f'bayer_{pattern}{depth}', [row.tobytes() for row in samples], 8, bigendian=bigendian))
    assert (rgb == COLOUR).all()


@given(data=st.data())
@settings(max_examples=60)
def test_padding_and_byte_order_change_nothing(data):
    encoding = data.draw(st.sampled_from(
        [name for name, kind in sorted(ENCODINGS.items()) if not kind.chroma]))
    kind = ENCODINGS[encoding]
    height, width = 2 * data.draw(st.integers(1, 4)), 2 * data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2 ** 32)))
    samples = rng.integers(0, 256 ** kind.depth, (height, width * kind.channels))

    def packed(dtype, padding):
        rows = [row.astype(dtype).tobytes() + rng.bytes(padding) for row in samples]
        return message(encoding, rows, width, bigendian=dtype.startswith('>'))

    plain = rgb_from_image(packed(f'<u{kind.depth}', 0))
    padding = data.draw(st.integers(1, 9))
    assert plain.shape == (height, width, 3)
    assert (rgb_from_image(packed(f'<u{kind.depth}', padding)) == plain).all()
    assert (rgb_from_image(packed(f'>u{kind.depth}', padding)) == plain).all()


def test_more_data_than_rows_is_allowed():
    image = uniform('mono8', bytes([70, 70]))
    image.data.extend(bytes(13))
    assert (rgb_from_image(image) == 70).all()


@pytest.mark.parametrize(('changes', 'cause', 'words'), [
    ({'encoding': 'rgb9'}, 'encoding', ("'rgb9'", 'mono8', 'bayer_rggb8')),
    ({'encoding': ''}, 'encoding', ("''",)),
    ({'height': 0}, 'size', ('8 x 0',)),
    ({'width': 0}, 'size', ('0 x 6',)),
    ({'width': 7, 'encoding': 'yuyv', 'step': 14}, 'size', ('width of 7', 'yuyv', 'even')),
    ({'height': 5, 'encoding': 'bayer_rggb8'}, 'size', ('height of 5', 'even')),
    ({'step': 23}, 'step', ('23', '24')),
    ({'data': array.array('B', bytes(143))}, 'data', ('143', '144')),
    ({'data': array.array('B')}, 'data', ('0 bytes',)),
])
def test_bad_frames_say_what_is_wrong(changes, cause, words):
    image = uniform('rgb8', bytes(6))
    for name, value in changes.items():
        setattr(image, name, value)
    with pytest.raises(BadFrameError) as caught:
        rgb_from_image(image)
    assert caught.value.cause == cause
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize('extension', ['png', 'jpg'])
def test_compressed_frames(extension):
    bgr = np.full((6, 8, 3), COLOUR[::-1], np.uint8)
    data = array.array('B', cv2.imencode(f'.{extension}', bgr)[1].tobytes())
    rgb = rgb_from_compressed(CompressedImage(format=extension, data=data))
    assert rgb.shape == (6, 8, 3)
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 3


class Far:
    """Stands in for rosidl_buffer.Buffer: bytes that lie elsewhere, and no buffer protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def to_bytes(self) -> bytes:
        return self._data


class Foreign:
    """Stands in for an array of another library, of every second byte of its memory."""

    def __init__(self, data: bytes) -> None:
        self._data = np.repeat(np.frombuffer(data, np.uint8), 2)[::2]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self._data


@pytest.mark.parametrize('kind', [
    Far, Foreign, bytes, bytearray, memoryview, lambda data: array.array('B', data),
    lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_be_whatever_holds_bytes(kind):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    raw = SimpleNamespace(encoding='rgb8', height=6, width=8, step=24, is_bigendian=0,
                          data=kind(rgb.tobytes()))
    encoded = cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()
    png = SimpleNamespace(format='png', data=kind(encoded))
    depth = np.linspace(0, 9, 12, dtype=np.float32).reshape(3, 4)
    answer = SimpleNamespace(encoding='32FC1', height=3, width=4, data=kind(depth.tobytes()))
    assert (rgb_from_image(raw) == rgb).all()
    assert (rgb_from_compressed(png) == rgb).all()
    assert (image_array(answer) == depth).all()
    assert digest(readable(raw.data), 'rgb8') == digest(rgb.tobytes(), 'rgb8')
    raw.data = kind(rgb.tobytes()[:-1])
    with pytest.raises(BadFrameError) as caught:
        rgb_from_image(raw)
    assert caught.value.cause == 'data'


def compressed(form: str, extension: str, pixels: np.ndarray, *, padding: int = 0) -> (
        CompressedImage):
    """Return a CompressedImage of pixels as OpenCV has them."""
    data = cv2.imencode(extension, pixels)[1].tobytes() + bytes(padding)
    return CompressedImage(format=form, data=array.array('B', data))


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_compressed_mosaics_become_pictures(pattern, depth):
    value = dict(zip('rgb', COLOUR, strict=True))
    mosaic = np.array([[value[pattern[2 * (y % 2) + x % 2]] for x in range(8)] for y in range(6)])
    samples = mosaic.astype(np.uint8) if depth == 8 else (256 * mosaic + 3).astype(np.uint16)
    name = f'bayer_{pattern}{depth}'
    rgb = rgb_from_compressed(compressed(f'{name}; png compressed ', '.png', samples))
    assert rgb.dtype == np.uint8
    assert (rgb == COLOUR).all()
    # Where the publisher made a picture of it before, that is what was compressed.
    picture = np.full((6, 8, 3), COLOUR[::-1], np.uint8)
    rgb = rgb_from_compressed(compressed(f'{name}; png compressed bgr8', '.png', picture))
    assert (rgb == COLOUR).all()
    with pytest.raises(BadFrameError, match=f'height of 5 pixels: encoding {name}'):
        rgb_from_compressed(compressed(f'{name}; png compressed ', '.png', samples[:5]))


@pytest.mark.parametrize('form', ['mono16; png compressed ', 'mono16; png compressed mono16'])
def test_compressed_16_bit_samples_keep_their_high_byte(form):
    samples = np.full((6, 8), 70 * 256 + 199, np.uint16)
    assert (rgb_from_compressed(compressed(form, '.png', samples)) == 70).all()


@pytest.mark.parametrize('form', [
    '16UC1; png compressed ', '16UC1; compressedDepth png', '32FC1; compressedDepth png',
    '16UC1; compressedDepth', '32SC1; png compressed '])
def test_compressed_depth_is_no_picture(form):
    samples = np.full((6, 8), 1500, np.uint16)
    with pytest.raises(BadFrameError, match='depth|numbers') as caught:
        rgb_from_compressed(compressed(form, '.png', samples))
    assert caught.value.cause == 'encoding'


@pytest.mark.parametrize('form', [
    'jpeg', 'jpg', '', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed', 'mono8; jpeg'])
@pytest.mark.parametrize('padding', [0, 1, 100_000])
def test_padding_after_a_jpeg_is_no_damage(form, padding):
    picture = np.full((48, 64, 3), COLOUR[::-1], np.uint8)
    rgb = rgb_from_compressed(compressed(form, '.jpg', picture, padding=padding))
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 3


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture():
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data = cv2.imencode('.jpg', noise)[1].tobytes()
    note = b'\xff\xe1' + (2 + len(data)).to_bytes(2, 'big') + data
    whole = data[:2] + note + data[2:]
    assert rgb_from_compressed(
        CompressedImage(format='jpeg', data=array.array('B', whole))).shape == (48, 64, 3)
    with pytest.raises(BadFrameError, match='cut off'):
        rgb_from_compressed(
            CompressedImage(format='jpeg', data=array.array('B', whole[:-50] + bytes(50))))


@pytest.mark.parametrize('data', [b'', b'no picture', b'\x89PNG\r\n\x1a\n'])
def test_compressed_frames_that_cannot_be_decoded(data):
    with pytest.raises(BadFrameError, match='cannot be decoded.*JPEG') as caught:
        rgb_from_compressed(CompressedImage(format='jpeg', data=array.array('B', data)))
    assert caught.value.cause == 'decode'


@pytest.mark.parametrize(('values', 'encoding'), [
    (np.arange(12, dtype=np.uint8).reshape(3, 4), 'mono8'),
    (np.arange(12, dtype=np.uint16).reshape(3, 4), 'mono16'),
    (np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), '32FC1'),
    (np.linspace(0, 1, 72, dtype=np.float32).reshape(6, 4, 3)[::2], '32FC3'),
])
def test_arrays_become_images(values, encoding):
    header = Header(frame_id='camera')
    image = image_from_array(values, encoding, header)
    assert image.header == header
    assert (image.height, image.width, image.encoding) == (3, 4, encoding)
    assert image.step * image.height == len(image.data) == values.nbytes
    back = np.frombuffer(image.data, values.dtype).reshape(values.shape)
    assert (back == values).all()


@given(seed=st.integers(0, 2 ** 32), height=st.integers(1, 5), width=st.integers(1, 5))
@settings(max_examples=20)
def test_colour_pictures_survive_there_and_back(seed, height, width):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert (rgb_from_image(image_from_array(rgb, 'rgb8', Header())) == rgb).all()


def camera(**changes) -> CameraInfo:
    """Return the description of a 640 x 480 stereo camera."""
    return CameraInfo(**{
        'width': 640, 'height': 480, 'distortion_model': 'plumb_bob',
        'd': [0.1, 0.0, 0.0, 0.0, 0.0],
        'k': [500.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0],
        'p': [500.0, 0.0, 320.0, -50.0, 0.0, 600.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]} | changes)


def test_camera_info_is_scaled():
    info = camera()
    header = Header(frame_id='camera')
    scaled = scaled_camera_info(info, (640, 480), (256, 192), header)
    assert scaled.header == header
    assert (scaled.width, scaled.height) == (256, 192)
    assert scaled.k.tolist() == pytest.approx([200, 0, 128, 0, 240, 96, 0, 0, 1])
    assert scaled.p.tolist() == pytest.approx([200, 0, 128, -20, 0, 240, 96, 0, 0, 0, 1, 0])
    assert scaled.d == info.d
    assert scaled.distortion_model == 'plumb_bob'
    assert info.k.tolist() == camera().k.tolist()  # the next frame needs it as it was


def test_camera_info_of_the_same_size_keeps_its_numbers():
    scaled = scaled_camera_info(camera(), (640, 480), (640, 480), Header())
    assert scaled.k.tolist() == camera().k.tolist()
    assert scaled.p.tolist() == camera().p.tolist()


def test_camera_info_of_a_binned_region():
    info = camera(binning_x=2, binning_y=2)
    info.roi.x_offset, info.roi.y_offset = 120, 40
    info.roi.width, info.roi.height = 400, 400
    scaled = scaled_camera_info(info, (200, 200), (100, 100), Header())
    # A ray through the region's middle meets the picture's middle: (320 - 120) / 4.
    assert scaled.k.tolist() == pytest.approx([125, 0, 50, 0, 150, 50, 0, 0, 1])
    assert scaled.roi.width == scaled.roi.x_offset == scaled.binning_x == 0


def test_camera_info_of_an_uncalibrated_camera():
    scaled = scaled_camera_info(CameraInfo(), (640, 480), (256, 192), Header())
    assert (scaled.width, scaled.height) == (256, 192)
    assert not scaled.k.any()
    assert not scaled.p.any()


def test_cut_off_jpeg_is_not_taken_for_a_picture() -> None:
    """OpenCV would fill the rest with grey; padding after the end is no damage."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data = cv2.imencode('.jpg', noise)[1].tobytes()
    whole = CompressedImage(format='jpeg', data=array.array('B', data + bytes(16)))
    assert rgb_from_compressed(whole).shape == (48, 64, 3)
    with pytest.raises(BadFrameError, match='cut off'):
        rgb_from_compressed(
            CompressedImage(format='jpeg', data=array.array('B', data[:len(data) * 3 // 4])))


@pytest.mark.parametrize('suffix', ['.bmp', '.webp', '.tiff', '.ppm'])
def test_other_compressed_formats_are_refused(suffix):
    data = cv2.imencode(suffix, np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    with pytest.raises(BadFrameError, match='JPEG or PNG') as error:
        rgb_from_compressed(CompressedImage(format='jpeg', data=array.array('B', data)))
    assert error.value.cause == 'decode'


def picture_in(encoding: str) -> Image:
    """Return an 8 x 6 image of smooth colours in an encoding."""
    kind = ENCODINGS[encoding]
    ramp = np.arange(6)[:, None] * 20 + np.arange(8 * kind.channels)[None] * 3
    return message(encoding, [row.tobytes() for row in (256 // 2 + ramp // 2).astype(np.uint8)], 8)


BRIDGED = sorted(name for name, kind in ENCODINGS.items() if kind.bridged)


@pytest.mark.parametrize('encoding', BRIDGED)
def test_cv_bridge_gives_the_same_pixels(encoding):
    if messages.BRIDGE is None:
        pytest.skip('cv_bridge is not installed')
    image = picture_in(encoding)
    assert (messages.BRIDGE(image) == conversions.rgb_from_image(image)).all()


def test_cv_bridge_is_asked_for_whole_frames_that_it_knows(monkeypatch):
    asked = []

    def bridge(image):
        asked.append(image.encoding)
        return conversions.rgb_from_image(image)

    monkeypatch.setattr(messages, 'BRIDGE', bridge)
    for encoding in ENCODINGS:
        image = message(encoding, [bytes(64)] * 24, 8)
        image.height = 8
        assert rgb_from_image(image).shape == (8, 8, 3)
    assert sorted(asked) == BRIDGED and len(asked) == 12
    image = picture_in('bgr8')
    image.step = 7
    with pytest.raises(BadFrameError, match='step of 7'):
        rgb_from_image(image)
    assert len(asked) == 12


@pytest.mark.parametrize(('version', 'used'), [('1.13.0.post0', False), ('4.1.0', True)])
def test_cv_bridge_of_ros_1_is_left_alone(monkeypatch, version, used):
    module = ModuleType('cv_bridge')
    module.__spec__ = ModuleSpec('cv_bridge', None)
    module.CvBridge = lambda: SimpleNamespace(
        imgmsg_to_cv2=lambda image, encoding: (image.encoding, encoding))
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    monkeypatch.setattr(messages.metadata, 'version', lambda name: version)
    bridge = messages._bridge()
    assert (bridge is not None) == used
    if used:
        assert bridge(picture_in('bgr8')) == ('bgr8', 'rgb8')

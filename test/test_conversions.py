# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding against colours worked out by hand, and back."""

import array

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from adamtl_ros.nodes.conversions import BadFrameError  # noqa: E402
from adamtl_ros.nodes.conversions import ENCODINGS  # noqa: E402
from adamtl_ros.nodes.conversions import image_from_array  # noqa: E402
from adamtl_ros.nodes.conversions import rgb_from_compressed  # noqa: E402
from adamtl_ros.nodes.conversions import rgb_from_image  # noqa: E402
from adamtl_ros.nodes.conversions import scaled_camera_info  # noqa: E402

COLOUR = (200, 100, 50)


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


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize(('encoding', 'samples'), [
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


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_colours_of_bayer_patterns(pattern, depth):
    value = dict(zip('rgb', COLOUR, strict=True))
    mosaic = np.array([[value[pattern[2 * (y % 2) + x % 2]] for x in range(8)] for y in range(6)])
    samples = mosaic.astype(np.uint8) if depth == 8 else (256 * mosaic + 3).astype('<u2')
    rgb = rgb_from_image(message(
        f'bayer_{pattern}{depth}', [row.tobytes() for row in samples], 8))
    assert (rgb == COLOUR).all()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_padding_and_byte_order_change_nothing(data):
    encoding = data.draw(st.sampled_from(sorted(ENCODINGS)))
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
@settings(max_examples=20, deadline=None)
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

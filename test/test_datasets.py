# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Published layouts, read from small files made here: conventions, augmentation, bad input."""

import json
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
from scipy.io import savemat

from adamtl_ros.camera import Camera
from adamtl_ros.datasets import open_dataset
from adamtl_ros.datasets.augment import decode_normals
from adamtl_ros.datasets.augment import encode_normals
from adamtl_ros.datasets.augment import to_test_size
from adamtl_ros.datasets.augment import warp
from adamtl_ros.datasets.benchmarks import NYUD
from adamtl_ros.datasets.benchmarks import PascalContext
from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.datasets.frames import read_stored
from adamtl_ros.datasets.thinning import thin
from adamtl_ros.picture_files import read_picture

HEIGHT, WIDTH = 20, 30
WALL, PERSON, SKY = 440, 284, 360
"""Classes of PASCAL-Context's label maps; normals of the sky are not believed."""


def save(path, array):
    """Write an array as the kind of file that its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
    elif path.suffix == '.mat':
        savemat(path, array, do_compression=True)
    else:
        Image.fromarray(array).save(path)


def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def parts(**masks):
    """Return an object of PASCAL-Parts."""
    rows = [(name, mask.astype(np.uint8)) for name, mask in masks.items()]
    kinds = [('part_name', object), ('mask', object)]
    return np.array(rows, dtype=kinds)[None] if rows else np.zeros((0, 0))


def annotation(*objects):
    kinds = [(name, object) for name in ('class', 'class_ind', 'mask', 'parts')]
    rows = np.empty((1, len(objects)), dtype=kinds)
    for index, (number, of_object) in enumerate(objects):
        rows[0, index] = ('x', float(number), np.zeros((HEIGHT, WIDTH), np.uint8), of_object)
    return {'anno': {'imname': 'a', 'objects': rows}}


def area(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def pascal(tmp_path):
    """Write two frames: one with a person, one without."""
    root = tmp_path / 'PASCAL_MT'
    context = np.full((HEIGHT, WIDTH), WALL, dtype=np.uint16)
    context[5:15, 10:20] = PERSON
    context[:, 25:] = SKY
    for name, objects in (
            ('a', [(15, parts(lear=area(5, 7, 10, 20), neck=area(7, 8, 10, 20),
                              ruarm=area(8, 10, 10, 12), lhand=area(10, 12, 10, 12),
                              luleg=area(12, 13, 10, 20), rfoot=area(13, 15, 10, 20))),
                   (15, parts()), (12, parts(torso=area(0, 3, 0, 3)))]),
            ('b', [(12, parts(torso=area(0, 3, 0, 3)))])):
        save(root / 'JPEGImages' / f'{name}.jpg', image())
        save(root / 'human_parts' / f'{name}.mat', annotation(*objects))
        save(root / 'pascal-context' / 'trainval' / f'{name}.mat', {'LabelMap': context})
        save(root / 'sal_distill' / f'{name}.png', np.where(
            context == PERSON, 200, 100).astype(np.uint8))
        normals = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        normals[:] = (217, 127, 217)
        save(root / 'normals_distill' / f'{name}.png', normals)
    # VOC's own files have a palette; the value is the index.
    coloured = Image.fromarray(np.where(context == PERSON, 15, 0).astype(np.uint8), 'P')
    coloured.putpalette([7, 8, 9] * 256)
    (root / 'semseg' / 'VOC12').mkdir(parents=True)
    coloured.save(root / 'semseg' / 'VOC12' / 'a.png')
    save(root / 'semseg' / 'pascal-context' / 'b.png', np.full((HEIGHT, WIDTH), 255, np.uint8))
    lists = root / 'ImageSets' / 'Context'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('a\nb\n')
    (lists / 'train.txt').write_text('\n')
    return root


@pytest.fixture
def nyud(tmp_path):
    """Write one frame: a floor below a wall."""
    root = tmp_path / 'NYUD_MT'
    floor = area(10, 20, 0, 30)
    save(root / 'images' / '1.png', image())
    save(root / 'segmentation' / '1.png', np.where(floor, 2, 0).astype(np.uint8))
    normals = np.where(floor[..., None], (0.0, -0.8, 0.6), (0.0, 0.0, 1.0)).astype(np.float32)
    normals[0] = 0
    save(root / 'normals' / '1.npy', normals)
    save(root / 'edge' / '1.npy', area(10, 11, 0, 30).astype(np.float32))
    depth = np.full((HEIGHT, WIDTH), 2.5, np.float32)
    depth[:, 0] = 0
    save(root / 'depth' / '1.npy', depth)
    (root / 'gt_sets').mkdir()
    (root / 'gt_sets' / 'val.txt').write_text('1\n')
    return root


def test_pascal_as_published(pascal):
    data = open_dataset(pascal)
    assert isinstance(data, PascalContext) and len(data) == 2
    assert len(data.classes['semseg']) == 21 and len(data.classes['human_parts']) == 7
    frame, other = data[0], data[1]
    assert set(frame) == {'image', *PascalContext.labelled}
    assert all(array.shape[:2] == (HEIGHT, WIDTH) for array in frame.values())
    person = area(5, 15, 10, 20)
    np.testing.assert_array_equal(frame['semseg'], np.where(person, 15, 0))
    assert (other['semseg'] == 255).all()
    np.testing.assert_array_equal(frame['saliency'], np.where(person, 255, 0))
    for row, part in ((5, 1), (7, 2), (8, 3), (10, 4), (12, 5), (14, 6), (0, 0)):
        assert frame['human_parts'][row, 11] == part
    # Without people the image does not count.
    assert (other['human_parts'] == 255).all()
    valid = frame['normals'].any(-1)
    np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(WIDTH) < 25, valid.shape))
    np.testing.assert_allclose(
        decode_normals(frame['normals'])[0, 0], np.array([0.7, 0, -0.7]), atol=0.01)
    # One pixel wide, closed, about the person, and along the border of the sky.
    edges = frame['edges'].astype(bool)
    assert edges[2].sum() == 1 and abs(int(edges[2].argmax()) - 24.5) <= 1
    assert edges[10].sum() == 3 and not edges[7:13, 12:18].any()


def test_nyud_as_published(nyud):
    data = open_dataset(nyud, ('semseg', 'normals', 'edges', 'depth'))
    assert isinstance(data, NYUD) and len(data.classes['semseg']) == 40
    frame = data[0]
    floor = area(10, 20, 0, 30)
    np.testing.assert_array_equal(frame['semseg'], np.where(floor, 1, 255))
    np.testing.assert_array_equal(frame['edges'], area(10, 11, 0, 30))
    assert (frame['depth'][:, 1:] == 2500).all() and not frame['depth'][:, 0].any()
    assert not frame['normals'][0].any()
    normals = decode_normals(frame['normals'])
    np.testing.assert_allclose(normals[15, 5], (0, -0.8, -0.6), atol=0.01)
    np.testing.assert_allclose(normals[5, 5], (0, 0, -1), atol=0.01)


def test_corpus_is_recognised(tmp_path):
    root = tmp_path / 'val'
    save(root / 'image' / 'f.jpg', image())
    save(root / 'semseg' / 'f.png', np.full((HEIGHT, WIDTH), 3, np.uint8))
    save(root / 'depth' / 'f.png', np.full((HEIGHT, WIDTH), 1234, np.uint16))
    for path in (root, tmp_path):
        data = open_dataset(path, ('depth', 'semseg'))
        assert isinstance(data, EgoRooms) and data.tasks == ('semseg', 'depth')
        assert (data[0]['depth'] == 1234).all() and data[0]['depth'].dtype == np.uint16


LENS = {'fx': 40.0, 'fy': 41, 'cx': 14.5, 'cy': 9.5}


def corpus(root, **frames):
    """Write frames of the corpus layout, each with what its file in meta/ is to hold."""
    for name, values in frames.items():
        save(root / 'image' / f'{name}.jpg', image())
        save(root / 'depth' / f'{name}.png', np.full((HEIGHT, WIDTH), 1234, np.uint16))
        (root / 'meta').mkdir(exist_ok=True)
        (root / 'meta' / f'{name}.json').write_text(json.dumps(values))
    return root


def test_frames_know_their_cameras(tmp_path, nyud):
    """In pixels of the image; where nothing is told, None, or an error where it is needed."""
    root = corpus(tmp_path / 'val', a=LENS, b=LENS | {'fx': 80, 'width': WIDTH, 'height': HEIGHT})
    data = open_dataset(root, ('depth',), cameras=True)
    assert data.camera(0) == Camera(WIDTH, HEIGHT, 40.0, 41.0, 14.5, 9.5)
    assert data.camera(1).fx == 80
    (root / 'meta' / 'a.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'no file .*meta/a.json, and 0 more'):
        open_dataset(root, ('depth',))
    (root / 'meta' / 'b.json').unlink()
    (root / 'meta').rmdir()
    for path in (root, nyud):
        assert open_dataset(path, ('depth',)).camera(0) is None
        with pytest.raises(ValueError, match=r'no intrinsics.*give meta/ID.json with fx, fy'):
            open_dataset(path, ('depth',), cameras=True)


@pytest.mark.parametrize('values, words', [
    ('{', 'a.json is damaged or no JSON'), ('[1]', 'a.json holds list: expected an object'),
    ({'fx': 40}, 'a.json has no fy: give fx, fy, cx and cy'),
    (LENS | {'fx': 0}, 'a.json describes no camera: .*above 0'),
    (LENS | {'cx': float('nan')}, 'a.json describes no camera: .*finite'),
    (LENS | {'fy': None}, 'a.json describes no camera'),
    (LENS | {'width': 60}, 'a.json is of 60x20 pixels, the image of 30x20')])
def test_wrong_intrinsics_are_named(tmp_path, values, words):
    data = open_dataset(corpus(tmp_path, a=LENS), ('depth',))
    (tmp_path / 'meta' / 'a.json').write_text(
        values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(ValueError, match=words):
        data.camera(0)


def test_clips_are_whole(tmp_path, pascal):
    """By number, not by name; a frame without a time stands alone; one that is gone is named."""
    numbers = (0, 1, 2, 3, 10, *range(4, 10))
    root = corpus(
        tmp_path / 'val', t1_0=LENS, t1_2=LENS,
        **{f'c1_{number}': LENS | {'timestamp': number / 30} for number in numbers})
    data = open_dataset(root, ('depth',))
    clips = [[data.ids[index] for index in clip] for clip in data.clips()]
    assert clips == [[f'c1_{number}' for number in range(11)], ['t1_0'], ['t1_2']]
    assert open_dataset(pascal).clips() == [[0], [1]]
    (root / 'image' / 'c1_4.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'image/c1_4.jpg, and 0 more'):
        open_dataset(root, ('depth',))
    (root / 'meta' / 'c1_4.json').unlink()
    (root / 'image' / 'c1_8.jpg').unlink()
    (root / 'meta' / 'c1_8.json').unlink()
    with pytest.raises(ValueError, match='clip c1 has no frame 4, and 1 more of 11 are missing'):
        open_dataset(root, ('depth',)).clips()


def test_bad_layouts(pascal, nyud, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected ImageSets/Context.*gt_sets'):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"split 'train' is empty: .*train.txt"):
        open_dataset(pascal, split='train')
    with pytest.raises(FileNotFoundError, match=r'no list .*gt_sets/test.txt.*there are val'):
        open_dataset(nyud, split='test')
    with pytest.raises(ValueError, match='has no labels of depth: it has semseg, human_parts'):
        open_dataset(pascal, ('semseg', 'depth'))
    with pytest.raises(ValueError, match="unknown task 'flow'"):
        open_dataset(pascal, ('flow',))
    (pascal / 'sal_distill' / 'b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'sal_distill/b.png, and 0 more'):
        open_dataset(pascal)
    assert len(open_dataset(pascal, ('semseg',))) == 2


@pytest.mark.parametrize('name', [
    'JPEGImages/a.jpg', 'semseg/VOC12/a.png', 'human_parts/a.mat', 'sal_distill/a.png',
    'normals_distill/a.png', 'pascal-context/trainval/a.mat'])
def test_truncated_files_are_named(pascal, name):
    data = open_dataset(pascal)
    whole = (pascal / name).read_bytes()
    for damaged in (whole[:len(whole) * 3 // 4], b'', b'x' * 100):
        (pascal / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f'{name}.* (is damaged|does not hold|has no)'):
            data[0]


def test_wrong_values_and_sizes_are_named(pascal, nyud):
    save(pascal / 'semseg' / 'VOC12' / 'a.png', np.full((HEIGHT, WIDTH), 21, np.uint8))
    with pytest.raises(ValueError, match=r'semseg label of a has the value 21.*0 to 20'):
        open_dataset(pascal)[0]
    save(pascal / 'semseg' / 'VOC12' / 'a.png', np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(ValueError, match='semseg label of a is 31x20 pixels, its image 30x20'):
        open_dataset(pascal)[0]
    save(pascal / 'sal_distill' / 'b.png', image())
    with pytest.raises(ValueError, match='b.png has 3 channels: expected one'):
        open_dataset(pascal)[1]
    for name, array, words in (
            ('normals', np.zeros((HEIGHT, WIDTH), np.float32), 'expected 3 dimensions'),
            ('normals', np.full((HEIGHT, WIDTH, 3), (0, 0, -1.0)), 'turn away from the camera'),
            ('normals', np.full((HEIGHT, WIDTH, 3), 128.0), 'components up to 128: expected unit'),
            ('depth', np.full((HEIGHT, WIDTH), np.nan, np.float32), 'finite numbers'),
            ('depth', np.full((HEIGHT, WIDTH), 2500.0, np.float32), 'metres from 0 to 65'),
            ('edge', np.array([{'a': 1}], dtype=object), 'no array of numbers')):
        path = nyud / name / '1.npy'
        before = np.load(path)
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=words):
            open_dataset(nyud)[0]
        np.save(path, before)


def png(path, depth, colour=0):
    """Write a PNG of zeros with so many bits a sample; colour: 0 grey, 2 RGB, 3 a palette."""
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)

    row = bytes(1 + -(-WIDTH * depth * (3 if colour == 2 else 1) // 8))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', WIDTH, HEIGHT, depth, colour, 0, 0, 0)) + (
        chunk(b'PLTE', bytes(6)) if colour == 3 else b'') + chunk(
        b'IDAT', zlib.compress(row * HEIGHT)) + chunk(b'IEND', b''))


@pytest.mark.parametrize('task, depth, colour, words', [
    ('semseg', 16, 0, '16 bits a sample: expected 8'), ('semseg', 4, 0, '4 bits a sample'),
    ('edges', 1, 0, '1 bits a sample: expected 8'), ('edges', 8, 3, 'has a palette'),
    ('saliency', 16, 0, '16 bits a sample: expected 8'), ('depth', 8, 0, '8 bits a sample: exp'),
    ('normals', 16, 2, '16 bits a sample: expected 8'), ('semseg', 2, 3, None),
    ('semseg', 8, 0, None), ('depth', 16, 0, None), ('normals', 8, 2, None)])
def test_files_of_other_bits_are_named(tmp_path, task, depth, colour, words):
    """Who reads them would scale or cut them in silence; indices of a palette are as they are."""
    folder = {'edges': 'edge'}.get(task, task)
    save(tmp_path / 'image' / 'a.jpg', image())
    (tmp_path / folder).mkdir()
    png(tmp_path / folder / 'a.png', depth, colour)
    data = open_dataset(tmp_path, (task,))
    if words is None:
        assert not data[0][task].any()
        return
    with pytest.raises(ValueError, match=f'{folder}/a.png has .*{words}|a.png {words}'):
        data[0]


def test_published_labels_of_other_bits_are_named(pascal, nyud):
    for root, name, task in (
            (pascal, 'semseg/VOC12/a.png', 'semseg'), (pascal, 'sal_distill/a.png', 'saliency'),
            (nyud, 'segmentation/1.png', 'semseg')):
        save(root / name, np.full((HEIGHT, WIDTH), 257, np.uint16))
        with pytest.raises(ValueError, match=f'{name} has 16 bits a sample: expected 8'):
            open_dataset(root, (task,))[0]


def test_turning_and_mirroring_take_normals_along():
    """A quarter turn and a mirror image move what the labels say with the pixels."""
    size = 21
    frame = {
        'image': np.zeros((size, size, 3), np.uint8),
        'normals': encode_normals(np.full((size, size, 3), (0.6, 0.48, -0.64))),
        'depth': np.full((size, size), 3000, np.uint16),
        'semseg': np.zeros((size, size), np.uint8),
        'human_parts': np.zeros((size, size), np.uint8)}
    frame['semseg'][10, 18] = 7
    frame['human_parts'][10, 18] = 4
    turned = warp(frame, False, 90.0, 1.0, (size, size))
    # Counter-clockwise: what was at the right is at the top; what pointed right points up, and
    # what pointed down points right.
    rows, columns = np.nonzero(turned['semseg'] == 7)
    assert len(rows) and rows.max() < 5 and abs(columns.mean() - 10) <= 1.5
    np.testing.assert_allclose(
        decode_normals(turned['normals'])[12, 12], (0.48, -0.6, -0.64), atol=0.02)
    mirrored = warp(frame, True, 0.0, 1.0, (size, size))
    assert mirrored['semseg'][10, 2] == 7 and mirrored['human_parts'][10, 2] == 4
    np.testing.assert_allclose(
        decode_normals(mirrored['normals'])[5, 5], (-0.6, 0.48, -0.64), atol=0.01)
    nearer = warp(frame, False, 0.0, 1.5, (10, 8))
    assert nearer['depth'].shape == (8, 10) and (nearer['depth'] == 2000).all()
    # The person has left the picture: no part labels are left.
    assert (warp(frame, False, 0.0, 4.0, (size, size))['human_parts'] == 255).all()
    farther = warp(frame, False, 0.0, 0.5, (size, size))
    assert not farther['normals'][0, 0].any() and farther['depth'][10, 10] == 6000


def test_augmentations_as_published(pascal, nyud):
    for data, size in ((open_dataset(pascal), (24, 16)), (open_dataset(nyud), (16, 16))):
        seen = set()
        for seed in range(8):
            frame = data.augmentation(data[0], np.random.default_rng(seed), size)
            assert all(array.shape[1::-1] == size for array in frame.values())
            again = data.augmentation(data[0], np.random.default_rng(seed), size)
            assert all((frame[key] == again[key]).all() for key in frame)
            seen.add(frame['image'].tobytes())
        assert len(seen) > 3


def test_resizing_keeps_what_labels_mean(nyud):
    frame = open_dataset(nyud)[0]
    small = to_test_size(frame, (15, 10))
    assert set(np.unique(small['semseg'])) == {1, 255} and set(np.unique(small['edges'])) <= {0, 1}
    lengths = np.linalg.norm(decode_normals(small['normals']), axis=-1)
    np.testing.assert_allclose(lengths[2:], 1, atol=0.02)
    assert set(np.unique(small['depth'])) == {0, 2500}


def test_thinning():
    """A bar becomes its centre line; a thin line, a lone pixel and nothing stay."""
    bar = thin(area(5, 10, 5, 25))
    assert bar.any(0).sum() >= 15 and (bar.sum(0) <= 1).all() and bar[7, 10]
    for same in (area(5, 6, 5, 25), area(5, 6, 5, 6), area(0, 0, 0, 0)):
        np.testing.assert_array_equal(thin(same), same)
    border = thin(area(0, 20, 0, 30))
    assert border.any() and border.sum() < 40
    ring = area(3, 17, 3, 17) & ~area(7, 13, 7, 13)
    assert not thin(ring)[7:13, 7:13].any() and thin(ring)[10].sum() == 2


def test_a_photo_is_turned_upright_and_a_picture_with_labels_is_not(tmp_path):
    """What EXIF says of turning would part a picture from its labels."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 200  # bright on the left, as stored; to be turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'turned.jpg'
    Image.fromarray(stored).save(path, quality=95, exif=exif)
    assert abs(read_stored(path).astype(int) - stored).max() < 10
    upright = read_picture(path)
    assert upright.shape == (32, 16, 3)
    assert upright[:12].min() > 180 and upright[20:].max() < 20  # its left is above

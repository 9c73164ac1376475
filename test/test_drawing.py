# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Drawing: every task gets an RGB picture that says what its values say."""

import numpy as np
import pytest

from adamtl_ros import drawing
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.tasks import WIDE_IGNORE


def outputs(height: int = 24, width: int = 32) -> dict[str, np.ndarray]:
    """Return one published array per task."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(height, width, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    flat = rng.random((height, width), dtype=np.float32)
    return {
        'semseg': rng.integers(0, 18, (height, width), dtype=np.uint8),
        'human_parts': rng.integers(0, 7, (height, width), dtype=np.uint8),
        'saliency': flat, 'normals': normals, 'edges': flat, 'depth': 8 * flat}


@pytest.mark.parametrize('task', list(TASKS))
def test_every_task_gives_a_picture(task: str) -> None:
    """Same size, RGB, the same each time, and the input stays as it was."""
    array = outputs()[task]
    before = array.copy()
    picture = drawing.colourise(task, array)
    assert picture.shape == (24, 32, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, drawing.colourise(task, array))
    assert np.array_equal(array, before)


def test_classes_have_the_colours_of_the_palette() -> None:
    """The ignored label and class ids beyond the palette have a colour too."""
    palette = TASKS['semseg'].palette
    ids = np.array([[0, 4, IGNORE, len(palette)]], np.uint8)
    picture = drawing.colourise('semseg', ids)
    assert tuple(picture[0, 0]) == palette[0]
    assert tuple(picture[0, 1]) == palette[4]
    assert picture[0, 2].tolist() == [128, 128, 128]
    assert tuple(picture[0, 3]) == palette[0]


def test_classes_of_16_bits_have_colours_too() -> None:
    """255 is a class among them, 65535 is none; the legend has them all."""
    palette = TASKS['semseg'].palette
    ids = np.array([[0, 255, 256, 299, WIDE_IGNORE]], np.uint16)
    picture = drawing.colourise('semseg', ids)
    assert [tuple(pixel) for pixel in picture[0].tolist()] == [
        palette[0], palette[255 % len(palette)], palette[256 % len(palette)],
        palette[299 % len(palette)], (128, 128, 128)]
    image = np.full((1, 5, 3), 100, np.uint8)
    drawn = drawing.overlay(image, {'human_parts': ids}, ['human_parts'])
    assert (drawn != image).any(-1).tolist() == [[False, True, True, True, False]]
    names = [f'class {number}' for number in range(300)]
    sheet = drawing.sheet(
        ['frame'], [('one', [image])], legend={'semseg': names}, cell=1280)
    assert sheet.shape[1] == 1280


def test_normals_are_their_components() -> None:
    """(n + 1) / 2 as RGB, and black where there is none."""
    normals = np.array([[[1, 0, 0], [0, 0, -1], [np.nan] * 3]], np.float32)
    assert drawing.colourise('normals', normals)[0].tolist() == [
        [255, 127, 127], [127, 127, 0], [0, 0, 0]]


def test_near_is_brighter_than_far() -> None:
    """Monotonous in depth; no depth is black; the range is clipped, not wrapped."""
    depth = np.array([[0.1, 0.5, 1, 2, 4, 8, 40, np.nan, 0, np.inf]], np.float32)
    light = drawing.colourise('depth', depth)[0].sum(-1).astype(int)
    assert (np.diff(light[:6]) < 0).all()
    assert light[6] == light[5]
    assert light[7:].tolist() == [0, 0, 0]


def test_edges_are_dark_on_white() -> None:
    """A sure edge is black."""
    picture = drawing.colourise('edges', np.array([[0.0, 1.0]], np.float32))
    assert picture[0].tolist() == [[255] * 3, [0] * 3]


def test_unknown_task() -> None:
    """The tasks are named."""
    with pytest.raises(ValueError, match="'flow'.*semseg"):
        drawing.colourise('flow', np.zeros((2, 2)))


@pytest.mark.parametrize('shape', [(48, 64), (45, 80), (24, 32), (3, 5), (1, 1)])
def test_overlay_has_the_size_of_the_image(shape: tuple[int, int]) -> None:
    """At any size, with any subset of tasks, without writing into the image."""
    image = np.full((*shape, 3), 90, np.uint8)
    for tasks in (list(TASKS), ['semseg'], ['depth'], ['edges', 'saliency'], []):
        picture = drawing.overlay(image, outputs(), tasks)
        assert picture.shape == image.shape
        assert picture.dtype == np.uint8
        assert (image == 90).all()
    assert np.array_equal(drawing.overlay(image, outputs(), []), image)


def test_overlay_draws_only_what_is_asked_and_there() -> None:
    """A task that was not computed is left out."""
    image = np.full((24, 32, 3), 90, np.uint8)
    only = {'semseg': outputs()['semseg']}
    assert np.array_equal(
        drawing.overlay(image, outputs(), ['semseg']), drawing.overlay(image, only, list(TASKS)))


def test_overlay_tints_people_by_part_and_leaves_the_background() -> None:
    """Class 0 of the parts is background, IGNORE is unknown."""
    image = np.full((2, 3, 3), 100, np.uint8)
    parts = np.array([[0, 1, IGNORE], [0, 1, IGNORE]], np.uint8)
    picture = drawing.overlay(image, {'human_parts': parts})
    assert picture[0, 0].tolist() == picture[0, 2].tolist() == [100] * 3
    assert picture[0, 1, 0] > 150 > picture[0, 1, 1]


def test_overlay_thins_edges_to_lines() -> None:
    """A broad soft edge is a line along its ridge; an unlikely one is none."""
    image = np.full((20, 20, 3), 100, np.uint8)
    columns = np.arange(20, dtype=np.float32)
    edges = np.tile(np.maximum(
        0.95 - 0.05 * np.abs(columns - 6), 0.4 - 0.05 * np.abs(columns - 15)), (20, 1))
    picture = drawing.overlay(image, {'edges': edges.astype(np.float32)})
    white = (picture == 255).all(-1)
    assert white[:, 6].all()
    assert white.sum() == 20


def test_gating_picture_is_bright_where_the_encoder_ran() -> None:
    """Bright where everything ran, dark where nothing did."""
    image = np.full((8, 8, 3), 60, np.uint8)
    gating = np.zeros((4, 4), np.uint8)
    gating[:, 2:] = 255
    picture = drawing.gating_picture(gating, image)
    assert picture.shape == image.shape
    assert picture[:, 4:].min() > picture[:, :4].max()


def test_sheet_has_a_column_per_title_and_a_row_per_label() -> None:
    """Pictures of any size are brought to the cell; text is drawn."""
    cells = [np.full((10, 20, 3), value, np.uint8) for value in (0, 100, 200)]
    one = drawing.sheet(['a', 'b', 'c'], [('first', cells)], cell=64)
    two = drawing.sheet(['a', 'b', 'c'], [('first', cells), ('second', cells)], cell=64)
    assert one.shape[1] == two.shape[1] == 3 * 64
    assert two.shape[0] - one.shape[0] == 32 + 24
    assert (one[-16, [32, 96, 160]] == [[0] * 3, [100] * 3, [200] * 3]).all()
    assert drawing.text('budget', 64).max() > 200
    assert drawing.text('a very long line that does not fit', 64)[:, -3:].max() < 100


def test_legend_shows_every_class() -> None:
    """Each colour of the palette is in it."""
    names = TASKS['semseg'].classes
    cells = [np.zeros((10, 20, 3), np.uint8)] * 2
    picture = drawing.sheet(['a', 'b'], [('', cells)], legend={'semseg': names})
    colours = {tuple(int(v) for v in colour) for colour in picture.reshape(-1, 3)}
    assert set(TASKS['semseg'].palette) <= colours


def test_over_time_shows_cost_answers_and_the_blocks_that_ran() -> None:
    """A column each; a frame that was warped, reused or is unknown has no bar and a colour."""
    stretches = [
        drawing.Stretch(1.0, blocks=(1.0, 1.0)), drawing.Stretch(0.5, blocks=(1.0, 0.0)),
        drawing.Stretch(0.0, warped=1.0, blocks=(0.0, 0.0)),
        drawing.Stretch(0.0, reused=1.0, blocks=(0.0, 0.0)), drawing.Stretch()]
    picture = drawing.over_time(stretches, 0.6, 564)
    assert picture.shape[1:] == (564, 3)
    chart, how, blocks = picture[46:166], picture[166:194], picture[194:214]
    assert len(picture) == 214 + 20
    columns = [114, 214, 314, 414, 514]
    blue = (chart == chart[-1, 114]).all(-1).sum(0)[columns]
    assert blue[0] > 100
    assert blue[1] == pytest.approx(blue[0] / 2, abs=4)
    assert blue[2:].tolist() == [0, 0, 0]
    answers = [tuple(pixel) for pixel in how[14, columns].tolist()]
    assert answers[0] == answers[1] == tuple(chart[-1, 114])
    assert len(set(answers)) == 4
    ran = (blocks[[5, 15]][:, columns] == chart[-1, 114]).all(-1)
    assert ran.tolist() == [[True, True, False, False, False], [True, False, False, False, False]]
    line = np.flatnonzero((chart[:, 314] != chart[0, 314]).any(-1))
    assert 0.5 < (120 - line.mean()) / blue[0] < 0.7


def test_over_time_tells_the_parts_and_of_stretches_the_shares() -> None:
    """A line where each part begins; a stretch has each colour by its share."""
    stretches = [drawing.Stretch(0.25, 0.25, 0.5)] * 4
    plain = drawing.over_time(stretches, 0.6, 464, frames=3)
    picture = drawing.over_time(stretches, 0.6, 464, frames=3, parts=[('one', 6), ('two', 6)])
    assert len(picture) == len(plain) + 24
    _, counts = np.unique(plain[166 + 6:166 + 22, 114], axis=0, return_counts=True)
    assert sorted(counts.tolist()) == [4, 4, 8]
    lit = (picture[46:] == 235).all(-1).all(0)
    assert np.flatnonzero(lit).tolist() == [64, 65, 264, 265]
    for frames in (1, 3, 1000):
        assert drawing.over_time([drawing.Stretch()], 0.6, 300, frames=frames).shape[1] == 300

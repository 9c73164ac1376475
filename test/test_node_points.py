# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's cloud of points and coloured pictures, and what a costmap layer needs of them."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from sensor_msgs.msg import PointField  # noqa: E402

from adamtl_ros import drawing  # noqa: E402
from adamtl_ros.camera import Camera  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from adamtl_ros.runtime.points import points  # noqa: E402
from adamtl_ros.runtime.settings import Settings  # noqa: E402
from adamtl_ros.tasks import SEMSEG_CLASSES  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from ros_graph import picture  # noqa: E402

pytestmark = pytest.mark.slow

K = [50.0, 0.0, 30.0, 0.0, 52.0, 25.0, 0.0, 0.0, 1.0]
CAMERA = Camera(64, 48, 50.0, 52.0, 30.0, 25.0)


class SmoothEngine(Engine):
    """Gives depth of a wall, so that there are points."""

    def infer(self, image, settings, camera=None, stream=None):
        """Let a wall of 3 m pass for the depth, with a step to 6 m in the middle."""
        result = super().infer(image, settings, camera, stream)
        if 'depth' in result.outputs:
            depth = result.outputs['depth']
            depth[:, :depth.shape[1] // 2], depth[:, depth.shape[1] // 2:] = 3.0, 6.0
        return result


def calibrated(bench, width=64, height=48, k=K):
    """Send a camera_info and wait until the node has it."""
    info = bench.client.create_publisher(CameraInfo, 'camera_info', 1)
    bench.met(info).publish(bench.header(CameraInfo(width=width, height=height, k=k)))
    bench.taken(info)


def read(cloud: PointCloud2) -> np.ndarray:
    """Return the points of a message as a reader of its fields sees them."""
    formats = {PointField.FLOAT32: '<f4', PointField.UINT32: '<u4', PointField.UINT8: 'u1'}
    kind = np.dtype({
        'names': [each.name for each in cloud.fields],
        'formats': [formats[each.datatype] for each in cloud.fields],
        'offsets': [each.offset for each in cloud.fields], 'itemsize': cloud.point_step})
    assert cloud.row_step == cloud.width * cloud.point_step
    assert len(cloud.data) == cloud.height * cloud.row_step and not cloud.is_bigendian
    return np.frombuffer(cloud.data, kind).reshape(cloud.height, cloud.width)


def test_points_are_those_of_depth_camera_and_picture(bench, weights):
    node = bench.running(SmoothEngine, points__fields=['rgb', 'class'])
    calibrated(bench)
    bench.listen('points', 'gating_stats')
    message = picture()
    cloud, stats = bench.answer('points', 'gating_stats', message=message)
    assert (cloud.width, cloud.height) == (256, 192) and not cloud.is_dense
    assert [each.name for each in stats.task_stats] == ['semseg', 'depth']
    got = read(cloud)
    rgb = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)
    result = SmoothEngine(weights).infer(rgb, Settings(tasks=('semseg', 'depth')), CAMERA)
    expected = points(
        result.outputs['depth'], CAMERA.resized(256, 192), nearest=0.1, farthest=20.0,
        colour=cv2.resize(rgb, (256, 192)), classes=result.outputs['semseg'])
    assert got.dtype == expected.dtype
    for name in got.dtype.names:
        np.testing.assert_array_equal(got[name], expected[name])
    assert np.isnan(got['z'][:, 126:130]).any() and np.isfinite(got['z']).mean() > 0.98

    assert bench.set(node, points__fields=[], points__stride=4, points__max_range=5.0).successful
    cloud, stats = bench.answer('points', 'gating_stats')
    got = read(cloud)
    assert got.shape == (48, 64) and got.dtype.names == ('x', 'y', 'z')
    assert np.isnan(got['z'][:, 33:]).all() and (got['z'][:, :31] == 3).all()
    assert [each.name for each in stats.task_stats] == ['depth']
    refused = bench.set(node, points__min_range=9.0)
    assert not refused.successful and 'the first must be the smaller' in refused.reason


def test_mask_confidence_and_cloud_of_a_costmap_layer_fit(bench):
    """Of one size and one stamp, which divides the camera's."""
    bench.running(output_size='divided')
    calibrated(bench)
    names = ('semseg', 'semseg/confidence', 'points', 'depth', 'camera_info')
    bench.listen(*names)
    for got in bench.answer(*names):
        assert (got.width, got.height) == (64, 48)


def test_results_of_a_wide_picture_have_one_size_and_its_lens(bench):
    bench.running()
    calibrated(bench, 320, 180, [200.0, 0.0, 160.0, 0.0, 200.0, 90.0, 0.0, 0.0, 1.0])
    names = ('semseg', 'points', 'depth', 'camera_info')
    bench.listen(*names)
    got = bench.answer(*names, message=picture(width=320, height=180))
    assert {(each.width, each.height) for each in got} == {(288, 160)}
    _, cloud, _, scaled = got
    assert scaled.k[0] / scaled.width == pytest.approx(200 / 320)
    assert scaled.k[4] / scaled.height == pytest.approx(200 / 180)
    cloud = read(cloud)
    columns = cloud['x'] / cloud['z'] * 200 * scaled.width / 320
    found = np.nanmedian(columns, axis=0)
    np.testing.assert_allclose(np.diff(found[np.isfinite(found)]).min(), 1, atol=0.01)


def test_pictures_in_colour(bench, weights):
    bench.running(overlay__tasks=['semseg'])
    bench.listen('semseg/color', 'overlay/compressed', 'gating_stats')
    message = picture()
    colour, overlay, stats = bench.answer(
        'semseg/color', 'overlay/compressed', 'gating_stats', message=message)
    assert [each.name for each in stats.task_stats] == ['semseg']
    rgb = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)
    outputs = Engine(weights).infer(rgb, Settings(tasks=('semseg',))).outputs
    assert colour.encoding == 'rgb8'
    np.testing.assert_array_equal(
        np.frombuffer(colour.data, np.uint8).reshape(192, 256, 3),
        drawing.colourise('semseg', outputs['semseg']))
    assert overlay.format == 'rgb8; jpeg compressed bgr8'
    shown = cv2.imdecode(np.frombuffer(overlay.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    drawn = drawing.overlay(rgb, outputs, ['semseg'])
    assert shown.shape == drawn.shape
    # JPEG halves the colours of noise; the light stays.
    light = [cv2.cvtColor(np.ascontiguousarray(each), cv2.COLOR_RGB2GRAY).astype(int)
             for each in (shown, drawn)]
    assert np.abs(light[0] - light[1]).mean() < 8


@pytest.mark.parametrize('size, divided', [
    ((640, 480), (320, 240)), ((1280, 720), (256, 144)), ((1920, 1080), (240, 135)),
    ((848, 480), (212, 120)), ((256, 192), (256, 192)), ((161, 97), (161, 97))])
def test_sizes_that_divide(size, divided):
    settings = Settings(output_size='divided')
    assert settings.size((256, 192), size) == divided
    assert Settings().size((256, 192), size) == (256, 192)
    assert Settings(output_size='camera').size((256, 192), size) == size


def test_a_picture_needs_no_listener_of_a_task(stage):
    stage.running(overlay__tasks=[])
    stage.listen('overlay/compressed')
    stage.answer('overlay/compressed')


DOCS = Path(__file__).parents[1] / 'docs'


@pytest.mark.skipif(not DOCS.is_dir(), reason='the documentation is not beside the tests')
def test_the_recipe_of_nav2_names_what_there_is(bench):
    text = (DOCS / 'recipes.md').read_text().partition('## Nav2')[2]
    layer = yaml.safe_load(text.partition('```yaml')[2].partition('```')[0])[
        'semantic_segmentation_layer']
    camera = layer['camera']
    assert layer['use_approximate_time_sync'] is False
    classes = [name for kind in camera['class_types'] for name in camera[kind]['classes']]
    assert sorted([*classes, 'ceiling', 'opening']) == sorted(SEMSEG_CLASSES)
    bench.running()
    for name, topic in camera.items():
        if name.endswith('_topic') and (name != 'labels_topic' or find_spec('vision_msgs')):
            bench.until(lambda topic=topic: bench.client.count_publishers(topic) == 1)


@pytest.mark.skipif(not DOCS.is_dir(), reason='the documentation is not beside the tests')
def test_the_palette_is_documented():
    page = (DOCS / 'interface.md').read_text()
    task = TASKS['semseg']
    for number, (name, (red, green, blue)) in enumerate(zip(task.classes, task.palette)):
        assert f'| {number} | {name} | #{red:02x}{green:02x}{blue:02x} |' in page

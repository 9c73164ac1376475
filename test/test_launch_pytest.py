# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The launch file under launch_pytest: a bring-up that starts it, used and ended."""

from collections.abc import Iterator
import os
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
import pytest

launch = pytest.importorskip(
    'launch', reason='launch is not on PyPI; it comes with a ROS installation')
launch_pytest = pytest.importorskip(
    'launch_pytest', reason='launch_pytest is not on PyPI; package.xml asks for it')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI')
pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.actions import RegisterEventHandler  # noqa: E402
from launch.event_handlers import OnProcessExit  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from ros_graph import Graph  # noqa: E402

pytestmark = pytest.mark.slow

FILE = share('launch', 'glasses.launch.py')
# Of an installed package, or of the environment where it is editable.
PREFIX = FILE.parents[3] if FILE.parts[-4:-2] == ('share', 'adamtl_ros') else Path(sys.prefix)
CODES: dict[str, int] = {}


@launch_pytest.fixture
def played(tmp_path: Any) -> launch.LaunchDescription:
    """Start node and player on two pictures, under a name and a namespace."""
    os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(
        filter(None, (str(PREFIX), os.environ.get('AMENT_PREFIX_PATH'))))
    for number in range(2):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((48, 64, 3), 99 * number, np.uint8))
    return launch.LaunchDescription([
        RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: CODES.update(
            {event.process_name.rpartition('-')[0]: event.returncode}))),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(FILE)), launch_arguments={
            'source': str(tmp_path), 'namespace': 'head', 'name': 'eyes', 'mode': 'adaptive',
            'budget': '0.5', 'on_exit': 'shutdown'}.items()),
        launch_pytest.actions.ReadyToTest()])


@pytest.mark.skipif(
    not (PREFIX / 'lib' / 'adamtl_ros' / 'adamtl_node').exists(),
    reason=f'adamtl_ros is not installed in an ament prefix, but found in {FILE}')
@pytest.mark.launch(fixture=played)
def test_frames_are_answered_and_all_ends_well() -> Iterator[None]:
    graph = Graph()
    got: list[GatingStats] = []
    graph.client.create_subscription(GatingStats, '/head/eyes/gating_stats', got.append, 10)
    try:
        graph.until(lambda: len(got) > 2)
        names = {f'{namespace}/{name}' for name, namespace in
                 graph.client.get_node_names_and_namespaces()}
    finally:
        graph.close()
    assert got[-1].budget_requested == 0.5
    assert {'/head/eyes', '/head/eyes_player'} <= names
    yield
    assert CODES == {'adamtl_node': 0, 'adamtl_player': 0}

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The launch file: what it asks for, and what it starts, with a played folder for a camera."""

import importlib.util
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

pytest.importorskip('launch', reason='launch is not on PyPI; it comes with a ROS installation')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI')
pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.nodes.parameters import PARAMETERS  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402

pytestmark = pytest.mark.slow

FILE = share('launch', 'glasses.launch.py')
# Of an installed package, or of the environment where it is editable.
PREFIX = FILE.parents[3] if FILE.parts[-4:-2] == ('share', 'adamtl_ros') else Path(sys.prefix)
WAIT = 60.0

# What `ros2 launch` does, which may not be installed.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]),
    launch_arguments=[argument.split(':=', 1) for argument in sys.argv[2:]])]))
sys.exit(service.run())
"""


@pytest.fixture(scope='module')
def file() -> ModuleType:
    """Return the launch file as a module."""
    spec = importlib.util.spec_from_file_location('glasses_launch', FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(file: ModuleType, **changes: str) -> dict[str, str]:
    """Return the launch arguments with some changed."""
    return {name: default for name, (default, _) in file.ARGUMENTS.items()} | changes


def test_arguments_are_described(file):
    names = {argument.name for argument in file.generate_launch_description().entities
             if hasattr(argument, 'default_value')}
    assert names == {
        'image', 'camera_info', 'params_file', 'budget', 'tasks', 'mode', 'model', 'backend',
        'device', 'precision', 'image_transport', 'autostart', 'name', 'namespace', 'log_level',
        'use_sim_time', 'on_exit', 'source'}
    assert {*file.PASSED_ON, 'autostart', 'budget', 'mode'} < set(PARAMETERS)
    assert Path(file.ARGUMENTS['params_file'][0]).is_file()


def test_arguments_left_empty_change_no_parameter(file):
    assert file.parameters(values(file)) == {}


def test_arguments_become_parameters(file):
    chosen = file.parameters(values(
        file, budget='1', mode='shadow', tasks='depth, semseg', use_sim_time='True',
        autostart='false', model='swin_tiny', backend='torch', device='cuda:0', precision='bf16',
        image_transport='compressed'))
    assert chosen == {
        'use_sim_time': True, 'autostart': False, 'budget': 1.0, 'mode': 'shadow',
        'model': 'swin_tiny', 'backend': 'torch', 'device': 'cuda:0', 'precision': 'bf16',
        'image_transport': 'compressed'} | {
        f'tasks.{task}.enable': task in ('semseg', 'depth') for task in TASKS}
    assert isinstance(chosen['budget'], float)
    every = file.parameters(values(file, tasks='all'))
    assert [name for name in every if name.startswith('tasks.')] == [
        f'tasks.{task}.enable' for task in TASKS]
    assert all(every[f'tasks.{task}.enable'] for task in TASKS)


@pytest.mark.parametrize(('name', 'value', 'word'), [
    ('budget', '0', 'above 0'), ('budget', '1.5', 'above 0'), ('budget', 'nan', 'above 0'),
    ('budget', 'half', 'above 0'), ('tasks', 'semseg,pose', 'human_parts'),
    ('tasks', ',', 'human_parts'), ('mode', 'fast', 'adaptive'),
    ('use_sim_time', 'maybe', 'true or false'), ('autostart', 'later', 'true or false'),
])
def test_wrong_arguments_are_named(file, name, value, word):
    with pytest.raises(RuntimeError, match=f'{name} is .*{word}'):
        file.parameters(values(file, **{name: value}))


def start(*arguments: str, file: Path = FILE) -> subprocess.Popen:
    """Launch a file in a process group of its own."""
    if not (PREFIX / 'lib' / 'adamtl_ros' / 'adamtl_node').exists():
        pytest.skip(f'adamtl_ros is not installed in an ament prefix, but found in {FILE}')
    prefixes = [str(PREFIX), *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    return subprocess.Popen(
        [sys.executable, '-c', LAUNCH, str(file), *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={name: value for name, value in os.environ.items()
             if not name.endswith('_DEFAULT_PROFILES_FILE')} | {
            'AMENT_PREFIX_PATH': os.pathsep.join(filter(None, prefixes))})


@pytest.mark.parametrize(('argument', 'word'), [
    ('budget:=1.5', '1.5'), ('tasks:=pose', 'pose'), ('mode:=fast', 'fast'),
    ('params_file:=/nonexistent.yaml', '/nonexistent.yaml'),
    ('source:=/nonexistent.mp4', '/nonexistent.mp4'), ('params_file:=/tmp', '/tmp'),
    ('on_exit:=maybe', 'maybe'),
])
def test_a_wrong_argument_starts_nothing(ended, argument, word):
    launched = start(argument)
    ended.append(launched)
    output, _ = launched.communicate(timeout=WAIT)
    assert launched.returncode != 0
    assert f"launch argument {argument.split(':=')[0]} is '{word}'" in output
    assert 'process started' not in output
    assert 'Traceback' not in output


def test_two_cameras_need_two_namespaces(ended):
    launched = start('first:=/cam/', 'second:=cam', file=FILE.with_name('two_cameras.launch.py'))
    ended.append(launched)
    output, _ = launched.communicate(timeout=WAIT)
    assert launched.returncode != 0
    assert "first and second are both '/cam/': use two namespaces" in output
    assert 'process started' not in output


# What a robot's own launch file does: ours included, something else beside it.
AROUND = """
from launch import LaunchDescription
from launch.actions import ExecuteProcess
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description():
    return LaunchDescription([
        IncludeLaunchDescription(PythonLaunchDescriptionSource(FILE), launch_arguments={
            'model': '/nonexistent.safetensors', 'on_exit': ON_EXIT, 'name': 'eyes'}.items()),
        ExecuteProcess(
            cmd=['sh', '-c', 'env; REST'], output='screen')])
"""


@pytest.mark.parametrize('on_exit', ['leave', 'shutdown'])
def test_a_node_that_fails_takes_the_robot_down_only_if_asked(ended, tmp_path, on_exit):
    robot = tmp_path / 'robot.launch.py'
    rest = 'sleep 20; echo robot is done' if on_exit == 'leave' else 'exec sleep 500'
    robot.write_text(
        AROUND.replace('FILE', repr(str(FILE))).replace('ON_EXIT', repr(on_exit)).replace(
            'REST', rest))
    launched = start(file=robot)
    ended.append(launched)
    output, _ = launched.communicate(timeout=3 * WAIT)
    assert "[eyes]: cannot configure: no model '/nonexistent.safetensors'" in output
    # The shared memory that our nodes ask for is their own business.
    assert 'DEFAULT_PROFILES_FILE' not in output
    if on_exit == 'leave':
        assert '] robot is done' in output and launched.returncode == 0
    else:
        assert launched.returncode == 1 and 'ended with 1' in output


def test_the_player_ends_with_the_node(ended, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((48, 64, 3), 50, np.uint8))
    launched = start(f'source:={tmp_path}', 'model:=/nonexistent.safetensors')
    ended.append(launched)
    output, _ = launched.communicate(timeout=WAIT)
    assert 'cannot configure' in output and 'adamtl_player ended: no more pictures' in output


def test_it_plays_a_folder_to_the_node(ros, ended, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((48, 64, 3), 50 * number, np.uint8))
    got: list[GatingStats] = []
    ros.client.create_subscription(GatingStats, '/glasses/adamtl/gating_stats', got.append, 10)
    launched = start(f'source:={tmp_path}', 'namespace:=glasses', 'mode:=adaptive',
                     'budget:=0.75', 'tasks:=semseg', 'image:=camera/image_raw')
    ended.append(launched)
    ros.until(lambda: len(got) > 4, launched)
    topics = dict(ros.client.get_topic_names_and_types())
    launched.send_signal(signal.SIGINT)
    output, _ = launched.communicate(timeout=WAIT)
    assert '/glasses/camera/image_raw' in topics
    assert (got[-1].mode, got[-1].budget_requested) == ('adaptive', 0.75)
    assert not got[-1].task_stats  # nobody listens to a task here
    assert launched.returncode == 0, output
    assert output.count('process has finished cleanly') == 2, output
    assert 'Traceback' not in output


def test_two_cameras_side_by_side(ros, ended, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((48, 64, 3), 50, np.uint8))
    got: dict[str, list[GatingStats]] = {'port': [], 'right': []}
    for name, messages in got.items():
        ros.client.create_subscription(
            GatingStats, f'/{name}/adamtl/gating_stats', messages.append, 10)
    launched = start(f'source:={tmp_path}', 'first:=port', 'mode:=adaptive', 'budget:=0.5',
                     file=FILE.with_name('two_cameras.launch.py'))
    ended.append(launched)
    ros.until(lambda: min(map(len, got.values())) > 2, launched)
    topics = dict(ros.client.get_topic_names_and_types())
    launched.send_signal(signal.SIGINT)
    output, _ = launched.communicate(timeout=WAIT)
    assert {f'/{name}/{topic}' for name in got for topic in ('image', 'adamtl/depth')} <= set(
        topics)
    assert all(each[-1].budget_requested == 0.5 for each in got.values())
    assert launched.returncode == 0, output
    assert output.count('process has finished cleanly') == 4, output

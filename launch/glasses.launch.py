# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Start the node adamtl with the small network, and if wanted a player that stands for the camera.

ros2 launch adamtl_ros glasses.launch.py image:=/camera/image_raw mode:=adaptive budget:=0.6
ros2 launch adamtl_ros glasses.launch.py source:=walk.mp4 tasks:=semseg,depth
"""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.actions import SetEnvironmentVariable
from launch.actions import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
import yaml

from launch import LaunchContext
from launch import LaunchDescription
from launch import LaunchDescriptionEntity

# Beside this file in the source tree as well as where it is installed.
CONFIG = Path(__file__).resolve().parent.parent / 'config'
MODES = ('static', 'shadow', 'adaptive')

ARGUMENTS = {
    'image': ('image', 'Topic of the camera images.'),
    'camera_info': ('camera_info', 'Topic of the camera calibration.'),
    'params_file': (str(CONFIG / 'glasses.yaml'), 'YAML file with the parameters of the node.'),
    'budget': ('', 'Share of the dense cost, above 0.0, to 1.0; empty: as in params_file.'),
    'tasks': ('', 'Enabled tasks with commas in between, or all; empty: as in params_file.'),
    'mode': ('', f'One of {", ".join(MODES)}; empty: as in params_file.'),
    'namespace': ('', 'Namespace of the nodes.'),
    'log_level': ('info', 'debug, info, warn, error or fatal.'),
    'use_sim_time': ('false', 'true: take the time from /clock.'),
    'source': ('', 'Video, folder of pictures or bag to play over and over as the camera.'),
}


def wrong(name: str, value: str, allowed: str) -> RuntimeError:
    """Return the error for a launch argument."""
    return RuntimeError(f'launch argument {name} is {value!r}: use {allowed}')


def parameters(values: dict[str, str]) -> dict[str, object]:
    """Return the parameters that the launch arguments set; RuntimeError if they are wrong."""
    chosen: dict[str, object] = {}
    if values['use_sim_time'].lower() not in ('true', 'false'):
        raise wrong('use_sim_time', values['use_sim_time'], 'true or false')
    chosen['use_sim_time'] = values['use_sim_time'].lower() == 'true'
    if values['budget']:
        try:
            budget = float(values['budget'])
        except ValueError:
            budget = 0.0
        if not 0.0 < budget <= 1.0:
            raise wrong('budget', values['budget'], 'a number above 0.0, to 1.0')
        chosen['budget'] = budget
    if values['mode']:
        if values['mode'] not in MODES:
            raise wrong('mode', values['mode'], f'one of {", ".join(MODES)}')
        chosen['mode'] = values['mode']
    if values['tasks']:
        # Not from the Python package: that would load torch into the launch process.
        shipped = yaml.safe_load((CONFIG / 'glasses.yaml').read_text())
        known = list(shipped['/**']['ros__parameters']['tasks'])
        wanted = known if values['tasks'] == 'all' else [
            task.strip() for task in values['tasks'].split(',')]
        if not set(wanted) <= set(known):
            raise wrong('tasks', values['tasks'], f'all, or some of {",".join(known)}')
        chosen |= {f'tasks.{task}.enable': task in wanted for task in known}
    return chosen


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the launch arguments ask for."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    chosen = parameters(values)
    for name in ('params_file', 'source'):
        values[name] = os.path.expanduser(values[name])
        if values[name] and not os.path.exists(values[name]):
            raise wrong(name, values[name], 'a path that exists')
    shared = {
        'namespace': values['namespace'], 'output': 'screen',
        'remappings': [(name, values[name]) for name in ('image', 'camera_info')
                       if values[name] != name],
        'ros_arguments': ['--log-level', values['log_level']],
    }
    actions: list[LaunchDescriptionEntity] = []
    # Fast DDS 2, of Jazzy and before, only reads the old name, and Fast DDS 3 complains about it.
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
    profiles = f'{"FASTRTPS" if old else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    if profiles not in os.environ:
        actions.append(SetEnvironmentVariable(profiles, str(CONFIG / 'fastdds.xml')))
    actions.append(Node(
        package='adamtl_ros', executable='adamtl_node', name='adamtl',
        parameters=[values['params_file'], chosen],
        on_exit=Shutdown(reason='adamtl_node ended'), **shared))
    if values['source']:
        actions.append(Node(
            package='adamtl_ros', executable='adamtl_player', name='adamtl_player',
            parameters=[{'use_sim_time': chosen['use_sim_time']}],
            arguments=[values['source'], '--loop', '--wait', '60'], **shared))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest waits until they are known."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=start),
    ])

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
from launch.actions import EmitEvent
from launch.actions import LogInfo
from launch.actions import OpaqueFunction
from launch.actions import Shutdown
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.events.process import ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
import yaml

from adamtl_ros import dds
from launch import LaunchContext
from launch import LaunchDescription
from launch import LaunchDescriptionEntity

# Beside this file in the source tree as well as where it is installed.
CONFIG = Path(__file__).resolve().parent.parent / 'config'
MODES = ('static', 'shadow', 'adaptive')
ON_EXIT = ('leave', 'shutdown')
PASSED_ON = ('model', 'backend', 'device', 'precision', 'image_transport')
"""Arguments that are parameters of the node under the same names, which it checks itself."""

ARGUMENTS = {
    'image': ('image', 'Topic of the camera images.'),
    'camera_info': ('camera_info', 'Topic of the camera calibration.'),
    'params_file': (str(CONFIG / 'glasses.yaml'), 'YAML file with the parameters of the node.'),
    'budget': ('', 'Share of the dense cost, above 0.0, to 1.0; empty: as in params_file.'),
    'tasks': ('', 'Enabled tasks with commas in between, or all; empty: as in params_file.'),
    'mode': ('', f'One of {", ".join(MODES)}; empty: as in params_file.'),
    'model': ('', 'Preset, or path of a weights file; empty: as in params_file.'),
    'backend': ('', 'What executes the network; empty: as in params_file.'),
    'device': ('', 'cpu, cuda or cuda:N; empty: as in params_file.'),
    'precision': ('', 'f32, bf16 or int8; empty: as in params_file.'),
    'image_transport': ('', 'auto, raw or compressed; empty: as in params_file.'),
    'autostart': ('', 'false: wait for a lifecycle manager; empty: as in params_file.'),
    'name': ('adamtl', 'Name of the node.'),
    'namespace': ('', 'Namespace of the nodes.'),
    'log_level': ('info', 'debug, info, warn, error or fatal.'),
    'use_sim_time': ('', 'true: take the time from /clock; empty: as in params_file.'),
    'on_exit': ('leave', 'shutdown: end the whole launch when the node ends; it then fails if the '
                         'node did. leave: all else goes on.'),
    'source': ('', 'Video, folder of pictures or bag to play over and over as the camera.'),
}


def wrong(name: str, value: str, allowed: str) -> RuntimeError:
    """Return the error for a launch argument."""
    return RuntimeError(f'launch argument {name} is {value!r}: use {allowed}')


def parameters(values: dict[str, str]) -> dict[str, object]:
    """Return the parameters that the launch arguments set; RuntimeError if they are wrong."""
    chosen: dict[str, object] = {}
    for name in ('use_sim_time', 'autostart'):
        if values[name]:
            if values[name].lower() not in ('true', 'false'):
                raise wrong(name, values[name], 'true or false')
            chosen[name] = values[name].lower() == 'true'
    chosen |= {name: values[name] for name in PASSED_ON if values[name]}
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
    if os.path.isdir(values['params_file']):
        raise wrong('params_file', values['params_file'], 'a file, not a folder')
    if values['on_exit'] not in ON_EXIT:
        raise wrong('on_exit', values['on_exit'], f'one of {", ".join(ON_EXIT)}')
    variable, profile = dds.profiles_variable(), dds.profile()
    shared = {
        'namespace': values['namespace'], 'output': 'screen',
        'remappings': [(name, values[name]) for name in ('image', 'camera_info')
                       if values[name] != name],
        'ros_arguments': ['--log-level', values['log_level']],
        # Of these processes alone: what includes this file keeps its environment.
        'additional_env': {} if variable in context.environment or profile is None else {
            variable: str(profile)},
    }
    player = Node(
        package='adamtl_ros', executable='adamtl_player', name=f'{values["name"]}_player',
        parameters=[{name: chosen[name] for name in ('use_sim_time',) if name in chosen}],
        # A node that ends takes the player along; until then it may take its time to start.
        arguments=[values['source'], '--loop', '--wait', '86400'],
        on_exit=[LogInfo(msg='adamtl_player ended: no more pictures come from it')], **shared)

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if values['on_exit'] == 'shutdown':
            if event.returncode and not context.is_shutdown:
                # The only way to have `ros2 launch` itself fail.
                raise RuntimeError(f'{event.process_name} ended with {event.returncode}')
            return [Shutdown(reason=f'{event.process_name} ended')]
        if not values['source'] or context.is_shutdown:
            return []
        return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(player)))]

    node = Node(
        package='adamtl_ros', executable='adamtl_node', name=values['name'],
        parameters=[values['params_file'], chosen], on_exit=ended, **shared)
    return [node, player] if values['source'] else [node]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest waits until they are known."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=start),
    ])

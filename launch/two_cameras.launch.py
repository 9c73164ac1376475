# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Start two nodes side by side, each in the namespace of its camera.

ros2 launch adamtl_ros two_cameras.launch.py first:=left second:=right image:=image_raw
ros2 launch adamtl_ros two_cameras.launch.py source:=walk.mp4 mode:=adaptive budget:=0.5

The nodes are /left/adamtl and /right/adamtl here; the first listens to /left/image_raw.  All
arguments of glasses.launch.py but the namespace are taken too, and go to both.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.actions import GroupAction
from launch.actions import IncludeLaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext
from launch import LaunchDescription

ONE = Path(__file__).resolve().with_name('glasses.launch.py')
CAMERAS = {'first': 'left', 'second': 'right'}


def check(context: LaunchContext) -> None:
    """Raise RuntimeError if both cameras have one namespace: one node would hide the other."""
    first, second = (LaunchConfiguration(name).perform(context) for name in CAMERAS)
    if first.strip('/') == second.strip('/'):
        raise RuntimeError(
            f'launch arguments first and second are both {first!r}: use two namespaces')


def generate_launch_description() -> LaunchDescription:
    """Include the launch file of one node twice; its other arguments go to both."""
    return LaunchDescription([
        *(DeclareLaunchArgument(
            name, default_value=namespace, description=f'Namespace of the {name} camera.')
          for name, namespace in CAMERAS.items()),
        OpaqueFunction(function=check),
        # Scoped, so that the namespace of one is not the other's.
        *(GroupAction([IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(ONE)),
            launch_arguments={'namespace': LaunchConfiguration(name)}.items())])
          for name in CAMERAS),
    ])

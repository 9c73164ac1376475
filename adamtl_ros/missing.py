# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What to say where a package that is needed is not installed."""

import sys

PACKAGES = {
    'PIL': 'pillow', 'cv2': 'opencv-python-headless', 'distributed': 'distributed',
    'jinja2': 'jinja2', 'matplotlib': 'matplotlib', 'mcap': 'mcap', 'nncf': 'nncf',
    'numpy': 'numpy', 'openvino': 'openvino', 'rich': 'rich', 'rosbags': 'rosbags',
    'safetensors': 'safetensors', 'scipy': 'scipy', 'tensorboard': 'tensorboard',
    'torch': 'torch', 'torchmetrics': 'torchmetrics', 'yaml': 'pyyaml',
    'zstandard': 'zstandard'}
"""By the module that is imported: the package that pip installs."""

ROS = (
    'action_msgs', 'builtin_interfaces', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces',
    'rclpy', 'rosgraph_msgs', 'rosidl_parser', 'rpyutils', 'sensor_msgs', 'std_msgs', 'std_srvs')
"""Modules of a ROS installation."""


def told(command: str, error: ImportError) -> int:
    """Print what is missing and return the exit code 2; raise what is a fault of our own."""
    reason = missing(error)
    if reason is None:
        raise error
    print(f'{command}: {reason}', file=sys.stderr)
    return 2


def missing(error: ImportError) -> str | None:
    """Return one line with what is missing and how it is had; None for a fault of our own."""
    name = (error.name or '').partition('.')[0]
    if name in PACKAGES:
        return f'{name} is not installed: pip install {PACKAGES[name]}'
    # The messages are generated at installation, and are not in a source tree; rclpy gives no
    # name where its libraries cannot be loaded.
    if name in ROS or error.name == 'adamtl_ros.msg' or error.name is None:
        return (
            f'it runs over ROS 2, of which something is missing ({error}): '
            "pip install '.[kilted]' in the package's folder, or source a ROS 2 installation and "
            'build with colcon')
    return None

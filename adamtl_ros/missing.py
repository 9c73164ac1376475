# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What to say where a package that is needed is not installed."""

from collections.abc import Iterable
from importlib.util import find_spec
import sys

OPTIONAL = {
    'openvino': 'running the network fast on a CPU (without it: torch)',
    'rosbags': 'recordings',
    'mcap': 'recordings in .mcap files',
    'zstandard': 'recordings that are compressed',
    'lz4': 'recordings that are compressed with lz4',
    'safetensors': 'writing weights files',
    'torchmetrics': 'measuring accuracy',
    'nncf': 'measuring the ranges of precision int8',
    'onnx': 'exporting as ONNX',
    'onnxscript': 'exporting as ONNX',
    'onnxruntime': 'checking exported ONNX with its own runtime (without it: openvino)',
    'distributed': 'several recordings at the same time',
    'zeus': 'joules',
    'tensorboard': 'curves of a training'}
"""
What the node does without, as no rosdep key installs it, and what needs it.

By the module that is imported, which is also the package that pip installs.
"""

PACKAGES = {
    'PIL': 'pillow', 'cv2': 'opencv-python-headless', 'jinja2': 'jinja2',
    'matplotlib': 'matplotlib', 'numpy': 'numpy', 'rich': 'rich', 'scipy': 'scipy',
    'torch': 'torch', 'yaml': 'pyyaml', **{name: name for name in OPTIONAL}}
"""By the module that is imported: the package that pip installs."""

ROS = (
    'action_msgs', 'builtin_interfaces', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces',
    'rclpy', 'rosgraph_msgs', 'rosidl_parser', 'rpyutils', 'sensor_msgs', 'std_msgs', 'std_srvs')
"""Modules of a ROS installation."""


def lacking(names: Iterable[str]) -> list[str]:
    """Return which of these modules are not installed."""
    return [name for name in names if find_spec(name) is None]


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
            "pip install '.[jazzy]' in the package's folder, or source a ROS 2 installation and "
            'build with colcon')
    return None

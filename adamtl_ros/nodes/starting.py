# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 in a process that is no node of its own."""

import os

import rclpy
from rclpy.signals import SignalHandlerOptions


def start_ros() -> None:
    """Initialise ROS 2 for a command that handles its signals; ValueError, why, if that fails."""
    try:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # a domain that is no number, a folder for logs that cannot be
        rclpy.try_shutdown()
        asked = {name: os.environ[name] for name in ('ROS_DOMAIN_ID', 'ROS_LOG_DIR', 'ROS_HOME')
                 if name in os.environ}
        said = ', '.join(f'{name}={value}' for name, value in asked.items())
        raise ValueError(
            f'ROS 2 does not start{f" with {said}" if said else ""}: '
            f'{" ".join(str(error).split())}') from None

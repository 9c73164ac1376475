# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a ROS graph of their own, and a limit to how long a test may hang."""

from collections.abc import Iterator
import faulthandler
import os
import socket

import pytest


def free_domain() -> int:
    """Return a ROS domain in which nothing runs on this machine."""
    for offset in range(101):
        # Domains up to 101 do not collide with ephemeral ports.
        domain = 1 + (os.getpid() + offset) % 101
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Where the first participant of the domain is discovered (RTPS 2.5, 9.6.1.1).
                probe.bind(('', 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise RuntimeError('all ROS domains from 1 to 101 are in use: end some ROS processes')


# Before any test imports rclpy.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(free_domain())

HANG = 300.0
"""Seconds after which a test is taken to hang; it then ends the run with all stacks printed."""


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope='session', autouse=True)
def _ros_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ['ROS_LOG_DIR'] = str(tmp_path_factory.mktemp('ros_log'))

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a ROS graph of their own, and a limit to how long a test may hang."""

from collections.abc import Iterator
import faulthandler
import os

import pytest

# Before any test imports rclpy. Domains up to 101 do not collide with ephemeral ports.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101)

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

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Waiting for what was published to be taken, without guessing how long that takes."""

from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.duration import Duration
from rclpy.node import Node


def taken(publisher: Any, client: Node, until: Callable[[Any], None]) -> None:
    """
    Wait until the node `adamtl` has taken all that a reliable publisher sent.

    Its executor serves a question that is asked once the messages are there after them.
    until: spins both nodes until a condition holds.
    """
    assert publisher.wait_for_all_acked(Duration(seconds=30.0))
    service = client.create_client(GetParameters, 'adamtl/get_parameters')
    until(service.service_is_ready)
    answer = service.call_async(GetParameters.Request(names=['mode']))
    until(answer.done)
    client.destroy_client(service)

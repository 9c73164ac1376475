# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The player that stands for a camera: its lens."""

from collections.abc import Iterator

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

import rclpy  # noqa: E402

from adamtl_ros.intrinsics import Intrinsics  # noqa: E402
from adamtl_ros.nodes.playback import Player  # noqa: E402
from adamtl_ros.nodes.player import parse  # noqa: E402
from adamtl_ros.sources import DEMO  # noqa: E402
from adamtl_ros.sources import filmed_by  # noqa: E402
from adamtl_ros.sources import open_source  # noqa: E402


@pytest.fixture
def player() -> Iterator[Player]:
    """Return a player in a ROS context of its own."""
    rclpy.init()
    player = Player()
    yield player
    player.destroy_node()
    rclpy.shutdown()


def test_the_camera_that_is_given_is_published(player, monkeypatch):
    sent = []
    monkeypatch.setattr(player.infos, 'publish', sent.append)
    player.play(filmed_by(open_source(DEMO), Intrinsics(hfov=90.0)), frames=1)
    assert sent[0].k.tolist() == pytest.approx([128, 0, 127.5, 0, 128, 95.5, 0, 0, 1])
    assert parse(['--hfov', '60']).hfov == 60.0

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is told to ROS 2 and Fast DDS: a domain of one's own, segments that fit."""

from contextlib import suppress
import os
from pathlib import Path
import re
import socket

import pytest

from adamtl_ros import dds
from adamtl_ros.commands.demo import parser
from adamtl_ros.paths import share

MIB = 2**20


def profiles() -> list[str]:
    return [value for name, value in os.environ.items() if name.endswith('_PROFILES_FILE')]


def test_a_domain_of_its_own_is_not_that_of_the_user(monkeypatch):
    users = {'ROS_DOMAIN_ID': '7', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET',
             'ROS_STATIC_PEERS': '10.0.0.1', 'ROS_DISCOVERY_SERVER': '10.0.0.1:11811'}
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    # A node in the domain that would be next: its discovery port is taken.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        taken = 1 + os.getpid() % dds.LAST_DOMAIN
        with suppress(OSError):  # or another test's node is there
            other.bind(('', 7400 + 250 * taken + 10))
        before = dict(os.environ)
        with dds.domain() as first, dds.domain() as second:
            assert len({first, second, taken}) == 3
            assert all(1 <= each <= dds.LAST_DOMAIN for each in (first, second))
            assert os.environ['ROS_DOMAIN_ID'] == str(second)
            assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
            assert not {'ROS_STATIC_PEERS', 'ROS_DISCOVERY_SERVER'} & set(os.environ)
            assert len(profiles()) == 1
            assert Path(profiles()[0]).exists()
    assert dict(os.environ) == before


def test_a_domain_that_is_named_is_used_with_all_that_the_user_has_set(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    monkeypatch.setenv('ROS_STATIC_PEERS', '10.0.0.1')
    monkeypatch.setenv(dds.profiles_variable(), '/of/the/user.xml')
    with dds.domain(9) as number:
        assert number == 9
        assert os.environ['ROS_DOMAIN_ID'] == '9'
        assert os.environ['ROS_STATIC_PEERS'] == '10.0.0.1'
        assert profiles() == ['/of/the/user.xml']
    assert os.environ['ROS_DOMAIN_ID'] == '7'


@pytest.mark.parametrize('value', ['-1', '233', 'abc', ''])
def test_a_domain_that_cannot_be_is_named(value, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args([f'--domain={value}'])
    assert end.value.code == 2
    assert '0 to 232' in capsys.readouterr().err


@pytest.mark.parametrize(('free', 'segment'), [
    (None, 64 * MIB), (1024 * MIB, 64 * MIB), (256 * MIB, 64 * MIB), (255 * MIB, 255 * MIB // 4),
    (64 * MIB, 16 * MIB), (4 * MIB, MIB), (4 * MIB - 4, None), (0, None)])
def test_segments_fit_into_what_is_free(monkeypatch, free, segment):
    """Docker gives 64 MB to all processes of a container together."""
    monkeypatch.setattr(dds, '_free_bytes', lambda: free)
    path = dds.profile()
    if segment is None:
        assert path is None
        return
    found = re.findall(r'<segment_size>(\d+)</segment_size>', path.read_text())
    assert found == [str(segment)]
    if segment == 64 * MIB:
        assert path == share('config', 'fastdds.xml')


@pytest.mark.parametrize(('middleware', 'numbered', 'words'), [
    ('rmw_fastrtps_cpp', True, ''), ('rmw_fastrtps_dynamic_cpp', True, ''),
    ('rmw_zenoh_cpp', True, 'config/fastdds.xml'), ('rmw_cyclonedds_cpp', False, 'not counted'),
    ('rmw_of_tomorrow', False, 'not counted')])
def test_what_does_not_hold_over_another_middleware(monkeypatch, middleware, numbered, words):
    """It is said in one line, and no profile of Fast DDS is made or set."""
    assert dds.numbers_messages(middleware) == numbered
    line = dds.otherwise(middleware)
    assert words in line and bool(line) == bool(words) and '\n' not in line
    assert ('not counted' in line) == (not numbered)
    monkeypatch.setenv('RMW_IMPLEMENTATION', middleware)
    assert (dds.profile() is None) == bool(words)
    monkeypatch.delenv(dds.profiles_variable(), raising=False)
    with dds.domain(9):
        assert bool(profiles()) == (not words)


def test_no_middleware_named_is_fast_dds(monkeypatch):
    monkeypatch.setenv('RMW_IMPLEMENTATION', '')
    assert dds.profile() is not None


def test_what_is_free_is_what_the_system_says():
    status = os.statvfs('/dev/shm')
    assert dds._free_bytes() == pytest.approx(status.f_bavail * status.f_frsize, abs=64 * MIB)


@pytest.mark.parametrize(('name', 'value'), [('ROS_DOMAIN_ID', 'abc'), ('ROS_LOG_DIR', '/proc/x')])
def test_what_keeps_ros_from_starting_is_said(monkeypatch, name, value):
    rclpy = pytest.importorskip('rclpy')
    if rclpy.ok():
        pytest.skip('ROS runs in this process already')
    from adamtl_ros.nodes.starting import start_ros
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f'ROS 2 does not start with .*{name}={value}'):
        start_ros()

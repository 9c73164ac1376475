# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the environment tells ROS 2 and Fast DDS: a domain, and room for pictures."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
import os
from pathlib import Path
import re
import shutil
import socket
import tempfile

from adamtl_ros.paths import share

SHARED_MEMORY = Path('/dev/shm')

PARTICIPANTS = 4
"""Processes that share what is free there: camera, node, who listens, and one more."""

LEAST_SEGMENT = 2**20
"""Bytes; below that the segment of Fast DDS itself is as good."""

FAST_DDS = 'rmw_fastrtps'
"""What the names of its implementations of RMW begin with, the static and the dynamic one."""

NUMBERING = (FAST_DDS, 'rmw_zenoh')
"""Where each publisher counts its messages; of others Cyclone DDS is known not to."""

LAST_DOMAIN = 101
"""Above it the ports of a domain may be in use by outgoing connections."""

OWN = {
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'ROS_LOCALHOST_ONLY': None,
    'ROS_STATIC_PEERS': None, 'ROS_DISCOVERY_SERVER': None}
"""Environment of a domain that is to be alone; None is unset."""


@contextmanager
def domain(chosen: int | None = None) -> Iterator[int]:
    """
    Put this process and its children into a ROS domain; give its number.

    chosen: that one, with all else as the user has set it.  None: one in which nothing runs here,
    cut off from other machines, so that what is started meets nobody else's nodes.  The
    environment is as before when the block ends.
    """
    before = dict(os.environ)
    with socket.socket(socket.AF_UNIX) as held:
        try:
            if chosen is None:
                chosen = free_domain(held)
                for name, value in OWN.items():
                    os.environ.pop(name, None)
                    if value is not None:
                        os.environ[name] = value
            os.environ['ROS_DOMAIN_ID'] = str(chosen)
            use_shared_memory()
            yield chosen
        finally:
            os.environ.clear()
            os.environ.update(before)


def free_domain(held: socket.socket) -> int:
    """Return a domain in which nothing runs; held tells others of us, while it is open."""
    for offset in range(LAST_DOMAIN):
        number = 1 + (os.getpid() + offset) % LAST_DOMAIN
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Where the first participant of the domain is discovered (RTPS 2.5, 9.6.1.1).
                probe.bind(('', 7400 + 250 * number + 10))
                if hasattr(os, 'sched_getaffinity'):  # Linux: a name that goes with the process
                    held.bind(f'\0adamtl-domain-{number}')
            except OSError:
                continue
        return number
    raise ValueError(
        f'all ROS domains from 1 to {LAST_DOMAIN} are in use: name one with --domain')


def use_shared_memory() -> None:
    """Set the shipped profile with room for large images, unless the user has set another."""
    variable = profiles_variable()
    if variable not in os.environ:
        found = profile()
        if found is not None:
            os.environ[variable] = str(found)


def numbers_messages(middleware: str) -> bool:
    """Return whether messages of this RMW implementation tell how many were sent before them."""
    return middleware.startswith(NUMBERING)


def otherwise(middleware: str) -> str:
    """Return what does not hold over this RMW implementation, in one line; '' with Fast DDS."""
    if middleware.startswith(FAST_DDS):
        return ''
    counted = '' if numbers_messages(middleware) else (
        '; frames that are lost on the way are not counted (frames_missed stays 0)')
    return (f'{middleware} is not tested: config/fastdds.xml and its room for large images are '
            f'for Fast DDS alone{counted} (docs/operating.md)')


def profiles_variable() -> str:
    """Return the name of the variable that names Fast DDS's profiles."""
    # Fast DDS 2, of Jazzy, only reads the old name, and Fast DDS 3 complains about it.
    try:
        metadata.distribution('ros-jazzy-rclpy')
        old = True
    except metadata.PackageNotFoundError:
        old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
    return f'{"FASTRTPS" if old else "FASTDDS"}_DEFAULT_PROFILES_FILE'


def profile() -> Path | None:
    """
    Return the shipped profile, its segments made smaller where shared memory has no room for them.

    None where there is next to none: Fast DDS's own half a megabyte is all that goes.  None as
    well where RMW_IMPLEMENTATION names another middleware.
    """
    if not (os.environ.get('RMW_IMPLEMENTATION') or FAST_DDS).startswith(FAST_DDS):
        return None
    shipped = share('config', 'fastdds.xml')
    text = shipped.read_text(encoding='utf-8')
    size = re.search(r'<segment_size>(\d+)</segment_size>', text)
    assert size is not None
    wanted = int(size[1])
    room = _free_bytes()
    if room is None or room >= PARTICIPANTS * wanted:
        return shipped
    segment = room // PARTICIPANTS
    if segment < LEAST_SEGMENT:
        return None
    folder = Path(tempfile.mkdtemp(prefix='adamtl-dds-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / 'fastdds.xml'
    path.write_text(text.replace(size[0], f'<segment_size>{segment}</segment_size>'),
                    encoding='utf-8')
    return path


def _free_bytes() -> int | None:
    """Return what of shared memory is free, None where the system does not tell."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes that tests start, as they look from outside."""

from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

LIMIT = 120.0
"""Seconds after which a wait fails."""


def until(condition: Callable[[], Any], process: Any = None) -> Any:
    """Wait until the condition holds, and return what it gave; a process must live as long."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, f'waited {LIMIT:.0f} s in vain'
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.005)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for task in Path(f'/proc/{pid}/task').glob('*/children')
            for child in task.read_text().split()]


def blocks(pid: int, number: int) -> bool:
    """Return whether the first thread of a process holds a signal back."""
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('SigBlk:'):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False

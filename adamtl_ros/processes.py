# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes that a command starts, the signals that end it and them, and what they run on."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
import os
from pathlib import Path
import re
import signal
import subprocess
import sys


def processors() -> list[int]:
    """Return which processors this process may use; all, where the system does not tell."""
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Stop:
    """The first Ctrl-C or SIGTERM asks for an early but orderly end; the second breaks off."""

    def __init__(self) -> None:
        """Take over the signals."""
        self.set = False
        self._before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def _receive(self, *_: object) -> None:
        if self.set:
            raise KeyboardInterrupt
        self.set = True

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


_CHILD = """
import ctypes, os, runpy, sys
parent, module = int(sys.argv[1]), sys.argv[2]
try:
    ctypes.CDLL(None).prctl(1, 15)
except AttributeError:
    parent = os.getppid()
if os.getppid() == parent:
    sys.argv[1:3] = []
    runpy.run_module(module, run_name='__main__', alter_sys=True)
"""
"""Runs a module; on Linux it gets SIGTERM (15) when its parent has ended, however that was."""


@contextmanager
def child(module: str, arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module in a process that ends with this block, and with this process."""
    with log.open('wb') as output:
        process = subprocess.Popen(
            [sys.executable, '-c', _CHILD, str(os.getpid()), module, *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            # -c looks for modules in the working directory first, and a checkout of this package
            # there would hide the installed one, which alone has the messages.
            cwd=log.parent,
            # Ctrl-C at a terminal goes to the whole group; the children are ended in order.
            start_new_session=True)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> int:
    """End a child and return its exit code: politely, and after 15 s by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15.0)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def peak_memory(pid: int) -> float | None:
    """Return the most MB of memory that a process has held, None where Linux does not say."""
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except OSError:
        return None
    peak = re.search(r'VmHWM:\s*(\d+) kB', status)
    return int(peak[1]) / 1024 if peak else None


def last_lines(log: Path) -> str:
    """Return the end of a child's log on one line."""
    lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return ' | '.join(lines[-3:]) or 'it said nothing'

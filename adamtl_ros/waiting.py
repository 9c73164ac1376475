# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done meanwhile, said to who waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager
import sys
from threading import Timer

AFTER = 1.0
"""Seconds from which on somebody wonders."""


@contextmanager
def saying(text: str) -> Iterator[None]:
    """Print a line on standard error if the block takes long."""
    timer = Timer(AFTER, print, (text,), {'file': sys.stderr, 'flush': True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node reports about itself once a second: a level by fixed rules, and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import math
import os
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np

from adamtl_ros.nodes.slot import Counts

BENIGN_DROPS = frozenset({'missed', 'replaced', 'rate', 'disabled', 'shutdown'})
"""
Causes of dropping that are no fault of the frame.

missed: sent by the camera, but lost on the way or overwritten by the next before the executor
took it.  replaced: overwritten by the next while the worker was busy.  rate: beyond max_rate_hz.
disabled: by ~/enable.  shutdown: waiting when the node was deactivated.
"""

SILENCE = 5.0
"""Seconds without an image after which the figures are stale."""

OVERDUE = 5.0
"""Seconds in work after which a frame is taken to hang."""


@dataclass(frozen=True)
class Report:
    """
    A second in the life of the node.

    state: 'unconfigured', 'inactive' or 'active'.  failure: why the last transition failed.
    seconds: since the last report.  counts, before: now and at the last report.  silent: seconds
    since the last image, or since activation.  working: seconds that the frame in work has taken
    so far.  latencies, beside: in ms, per frame answered since the last report.  warnings: what
    is not as asked.  figures: more key values.
    """

    state: str
    counts: Counts
    before: Counts
    seconds: float
    failure: str = ''
    last_error: str = ''
    enabled: bool = True
    topic: str = ''
    silent: float = 0.0
    working: float = 0.0
    latencies: tuple[float, ...] = ()
    beside: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def since(self) -> Counts:
        """Return the counts since the last report."""
        before = self.before.dropped_by_cause
        return Counts(
            self.counts.processed - self.before.processed,
            {cause: number - before.get(cause, 0)
             for cause, number in self.counts.dropped_by_cause.items()})

    def level(self) -> tuple[bytes, str]:
        """Return the level and its reason: the first rule that holds."""
        since = self.since()
        faulty = sum(number for cause, number in since.dropped_by_cause.items()
                     if cause not in BENIGN_DROPS)
        if self.failure:
            return DiagnosticStatus.ERROR, self.failure
        if self.state != 'active':
            return DiagnosticStatus.OK, self.state
        if self.working > OVERDUE:
            return DiagnosticStatus.ERROR, f'a frame has been in work for {self.working:.0f} s'
        if faulty:
            return DiagnosticStatus.ERROR, f'{faulty} frames dropped: {self.last_error}'
        if not since.received and self.silent > SILENCE:
            return DiagnosticStatus.STALE, f'no frames on {self.topic} for {self.silent:.0f} s'
        if not self.enabled:
            return DiagnosticStatus.WARN, 'disabled by ~/enable'
        if not since.received and not self.working:
            return DiagnosticStatus.WARN, f'no frames on {self.topic}'
        if self.warnings:
            return DiagnosticStatus.WARN, '; '.join(self.warnings)
        return DiagnosticStatus.OK, f'{since.processed / self.seconds:.1f} frames/s'

    def values(self) -> dict[str, str]:
        """Return the figures, as text."""
        since = self.since()
        values: dict[str, Any] = {
            'state': self.state,
            'frames received': self.counts.received,
            'frames processed': self.counts.processed,
            'frames dropped': self.counts.dropped,
        } | {
            f'dropped: {cause}': number
            for cause, number in self.counts.dropped_by_cause.items()
        } | {
            'input rate (Hz)': since.received / self.seconds,
            'output rate (Hz)': since.processed / self.seconds,
        }
        if self.latencies:
            values |= {f'latency {name} (ms)': figure for name, figure in zip(
                ('p50', 'p95', 'p99', 'max'),
                np.percentile(self.latencies, (50, 95, 99, 100)))}
            values['received to published without network, median (ms)'] = np.median(self.beside)
        values |= self.figures
        memory = resident_mb()
        if memory is not None:
            values['memory (MB)'] = memory
        values['last error'] = self.last_error
        return {key: _text(value) for key, value in values.items()}


def resident_mb(process: int | str = 'self') -> float | None:
    """Return the memory that a process holds, in MB, or None where the system does not say."""
    try:
        pages = int(Path(f'/proc/{process}/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def _text(value: Any) -> str:
    if isinstance(value, float):  # numpy's float64 as well
        return 'unknown' if math.isnan(value) else f'{value:.4g}'
    return str(value)

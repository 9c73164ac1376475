# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node reports about itself once a second: a level by fixed rules, and figures."""

from collections import deque
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

BENIGN_DROPS = frozenset({'replaced', 'rate', 'disabled', 'shutdown'})
"""
Causes of dropping that are no fault of the frame.

replaced: overwritten by the next while the worker was busy.  rate: beyond max_rate_hz.
disabled: by ~/enable.  shutdown: waiting when the node was deactivated.
"""

SILENCE = 5.0
"""Seconds without an image after which the figures are stale, at the least."""

PAUSE = 1.5
"""Seconds without an image that are worth a warning, at the least."""

OVERDUE = 5.0
"""Seconds in work after which a frame is taken to hang."""

LONGEST_PERIOD = 12.0
"""Seconds between frames up to which a camera is slow, and not silent."""

LOSS_SPAN = 10.0
"""Seconds over which frames that never came are counted."""

UNKNOWN = 'unknown: the middleware does not number messages'
"""How many frames never came, where nobody can tell."""

LOSS = 0.05
"""Share of the frames that may be lost on the way before that is worth a warning."""


class History:
    """Counts of the last reports, so that rates are of a span that fits the camera."""

    def __init__(self, now: float, counts: Counts) -> None:
        """Begin with these counts, at this time (s)."""
        self._rows: deque[tuple[float, Counts]] = deque([(now, counts)])

    def add(self, now: float, counts: Counts) -> None:
        """Keep the counts of a report."""
        self._rows.append((now, counts))
        while now - self._rows[0][0] > 4 * LONGEST_PERIOD:
            self._rows.popleft()

    def before(self, now: float, span: float) -> tuple[float, Counts]:
        """Return the time and the counts `span` s ago, or what is next to that."""
        # A timer is never quite on time: half a second is no reason to go a whole one back.
        return next((row for row in reversed(self._rows) if now - row[0] > span - 0.5),
                    self._rows[0])


def span(period: float) -> float:
    """Return the seconds that rates of a camera with this period (s) are taken over."""
    return max(1.0, 3 * min(period, LONGEST_PERIOD))


@dataclass(frozen=True)
class Report:
    """
    A second in the life of the node, and what was before it where cameras are slow.

    state: 'unconfigured', 'inactive' or 'active'.  failure: why the last transition failed.
    counts, before: now and `seconds` ago.  numbered: whether it is known what never came.
    lost, sent: frames of the last LOSS_SPAN seconds that never came, and all.  remedy: what is to
    be done about them.  silent: seconds since the last
    image, or since activation.  silence: why.  period: seconds between images.  working: seconds
    that the frame in work has taken so far.  latencies, beside: in ms, per frame answered.
    warnings: what is not as asked.  figures: more key values.
    """

    state: str
    counts: Counts
    before: Counts
    seconds: float
    failure: str = ''
    last_error: str = ''
    enabled: bool = True
    topic: str = ''
    numbered: bool = True
    lost: int = 0
    sent: int = 0
    remedy: str = ''
    silent: float = 0.0
    silence: str = ''
    period: float = 0.0
    working: float = 0.0
    latencies: tuple[float, ...] = ()
    beside: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def since(self) -> Counts:
        """Return the counts of the last `seconds`."""
        before = self.before.dropped_by_cause
        return Counts(
            self.counts.processed - self.before.processed,
            {cause: number - before.get(cause, 0)
             for cause, number in self.counts.dropped_by_cause.items()},
            self.counts.missed - self.before.missed)

    def level(self) -> tuple[bytes, str]:
        """Return the level and its reason: the first rule that holds."""
        since = self.since()
        faulty = sum(number for cause, number in since.dropped_by_cause.items()
                     if cause not in BENIGN_DROPS)
        period = min(self.period, LONGEST_PERIOD)
        why = f': {self.silence}' if self.silence else ''
        if self.failure:
            return DiagnosticStatus.ERROR, self.failure
        if self.state != 'active':
            return DiagnosticStatus.OK, self.state
        if self.working > OVERDUE:
            return DiagnosticStatus.ERROR, f'a frame has been in work for {self.working:.0f} s'
        if faulty:
            return DiagnosticStatus.ERROR, f'{faulty} frames dropped: {self.last_error}'
        if self.silent > max(SILENCE, 5 * period):
            return DiagnosticStatus.STALE, (
                f'no frames on {self.topic} for {self.silent:.0f} s{why}')
        if not self.enabled:
            return DiagnosticStatus.WARN, 'disabled by ~/enable'
        if self.silent > max(PAUSE, 2.5 * period) and not self.working:
            return DiagnosticStatus.WARN, f'no frames on {self.topic}{why}'
        if self.lost > 1 and self.lost > LOSS * self.sent:
            return DiagnosticStatus.WARN, (
                f'{self.lost} of the last {self.sent} frames on {self.topic} never came: '
                f'{self.remedy}')
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
            'frames missed': self.counts.missed if self.numbered else UNKNOWN,
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

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands between the executor and the worker: a slot for the newest frame, and the counts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from threading import Condition
from threading import Lock
from typing import Generic
from typing import TypeVar

T = TypeVar('T')


class Slot(Generic[T]):
    """Holds at most one item, always the newest; one thread puts, another takes."""

    def __init__(self) -> None:
        """Begin empty and open."""
        self._changed = Condition()
        self._item: T | None = None
        self._open = True

    def put(self, item: T) -> T | None:
        """Store the item; return the one that has to go: the older one, or this if closed."""
        with self._changed:
            if not self._open:
                return item
            older, self._item = self._item, item
            self._changed.notify()
        return older

    def take(self) -> T | None:
        """Wait for an item and return it, or None once the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or not self._open)
            item, self._item = (self._item, None) if self._open else (None, self._item)
        return item

    def close(self) -> T | None:
        """End every take() from now on; return the item that nobody took."""
        with self._changed:
            self._open = False
            item, self._item = self._item, None
            self._changed.notify_all()
        return item


class SequenceGaps:
    """Tells how many messages of publishers never arrived, from their sequence numbers."""

    KNOWN = 16
    """How many publishers are told apart: restarts of a camera must not add up."""

    def __init__(self) -> None:
        """Begin without knowing a publisher."""
        self._numbers: dict[object, int] = {}

    def missed(self, publisher: object, number: int | None) -> int:
        """
        Return how many came before this message and after the last one of the same publisher.

        publisher: what tells publishers apart.  number: counted by the publisher, None if the
        middleware does not say. A number that does not grow is a publisher that began again.
        """
        if number is None:
            return 0
        # Taken out and put back, so that the first is the one that was silent for longest.
        last = self._numbers.pop(publisher, 0)
        self._numbers[publisher] = number
        if len(self._numbers) > self.KNOWN:
            del self._numbers[next(iter(self._numbers))]
        return number - last - 1 if 0 < last < number else 0


@dataclass(frozen=True)
class Counts:
    """
    The fate of the frames so far.

    A frame counts as received when its fate is known, so that received = processed + dropped
    holds in every message; the one that waits or is being worked on is in neither.  missed: sent
    by the camera, and never received.
    """

    processed: int = 0
    dropped_by_cause: Mapping[str, int] = field(default_factory=dict)
    missed: int = 0

    @property
    def dropped(self) -> int:
        """Return the number of frames that were not answered."""
        return sum(self.dropped_by_cause.values())

    @property
    def received(self) -> int:
        """Return the number of frames whose fate is known."""
        return self.processed + self.dropped


class FrameCounter:
    """
    Counts from both threads; a snapshot is consistent in itself.

    last_error: the reason of the last drop that had one.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self._lock = Lock()
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._missed = 0
        self.last_error = ''

    def process(self) -> Counts:
        """Count an answered frame; return the counts with it."""
        with self._lock:
            self._processed += 1
            return self._snapshot()

    def drop(self, cause: str, reason: str = '') -> None:
        """Count a frame that is not answered; the reason is for people."""
        with self._lock:
            self._dropped[cause] += 1
            self.last_error = reason or self.last_error

    def miss(self, number: int) -> None:
        """Count frames that were sent and never received."""
        with self._lock:
            self._missed += number

    def counts(self) -> Counts:
        """Return the counts now."""
        with self._lock:
            return self._snapshot()

    def reset(self) -> None:
        """Begin at zero again."""
        with self._lock:
            self._processed = self._missed = 0
            self._dropped.clear()
            self.last_error = ''

    def _snapshot(self) -> Counts:
        return Counts(self._processed, dict(self._dropped), self._missed)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The slot between executor and worker, and the counts of frames."""

from collections import Counter
from threading import Thread

from hypothesis import given
from hypothesis import strategies as st
import pytest

from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.slot import SequenceGaps
from adamtl_ros.nodes.slot import Slot


def test_only_the_newest_is_taken():
    slot = Slot[int]()
    assert [slot.put(item) for item in (1, 2, 3)] == [None, 1, 2]
    assert slot.take() == 3


def test_closing_gives_back_what_waits_and_refuses_more():
    slot = Slot[int]()
    slot.put(1)
    assert slot.close() == 1
    assert slot.take() is None
    assert slot.put(2) == 2
    assert slot.close() is None


def test_closing_ends_a_take_that_waits():
    slot = Slot[int]()
    taken: list[int | None] = []
    taker = Thread(target=lambda: taken.append(slot.take()), daemon=True)
    taker.start()
    slot.close()
    taker.join(10)
    assert taken == [None]


def test_every_item_is_taken_or_given_back():
    slot = Slot[int]()
    taken: list[int] = []

    def take_all():
        while (item := slot.take()) is not None:
            taken.append(item)

    taker = Thread(target=take_all, daemon=True)
    taker.start()
    back = [slot.put(item) for item in range(5000)]
    back.append(slot.close())
    taker.join(10)
    assert sorted([*taken, *(item for item in back if item is not None)]) == list(range(5000))
    assert taken == sorted(taken)


@given(st.lists(st.sampled_from(['', 'step', 'rate', 'replaced'])))
def test_received_is_processed_and_dropped(fates):
    counter = FrameCounter()
    for fate in fates:
        if fate:
            counter.drop(fate)
        else:
            counter.process()
        counts = counter.counts()
        assert counts.received == counts.processed + counts.dropped
    assert counts_by_cause(counter) == Counter(fates)
    counter.reset()
    assert counter.counts().received == 0


def counts_by_cause(counter: FrameCounter) -> Counter:
    """Return how often each fate was counted, '' being processed."""
    counts = counter.counts()
    return Counter(counts.dropped_by_cause) + Counter({'': counts.processed})


def test_counts_do_not_change_afterwards():
    counter = FrameCounter()
    counter.drop('step')
    before = counter.counts()
    counter.drop('step')
    assert (before.dropped, counter.counts().dropped) == (1, 2)


def test_what_never_came_was_not_received():
    counter = FrameCounter()
    counter.miss(3)
    counter.process()
    assert (counter.counts().received, counter.counts().missed) == (1, 3)
    counter.drop('decode', 'no JPEG')
    counter.drop('replaced')
    assert counter.last_error == 'no JPEG'
    counter.reset()
    assert (counter.counts().missed, counter.last_error) == (0, '')


@pytest.mark.parametrize(('seen', 'missed'), [
    ([('a', 5), ('a', 6), ('a', 7)], [0, 0, 0]),
    ([('a', 5), ('a', 8), ('a', 10)], [0, 2, 1]),
    ([('a', 5), ('a', 1), ('a', 3)], [0, 0, 1]),
    ([('a', 5), ('b', 9), ('b', 11)], [0, 0, 1]),
    ([('a', 5), ('b', 9), ('a', 8), ('b', 10)], [0, 0, 2, 0]),
    ([('a', 5), *((number, 1) for number in range(16)), ('a', 8)], [0] * 18),
    ([(None, None), (None, None)], [0, 0]),
])
def test_gaps_in_the_sequence_numbers(seen, missed):
    gaps = SequenceGaps()
    assert [gaps.missed(*each) for each in seen] == missed

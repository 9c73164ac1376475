# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a frame, for the node and for bags alike."""

import math

import pytest

from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.images import age_ms
from adamtl_ros.runtime.images import stats_fields

NOW = 1_800_000_000 * 10**9


@pytest.mark.parametrize(('stamp', 'age'), [
    (NOW, 0.0), (NOW - 10**6, 1.0), (NOW - 60 * 10**9, 60_000.0),
    (0, math.nan), (1, math.nan), (NOW + 1, math.nan), (NOW - 61 * 10**9, math.nan)])
def test_age_is_known_where_stamp_and_clock_are_of_one_time(stamp, age):
    assert age_ms(stamp, NOW) == pytest.approx(age, nan_ok=True)


def test_no_stamp_is_no_age_though_the_clock_begins_at_zero():
    assert math.isnan(age_ms(0, 10**9))
    assert age_ms(10**9, 2 * 10**9) == 1000.0


def test_each_task_has_its_figures_under_its_name():
    stats = GatingResult(
        'shadow', 0.6, 0.5, 0.3, 0.6, ('semseg', 'human_parts'), (0.5, 0.25), (True, False),
        (1.0, 0.0), 0.75, {'semseg': 0.5, 'human_parts': 1.0}, tasks_empty=('human_parts',),
        size=(192, 160))
    fields = stats_fields(stats)
    assert fields['task_stats'] == [
        {'name': 'semseg', 'token_fraction': 0.5, 'agreement': 0.5, 'empty': False},
        {'name': 'human_parts', 'token_fraction': 0.25, 'agreement': 1.0, 'empty': True}]
    assert (fields['agreement'], fields['block_active']) == (0.75, [True, False])
    assert (fields['input_width'], fields['input_height']) == (192, 160)


def test_what_was_not_compared_is_not_known():
    stats = GatingResult('shadow', 0.6, math.nan, math.nan, 0.6, ('depth',))
    (task,) = stats_fields(stats)['task_stats']
    assert task['name'] == 'depth' and not task['empty']
    assert math.isnan(task['agreement']) and math.isnan(task['token_fraction'])


def test_fields_are_those_of_the_messages():
    """All but header, times beside and counts, of which the node alone knows."""
    messages = pytest.importorskip('adamtl_ros.msg')
    fields = stats_fields(GatingResult('static', 1.0, 1.0, 0.6, 0.6, ('depth',), (1.0,)))
    own = {'header', 'guard', 'age_ms', 'latency_ms', 'frames_received', 'frames_processed',
           'frames_dropped', 'frames_missed'}
    assert fields.keys() | own == messages.GatingStats.get_fields_and_field_types().keys()
    assert fields['task_stats'][0].keys() == (
        messages.TaskStats.get_fields_and_field_types().keys())

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which frames are compared, and what the guard makes of it."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
import pytest

from adamtl_ros.nodes.rollout import BudgetPlan
from adamtl_ros.nodes.rollout import Comparing
from adamtl_ros.nodes.rollout import Rollout
from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.settings import Settings

ASKED = Settings(mode='adaptive', budget=0.5, tasks=('semseg', 'depth'))
GUARD = Comparing(share=1.0, action='raise_budget', agreement=0.8, window=3)


def stats(settings: Settings, agreement: Mapping[str, float]) -> GatingResult:
    """Return what a frame with these settings would report."""
    return GatingResult(
        settings.mode, settings.budget, settings.budget - 0.1, 0.0, 1.0, settings.tasks,
        task_agreement=dict(agreement))


@given(share=st.floats(0.001, 1.0), frames=st.integers(1, 3000))
def test_the_share_of_frames_is_compared_from_the_first_on(share, frames):
    rollout = Rollout()
    compared = [
        bool(rollout.settings(replace(ASKED, mode='shadow'), Comparing(share)).compare)
        for _ in range(frames)]
    assert compared[0]
    assert sum(compared) == pytest.approx(frames * share, abs=1.001)


@pytest.mark.parametrize('every', [1, 2, 3, 7, 10, 30])
def test_every_nth_frame_is_compared(every):
    rollout = Rollout()
    compared = [
        rollout.settings(replace(ASKED, mode='shadow'), Comparing(1 / every)).compare
        for _ in range(10 * every)]
    assert [number for number, each in enumerate(compared) if each] == list(
        range(0, 10 * every, every))


@pytest.mark.parametrize(('action', 'then'), [
    ('raise_budget', 'raised_budget'), ('static', 'static')])
def test_the_state_of_the_guard(action, then):
    rollout, guard = Rollout(), replace(GUARD, action=action)
    assert rollout.guard('adaptive', replace(GUARD, action='off')) == 'off'
    assert rollout.guard('shadow', guard) == rollout.guard('static', guard) == 'off'
    for _ in range(guard.window):
        assert rollout.guard('adaptive', guard) == 'watching'
        rollout.note(stats(ASKED, {'depth': 0.5}), guard)
    assert rollout.guard('adaptive', guard) == then


def test_nothing_is_compared_that_need_not_be():
    rollout = Rollout()
    for asked, comparing in [
            (ASKED, Comparing(1.0)),  # no guard
            (ASKED, replace(GUARD, share=0.0)),
            (replace(ASKED, mode='shadow'), Comparing(0.0)),
            (replace(ASKED, mode='static'), GUARD),
            (replace(ASKED, tasks=()), GUARD)]:
        assert not rollout.settings(asked, comparing).compare


def test_figures_are_averaged_over_the_window_and_the_tasks_that_run():
    rollout = Rollout()
    shadow = replace(ASKED, mode='shadow')
    for value in (0.0, 0.4, 0.5, 0.6):
        assert not rollout.note(stats(shadow, {'semseg': value, 'depth': 1.0}), GUARD)
    assert rollout.agreement == pytest.approx({'semseg': 0.5, 'depth': 1.0})
    assert rollout.saving == pytest.approx(0.6)
    rollout.note(stats(shadow, {}), GUARD)  # a frame that was not compared
    assert rollout.agreement['semseg'] == pytest.approx(0.5)
    rollout.note(stats(shadow, {'depth': 1.0}), GUARD)
    assert set(rollout.agreement) == {'depth'}


def test_the_guard_raises_the_budget_until_the_worst_task_agrees():
    rollout = Rollout()
    budgets, acted = [], []
    for _ in range(30):
        settings = replace(
            rollout.settings(ASKED, GUARD), budget=rollout.plan(ASKED, 0.3).applied)
        budgets.append(settings.budget)
        acted.append(rollout.note(
            stats(settings, {'semseg': 1.0, 'depth': settings.budget + 0.101}), GUARD))
    assert budgets == pytest.approx([0.5] * 3 + [0.6] * 3 + [0.7] * 24)
    assert [number for number, each in enumerate(acted) if each] == [2, 5]
    assert acted[5] == rollout.action == (
        'budget raised to 0.7: agreement of depth is 0.701, below 0.8')
    # The battery's lower budget does not undo it, a higher one counts.
    assert rollout.plan(replace(ASKED, budget=0.3), 0.2) == BudgetPlan(0.7, 0.7, 0.7, 'guard')
    assert rollout.plan(replace(ASKED, budget=0.9), 0.2) == BudgetPlan(0.7, 0.9, 0.9, 'parameter')
    assert rollout.plan(replace(ASKED, mode='shadow'), 0.2) == (
        BudgetPlan(0.2, 0.5, 0.5, 'parameter'))


@pytest.mark.parametrize(('action', 'after'), [('static', 3), ('raise_budget', 18)])
def test_the_guard_returns_to_static(action, after):
    rollout = Rollout()
    guard = replace(GUARD, action=action)
    modes = []
    for _ in range(30):
        settings = replace(
            rollout.settings(ASKED, guard), budget=rollout.plan(ASKED, 0.3).applied)
        modes.append(settings.mode)
        rollout.note(stats(settings, {} if settings.mode == 'static' else {'depth': 0.1}), guard)
    assert modes == ['adaptive'] * after + ['static'] * (30 - after)
    assert rollout.action.startswith('returned to mode static')


def test_a_guard_that_is_off_does_nothing():
    rollout = Rollout()
    off = replace(GUARD, action='off')
    for _ in range(10):
        assert not rollout.note(stats(ASKED, {'depth': 0.0}), off)
    assert rollout.settings(ASKED, off) == replace(ASKED, compare=False)

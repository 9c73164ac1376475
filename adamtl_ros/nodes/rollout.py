# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparing the policy with the dense network on some frames, and the guard that acts on it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
import math

from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.settings import ADAPTIVE
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.settings import SHADOW
from adamtl_ros.runtime.settings import STATIC

GUARD_ACTIONS = ('off', 'raise_budget', 'static')
OFF, WATCHING, RAISED_BUDGET, FELL_BACK = GUARDS = 'off', 'watching', 'raised_budget', 'static'
"""The states of the guard; in the last it has returned to mode static."""

BUDGET_STEP = 0.1
"""How much the guard raises the budget at a time."""


@dataclass(frozen=True)
class Comparing:
    """
    Which frames are compared, and what follows.

    share: of the frames that run both paths, in [0, 1].  action: what the guard does in mode
    adaptive, one of GUARD_ACTIONS.  agreement: the least it accepts of any task, in [0, 1].
    window: number of compared frames that figures are averaged over.
    """

    share: float = 0.1
    action: str = 'off'
    agreement: float = 0.8
    window: int = 10


@dataclass(frozen=True)
class BudgetPlan:
    """
    What frames may cost on average, in shares of the dense MACs.

    floor, ceiling: between which the latency controller may choose.  applied: what holds for the
    next frame.  why: who chose it, for people.
    """

    floor: float
    ceiling: float
    applied: float
    why: str


class Rollout:
    """
    What comparing has shown since the mode was chosen, and what the guard did about it.

    agreement: per task that runs, mean over the window.  saving: mean share of the MACs that the
    policy saves, NaN before it is known.  action: what the guard has done, empty if nothing.
    least: the budget it raised to, 0 if it did not.  Both stay so until a new Rollout begins.
    achieved: cost of the last frame of which it is known, NaN before.
    One thread calls settings and note; any may read these, and ask for guard and plan.
    """

    def __init__(self) -> None:
        """Begin with a frame that is compared."""
        self.agreement: Mapping[str, float] = {}
        self.saving = math.nan
        self.action = ''
        self.least = 0.0
        self.achieved = math.nan
        self._static = False
        self._due = 1.0
        self._agreements: dict[str, deque[float]] = {}
        self._costs: deque[float] = deque()

    def guard(self, mode: str, comparing: Comparing) -> str:
        """Return the state of the guard, one of GUARDS, where that mode is asked for."""
        if mode != ADAPTIVE or comparing.action == 'off':
            return OFF
        return FELL_BACK if self._static else RAISED_BUDGET if self.least else WATCHING

    def settings(self, asked: Settings, comparing: Comparing) -> Settings:
        """Return the settings of the next frame: the guard's mode, and whether both paths run."""
        if asked.mode == ADAPTIVE and self._static:
            return replace(asked, mode=STATIC)
        if asked.mode == STATIC or not asked.tasks:
            return asked
        compare = False
        if asked.mode == SHADOW or comparing.action != 'off':
            # Every n-th frame for a share of 1 / n, and as even as can be for others.
            compare = comparing.share > 0.0 and self._due >= 1.0 - 1e-9
            self._due += comparing.share - compare
        return replace(asked, compare=compare)

    def plan(self, settings: Settings, floor: float) -> BudgetPlan:
        """Return what the guard makes of the budget asked for and the lowest one to choose."""
        asked, least = settings.budget or 1.0, self.least if settings.mode == ADAPTIVE else 0.0
        budget = max(asked, least)
        return BudgetPlan(min(max(floor, least), budget), budget, budget,
                          'guard' if budget > asked else 'parameter')

    def note(self, stats: GatingResult, comparing: Comparing) -> str:
        """Take in what a frame showed; return what the guard does about it, mostly nothing."""
        # Unknown of frames of mode shadow that are not compared: what is known stands.
        if (stats.mode == SHADOW or stats.tasks) and not math.isnan(stats.budget_achieved):
            self.achieved = stats.budget_achieved
        if not stats.task_agreement:
            return ''
        self._costs = deque([*self._costs, stats.budget_achieved], comparing.window)
        self.saving = 1.0 - sum(self._costs) / len(self._costs)
        # A task that no longer runs has nothing to say.
        self._agreements = {
            task: deque([*self._agreements.get(task, ()), value], comparing.window)
            for task, value in stats.task_agreement.items()}
        self.agreement = {
            task: sum(values) / len(values) for task, values in self._agreements.items()}
        full = [task for task, values in self._agreements.items()
                if len(values) == comparing.window]
        if stats.mode != ADAPTIVE or comparing.action == 'off' or not full:
            return ''
        worst = min(full, key=self.agreement.__getitem__)
        if self.agreement[worst] >= comparing.agreement:
            return ''
        reason = (f'agreement of {worst} is {self.agreement[worst]:.3f}, below '
                  f'{comparing.agreement:g}')
        if comparing.action == 'raise_budget' and stats.budget_requested < 1.0:
            self.least = min(round(stats.budget_requested + BUDGET_STEP, 6), 1.0)
            self.action = f'budget raised to {self.least:.3g}: {reason}'
        else:
            self._static = True
            self.action = f'returned to mode static: {reason}'
        # What was seen so far says nothing about the new budget.
        self._agreements.clear()
        self._costs.clear()
        return self.action

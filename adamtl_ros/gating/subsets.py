# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The policy of networks whose blocks run whole or not at all: which set of blocks a frame gets.

It predicts, from a look at the frame, how much each task's loss rises when blocks are left out:

    rise(C) = sum over tasks t of w_t (sum of d_tb(x) over b in C + sum of q_tbc over b < c in C)

with C the closed gates, d what leaving out a block costs in this frame, q what leaving out two
costs beyond that, the same for all frames, and w the weight of the task.  There are so few blocks
that every set is looked at: the one with the least rise + price x cost runs, of those within the
limit.  With one price for all frames of a stream a frame that gains more is given more; with
price 0 each frame gets the best that its limit allows.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools

import numpy as np

from adamtl_ros.network.lite import COARSE
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost

BUDGETS = np.linspace(0.3, 1.0, 29)
"""The mean budgets for which the weights hold a price."""

NEAR = 0.03
"""Share of the dense cost by which sets drawn at random stay below their limit at most."""

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Choice:
    """
    The gates of a frame.

    gates: bool, of config.gated.  wishes: by task, the share of the gated cost that it would
    choose if it were alone.  rise: the predicted rise of the loss, relative to the dense network.
    """

    gates: np.ndarray
    wishes: tuple[float, ...]
    rise: float


def softplus(x: np.ndarray) -> np.ndarray:
    """Return ln(1 + e^x)."""
    return np.logaddexp(0, x)


class _Sets:
    """All sets of late gates, by ascending cost; all with some of the early ones beside them."""

    def __init__(self, config: LiteConfig) -> None:
        gated, early = config.gated, config.early
        macs = np.array([block.macs for block in gated], dtype=np.float64)
        late = len(gated) - early
        numbers = np.arange(1 << late)[:, None]
        opened = (numbers >> np.arange(late)) & 1 == 1
        names = [block.name for block in gated[early:]]
        if COARSE in names:
            # Without the level at stride 32 none of its blocks runs.
            level = names.index(COARSE)
            inside = [i for i, block in enumerate(gated[early:])
                      if block.stage >= config.coarse and i != level]
            opened = opened[opened[:, level] | ~opened[:, inside].any(1)]
        cost = opened @ macs[early:]
        order = np.argsort(cost, kind='stable')
        self.late = opened[order]
        self.late_cost = cost[order]
        self.late_closed = np.ascontiguousarray((~self.late).astype(np.float32))
        self.early = (np.arange(1 << early)[:, None] >> np.arange(early)) & 1 == 1
        self.early_cost = self.early @ macs[:early]


class BlockPolicy:
    """
    Chooses the gates of frames for one set of tasks and weights.

    weights: the policy's arrays by name (`policy.mean` and so on).  heed: how much each task
    counts, 1 unless given.
    """

    def __init__(
            self, config: LiteConfig, cost: LiteCost, weights: Weights, tasks: Sequence[str],
            heed: Mapping[str, float]) -> None:
        rows = [config.tasks.index(task) for task in tasks]
        self._early, self._sets = config.early, _sets(config)
        self._dense, self._fixed = cost.dense(tasks), cost.fixed(tasks)
        self._heed = np.array([heed.get(task, 1.0) for task in tasks], dtype=np.float32)
        if not self._heed.any():
            self._heed[:] = 1.0
        self._heed /= self._heed.sum()
        self._mean, self._scale = weights['policy.mean'], weights['policy.scale']
        self._first = weights['policy.first.weight'], weights['policy.first.bias']
        late = len(config.gated) - config.early
        second = weights['policy.second.weight'].reshape(len(config.tasks), late, -1)[rows]
        self._second = np.ascontiguousarray(second.reshape(len(rows) * late, -1))
        self._bias = weights['policy.bias'][rows]
        self._typical = self._heed @ weights['policy.typical'][rows]
        pairs = np.triu(np.tensordot(self._heed, weights['policy.pairs'][rows], 1), 1)
        sets = self._sets
        early_closed = (~sets.early).astype(np.float32)
        within = [((closed @ part) * closed).sum(1) for closed, part in (
            (early_closed, pairs[:self._early, :self._early]),
            (sets.late_closed, pairs[self._early:, self._early:]))]
        # Of every early set, a row: what its pairs with and among the late ones add.
        self._pairs = (early_closed @ pairs[:self._early, self._early:]) @ sets.late_closed.T
        self._pairs += within[0][:, None] + within[1]
        self._prior = early_closed @ self._typical[:self._early]
        typical = self._pairs + self._prior[:, None] + (
            sets.late_closed @ self._typical[self._early:])
        self._joint = typical
        self._joint_cost = sets.early_cost[:, None] + sets.late_cost
        self._prices = weights['policy.prices']
        self._kept: dict[tuple[float, float], int] = {}

    def price(self, budget: float) -> float:
        """Return the price, in rise a share of the dense cost, that gave this mean in training."""
        return float(np.interp(budget, BUDGETS, self._prices))

    def begin(self, limit: float, price: float = 0.0) -> int:
        """
        Choose the early gates, from what frames are like in general: the number of their set.

        limit: the most that the frame may cost, as a share of the dense network.
        """
        key = limit, price
        if key not in self._kept:
            if len(self._kept) > 64:
                self._kept.clear()
            worth = self._joint + (price / self._dense) * self._joint_cost
            worth = np.where(
                self._joint_cost <= self._rest(limit), worth, np.inf)
            best = int(worth.argmin())
            self._kept[key] = best // worth.shape[1] if np.isfinite(worth.flat[best]) else 0
        return self._kept[key]

    def fixed(self, limit: float) -> np.ndarray:
        """Return the gates, bool, that are best within a limit for frames in general."""
        worth = np.where(self._joint_cost <= self._rest(limit), self._joint, np.inf)
        return self._gates(int(worth.argmin()))

    def random(self, limit: float, seed: int) -> np.ndarray:
        """Return the gates, bool, of a set drawn from those that nearly use up a limit."""
        rest = self._rest(limit)
        fit = self._joint_cost <= rest
        near = np.flatnonzero(fit & (self._joint_cost > rest - NEAR * self._dense))
        # Where the limit is below all of them the least set is all that there is.
        drawn = near if len(near) else np.flatnonzero(fit)
        return self._gates(
            int(np.random.default_rng(seed).choice(drawn)) if len(drawn) else 0)

    def _gates(self, place: int) -> np.ndarray:
        early, late = divmod(place, self._joint_cost.shape[1])
        return np.concatenate((self._sets.early[early], self._sets.late[late]))

    def early(self, number: int) -> np.ndarray:
        """Return the early gates of a set, bool."""
        return self._sets.early[number]

    def finish(
            self, number: int, features: np.ndarray, limit: float, price: float = 0.0,
            fresh: np.ndarray | None = None) -> Choice:
        """
        Choose the late gates of a frame whose early set is `number`.

        features: what the network saw of it.  fresh: by late gate, what part of the rise
        remains where a gate is closed, 1 unless given.
        """
        rises = self.rises(features)
        if fresh is not None:
            rises = rises * fresh
        sets = self._sets
        count = int(np.searchsorted(
            sets.late_cost, self._rest(limit) - sets.early_cost[number] + 0.5))
        count = max(count, 1)
        tolls = (price / self._dense) * sets.late_cost[:count]
        each = sets.late_closed[:count] @ rises.T
        joint = each @ self._heed + self._pairs[number, :count]
        best = int((joint + tolls).argmin())
        wishes = (each + self._pairs[number, :count, None] + tolls[:, None]).argmin(0)
        most = sets.late_cost[-1]
        return Choice(
            np.concatenate((sets.early[number], sets.late[best])),
            tuple((sets.late_cost[wishes] / most).tolist()),
            float(joint[best] + self._prior[number]))

    def rises(self, features: np.ndarray) -> np.ndarray:
        """Return (tasks, late gates), how much each task's loss rises where a gate is closed."""
        seen = (features - self._mean) * self._scale
        hidden = np.maximum(self._first[0] @ seen + self._first[1], 0)
        late = self._bias[:, self._early:]
        return softplus((self._second @ hidden).reshape(late.shape) + late)

    def _rest(self, limit: float) -> float:
        # What the policy itself costs, some millionths, is granted: at 1 all gates may open.
        return limit * self._dense - self._fixed


@functools.lru_cache(maxsize=8)
def _sets_of(
        stem: int, stages: tuple, decision: int, coarse: int, size: tuple[int, int]) -> _Sets:
    return _Sets(LiteConfig(
        'sets', size, stem=stem, stages=stages, decision=decision, coarse=coarse))


def _sets(config: LiteConfig) -> _Sets:
    return _sets_of(
        config.stem, config.stages, config.decision, config.coarse, config.input_size)

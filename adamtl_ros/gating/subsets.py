# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The policy of networks whose blocks run whole or not at all: which set of blocks a frame gets.

It predicts, from a look at the frame, how much each task's loss rises when blocks are left out:

    rise(C) = sum over tasks t of w_t (sum of d_tb(x) over b in C + sum of q_tbc over b < c in C)

with C the closed gates, d what leaving out a block costs in this frame, q what leaving out two
costs beyond that, the same for all frames, and w the weight of the task; at a smaller size of the
input the rise is s_t more.  There are so few blocks that every set is looked at: the one with the
least rise + price x cost runs, of those within the limit.  With one price for all frames of a
stream a frame that gains more is given more; with price 0 each frame gets the best that its limit
allows.  Size and early gates have to be chosen before the frame is seen, so that they follow from
what frames are like in general.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools

import numpy as np

from adamtl_ros.network.lite import COARSE
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost

BUDGETS = np.linspace(0.1, 1.0, 37)
"""The mean budgets for which the weights hold a price."""

NEAR = 0.03
"""Share of the dense cost by which sets drawn at random stay below their limit at most."""

GRANTED = 1e-7
"""What a limit may be exceeded by, of the dense cost: rounding, and not the policy's own cost."""

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Start:
    """
    What is chosen before a frame is seen.

    place: number of the size, of config.sizes.  size: it, (height, width).  early: number of the
    set of early gates.
    """

    place: int
    size: tuple[int, int]
    early: int


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


class _Front:
    """
    Of all choices those that nothing cheaper is as good as: the best is one of them, always.

    cost, rise: of every choice, arrays of one shape, whose indices name it.
    """

    def __init__(self, cost: np.ndarray, rise: np.ndarray) -> None:
        order = np.lexsort((rise.ravel(), cost.ravel()))
        ranked = rise.ravel()[order]
        order = order[np.r_[True, ranked[1:] < np.minimum.accumulate(ranked)[:-1]]]
        self._cost, self._rise = cost.ravel()[order], rise.ravel()[order]
        self._choices = np.stack(np.unravel_index(order, rise.shape), 1).tolist()

    def best(self, limit: float, price: float = 0.0) -> list[int]:
        """Return the best within a limit at a price, or the least where all are above it."""
        count = max(int(np.searchsorted(self._cost, limit + GRANTED, 'right')), 1)
        return self._choices[int((self._rise[:count] + price * self._cost[:count]).argmin())]


class BlockPolicy:
    """
    Chooses size and gates of frames for one set of tasks and weights.

    config, cost: of the frames' own size, whose dense cost limits are shares of.  weights: the
    policy's arrays by name (`policy.mean` and so on).  heed: how much each task counts, 1 unless
    given.
    """

    def __init__(
            self, config: LiteConfig, cost: LiteCost, weights: Weights, tasks: Sequence[str],
            heed: Mapping[str, float]) -> None:
        rows = [config.tasks.index(task) for task in tasks]
        self._early, self._sets, self._sizes = config.early, _sets(config), config.sizes
        self._dense = cost.dense(tasks)
        # All of the encoder's blocks cost in proportion to the area.
        area = config.input_size[0] * config.input_size[1]
        self._areas = np.array([size[0] * size[1] / area for size in self._sizes])
        self._fixed = np.array([LiteCost(config.at(size)).fixed(tasks) for size in self._sizes])
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
        self._smaller = np.zeros(len(self._sizes))
        if config.reduced:
            self._smaller[1:] = self._heed @ weights['policy.smaller'][rows]
        typical = self._heed @ weights['policy.typical'][rows]
        pairs = np.triu(np.tensordot(self._heed, weights['policy.pairs'][rows], 1), 1)
        sets = self._sets
        early_closed = (~sets.early).astype(np.float32)
        within = [((closed @ part) * closed).sum(1) for closed, part in (
            (early_closed, pairs[:self._early, :self._early]),
            (sets.late_closed, pairs[self._early:, self._early:]))]
        # Of every early set, a row: what its pairs with and among the late ones add.
        self._pairs = (early_closed @ pairs[:self._early, self._early:]) @ sets.late_closed.T
        self._pairs += within[0][:, None] + within[1]
        self._prior = early_closed @ typical[:self._early]
        joint = self._pairs + self._prior[:, None] + sets.late_closed @ typical[self._early:]
        spent = sets.early_cost[:, None] + sets.late_cost
        # By place, early and late set: what it costs, a share, and how much the errors rise.
        self._cost = (
            self._fixed[:, None, None] + self._areas[:, None, None] * spent) / self._dense
        self._most = self._cost.max((1, 2))
        self._rise = self._smaller[:, None, None] + joint
        self._front = _Front(self._cost, self._rise)
        self._fronts = [_Front(*parts) for parts in zip(self._cost, self._rise)]
        self._prices = weights['policy.prices']

    def price(self, target: float, mean: float) -> float:
        """
        Return the price, in rise a share of the dense cost, that gave a mean cost in training.

        target: that mean.  mean: the one that the size of the frames is chosen for.  Where it pays
        for every gate the price is 0, at which nothing has to be decided.
        """
        place = self._place(mean)
        if self._most[place] <= target + GRANTED:
            return 0.0
        return float(np.interp(target, BUDGETS, self._prices[place]))

    def begin(self, limit: float, price: float = 0.0, mean: float | None = None) -> Start:
        """
        Choose size and early gates, from what frames are like in general.

        limit: the most that the frame may cost, as a share of the dense network.  mean: what
        frames cost on average, which their size is best for, so that it stays the same; None: the
        limit.
        """
        return self.start(
            self._place(limit if mean is None else min(mean, limit)), limit, price)

    def start(self, place: int, limit: float, price: float = 0.0) -> Start:
        """Return the best start at a size, by its number."""
        early, _ = self._fronts[place].best(limit, price)
        return Start(place, self._sizes[place], early)

    def _place(self, mean: float) -> int:
        return self._front.best(mean)[0]

    def fixed(self, limit: float) -> tuple[tuple[int, int], np.ndarray]:
        """Return size and gates, bool, that are best within a limit for frames in general."""
        return self._of(*self._front.best(limit))

    def expected(self, limit: float) -> tuple[float, float]:
        """Return what the best within a limit costs, and how much the errors rise under it."""
        choice = self._front.best(limit)
        return float(self._cost[tuple(choice)]), float(self._rise[tuple(choice)])

    def random(self, limit: float, seed: int) -> tuple[tuple[int, int], np.ndarray]:
        """Return size and gates, bool, drawn from what nearly uses up a limit."""
        fit = self._cost <= limit + GRANTED
        near = np.flatnonzero(fit & (self._cost > limit - NEAR))
        # Where the limit is below all of them the least set is all that there is.
        drawn = near if len(near) else np.flatnonzero(fit)
        if not len(drawn):
            return self.fixed(limit)
        chosen = int(np.random.default_rng(seed).choice(drawn))
        return self._of(*map(int, np.unravel_index(chosen, self._cost.shape)))

    def _of(self, place: int, early: int, late: int) -> tuple[tuple[int, int], np.ndarray]:
        return self._sizes[place], np.concatenate((self._sets.early[early], self._sets.late[late]))

    def early(self, start: Start) -> np.ndarray:
        """Return the early gates of a start, bool."""
        return self._sets.early[start.early]

    def finish(
            self, start: Start, features: np.ndarray, limit: float, price: float = 0.0) -> Choice:
        """
        Choose the late gates of a frame that began so.

        features: what the network saw of it.
        """
        choice = self.foregone(start, limit, price)
        if choice is not None:
            return choice
        rises, sets, number = self.rises(features), self._sets, start.early
        # Of the blocks, in MACs at the full size.
        rest = ((limit + GRANTED) * self._dense - self._fixed[start.place]) / (
            self._areas[start.place])
        count = int(np.searchsorted(sets.late_cost, rest - sets.early_cost[number], 'right'))
        count = max(count, 1)
        tolls = (price * self._areas[start.place] / self._dense) * sets.late_cost[:count]
        each = sets.late_closed[:count] @ rises.T
        joint = each @ self._heed + self._pairs[number, :count]
        best = int((joint + tolls).argmin())
        wishes = (each + self._pairs[number, :count, None] + tolls[:, None]).argmin(0)
        most = sets.late_cost[-1]
        return Choice(
            np.concatenate((sets.early[number], sets.late[best])),
            tuple((sets.late_cost[wishes] / most).tolist()),
            float(joint[best] + self._prior[number] + self._smaller[start.place]))

    def foregone(self, start: Start, limit: float, price: float = 0.0) -> Choice | None:
        """Return the choice where every gate may open and costs nothing, whatever the frame is."""
        if price > 0 or self._most[start.place] > limit + GRANTED:
            return None
        gates = np.ones(self._early + self._sets.late.shape[1], dtype=bool)
        return Choice(gates, (1.0,) * len(self._heed), float(self._smaller[start.place]))

    def rises(self, features: np.ndarray) -> np.ndarray:
        """Return (tasks, late gates), how much each task's loss rises where a gate is closed."""
        seen = (features - self._mean) * self._scale
        hidden = np.maximum(self._first[0] @ seen + self._first[1], 0)
        late = self._bias[:, self._early:]
        return softplus((self._second @ hidden).reshape(late.shape) + late)


@functools.lru_cache(maxsize=8)
def _sets_of(
        stem: int, stages: tuple, decision: int, coarse: int, size: tuple[int, int]) -> _Sets:
    return _Sets(LiteConfig(
        'sets', size, stem=stem, stages=stages, decision=decision, coarse=coarse))


def _sets(config: LiteConfig) -> _Sets:
    return _sets_of(
        config.stem, config.stages, config.decision, config.coarse, config.input_size)

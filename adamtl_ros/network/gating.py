# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
From the policy's logits to gates that keep a budget.

A gate opens where its logit is positive.  That choice stands as long as the frame's cost can end
within the requested budget; where it cannot, the gates are taken in the order of their logits
until the allowance is used up.  So the result depends on nothing but frame and settings, any
network keeps any budget, and a policy that was trained for its budget decides by itself.

Under a budget open blocks run whole, but for one that what remains pays in part: a few whole
blocks take less time than the same MACs in parts of many, whose weights and activations are
fetched for a few tokens as for all, and, with the same weights, are the more accurate.  It lies
in the last stage but one, where that can be: in the last there are few tokens and many weights.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
import math

import numpy as np

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import BlockCost
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.trace import Trace
from adamtl_ros.network.windows import cell_of_token
from adamtl_ros.network.windows import window_tokens

FREEDOM = 0.7
"""How far one stage may depart from the share that remains for all (share of its cost)."""

SLACK = 0.13
"""A block that lacks no more than this share of its cost runs whole."""

LEAST_PART = 0.25
"""No block is opened for less than this share of its cost: that would take twice as long a MAC."""


@dataclass
class Choice:
    """
    The gate of one block.

    cells: the numbers of those that run.  windows: those that they lie in, and slots: of each
    cell, which of these; both empty where attention is not skipped, and where all cells run.
    gate: bool (cells).  cost: in MACs.  threshold: what a logit had to exceed.
    """

    cells: Sequence[int] | np.ndarray
    windows: Sequence[int]
    slots: Sequence[int]
    gate: np.ndarray
    cost: int
    threshold: float

    @property
    def whole(self) -> bool:
        """Return whether all cells run."""
        return len(self.cells) == len(self.gate)

    @property
    def partial(self) -> bool:
        """Return whether some cells run, but not all."""
        return 0 < len(self.cells) < len(self.gate)


class BlockGeometry:
    """
    How many cells of how many tokens a block has, and the window of each.

    window_of: None where attention is not skipped.
    """

    def __init__(
            self, cost: BlockCost, cells: int, cell_tokens: int, window_of: list[int] | None
    ) -> None:
        self.cost = cost
        self.cells = cells
        self.cell_tokens = cell_tokens
        self.window_of = window_of
        self.closed = Choice((), (), (), np.zeros(cells, dtype=bool), 0, math.inf)
        self.whole = Choice(
            range(cells), (), (), np.ones(cells, dtype=bool), cost.dense, -math.inf)
        for shared in (self.closed, self.whole):
            shared.gate.setflags(write=False)

    def choose(self, scores: np.ndarray, allowed: float | None) -> Choice:
        """
        Open the best cells, as many as come nearest to the MACs allowed.

        scores: of each cell.  allowed: inf opens all, None those whose score is positive.
        """
        if allowed == math.inf:
            return self.whole
        if self.window_of is None:
            return self._choose_cells(scores, allowed)
        # Plain Python: after a run of the network nothing of NumPy is left in the caches, and a
        # dozen of its functions take longer than this.
        values, window_of = scores.tolist(), self.window_of
        order = sorted(range(self.cells), key=values.__getitem__, reverse=True)
        windows: list[int] = []
        slots: list[int] = []
        slot_of: dict[int, int] = {}
        opened = bytearray(self.cells)
        token, window = self.cell_tokens * self.cost.token, self.cost.window
        cost = 0
        for cell in order:
            place = window_of[cell]
            new = place not in slot_of
            after = cost + token + (window if new else 0)
            if allowed is None:
                if values[cell] <= 0:
                    break
            elif allowed - cost <= after - allowed:
                break
            if new:
                slot_of[place] = len(windows)
                windows.append(place)
            slots.append(slot_of[place])
            opened[cell] = 1
            cost = after
        count = len(slots)
        threshold = _threshold(
            values[order[count - 1]] if count else math.inf,
            values[order[count]] if count < self.cells else -math.inf)
        return Choice(
            order[:count], windows, slots, np.frombuffer(opened, dtype=bool), cost, threshold)

    def _choose_cells(self, scores: np.ndarray, allowed: float | None) -> Choice:
        """Choose where the number of cells alone determines the cost; there may be thousands."""
        token = self.cell_tokens * self.cost.token
        attention = self.cost.windows * self.cost.window

        def cost(count: int) -> int:
            return attention + count * token if count else 0

        if allowed is None:
            count = int((scores > 0).sum())
        else:
            fits = min(max(int((allowed - attention) // token), 1), self.cells)
            count = min(
                (0, fits, min(fits + 1, self.cells)), key=lambda n: abs(cost(n) - allowed))
        if count == 0:
            return replace(self.closed, threshold=_threshold(math.inf, float(scores.max())))
        if count == self.cells:
            return replace(self.whole, threshold=_threshold(float(scores.min()), -math.inf))
        least = np.partition(scores, self.cells - count)[self.cells - count]
        gate = scores > least
        # Of equal ones the first.
        gate[np.flatnonzero(scores == least)[:count - int(gate.sum())]] = True
        return Choice(
            np.flatnonzero(gate), (), (), gate, cost(count),
            _threshold(float(least), float(scores[~gate].max())))


def _threshold(least: float, most: float) -> float:
    """
    Return what every logit that opened exceeds, and no other does: 0 where that does it.

    least: of those that opened, inf if none did.  most: of the others, -inf if there are none.
    """
    if most <= 0 < least:
        return 0.0
    if math.isinf(least) or math.isinf(most):
        return most
    return (least + most) / 2


class Allowance:
    """
    What a frame may still spend on its blocks, as the stages are walked through in order.

    budget: share of the dense cost of `tasks`; None is whatever the policy asks for.  spread: how
    far this frame may leave it.
    """

    def __init__(
            self, model: CostModel, tasks: tuple[str, ...], budget: float | None, spread: float
    ) -> None:
        self.model = model
        self.dense = model.dense(tasks)
        self.controllers = model.controllers(tasks)
        fixed = model.minimum(tasks)
        self.low, self.high = -math.inf, math.inf
        if budget is not None:
            self.low = (budget - spread) * self.dense - fixed
            self.high = (budget + spread) * self.dense - fixed
        self.spent = fixed
        # Of a block of each stage.
        stages = range(len(model.config.depths))
        self.full = [model.block(stage).dense for stage in stages]
        # Of all blocks not yet decided.
        self.left = float(sum(
            depth * full for depth, full in zip(model.config.depths, self.full)))
        # Of the blocks of the present stage that were opened, and still have to choose their
        # tokens: what they are to cost.
        self.planned: list[float] = []

    def _controller(self, stage: int) -> int:
        return self.controllers * self.model.token_controller[stage]

    def _least(self, stage: int) -> int:
        """Return what a single cell of a block costs, with the controller that finds it."""
        config, block = self.model.config, self.model.block(stage)
        height, width = config.cells[stage]
        return self._controller(stage) + block.gated(
            1 if config.skip_attention else block.windows, height * width)

    def open_stage(self, stage: int, scores: Sequence[float]) -> list[bool]:
        """Decide the block gates of a stage from the score of each block."""
        full, blocks = self.full[stage], len(scores)
        whole = full * blocks
        later = self.left - whole
        need = max(self.low - later, whole * (self.low / self.left - FREEDOM)) / full
        limit = min(self.high, whole * (self.high / self.left + FREEDOM)) / full
        order = sorted(range(blocks), key=scores.__getitem__, reverse=True)
        count, part = sum(score > 0 for score in scores), 0.0
        if self.high < math.inf:
            stages = len(self.full) - stage - 1
            count = min(count, max(int(limit + (0 if stages else SLACK)), 0))
            least = math.floor(need) if stages == 1 else math.ceil(
                need - (0 if stages else LEAST_PART))
            count = min(max(count, least), blocks)
            if stages == 1 and count < blocks:
                part = self._part(stage, self.high - full * count, later)
        costs = dict.fromkeys(order[:count], float(full))
        if part:
            costs[order[count]] = part
        self.planned = [costs[block] for block in range(blocks) if block in costs]
        self.left = later + sum(self.planned)
        return [block in costs for block in range(blocks)]

    def _part(self, stage: int, rest: float, later: float) -> float:
        """Return what to spend on one more block, so that whole ones of the next stage fit."""
        unit = self.full[stage + 1]
        part = rest - later if rest > later else max(rest, 0.0) % unit
        return 0.0 if part < LEAST_PART * self.full[stage] or (
            rest <= later and unit - part < SLACK * unit) else part

    def offer(self, stage: int) -> float | None:
        """
        Return how many MACs the next open block may cost: inf for all of it.

        None leaves that to the policy.
        """
        planned = self.planned.pop(0)
        self.left -= planned
        if self.high == math.inf:
            return None
        paid = max(self.low - self.left, min(self.high - sum(self.planned), planned))
        if paid >= (1 - SLACK) * self.full[stage]:
            return math.inf
        if not self.planned and self.left and 0 < self.high - paid < min(
                map(self._least, range(stage + 1, len(self.full)))):
            # Too little would be left to open any later block: it is of more use here.
            paid = self.high
        return paid - self._controller(stage)

    def spend(self, stage: int, choice: Choice, offered: float | None) -> None:
        """Take note of what was chosen; where all was offered no controller had to look."""
        cost = choice.cost + (0 if offered == math.inf else self._controller(stage))
        self.low -= cost
        self.high -= cost
        self.spent += cost


def block_geometries(config: NetworkConfig, cost: CostModel) -> list[BlockGeometry]:
    """Return how the gated cells of every block lie in its windows, in the order of the blocks."""
    geometries, known = [], {}
    for block, (stage, position) in zip(cost.blocks, positions(config)):
        size, cell = config.resolution(stage), config.cells[stage]
        shift = config.shift(stage, position)
        if (stage, shift) not in known:
            order = window_tokens(size, config.stage_window(stage), shift)
            window_of = np.empty(size[0] * size[1] // (cell[0] * cell[1]), dtype=np.int64)
            window_of[cell_of_token(size, cell)[order]] = np.arange(len(order))[:, None]
            known[stage, shift] = window_of.tolist()
        geometries.append(BlockGeometry(
            block, len(known[stage, shift]), cell[0] * cell[1],
            known[stage, shift] if config.skip_attention else None))
    return geometries


def positions(config: NetworkConfig) -> list[tuple[int, int]]:
    """Return (stage, position in it) of every block, in the order in which they run."""
    return [(stage, block) for stage, depth in enumerate(config.depths) for block in range(depth)]


class FrameGates:
    """
    The policy's decisions for one frame, as its logits come in.

    budget: share of the dense cost, in (0, 1]; None lets the policy choose by its own threshold:
    every positive logit opens.  weights: how much each task's wish counts (1 unless given).
    ValueError: there is no policy, or a policy that needs a budget has none.
    """

    def __init__(
            self, config: NetworkConfig, cost: CostModel, geometry: Sequence[BlockGeometry],
            tasks: tuple[str, ...], budget: float | None,
            weights: Mapping[str, float] | None = None) -> None:
        config.check_policy()
        if budget is None and config.budget_input:
            raise ValueError(f'the policy of {config.name} was trained with budgets: give one')
        self.allowance = Allowance(cost, tasks, budget, config.frame_spread)
        self.geometry = geometry
        self.choices: list[Choice] = []
        # Of the present stage: its first block, its logits, and what those that opened exceed.
        self._first = 0
        self._logits: list[list[float]] = []
        self._threshold = 0.0
        self._wishes = [0.0] * (len(tasks) if config.policy == 'task_aware' else 1)
        # Where one controller speaks for all tasks, each asks for the same.
        self._spoken_for = len(tasks) // len(self._wishes)
        self._bonus: np.ndarray | None = None
        if weights and config.policy == 'task_aware':
            self._bonus = np.log(np.array(
                [[max(weights.get(task, 1.0), 1e-6)] for task in tasks], dtype=np.float32))

    def open_stage(self, stage: int, logits: np.ndarray) -> list[bool]:
        """Decide which blocks of a stage run by logits (tasks, blocks)."""
        # Plain Python again: there are but a few.
        self._logits = (logits if self._bonus is None else logits + self._bonus).tolist()
        scores = [max(column) for column in zip(*self._logits)]
        opened = self.allowance.open_stage(stage, scores)
        self._threshold = _threshold(
            min((score for score, runs in zip(scores, opened) if runs), default=math.inf),
            max((score for score, runs in zip(scores, opened) if not runs), default=-math.inf))
        self._first = len(self.choices)
        return opened

    def open_tokens(self, logits: Callable[[], np.ndarray]) -> Choice:
        """
        Decide which cells of the next block run, which is open.

        logits: gives those of its cells, (tasks, cells); not called where all of them run.
        """
        number = len(self.choices)
        geometry = self.geometry[number]
        stage = geometry.cost.stage
        offered = self.allowance.offer(stage)
        if offered == math.inf:
            choice = geometry.whole
            asked = [row[number - self._first] > self._threshold for row in self._logits]
        else:
            each = logits() if self._bonus is None else logits() + self._bonus
            choice = geometry.choose(each.max(0), offered)
            asked = (each > choice.threshold).mean(1).tolist()
        self.allowance.spend(stage, choice, offered)
        self.choices.append(choice)
        self._wishes = [wish + more for wish, more in zip(self._wishes, asked)]
        return choice

    def choose(self, opened: Sequence[bool], logits: np.ndarray) -> list[Choice]:
        """
        Decide which cells of the blocks of a stage run, by logits (tasks, cells, blocks).

        opened: which of the blocks run at all.
        """
        for block, runs in enumerate(opened):
            if runs:
                self.open_tokens(partial(logits.__getitem__, (..., block)))
            else:
                self.close()
        return self.choices[self._first:]

    def close(self) -> None:
        """Leave the next block out."""
        self.choices.append(self.geometry[len(self.choices)].closed)

    def trace(self) -> Trace:
        """Return what was decided, once every block is."""
        return Trace(
            [choice.gate for choice in self.choices], self.allowance.spent,
            [len(choice.cells) / len(choice.gate) for choice in self.choices],
            [wish / len(self.choices) for wish in self._wishes] * self._spoken_for,
            [choice.cost for choice in self.choices])

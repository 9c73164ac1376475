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
import math

import numpy as np

from adamtl_ros.network.cost import BlockCost
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.trace import Trace

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

    gate: bool (H * W), the tokens that run, and tokens: their number.  cost: in MACs.  threshold:
    what a logit had to exceed.
    """

    gate: np.ndarray
    tokens: int
    cost: int
    threshold: float

    @property
    def whole(self) -> bool:
        """Return whether all tokens run."""
        return self.tokens == len(self.gate)


class TokenGates:
    """The ways in which a block may run."""

    def __init__(self, cost: BlockCost) -> None:
        self.cost = cost
        self.closed = Choice(np.zeros(cost.tokens, dtype=bool), 0, 0, math.inf)
        self.whole = Choice(
            np.ones(cost.tokens, dtype=bool), cost.tokens, cost.dense, -math.inf)
        for shared in (self.closed, self.whole):
            shared.gate.setflags(write=False)

    def choose(self, scores: np.ndarray, allowed: float | None) -> Choice:
        """
        Open the best tokens, as many as come nearest to the MACs allowed.

        scores: of each token.  allowed: inf opens all, None those whose score is positive.
        """
        if allowed == math.inf:
            return self.whole
        cost, tokens = self.cost, self.cost.tokens
        if allowed is None:
            count = int((scores > 0).sum())
        else:
            fits = min(max(int((allowed - cost.windows * cost.window) // cost.token), 1), tokens)
            count = min(
                (0, fits, min(fits + 1, tokens)), key=lambda n: abs(cost.gated(n) - allowed))
        if count == 0:
            return replace(self.closed, threshold=_threshold(math.inf, float(scores.max())))
        if count == tokens:
            return replace(self.whole, threshold=_threshold(float(scores.min()), -math.inf))
        least = np.partition(scores, tokens - count)[tokens - count]
        gate = scores > least
        # Of equal ones the first.
        gate[np.flatnonzero(scores == least)[:count - int(gate.sum())]] = True
        return Choice(
            gate, count, cost.gated(count),
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

    budget: share of the dense cost of `tasks`; None is whatever the policy asks for.
    """

    def __init__(self, model: CostModel, tasks: tuple[str, ...], budget: float | None) -> None:
        self.model = model
        self.controllers = model.controllers(tasks)
        fixed = model.minimum(tasks)
        self.allowed = math.inf if budget is None else budget * model.dense(tasks) - fixed
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
        """Return what a single token of a block costs, with the controller that finds it."""
        return self._controller(stage) + self.model.block(stage).gated(1)

    def open_stage(self, stage: int, scores: Sequence[float]) -> list[bool]:
        """Decide the block gates of a stage from the score of each block."""
        full, blocks = self.full[stage], len(scores)
        whole = full * blocks
        later = self.left - whole
        order = sorted(range(blocks), key=scores.__getitem__, reverse=True)
        count, part = sum(score > 0 for score in scores), 0.0
        if self.allowed < math.inf:
            stages, share = len(self.full) - stage - 1, self.allowed / self.left
            need = max(self.allowed - later, whole * (share - FREEDOM)) / full
            limit = min(self.allowed, whole * (share + FREEDOM)) / full
            count = min(count, max(int(limit + (0 if stages else SLACK)), 0))
            least = math.floor(need) if stages == 1 else math.ceil(
                need - (0 if stages else LEAST_PART))
            count = min(max(count, least), blocks)
            if stages == 1 and count < blocks:
                part = self._part(stage, self.allowed - full * count, later)
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
        if self.allowed == math.inf:
            return None
        paid = max(self.allowed - self.left, min(self.allowed - sum(self.planned), planned))
        if paid >= (1 - SLACK) * self.full[stage]:
            return math.inf
        if not self.planned and self.left and 0 < self.allowed - paid < min(
                map(self._least, range(stage + 1, len(self.full)))):
            # Too little would be left to open any later block: it is of more use here.
            paid = self.allowed
        return paid - self._controller(stage)

    def spend(self, stage: int, choice: Choice, offered: float | None) -> None:
        """Take note of what was chosen; where all was offered no controller had to look."""
        cost = choice.cost + (0 if offered == math.inf else self._controller(stage))
        self.allowed -= cost
        self.spent += cost


class FrameGates:
    """
    The policy's decisions for one frame, as its logits come in.

    budget: share of the dense cost, in (0, 1]; None lets the policy choose by its own threshold:
    every positive logit opens.  weights: how much each task's wish counts (1 unless given).
    ValueError: there is no policy.
    """

    def __init__(
            self, cost: CostModel, blocks: Sequence[TokenGates], tasks: tuple[str, ...],
            budget: float | None, weights: Mapping[str, float] | None = None) -> None:
        config = cost.config
        config.check_policy()
        self.allowance = Allowance(cost, tasks, budget)
        self.blocks = blocks
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
        Decide which tokens of the next block run, which is open.

        logits: gives those of its tokens, (tasks, H * W); not called where all of them run.
        """
        number = len(self.choices)
        gates = self.blocks[number]
        stage = gates.cost.stage
        offered = self.allowance.offer(stage)
        if offered == math.inf:
            choice = gates.whole
            asked = [row[number - self._first] > self._threshold for row in self._logits]
        else:
            each = logits() if self._bonus is None else logits() + self._bonus
            choice = gates.choose(each.max(0), offered)
            asked = (each > choice.threshold).mean(1).tolist()
        self.allowance.spend(stage, choice, offered)
        self.choices.append(choice)
        self._wishes = [wish + more for wish, more in zip(self._wishes, asked)]
        return choice

    def close(self) -> None:
        """Leave the next block out."""
        self.choices.append(self.blocks[len(self.choices)].closed)

    def trace(self) -> Trace:
        """Return what was decided, once every block is."""
        return Trace(
            [choice.gate for choice in self.choices], self.allowance.spent,
            [choice.tokens / len(choice.gate) for choice in self.choices],
            [wish / len(self.choices) for wish in self._wishes] * self._spoken_for,
            [choice.cost for choice in self.choices])

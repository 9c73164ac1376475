# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
From the policy's logits to gates that keep a budget.

A gate opens where its logit is positive.  That choice stands as long as the frame's cost can end
within the requested budget; where it cannot, the gates are taken in the order of their logits
until the allowance is used up.  So the result depends on nothing but frame and settings, any
network keeps any budget, and a policy that was trained for its budget decides by itself.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math

import numpy as np

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import BlockCost
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.windows import cell_of_token
from adamtl_ros.network.windows import window_tokens

FREEDOM = 0.7
"""How far one stage may depart from the share that remains for all (share of its cost)."""

LEAST_SHARE = 0.5
"""
A block is closed rather than opened for less than this share of its cost, and then used to that.

The weights and activations of a block are fetched for a few tokens as for all: a few full blocks
take less time than the same MACs spread over many.
"""


Gates = list[np.ndarray]
"""For each block, bool (cells): which cells run; all False is a closed block."""


@dataclass
class Trace:
    """
    What ran for one frame.

    gates: per block, bool (cells).  macs: everything that was executed, policy included.
    token_fraction: per block, share of its tokens executed.  task_fraction: share of tokens,
    over all blocks, that each enabled task asks for by itself at the threshold in force.
    block_macs: per block, what was executed of it, its controller not counted.
    """

    gates: Gates
    macs: float
    token_fraction: list[float]
    task_fraction: list[float] = field(default_factory=list)
    block_macs: list[int] = field(default_factory=list)


@dataclass
class Choice:
    """
    The gate of one block.

    cells: those that run, best first.  windows: those that they lie in, and slots: of each cell,
    which of these; both empty where attention is not skipped.  opened: the cells as 0 and 1.
    cost: in MACs.  threshold: what a logit had to exceed.
    """

    cells: list[int]
    windows: list[int]
    slots: list[int]
    opened: bytearray
    cost: int
    threshold: float

    @property
    def gate(self) -> np.ndarray:
        """Return which cells run, bool (cells)."""
        return np.frombuffer(self.opened, dtype=bool)


@dataclass
class BlockGeometry:
    """How many cells a block has, and, where attention is skipped, the window of each."""

    cost: BlockCost
    cells: int
    cell_tokens: int
    window_of: list[int] | None

    def closed(self) -> Choice:
        """Return the choice of nothing."""
        return Choice([], [], [], bytearray(self.cells), 0, math.inf)

    def choose(self, scores: Sequence[float], low: float, high: float) -> Choice:
        """
        Open the cells whose score is positive, or as many of the best as fit [low, high] MACs.

        scores: of each cell.  Where no number of cells lies within, the nearest one is taken.

        Plain Python: after a run of the network nothing of NumPy is left in the caches, and a
        dozen of its functions take longer than this.
        """
        order = sorted(range(self.cells), key=scores.__getitem__, reverse=True)
        window_of, opened = self.window_of, bytearray(self.cells)
        windows: list[int] = []
        slots: list[int] = []
        slot_of: dict[int, int] = {}
        token, window = self.cell_tokens * self.cost.token, self.cost.window
        cost = count = 0
        for cell in order:
            wanted = scores[cell] > 0
            if not wanted and cost >= low:
                break
            if window_of is None:
                after = cost + token + (0 if count else self.cost.windows * window)
            else:
                new = window_of[cell] not in slot_of
                after = cost + token + (window if new else 0)
            bound, ends = (high, after > high) if wanted else (low, after >= low)
            if ends and bound - cost <= after - bound:
                break
            if window_of is not None:
                if new:
                    slot_of[window_of[cell]] = len(windows)
                    windows.append(window_of[cell])
                slots.append(slot_of[window_of[cell]])
            opened[cell] = 1
            cost = after
            count += 1
            if ends:
                break
        return Choice(
            order[:count], windows, slots, opened, cost, self._threshold(scores, order, count))

    @staticmethod
    def _threshold(scores: Sequence[float], order: Sequence[int], count: int) -> float:
        """Return what the best `count` scores exceed and no other does: 0 where that does it."""
        least = scores[order[count - 1]] if count else math.inf
        most = scores[order[count]] if count < len(order) else -math.inf
        if most <= 0 < least:
            return 0.0
        if count == 0:
            return most
        return least - 1.0 if count == len(order) else (least + most) / 2


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
        # Of a block of each stage, its controller included: all of it, and a single token.
        windows, self.full, self.least = model.config.skip_attention, [], []
        for stage, cell in enumerate(model.config.cells):
            block = model.block(stage)
            controller = self._controller(block)
            self.full.append(block.dense + controller)
            self.least.append(controller + block.gated(
                1 if windows else block.windows, cell[0] * cell[1]))
        # Of all blocks not yet decided.
        self.left = sum(
            depth * full for depth, full in zip(model.config.depths, self.full))
        # Blocks of the present stage that were opened and still have to choose their tokens.
        self.waiting = 0

    def _controller(self, block: BlockCost) -> int:
        return self.controllers * self.model.token_controller[block.stage]

    def _spend(self, cost: int) -> None:
        self.low -= cost
        self.high -= cost
        self.spent += cost

    def open_stage(self, stage: int, scores: Sequence[float]) -> list[bool]:
        """Decide the block gates of a stage from the score of each block."""
        full, blocks = self.full[stage], len(scores)
        whole = full * blocks
        later = self.left - whole
        need = max(self.low - later, whole * (self.low / self.left - FREEDOM))
        limit = min(self.high, whole * (self.high / self.left + FREEDOM))
        count = sum(score > 0 for score in scores)
        if self.high < math.inf:
            least = max(LEAST_SHARE * full, self.least[stage])
            count = min(count, max(int(limit / least), 0))
            count = min(max(count, math.ceil(need / full)), blocks)
        best = sorted(range(blocks), key=scores.__getitem__, reverse=True)[:count]
        self.left = later + full * count
        self.waiting = count
        return [block in best for block in range(blocks)]

    def open_tokens(self, geometry: BlockGeometry, scores: Sequence[float]) -> Choice:
        """Decide the token gates of the next open block from the score of each cell."""
        stage, controller = geometry.cost.stage, self._controller(geometry.cost)
        full = self.full[stage]
        later = self.left - full
        self.waiting -= 1
        high = min(self.high - self.waiting * LEAST_SHARE * full, full)
        low = self.low
        if low > -math.inf:
            low = max(low - later, min(LEAST_SHARE * full, high))
        choice = geometry.choose(scores, low - controller, max(low, high) - controller)
        rest = self.high - choice.cost - controller
        if not self.waiting and later and 0 < rest < min(self.least[stage + 1:]):
            # Too little would be left to open any later block: it is of more use here.
            choice = geometry.choose(scores, self.low - controller, self.high - controller)
        self._spend(choice.cost + controller)
        self.left = later
        return choice


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
        self._tasks = len(tasks) if config.policy == 'task_aware' else 1
        # Logits (blocks, tasks, cells), and what they had to exceed in each block.
        self._asked: list[tuple[np.ndarray, list[float]]] = []
        self._bonus: np.ndarray | None = None
        if weights and config.policy == 'task_aware':
            self._bonus = np.log(np.array(
                [[max(weights.get(task, 1.0), 1e-6)] for task in tasks], dtype=np.float32))

    def open_stage(self, stage: int, logits: np.ndarray) -> list[bool]:
        """Decide which blocks of a stage run by logits (tasks, blocks)."""
        scores = logits if self._bonus is None else logits + self._bonus
        return self.allowance.open_stage(stage, scores.max(0).tolist())

    def open_tokens(self, opened: Sequence[bool], logits: np.ndarray) -> list[Choice]:
        """
        Decide which cells of the next blocks of a stage run.

        opened: which of these blocks run at all.  logits: (blocks, tasks, cells), left alone until
        `trace`.
        """
        logits = logits if self._bonus is None else logits + self._bonus
        first, choices, thresholds = len(self.choices), [], []
        rows = logits.max(1).tolist() if any(opened) else []
        for block, runs in enumerate(opened):
            geometry = self.geometry[first + block]
            if runs:
                choices.append(self.allowance.open_tokens(geometry, rows[block]))
            else:
                choices.append(geometry.closed())
            thresholds.append(choices[-1].threshold)
        if any(opened):
            self._asked.append((logits, thresholds))
        self.choices += choices
        return choices

    def close(self) -> None:
        """Leave the next block out."""
        self.choices.append(self.geometry[len(self.choices)].closed())

    def trace(self) -> Trace:
        """Return what was decided, once every block is."""
        wishes = np.zeros(self._tasks)
        for logits, thresholds in self._asked:
            wishes += (logits > np.array(thresholds)[:, None, None]).sum((0, 2)) / logits.shape[2]
        return Trace(
            [choice.gate for choice in self.choices], self.allowance.spent,
            [len(choice.cells) / len(choice.opened) for choice in self.choices],
            (wishes / len(self.choices)).tolist(), [choice.cost for choice in self.choices])

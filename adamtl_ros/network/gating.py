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

FREEDOM = 0.35
"""How far one block may depart from the share that remains for all (share of its cost)."""

LEAST_SHARE = 0.25
"""A block is closed rather than opened for less than this share of its cost."""


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
    """The gate of one block: bool (cells), the windows it keeps, its cost, the threshold used."""

    cells: np.ndarray
    windows: int
    cost: int
    threshold: float


@dataclass
class BlockGeometry:
    """How the gated cells of a block lie in its attention windows; `cells` is (windows, n)."""

    cost: BlockCost
    cell_tokens: int
    skip_attention: bool
    windows_of_cell: Sequence[np.ndarray]
    window_of: np.ndarray | None = field(init=False)
    token_costs: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Note the common case, in which each cell lies in one window."""
        single = all(len(windows) == 1 for windows in self.windows_of_cell)
        self.window_of = np.concatenate(self.windows_of_cell) if single else None
        self.token_costs = np.arange(len(self.windows_of_cell) + 1, dtype=np.int64) * (
            self.cell_tokens * self.cost.token)

    def costs(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the costs and the numbers of windows of the 0 ... n first cells of an order."""
        count = len(order)
        opened = np.zeros(count + 1, dtype=np.int64)
        if not self.skip_attention:
            opened[1:] = self.cost.windows
        elif self.window_of is not None:
            # Of several cells of a window, the one assigned last stays: the first in the order.
            first = np.full(self.cost.windows, count, dtype=np.int64)
            first[self.window_of[order[::-1]]] = np.arange(count - 1, -1, -1)
            opened[first + 1] = 1
            opened = opened.cumsum()
        else:
            seen: set[int] = set()
            for rank, cell in enumerate(order):
                seen.update(self.windows_of_cell[cell].tolist())
                opened[rank + 1] = len(seen)
        return opened * self.cost.window + self.token_costs, opened

    def choose(self, scores: np.ndarray, low: float, high: float) -> Choice:
        """
        Open the cells whose score is positive, or as many of the best as fit [low, high] MACs.

        scores: float (cells).  Where no number of cells lies within, the nearest one is taken.
        """
        order = np.argsort(-scores, kind='stable')
        costs, opened = self.costs(order)
        count = int(np.count_nonzero(scores > 0))
        threshold = 0.0
        if not low <= costs[count] <= high:
            bound = high if costs[count] > high else low
            count = int(np.abs(costs - bound).argmin())
            edge = scores[order[max(count - 1, 0):count + 1]]
            threshold = float(edge.mean()) if 0 < count < len(order) else (
                float(scores.max()) if count == 0 else float(scores.min()) - 1.0)
        cells = np.zeros(len(order), dtype=bool)
        cells[order[:count]] = True
        return Choice(cells, int(opened[count]), int(costs[count]), threshold)


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
        # Dense cost, controller included, of all blocks not yet decided.
        self.left = sum(self._full(block) for block in model.blocks)
        # Blocks of the present stage that were opened and still have to choose their tokens.
        self.waiting = 0

    def _controller(self, block: BlockCost) -> int:
        return self.controllers * self.model.token_controller[block.stage]

    def _full(self, block: BlockCost) -> int:
        return block.dense + self._controller(block)

    def _least(self, block: BlockCost) -> int:
        """Return what an open block costs with a single token."""
        windows = 1 if self.model.config.skip_attention else block.windows
        cell = self.model.config.cells[block.stage]
        return block.gated(windows, cell[0] * cell[1]) + self._controller(block)

    def _spend(self, cost: int) -> None:
        self.low -= cost
        self.high -= cost
        self.spent += cost

    def open_stage(self, stage: int, logits: np.ndarray) -> np.ndarray:
        """Decide the block gates of a stage from float (blocks): bool (blocks)."""
        blocks = [block for block in self.model.blocks if block.stage == stage]
        full = self._full(blocks[0])
        whole = full * len(blocks)
        later = self.left - whole
        need = max(self.low - later, whole * (self.low / self.left - FREEDOM))
        limit = min(self.high, whole * (self.high / self.left + FREEDOM))
        count = int((logits > 0).sum())
        if self.high < math.inf:
            least = max(LEAST_SHARE * full, self._least(blocks[0]))
            count = min(count, max(int(limit / least), 0))
            count = min(max(count, int(np.ceil(need / full))), len(blocks))
        gates = np.zeros(len(blocks), dtype=bool)
        gates[np.argsort(-logits, kind='stable')[:count]] = True
        self.left = later + full * count
        self.waiting = count
        return gates

    def open_tokens(self, geometry: BlockGeometry, scores: np.ndarray) -> Choice:
        """Decide the token gates of the next open block from float (cells)."""
        block = geometry.cost
        full, controller = self._full(block), self._controller(block)
        later = self.left - full
        self.waiting -= 1
        low = max(self.low - later, full * (self.low / self.left - FREEDOM))
        high = min(
            self.high - self.waiting * self._least(block),
            full * (self.high / self.left + FREEDOM))
        choice = geometry.choose(scores, low - controller, max(low, high) - controller)
        rest = self.high - choice.cost - controller
        if not self.waiting and later and 0 < rest < self._least_after(block.stage):
            # Too little would be left to open any later block: it is of more use here.
            choice = geometry.choose(scores, self.low - controller, self.high - controller)
        self._spend(choice.cost + controller)
        self.left = later
        return choice

    def _least_after(self, stage: int) -> int:
        return min(self._least(block) for block in self.model.blocks if block.stage > stage)


def block_geometries(config: NetworkConfig, cost: CostModel) -> list[BlockGeometry]:
    """Return how the gated cells of every block lie in its windows, in the order of the blocks."""
    geometries = []
    for block, (stage, position) in zip(cost.blocks, positions(config)):
        size, cell = config.resolution(stage), config.cells[stage]
        order = window_tokens(size, config.stage_window(stage), config.shift(stage, position))
        cells = cell_of_token(size, cell)[order]
        windows_of_cell: list[list[int]] = [[] for _ in range(cells.max() + 1)]
        for window, members in enumerate(cells):
            for number in np.unique(members):
                windows_of_cell[number].append(window)
        geometries.append(BlockGeometry(
            block, cell[0] * cell[1], config.skip_attention,
            [np.array(windows) for windows in windows_of_cell]))
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
        self.gates: Gates = []
        self._macs: list[int] = []
        self._wishes = np.zeros(len(tasks))
        self._bonus = np.zeros((1, 1), dtype=np.float32)
        if weights and config.policy == 'task_aware':
            self._bonus = np.log(np.array(
                [[max(weights.get(task, 1.0), 1e-6)] for task in tasks], dtype=np.float32))

    def open_stage(self, stage: int, logits: np.ndarray) -> np.ndarray:
        """Decide which blocks of a stage run, bool (blocks), by logits (tasks, blocks)."""
        return self.allowance.open_stage(stage, (logits + self._bonus).max(0))

    def open_tokens(self, logits: np.ndarray) -> np.ndarray:
        """Decide which cells of the next block run, bool (cells), by logits (tasks, cells)."""
        scores = logits + self._bonus
        choice = self.allowance.open_tokens(self.geometry[len(self.gates)], scores.max(0))
        self._wishes += (scores > choice.threshold).sum(1) / scores.shape[1]
        self.gates.append(choice.cells)
        self._macs.append(choice.cost)
        return choice.cells

    def close(self) -> np.ndarray:
        """Leave the next block out: bool (cells), all False."""
        cells = len(self.geometry[len(self.gates)].windows_of_cell)
        self.gates.append(np.zeros(cells, dtype=bool))
        self._macs.append(0)
        return self.gates[-1]

    def trace(self) -> Trace:
        """Return what was decided, once every block is."""
        return Trace(
            self.gates, self.allowance.spent, [float(cells.mean()) for cells in self.gates],
            [float(wish) for wish in self._wishes / len(self.gates)], self._macs)

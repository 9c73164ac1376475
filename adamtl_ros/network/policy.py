# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The policy: block and token controllers (AdaMTL, arXiv 2304.08594, section 3).

Both are two-layer perceptrons on the tokens of a stage.  Task-aware controllers exist once a
task and are joined by union over the enabled tasks; the controllers of all tasks are stored as
one stacked tensor, so that one product serves any subset of them.
"""

import math

import torch
from torch import nn
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.config import NetworkConfig


class Controller(nn.Module):
    """
    Linear(C -> hidden), ReLU, then a logit a block from each cell, or from all cells together.

    With `budget_input` the requested budget enters the hidden layer as one more feature.
    """

    def __init__(
            self, config: NetworkConfig, stage: int, tasks: int, blocks: int,
            joined: bool = False) -> None:
        super().__init__()
        channels, hidden = config.width(stage), config.policy_hidden
        size, cell = config.resolution(stage), config.cells[stage]
        cells = size[0] // cell[0] * (size[1] // cell[1])
        self.joined = joined
        inputs = cells * hidden if joined else hidden
        self.weight1 = nn.Parameter(torch.empty(tasks, channels, hidden))
        self.bias1 = nn.Parameter(torch.zeros(tasks, hidden))
        self.weight2 = nn.Parameter(torch.empty(tasks, inputs, blocks))
        # A gate starts mostly open, so that a network that was trained dense is not torn apart.
        self.bias2 = nn.Parameter(torch.full((tasks, blocks), 1.0))
        self.budget = nn.Parameter(torch.zeros(tasks, hidden)) if config.budget_input else None
        nn.init.normal_(self.weight1, std=1 / math.sqrt(channels))
        nn.init.normal_(self.weight2, std=1 / math.sqrt(inputs))
        if self.budget is not None:
            nn.init.normal_(self.budget)

    def forward(self, x: Tensor, budget: Tensor, tasks: Tensor) -> Tensor:
        """
        Return logits (B, blocks, tasks, cells), or (B, tasks, blocks) where the cells are joined.

        x: (B, cells, C).  budget: (B,).  tasks: int64 indices of the enabled tasks.
        """
        bias = self.bias1[tasks][None]
        if self.budget is not None:
            bias = bias + self.budget[tasks] * budget[:, None, None]
        hidden = torch.relu(torch.matmul(x[:, None], self.weight1[tasks]) + bias[:, :, None])
        if self.joined:
            hidden = hidden.flatten(2)[:, :, None]
        logits = torch.matmul(hidden, self.weight2[tasks]) + self.bias2[tasks][:, None]
        return logits.flatten(2) if self.joined else logits.permute(0, 3, 1, 2)


class StagePolicy(nn.Module):
    """The controllers of one stage: one for its blocks, one for their tokens."""

    def __init__(self, config: NetworkConfig, stage: int) -> None:
        super().__init__()
        tasks = len(config.tasks) if config.policy == 'task_aware' else 1
        self.cell = config.cells[stage]
        depth = config.depths[stage]
        self.per_stage = config.token_gates == 'stage'
        if config.policy != 'none':
            self.blocks = Controller(config, stage, tasks, depth, joined=True)
            self.tokens = Controller(config, stage, tasks, depth if self.per_stage else 1)

    def pool(self, x: Tensor) -> Tensor:
        """Average (B, H, W, C) over the cells that share a gate: (B, cells, C)."""
        h, w = self.cell
        if (h, w) == (1, 1):
            return x.flatten(1, 2)
        pooled = functional.avg_pool2d(x.permute(0, 3, 1, 2), (h, w))
        return pooled.permute(0, 2, 3, 1).flatten(1, 2)

    def spread(self, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Give each token of (B, *size) the value of its cell, from (B, cells)."""
        h, w = self.cell
        maps = cells.view(-1, size[0] // h, 1, size[1] // w, 1)
        return maps.expand(-1, -1, h, -1, w).reshape(-1, *size)


class Policy(nn.Module):
    """The controllers of all stages."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            StagePolicy(config, stage) for stage in range(len(config.depths)))

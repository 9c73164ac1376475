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

from adamtl_ros.network.config import NetworkConfig


class Controller(nn.Module):
    """Linear(C -> hidden), ReLU, then one logit a token, or (`joined`) a logit a block of all."""

    def __init__(
            self, config: NetworkConfig, stage: int, tasks: int, joined: bool = False) -> None:
        super().__init__()
        channels, hidden = config.width(stage), config.policy_hidden
        height, width = config.resolution(stage)
        self.joined = joined
        inputs = height * width * hidden if joined else hidden
        outputs = config.depths[stage] if joined else 1
        self.weight1 = nn.Parameter(torch.empty(tasks, channels, hidden))
        self.bias1 = nn.Parameter(torch.zeros(tasks, hidden))
        self.weight2 = nn.Parameter(torch.empty(tasks, inputs, outputs))
        # A gate starts mostly open, so that a network that was trained dense is not torn apart.
        self.bias2 = nn.Parameter(torch.full((tasks, outputs), 1.0))
        nn.init.normal_(self.weight1, std=1 / math.sqrt(channels))
        nn.init.normal_(self.weight2, std=1 / math.sqrt(inputs))

    def forward(self, x: Tensor, tasks: Tensor) -> Tensor:
        """
        Return logits (B, tasks, H * W), or (B, tasks, blocks) where the tokens are joined.

        x: (B, H, W, C).  tasks: int64 indices of the enabled tasks.
        """
        hidden = torch.relu(torch.matmul(
            x.flatten(1, 2)[:, None], self.weight1[tasks]) + self.bias1[tasks][None, :, None])
        if self.joined:
            hidden = hidden.flatten(2)[:, :, None]
        logits = torch.matmul(hidden, self.weight2[tasks]) + self.bias2[tasks][:, None]
        return logits.flatten(2)


class StagePolicy(nn.Module):
    """The controllers of one stage: one for its blocks, one for their tokens."""

    def __init__(self, config: NetworkConfig, stage: int) -> None:
        super().__init__()
        tasks = len(config.tasks) if config.policy == 'task_aware' else 1
        if config.policy != 'none':
            self.blocks = Controller(config, stage, tasks, joined=True)
            self.tokens = Controller(config, stage, tasks)


class Policy(nn.Module):
    """The controllers of all stages."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            StagePolicy(config, stage) for stage in range(len(config.depths)))

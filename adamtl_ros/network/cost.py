# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Cost of the network in MACs: what a frame costs dense, and what the gated parts of it cost.

Counted are the multiply-accumulates of linear layers, convolutions and attention products, as
torch.utils.flop_counter counts them (two FLOPs each).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from adamtl_ros.network.config import NetworkConfig


@dataclass(frozen=True)
class BlockCost:
    """Cost of a block: per attention window, per token of its MLP, and their numbers."""

    stage: int
    window: int
    token: int
    windows: int
    tokens: int

    @property
    def dense(self) -> int:
        """Return the cost with every token active."""
        return self.gated(self.tokens)

    def gated(self, tokens: int) -> int:
        """Return the cost with so many tokens active: attention runs in all windows or none."""
        return self.windows * self.window + tokens * self.token if tokens else 0


class CostModel:
    """
    MACs of every part of a network with the given configuration, for one frame.

    least_area: of the smallest input at which frames run, as a share of the configured one.
    """

    least_area = 1.0

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        taps = config.tap_shapes()
        stages = range(len(config.depths))
        tokens = [height * width for height, width in map(config.resolution, stages)]
        self.stem = _stem(config)
        self.merges = [
            8 * config.width(s) ** 2 * tokens[s + 1] for s in stages if s + 1 < len(tokens)]
        self.decoders = {
            task: _decoder(config, taps, channels) for task, channels in config.outputs.items()}
        self.blocks: list[BlockCost] = []
        self.token_controller: list[int] = []
        self.stage_controller: list[int] = []
        hidden = config.policy_hidden
        for s in stages:
            channels, window = config.width(s), config.stage_window(s)
            size = window[0] * window[1]
            attention = size * (4 * channels ** 2 + 2 * size * channels)
            self.blocks += [BlockCost(
                s, attention, 2 * config.mlp_ratio * channels ** 2, tokens[s] // size, tokens[s]
            )] * config.depths[s]
            # Per task: a hidden layer, and an output a token or one a block of all tokens.
            self.token_controller.append(tokens[s] * hidden * (channels + 1))
            self.stage_controller.append(tokens[s] * hidden * (channels + config.depths[s]))
        self._first = [self.blocks[sum(config.depths[:s])] for s in stages]
        # Summed up once, as they are asked for with every frame.
        self._blocks = sum(block.dense for block in self.blocks)
        self._fixed = self.stem + sum(self.merges)
        self._controllers = sum(self.stage_controller)

    def block(self, stage: int) -> BlockCost:
        """Return the cost of each block of a stage."""
        return self._first[stage]

    def controllers(self, tasks: Iterable[str]) -> int:
        """Return how many controllers run side by side for these tasks."""
        if self.config.policy == 'task_aware':
            return len(tuple(tasks))
        return 0 if self.config.policy == 'none' else 1

    def fixed(self, tasks: Iterable[str]) -> int:
        """Return what no gate can save: stem, patch merging and the decoders of the tasks."""
        return self._fixed + sum(self.decoders[task] for task in tasks)

    def dense(self, tasks: Iterable[str]) -> int:
        """Return the cost of the network without its policy, every gate open."""
        return self.fixed(tasks) + self._blocks

    def most(self, tasks: tuple[str, ...]) -> int:
        """Return the cost with every block gate open, policy included."""
        return self.minimum(tasks) + (0 if self.config.policy == 'none' else self._blocks)

    def minimum(self, tasks: tuple[str, ...]) -> int:
        """Return the cost with every block gate closed: the least the policy can choose."""
        if self.config.policy == 'none':
            return self.dense(tasks)
        return self.fixed(tasks) + self.controllers(tasks) * self._controllers


def _stem(config: NetworkConfig) -> int:
    area, channels = config.input_size[0] * config.input_size[1], config.embed_dim
    if config.stem == 'linear':
        return area * 3 * channels
    return area // 4 * 27 * (channels // 2) + area // 16 * 9 * (channels // 2) * channels


def _decoder(config: NetworkConfig, taps: list[tuple[int, int, int]], channels: int) -> int:
    width = config.decoder_dim
    areas = [height * columns for _, height, columns in taps]
    fuse = sum(
        area * (9 * tap[0] * width + tap[0] * width + 27 * width ** 2)
        for area, tap in zip(areas, taps))
    return fuse + areas[0] * (len(taps) * width ** 2 + width * channels)

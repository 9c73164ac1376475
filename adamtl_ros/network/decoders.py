# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The decoder: encoder maps of several strides to the channels of one task."""

from collections.abc import Sequence

import torch
from torch import nn
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.config import NetworkConfig


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (projected where the width changes or is `project`)."""

    def __init__(self, inputs: int, outputs: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class Decoder(nn.Module):
    """The decoder of the AdaMTL reference: each map through two residual blocks, joined, 1x1."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        width = config.decoder_dim
        taps = config.tap_shapes()
        self.fuse = nn.ModuleList(
            nn.Sequential(ResidualBlock(tap[0], width, True), ResidualBlock(width, width, False))
            for tap in taps)
        self.segment = nn.Sequential(
            nn.Conv2d(len(taps) * width, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, channels, 1))

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (B, C_i, H_i, W_i), finest first, to (B, channels, H_0, W_0)."""
        size = taps[0].shape[-2:]
        # The reference reads the memory of (H, W, C) maps as (C, H, W); its weights expect that.
        read = [tap.permute(0, 2, 3, 1).reshape(tap.shape) for tap in taps]
        maps = [functional.interpolate(fuse(tap), size) for fuse, tap in zip(self.fuse, read)]
        return self.segment(torch.cat(maps, 1))

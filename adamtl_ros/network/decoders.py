# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Decoders: encoder maps of several strides to the channels of one task."""

from collections.abc import Sequence

import torch
from torch import nn
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.encoder import upsample


def _conv_norm(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs)]


class PyramidDecoder(nn.Module):
    """
    Light top-down decoder at stride 4.

    The coarse maps are projected, summed at stride 8 and mixed by a 3x3 convolution; the finest
    map joins after upsampling, through a depthwise-separable convolution.
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        width = config.decoder_dim
        self.lateral = nn.ModuleList(
            nn.Conv2d(tap[0], width, 1) for tap in config.tap_shapes())
        self.coarse = nn.Sequential(nn.BatchNorm2d(width), *_conv_norm(width, width, 3), nn.ReLU())
        self.fine = nn.Sequential(
            nn.BatchNorm2d(width), *_conv_norm(width, width, 3, width), *_conv_norm(width, width),
            nn.ReLU())
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (B, C_i, H_i, W_i), finest first, to (B, channels, H_0, W_0)."""
        maps = [lateral(tap) for lateral, tap in zip(self.lateral, taps)]
        size = maps[1].shape[-2:]
        coarse = self.coarse(maps[1] + sum(upsample(part, size) for part in maps[2:]))
        fine = self.fine(maps[0] + upsample(coarse, maps[0].shape[-2:]))
        return self.head(fine)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (projected where the width changes or is `project`)."""

    def __init__(self, inputs: int, outputs: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(*_conv_norm(inputs, outputs)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class ResidualDecoder(nn.Module):
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


def decoder(config: NetworkConfig, channels: int) -> nn.Module:
    """Return a new decoder of the configured kind."""
    kind = PyramidDecoder if config.decoder == 'pyramid' else ResidualDecoder
    return kind(config, channels)

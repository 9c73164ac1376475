# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Swin encoder (Liu et al., ICCV 2021, arXiv 2103.14030) whose blocks run in part or not at all.

Token maps are (batch, height, width, channels).  Every block has two paths: `forward` computes
everything and mixes by gates (for training), `run` computes what is active and nothing else.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.windows import relative_index
from adamtl_ros.network.windows import shift_mask
from adamtl_ros.network.windows import window_tokens


def partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut (B, H, W, C) into windows (B * windows, h * w, C), row by row."""
    batch, height, width, channels = x.shape
    h, w = window
    x = x.view(batch, height // h, h, width // w, w, channels)
    return x.transpose(2, 3).reshape(-1, h * w, channels)


def merge(windows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undo `partition`: (B * windows, h * w, C) to (B, H, W, C) with (H, W) = size."""
    (h, w), (height, width) = window, size
    x = windows.view(-1, height // h, width // w, h, w, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with relative position bias."""

    def __init__(self, channels: int, window: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1), heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.index: Tensor
        self.register_buffer(
            'index', torch.from_numpy(relative_index(window)), persistent=False)
        self._bias: Tensor | None = None

    def train(self, mode: bool = True) -> 'WindowAttention':
        """Switch the mode; the bias that inference keeps is computed anew afterwards."""
        self._bias = None
        return super().train(mode)

    # Weights that are loaded, or moved to another device or type, make another bias.
    def _load_from_state_dict(self, *args: Any) -> None:
        self._bias = None
        super()._load_from_state_dict(*args)

    def _apply(self, *args: Any, **kwargs: Any) -> 'WindowAttention':
        self._bias = None
        return super()._apply(*args, **kwargs)

    def bias(self, mask: Tensor | None) -> Tensor:
        """
        Return (1, heads, n, n), or (windows, heads, n, n) with a mask (windows, n, n).

        It is added to the attention logits; kept while no gradient is wanted.
        """
        if self._bias is not None and not torch.is_grad_enabled():
            return self._bias
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask[:, None]
        self._bias = None if self.training or torch.is_grad_enabled() else bias
        return bias

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """
        Attend within each window.

        x: (windows, n, C).  bias: (1, heads, n, n), or (windows, heads, n, n) where shifted
        windows need masks of their own (the windows of a batch repeat with its period).  torch
        has a fast kernel for masks of 4 dimensions alone.
        """
        windows, n, channels = x.shape
        qkv = self.qkv(x).view(windows, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if torch.is_grad_enabled():
            # A mask that wants a gradient has no fused kernel: torch's products are slower.
            logits = (query * self.scale) @ key.transpose(-2, -1)
            logits = (logits.view(-1, *bias.shape) + bias).view(logits.shape)
            mixed = logits.softmax(-1).to(value.dtype) @ value
        else:
            if 1 < len(bias) < windows:
                bias = bias.repeat(windows // len(bias), 1, 1, 1)
            mixed = functional.scaled_dot_product_attention(
                query, key, value, bias.to(query.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(windows, n, channels))


class Block(nn.Module):
    """A Swin block: (shifted) window attention, then an MLP per token."""

    def __init__(self, config: NetworkConfig, stage: int, index: int) -> None:
        super().__init__()
        channels = config.width(stage)
        self.size = config.resolution(stage)
        self.window = config.stage_window(stage)
        self.shift = config.shift(stage, index)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, self.window, config.heads[stage])
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, config.mlp_ratio * channels), nn.GELU(),
            nn.Linear(config.mlp_ratio * channels, channels))
        self.mask: Tensor | None
        mask = shift_mask(self.size, self.window, self.shift)
        self.register_buffer(
            'mask', None if mask is None else torch.from_numpy(mask), persistent=False)
        self.windows: Tensor
        order = window_tokens(self.size, self.window, self.shift)
        self.register_buffer('windows', torch.from_numpy(order), persistent=False)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """
        Run on all tokens of (B, H, W, C) and let `tokens` (B, H, W), 0 or 1, choose.

        Gradients reach the gates.  None means all tokens.
        """
        shifted = self.norm1(x)
        if self.shift != (0, 0):
            shifted = shifted.roll((-self.shift[0], -self.shift[1]), (1, 2))
        attended = self.attn(partition(shifted, self.window), self.attn.bias(self.mask))
        if tokens is not None:
            ran = tokens.amax((1, 2))
            attended = attended * ran.repeat_interleave(len(self.windows))[:, None, None]
        update = merge(attended, self.window, self.size)
        if self.shift != (0, 0):
            update = update.roll(self.shift, (1, 2))
        x = x + update
        normed = self.norm2(x)
        update = self.mlp(normed)
        if tokens is None:
            return x + update
        # A skipped token's second residual is its norm, as in the reference.
        gate = tokens[..., None]
        return x + gate * update + (1 - gate) * normed * ran[:, None, None, None]

    def run(self, x: Tensor, tokens: Tensor) -> Tensor:
        """
        Run on the active tokens alone; may change x in place, returns the result.

        x: (1, H, W, C), no gradient.  tokens: int64, those of H * W, at least one, on its device.
        """
        flat = x.view(-1, x.shape[-1])
        index = self.windows.reshape(-1)
        inside = self.norm1(flat[index]).view(*self.windows.shape, -1)
        flat.index_add_(
            0, index, self.attn(inside, self.attn.bias(self.mask)).reshape(len(index), -1))
        normed = self.norm2(flat)
        flat.add_(normed.index_copy(0, tokens, self.mlp(normed[tokens])))
        return x


class PatchMerging(nn.Module):
    """Join 2 x 2 tokens into one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H/2, W/2, 2C)."""
        parts = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Stem(nn.Module):
    """Image to tokens of 4 x 4 pixels."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.embed_dim
        if config.stem == 'linear':
            self.proj: nn.Module = nn.Conv2d(3, width, 4, 4)
        else:
            self.proj = nn.Sequential(
                nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2),
                nn.ReLU(), nn.Conv2d(width // 2, width, 3, 2, 1))
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, h, w), normalised, to (B, h/4, w/4, C)."""
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """The blocks of one resolution; `downsample` leads to the next, None in the last."""

    def __init__(self, config: NetworkConfig, stage: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config, stage, index) for index in range(config.depths[stage]))
        last = stage == len(config.depths) - 1
        self.downsample = None if last else PatchMerging(config.width(stage))


class Encoder(nn.Module):
    """Stem and stages; the assembled network drives them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.stages = nn.ModuleList(Stage(config, s) for s in range(len(config.depths)))


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly to (B, C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, list(size), mode='bilinear', align_corners=False)

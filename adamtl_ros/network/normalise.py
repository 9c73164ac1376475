# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixels as Swin encoders expect them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""Mean and standard deviation per channel of ImageNet, on which Swin encoders are trained."""


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 (B, h, w, 3) RGB into normalised float32 (B, 3, h, w), channels last."""
    import torch

    scale = torch.tensor(STD, device=images.device).reciprocal()
    offset = -torch.tensor(MEAN, device=images.device) * scale
    return torch.addcmul(offset, images.float(), scale).permute(0, 3, 1, 2)

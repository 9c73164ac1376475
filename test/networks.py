# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights for the tests."""

from dataclasses import replace

import torch
from torch import nn

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.network import AdaMTL

_SMALL = replace(
    PRESETS['swin_tiny'], name='small', input_size=(112, 112), embed_dim=24, heads=(1, 2, 4, 8),
    window=(7, 7), depths=(2, 2, 2), decoder_dim=16, cells=((1, 1),) * 3)

CONFIGS: dict[str, NetworkConfig] = {
    'glasses': PRESETS['glasses'],
    'swin_tiny': PRESETS['swin_tiny'],
    'small': replace(_SMALL, heads=(1, 2, 4)),
    'task_agnostic': replace(_SMALL, heads=(1, 2, 4), policy='task_agnostic', budget_input=True),
    'zero_residual': replace(_SMALL, heads=(1, 2, 4), skipped_norm=False, skip_attention=True),
}


def random_network(name: str, seed: int = 0) -> AdaMTL:
    """
    Return a network whose every part matters for its outputs.

    The weights are larger than at the start of training, and the policy's logits are spread
    around zero, so that a wrong gate, a lost mask or a swapped window shows.
    """
    torch.manual_seed(seed)
    network = AdaMTL(CONFIGS[name])
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif hasattr(module, 'relative_position_bias_table'):
            nn.init.normal_(module.relative_position_bias_table)
        if hasattr(module, 'bias2'):
            nn.init.normal_(module.bias2, std=0.3)
            nn.init.normal_(module.weight2, std=2 * module.weight2.shape[1] ** -0.5)
    return network.eval()


def random_image(network: AdaMTL, seed: int = 0, batch: int = 1) -> torch.Tensor:
    """Return normalised images (batch, 3, h, w) of smooth random structure and varied contrast."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 6, 8, generator=generator)
    image = nn.functional.interpolate(coarse, network.config.input_size, mode='bicubic')
    contrast = torch.rand(batch, 1, 1, 1, generator=generator) * 2 + 0.1
    return image * contrast + 0.1 * torch.randn(image.shape, generator=generator)

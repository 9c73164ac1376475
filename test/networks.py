# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights for the tests."""

from dataclasses import replace

import torch
from torch import nn

from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.kinds import network_of
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.network import AdaMTL

_SMALL = replace(
    PRESETS['swin_tiny'], name='small', input_size=(112, 112), embed_dim=24, heads=(1, 2, 4),
    window=(7, 7), depths=(2, 2, 2), decoder_dim=16)

CONFIGS: dict[str, Config] = {
    'glasses': PRESETS['glasses'],
    # The preset at a quarter of its width: all that has to do with place is the same.
    'swin_tiny': replace(PRESETS['swin_tiny'], embed_dim=24, heads=(1, 2, 4, 8)),
    'lite': LiteConfig(
        'lite', input_size=(64, 96), reduced=(0.7, 0.35), stem=8, pyramid=16, fine=8, head=12,
        policy_hidden=8, stages=(
            (1, 3, 1, 1, 8), (2, 3, 2, 2, 8), (2, 5, 2, 2, 16), (3, 3, 2, 2, 24),
            (2, 5, 1, 2, 24), (3, 5, 2, 2, 32), (1, 3, 1, 2, 40))),
    'small': _SMALL,
    'task_agnostic': replace(_SMALL, policy='task_agnostic', stem='conv'),
}


SWIN = [name for name, config in CONFIGS.items() if config.kind == 'swin']


def random_network(kind: str | Config, seed: int = 0) -> AdaMTL | LiteNetwork:
    """
    Return a network, one of CONFIGS or another, whose every part matters for its outputs.

    The weights are larger than at the start of training, and the policy's logits are spread
    around zero, so that a wrong gate, a lost mask or a swapped window shows.
    """
    torch.manual_seed(seed)
    network = network_of(CONFIGS[kind] if isinstance(kind, str) else kind)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif hasattr(module, 'relative_position_bias_table'):
            nn.init.normal_(module.relative_position_bias_table)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(module.weight[0].numel() / 2) ** -0.5)
        if hasattr(module, 'typical'):
            _random_policy(module)
        if hasattr(module, 'bias2'):
            nn.init.normal_(module.bias2, std=0.3)
            nn.init.normal_(module.weight2, std=2 * module.weight2.shape[1] ** -0.5)
    return network.eval()


def _random_policy(policy: nn.Module) -> None:
    """Let what blocks are worth differ between frames, tasks and blocks."""
    nn.init.normal_(policy.first.weight, std=policy.first.in_features ** -0.5)
    nn.init.normal_(policy.second.weight, std=policy.second.in_features ** -0.5)
    nn.init.normal_(policy.bias, mean=-2.0, std=0.5)
    nn.init.uniform_(policy.pairs, 0.0, 0.02)
    policy.typical.copy_(nn.functional.softplus(policy.bias.detach()))
    policy.prices.copy_(torch.linspace(3.0, 0.0, policy.prices.shape[1]))
    if hasattr(policy, 'smaller'):
        nn.init.uniform_(policy.smaller, 0.0, 0.3)


def random_image(
        network: AdaMTL | LiteNetwork, seed: int = 0, batch: int = 1) -> torch.Tensor:
    """Return normalised images (batch, 3, h, w) of smooth random structure and varied contrast."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 6, 8, generator=generator)
    image = nn.functional.interpolate(coarse, network.config.input_size, mode='bicubic')
    contrast = torch.rand(batch, 1, 1, 1, generator=generator) * 2 + 0.1
    return image * contrast + 0.1 * torch.randn(image.shape, generator=generator)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
How the convolutional network is trained dense, so that any set of its blocks may be left out.

It begins with weights learned from photos, and most of its frames are rendered: early stages,
depthwise layers and norms' statistics stay as they were, the other layers learn the slower the
earlier they are.  Frames exchange the style of their early features (Zhou et al., "Domain
Generalization with MixStyle", ICLR 2021).  Of part of each batch blocks are left out at random,
few at first (Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016).
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch import Tensor

from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.lite_network import Unit
from adamtl_ros.training.config import TrainConfig

BETAS = 0.9, 0.99
"""Of AdamW."""

# Shares of the training.
GENTLE = 0.3
"""Until here at most 30 % of the gates are closed, and in half as many frames."""
COARSE_FROM = 0.15
"""From here on the level at stride 32 is left out as a whole, too."""
STYLE_UNTIL = 0.85
"""From here on no styles are exchanged."""
SETTLED = 0.7
"""From here on the norms of pyramid and decoders keep their statistics."""

STYLED = 1
"""The stage whose features exchange styles."""

SPREAD = 0.2
"""Parameter of the Beta distribution of how two styles are mixed; one of both prevails."""


def freeze(network: LiteNetwork, stages: int) -> None:
    """Let stem, first stages and all depthwise layers of the encoder stay; 0 stages: nothing."""
    if not stages:
        return
    for part in (network.encoder.stem, *network.encoder.stages[:stages]):
        part.requires_grad_(False)
    for module in network.encoder.modules():
        if isinstance(module, Unit) and module.spec.depthwise:
            module.requires_grad_(False)


def parts(network: LiteNetwork, config: TrainConfig) -> Iterator[tuple[nn.Module, float]]:
    """Yield the parts of the network but its policy, each with the peak of its rate."""
    encoder, last = network.encoder, len(network.encoder.stages) - 1
    rate = config.encoder_rate or config.rate
    yield encoder.stem, rate * config.layer_decay ** (last + 1)
    for number, stage in enumerate(encoder.stages):
        yield stage, rate * config.layer_decay ** (last - number)
    yield network.pyramid, config.rate
    yield network.decoders, config.rate


def set_modes(network: LiteNetwork, config: TrainConfig, done: float) -> None:
    """Bring the norms into the mode for a share `done` of the training."""
    network.train()
    if config.frozen:
        network.encoder.eval()
    if done > SETTLED:
        network.eval()


def draw_gates(network: LiteNetwork, config: TrainConfig, count: int, done: float) -> Tensor:
    """Return (count, gates) of 0 and 1 for a share `done` of the training, on the CPU."""
    gates = torch.ones(count, len(network.config.gated))
    changed = round(count * config.gated * (0.5 if done < GENTLE else 1.0))
    share = torch.rand(changed, 1)
    if done < GENTLE:
        share = 0.7 + 0.3 * share
    gates[:changed] = (torch.rand(changed, gates.shape[1]) < share).float()
    closed = torch.rand(changed) < 0.05 + 0.3 * (1 - share[:, 0])
    gates[:changed, -1] = 1 - (closed & (done >= COARSE_FROM)).float()
    return gates


def mix_styles(x: Tensor) -> Tensor:
    """Bring mean and deviation of features (B, C, h, w) between a frame's and another's."""
    count = len(x)
    mixed = torch.distributions.Beta(SPREAD, SPREAD).sample((count, 1, 1, 1)).to(x.device)
    other = torch.randperm(count).to(x.device)
    values = x.float()
    # What the features change to is no way to change the features.
    mean = values.mean((2, 3), keepdim=True).detach()
    spread = values.std((2, 3), keepdim=True).detach() + 1e-4
    values = (values - mean) / spread
    values = values * torch.lerp(spread[other], spread, mixed) + torch.lerp(
        mean[other], mean, mixed)
    return values.to(x.dtype)


def forward(
        network: LiteNetwork, image: Tensor, config: TrainConfig, done: float
) -> dict[str, Tensor]:
    """
    Run a batch, as `inputs` gives it, as a step at a share `done` of the training does.

    All that is drawn comes from torch's own generator, on the CPU.
    """
    gates = draw_gates(network, config, len(image), done).to(image.device)
    styled = bool(torch.rand(()) < config.style) and done < STYLE_UNTIL

    def after(stage: int, x: Tensor) -> Tensor:
        return mix_styles(x) if styled and stage == STYLED else x

    return network.decode(network.taps(image, gates, after=after), network.config.tasks)

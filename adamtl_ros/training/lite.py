# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
How the convolutional network is trained, dense and under sets of its blocks (`training.sets`).

It begins with weights learned from photos, and most of its frames are rendered: early stages,
depthwise layers and norms' statistics stay as they were, the other layers learn the slower the
earlier they are.  Frames exchange the style of their early features (Zhou et al., "Domain
Generalization with MixStyle", ICLR 2021).  Under a set of blocks the network learns from the
labels and from what it says dense (Yu & Huang, "Universally Slimmable Networks", ICCV 2019).
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
STYLE_UNTIL = 0.85
"""From here on no styles are exchanged."""
SETTLED = 0.75
"""From here on the norms of pyramid and decoders keep their statistics."""

STYLED = 1
"""The stage whose features exchange styles."""

SPREAD = 0.2
"""Parameter of the Beta distribution of how two styles are mixed; one of both prevails."""

POLICY_RATES = {'bias': 7.0, 'pairs': 0.7}
"""Of the policy's parts, how much faster than its layers they learn."""

POLICY_DECAY = 0.02


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


def policy_groups(network: LiteNetwork, rate: float) -> list[dict[str, object]]:
    """Return the optimiser's groups of the policy, what closed pairs add among them."""
    policy = network.policy
    policy.pairs.requires_grad_(True)
    layers = [*policy.first.parameters(), *policy.second.parameters()]
    return [{'params': layers, 'weight_decay': POLICY_DECAY, 'peak': rate}, *(
        {'params': [getattr(policy, name)], 'weight_decay': 0.0, 'peak': rate * factor}
        for name, factor in POLICY_RATES.items())]


def set_modes(network: LiteNetwork, config: TrainConfig, done: float) -> None:
    """Bring the norms into the mode for a share `done` of the training."""
    network.train()
    if config.frozen:
        network.encoder.eval()
    if done > SETTLED:
        network.eval()


def mix_styles(x: Tensor, copies: int = 1) -> Tensor:
    """
    Bring mean and deviation of features (B, C, h, w) between a frame's and another's.

    copies: the batch is so many times the same frames; each time they meet the same others.
    """
    count = len(x) // copies
    mixed = torch.distributions.Beta(SPREAD, SPREAD).sample((count, 1, 1, 1)).to(x.device)
    other = torch.randperm(count).to(x.device)
    results = []
    for part in x.float().chunk(copies):
        # What the features change to is no way to change the features.
        mean = part.mean((2, 3), keepdim=True).detach()
        spread = part.std((2, 3), keepdim=True).detach() + 1e-4
        results.append((part - mean) / spread * torch.lerp(
            spread[other], spread, mixed) + torch.lerp(mean[other], mean, mixed))
    return torch.cat(results).to(x.dtype)


def forward(
        network: LiteNetwork, image: Tensor, config: TrainConfig, done: float,
        gates: Tensor | None = None) -> list[dict[str, Tensor]]:
    """
    Run a batch, as `inputs` gives it, as a step at a share `done` of the training does.

    Returns the outputs of the dense network, and with gates, bool (B, gates), those under them.
    What is drawn comes from torch's own generator, on the CPU.
    """
    styled = bool(torch.rand(()) < config.style) and done < STYLE_UNTIL
    copies = 1
    opened = None
    if gates is not None:
        copies = 2
        opened = torch.cat((torch.ones_like(gates), gates)).float()
        image = torch.cat((image, image)).contiguous(memory_format=torch.channels_last)

    def after(stage: int, x: Tensor) -> Tensor:
        return mix_styles(x, copies) if styled and stage == STYLED else x

    outputs = network.decode(network.taps(image, opened, after=after), network.config.tasks)
    halves = {task: value.chunk(copies) for task, value in outputs.items()}
    return [{task: value[half] for task, value in halves.items()} for half in range(copies)]

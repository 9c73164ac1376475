# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
How the convolutional network is trained, dense and under sets of its blocks (`training.sets`).

It begins with weights learned from photos, and most of its frames are rendered: early stages,
depthwise layers and norms' statistics stay as they were, the other layers learn the slower the
earlier they are.  Frames exchange the style of their early features (Zhou et al., "Domain
Generalization with MixStyle", ICLR 2021).  Under a set of blocks the network learns from the
labels and from what it says dense (Yu & Huang, "Universally Slimmable Networks", ICCV 2019), in
part of the steps at a smaller size (Yang et al., "MutualNet", ECCV 2020).
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import math

import torch
from torch import nn
from torch import Tensor

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.camera import turn
from adamtl_ros.network.encoder import upsample
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.lite_network import resized
from adamtl_ros.network.lite_network import Unit
from adamtl_ros.training.config import TrainConfig

BETAS = 0.9, 0.99
"""Of AdamW."""

# Shares of the training.
STYLE_UNTIL = 0.85
"""From here on no styles are exchanged."""
SETTLED = 0.65
"""From here on the norms of pyramid and decoders keep their statistics."""

STYLED = 1
"""The stage whose features exchange styles."""

SPREAD = 0.2
"""Parameter of the Beta distribution of how two styles are mixed; one of both prevails."""

POLICY_RATES = {'bias': 7.0, 'pairs': 0.7, 'smaller': 3.0}
"""Of the policy's parts, how much faster than its layers they learn."""

MEASURED = 'pairs', 'smaller'
"""Of these, what is no parameter of a network that only runs."""

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


def measured(network: LiteNetwork) -> list[Tensor]:
    """Return what of the policy is no parameter, and learns all the same."""
    return [getattr(network.policy, name) for name in MEASURED if hasattr(network.policy, name)]


def policy_groups(network: LiteNetwork, rate: float) -> list[dict[str, object]]:
    """Return the optimiser's groups of the policy, what closed pairs add among them."""
    policy = network.policy
    for buffer in measured(network):
        buffer.requires_grad_(True)
    layers = [*policy.first.parameters(), *policy.second.parameters()]
    return [{'params': layers, 'weight_decay': POLICY_DECAY, 'peak': rate}, *(
        {'params': [getattr(policy, name)], 'weight_decay': 0.0, 'peak': rate * factor}
        for name, factor in POLICY_RATES.items() if hasattr(policy, name))]


def set_modes(network: LiteNetwork, config: TrainConfig, done: float) -> None:
    """Bring the norms into the mode for a share `done` of the training."""
    network.train()
    if config.frozen:
        network.encoder.eval()
    if done > SETTLED:
        network.eval()


def mix_styles(x: Tensor, mixed: Tensor, other: Tensor) -> Tensor:
    """
    Bring mean and deviation of features (B, C, h, w) between a frame's and another's.

    mixed: (B, 1, 1, 1), the share of its own.  other: (B), the numbers of the others.
    """
    features = x.float()
    # What the features change to is no way to change the features.
    mean = features.mean((2, 3), keepdim=True).detach()
    spread = features.std((2, 3), keepdim=True).detach() + 1e-4
    return ((features - mean) / spread * torch.lerp(spread[other], spread, mixed) + torch.lerp(
        mean[other], mean, mixed)).to(x.dtype)


def enlarged(
        outputs: Mapping[str, Tensor], ran: Sequence[int], size: Sequence[int],
        like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Return outputs of inputs of (height, width) `ran` as such of inputs of `size`.

    like: outputs of that size.  The canonical camera sees pictures of any size with one focal
    length in pixels, so that depth and normals change, as in `runtime.geometry`.
    """
    if tuple(ran) == tuple(size):
        return dict(outputs)
    result = {
        task: upsample(value.float(), like[task].shape[2:]) for task, value in outputs.items()}
    if 'depth' in result:
        result['depth'] = result['depth'] + math.log(
            math.sqrt(ran[0] * ran[1] / (size[0] * size[1])))
    if 'normals' in result:
        vectors = result['normals']
        height, width = vectors.shape[2:]
        small, full = (
            Camera.nominal(wide, high, CANONICAL_FOCAL).resized(width, height)
            for high, wide in (ran, size))
        result['normals'] = torch.einsum(
            'ijhw,bjhw->bihw', torch.from_numpy(turn(small, full)).to(vectors), vectors)
    return result


def forward(
        network: LiteNetwork, image: Tensor, config: TrainConfig, done: float,
        gates: Tensor | None = None, size: Sequence[int] | None = None
) -> list[dict[str, Tensor]]:
    """
    Run a batch, as `inputs` gives it, as a step at a share `done` of the training does.

    Returns the outputs of the dense network, and with gates, bool (B, gates), those under them,
    at the (height, width) `size` of the input if one is given, as such of the batch's size.
    What is drawn comes from torch's own generator, on the CPU.
    """
    styled = bool(torch.rand(()) < config.style) and done < STYLE_UNTIL
    mixed = torch.distributions.Beta(SPREAD, SPREAD).sample((len(image), 1, 1, 1))
    mixed, other = mixed.to(image.device), torch.randperm(len(image)).to(image.device)

    def run(x: Tensor, opened: Tensor | None) -> dict[str, Tensor]:
        # Dense and under gates a frame meets the same other one.
        taps = network.taps(x, opened, after=lambda stage, maps: (
            mix_styles(maps, mixed, other) if styled and stage == STYLED else maps))
        return network.decode(taps, network.config.tasks)

    outputs = [run(image, None)]
    if gates is not None:
        ran = size or image.shape[2:]
        outputs.append(enlarged(
            run(resized(image, ran), gates.float()), ran, image.shape[2:], outputs[0]))
    return outputs

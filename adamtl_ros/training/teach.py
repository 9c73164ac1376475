# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The stages that measure a network which stays as it is: policy and fit."""

from collections.abc import Callable
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
import time
from typing import Any

from rich.console import Console
import torch

from adamtl_ros.files import try_folder
from adamtl_ros.network import checkpoint
from adamtl_ros.network import tensors
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.training import presence
from adamtl_ros.training import worth
from adamtl_ros.training.batches import class_weights
from adamtl_ros.training.batches import unchanged
from adamtl_ros.training.begin import begin
from adamtl_ros.training.begin import device_of
from adamtl_ros.training.begin import notes
from adamtl_ros.training.config import TrainConfig
from adamtl_ros.training.pictures import Pictures
from adamtl_ros.training.train import LOG_EVERY

PRESENCE_SETS = 3
"""Under how many sets of gates the head of presence sees a frame, beside dense."""


SIZES_FITTED = 0.5
"""
How much what is measured counts for smaller sizes, beside what was learned.

Frames that training has changed far lose less by a smaller size than new ones do, those that it
has seen as they are lose more.
"""


def measure(config: TrainConfig) -> None:
    """
    Measure a network, teach it to its policy, and write the weights.

    Stage policy: all that the policy knows is learned anew.  Half of the sets of blocks are of any
    share; the others lie near those that a policy that has learned from the first would choose.
    Stage fit: what an adaptive training has taught stays, but for what smaller sizes lose, half
    of which is measured; the prices of budgets are found for these frames.

    In both the head of presence, where there is one, learns from the same frames and `pictures`.
    """
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if config.threads:
        torch.set_num_threads(config.threads)
    out, where = Path(config.out), device_of(config.device)
    network, data = begin(config, say)
    if not isinstance(network, LiteNetwork):
        raise ValueError(
            f'stage={config.stage}: {network.config.name} has no blocks that run whole')
    network.config.check_policy()
    try_folder(out.parent)
    weights = {} if config.loss == 'paper' else {
        task: value.to(where)
        for task, value in class_weights(data, network.config.outputs).items()}
    size, count = network.config.input_size, min(config.frames or len(data), len(data))
    if count < 10:
        raise ValueError(f'data: {data.root} has {count} frames: the policy needs at least 10')

    def frames(name: str) -> Iterator[dict[str, Any]]:
        began = time.monotonic()
        for number, frame in enumerate(unchanged(data, size, 1, count)):
            yield frame
            if (number + 1) % LOG_EVERY == 0 or number + 1 == count:
                left = (time.monotonic() - began) / (number + 1) * (count - number - 1)
                say(f'{name}: frame {number + 1}/{count}, {left:.0f} s left')

    if network.config.rare:
        told = presence.fit(network, *presence.look(
            network.to(where), chain(frames('presence'), (
                presence.pictured(Pictures(config.pictures), size, config.seed)
                if config.pictures else ())),
            PRESENCE_SETS, config.seed + 2, config.bfloat16))
        say('of frames that it has not seen, the head of presence misses {missed:.1%} of those '
            'with something large, and spares {spared:.1%} of those with nothing a '
            'decoder'.format(**told))
    network.to(where)
    if network.config.reduced:
        network.policy.smaller.lerp_(
            worth.measure_sizes(network, frames('smaller sizes'), weights, config.bfloat16),
            1.0 if config.stage == 'policy' else SIZES_FITTED)
    if config.stage == 'policy':
        _teach(config, network, where, frames, weights, say)
    else:
        seen = worth.look(network, frames('prices'))
        worth.settle(network.cpu(), seen)
    written = notes(config, f'{config.stage} stage, {count} frames')
    if config.stage == 'fit':
        before, _ = tensors.read(checkpoint.find(config.start))
        written['trained'] = f'{before.get("trained", "")}; {written["trained"]}'.lstrip('; ')
        written['settings'] = before.get('settings', written['settings'])
    checkpoint.save(out, network, notes=written)
    say(f'wrote {out}')


def _teach(
        config: TrainConfig, network: LiteNetwork, where: torch.device,
        frames: Callable[[str], Iterator[dict[str, Any]]], weights: dict[str, torch.Tensor],
        say: Callable[[str], None]) -> None:
    """Teach the policy what sets of blocks are worth, and leave the network on the CPU."""
    half = config.sets // 2
    first = worth.measure(
        network, frames('sets of any share'), config.sets - half, weights, config.seed,
        bfloat16=config.bfloat16)
    worth.fit(network.cpu(), first, seed=config.seed)
    near = worth.likely(network, first)
    second = worth.measure(
        network.to(where), frames(f'sets near {len(near)} likely ones'), half, weights,
        config.seed + 1, near, config.bfloat16)
    shares = worth.fit(network.cpu(), first.joined(second), seed=config.seed)
    say('the policy explains {policy:.1%} of what differs between sets in frames that it has not '
        'seen; without a look at them {fixed:.1%} can be explained'.format(**shares))

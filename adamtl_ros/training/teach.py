# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The stage that teaches the policy alone."""

from collections.abc import Iterator
from pathlib import Path
import time
from typing import Any

from rich.console import Console
import torch

from adamtl_ros.files import try_folder
from adamtl_ros.network import checkpoint
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.training import presence
from adamtl_ros.training import worth
from adamtl_ros.training.batches import class_weights
from adamtl_ros.training.batches import unchanged
from adamtl_ros.training.begin import begin
from adamtl_ros.training.begin import device_of
from adamtl_ros.training.begin import notes
from adamtl_ros.training.config import TrainConfig
from adamtl_ros.training.train import LOG_EVERY

PRESENCE_SETS = 3
"""Under how many sets of gates the head of presence sees a frame, beside dense."""


def teach_policy(config: TrainConfig) -> None:
    """
    Measure what sets of blocks are worth, teach it to the policy, and write the weights.

    Half of the sets are of any share; the others lie near those that a policy that has learned
    from the first would choose.  Where the network has a head of presence, it learns from the
    same frames.
    """
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if config.threads:
        torch.set_num_threads(config.threads)
    out, where = Path(config.out), device_of(config.device)
    network, data = begin(config, say)
    if not isinstance(network, LiteNetwork):
        raise ValueError(f'stage=policy: {network.config.name} has no blocks that run whole')
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
            network.to(where), frames('presence'), PRESENCE_SETS, config.seed + 2,
            config.bfloat16))
        say('of frames that it has not seen, the head of presence misses {missed:.1%} of those '
            'with something large, and spares {spared:.1%} of those with nothing a '
            'decoder'.format(**told))
    network.to(where)
    if network.config.reduced:
        network.policy.smaller.copy_(worth.measure_sizes(
            network, frames('smaller sizes'), weights, config.bfloat16))
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
    checkpoint.save(out, network, notes=notes(config, f'policy stage, {count} frames'))
    say(f'wrote {out}')

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every training begins with: the network, its data and its device."""

from collections.abc import Callable
from dataclasses import asdict
import json
import os

import torch

from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.kinds import network_of
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.runtime.device import device
from adamtl_ros.training.batches import open_pool
from adamtl_ros.training.batches import Pool
from adamtl_ros.training.config import TrainConfig


def begin(config: TrainConfig, say: Callable[[str], None]) -> tuple[AdaMTL | LiteNetwork, Pool]:
    """Return the network to train, with what fits of the weights to begin with, and its data."""
    given = checkpoint.load(config.start, to_train=True) if config.start else None
    base = given.config if given else PRESETS[config.preset]
    tasks = config.chosen(base)
    data = open_pool(config.data, tasks, 'train', base.canonical, config.per_clip)
    wanted = config.network_config(base, data.classes)
    config.check_kind(wanted)
    network = network_of(wanted)
    if given is None:
        return network, data
    state, old = network.state_dict(), given.state_dict()
    fresh = []
    for part in ('encoder', 'pyramid', 'policy', 'presence',
                 *(f'decoders.{task}' for task in wanted.tasks)):
        names = [name for name in state if name.startswith(part + '.')]
        if _same(part, wanted, given.config) and all(
                name in old and old[name].shape == state[name].shape for name in names):
            state |= {name: old[name] for name in names}
        elif part == 'encoder':
            raise ValueError(f'start={config.start}: its encoder has other shapes')
        else:
            fresh.append(part)
    network.load_state_dict(state)
    say(f'begins with {config.start}' + (f', but for {", ".join(fresh)}' if fresh else ''))
    return network, data


def _same(part: str, wanted: Config, given: Config) -> bool:
    """Return whether a part of two networks is for the same tasks and classes."""
    if part == 'policy':
        return wanted.policy != 'task_aware' or wanted.tasks == given.tasks
    task = part.partition('.')[2]
    return wanted.classes.get(task) == given.classes.get(task)


def notes(config: TrainConfig, trained: str) -> dict[str, str]:
    """Return what weights files tell of their training."""
    # Where things lie on this machine is of no use to those who get the weights.
    settings = {
        key: value for key, value in asdict(config).items()
        if key not in ('data', 'val', 'out', 'start', 'teacher', 'pictures')}
    return {'licence': 'Apache-2.0', 'trained': trained, 'settings': json.dumps(settings)}


def device_of(name: str) -> torch.device:
    """Return the device of this process; under torchrun 'cuda' is another one for each."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return device(f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if name == 'cuda' else name)

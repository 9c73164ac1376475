# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run, from a YAML file and `key=value` pairs."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import MISSING
from dataclasses import replace
from typing import Any

import yaml

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.config import tuples
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import TASKS

CHOICES = {
    'stage': ('static', 'open', 'adaptive'),
    'loss': ('plain', 'paper'),
    'objective': ('gain', 'efficiency'),
    'efficiency': ('total', 'layer', 'mixed'),
}


@dataclass(frozen=True)
class TrainConfig:
    """
    One training run.

    Data and network
        data: folder of the training split, or of a data set.  val: likewise for validation, ''
        for none.  out: the weights file; state, best weights and log lie beside it.  preset, and
        network: settings of NetworkConfig over it.  tasks: those trained, () for all (one is a
        single-task baseline).  start: weights to begin with, '' for none.
    Stages
        stage: 'static', the dense network; 'open', its controllers alone, until they open every
        gate; 'adaptive', network and policy together.  objective: what the adaptive stage wants
        of the policy.  'efficiency' is the paper's: the shares of open blocks and active tokens
        approach blocks_target and tokens_target (efficiency: of the 'total', of each 'layer', or
        'mixed'; weighted_tokens: counted by their channels; efficiency_weight), and for the first
        `alternate` steps the tasks take turns, an epoch each.  'gain' teaches the policy, for
        budgets drawn from the range `budgets`, which gates were measured to be worth their MACs;
        prices: what a MAC counts in each stage (empty: 1), where some take longer than others.
    Losses
        loss: 'plain', or 'paper' with the paper's losses and weights.  teacher: weights of a
        dense network; distill: weight of the distance to its outputs (under 'gain', without
        teacher, to the network's own dense outputs).
    Optimisation
        steps, batch (over all processes), rate and policy_rate (peaks), warmup (steps), decay
        (AdamW), clip (gradient norm, of network and policy each), ema (decay of the averaged
        weights that are kept, 0: none), seed.
    Running
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.  bfloat16: autocast, worth it only where the
        processor computes in it natively.
        threads: of torch, 0 leaves it to torch.  workers: processes that read data, 0: none.
        save_every, validate_every (steps).  val_frames: how many validate, 0: all.
        log: write TensorBoard events.
    """

    data: str = ''
    val: str = ''
    out: str = 'glasses.safetensors'
    preset: str = 'glasses'
    network: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    start: str = ''
    stage: str = 'static'
    objective: str = 'gain'
    budgets: tuple[float, ...] = (0.25, 1.0)
    prices: tuple[float, ...] = ()
    blocks_target: float = 0.9
    tokens_target: float = 0.5
    efficiency: str = 'total'
    weighted_tokens: bool = True
    efficiency_weight: float = 1.0
    alternate: int = 0
    loss: str = 'plain'
    teacher: str = ''
    distill: float = 0.0
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-3
    policy_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.05
    clip: float = 5.0
    ema: float = 0.0
    seed: int = 0
    device: str = 'auto'
    bfloat16: bool = False
    threads: int = 0
    workers: int = 1
    save_every: int = 100
    validate_every: int = 500
    val_frames: int = 64
    log: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError on values that cannot work."""
        if self.preset not in PRESETS:
            raise ValueError(f'preset={self.preset!r}: choose one of {", ".join(PRESETS)}')
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f'{key}={getattr(self, key)!r}: choose one of {", ".join(allowed)}')
        if not self.data:
            raise ValueError('data is empty: give the folder of the training split, data=FOLDER')
        if not self.out.endswith('.safetensors'):
            raise ValueError(f'out={self.out!r}: the name of a .safetensors file')
        for key, least in (
                ('steps', 1), ('batch', 1), ('save_every', 1), ('validate_every', 1),
                ('warmup', 0), ('workers', 0), ('threads', 0), ('val_frames', 0),
                ('alternate', 0)):
            if getattr(self, key) < least:
                raise ValueError(f'{key}={getattr(self, key)}: at least {least}')
        for key in ('rate', 'policy_rate', 'clip'):
            if not getattr(self, key) > 0:
                raise ValueError(f'{key}={getattr(self, key)}: above 0')
        for key in ('decay', 'distill', 'efficiency_weight'):
            if not getattr(self, key) >= 0:
                raise ValueError(f'{key}={getattr(self, key)}: at least 0')
        for key in ('blocks_target', 'tokens_target'):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f'{key}={getattr(self, key)}: from 0 to 1')
        if not 0 <= self.ema < 1:
            raise ValueError(f'ema={self.ema}: from 0 to below 1')
        if len(self.budgets) != 2 or not 0 < self.budgets[0] <= self.budgets[1] <= 1:
            raise ValueError(f'budgets={self.budgets}: give two ascending numbers in (0, 1]')
        if any(not price > 0 for price in self.prices):
            raise ValueError(f'prices={self.prices}: each above 0')
        ordered(self.tasks)
        if self.teacher and not self.distill:
            raise ValueError('teacher needs a weight: give distill=1.0, say')
        if self.distill and not self.teacher and (
                self.stage != 'adaptive' or self.objective != 'gain'):
            raise ValueError(
                f'distill={self.distill}: give teacher=WEIGHTS (only the objective gain of the '
                'adaptive stage can learn from its own dense outputs)')
        if self.stage == 'open' and not self.start:
            raise ValueError('the stage open needs the weights of the static one: start=WEIGHTS')

    def network_config(
            self, base: NetworkConfig, classes: Mapping[str, tuple[str, ...]]) -> NetworkConfig:
        """
        Return the network to train.

        base: that of the preset or of the weights to begin with.  classes: those of the data.
        """
        known = {item.name for item in fields(NetworkConfig)} - {'name', 'outputs', 'classes'}
        for key in self.network:
            if key not in known:
                raise ValueError(
                    f'network: unknown setting {key!r}: the settings are '
                    f'{", ".join(sorted(known))}')
        tasks = self.chosen(base)
        named = {task: tuple(classes[task]) for task in tasks if TASKS[task].kind == 'classes'}
        outputs = {
            task: len(named[task]) if task in named else TASKS[task].channels for task in tasks}
        config = replace(
            base, outputs=outputs, classes=named,
            **{key: tuples(value) for key, value in self.network.items()})
        config.check()
        return config

    def chosen(self, base: NetworkConfig) -> tuple[str, ...]:
        """Return the tasks to train."""
        return ordered(self.tasks) or base.tasks


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """Read `CONFIG.yaml key=value ...`; ValueError names what is wrong."""
    path, *pairs = arguments
    try:
        with open(path, encoding='utf-8') as file:
            values = yaml.safe_load(file) or {}
        if not isinstance(values, dict):
            raise ValueError('expected a mapping of settings')
        for pair in pairs:
            key, equals, text = pair.partition('=')
            if not equals:
                raise ValueError(f'{pair!r}: settings are given as key=value')
            values[key] = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from error
    kinds = {item.name: _kind(item) for item in fields(TrainConfig)}
    for key, value in values.items():
        if key not in kinds:
            raise ValueError(f'unknown setting {key!r}: the settings are {", ".join(kinds)}')
        try:
            values[key] = _convert(key, value, kinds[key])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f'{key}={value!r}: expected {kinds[key].__name__}') from None
    return TrainConfig(**values)


def _kind(item: Any) -> Callable:
    return dict if item.default is MISSING else type(item.default)


def _convert(key: str, value: Any, kind: Callable) -> Any:
    if kind is tuple:
        items = [value] if isinstance(value, str) else list(value)
        return tuple(str(v) if key == 'tasks' else float(v) for v in items)
    if kind is str:
        return '' if value is None else str(value)
    if isinstance(value, bool) != (kind is bool) or (kind is int and value != int(value)):
        raise ValueError
    return kind(value)

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
from pathlib import Path
from typing import Any

import torch
import yaml

from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.config import tuples
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.lite import check_size
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import TASKS

CHOICES = {
    'stage': ('static', 'open', 'adaptive', 'policy', 'fit'),
    'loss': ('plain', 'robust', 'paper'),
    'objective': ('gain', 'efficiency'),
    'efficiency': ('total', 'layer', 'mixed'),
}

AFTERWARDS = 'policy', 'fit'
"""Stages that leave the network as it is: they measure it."""


@dataclass(frozen=True)
class TrainConfig:
    """
    One training run.

    Data and network
        data: folder of the training split, or of a data set, or several.  per_clip: frames of
        each clip that an epoch sees, 0: all.  val: a folder for validation, '' for none.  out: the
        weights file; state, best weights and log lie beside it.  preset, and network: settings of
        NetworkConfig or LiteConfig over it.  tasks: those trained, () for all (one is a
        single-task baseline).  start: weights to begin with, '' for none.
    Stages
        stage: 'static', the dense network; 'adaptive', network and policy together; of networks
        with controllers 'open', those alone, until they open every gate; of those whose blocks
        run whole or not at all 'policy': what blocks are worth is measured on `frames` frames
        (0: all), under `sets` sets of gates each, and taught to the policy alone; 'fit': the last
        of all, what follows from weights that stay as they are, on `frames` frames.
        objective: what the adaptive stage wants of controllers.  'efficiency' is the paper's: the
        shares of open blocks and active tokens approach blocks_target and tokens_target
        (efficiency: of the 'total', of each 'layer', or 'mixed'; weighted_tokens: counted by their
        channels; efficiency_weight), and for the first `alternate` steps the tasks take turns, an
        epoch each.  'gain' teaches the policy, for
        budgets drawn from the range `budgets`, which gates were measured to be worth their MACs;
        prices: what a MAC counts in each stage (empty: 1), where some take longer than others.
    Losses
        loss: 'plain', 'robust', or 'paper' with the paper's losses and weights.  teacher: weights
        of a dense network; distill: weight of the distance to its outputs (under 'gain', without
        teacher, to the network's own dense outputs).  With pictures the teacher speaks of what
        these have no labels for, and of nothing else.
    Optimisation
        steps, batch (over all processes), rate and policy_rate (peaks), last_rate (share of the
        peaks that is left at the end), warmup (steps), decay (AdamW), clip (gradient norm, of
        network and policy each), ema (decay of the averaged weights that are kept, 0: none), seed.
    Convolutional networks
        sizes: (height, width) of the input, of which each step draws one; () for that of the
        network.  frozen: the stem and so many stages keep the weights that they begin with, and
        all later ones their depthwise layers and the statistics of their norms; 0: all is
        trained.  encoder_rate: peak of the last stage's rate, each earlier one's is layer_decay
        times that of the next; 0: as rate.  style: probability that the features of two frames
        exchange their style.  pictures: a folder of real ones (training.pictures), '' for none;
        pictured: their share of each batch.
    Running
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.  bfloat16: autocast, worth it only where the
        processor computes in it natively; the text 'auto' in a file of settings asks for that.
        threads: of torch, 0 leaves it to torch, or when resuming to what the run began with.
        workers: processes that read data, 0: none.
        save_every, validate_every (steps).  val_frames: how many validate, 0: all.
        log: write TensorBoard events.
    """

    data: tuple[str, ...] = ()
    per_clip: int = 0
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
    frames: int = 900
    sets: int = 64
    loss: str = 'plain'
    teacher: str = ''
    distill: float = 0.0
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-3
    policy_rate: float = 1e-3
    last_rate: float = 0.01
    warmup: int = 100
    decay: float = 0.05
    clip: float = 5.0
    ema: float = 0.0
    seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    frozen: int = 0
    encoder_rate: float = 0.0
    layer_decay: float = 1.0
    style: float = 0.0
    pictures: str = ''
    pictured: float = 0.125
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
                ('alternate', 0), ('per_clip', 0), ('frozen', 0), ('sets', 2), ('seed', 0)):
            if getattr(self, key) < least:
                raise ValueError(f'{key}={getattr(self, key)}: at least {least}')
        for key in ('rate', 'policy_rate', 'clip'):
            if not getattr(self, key) > 0:
                raise ValueError(f'{key}={getattr(self, key)}: above 0')
        for key in ('decay', 'distill', 'efficiency_weight', 'encoder_rate'):
            if not getattr(self, key) >= 0:
                raise ValueError(f'{key}={getattr(self, key)}: at least 0')
        for key in ('blocks_target', 'tokens_target', 'last_rate', 'style', 'pictured'):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f'{key}={getattr(self, key)}: from 0 to 1')
        if not 0 <= self.ema < 1:
            raise ValueError(f'ema={self.ema}: from 0 to below 1')
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f'layer_decay={self.layer_decay}: above 0, at most 1')
        if self.frames and self.frames < 10:
            raise ValueError(f'frames={self.frames}: at least 10, or 0 for all')
        for size in self.sizes:
            check_size(size, 'sizes')
        if len(self.budgets) != 2 or not 0 < self.budgets[0] <= self.budgets[1] <= 1:
            raise ValueError(f'budgets={self.budgets}: give two ascending numbers in (0, 1]')
        if any(not price > 0 for price in self.prices):
            raise ValueError(f'prices={self.prices}: each above 0')
        ordered(self.tasks)
        if self.teacher and not self.distill:
            raise ValueError('teacher needs a weight: give distill=1.0, say')
        if self.distill and not self.teacher and self.stage not in AFTERWARDS and (
                self.stage != 'adaptive' or self.objective != 'gain'):
            raise ValueError(
                f'distill={self.distill}: give teacher=WEIGHTS (only the objective gain of the '
                'adaptive stage can learn from its own dense outputs)')
        if self.stage in ('open', *AFTERWARDS) and not self.start:
            raise ValueError(
                f'the stage {self.stage} needs the weights of '
                f'{"training" if self.stage == "fit" else "the static one"}: start=WEIGHTS')

    def check_kind(self, network: Config) -> None:
        """Raise ValueError on settings that networks of this kind do not have."""
        stages: tuple[str, ...] = ('static', 'adaptive', *AFTERWARDS)
        others: tuple[str, ...] = ('prices',)
        if network.kind != 'lite':
            stages, others = ('static', 'open', 'adaptive'), (
                'sizes', 'frozen', 'encoder_rate', 'style', 'pictures')
        if self.stage not in stages:
            raise ValueError(
                f'stage={self.stage}: of the network {network.name} there are '
                f'{", ".join(stages[:-1])} and {stages[-1]}')
        for key in others:
            if getattr(self, key):
                raise ValueError(
                    f'{key}={getattr(self, key)}: not of networks like {network.name}')
        if isinstance(network, LiteConfig):
            if self.frozen > len(network.stages):
                raise ValueError(
                    f'frozen={self.frozen}: {network.name} has {len(network.stages)} stages')
            if self.pictures and 'person' not in network.classes.get('semseg', ()):
                raise ValueError(
                    f'pictures={self.pictures}: they teach what a person is, and the data have no '
                    "class 'person' of semseg")

    def network_config(
            self, base: Config, classes: Mapping[str, tuple[str, ...]]) -> Config:
        """
        Return the network to train.

        base: that of the preset or of the weights to begin with.  classes: those of the data.
        """
        known = {item.name for item in fields(base)} - {'name', 'outputs', 'classes'}
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
        try:
            config.check()
        except TypeError as error:
            raise ValueError(f'network={self.network}: {error}') from None
        return config

    def chosen(self, base: Config) -> tuple[str, ...]:
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
            if key == 'bfloat16' and value == 'auto':
                value = native_bfloat16(str(values.get('device', 'auto')))
            values[key] = _convert(key, value, kinds[key])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f'{key}={value!r}: expected {kinds[key].__name__}') from None
    return TrainConfig(**values)


def native_bfloat16(device: str) -> bool:
    """Return whether a device ('auto', 'cpu', 'cuda:N') computes in bfloat16 natively."""
    if device != 'cpu' and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path('/proc/cpuinfo').read_text(encoding='utf-8').split()
    except OSError:
        return False
    return 'avx512_bf16' in flags or 'amx_bf16' in flags


def _kind(item: Any) -> Callable:
    return dict if item.default is MISSING else type(item.default)


def _convert(key: str, value: Any, kind: Callable) -> Any:
    if kind is tuple:
        if value is None or value == '':
            return ()
        items = [value] if isinstance(value, str) else list(value)
        if key == 'sizes':
            return tuple(tuple(size) for size in items)
        return tuple(str(v) if key in ('tasks', 'data') else float(v) for v in items)
    if kind is str:
        return '' if value is None else str(value)
    if isinstance(value, bool) != (kind is bool) or (kind is int and value != int(value)):
        raise ValueError
    return kind(value)

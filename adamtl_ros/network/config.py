# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Network configurations: the presets, and what a checkpoint carries as metadata."""

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace
import json
from typing import Any

from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.tasks import TASKS

POLICIES = ('task_aware', 'task_agnostic', 'none')

_WORDS = {'stem': ('linear', 'conv'), 'policy': POLICIES}
_NUMBER, _PAIR, _LIST = 'a whole number', 'two whole numbers', 'whole numbers'
_NUMBERS = {
    'input_size': (_PAIR, 8192), 'embed_dim': (_NUMBER, 4096), 'depths': (_LIST, 99),
    'heads': (_LIST, 999), 'window': (_PAIR, 999), 'mlp_ratio': (_NUMBER, 16),
    'decoder_dim': (_NUMBER, 4096), 'policy_hidden': (_NUMBER, 4096)}
"""What the settings that are counts and sizes look like, and the largest of them; from 1."""
_CLASSES = 65535


@dataclass(frozen=True)
class NetworkConfig:
    """
    Everything that determines the structure of a network like the reference's.

    Pairs are (height, width), in pixels for `input_size` and in tokens elsewhere; stage s works
    on tokens of 4 * 2^s pixels.

    stem: 'linear' (Swin's patch embedding) or 'conv' (two 3x3 convolutions of stride 2).
    policy: 'task_aware' (a controller a task, joined over the enabled ones), 'task_agnostic' (one
    for all), or 'none' (a network that always runs dense).
    normals_axes: signs that take the decoder's normals to the optical frame.
    linear_depth: the decoder gives metres, as the reference's does, not their logarithm.
    outputs: decoder channels per task; classes: class names of the tasks that have them.
    """

    name: str
    input_size: tuple[int, int] = (224, 224)
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: tuple[int, int] = (7, 7)
    mlp_ratio: int = 4
    stem: str = 'linear'
    decoder_dim: int = 64
    policy: str = 'task_aware'
    policy_hidden: int = 64
    normals_axes: tuple[int, int, int] = (1, 1, 1)
    linear_depth: bool = False
    outputs: dict[str, int] = field(default_factory=lambda: {
        name: TASKS[name].channels
        for name in ('semseg', 'human_parts', 'saliency', 'normals')})
    classes: dict[str, tuple[str, ...]] = field(default_factory=lambda: {
        name: TASKS[name].classes for name in ('semseg', 'human_parts')})

    kind = 'swin'
    # What networks of the other kind have otherwise.
    canonical = False
    budget_input = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks that the network has, in the order of TASKS."""
        return tuple(name for name in TASKS if name in self.outputs)

    def resolution(self, stage: int) -> tuple[int, int]:
        """Return the (height, width) in tokens of a stage, 0 being the first."""
        return self.input_size[0] >> 2 + stage, self.input_size[1] >> 2 + stage

    def width(self, stage: int) -> int:
        """Return the number of channels of a stage."""
        return self.embed_dim << stage

    def stage_window(self, stage: int) -> tuple[int, int]:
        """Return the attention window of a stage: no larger than the stage itself."""
        height, width = self.resolution(stage)
        return min(self.window[0], height), min(self.window[1], width)

    def shift(self, stage: int, block: int) -> tuple[int, int]:
        """Return the window shift of a block: half a window in every second block."""
        if block % 2 == 0:
            return 0, 0
        resolution, window = self.resolution(stage), self.stage_window(stage)
        return (0 if resolution[0] == window[0] else window[0] // 2,
                0 if resolution[1] == window[1] else window[1] // 2)

    def tap_shapes(self) -> list[tuple[int, int, int]]:
        """Return (channels, height, width) of each map that the decoders get, finest first."""
        stages = [(self.width(s), *self.resolution(s)) for s in range(len(self.depths))]
        return [*stages[1:], stages[-1]]

    def check(self) -> None:
        """Raise ValueError where a setting is out of its range, or sizes do not fit together."""
        self._check_values()
        self._check_outputs()
        stages = len(self.depths)
        if len(self.heads) != stages:
            raise ValueError(f'{self.name}: depths and heads need one entry a stage')
        for stage in range(stages):
            if self.width(stage) % self.heads[stage]:
                raise ValueError(
                    f'{self.name}: embed_dim {self.embed_dim} gives stage {stage} '
                    f'{self.width(stage)} channels, which {self.heads[stage]} heads do not divide')
            for axis in (0, 1):
                size, window = self.resolution(stage)[axis], self.stage_window(stage)[axis]
                if self.input_size[axis] % (4 << stage) or size % window:
                    raise ValueError(
                        f'{self.name}: input {self.input_size} and window {self.window} do not '
                        f'divide stage {stage} ({size} tokens)')

    def _check_values(self) -> None:
        def refuse(key: str, allowed: str) -> ValueError:
            return ValueError(f'{self.name}: {key} {getattr(self, key)!r}: {allowed}')

        if not isinstance(self.name, str):
            raise refuse('name', 'a text')
        for key, words in _WORDS.items():
            if getattr(self, key) not in words:
                raise refuse(key, f'choose one of {", ".join(words)}')
        for key, (form, most) in _NUMBERS.items():
            if not _fits(getattr(self, key), form, most):
                raise refuse(key, f'{form} from 1 to {most}')
        if not isinstance(self.linear_depth, bool):
            raise refuse('linear_depth', 'true or false')
        axes = self.normals_axes
        if not isinstance(axes, tuple) or len(axes) != 3 or not set(axes) <= {-1, 1}:
            raise refuse('normals_axes', 'three signs, each 1 or -1')

    def _check_outputs(self) -> None:
        if not isinstance(self.outputs, dict) or not self.outputs or any(
                name not in TASKS for name in self.outputs):
            raise ValueError(
                f'{self.name}: outputs must name at least one of the tasks {", ".join(TASKS)}')
        for task, count in self.outputs.items():
            if TASKS[task].kind != 'classes':
                if type(count) is not int or count != TASKS[task].channels:
                    raise ValueError(
                        f'{self.name}: outputs of {task} {count!r}: it has {TASKS[task].channels}')
                continue
            names = self.classes.get(task) if isinstance(self.classes, dict) else None
            names = names if isinstance(names, tuple) else ()
            if not _fits(count, _NUMBER, _CLASSES) or len(names) != count or not all(
                    isinstance(name, str) for name in names):
                raise ValueError(
                    f'{self.name}: outputs of {task} {count!r}, with {len(names)} names of '
                    f'classes: one output a class, 1 to {_CLASSES} of them')

    def check_policy(self) -> None:
        """Raise ValueError where there is no policy."""
        if self.policy == 'none':
            raise ValueError(
                f'{self.name} has no policy: it runs dense, in mode static, until an adaptive '
                'stage of `adamtl train` has given it one')

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps({'encoder': self.kind, **asdict(self)})

    @staticmethod
    def from_values(values: dict[str, Any]) -> 'NetworkConfig':
        """Return the configuration of JSON values; ValueError on unknown or missing keys."""
        known = {item.name for item in fields(NetworkConfig)}
        if 'name' not in values or set(values) - known:
            raise ValueError('the configuration is not one of an adamtl_ros network')
        for key, value in values.items():
            if key == 'classes' and isinstance(value, dict):
                values[key] = {task: tuples(names) for task, names in value.items()}
            else:
                values[key] = tuples(value)
        config = NetworkConfig(**values)
        config.check()
        return config


def read_config(text: str) -> NetworkConfig | LiteConfig:
    """Return the configuration of a JSON text; ValueError where it is not one of ours."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError('the configuration is not one of an adamtl_ros network')
    kinds: dict[str, type[NetworkConfig] | type[LiteConfig]] = {
        'swin': NetworkConfig, 'lite': LiteConfig}
    kind = values.pop('encoder', 'swin')
    if kind not in kinds:
        raise ValueError(f'encoder {kind!r}: this version knows {", ".join(kinds)}')
    return kinds[kind].from_values(values)


def tuples(value: Any) -> Any:
    """Return a list as a tuple, and those in it; what is no list as it is."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def _fits(value: Any, form: str, most: int) -> bool:
    """Return whether a value has one of the forms of _NUMBERS, all of it from 1 to `most`."""
    if form == _NUMBER:
        # True is an int as well.
        return type(value) is int and 1 <= value <= most
    if not isinstance(value, tuple) or not value or (form == _PAIR and len(value) != 2):
        return False
    return all(_fits(item, _NUMBER, most) for item in value)


_SWIN = NetworkConfig('swin_tiny')

PRESETS: dict[str, NetworkConfig | LiteConfig] = {config.name: config for config in (
    _SWIN,
    replace(_SWIN, name='swin_small', depths=(2, 2, 18, 2), decoder_dim=128),
    replace(
        _SWIN, name='swin_base', embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32),
        decoder_dim=128),
    LiteConfig('glasses', reduced=(0.73, 0.62, 0.42)),
)}

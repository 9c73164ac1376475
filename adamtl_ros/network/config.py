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

_WORDS = {
    'stem': ('linear', 'conv'), 'taps': ('merged', 'stage'), 'decoder': ('residual', 'pyramid'),
    'policy': POLICIES, 'token_gates': ('block', 'stage')}
_NUMBER, _PAIR, _LIST, _PAIRS = (
    'a whole number', 'two whole numbers', 'whole numbers', 'pairs of whole numbers')
_NUMBERS = {
    'input_size': (_PAIR, 8192), 'embed_dim': (_NUMBER, 4096), 'depths': (_LIST, 99),
    'heads': (_LIST, 999), 'window': (_PAIR, 999), 'mlp_ratio': (_NUMBER, 16),
    'decoder_dim': (_NUMBER, 4096), 'policy_hidden': (_NUMBER, 4096), 'cells': (_PAIRS, 999)}
"""What the settings that are counts and sizes look like, and the largest of them; from 1."""
_FLAGS = (
    'position', 'budget_input', 'skip_attention', 'skipped_norm', 'linear_depth', 'canonical')
_CLASSES = 65535


@dataclass(frozen=True)
class NetworkConfig:
    """
    Everything that determines the network's structure.

    Pairs are (height, width), in pixels for `input_size` and in tokens elsewhere; stage s works
    on tokens of 4 * 2^s pixels.

    stem: 'linear' (Swin's patch embedding) or 'conv' (two 3x3 convolutions of stride 2).
    position: add a learned position (row + column) to the tokens of the first stage.
    taps: 'stage' feeds decoders the stage outputs (strides 4 to 32), 'merged' feeds them what
    leaves patch merging, as the AdaMTL reference does.
    decoder: 'pyramid' (top-down, light) or 'residual' (the reference's).
    policy: 'task_aware' (a controller a task, joined over the enabled ones), 'task_agnostic' (one
    for all), or 'none' (a network that always runs dense).
    cells: per stage, the patch of tokens that shares a gate; (1, 1) gates single tokens.
    token_gates: when a token controller looks: 'block', before each block, as in the reference, or
    'stage', once, at the entry of a stage, for all its blocks: the stage then runs in one piece.
    budget_input: whether the controllers see the requested budget.
    skip_attention: whether attention is skipped in windows without an active token.
    skipped_norm: a skipped token's second residual is norm2(x), as in the reference, not 0.
    frame_spread: how far, in shares of the dense cost, one frame may leave the budget.
    normals_axes: signs that take the decoder's normals to the optical frame.
    linear_depth: the decoder gives metres, as the reference's does, not their logarithm.
    canonical: depth and normals are for the canonical camera (adamtl_ros.camera), not as the
    picture's own camera sees them.
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
    position: bool = False
    taps: str = 'merged'
    decoder: str = 'residual'
    decoder_dim: int = 64
    policy: str = 'task_aware'
    policy_hidden: int = 64
    cells: tuple[tuple[int, int], ...] = ((1, 1), (1, 1), (1, 1), (1, 1))
    token_gates: str = 'block'
    budget_input: bool = False
    skip_attention: bool = False
    skipped_norm: bool = True
    frame_spread: float = 0.0
    normals_axes: tuple[int, int, int] = (1, 1, 1)
    linear_depth: bool = False
    canonical: bool = False
    outputs: dict[str, int] = field(default_factory=lambda: {
        name: TASKS[name].channels
        for name in ('semseg', 'human_parts', 'saliency', 'normals')})
    classes: dict[str, tuple[str, ...]] = field(default_factory=lambda: {
        name: TASKS[name].classes for name in ('semseg', 'human_parts')})

    kind = 'swin'

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks that the network has, in the order of TASKS."""
        return tuple(name for name in TASKS if name in self.outputs)

    @property
    def all_controllers(self) -> bool:
        """
        Return whether the controllers of all tasks look at every frame, whatever is enabled.

        They do where they look once a stage, and are cheap: nothing then depends on which tasks
        are enabled but whose logits are read.
        """
        return self.policy == 'task_aware' and self.token_gates == 'stage'

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
        return stages if self.taps == 'stage' else [*stages[1:], stages[-1]]

    def check(self) -> None:
        """Raise ValueError where a setting is out of its range, or sizes do not fit together."""
        self._check_values()
        self._check_outputs()
        stages = len(self.depths)
        if not len(self.heads) == len(self.cells) == stages:
            raise ValueError(f'{self.name}: depths, heads and cells need one entry a stage')
        for stage in range(stages):
            if self.width(stage) % self.heads[stage]:
                raise ValueError(
                    f'{self.name}: embed_dim {self.embed_dim} gives stage {stage} '
                    f'{self.width(stage)} channels, which {self.heads[stage]} heads do not divide')
            for axis in (0, 1):
                size, window = self.resolution(stage)[axis], self.stage_window(stage)[axis]
                cell = self.cells[stage][axis]
                if self.input_size[axis] % (4 << stage) or size % window or size % cell:
                    raise ValueError(
                        f'{self.name}: input {self.input_size}, window {self.window} and cells '
                        f'{self.cells[stage]} do not divide stage {stage} ({size} tokens)')
                if self.skip_attention and (window % cell or self.shift(stage, 1)[axis] % cell):
                    raise ValueError(
                        f'{self.name}: skip_attention needs cells that lie in one window each: '
                        f'{self.cells[stage]} do not divide the window {self.window} of stage '
                        f'{stage} and its shift by half')

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
        for key in _FLAGS:
            if not isinstance(getattr(self, key), bool):
                raise refuse(key, 'true or false')
        spread = self.frame_spread
        if isinstance(spread, bool) or not isinstance(spread, int | float) or not 0 <= spread <= 1:
            raise refuse('frame_spread', 'a number from 0 to 1')
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
    return all(_fits(item, _PAIR if form == _PAIRS else _NUMBER, most) for item in value)


_SWIN = NetworkConfig('swin_tiny')

PRESETS: dict[str, NetworkConfig | LiteConfig] = {config.name: config for config in (
    _SWIN,
    replace(_SWIN, name='swin_small', depths=(2, 2, 18, 2), decoder_dim=128),
    replace(
        _SWIN, name='swin_base', embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32),
        decoder_dim=128),
    LiteConfig('glasses'),
)}

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Network configurations: the presets, and what a checkpoint carries as metadata."""

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace
import json

from adamtl_ros.tasks import TASKS

POLICIES = ('task_aware', 'task_agnostic', 'none')


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
        """Raise ValueError where the sizes do not fit together."""
        stages = len(self.depths)
        if not len(self.heads) == len(self.cells) == stages:
            raise ValueError(f'{self.name}: depths, heads and cells need one entry a stage')
        if self.token_gates not in ('block', 'stage'):
            raise ValueError(f'{self.name}: token_gates {self.token_gates!r}: block or stage')
        if self.policy not in POLICIES:
            raise ValueError(
                f'{self.name}: policy {self.policy!r}: choose one of {", ".join(POLICIES)}')
        if not self.outputs or any(name not in TASKS for name in self.outputs):
            raise ValueError(
                f'{self.name}: outputs must name at least one of the tasks {", ".join(TASKS)}')
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

    def check_policy(self) -> None:
        """Raise ValueError where there is no policy."""
        if self.policy == 'none':
            raise ValueError(
                f'{self.name} has no policy: it runs dense, in mode static, until an adaptive '
                'stage of `adamtl train` has given it one')

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> 'NetworkConfig':
        """Return the configuration of a JSON text; ValueError on unknown or missing keys."""
        values = json.loads(text)
        known = {item.name for item in fields(NetworkConfig)}
        if not isinstance(values, dict) or 'name' not in values or set(values) - known:
            raise ValueError('the configuration is not one of an adamtl_ros network')
        for key in ('input_size', 'depths', 'heads', 'window', 'normals_axes'):
            if key in values:
                values[key] = tuple(values[key])
        if 'cells' in values:
            values['cells'] = tuple(tuple(cell) for cell in values['cells'])
        if 'classes' in values:
            values['classes'] = {k: tuple(v) for k, v in values['classes'].items()}
        config = NetworkConfig(**values)
        config.check()
        return config


_SWIN = NetworkConfig('swin_tiny')

PRESETS: dict[str, NetworkConfig] = {config.name: config for config in (
    _SWIN,
    replace(_SWIN, name='swin_small', depths=(2, 2, 18, 2), decoder_dim=128),
    replace(
        _SWIN, name='swin_base', embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32),
        decoder_dim=128),
    NetworkConfig(
        name='glasses', input_size=(192, 256), embed_dim=48, heads=(2, 4, 8, 16), window=(6, 8),
        stem='conv', position=True, taps='stage', decoder='pyramid', decoder_dim=48,
        policy_hidden=32, cells=((3, 4), (3, 4), (3, 4), (2, 2)), token_gates='stage',
        budget_input=True, skip_attention=True, skipped_norm=False,
        outputs={name: task.channels for name, task in TASKS.items()}),
)}

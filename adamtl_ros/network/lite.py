# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The convolutional network as numbers: its layers, its gated blocks and what each costs; no torch.

The encoder is an EfficientNet-Lite (Tan & Le, ICML 2019, arXiv 1905.11946; Lite: no
squeeze-and-excitation, ReLU6): inverted bottlenecks, of which those that change neither stride
nor width are residual and so may be left out.  A small pyramid joins four of its maps and is
shared by the decoders.  What is described here is built in torch (`lite_network`) and as OpenVINO
graphs (`runtime.lite_graphs`), and summed up by LiteCost.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace
from functools import cached_property
from functools import lru_cache
import json
import math
from typing import Any

import numpy as np

from adamtl_ros.network.trace import Trace
from adamtl_ros.tasks import TASKS

STRIDE = 32
"""Sides of the input are multiples of this."""

EPSILON = 1e-3
"""Of the encoder's norms, as in the original."""

MEAN, STD = 126.99, 128.01
"""Of the pixels: the encoder expects (x / 255 - 0.498) / 0.502."""

SUBPIXELS = {'edges': 2}
"""How many pixels of a decoder's output lie in one of its last layer, a side (else 1)."""

COARSE = 'encoder.coarse'
"""Name of the gate of the level at stride 32."""

RARE = 'human_parts'
"""The task of what most frames are without: of people."""

LITE0 = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
         (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
LITE2 = ((1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 48), (4, 3, 2, 6, 88),
         (4, 5, 1, 6, 120), (5, 5, 2, 6, 208), (1, 3, 1, 6, 352))
"""Stages of EfficientNet-Lite0 and -Lite2; see LiteConfig."""


@dataclass(frozen=True)
class Conv:
    """A convolution, a norm (unless it has a bias instead), and 'relu6', 'relu' or nothing."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    act: str = ''
    norm: bool = True

    def macs(self, height: int, width: int) -> int:
        """Return the cost of an output of that size."""
        inputs = 1 if self.depthwise else self.inputs
        return height * width * self.kernel ** 2 * inputs * self.outputs


@dataclass(frozen=True)
class BlockSpec:
    """
    An inverted bottleneck: its layers in order, and the (height, width) of its output.

    gated: it is residual, so that it may be left out.
    """

    name: str
    stage: int
    convs: tuple[Conv, ...]
    size: tuple[int, int]
    gated: bool
    macs: int

    @property
    def dense(self) -> int:
        """Return the cost of the block where it runs."""
        return self.macs


@dataclass(frozen=True)
class LiteConfig:
    """
    Everything that determines the network's structure; pairs are (height, width).

    input_size: in pixels, of the frames that no other size suits better; any multiple of 32 runs.
    reduced: shares of that area, descending, at which the policy may run a frame instead.
    stem: channels of the first layer.  stages: of each, the number of blocks, the kernel of their
    depthwise convolution, the stride of the first, the expansion, and the channels.
    taps: the stages whose outputs the pyramid joins, at strides 4, 8, 16 and 32.
    decision: before this stage the policy looks at the map and decides about all later blocks.
    coarse: the first stage at stride 32; this and what follows may be left out as a whole.
    pyramid, fine, head: channels at stride 8, at stride 4, and of a decoder's own layer.
    policy: 'task_aware', or 'none' for a network that always runs dense.
    policy_hidden: width of the policy.
    presence: whether a head tells, from the maps at strides 16 and 32, frames that have nothing
    for the task RARE, whose decoder then need not run.
    outputs: channels per task; classes: class names of the tasks that have them.
    """

    name: str
    input_size: tuple[int, int] = (192, 256)
    reduced: tuple[float, ...] = ()
    stem: int = 32
    stages: tuple[tuple[int, int, int, int, int], ...] = LITE2
    taps: tuple[int, int, int, int] = (1, 2, 4, 6)
    decision: int = 3
    coarse: int = 5
    pyramid: int = 96
    fine: int = 32
    head: int = 48
    policy: str = 'task_aware'
    policy_hidden: int = 64
    presence: bool = False
    outputs: dict[str, int] = field(default_factory=lambda: {
        name: task.channels for name, task in TASKS.items()})
    classes: dict[str, tuple[str, ...]] = field(default_factory=lambda: {
        name: task.classes for name, task in TASKS.items() if task.classes})

    kind = 'lite'
    # What networks of the other kind may have otherwise.
    canonical = True
    budget_input = True
    normals_axes = (1, 1, 1)
    linear_depth = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks that the network has, in the order of TASKS."""
        return tuple(name for name in TASKS if name in self.outputs)

    @property
    def rare(self) -> tuple[str, ...]:
        """Return the tasks that frames can be told to have nothing for."""
        return (RARE,) if self.presence and RARE in self.outputs and (
            self.policy != 'none') else ()

    def at(self, size: tuple[int, int]) -> 'LiteConfig':
        """Return the same network for another (height, width)."""
        return self if size == self.input_size else replace(self, input_size=size)

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) at which a frame may run: in full, then those `reduced`."""
        height, width = self.input_size
        smaller = (_nearest(self.input_size, width / height, share) for share in self.reduced)
        return self.input_size, *((size[1], size[0]) for size in smaller)

    @cached_property
    def first(self) -> Conv:
        """Return the stem's layer."""
        return Conv('encoder.stem', 3, self.stem, 3, 2, act='relu6')

    @cached_property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """Return all blocks in the order in which they run."""
        height, width = self.input_size[0] // 2, self.input_size[1] // 2
        inputs, blocks = self.stem, []
        for stage, (count, kernel, first, expand, channels) in enumerate(self.stages):
            for number in range(count):
                stride = 1 if number else first
                name, hidden = f'encoder.stages.{stage}.{number}.', inputs * expand
                convs = [Conv(name + 'expand', inputs, hidden, act='relu6')] * (expand > 1)
                macs = sum(conv.macs(height, width) for conv in convs)
                height, width = height // stride, width // stride
                rest = (Conv(name + 'depthwise', hidden, hidden, kernel, stride, True, 'relu6'),
                        Conv(name + 'project', hidden, channels))
                macs += sum(conv.macs(height, width) for conv in rest)
                blocks.append(BlockSpec(
                    name[:-1], stage, (*convs, *rest), (height, width),
                    stride == 1 and inputs == channels, macs))
                inputs = channels
        return tuple(blocks)

    @cached_property
    def gated(self) -> tuple[BlockSpec, ...]:
        """
        Return what may be left out: the residual blocks, and last the whole level at stride 32.

        The cost of that level is what it needs beside its residual blocks, none of which runs
        without it.
        """
        rest = [block for block in self.blocks if block.stage >= self.coarse and not block.gated]
        level = sum(block.macs for block in rest)
        return (*(block for block in self.blocks if block.gated),
                BlockSpec(COARSE, self.coarse, (), self.map_size(STRIDE), True, level))

    @cached_property
    def early(self) -> int:
        """Return how many of the gated blocks run before the policy has seen the frame."""
        return sum(block.stage < self.decision for block in self.gated)

    def map_size(self, stride: int) -> tuple[int, int]:
        """Return the (height, width) of maps of a stride."""
        return self.input_size[0] // stride, self.input_size[1] // stride

    def features(self) -> int:
        """Return how many numbers the policy reads: mean and spread of each channel."""
        return 2 * self.stages[self.decision - 1][-1]

    def looks(self) -> int:
        """Return how many numbers the head of presence reads: mean and maximum by channel."""
        return 2 * sum(self.stages[tap][-1] for tap in self.taps[2:])

    def pyramid_convs(self) -> dict[str, tuple[Conv, int]]:
        """Return the layers of the pyramid by name, each with its stride."""
        fine, eighth, sixteenth, last = (self.stages[tap][-1] for tap in self.taps)
        width = self.pyramid
        return {
            'last': (Conv('pyramid.last', last, width), 32),
            'context': (Conv('pyramid.context', last, width, norm=False), 0),
            'sixteenth': (Conv('pyramid.sixteenth', sixteenth, width), 16),
            **_mixing('pyramid.mix_sixteenth', width, width, 16),
            'eighth': (Conv('pyramid.eighth', eighth, width), 8),
            **_mixing('pyramid.mix_eighth', width, width, 8),
            'fine': (Conv('pyramid.fine', fine, self.fine), 4),
            'down': (Conv('pyramid.down', width, self.fine), 8),
            **_mixing('pyramid.mix_fine', self.fine, self.fine, 4)}

    def decoder_convs(self, task: str) -> dict[str, tuple[Conv, int]]:
        """Return the layers of a decoder by name, each with its stride."""
        name = f'decoders.{task}.'
        return {
            **_mixing(name + 'coarse', self.pyramid, self.head, 8),
            'down': (Conv(name + 'down', self.head, self.fine), 8),
            **_mixing(name + 'mix', self.fine, self.fine, 4),
            'out': (Conv(name + 'out', self.fine,
                         self.outputs[task] * SUBPIXELS.get(task, 1) ** 2, norm=False), 4)}

    def check(self) -> None:
        """Raise ValueError, naming the setting, its value and what is allowed."""
        if self.policy not in ('task_aware', 'none'):
            raise ValueError(f'{self.name}: policy {self.policy!r}: choose task_aware or none')
        if not self.outputs or any(name not in TASKS for name in self.outputs):
            raise ValueError(
                f'{self.name}: outputs must name at least one of the tasks {", ".join(TASKS)}')
        check_size(self.input_size, self.name)
        shares = self.reduced
        if not isinstance(shares, tuple) or not all(
                isinstance(share, float) and 0.1 <= share < 1 for share in shares) or list(
                    shares) != sorted(set(shares), reverse=True) or len(shares) > 6:
            raise ValueError(
                f'{self.name}: reduced is {shares!r}: at most 6 shares of the area, descending, '
                'from 0.1 to below 1')
        if not isinstance(self.presence, bool):
            raise ValueError(f'{self.name}: presence is {self.presence!r}: give true or false')
        for key in ('stem', 'pyramid', 'fine', 'head', 'policy_hidden'):
            _whole(self.name, key, getattr(self, key), 1, 4096)
        for task, channels in self.outputs.items():
            _whole(self.name, f'outputs of {task}', channels, 1, 65535)
        if not 1 <= len(self.stages) <= 16:
            raise ValueError(f'{self.name}: {len(self.stages)} stages: 1 to 16')
        strides: list[int] = []
        for number, stage in enumerate(self.stages):
            if len(stage) != 5:
                raise ValueError(
                    f'{self.name}: stage {number} is {stage}: give blocks, kernel, stride, '
                    'expansion and channels')
            for key, value, least, most in zip(
                    ('blocks', 'kernel', 'stride', 'expansion', 'channels'), stage,
                    (1, 1, 1, 1, 1), (64, 15, 2, 16, 4096)):
                _whole(self.name, f'{key} of stage {number}', value, least, most)
            if stage[1] % 2 == 0:
                raise ValueError(f'{self.name}: kernel {stage[1]} of stage {number}: odd numbers')
            strides.append((strides[-1] if strides else 2) * stage[2])
        if len(self.taps) != 4 or not all(
                isinstance(tap, int) and 0 <= tap < len(strides) for tap in self.taps) or [
                    strides[tap] for tap in self.taps] != [4, 8, 16, 32]:
            raise ValueError(
                f'{self.name}: taps {self.taps}: four stages whose strides are 4, 8, 16 and 32')
        _whole(self.name, 'decision', self.decision, 1, len(self.stages) - 1)
        _whole(self.name, 'coarse', self.coarse, self.decision, self.taps[3])
        if strides[self.coarse - 1:self.coarse + 1] != [16, 32]:
            raise ValueError(
                f'{self.name}: coarse is stage {self.coarse}, of stride {strides[self.coarse]}: '
                'give the first of stride 32')
        if len(self.gated) - self.early > 12 or self.early > 8:
            raise ValueError(
                f'{self.name}: {self.early} gated blocks before the decision and '
                f'{len(self.gated) - self.early} after it: at most 8 and 12')

    def check_policy(self) -> None:
        """Raise ValueError where there is no policy."""
        if self.policy == 'none':
            raise ValueError(
                f'{self.name} has no policy: it runs dense, in mode static, until `adamtl train` '
                'has given it one (stage=policy)')

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps({'encoder': self.kind, **asdict(self)})

    @staticmethod
    def from_values(values: dict[str, Any]) -> 'LiteConfig':
        """Return the configuration of JSON values; ValueError on unknown or missing keys."""
        known = {item.name for item in fields(LiteConfig)}
        if 'name' not in values or set(values) - known:
            raise ValueError('the configuration is not one of an adamtl_ros network')
        for key in ('input_size', 'reduced', 'taps', 'stages'):
            if key in values:
                values[key] = _tuples(values[key])
        if isinstance(values.get('classes'), dict):
            values['classes'] = {key: _tuples(names) for key, names in values['classes'].items()}
        config = LiteConfig(**values)
        config.check()
        return config


def check_size(size: Sequence[int], name: str = 'input') -> None:
    """Raise ValueError unless (height, width) are multiples of 32, from 32 to 4096."""
    if len(size) != 2 or not all(
            isinstance(side, int) and side % STRIDE == 0 and STRIDE <= side <= 4096
            for side in size):
        raise ValueError(
            f'{name}: input size {tuple(size)}: height and width are multiples of {STRIDE}, from '
            f'{STRIDE} to 4096')


def nearest_size(config: LiteConfig, size: tuple[int, int]) -> tuple[int, int]:
    """
    Return the (width, height) at which the network runs pictures of (width, height).

    Of sides in multiples of 32, those whose ratio is nearest to the picture's, if the area is
    within a fifth of the configured one's; twice as much heed is paid to the ratio.
    """
    return _nearest(config.input_size, size[0] / size[1], 1.0)


@lru_cache(maxsize=64)
def _nearest(base: tuple[int, int], ratio: float, share: float) -> tuple[int, int]:
    area = share * base[0] * base[1]
    if share == 1 and math.isclose(ratio, base[1] / base[0]):
        return base[1], base[0]
    sides = range(STRIDE, 8 * max(base), STRIDE)
    # A part of the area is more exactly that: it is for its cost that it is asked for.
    least, most = (0.8, 1.25) if share == 1 else (0.85, 1.1)
    sizes = [(width, height) for width in sides for height in sides
             if least * area <= width * height <= most * area]
    return min(sizes or [(base[1], base[0])], key=lambda size: (
        2 * abs(math.log(size[0] / size[1] / ratio)) + abs(math.log(size[0] * size[1] / area))))


def _whole(name: str, key: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f'{name}: {key} is {value!r}: a whole number from {least} to {most}')


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _mixing(name: str, inputs: int, outputs: int, stride: int) -> dict[str, tuple[Conv, int]]:
    """Return a depthwise-separable layer."""
    key = name.rsplit('.', 1)[1]
    return {
        f'{key}.depthwise': (
            Conv(name + '.depthwise', inputs, inputs, 3, depthwise=True), stride),
        f'{key}.point': (Conv(name + '.point', inputs, outputs, act='relu'), stride)}


class LiteCost:
    """
    MACs of every part of a network, for one frame of the configured input size.

    Counted are the multiply-accumulates of convolutions and products, as
    torch.utils.flop_counter counts them (two FLOPs each).
    least_area: of the smallest input at which frames run, as a share of the configured one.
    """

    def __init__(self, config: LiteConfig) -> None:
        self.config = config
        self.blocks = config.gated
        height, width = config.map_size(2)
        always = config.first.macs(height, width)
        self.pyramid = _macs(config, config.pyramid_convs())
        always += sum(block.macs for block in config.blocks) + self.pyramid
        self.decoders = {
            task: _macs(config, config.decoder_convs(task)) for task in config.tasks}
        self._gated = sum(block.macs for block in self.blocks)
        least, full = config.sizes[-1], config.input_size
        self.least_area = least[0] * least[1] / (full[0] * full[1])
        self._fixed = always - self._gated
        late = len(self.blocks) - config.early
        self.presence = config.looks() if config.rare else 0
        self.policy = 0 if config.policy == 'none' else config.policy_hidden * (
            config.features() + len(config.tasks) * late)

    def fixed(self, tasks: Iterable[str]) -> int:
        """Return what no gate can save: all but the gated blocks, for these tasks."""
        return self._fixed + sum(self.decoders[task] for task in tasks)

    def dense(self, tasks: Iterable[str]) -> int:
        """Return the cost of the network without its policy, every gate open."""
        return self.fixed(tasks) + self._gated

    def most(self, tasks: Iterable[str]) -> int:
        """Return the cost with every gate open, policy included."""
        return self.dense(tasks) + self.policy

    def minimum(self, tasks: Iterable[str]) -> int:
        """Return the cost at the least size, every gate closed: the least it can choose."""
        if self.config.policy == 'none':
            return self.dense(tasks)
        return LiteCost(self.config.at(self.config.sizes[-1])).fixed(tasks) + self.policy


def _macs(config: LiteConfig, convs: dict[str, tuple[Conv, int]]) -> int:
    # Stride 0 is a single pixel: what holds for the whole picture.
    return sum(
        conv.macs(*(config.map_size(stride) if stride else (1, 1)))
        for conv, stride in convs.values())


def trace_of(
        cost: LiteCost, tasks: Sequence[str], gates: np.ndarray,
        wishes: Sequence[float] | None, empty: Sequence[str] | None = None) -> Trace:
    """
    Return what ran for a frame.

    wishes: None without a policy.  empty: the tasks that were left out, None where none could be.
    """
    macs = [block.macs if gate else 0 for block, gate in zip(cost.blocks, gates)]
    kept = [task for task in tasks if task not in (empty or ())]
    spent = cost.fixed(kept) - (0 if kept else cost.pyramid) + sum(macs)
    spent += (0 if wishes is None else cost.policy) + (0 if empty is None else cost.presence)
    return Trace(
        [np.array([gate]) for gate in gates.tolist()], spent, gates.astype(float).tolist(),
        list(wishes or ()), macs, tuple(empty or ()), cost.config.input_size)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The network as OpenVINO graphs, built from its weights.

Token maps are flat, (H * W, C).  A segment is what runs between two decisions of the policy: a
whole stage, or a block where the policy looks before every block.  A block in it branches: whole,
its shapes are known and nothing is gathered; else its gates are inputs of dynamic length, so that
its time follows what they let through; closed, nothing of it runs.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.normalise import MEAN
from adamtl_ros.network.normalise import STD
from adamtl_ros.network.windows import relative_index
from adamtl_ros.network.windows import shift_mask
from adamtl_ros.network.windows import window_tokens
from adamtl_ros.runtime.operations import either
from adamtl_ros.runtime.operations import floats
from adamtl_ros.runtime.operations import ints
from adamtl_ros.runtime.operations import named_input
from adamtl_ros.runtime.operations import named_model
from adamtl_ros.runtime.operations import Node
from adamtl_ros.runtime.operations import resized
from adamtl_ros.runtime.operations import rounded

EPSILON = 1e-5
"""Of torch's LayerNorm and BatchNorm."""

KINDS = ('blocks', 'tokens')
"""Of controllers: those of a stage's blocks, and those of its tokens."""

def _rows(values: np.ndarray) -> Node:
    return ops.constant(np.ascontiguousarray(values.reshape(-1), dtype=np.int32))


def _gather(x: Node, rows: Node) -> Node:
    return ops.gather(x, rows, ints(0))


def gate_lists(config: NetworkConfig, stage: int, block: int) -> tuple[str, ...]:
    """
    Return what the graph of a block wants to know of its gates.

    `rows`: of the map, those of the windows that run, one window after the other; `windows`:
    their numbers, where their masks differ; both only where attention is skipped.  `tokens`: of
    those rows (of all windows' where none is skipped), the tokens of the cells that run.
    """
    if not config.skip_attention:
        return ('tokens',)
    return ('rows', 'tokens') if config.shift(stage, block) == (0, 0) else (
        'rows', 'windows', 'tokens')


class Graphs:
    """
    Builds the graphs of a network.

    weights: float32 arrays by the names of AdaMTL.state_dict().  ranges: least and largest input
    of the layers, by name, that are to be computed in int8; see runtime/int8.py.
    """

    def __init__(
            self, config: NetworkConfig, weights: Mapping[str, np.ndarray],
            ranges: Mapping[str, Sequence[float]] | None = None) -> None:
        self.config = config
        self.weights = weights
        self.ranges = ranges or {}

    def size(self, stage: int) -> int:
        """Return the number of tokens of a stage."""
        height, width = self.config.resolution(stage)
        return height * width

    def stem(self, policy: bool) -> ov.Model:
        """
        Return `pixels` uint8 (1, h, w, 3) to `next`, the tokens (T, C) of stage 0.

        policy: and to the logits of its policy, as of `policy`.
        """
        pixels = named_input((1, *self.config.input_size, 3), np.uint8, 'pixels')
        x = self._stem(pixels)
        inputs, logits = self._policy(x, 0) if policy else ([], {})
        return named_model({'next': x, **logits}, [pixels, *inputs], 'stem')

    def dense(
            self, stage: int, blocks: Sequence[int] | None = None, policy: bool = False
    ) -> ov.Model:
        """
        Return `x` (T, C) of a stage to `y` (T, C), and `next`, as of `bridge`.

        All of its blocks run whole, or those given.  policy: logits follow, too.
        """
        x = y = self._tokens(stage)
        for block in range(self.config.depths[stage]) if blocks is None else blocks:
            y = self._block(y, stage, block)
        inputs, following = self._bridge(y, stage, policy)
        return named_model({'y': y, **following}, [x, *inputs], f'dense{stage}')

    def policy(
            self, stage: int, kinds: Sequence[str] = KINDS, tasks: Sequence[int] | None = None
    ) -> ov.Model:
        """
        Return `x` (T, C) of a stage to the logits of its controllers, of all k tasks or some.

        Outputs, as many as asked for: `blocks` (k, blocks), `tokens` (k, cells, blocks or 1).
        `budget` float32 (1) is an input where the configuration has it.
        """
        x = self._tokens(stage)
        inputs, logits = self._policy(x, stage, kinds, tasks)
        return named_model(logits, [x, *inputs], f'policy{stage}')

    def segment(self, stage: int, blocks: Sequence[int], whole: bool) -> ov.Model:
        """
        Return the graph of some blocks of a stage: `x` (T, C) to `y` (T, C).

        `gates` int32 are the lists that `gate_lists` names, of one block after the other, empty
        for a block that runs whole or not at all; `lengths` int32, theirs, is an input where there
        is more than one.  `modes` bool: first which blocks run whole, then which run in part.
        whole: the blocks are the whole stage: what `bridge` gives follows; the logits where
        `look`, bool (1), says so, else zeros.
        """
        x = y = self._tokens(stage)
        gates = named_input((-1,), np.int32, 'gates')
        modes = named_input((2 * len(blocks),), bool, 'modes')
        kinds = [gate_lists(self.config, stage, block) for block in blocks]
        count = sum(map(len, kinds))
        inputs, parts = [x, gates, modes], [gates.output(0)]
        if count > 1:
            lengths = named_input((count,), np.int32, 'lengths')
            inputs.append(lengths)
            parts = ops.variadic_split(gates, ops.constant(np.int32(0)), lengths).outputs()
        rest = iter(parts)
        mode = ops.split(modes, ops.constant(np.int32(0)), 2 * len(blocks)).outputs()
        for number, (block, names) in enumerate(zip(blocks, kinds)):
            y = self._branch(
                y, stage, block, {name: next(rest) for name in names}, mode[number],
                mode[len(blocks) + number])
        outputs = {'y': y}
        if whole:
            _, following = self._bridge(y, stage, False)
            if following:
                more, logits = self._look(following['next'], stage + 1)
                inputs += more
                following |= logits
            outputs |= following
        return named_model(outputs, inputs, f'stage{stage}.{blocks[0]}')

    def _look(self, x: Node, stage: int) -> tuple[list[Node], dict[str, Node]]:
        """Return the inputs and the logits of a policy that runs if the input `look` says so."""
        look, inside = named_input((1,), bool, 'look'), self._tokens(stage)
        inputs, logits = self._policy(inside, stage)
        outer = [named_input((1,), np.float32, 'budget') for _ in inputs]
        parts = either(
            look, list(logits.values()), [
                ops.constant(np.zeros(list(each.shape), np.float32)) for each in logits.values()],
            [(x, inside, None), *((one, two, None) for one, two in zip(outer, inputs))])
        return [look, *outer], dict(zip(logits, parts))

    def _branch(
            self, x: Node, stage: int, block: int, gates: Mapping[str, Node], whole: Node,
            some: Node) -> Node:
        """Return x after a block that runs whole, in part or not at all."""
        dense, rest, part, same = (self._tokens(stage) for _ in range(4))
        outer, inner = ([named_input((-1,), np.int32, name) for name in gates] for _ in range(2))
        asked = named_input((1,), bool, 'some')
        partial = either(
            asked, [self._block(part, stage, block, dict(zip(gates, inner)))], [same],
            [(rest, part, same), *((one, two, None) for one, two in zip(outer, inner))])
        return either(whole, [self._block(dense, stage, block)], partial, [
            (x, dense, rest), (some, None, asked),
            *((one, None, two) for one, two in zip(gates.values(), outer))])[0]

    def bridge(self, stage: int) -> ov.Model:
        """
        Return `x` (T, C) of a stage to `next`, the next one's tokens.

        And to its logits, as of `policy`, where token gates are decided at a stage's entry.
        """
        x = self._tokens(stage)
        inputs, outputs = self._bridge(x, stage, self.config.token_gates == 'stage')
        return named_model(outputs, [x, *inputs], f'bridge{stage}')

    def _tokens(self, stage: int) -> Node:
        return named_input((self.size(stage), self.config.width(stage)), np.float32, 'x')

    def _bridge(
            self, x: Node, stage: int, policy: bool) -> tuple[list[Node], dict[str, Node]]:
        if stage + 1 == len(self.config.depths):
            return [], {}
        after = self._downsample(x, stage)
        inputs, logits = self._policy(after, stage + 1) if policy else ([], {})
        return inputs, {'next': after, **logits}

    def _stem(self, pixels: Node) -> Node:
        name, height, width = 'encoder.stem.', *self.config.resolution(0)
        x = (ops.convert(pixels, np.float32) - floats(np.array(MEAN))) * floats(
            1 / np.array(STD))
        x = ops.transpose(x, ints(0, 3, 1, 2))
        if self.config.stem == 'linear':
            x = self._conv(x, name + 'proj', stride=4)
        else:
            x = ops.relu(self._conv(x, name + 'proj.0', name + 'proj.1', stride=2))
            x = self._conv(x, name + 'proj.3', stride=2)
        x = ops.reshape(ops.transpose(x, ints(0, 2, 3, 1)), ints(height * width, -1), False)
        shift = self.weights[name + 'norm.bias']
        if self.config.position:
            places = self.weights[name + 'rows'] + self.weights[name + 'columns']
            shift = places.reshape(height * width, -1) + shift
        return _normalised(x) * floats(self.weights[name + 'norm.weight']) + floats(shift)

    def _block(
            self, x: Node, stage: int, block: int, gates: Mapping[str, Node] = {}
    ) -> Node:
        config, name = self.config, f'encoder.stages.{stage}.blocks.{block}.'
        channels, heads = config.width(stage), config.heads[stage]
        size, window = config.resolution(stage), config.stage_window(stage)
        shift = config.shift(stage, block)
        order = window_tokens(size, window, shift)
        skips = 'rows' in gates
        windows = gates['rows'] if skips else _rows(order)
        bias = self.weights[name + 'attn.relative_position_bias_table'][
            relative_index(window)].transpose(2, 0, 1)[None]
        mask = shift_mask(size, window, shift)
        if mask is not None:
            bias = bias + mask[:, None]
        biases = floats(bias)
        if 'windows' in gates:
            biases = _gather(biases, gates['windows'])

        # One window holds the map in its order: there is nothing to gather then.
        single = len(order) == 1
        rows = x if single and not skips else _gather(x, windows)
        scale = np.ones((3 * channels, 1), dtype=np.float32)
        scale[:channels] = (channels // heads) ** -0.5
        parts = self._linear(_normalised(rows), name + 'attn.qkv', name + 'norm1', scale)
        shape = ints(-1, order.shape[1], 3, heads, channels // heads)
        parts = ops.transpose(ops.reshape(parts, shape, False), ints(2, 0, 3, 1, 4))
        split = ops.split(parts, ops.constant(np.int32(0)), 3)
        query, key, value = (ops.squeeze(part, ints(0)) for part in split.outputs())
        mixed = ops.scaled_dot_product_attention(query, key, value, biases, floats(1.0))
        mixed = ops.reshape(ops.transpose(mixed, ints(0, 2, 1, 3)), ints(-1, channels), False)
        rows = rows + self._linear(mixed, name + 'attn.proj')

        tokens = gates.get('tokens')
        if config.skipped_norm and tokens is not None:
            plain = _normalised(rows)
            normed = plain * floats(self.weights[name + 'norm2.weight']) + floats(
                self.weights[name + 'norm2.bias'])
            chosen = self._linear(_gather(plain, tokens), name + 'mlp.0', name + 'norm2')
            chosen = self._linear(ops.gelu(chosen, 'erf'), name + 'mlp.2')
            rows = rows + ops.scatter_update(normed, tokens, chosen, ints(0))
        else:
            chosen = rows if tokens is None else _gather(rows, tokens)
            inner = self._linear(_normalised(chosen), name + 'mlp.0', name + 'norm2')
            chosen = chosen + self._linear(ops.gelu(inner, 'erf'), name + 'mlp.2')
            rows = chosen if tokens is None else ops.scatter_update(
                rows, tokens, chosen, ints(0))
        if skips:
            return ops.scatter_update(x, windows, rows, ints(0))
        return rows if single else _gather(rows, _rows(np.argsort(order.reshape(-1))))

    def _downsample(self, x: Node, stage: int) -> Node:
        if stage + 1 == len(self.config.depths):
            return x
        height, width = self.config.resolution(stage)
        # The four tokens side by side, in the order (top, bottom) x left, (top, bottom) x right.
        x = ops.reshape(x, ints(height // 2, 2, width // 2, 2, -1), False)
        x = ops.reshape(ops.transpose(x, ints(0, 2, 3, 1, 4)), ints(
            height * width // 4, -1), False)
        name = f'encoder.stages.{stage}.downsample.'
        return self._linear(_normalised(x), name + 'reduction', name + 'norm')

    def _policy(
            self, x: Node, stage: int, kinds: Sequence[str] = KINDS,
            tasks: Sequence[int] | None = None) -> tuple[list[Node], dict[str, Node]]:
        """Return the controllers' inputs, and their logits, of some kinds and tasks (all)."""
        config = self.config
        if config.policy == 'none':
            return [], {}
        height, width = config.resolution(stage)
        h, w = config.cells[stage]
        # Means over cells, as sums of slices: ReduceMean takes up to three times as long.
        x = _sum(ops.reshape(x, ints(height // h, h, -1), False), h)
        x = _sum(ops.reshape(x, ints(height // h * (width // w), w, -1), False), w)
        if h * w > 1:
            x = x * floats(1 / (h * w))
        x = ops.reshape(x, ints(1, height // h * (width // w), -1), False)
        inputs = [named_input((1,), np.float32, 'budget')] if config.budget_input else []

        def weights(kind: str, part: str) -> np.ndarray:
            every = self.weights[f'policy.stages.{stage}.{kind}.{part}']
            return every if tasks is None else every[list(tasks)]

        def stacked(part: str) -> Node:
            return floats(np.concatenate([weights(kind, part) for kind in kinds]))

        bias = ops.unsqueeze(stacked('bias1'), ints(1))
        if config.budget_input:
            bias = bias + ops.unsqueeze(stacked('budget'), ints(1)) * inputs[0]
        hidden = ops.relu(ops.matmul(x, stacked('weight1'), False, False) + bias)
        parts = [hidden] if len(kinds) == 1 else ops.split(
            hidden, ops.constant(np.int32(0)), len(kinds)).outputs()
        logits = {}
        for kind, part in zip(kinds, parts):
            if kind == 'blocks':
                part = ops.reshape(part, ints(0, 1, -1), True)
            output = ops.matmul(part, floats(weights(kind, 'weight2')), False, False) + floats(
                weights(kind, 'bias2')[:, None])
            logits[kind] = ops.squeeze(output, ints(1)) if kind == 'blocks' else output
        return inputs, logits

    def decoder(self, task: str) -> ov.Model:
        """Return `tap<i>` (T, C) to `logits` (1, channels, H, W)."""
        shapes = self.config.tap_shapes()
        taps = [named_input((height * width, channels), np.float32, f'tap{i}')
                for i, (channels, height, width) in enumerate(shapes)]
        decode = self._pyramid if self.config.decoder == 'pyramid' else self._residual
        return named_model({'logits': decode(taps, shapes, f'decoders.{task}.')}, taps, task)

    def _pyramid(
            self, taps: Sequence[Node], shapes: Sequence[tuple[int, int, int]], name: str) -> Node:
        maps = []
        for i, (tap, (_, height, width)) in enumerate(zip(taps, shapes)):
            # The batch norm after the sum is linear, and so is upsampling: it goes in here.
            scale, shift = self._norm(name + ('fine.0' if i == 0 else 'coarse.0'))
            weight = self.weights[f'{name}lateral.{i}.weight'][:, :, 0, 0] * scale[:, None]
            bias = self.weights[f'{name}lateral.{i}.bias'] * scale
            bias = bias + shift if i < 2 else bias
            x = ops.reshape(tap, ints(1, height, width, -1), False)
            x = self._convolve(
                ops.transpose(x, ints(0, 3, 1, 2)), weight[:, :, None, None], bias,
                f'{name}lateral.{i}')
            maps.append(x if i < 2 else resized(x, shapes[1][1:]))
        x = maps[1]
        for part in maps[2:]:
            x = x + part
        x = ops.relu(self._conv(x, name + 'coarse.1', name + 'coarse.2', pad=1))
        scale, _ = self._norm(name + 'fine.0')
        x = maps[0] + resized(x * floats(scale.reshape(1, -1, 1, 1)), shapes[0][1:])
        x = self._conv(x, name + 'fine.1', name + 'fine.2', pad=1, groups=True)
        x = ops.relu(self._conv(x, name + 'fine.3', name + 'fine.4'))
        return self._head(x, name + 'head')

    def _residual(
            self, taps: Sequence[Node], shapes: Sequence[tuple[int, int, int]], name: str) -> Node:
        maps = []
        for i, (tap, (channels, height, width)) in enumerate(zip(taps, shapes)):
            # The reference reads the memory of (H, W, C) maps as (C, H, W).
            x = ops.reshape(tap, ints(1, channels, height, width), False)
            for part in (f'{name}fuse.{i}.0.', f'{name}fuse.{i}.1.'):
                shortcut = x
                if part + 'downsample.0.weight' in self.weights:
                    shortcut = self._conv(x, part + 'downsample.0', part + 'downsample.1')
                x = ops.relu(self._conv(x, part + 'conv1', part + 'bn1', pad=1))
                x = ops.relu(self._conv(x, part + 'conv2', part + 'bn2', pad=1) + shortcut)
            maps.append(resized(x, shapes[0][1:], 'nearest'))
        x = ops.relu(self._conv(ops.concat(maps, 1), name + 'segment.0', name + 'segment.1'))
        return self._head(x, name + 'segment.3')

    def _head(self, x: Node, name: str) -> Node:
        """
        Apply the 1x1 convolution that gives the logits.

        As a product: a convolution gives its channels last, and bringing them to the front takes
        three times as long as the rest of it.
        """
        weight, bias = self.weights[name + '.weight'][:, :, 0, 0], self.weights[name + '.bias']
        _, channels, height, width = x.shape
        rows = ops.reshape(ops.transpose(x, ints(0, 2, 3, 1)), ints(-1, channels), False)
        rows, weights = self._operands(rows, weight, name)
        x = ops.matmul(weights, rows, False, True, name=name) + floats(bias[:, None])
        return ops.reshape(x, ints(1, len(weight), height, width), False)

    def _linear(
            self, x: Node, name: str, norm: str = '', scale: np.ndarray | float = 1.0) -> Node:
        """Apply a linear layer; `norm` is the LayerNorm before it whose weights go into it."""
        weight = self.weights[name + '.weight']
        bias = self.weights.get(name + '.bias')
        if norm:
            shift = weight @ self.weights[norm + '.bias']
            bias = shift if bias is None else bias + shift
            weight = weight * self.weights[norm + '.weight']
        y = self._matmul(x, weight * scale, name)
        return y if bias is None else y + floats(bias * np.squeeze(scale))

    def _matmul(self, x: Node, weight: np.ndarray, name: str) -> Node:
        x, weights = self._operands(x, weight, name)
        return ops.matmul(x, weights, False, True, name=name)

    def _operands(self, x: Node, weight: np.ndarray, name: str) -> tuple[Node, Node]:
        """Return a layer's input and weights, rounded to int8 steps where it has a range."""
        return rounded(x, weight, self.ranges.get(name))

    def _norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the summand of a BatchNorm."""
        mean, variance, weight, bias = (self.weights[f'{name}.{part}'] for part in (
            'running_mean', 'running_var', 'weight', 'bias'))
        scale = weight / np.sqrt(variance + EPSILON)
        return scale, bias - mean * scale

    def _conv(
            self, x: Node, name: str, norm: str = '', *, stride: int = 1, pad: int = 0,
            groups: bool = False) -> Node:
        """Convolve; the BatchNorm after it, if named, goes into the weights."""
        weight = self.weights[name + '.weight']
        bias = self.weights.get(name + '.bias', np.zeros(len(weight), dtype=np.float32))
        if norm:
            scale, shift = self._norm(norm)
            weight, bias = weight * scale.reshape(-1, 1, 1, 1), bias * scale + shift
        if name.startswith('encoder.stem') and self.config.stem == 'conv':
            pad = 1
        return self._convolve(x, weight, bias, name, stride, pad, groups)

    def _convolve(
            self, x: Node, weight: np.ndarray, bias: np.ndarray, name: str, stride: int = 1,
            pad: int = 0, groups: bool = False) -> Node:
        convolve = ops.group_convolution if groups else ops.convolution
        x, weights = self._operands(x, weight[:, None] if groups else weight, name)
        x = convolve(x, weights, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1], name=name)
        return x + floats(bias.reshape(1, -1, 1, 1))


def _sum(x: Node, count: int) -> Node:
    """Sum (A, count, B) to (A, 1, B)."""
    if count == 1:
        return x
    first, *others = ops.split(x, ops.constant(np.int32(1)), count).outputs()
    for other in others:
        first = ops.add(first, other)
    return first


def _normalised(x: Node) -> Node:
    return ops.mvn(x, ints(-1), True, EPSILON, 'inside_sqrt')

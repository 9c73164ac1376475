# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The network as OpenVINO graphs, built from its weights.

Token maps are flat, (H * W, C).  The policy looks before every block, so a block is a graph.  It
branches: whole, its shapes are known and nothing is gathered; else its tokens are an input of
dynamic length, so that its time follows how many there are.
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


def _gather(x: Node, rows: Node | np.ndarray) -> Node:
    if isinstance(rows, np.ndarray):
        rows = ops.constant(np.ascontiguousarray(rows.reshape(-1), dtype=np.int32))
    return ops.gather(x, rows, ints(0))


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

    def stem(self) -> ov.Model:
        """Return `pixels` uint8 (1, h, w, 3) to `y`, the tokens (T, C) of stage 0."""
        pixels = named_input((1, *self.config.input_size, 3), np.uint8, 'pixels')
        return named_model({'y': self._stem(pixels)}, [pixels], 'stem')

    def dense(self, stage: int) -> ov.Model:
        """Return `x` (T, C) of a stage to `y`, as of `bridge` after all of its blocks, whole."""
        x = y = self._tokens(stage)
        for block in range(self.config.depths[stage]):
            y = self._block(y, stage, block)
        return named_model({'y': self._downsample(y, stage)}, [x], f'dense{stage}')

    def block(self, stage: int, block: int) -> ov.Model:
        """
        Return `x` (T, C) of a stage to `y` (T, C), after one block that is not closed.

        whole: bool (1), all of its tokens run.  tokens: int32, where those that run, if not all
        do, lie in its windows, one window after the other.
        """
        x, dense, part = (self._tokens(stage) for _ in range(3))
        outer, inner = (named_input((-1,), np.int32, 'tokens') for _ in range(2))
        whole = named_input((1,), bool, 'whole')
        y, = either(
            whole, [self._block(dense, stage, block)], [self._block(part, stage, block, inner)],
            [(x, dense, part), (outer, None, inner)])
        return named_model({'y': y}, [x, outer, whole], f'stage{stage}.{block}')

    def bridge(self, stage: int) -> ov.Model:
        """Return `x` (T, C) of a stage to `y`, the next one's tokens."""
        x = self._tokens(stage)
        return named_model({'y': self._downsample(x, stage)}, [x], f'bridge{stage}')

    def policy(self, stage: int, kind: str, tasks: Sequence[int]) -> ov.Model:
        """
        Return `x` (T, C) of a stage to the logits of its controllers, of k tasks by number.

        kind: `blocks` (k, blocks), or `tokens` (k, T); the output is named alike.
        """
        x = self._tokens(stage)

        def stacked(part: str) -> np.ndarray:
            return self.weights[f'policy.stages.{stage}.{kind}.{part}'][list(tasks)]

        hidden = ops.relu(ops.matmul(
            ops.unsqueeze(x, ints(0)), floats(stacked('weight1')), False, False) + floats(
                stacked('bias1')[:, None]))
        if kind == 'blocks':
            hidden = ops.reshape(hidden, ints(0, 1, -1), True)
        logits = ops.matmul(hidden, floats(stacked('weight2')), False, False) + floats(
            stacked('bias2')[:, None])
        return named_model(
            {kind: ops.squeeze(logits, ints(1 if kind == 'blocks' else 2))}, [x],
            f'policy{stage}')

    def _tokens(self, stage: int) -> Node:
        return named_input((self.size(stage), self.config.width(stage)), np.float32, 'x')

    def _stem(self, pixels: Node) -> Node:
        name, height, width = 'encoder.stem.', *self.config.resolution(0)
        x = (ops.convert(pixels, np.float32) - floats(np.array(MEAN))) * floats(
            1 / np.array(STD))
        x = ops.transpose(x, ints(0, 3, 1, 2))
        if self.config.stem == 'linear':
            x = self._conv(x, name + 'proj', stride=4)
        else:
            x = ops.relu(self._conv(x, name + 'proj.0', name + 'proj.1', stride=2, pad=1))
            x = self._conv(x, name + 'proj.3', stride=2, pad=1)
        x = ops.reshape(ops.transpose(x, ints(0, 2, 3, 1)), ints(height * width, -1), False)
        return _normalised(x) * floats(self.weights[name + 'norm.weight']) + floats(
            self.weights[name + 'norm.bias'])

    def _block(self, x: Node, stage: int, block: int, tokens: Node | None = None) -> Node:
        config, name = self.config, f'encoder.stages.{stage}.blocks.{block}.'
        channels, heads = config.width(stage), config.heads[stage]
        size, window = config.resolution(stage), config.stage_window(stage)
        shift = config.shift(stage, block)
        order = window_tokens(size, window, shift)
        bias = self.weights[name + 'attn.relative_position_bias_table'][
            relative_index(window)].transpose(2, 0, 1)[None]
        mask = shift_mask(size, window, shift)
        if mask is not None:
            bias = bias + mask[:, None]

        # One window holds the map in its order: there is nothing to gather then.
        single = len(order) == 1
        rows = x if single else _gather(x, order)
        scale = np.ones((3 * channels, 1), dtype=np.float32)
        scale[:channels] = (channels // heads) ** -0.5
        parts = self._linear(_normalised(rows), name + 'attn.qkv', name + 'norm1', scale)
        shape = ints(-1, order.shape[1], 3, heads, channels // heads)
        parts = ops.transpose(ops.reshape(parts, shape, False), ints(2, 0, 3, 1, 4))
        split = ops.split(parts, ops.constant(np.int32(0)), 3)
        query, key, value = (ops.squeeze(part, ints(0)) for part in split.outputs())
        mixed = ops.scaled_dot_product_attention(query, key, value, floats(bias), floats(1.0))
        mixed = ops.reshape(ops.transpose(mixed, ints(0, 2, 1, 3)), ints(-1, channels), False)
        rows = rows + self._linear(mixed, name + 'attn.proj')

        plain = _normalised(rows)
        chosen = plain if tokens is None else _gather(plain, tokens)
        chosen = self._linear(chosen, name + 'mlp.0', name + 'norm2')
        chosen = self._linear(ops.gelu(chosen, 'erf'), name + 'mlp.2')
        if tokens is not None:
            # A skipped token's second residual is its norm, as in the reference.
            normed = plain * floats(self.weights[name + 'norm2.weight']) + floats(
                self.weights[name + 'norm2.bias'])
            chosen = ops.scatter_update(normed, tokens, chosen, ints(0))
        rows = rows + chosen
        return rows if single else _gather(rows, np.argsort(order.reshape(-1)))

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

    def decoder(self, task: str) -> ov.Model:
        """Return `tap<i>` (T, C) to `logits` (1, channels, H, W)."""
        shapes = self.config.tap_shapes()
        taps = [named_input((height * width, channels), np.float32, f'tap{i}')
                for i, (channels, height, width) in enumerate(shapes)]
        return named_model(
            {'logits': self._decoder(taps, shapes, f'decoders.{task}.')}, taps, task)

    def _decoder(
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

    def _conv(
            self, x: Node, name: str, norm: str = '', *, stride: int = 1, pad: int = 0) -> Node:
        """Convolve; the BatchNorm after it, if named, goes into the weights."""
        weight = self.weights[name + '.weight']
        bias = self.weights.get(name + '.bias', np.zeros(len(weight), dtype=np.float32))
        if norm:
            mean, variance, factor, summand = (self.weights[f'{norm}.{part}'] for part in (
                'running_mean', 'running_var', 'weight', 'bias'))
            scale = factor / np.sqrt(variance + EPSILON)
            weight = weight * scale.reshape(-1, 1, 1, 1)
            bias = bias * scale + (summand - mean * scale)
        x, weights = self._operands(x, weight, name)
        x = ops.convolution(
            x, weights, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1], name=name)
        return x + floats(bias.reshape(1, -1, 1, 1))


def _normalised(x: Node) -> Node:
    return ops.mvn(x, ints(-1), True, EPSILON, 'inside_sqrt')

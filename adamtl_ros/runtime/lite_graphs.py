# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The convolutional network as OpenVINO graphs, built from its description and its weights.

Maps are (1, C, H, W).  The encoder is cut where the policy decides and where the level at stride
32 begins; a gated block of a graph is a branch, and only the branch that is taken is computed.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from adamtl_ros.network.lite import BlockSpec
from adamtl_ros.network.lite import Conv
from adamtl_ros.network.lite import EPSILON
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import MEAN
from adamtl_ros.network.lite import STD
from adamtl_ros.network.lite import SUBPIXELS
from adamtl_ros.runtime.operations import either
from adamtl_ros.runtime.operations import floats
from adamtl_ros.runtime.operations import ints
from adamtl_ros.runtime.operations import named_input
from adamtl_ros.runtime.operations import named_model
from adamtl_ros.runtime.operations import Node
from adamtl_ros.runtime.operations import resized
from adamtl_ros.runtime.operations import rounded


class LiteGraphs:
    """
    Builds the graphs of a network of one input size.

    weights: float32 arrays by the names of LiteNetwork.state_dict().  ranges: least and largest
    input of the layers, by name, that are to be computed in int8; see runtime/int8.py.
    """

    def __init__(
            self, config: LiteConfig, weights: Mapping[str, np.ndarray],
            ranges: Mapping[str, Sequence[float]] | None = None) -> None:
        self.config = config
        self.weights = weights
        self.ranges = ranges or {}

    def encoder(self) -> ov.Model:
        """Return `pixels` uint8 (1, h, w, 3) to the maps that are tapped, `tap0` to `tap3`."""
        pixels, x = self._stem()
        taps: list[Node] = []
        self._stages(x, range(len(self.config.stages)), taps, {})
        return named_model(
            {f'tap{number}': tap for number, tap in enumerate(taps)}, [pixels], 'encoder')

    def part(
            self, first: int, last: int, known: Sequence[bool] | None = None) -> ov.Model:
        """
        Return the stages from `first` to before `last` with their gates as inputs, unless `known`.

        Inputs: `pixels`, or from a later stage on `x`; `gate0`, ... bool (1) of the gated blocks.
        Outputs: `tap0`, ... that lie in it; `next`, unless that is the last tap; and, before the
        decision, `features` (1, n), what the policy looks at.
        """
        config = self.config
        gates = {
            block.name: named_input((1,), bool, f'gate{number}')
            for number, block in enumerate(config.gated)
            if first <= block.stage < last and block.convs}
        closed: set[str] = set()
        if known is not None:
            closed = {name for name, gate in zip(gates, known) if not gate}
            gates = {}
        if first == 0:
            source, x = self._stem()
        else:
            entry = [block for block in config.blocks if block.stage < first][-1]
            x = source = named_input(
                (1, config.stages[first - 1][-1], *entry.size), np.float32, 'x')
        taps: list[Node] = []
        x = self._stages(x, range(first, last), taps, gates, closed)
        before = sum(tap < first for tap in config.taps)
        outputs = {f'tap{before + number}': tap for number, tap in enumerate(taps)}
        if not taps or last - 1 not in config.taps:
            outputs['next'] = x
        if last == config.decision:
            outputs['features'] = _features(x)
        return named_model(outputs, [source, *gates.values()], f'stages{first}')

    def outputs(self, tasks: Sequence[str]) -> ov.Model:
        """Return `tap0` to `tap3` to the outputs (1, channels, H, W) of tasks, by name."""
        config = self.config
        taps = [
            named_input((1, config.stages[tap][-1], *config.map_size(4 << number)), np.float32,
                        f'tap{number}')
            for number, tap in enumerate(config.taps)]
        eighth, fine = self._pyramid(taps)
        return named_model(
            {task: self._decoder(task, eighth, fine) for task in tasks}, taps, 'outputs')

    def _stem(self) -> tuple[Node, Node]:
        pixels = named_input((1, *self.config.input_size, 3), np.uint8, 'pixels')
        x = ops.convert(pixels, np.float32)
        x = (x - floats(MEAN)) * floats(1 / STD)
        return pixels, self._conv(ops.transpose(x, ints(0, 3, 1, 2)), self.config.first)

    def _stages(
            self, x: Node, stages: range, taps: list[Node], gates: Mapping[str, Node],
            closed: Collection[str] = ()) -> Node:
        for stage in stages:
            for block in (each for each in self.config.blocks if each.stage == stage):
                if block.name in closed:
                    continue
                x = self._branch(x, block, gates) if block.name in gates else self._block(x, block)
            if stage in self.config.taps:
                taps.append(x)
        return x

    def _block(self, x: Node, block: BlockSpec) -> Node:
        y = x
        for conv in block.convs:
            y = self._conv(y, conv)
        return ops.add(x, y) if block.gated else y

    def _branch(self, x: Node, block: BlockSpec, gates: Mapping[str, Node]) -> Node:
        shape = (1, block.convs[0].inputs, *block.size)
        inside, past = (named_input(shape, np.float32, name) for name in ('open', 'closed'))
        return either(
            gates[block.name], [self._block(inside, block)], [past], [(x, inside, past)])[0]

    def _conv(self, x: Node, conv: Conv) -> Node:
        weight = self.weights[conv.name + '.conv.weight']
        if conv.norm:
            mean, variance, scale, bias = (
                self.weights[f'{conv.name}.norm.{part}']
                for part in ('running_mean', 'running_var', 'weight', 'bias'))
            scale = scale / np.sqrt(variance + EPSILON)
            weight, bias = weight * scale.reshape(-1, 1, 1, 1), bias - mean * scale
        else:
            bias = self.weights[conv.name + '.conv.bias']
        around = conv.kernel - conv.stride if conv.stride > 1 else conv.kernel - 1
        convolve = ops.group_convolution if conv.depthwise else ops.convolution
        x, weights = rounded(
            x, weight[:, None] if conv.depthwise else weight, self.ranges.get(conv.name))
        x = convolve(
            x, weights, [conv.stride] * 2, [around // 2] * 2, [around - around // 2] * 2, [1, 1],
            name=conv.name) + floats(bias.reshape(1, -1, 1, 1))
        if conv.act == 'relu6':
            return ops.clamp(x, 0.0, 6.0)
        return ops.relu(x) if conv.act == 'relu' else x

    def _mix(self, x: Node, convs: Mapping[str, tuple[Conv, int]], name: str) -> Node:
        return self._conv(
            self._conv(x, convs[name + '.depthwise'][0]), convs[name + '.point'][0])

    def _pyramid(self, taps: Sequence[Node]) -> tuple[Node, Node]:
        """See lite_network.Pyramid."""
        convs = self.config.pyramid_convs()

        def lateral(name: str, x: Node) -> Node:
            return self._conv(x, convs[name][0])

        fine, eighth, sixteenth, last = taps
        context = lateral('context', ops.reduce_mean(last, ints(2, 3), keep_dims=True))
        x = ops.relu(lateral('last', last) + context)
        for name, tap in (('sixteenth', sixteenth), ('eighth', eighth)):
            x = self._mix(
                ops.relu(lateral(name, tap) + _doubled(x)), convs, f'mix_{name}')
        y = ops.relu(lateral('fine', fine) + _doubled(lateral('down', x)))
        return x, self._mix(y, convs, 'mix_fine')

    def _decoder(self, task: str, eighth: Node, fine: Node) -> Node:
        """See lite_network.Decoder."""
        convs = self.config.decoder_convs(task)
        x = self._conv(self._mix(eighth, convs, 'coarse'), convs['down'][0])
        x = self._mix(ops.relu(fine + _doubled(x)), convs, 'mix')
        return self._out(x, convs['out'][0], SUBPIXELS.get(task, 1))

    def _out(self, x: Node, conv: Conv, subpixels: int) -> Node:
        """
        Apply the last layer.

        As a product: a convolution gives its channels last, and bringing them to the front takes
        longer than the rest of it.
        """
        weight = self.weights[conv.name + '.conv.weight'][:, :, 0, 0]
        bias = self.weights[conv.name + '.conv.bias']
        _, channels, height, width = x.shape
        rows = ops.reshape(ops.transpose(x, ints(0, 2, 3, 1)), ints(-1, channels), False)
        rows, weights = rounded(rows, weight, self.ranges.get(conv.name))
        x = ops.matmul(weights, rows, False, True, name=conv.name) + floats(bias[:, None])
        if subpixels == 1:
            return ops.reshape(x, ints(1, len(weight), height, width), False)
        x = ops.reshape(x, ints(-1, subpixels, subpixels, height, width), False)
        x = ops.transpose(x, ints(0, 3, 1, 4, 2))
        return ops.reshape(
            x, ints(1, len(weight) // subpixels ** 2, height * subpixels, width * subpixels),
            False)


def _doubled(x: Node) -> Node:
    height, width = list(x.shape)[2:]
    return resized(x, (2 * height, 2 * width))


def _features(x: Node) -> Node:
    """See lite_network.features."""
    mean = ops.reduce_mean(x, ints(2, 3), keep_dims=True)
    away = ops.subtract(x, mean)
    spread = ops.sqrt(ops.reduce_mean(away * away, ints(2, 3), keep_dims=True))
    return ops.reshape(ops.concat([mean, spread], 1), ints(1, -1), False)

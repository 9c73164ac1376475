# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The convolutional network run by OpenVINO on the CPU; it needs no torch."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import openvino as ov

from adamtl_ros.gating.subsets import BlockPolicy
from adamtl_ros.gating.subsets import Start
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite import trace_of
from adamtl_ros.network.trace import Trace
from adamtl_ros.runtime.lite_graphs import LiteGraphs
from adamtl_ros.runtime.openvino_parts import Compiler
from adamtl_ros.runtime.openvino_parts import Part
from adamtl_ros.runtime.openvino_parts import shared
from adamtl_ros.runtime.preprocess import shrink

Logits = dict[str, np.ndarray]

KEPT_SIZES = 8
"""Sizes of the input whose graphs stay compiled: those of two cameras, in full and reduced."""

KEPT_POLICIES = 16
"""Sets of tasks, with their weights, whose tables stay worked out."""

KEPT_TASKS = 8
"""Sets of tasks whose graphs stay compiled, of a size."""


class LiteBackend:
    """
    Runs pixels through the network; used like TorchBackend.

    model, precision, ranges: see runtime.backends.  num_threads: of the graphs; 0 leaves it to
    OpenVINO.  cache: folder of compiled models; None compiles anew.  What a frame needs is
    compiled when the first such frame comes: its size, its tasks, and the mode that it runs in.
    """

    name = 'openvino'

    def __init__(
            self, config: LiteConfig, weights: Mapping[str, np.ndarray],
            ranges: Mapping[str, tuple[float, float]] | None, compiler: Compiler) -> None:
        self.config = config
        self._weights, self._ranges, self._compiler = weights, ranges, compiler
        self._sizes: dict[tuple[int, int], _Sized] = {}
        self._policies: dict[object, BlockPolicy] = {}

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block."""
        return self._at(pixels).dense(pixels, tuple(tasks))

    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses; see BlockPolicy."""
        self.config.check_policy()
        if budget is None:
            raise ValueError(f'the policy of {self.config.name} needs a budget: give one')
        return self.priced(pixels, tasks, budget, weights, 0.0)

    def price(
            self, pixels: np.ndarray, tasks: Sequence[str], target: float,
            weights: Mapping[str, float], mean: float) -> float:
        """See BlockPolicy.price."""
        return self._policy(pixels, tasks, weights).price(target, mean)

    def expected(
            self, pixels: np.ndarray, tasks: Sequence[str], limit: float,
            weights: Mapping[str, float]) -> tuple[float, float]:
        """See BlockPolicy.expected."""
        return self._policy(pixels, tasks, weights).expected(limit)

    def priced(
            self, pixels: np.ndarray, tasks: Sequence[str], cap: float,
            weights: Mapping[str, float], price: float, skip_empty: bool = False,
            mean: float | None = None
    ) -> tuple[Logits, Trace]:
        """See runtime.backends.PricedBackend."""
        policy = self._policy(pixels, tasks, weights)
        start = policy.begin(cap, price, mean)
        pixels = shrink(pixels, start.size[::-1])
        return self._at(pixels).chosen(
            pixels, tuple(tasks), policy, start, cap, price, skip_empty)

    def fixed(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float,
            weights: Mapping[str, float], seed: int | None = None) -> tuple[Logits, Trace]:
        """See runtime.backends.PricedBackend."""
        policy = self._policy(pixels, tasks, weights)
        size, gates = policy.fixed(budget) if seed is None else policy.random(budget, seed)
        pixels = shrink(pixels, size[::-1])
        return self._at(pixels).gates(pixels, tuple(tasks), gates)

    def _policy(
            self, pixels: np.ndarray, tasks: Sequence[str], heed: Mapping[str, float]
    ) -> BlockPolicy:
        """Return what chooses for frames of this size."""
        size = pixels.shape[0], pixels.shape[1]
        key = size, tuple(tasks), tuple(sorted(heed.items()))
        if key not in self._policies:
            if len(self._policies) >= KEPT_POLICIES:
                self._policies.pop(next(iter(self._policies)))
            config = self.config.at(size)
            self._policies[key] = BlockPolicy(
                config, LiteCost(config), self._weights, tasks, heed)
        return self._policies[key]

    def _at(self, pixels: np.ndarray) -> '_Sized':
        size = pixels.shape[0], pixels.shape[1]
        known = self._sizes.pop(size, None)
        if known is None:
            if len(self._sizes) >= KEPT_SIZES:
                self._sizes.pop(next(iter(self._sizes)))
            known = _Sized(
                LiteGraphs(self.config.at(size), self._weights, self._ranges), self._compiler)
        self._sizes[size] = known
        return known


class _Sized:
    """The graphs of one input size, compiled as they are needed."""

    def __init__(self, graphs: LiteGraphs, compiler: Compiler) -> None:
        self._graphs, self._compiler = graphs, compiler
        config = self._config = graphs.config
        self._cost = LiteCost(config)
        self._pixels = np.empty((1, *config.input_size, 3), dtype=np.uint8)
        self._image = shared(self._pixels)
        self._whole: Part | None = None
        self._starts: dict[tuple[bool, ...], Part] = {}
        self._parts: list[Part] = []
        self._outputs: dict[tuple[str, ...], Part] = {}
        self._bits = [shared(np.array([value])) for value in (False, True)]
        last = config.stages[config.taps[-1]][-1]
        self._nothing = shared(np.zeros((1, last, *config.map_size(32)), np.float32))

    def dense(self, pixels: np.ndarray, tasks: tuple[str, ...]) -> tuple[Logits, Trace]:
        return self._decoded(self._everything(pixels), tasks), trace_of(
            self._cost, tasks, np.ones(len(self._config.gated), dtype=bool), None)

    def _everything(self, pixels: np.ndarray) -> dict[str, ov.Tensor]:
        """Return the taps with every gate open: one graph, without branches."""
        if self._whole is None:
            self._whole = self._compiler.part(self._graphs.encoder())
        np.copyto(self._pixels[0], pixels)
        self._whole.infer({'pixels': self._image})
        return {f'tap{number}': self._whole.output(f'tap{number}') for number in range(4)}

    def chosen(
            self, pixels: np.ndarray, tasks: tuple[str, ...], policy: BlockPolicy, start: Start,
            limit: float, price: float, skip_empty: bool) -> tuple[Logits, Trace]:
        choice = policy.foregone(start, limit, price)
        if choice is None:
            first = self._begin(pixels, policy.early(start))
            choice = policy.finish(start, first.array('features')[0], limit, price)
            taps = self._finish(first, choice.gates)
        else:
            taps = self._everything(pixels)
        empty = self._empty(taps, tasks) if skip_empty else None
        return self._decoded(taps, tuple(task for task in tasks if task not in (empty or ()))), (
            trace_of(self._cost, tasks, choice.gates, choice.wishes, empty))

    def gates(
            self, pixels: np.ndarray, tasks: tuple[str, ...], gates: np.ndarray
    ) -> tuple[Logits, Trace]:
        if gates.all():
            return self.dense(pixels, tasks)
        first = self._begin(pixels, gates[:self._config.early])
        return self._decoded(self._finish(first, gates), tasks), trace_of(
            self._cost, tasks, gates, None)

    def _begin(self, pixels: np.ndarray, gates: np.ndarray) -> Part:
        # Early maps are large and their weights few: a graph for every choice of their blocks is
        # faster than branches, through which a map is copied.
        key = tuple(gates.tolist())
        if key not in self._starts:
            self._starts[key] = self._compiler.part(
                self._graphs.part(0, self._config.decision, key))
        np.copyto(self._pixels[0], pixels)
        first = self._starts[key]
        first.infer({'pixels': self._image})
        return first

    def _switches(self, first: int, gates: np.ndarray) -> dict[str, ov.Tensor]:
        return {f'gate{first + number}': self._bits[gate]
                for number, gate in enumerate(gates.tolist())}

    def _finish(self, first: Part, gates: np.ndarray) -> dict[str, ov.Tensor]:
        config = self._config
        if not self._parts:
            ends = config.decision, config.coarse, len(config.stages)
            self._parts = [
                self._compiler.part(self._graphs.part(*between))
                for between in zip(ends, ends[1:])]
        middle, coarse = self._parts
        before = sum(block.stage < config.coarse for block in config.gated)
        middle.infer({
            'x': _onward(first), **self._switches(config.early, gates[config.early:before])})
        taps = {name: part.output(name) for part in (first, middle)
                for name in (f'tap{number}' for number in range(4)) if part.has(name)}
        if gates[-1]:
            coarse.infer({
                'x': _onward(middle), **self._switches(before, gates[before:-1])})
            taps['tap3'] = coarse.output('tap3')
        else:
            taps['tap3'] = self._nothing
        return taps

    def _empty(
            self, taps: Mapping[str, ov.Tensor], tasks: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """See LiteNetwork.empty."""
        rare = tuple(task for task in self._config.rare if task in tasks)
        if not rare:
            return None
        # Both are compiled with the first frame, whatever it shows: no later one waits for that.
        self._part(tasks)
        self._part(tuple(task for task in tasks if task not in rare))
        seen = []
        for name in ('tap2', 'tap3'):
            rows = taps[name].data[0].reshape(taps[name].shape[1], -1)
            seen += [rows.mean(1), rows.max(1)]
        weight, bias = (self._graphs.weights[f'presence.{part}'] for part in ('weight', 'bias'))
        return () if float(weight[0] @ np.concatenate(seen) + bias[0]) > 0 else rare

    def _decoded(self, taps: Mapping[str, ov.Tensor], tasks: tuple[str, ...]) -> Logits:
        part = self._part(tasks)
        if part is None:
            return {}
        part.infer(taps)
        return {task: part.array(task)[0].copy() for task in tasks}

    def _part(self, tasks: tuple[str, ...]) -> Part | None:
        """Return pyramid and decoders; None without tasks."""
        if not tasks:
            return None
        part = self._outputs.pop(tasks, None)
        if part is None:
            if len(self._outputs) >= KEPT_TASKS:
                self._outputs.pop(next(iter(self._outputs)))
            part = self._compiler.part(self._graphs.outputs(tasks))
        self._outputs[tasks] = part
        return part


def _onward(part: Part) -> ov.Tensor:
    """Return the map that the next part takes: of its own name, or the last tap."""
    names = ('next', *(f'tap{number}' for number in (3, 2, 1, 0)))
    return part.output(next(name for name in names if part.has(name)))

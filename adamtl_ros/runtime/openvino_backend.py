# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The network run by OpenVINO on the CPU; it needs no torch."""

from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial

import numpy as np
import openvino as ov

from adamtl_ros.gating.tokens import Choice
from adamtl_ros.gating.tokens import FrameGates
from adamtl_ros.gating.tokens import TokenGates
from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.trace import Trace
from adamtl_ros.network.windows import window_tokens
from adamtl_ros.runtime.graphs import Graphs
from adamtl_ros.runtime.openvino_parts import Compiler
from adamtl_ros.runtime.openvino_parts import Part
from adamtl_ros.runtime.openvino_parts import shared

Logits = dict[str, np.ndarray]

KEPT = 4
"""Sets of tasks whose controllers stay compiled."""


class OpenVinoBackend:
    """Runs pixels through a Swin network; see runtime.backends."""

    name = 'openvino'

    def __init__(
            self, config: NetworkConfig, weights: Mapping[str, np.ndarray],
            ranges: Mapping[str, tuple[float, float]] | None, compiler: Compiler) -> None:
        """Compile every part; KeyError: a weight is missing."""
        self.config = config
        self._cost = CostModel(config)
        self._gates = [TokenGates(block) for block in self._cost.blocks]
        self._compile = compiler.part
        graphs = Graphs(config, weights, ranges)
        stages = range(len(config.depths))
        # Filled with every frame: handing over another tensor takes longer.
        self._pixels = np.empty((1, *config.input_size, 3), dtype=np.uint8)
        self._image = shared(self._pixels)
        self._stem = self._compile(graphs.stem())
        self._dense = [self._compile(graphs.dense(stage)) for stage in stages]
        self._decoders = {task: self._compile(graphs.decoder(task)) for task in config.tasks}
        if config.policy == 'none':
            return
        self._bridges = [self._compile(graphs.bridge(stage)) for stage in stages[:-1]]
        self._blocks = [[self._compile(graphs.block(stage, block)) for block in range(depth)]
                        for stage, depth in enumerate(config.depths)]
        # Where the tokens of a block lie in its windows: of every second block alike.
        self._places = [[
            np.argsort(window_tokens(
                config.resolution(stage), config.stage_window(stage), config.shift(stage, block)
            ).reshape(-1)).astype(np.int32) for block in range(2)] for stage in stages]
        self._whole, self._part = (shared(np.array([whole])) for whole in (True, False))
        self._empty = shared(np.empty(0, dtype=np.int32))
        # The controllers for the tasks of late, and what they are made of.
        self._controllers: dict[tuple[str, ...], dict[tuple[str, int], Part]] = {}
        self._graphs = Graphs(config, {
            name: value for name, value in weights.items() if name.startswith('policy.')})

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block on every token."""
        x, taps = self._start(pixels), []
        for part in self._dense:
            part.infer({'x': x})
            x = part.output('y')
            taps.append(x)
        gates = [np.ones(block.tokens, dtype=bool) for block in self._cost.blocks]
        trace = Trace(gates, self._cost.dense(tasks), [1.0] * len(gates))
        return self._decode(taps, tasks), trace

    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses; see FrameGates."""
        enabled = tuple(tasks)
        frame = FrameGates(self._cost, self._gates, enabled, budget, weights)
        controllers = self._looking(enabled)

        def logits(kind: str, stage: int, x: ov.Tensor) -> np.ndarray:
            part = controllers[kind, stage]
            part.infer({'x': x})
            return part.array(kind)

        x, taps = self._start(pixels), []
        for stage, blocks in enumerate(self._blocks):
            opened = frame.open_stage(stage, logits('blocks', stage, x))
            for block, (part, runs) in enumerate(zip(blocks, opened)):
                if not runs:
                    frame.close()
                    continue
                choice = frame.open_tokens(partial(logits, 'tokens', stage, x))
                if choice.tokens:
                    part.infer({'x': x, **self._given(choice, self._places[stage][block % 2])})
                    x = part.output('y')
            if stage < len(self._bridges):
                self._bridges[stage].infer({'x': x})
                x = self._bridges[stage].output('y')
            taps.append(x)
        return self._decode(taps, enabled), frame.trace()

    def _start(self, pixels: np.ndarray) -> ov.Tensor:
        np.copyto(self._pixels[0], pixels)
        self._stem.infer({'pixels': self._image})
        return self._stem.output('y')

    def _given(self, choice: Choice, places: np.ndarray) -> dict[str, ov.Tensor]:
        """Return what the graph of a block reads of its gate."""
        if choice.whole:
            return {'whole': self._whole, 'tokens': self._empty}
        return {'whole': self._part, 'tokens': shared(places[choice.gate])}

    def _looking(self, tasks: tuple[str, ...]) -> dict[tuple[str, int], Part]:
        """Return the controllers of these tasks, compiled when they are first asked for."""
        if tasks not in self._controllers:
            if len(self._controllers) == KEPT:
                del self._controllers[next(iter(self._controllers))]
            chosen = [self.config.tasks.index(task) for task in tasks]
            if self.config.policy != 'task_aware':
                chosen = [0]
            self._controllers[tasks] = {
                (kind, stage): self._compile(self._graphs.policy(stage, kind, chosen))
                for kind in ('blocks', 'tokens') for stage in range(len(self.config.depths))}
        return self._controllers[tasks]

    def _decode(self, taps: Sequence[ov.Tensor], tasks: Sequence[str]) -> Logits:
        logits = {}
        for task in tasks:
            part = self._decoders[task]
            part.infer({f'tap{number}': tap for number, tap in enumerate(taps)})
            # The request's own memory is written again with the next frame.
            logits[task] = part.output('logits').data[0].copy()
        return logits

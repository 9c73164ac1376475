# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The network run by OpenVINO on the CPU; it needs no torch."""

from array import array
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import openvino as ov

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.gating import block_geometries
from adamtl_ros.network.gating import Choice
from adamtl_ros.network.gating import FrameGates
from adamtl_ros.network.trace import Trace
from adamtl_ros.network.windows import cell_places
from adamtl_ros.network.windows import window_tokens
from adamtl_ros.runtime.graphs import gate_lists
from adamtl_ros.runtime.graphs import Graphs
from adamtl_ros.runtime.openvino_parts import Compiler
from adamtl_ros.runtime.openvino_parts import Part
from adamtl_ros.runtime.openvino_parts import shared

Logits = dict[str, np.ndarray]

KEPT = 4
"""Sets of tasks whose controllers stay compiled, where only those of enabled tasks run."""


class OpenVinoBackend:
    """Runs pixels through a Swin network; see runtime.backends."""

    name = 'openvino'

    def __init__(
            self, config: NetworkConfig, weights: Mapping[str, np.ndarray],
            ranges: Mapping[str, tuple[float, float]] | None, compiler: Compiler) -> None:
        """Compile every part; KeyError: a weight is missing."""
        self.config = config
        self._cost = CostModel(config)
        self._geometry = block_geometries(config, self._cost)
        # Of every second block they are the same.
        self._lists = [
            [_GateLists(config, stage, block) for block in range(2)] * ((depth + 1) // 2)
            for stage, depth in enumerate(config.depths)]
        self._compile = compiler.part
        self._budget: tuple[float | None, dict[str, ov.Tensor]] = None, {}
        self._switch = [shared(np.array([look])) for look in (False, True)]
        # Which blocks run whole, and which in part, and so many empty lists: as graphs read them.
        self._modes: dict[tuple[bool, ...], ov.Tensor] = {}
        self._empty: dict[int, dict[str, ov.Tensor]] = {}
        self._build(Graphs(config, weights, ranges))

    def _build(self, graphs: Graphs) -> None:
        config = self.config
        stages = range(len(config.depths))
        # Filled with every frame: handing over another tensor takes longer.
        self._pixels = np.empty((1, *config.input_size, 3), dtype=np.uint8)
        self._image = shared(self._pixels)
        self._start = self._compile(graphs.stem(policy=False))
        shares = [self._shares(stage) for stage in stages]
        self._dense = {
            stage: self._compile(graphs.dense(stage)) for stage in stages if not shares[stage]}
        self._decoders = {task: self._compile(graphs.decoder(task)) for task in config.tasks}
        if config.policy == 'none':
            return
        self._segments: dict[tuple[int, int], Part] = {}
        whole = config.token_gates == 'stage'
        self._stem = self._compile(graphs.stem(policy=True)) if whole else self._start
        # By stage and which of its blocks run, none in part: where blocks do not branch.
        self._plain: dict[tuple[int, tuple[bool, ...]], Part] = {}
        self._bridges = [self._compile(graphs.bridge(stage)) for stage in stages[:-1]]
        for stage, depth in enumerate(config.depths):
            runs = [range(depth)] if whole else [range(b, b + 1) for b in range(depth)]
            for run in runs if shares[stage] or not whole else ():
                self._segments[stage, run[0]] = self._compile(graphs.segment(stage, run, whole))
        # Gates of a whole stage, where it has no graph without branches.
        self._open = {stage: self._gates(stage, 0, [
            geometry.whole for geometry in self._geometry if geometry.cost.stage == stage])
            for stage in stages if shares[stage]}
        # Where the policy looks before every block: its controllers for the tasks of late.
        self._controllers: dict[tuple[str, ...], dict[tuple[str, int], Part]] = {}
        # What is compiled when it is first needed: those, and the ways through early stages.
        needed = ('policy.', *(
            f'encoder.stages.{stage}.' for stage in stages if whole and not shares[stage]))
        self._graphs = Graphs(config, {
            name: value for name, value in graphs.weights.items() if name.startswith(needed)
        }, graphs.ranges)

    def _shares(self, stage: int) -> bool:
        """
        Return whether a stage runs in one graph, whole or not, so that its weights lie there once.

        A map is copied in and out of every block that branches. Early stages have large maps, few
        weights and few blocks: they have a graph for each choice of them beside it.
        """
        config = self.config
        height, width = config.resolution(stage)
        return config.policy != 'none' and config.token_gates == 'stage' and (
            config.depths[stage] > 2 or height * width < 6 * config.width(stage))

    def _whole(self, stage: int, x: ov.Tensor) -> Part:
        """Run a whole stage."""
        part = self._dense.get(stage)
        if part is None:
            part = self._segments[stage, 0]
            part.infer({'x': x, **self._open[stage], **self._looks(stage, False)})
        else:
            part.infer({'x': x})
        return part

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block on every token."""
        np.copyto(self._pixels[0], pixels)
        self._start.infer({'pixels': self._image})
        x, taps = self._start.output('next'), []
        last = len(self.config.depths) - 1
        for stage in range(last + 1):
            part = self._whole(stage, x)
            y = part.output('y')
            x = y if stage == last else part.output('next')
            taps.append(x if self.config.taps == 'merged' else y)
        gates = [np.ones(each.cells, dtype=bool) for each in self._geometry]
        trace = Trace(gates, self._cost.dense(tasks), [1.0] * len(gates))
        return self._decode(taps, tasks), trace

    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses; see FrameGates."""
        config, enabled = self.config, tuple(tasks)
        frame = FrameGates(config, self._cost, self._geometry, enabled, budget, weights)
        step = self._stage if config.token_gates == 'stage' else self._blocks
        known, taps = self._known(budget), []
        part = self._stem
        np.copyto(self._pixels[0], pixels)
        part.infer({'pixels': self._image, **(known if part is not self._start else {})})
        x = part.output('next')
        for stage in range(len(config.depths)):
            y, after, part = step(frame, stage, x, part, known, enabled)
            x = y if after is None else after
            taps.append(x if config.taps == 'merged' else y)
        return self._decode(taps, enabled), frame.trace()

    def _stage(
            self, frame: FrameGates, stage: int, x: ov.Tensor, before: Part,
            known: Mapping[str, ov.Tensor], tasks: tuple[str, ...]
    ) -> tuple[ov.Tensor, ov.Tensor | None, Part]:
        """
        Run a stage whose gates are all decided at its entry.

        before: what gave the policy's logits.  Returns the stage's tokens, those of the next one,
        if there is one, and what gave the logits for it.
        """
        blocks, tokens = before.array('blocks'), before.array('tokens')
        if self.config.all_controllers and tasks != self.config.tasks:
            read = [self.config.tasks.index(task) for task in tasks]
            blocks, tokens = blocks[read], tokens[read]
        choices = frame.choose(frame.open_stage(stage, blocks), tokens)
        last = stage + 1 == len(self.config.depths)
        runs = any(choice.cost for choice in choices)
        if runs and not last and stage in self._dense and not any(
                choice.partial for choice in choices):
            part = self._way(stage, tuple(choice.whole for choice in choices))
            part.infer({'x': x, **known})
            x = part.output('y')
        elif runs:
            if (stage, 0) not in self._segments:
                self._segments[stage, 0] = self._compile(self._graphs.segment(
                    stage, range(self.config.depths[stage]), True))
            part = self._segments[stage, 0]
            part.infer({
                'x': x, **self._gates(stage, 0, choices), **self._looks(stage, True),
                **({} if last else known)})
            x = part.output('y')
        elif not last:
            part = self._bridges[stage]
            part.infer({'x': x, **known})
        if last:
            return x, None, before
        return x, part.output('next'), part

    def _looks(self, stage: int, look: bool) -> dict[str, ov.Tensor]:
        """Return what tells the graph of a stage whether the policy of the next one is to run."""
        return {} if stage + 1 == len(self.config.depths) else {'look': self._switch[look]}

    def _way(self, stage: int, chosen: tuple[bool, ...]) -> Part:
        """Return the graph of some whole blocks of an early stage, compiled at its first use."""
        if (stage, chosen) not in self._plain:
            self._plain[stage, chosen] = self._compile(self._graphs.dense(
                stage, [block for block, runs in enumerate(chosen) if runs], True))
        return self._plain[stage, chosen]

    def _blocks(
            self, frame: FrameGates, stage: int, x: ov.Tensor, before: Part,
            known: Mapping[str, ov.Tensor], tasks: tuple[str, ...]
    ) -> tuple[ov.Tensor, ov.Tensor | None, Part]:
        """Run a stage whose gates are decided before every block; see `_stage`."""
        def logits(kind: str) -> np.ndarray:
            part = controllers[kind, stage]
            part.infer({'x': x, **known})
            return part.array(kind)

        controllers = self._looking(tasks)
        for block, runs in enumerate(frame.open_stage(stage, logits('blocks'))):
            if not runs:
                frame.close()
                continue
            choice = frame.open_tokens(lambda: logits('tokens')[..., 0])
            if choice.cost:
                part = self._segments[stage, block]
                part.infer({'x': x, **self._gates(stage, block, [choice])})
                x = part.output('y')
        if stage + 1 == len(self.config.depths):
            return x, None, before
        self._bridges[stage].infer({'x': x})
        return x, self._bridges[stage].output('next'), before

    def _looking(self, tasks: tuple[str, ...]) -> dict[tuple[str, int], Part]:
        """Return the controllers of these tasks, compiled when they are first asked for."""
        if tasks not in self._controllers:
            if len(self._controllers) == KEPT:
                del self._controllers[next(iter(self._controllers))]
            chosen = [self.config.tasks.index(task) for task in tasks]
            if self.config.policy != 'task_aware':
                chosen = [0]
            self._controllers[tasks] = {
                (kind, stage): self._compile(self._graphs.policy(stage, (kind,), chosen))
                for kind in ('blocks', 'tokens') for stage in range(len(self.config.depths))}
        return self._controllers[tasks]

    def _known(self, budget: float | None) -> dict[str, ov.Tensor]:
        """Return what the policy reads beside the tokens: a new tensor only where it changed."""
        if self.config.budget_input and self._budget[0] != budget:
            self._budget = budget, {'budget': shared(np.array([budget], dtype=np.float32))}
        return self._budget[1]

    def _gates(
            self, stage: int, block: int, choices: Sequence[Choice]) -> dict[str, ov.Tensor]:
        """Return what the graph of blocks reads for these gates; block: the first of them."""
        whole = tuple(choice.whole for choice in choices)
        partial = tuple(choice.partial for choice in choices)
        modes = whole + partial
        if modes not in self._modes:
            self._modes[modes] = shared(np.array(modes))
        lists = [part for choice, lists in zip(choices, self._lists[stage][block:])
                 for part in lists.of(choice)]
        if not any(partial) and len(lists) in self._empty:
            gates = self._empty[len(lists)]
        else:
            gates = {'gates': _indices(b''.join(lists))}
            if len(lists) > 1:
                gates['lengths'] = _indices(array('i', [len(part) // 4 for part in lists]))
            if not any(partial):
                self._empty[len(lists)] = gates
        return {'modes': self._modes[modes], **gates}

    def _decode(self, taps: Sequence[ov.Tensor], tasks: Sequence[str]) -> Logits:
        logits = {}
        for task in tasks:
            part = self._decoders[task]
            part.infer({f'tap{number}': tap for number, tap in enumerate(taps)})
            # The request's own memory is written again with the next frame.
            logits[task] = part.output('logits').data[0].copy()
        return logits


class _GateLists:
    """
    Writes the lists of `gate_lists` for a block, and those like it.

    They are joined from bytes that were laid out once: without NumPy, as FrameGates does without.
    """

    def __init__(self, config: NetworkConfig, stage: int, block: int) -> None:
        size = config.resolution(stage)
        order = window_tokens(size, config.stage_window(stage), config.shift(stage, block))
        places = cell_places(order, size, config.cells[stage])
        self._skips = config.skip_attention
        names = gate_lists(config, stage, block)
        self._masked = 'windows' in names
        self._none = [b''] * len(names)
        self._rows = _bytes(order)
        self._numbers = _bytes(np.arange(len(order)))
        self._places = places.astype(np.int32)
        if self._skips:
            # Cells lie in their windows in few ways; a window's place is known when it runs.
            ways, way = np.unique(places % order.shape[1], axis=0, return_inverse=True)
            self._way = way.reshape(-1).tolist()
            self._tokens = [_bytes(ways + place * order.shape[1]) for place in range(len(order))]

    def of(self, choice: Choice) -> list[bytes]:
        """Return the lists, int32."""
        if choice.whole:
            return self._none
        if not self._skips:
            return [self._places[choice.cells].tobytes()]
        lists = [b''.join([self._rows[window] for window in choice.windows])]
        if self._masked:
            lists.append(b''.join([self._numbers[window] for window in choice.windows]))
        lists.append(b''.join([
            self._tokens[slot][self._way[cell]]
            for cell, slot in zip(choice.cells, choice.slots)]))
        return lists


def _bytes(rows: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in rows.astype(np.int32)]


def _indices(values: bytes | array) -> ov.Tensor:
    return shared(np.frombuffer(bytearray(values), dtype=np.int32))

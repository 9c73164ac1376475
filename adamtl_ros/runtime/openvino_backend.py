# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The network run by OpenVINO on the CPU; it needs no torch."""

from array import array
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov

from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.gating import block_geometries
from adamtl_ros.network.gating import Choice
from adamtl_ros.network.gating import FrameGates
from adamtl_ros.network.gating import positions
from adamtl_ros.network.gating import Trace
from adamtl_ros.network.windows import cell_places
from adamtl_ros.network.windows import window_tokens
from adamtl_ros.runtime import int8
from adamtl_ros.runtime.graphs import gate_lists
from adamtl_ros.runtime.graphs import Graphs

Logits = dict[str, np.ndarray]


@cache
def core() -> ov.Core:
    """
    Return the one core of this process.

    Its CPU plugin lends the thread that loads it a stack for signal handlers, and takes the memory
    back with the last core, in whatever thread: the next signal would end the process.
    """
    return ov.Core()


def _tensor(values: np.ndarray) -> ov.Tensor:
    return ov.Tensor(values, shared_memory=True)


class OpenVinoBackend:
    """
    Runs pixels through the network; used like TorchBackend.

    num_threads: of this model; 0 leaves it to OpenVINO.  precision: 'f32', 'bf16' on a processor
    that has it, or 'int8' where `adamtl quantize` has measured the model.  cache:
    folder of compiled models; None compiles anew.
    """

    name = 'openvino'

    def __init__(
            self, model: str, num_threads: int = 0, precision: str = 'f32',
            cache: Path | None = None) -> None:
        """Compile every part; ValueError where the model's file cannot be used."""
        self.config, weights, _ = checkpoint.read(model)
        config = self.config
        self._cost = CostModel(config)
        self._geometry = block_geometries(config, self._cost)
        # Blocks of a stage with the same shift share theirs.
        lists = {(stage, config.shift(stage, block)): _GateLists(config, stage, block)
                 for stage, depth in enumerate(config.depths) for block in range(min(depth, 2))}
        self._lists = [
            lists[stage, config.shift(stage, block)] for stage, block in positions(config)]
        self._options = {
            # A pinned thread waits for whatever else runs on its core, and all others for it.
            'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1, 'ENABLE_CPU_PINNING': False,
            'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32'}
        if num_threads:
            self._options['INFERENCE_NUM_THREADS'] = num_threads
        if cache is not None and _usable(cache):
            # OpenVINO names the files by content, and does without those it cannot write or read.
            self._options['CACHE_DIR'] = str(cache)
        self._known: tuple[tuple, dict[str, ov.Tensor]] | None = None
        self._core = core()
        if precision == 'bf16' and 'BF16' not in self._core.get_property(
                'CPU', 'OPTIMIZATION_CAPABILITIES'):
            raise ValueError("precision 'bf16': this processor does not have it; choose f32")
        graphs = Graphs(config, weights, int8.read(model) if precision == 'int8' else None)
        try:
            self._build(graphs)
        except KeyError as error:
            raise checkpoint.unusable(
                checkpoint.find(model),
                ValueError(f'its tensors do not match, {error} is missing')) from error

    def _build(self, graphs: Graphs) -> None:
        config = self.config
        stages = range(len(config.depths))
        self._start = self._compile(graphs.stem(policy=False))
        self._dense = [self._compile(graphs.dense(stage)) for stage in stages]
        self._decoders = {task: self._compile(graphs.decoder(task)) for task in config.tasks}
        if config.policy == 'none':
            return
        self._stem = self._compile(graphs.stem(policy=True))
        self._segments: dict[tuple[int, int], _Part] = {}
        self._bridges: dict[int, _Part] = {}
        whole = config.token_gates == 'stage'
        self._policies = [self._compile(graphs.policy(stage)) for stage in stages[1:] if whole]
        for stage, depth in enumerate(config.depths):
            runs = [range(depth)] if whole else [range(b, b + 1) for b in range(depth)]
            for run in runs:
                self._segments[stage, run[0]] = self._compile(graphs.segment(stage, run, whole))
            if stage + 1 < len(config.depths):
                self._bridges[stage] = self._compile(graphs.bridge(stage))

    def _compile(self, model: ov.Model) -> '_Part':
        try:
            return _Part(self._core.compile_model(model, 'CPU', self._options))
        except RuntimeError:
            if 'CACHE_DIR' not in self._options:
                raise
            # Another process writes the same file at this moment, say: do without.
            options = {key: self._options[key] for key in self._options if key != 'CACHE_DIR'}
            return _Part(self._core.compile_model(model, 'CPU', options))

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block on every token."""
        self._start.infer({'pixels': _tensor(pixels[None])})
        x, taps = self._start.output('next'), []
        for part in self._dense:
            part.infer({'x': x})
            y = part.output('y')
            x = y if part is self._dense[-1] else part.output('next')
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
        known = self._settings(enabled, budget)
        # Whose logits count, where the controllers of all tasks run.
        read = None if not config.all_controllers or enabled == config.tasks else [
            config.tasks.index(task) for task in enabled]
        whole, taps = config.token_gates == 'stage', []
        part = self._stem
        part.infer({'pixels': _tensor(pixels[None]), **known})
        x = part.output('next')
        for stage, depth in enumerate(config.depths):
            first, last = len(frame.choices), stage + 1 == len(config.depths)
            blocks, tokens = part.output('blocks').data, part.output('scores').data
            if read is not None:
                blocks, tokens = blocks[read], tokens[read]
            opened = frame.open_stage(stage, blocks)
            logits = tokens.transpose(2, 0, 1)
            # What gave the next stage's tokens: None while only the blocks have run.
            after: _Part | None = None
            if whole:
                choices = frame.open_tokens(opened, logits)
                if all(len(choice.cells) == len(choice.opened) for choice in choices):
                    # Nothing to leave out: no need to gather.
                    after = self._dense[stage]
                    after.infer({'x': x})
                    x = after.output('y')
                    if not last:
                        part = self._policies[stage]
                        part.infer({'x': after.output('next'), **known})
                elif any(choice.cells for choice in choices):
                    after = part = self._segments[stage, 0]
                    part.infer({
                        'x': x, **self._gates(first, choices), **({} if last else known)})
                    x = part.output('y')
            else:
                for block in range(depth):
                    if not opened[block]:
                        frame.close()
                        continue
                    first = len(frame.choices)
                    choices = frame.open_tokens([True], logits)
                    if choices[0].cells:
                        step, final = self._segments[stage, block], block + 1 == depth
                        step.infer({
                            'x': x, **self._gates(first, choices), **({} if final else known)})
                        x = step.output('y')
                        if not final:
                            logits = step.output('scores').data.transpose(2, 0, 1)
            if not last and after is None:
                after = part = self._bridges[stage]
                part.infer({'x': x, **known})
            y, x = x, x if last or after is None else after.output('next')
            taps.append(x if config.taps == 'merged' else y)
        return self._decode(taps, enabled), frame.trace()

    def _settings(self, tasks: tuple[str, ...], budget: float | None) -> dict[str, ov.Tensor]:
        """Return what the policy reads beside the tokens: new tensors only where it changed."""
        if self._known is None or self._known[0] != (tasks, budget):
            known = {}
            if not self.config.all_controllers:
                chosen = [self.config.tasks.index(task) for task in tasks]
                known['tasks'] = _tensor(np.array(
                    chosen if self.config.policy == 'task_aware' else [0], dtype=np.int32))
            if self.config.budget_input:
                known['budget'] = _tensor(np.array([budget], dtype=np.float32))
            self._known = (tasks, budget), known
        return self._known[1]

    def _gates(self, first: int, choices: Sequence[Choice]) -> dict[str, ov.Tensor]:
        """Return what the graph of blocks reads for these gates; first: number of the first."""
        parts = [part for lists, choice in zip(self._lists[first:], choices)
                 for part in lists.of(choice)]
        gates = {'gates': _indices(b''.join(parts))}
        if len(parts) > 1:
            gates['lengths'] = _indices(array('i', [len(part) // 4 for part in parts]))
        return gates

    def _decode(self, taps: Sequence[ov.Tensor], tasks: Sequence[str]) -> Logits:
        logits = {}
        for task in tasks:
            part = self._decoders[task]
            part.infer({f'tap{number}': tap for number, tap in enumerate(taps)})
            # The request's own memory is written again with the next frame.
            logits[task] = part.output('logits').data[0].copy()
        return logits


class _Part:
    """A compiled graph; its outputs are tensors that each run fills anew."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._request = model.create_infer_request()
        self._outputs = {
            name: self._request.get_tensor(name)
            for port in model.outputs for name in port.names}
        self._given: dict[str, ov.Tensor] = {}

    def infer(self, inputs: Mapping[str, ov.Tensor]) -> None:
        """Run on the inputs, by name; those handed over before stay."""
        for name, tensor in inputs.items():
            # After a run it takes some 10 us to hand a tensor over, and most are the same again.
            if self._given.get(name) is not tensor:
                self._request.set_tensor(name, tensor)
                self._given[name] = tensor
        self._request.infer(share_outputs=True)

    def output(self, name: str) -> ov.Tensor:
        """Return an output."""
        return self._outputs[name]


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
        self._masked = 'windows' in gate_lists(config, stage, block)
        self._rows = _bytes(order)
        self._numbers = _bytes(np.arange(len(order)))
        self._tokens = [_bytes(places)]
        if self._skips:
            # Cells lie in their windows in few ways; a window's place is known when it runs.
            ways, way = np.unique(places % order.shape[1], axis=0, return_inverse=True)
            self._way = way.reshape(-1).tolist()
            self._tokens = [_bytes(ways + place * order.shape[1]) for place in range(len(order))]

    def of(self, choice: Choice) -> list[bytes]:
        """Return the lists, int32."""
        if not self._skips:
            return [b''.join([self._tokens[0][cell] for cell in choice.cells])]
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
    return _tensor(np.frombuffer(bytearray(values), dtype=np.int32))


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True

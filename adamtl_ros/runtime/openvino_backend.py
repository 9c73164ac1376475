# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The network run by OpenVINO on the CPU; it needs no torch."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from adamtl_ros.network import checkpoint
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.gating import block_geometries
from adamtl_ros.network.gating import FrameGates
from adamtl_ros.network.gating import positions
from adamtl_ros.network.gating import Trace
from adamtl_ros.network.windows import cell_of_token
from adamtl_ros.network.windows import window_tokens
from adamtl_ros.runtime import int8
from adamtl_ros.runtime.graphs import Graphs

Logits = dict[str, np.ndarray]


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
        self._cells = []
        self._windows = []
        self._shifted = []
        self._closed: list[dict[str, ov.Tensor]] = []
        nothing = _tensor(np.zeros(0, dtype=np.int32))
        for stage, block in positions(config):
            size = config.resolution(stage)
            order = window_tokens(size, config.stage_window(stage), config.shift(stage, block))
            self._windows.append(order.astype(np.int32))
            self._cells.append(cell_of_token(size, config.cells[stage])[order])
            self._shifted.append(config.shift(stage, block) != (0, 0))
            names = ['tokens', *(['windows'] if config.skip_attention else []), *(
                ['masks'] if config.skip_attention and self._shifted[-1] else [])]
            self._closed.append({f'{name}{block}': nothing for name in names})
        self._options = {
            # A pinned thread waits for whatever else runs on its core, and all others for it.
            'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1, 'ENABLE_CPU_PINNING': False,
            'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32'}
        if num_threads:
            self._options['INFERENCE_NUM_THREADS'] = num_threads
        if cache is not None and _usable(cache):
            # OpenVINO names the files by content, and does without those it cannot write or read.
            self._options['CACHE_DIR'] = str(cache)
        self._core = ov.Core()
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
        self._dense = self._compile(graphs.dense())
        self._decoders = {task: self._compile(graphs.decoder(task)) for task in config.tasks}
        if config.policy == 'none':
            return
        self._stem = self._compile(graphs.stem())
        self._segments = {}
        self._bridges = {}
        whole = config.token_gates == 'stage'
        for stage, depth in enumerate(config.depths):
            runs = [range(depth)] if whole else [range(b, b + 1) for b in range(depth)]
            for run in runs:
                self._segments[stage, run[0]] = self._compile(graphs.segment(stage, run, whole))
            if stage + 1 < len(config.depths):
                self._bridges[stage] = self._compile(graphs.bridge(stage))

    def _compile(self, model: ov.Model) -> ov.InferRequest:
        return self._core.compile_model(model, 'CPU', self._options).create_infer_request()

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block on every token."""
        request = self._dense
        request.set_input_tensor(_tensor(pixels[None]))
        request.infer()
        taps = [request.get_output_tensor(i) for i in range(len(self.config.depths))]
        gates = [np.ones(len(each.windows_of_cell), dtype=bool) for each in self._geometry]
        trace = Trace(gates, self._cost.dense(tasks), [1.0] * len(gates))
        return self._decode(taps, tasks), trace

    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses; see FrameGates."""
        config, enabled = self.config, tuple(tasks)
        frame = FrameGates(config, self._cost, self._geometry, enabled, budget, weights)
        known = {'tasks': _tensor(np.array(
            [config.tasks.index(task) for task in enabled]
            if config.policy == 'task_aware' else [0], dtype=np.int32))}
        if config.budget_input:
            known['budget'] = _tensor(np.array([budget], dtype=np.float32))
        whole, taps = config.token_gates == 'stage', []
        request = self._stem
        _infer(request, {'pixels': _tensor(pixels[None]), **known})
        x = request.get_tensor('x')
        for stage, depth in enumerate(config.depths):
            opened = frame.open_stage(stage, request.get_tensor('blocks').data)
            tokens = request.get_tensor('scores').data
            inputs: dict[str, ov.Tensor] = {}
            for block in range(depth):
                column = block if whole else 0
                gates = self._gate(frame, block, tokens[:, :, column] if opened[block] else None)
                if whole:
                    inputs |= gates
                elif frame.gates[-1].any():
                    step = self._segments[stage, block]
                    last = block + 1 == depth
                    _infer(step, {'x': x, **gates, **({} if last else known)})
                    x = step.get_tensor('y')
                    if not last:
                        tokens = step.get_tensor('scores').data
            if whole and any(cells.any() for cells in frame.gates[-depth:]):
                request = self._segments[stage, 0]
                _infer(request, {'x': x, **inputs, **(known if stage in self._bridges else {})})
                x = request.get_tensor('y')
            elif stage in self._bridges:
                request = self._bridges[stage]
                _infer(request, {'x': x, **known})
            after = request.get_tensor('next') if stage + 1 < len(config.depths) else x
            taps.append(after if config.taps == 'merged' else x)
            x = after
        return self._decode(taps, enabled), frame.trace()

    def _gate(
            self, frame: FrameGates, block: int, logits: np.ndarray | None
    ) -> dict[str, ov.Tensor]:
        """Decide the gates of the next block, closed without logits; return what it reads."""
        index = len(frame.gates)
        if logits is None:
            frame.close()
            return self._closed[index]
        frame.open_tokens(logits)
        active = frame.gates[index][self._cells[index]]
        if not self.config.skip_attention:
            rows = np.flatnonzero(active).astype(np.int32)
            return {f'tokens{block}': _tensor(rows)}
        ran = np.flatnonzero(active.any(1)).astype(np.int32)
        inputs = {
            f'windows{block}': self._windows[index][ran].reshape(-1),
            f'tokens{block}': np.flatnonzero(active[ran]).astype(np.int32)}
        if self._shifted[index]:
            inputs[f'masks{block}'] = ran
        return {name: _tensor(values) for name, values in inputs.items()}

    def _decode(self, taps: Sequence[ov.Tensor], tasks: Sequence[str]) -> Logits:
        logits = {}
        for task in tasks:
            request = self._decoders[task]
            for number, tap in enumerate(taps):
                request.set_input_tensor(number, tap)
            request.infer()
            # The request's own memory is written again with the next frame.
            logits[task] = request.get_output_tensor(0).data[0].copy()
        return logits


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _infer(request: ov.InferRequest, inputs: Mapping[str, ov.Tensor]) -> None:
    for name, tensor in inputs.items():
        request.set_tensor(name, tensor)
    request.infer()

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Graphs of OpenVINO compiled for the CPU and run: what both kinds of networks need."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from adamtl_ros.processes import processors
from adamtl_ros.runtime import compiled

ONE_POOL = 'EXCLUSIVE_ASYNC_REQUESTS'
"""Option of OpenVINO's CPU plugin: all models on the same threads, whatever number was given."""


@cache
def core() -> ov.Core:
    """
    Return the one core of this process.

    Its CPU plugin lends the thread that loads it a stack for signal handlers, and takes the memory
    back with the last core, in whatever thread: the next signal would end the process.
    """
    return ov.Core()


def shared(values: np.ndarray) -> ov.Tensor:
    """Return a tensor on the memory of an array."""
    return ov.Tensor(values, shared_memory=True)


def _one_pool(core: ov.Core, options: dict[str, object]) -> bool:
    """
    Return whether the graphs should run on the same threads.

    Otherwise each has a pool of its own, and the threads take some 50 us to move to the next
    graph's.  But that one pool has a thread for every processor: only where they would anyway.
    """
    x = ops.parameter([1], np.float32)
    model = ov.Model([ops.result(ops.relu(x))], [x], 'probe')
    threads = core.compile_model(model, 'CPU', options).get_property('INFERENCE_NUM_THREADS')
    try:
        core.compile_model(model, 'CPU', {**options, ONE_POOL: True})
    except RuntimeError:
        return False  # this release of OpenVINO does not have it
    return threads == len(processors())


class Part:
    """A compiled graph; its outputs are tensors that each run fills anew."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._request = model.create_infer_request()
        self._outputs = {
            name: self._request.get_tensor(name)
            for port in model.outputs for name in port.names}
        self._arrays = {name: tensor.data for name, tensor in self._outputs.items()}
        self._given: dict[str, ov.Tensor] = {}

    def infer(self, inputs: Mapping[str, ov.Tensor]) -> None:
        """Run on the inputs, by name; those handed over before stay."""
        for name, tensor in inputs.items():
            # After a run it takes some 10 us to hand a tensor over, and most are the same again.
            if self._given.get(name) is not tensor:
                self._request.set_tensor(name, tensor)
                self._given[name] = tensor
        self._request.infer(share_outputs=True)

    def has(self, name: str) -> bool:
        """Return whether the graph has an output of that name."""
        return name in self._outputs

    def output(self, name: str) -> ov.Tensor:
        """Return an output, to hand it over."""
        return self._outputs[name]

    def array(self, name: str) -> np.ndarray:
        """Return an output, to read it before the next run."""
        return self._arrays[name]


class Compiler:
    """
    Compiles graphs with the same options.

    precision: 'f32', 'bf16' on a processor that has it (ValueError elsewhere), or 'int8'.
    num_threads: of each graph; 0 leaves it to OpenVINO.  folder: of compiled models; None
    compiles anew.
    """

    def __init__(self, precision: str, num_threads: int, folder: Path | None) -> None:
        self._core, self._folder = core(), folder
        if precision == 'bf16' and 'BF16' not in self._core.get_property(
                'CPU', 'OPTIMIZATION_CAPABILITIES'):
            raise ValueError("precision 'bf16': this processor does not have it; choose f32")
        self._options: dict[str, object] = {
            # A pinned thread waits for whatever else runs on its core, and all others for it.
            'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1, 'ENABLE_CPU_PINNING': False,
            'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32'}
        if num_threads:
            self._options['INFERENCE_NUM_THREADS'] = num_threads
        if _one_pool(self._core, self._options):
            self._options[ONE_POOL] = True

    def part(self, model: ov.Model) -> Part:
        """Return a compiled graph."""
        return Part(compiled.compile_model(self._core, model, self._options, self._folder))

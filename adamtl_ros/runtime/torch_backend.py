# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The network run by torch, on the CPU or a CUDA device."""

from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence
from typing import cast
import warnings

import numpy as np
import torch
from torch import Tensor

from adamtl_ros.network import checkpoint
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite import trace_of
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.trace import Trace
from adamtl_ros.runtime.device import device as device_of
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.segments import Segments

Logits = dict[str, np.ndarray]

SIZES = 8
"""Input sizes whose recordings a GPU keeps: those of two cameras, in full and reduced."""


class TorchBackend:
    """
    Runs pixels through the network.

    model: as for checkpoint.load.  device: 'cpu', 'cuda' or 'cuda:N'.  num_threads: of torch, for
    the whole process; 0 leaves it.  precision: 'f32', or 'bf16' for a convolutional network on
    CUDA.  All ways to run take uint8 (h, w, 3) of the network's input size and return, by task,
    the decoders' outputs, float32 (channels, H, W).
    """

    name = 'torch'

    def __init__(
            self, model: str, device: str = 'cpu', num_threads: int = 0, precision: str = 'f32'
    ) -> None:
        """Load the network; ValueError where that, the device or precision is not possible."""
        self._device = device_of(device)
        network = checkpoint.load(model)
        network.prepare()
        # On a GPU what is recorded is replayed.
        self._recorded = self._device.type == 'cuda' and isinstance(network, LiteNetwork)
        self._segments: OrderedDict[tuple[int, ...], Segments] = OrderedDict()
        if precision != 'f32':
            if precision != 'bf16' or not self._recorded:
                raise ValueError(
                    f'precision {precision!r}: the backend torch has f32 alone here, and bf16 for '
                    'convolutional networks on CUDA; choose one of them, or openvino')
            _halve(cast(LiteNetwork, network))
        self._network = network.to(self._device)
        self.config = self._network.config
        if self._device.type == 'cuda':
            # By default convolutions in float32 have their factors shortened to 10 bits there.
            torch.backends.cudnn.allow_tf32 = False
        if num_threads:
            torch.set_num_threads(num_threads)

    @torch.inference_mode()
    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run every block on every token."""
        if self._recorded:
            return self._at(pixels).dense(pixels, tasks)
        logits, trace = self._network.run_dense(self._inputs(pixels), tasks)
        return _arrays(logits), trace

    @torch.inference_mode()
    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses; see FrameGates and BlockPolicy."""
        if isinstance(self._network, LiteNetwork):
            return self.priced(pixels, tasks, cast(float, budget), weights, 0.0)
        logits, trace = self._network.run_policy(self._inputs(pixels), tasks, budget, weights)
        return _arrays(logits), trace

    @torch.inference_mode()
    def priced(
            self, pixels: np.ndarray, tasks: Sequence[str], cap: float,
            weights: Mapping[str, float], price: float, skip_empty: bool = False,
            mean: float | None = None
    ) -> tuple[Logits, Trace]:
        """See runtime.backends.PricedBackend."""
        network = cast(LiteNetwork, self._network)
        policy = network.chooser(pixels.shape[:2], tasks, weights)
        start = policy.begin(cap, price, mean)
        pixels = shrink(pixels, start.size[::-1])
        if self._recorded:
            return self._at(pixels).chosen(pixels, tasks, policy, start, cap, price, skip_empty)
        logits, trace = network.run_chosen(
            self._inputs(pixels), tasks, policy, start, cap, price, skip_empty)
        return _arrays(logits), trace

    @torch.inference_mode()
    def fixed(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float,
            weights: Mapping[str, float], seed: int | None = None) -> tuple[Logits, Trace]:
        """See runtime.backends.PricedBackend."""
        network = cast(LiteNetwork, self._network)
        policy = network.chooser(pixels.shape[:2], tasks, weights)
        size, gates = policy.fixed(budget) if seed is None else policy.random(budget, seed)
        pixels = shrink(pixels, size[::-1])
        trace = trace_of(LiteCost(network.config.at(size)), tasks, gates, None)
        if self._recorded:
            return self._at(pixels).under(pixels, tasks, gates), trace
        outputs = network.run_gates(self._inputs(pixels), tasks, list(gates[:, None]))
        return _arrays(outputs), trace

    def price(
            self, pixels: np.ndarray, tasks: Sequence[str], target: float,
            weights: Mapping[str, float], mean: float) -> float:
        """See BlockPolicy.price."""
        network = cast(LiteNetwork, self._network)
        return network.chooser(pixels.shape[:2], tasks, weights).price(target, mean)

    def expected(
            self, pixels: np.ndarray, tasks: Sequence[str], limit: float,
            weights: Mapping[str, float]) -> tuple[float, float]:
        """See BlockPolicy.expected."""
        network = cast(LiteNetwork, self._network)
        return network.chooser(pixels.shape[:2], tasks, weights).expected(limit)

    def _at(self, pixels: np.ndarray) -> Segments:
        """Return what runs pictures of this size, recorded when it is met first."""
        size = pixels.shape[0], pixels.shape[1]
        if size not in self._segments:
            network = cast(LiteNetwork, self._network)
            try:
                self._segments[size] = Segments(network, size, self._device.type == 'cuda')
            except RuntimeError as error:
                warnings.warn(
                    f'{self._device} cannot record the network, so it runs slower, kernel by '
                    f'kernel: {error}', RuntimeWarning, stacklevel=2)
                self._segments[size] = Segments(network, size, False)
            if len(self._segments) > SIZES:
                self._segments.popitem(last=False)
        self._segments.move_to_end(size)
        return self._segments[size]

    def _inputs(self, pixels: np.ndarray) -> Tensor:
        return self._network.inputs(torch.from_numpy(pixels)[None].to(self._device))


def _halve(network: LiteNetwork) -> None:
    """Compute in bfloat16; what chooses stays as exact as it was learned."""
    for part in (network.encoder, network.pyramid, network.decoders):
        part.to(torch.bfloat16)


def _arrays(logits: Mapping[str, Tensor]) -> Logits:
    return {task: value[0].float().contiguous().cpu().numpy() for task, value in logits.items()}

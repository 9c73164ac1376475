# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The convolutional network on a GPU: recorded once, piece by piece, and then only replayed.

A small network leaves a GPU waiting for the host, which has to start some hundred kernels a
frame.  So what always runs together is one CUDA graph, and so is each block that may be left out:
it works in place on the map of its stage, so that leaving it out is not to replay it, whatever
was left out before.  A frame is one upload, some 25 replays and one wait; the policy, which looks
at the frame on the host, is a second one.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch import Tensor

from adamtl_ros.gating.subsets import BlockPolicy
from adamtl_ros.gating.subsets import Start
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite import trace_of
from adamtl_ros.network.lite_network import features
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.trace import Trace

WARM_UP = 3
"""Runs of a piece before it is recorded: the first ones choose kernels and take memory."""


@dataclass
class _Piece:
    """What runs as one; gate: the one that leaves it out, if any."""

    run: Callable[[], None]
    gate: int | None


class Segments:
    """
    A prepared network (LiteNetwork.prepare) at one input size, (height, width).

    record: record the pieces, which CUDA alone can do; else each runs kernel by kernel.
    RuntimeError: what CUDA says where it cannot.
    """

    def __init__(self, network: LiteNetwork, size: tuple[int, int], record: bool) -> None:
        self._network = network
        self._config = network.config.at(size)
        self._cost = LiteCost(self._config)
        weight = network.encoder.stem.conv.weight
        self._device, self._type = weight.device, weight.dtype
        self._recorded = record
        self._pool = torch.cuda.graph_pool_handle() if self._recorded else None
        self._pixels = torch.zeros((1, *size, 3), dtype=torch.uint8, device=self._device)
        self._staged = self._host((1, *size, 3), torch.uint8)
        self._early: list[_Piece] = []
        self._late: list[_Piece] = []
        self._kept: list[Callable[[], None]] = []
        with torch.inference_mode():
            taps = self._encoder()
            empty = torch.zeros_like(taps[-1])
            self._pyramids = [self._pyramid((*taps[:-1], last)) for last in (empty, taps[-1])]
            self._decoders = {
                task: self._decoder(task) for task in self._config.tasks}
            if self._config.rare:
                self._presences = [
                    self._presence((taps[2], last)) for last in (empty, taps[-1])]

    def _host(self, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        return torch.zeros(tuple(shape), dtype=kind, pin_memory=self._recorded)

    def _record(self, run: Callable[[], None]) -> Callable[[], None]:
        if not self._recorded:
            run()
            return run
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, a second camera's for one.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
            run()
        # A graph has addresses alone: what it reads and writes is freed unless someone holds it.
        self._kept.append(run)
        return graph.replay

    def _encoder(self) -> list[Tensor]:
        config, network = self._config, self._network
        numbers = {block.name: number for number, block in enumerate(config.gated)}
        taps: list[Tensor] = []
        pending: list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = []
        pieces = self._early

        def flush(gate: int | None = None) -> None:
            if pending:
                steps = tuple(pending)
                pending.clear()

                def run() -> None:
                    for module, source, target in steps:
                        target.copy_(module(source))

                pieces.append(_Piece(self._record(run), gate))

        def start(pixels: Tensor) -> Tensor:
            return network.encoder.stem(network.inputs(pixels).to(self._type))

        x = start(self._pixels)
        pending.append((start, self._pixels, x))
        for index, stage in enumerate(network.encoder.stages):
            if index == config.decision:
                flush()
                self._look = features(x)
                pending.append((features, x, self._look))
                flush()
                self._seen = self._host(self._look.shape, torch.float32)
                pieces = self._late
            coarse = len(config.gated) - 1 if index >= config.coarse else None
            if index == config.coarse:
                flush()
            for number, block in enumerate(cast(nn.ModuleList, stage)):
                gate = numbers.get(f'encoder.stages.{index}.{number}')
                if gate is not None:
                    flush(coarse)
                    pending.append((block, x, x))
                    flush(gate)
                else:
                    y = block(x)
                    pending.append((block, x, y))
                    x = y
            taps += [x] * (index in config.taps)
            if index >= config.coarse:
                flush(coarse)
        flush()
        return taps

    def _pyramid(self, taps: Sequence[Tensor]) -> Callable[[], None]:
        if not hasattr(self, '_maps'):
            self._maps = self._network.pyramid(taps)

        def run() -> None:
            for target, value in zip(self._maps, self._network.pyramid(taps)):
                target.copy_(value)

        return self._record(run)

    def _decoder(self, task: str) -> tuple[Callable[[], None], Tensor, Tensor]:
        module: nn.Module = self._network.decoders[task]
        return self._copied(lambda: module(*self._maps))

    def _presence(
            self, maps: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor, Tensor]:
        module: nn.Module = self._network.presence
        return self._copied(lambda: module(maps))

    def _copied(
            self, found: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor, Tensor]:
        """Return what finds it, where it then is, and where on the host it is to be."""
        target = found().float().contiguous()

        def run() -> None:
            target.copy_(found())

        return self._record(run), target, self._host(target.shape, torch.float32)

    def dense(
            self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[dict[str, np.ndarray], Trace]:
        """Run one frame, every gate open."""
        gates = np.ones(len(self._config.gated), dtype=bool)
        return self.under(pixels, tasks, gates), trace_of(self._cost, tasks, gates, None)

    @torch.inference_mode()
    def under(
            self, pixels: np.ndarray, tasks: Sequence[str], gates: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run one frame, uint8 (h, w, 3), under given gates, bool."""
        self._upload(pixels)
        self._replay(self._early, gates)
        return self._finish(tasks, gates)

    @torch.inference_mode()
    def chosen(
            self, pixels: np.ndarray, tasks: Sequence[str], chooser: BlockPolicy, start: Start,
            budget: float, price: float = 0.0, skip_empty: bool = False
    ) -> tuple[dict[str, np.ndarray], Trace]:
        """Run one frame under the policy's choice; see LiteNetwork.run_chosen."""
        config = self._config
        gates = np.concatenate((
            chooser.early(start), np.zeros(len(config.gated) - config.early, dtype=bool)))
        self._upload(pixels)
        self._replay(self._early, gates)
        self._seen.copy_(self._look, non_blocking=True)
        self._wait()
        choice = chooser.finish(start, self._seen[0].numpy(), budget, price)
        rare = [task for task in config.rare if task in tasks] if skip_empty else []
        outputs = self._finish([task for task in tasks if task not in rare], choice.gates, rare)
        empty = tuple(task for task in rare if task not in outputs) if rare else None
        return {task: outputs[task] for task in tasks if task in outputs}, trace_of(
            self._cost, tasks, choice.gates, choice.wishes, empty)

    def _upload(self, pixels: np.ndarray) -> None:
        self._staged[0].copy_(torch.from_numpy(pixels))
        self._pixels.copy_(self._staged, non_blocking=True)

    def _replay(self, pieces: Sequence[_Piece], gates: np.ndarray) -> None:
        for piece in pieces:
            if piece.gate is None or gates[piece.gate]:
                piece.run()

    def _finish(
            self, tasks: Sequence[str], gates: np.ndarray, rare: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Run the rest, and the decoders of rare tasks where there is something for them."""
        self._replay(self._late, gates)
        level = int(gates[-1])
        if tasks:
            self._pyramids[level]()
        self._fetch([*([self._presences[level]] if rare else []),
                     *(self._decoders[task] for task in tasks)])
        if rare and float(self._presences[level][2]) > 0:
            if not tasks:
                self._pyramids[level]()
            self._fetch([self._decoders[task] for task in rare])
            tasks = [*tasks, *rare]
        return {task: self._decoders[task][2][0].numpy().copy() for task in tasks}

    def _fetch(self, parts: Sequence[tuple[Callable[[], None], Tensor, Tensor]]) -> None:
        for run, target, host in parts:
            run()
            host.copy_(target, non_blocking=True)
        self._wait()

    def _wait(self) -> None:
        if self._recorded:
            torch.cuda.current_stream(self._device).synchronize()

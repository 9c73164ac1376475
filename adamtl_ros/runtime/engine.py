# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The engine: one camera frame in, the results of every wanted task out, under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from importlib.util import find_spec
import math
import os
from threading import Lock
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.network import checkpoint
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.gating import Trace
from adamtl_ros.network.windows import cell_of_token
from adamtl_ros.paths import cache
from adamtl_ros.runtime import latency
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.geometry import geometry
from adamtl_ros.runtime.geometry import resized_depth
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.publish import confidence
from adamtl_ros.runtime.publish import published
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import TASKS

if TYPE_CHECKING:
    from adamtl_ros.runtime.openvino_backend import OpenVinoBackend
    from adamtl_ros.runtime.torch_backend import TorchBackend

BACKENDS = ('auto', 'torch', 'openvino')
PRECISIONS = ('f32', 'bf16', 'int8')


@dataclass(frozen=True)
class GatingResult:
    """
    What a frame cost and what ran for it; the names are those of the message GatingStats.

    Budgets are shares of the dense cost of the tasks.  In mode 'shadow' the cost and the gates
    are those that the policy would have executed, NaN and empty where it was not run.  Where both
    paths ran, `task_agreement` compares their results, each in [0, 1].  Times are in
    milliseconds; `compare_ms`, what comparing took, is no part of the others.  `predicted_ms` is
    what the latency model expects the network to take, NaN unless it was measured.  `lens` is what
    depth and normals rest on: 'given' intrinsics, 'extreme' ones outside of what networks were
    trained for, or, where there are none, 'nominal' ones.
    """

    mode: str
    budget_requested: float
    budget_achieved: float
    gmacs: float
    gmacs_dense: float
    tasks: tuple[str, ...]
    task_token_fraction: tuple[float, ...] = ()
    block_active: tuple[float, ...] = ()
    token_fraction: tuple[float, ...] = ()
    agreement: float = math.nan
    task_agreement: dict[str, float] = field(default_factory=dict)
    preprocess_ms: float = 0.0
    network_ms: float = 0.0
    postprocess_ms: float = 0.0
    compare_ms: float = 0.0
    predicted_ms: float = math.nan
    lens: str = 'nominal'


@dataclass(frozen=True)
class Result:
    """
    The outputs of a frame, arrays as they are published.

    outputs: per task, uint8 (h, w) class ids (uint16 of more than 254 classes), float32 (h, w) in
    [0, 1] or metres, or float32 (h, w, 3) unit normals.  confidence: uint8 (h, w), probability x
    255.  gating_map: uint8 (h, w), 255 where every block ran; None where the gates are not known.
    raw: float32 (channels, H, W), the decoders' own outputs before they are brought to the
    network's size.
    """

    outputs: dict[str, np.ndarray]
    stats: GatingResult
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    gating_map: np.ndarray | None = None
    raw: dict[str, np.ndarray] = field(default_factory=dict)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else (
        os.cpu_count() or 1)


class Engine:
    """
    A loaded model, ready for frames of any size; callers in several threads take turns.

    model: preset or path of a weights file.  backend: 'torch', 'openvino' (CPU alone), or 'auto':
    openvino where it is installed and the device is a CPU.  device: 'cpu', 'cuda' or 'cuda:N'.
    num_threads: of the backend, at most the processors that this process may use; 0 leaves it.
    precision: 'f32', or with openvino 'bf16' on a
    processor that has it, or 'int8' where `adamtl quantize` has measured the model.

    OpenCV runs on one thread in this process from then on.
    """

    def __init__(
            self, model: str = 'glasses', *, backend: str = 'auto', device: str = 'cpu',
            num_threads: int = 0, precision: str = 'f32') -> None:
        """Load the model; FileNotFoundError or ValueError where that cannot be done."""
        if num_threads < 0:
            raise ValueError(f'num_threads {num_threads}: 0 (automatic) or the number of threads')
        if num_threads > processors():
            # They would wait for one another, busily, and not hear a signal for minutes.
            raise ValueError(
                f'num_threads {num_threads}: this process may use {processors()} processors; give '
                f'0 (automatic) to {processors()}')
        # Its calls here are short, and its threads would wait, busily, on the network's cores.
        cv2.setNumThreads(1)
        self._backend = _backend(model, backend, device, num_threads, precision)
        self.config = self._backend.config
        self.cost = CostModel(self.config)
        self.model = model
        self.device = device
        self.backend = self._backend.name
        self.precision = precision
        self._threads = num_threads
        # The backends fill the same arrays with every frame.
        self._turn = Lock()
        self.latency_model: latency.LatencyModel | None = None
        self.tasks = self.config.tasks
        self.class_names = {task: tuple(names) for task, names in self.config.classes.items()}
        self.input_size = (self.config.input_size[1], self.config.input_size[0])
        # The first run allocates and selects kernels: that is not the first frame's business.
        blank = np.zeros((*self.config.input_size, 3), dtype=np.uint8)
        for mode in self.modes[::2]:
            self.infer(blank, Settings(mode=mode, budget=1.0, tasks=self.tasks))

    def check(self, settings: Settings) -> None:
        """Raise ValueError where this model cannot do what the settings ask for."""
        self._known(settings.tasks)
        if settings.mode == 'static':
            return
        config = self.config
        if config.policy == 'none':
            raise ValueError(
                f'mode {settings.mode!r}: the model {self.model!r} has no policy; choose mode '
                'static, or give it a policy by an adaptive stage of `adamtl train`')
        if settings.budget is None and config.budget_input:
            raise ValueError(
                f'no budget: the policy of the model {self.model!r} was trained with budgets, '
                'so give one, a number above 0 and at most 1')

    @property
    def needs_budget(self) -> bool:
        """Return whether the policy was trained with budgets."""
        return self.config.budget_input

    @property
    def modes(self) -> tuple[str, ...]:
        """Return the modes that the model can run in."""
        return MODES if self.config.policy != 'none' else ('static',)

    def min_budget(self, tasks: Sequence[str]) -> float:
        """Return the least budget that the policy can keep for these tasks."""
        chosen = self._known(tasks)
        return self.cost.minimum(chosen) / self.cost.dense(chosen)

    def _known(self, tasks: Sequence[str]) -> tuple[str, ...]:
        names = ordered(tasks)
        for name in names:
            if name not in self.tasks:
                raise ValueError(
                    f'the model {self.model!r} has no task {name!r}: it has '
                    f'{", ".join(self.tasks)}')
        return names

    def infer(
            self, image: np.ndarray, settings: Settings, camera: Camera | None = None) -> Result:
        """
        Process one frame: uint8 (h, w, 3) RGB of any size, stretched to the network's input.

        camera: the intrinsics of this picture, rectified; depth and normals are as it sees them.
        Without, they are as a camera of NOMINAL_FOCAL would.
        ValueError on an image of another kind, a task that the model lacks, or a camera of
        another size.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f'image of shape {image.shape} and type {image.dtype}: expected uint8 '
                '(height, width, 3) RGB')
        self.check(settings)
        tasks = self._known(settings.tasks)
        size = settings.size(self.input_size, image.shape[1::-1])
        seen = seen_by(camera, image.shape[1::-1], self.input_size)
        lens = 'nominal' if camera is None else (
            'extreme' if geometry(seen, self.config.canonical).extreme else 'given')
        if not tasks:
            stats = GatingResult(
                settings.mode, _number(settings.budget), 0.0, 0.0, 0.0, (), lens=lens)
            blank = np.zeros(size[::-1], dtype=np.uint8) if settings.gating_map else None
            return Result({}, stats, gating_map=blank)
        with self._turn:
            return self._run(image, settings, tasks, size, seen, lens)

    def _run(
            self, image: np.ndarray, settings: Settings, tasks: tuple[str, ...],
            size: tuple[int, int], seen: Camera, lens: str) -> Result:
        backend, clock = self._backend, time.perf_counter
        times = [clock()]
        pixels = np.ascontiguousarray(shrink(image, self.input_size))
        times.append(clock())
        if settings.mode == 'adaptive':
            logits, trace = backend.adaptive(pixels, tasks, settings.budget, settings.weights)
        else:
            logits, trace = backend.dense(pixels, tasks)
        times.append(clock())
        outputs = self._published(logits, seen)
        confidences = {}
        if settings.confidence and 'semseg' in logits:
            confidences['semseg'] = confidence(logits['semseg'], self.config.input_size)
        times.append(clock())
        agreed: dict[str, float] = {}
        if settings.compares:
            if settings.mode == 'adaptive':
                other, _ = backend.dense(pixels, tasks)
            else:
                other, trace = backend.adaptive(pixels, tasks, settings.budget, settings.weights)
            agreed = {
                task: agreement(task, outputs[task], value)
                for task, value in self._published(other, seen).items()}
        elif settings.mode == 'shadow':
            trace = Trace([], math.nan, [])
        times.append(clock())
        heat = self._gating_map(trace) if settings.gating_map and trace.gates else None
        if size != self.input_size:
            outputs = {task: resize(task, value, size) for task, value in outputs.items()}
            confidences = {
                task: cv2.resize(value, size, interpolation=cv2.INTER_LINEAR)
                for task, value in confidences.items()}
            if heat is not None:
                heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
        times.append(clock())
        dense = self.cost.dense(tasks)
        pre, net, post, compare, rest = (
            1000 * (end - start) for start, end in zip(times, times[1:]))
        stats = GatingResult(
            settings.mode, _number(settings.budget), trace.macs / dense, trace.macs / 1e9,
            dense / 1e9, tasks,
            (1.0,) * len(tasks) if settings.mode == 'static' else tuple(trace.task_fraction),
            tuple(float(cells.any()) for cells in trace.gates), tuple(trace.token_fraction),
            float(np.mean(list(agreed.values()))) if agreed else math.nan, agreed, pre, net,
            post + rest, compare, self._predicted(trace, tasks, settings.mode), lens)
        return Result(outputs, stats, confidences, heat, logits if settings.raw else {})

    def _predicted(self, trace: Trace, tasks: Sequence[str], mode: str) -> float:
        if self.latency_model is None or mode != 'adaptive':
            return math.nan
        return self.latency_model.predict(trace, tasks)

    def calibrate(self) -> latency.LatencyModel | None:
        """
        Time the network's pieces on this device, some seconds, unless that was kept; return it.

        From then on every adaptive frame has its `predicted_ms`.  None without a policy.
        """
        if 'adaptive' not in self.modes or self.latency_model is not None:
            return self.latency_model
        path = cache() / ('latency-' + latency.key(
            checkpoint.find(self.model), self.backend, self.device, self.precision,
            self._threads) + '.json')
        self.latency_model = latency.load(path)
        if self.latency_model is None:
            self.latency_model = latency.measured(self.config, self._timed)
            latency.save(path, self.latency_model)
        return self.latency_model

    def _timed(
            self, pixels: np.ndarray, tasks: tuple[str, ...], budget: float | None
    ) -> tuple[Trace, float]:
        with self._turn:
            started = time.perf_counter()
            _, trace = self._backend.adaptive(pixels, tasks, budget, {})
            return trace, 1000 * (time.perf_counter() - started)

    def _published(
            self, logits: dict[str, np.ndarray], camera: Camera) -> dict[str, np.ndarray]:
        config = self.config
        return {
            task: published(
                task, value, config.input_size, axes=config.normals_axes,
                linear_depth=config.linear_depth, camera=camera, canonical=config.canonical)
            for task, value in logits.items()}

    def _gating_map(self, trace: Trace) -> np.ndarray:
        """Return uint8 (h, w): the share, by cost, of the encoder's blocks that ran there."""
        total = np.zeros(self.config.resolution(0))
        weight = 0.0
        for cells, block in zip(trace.gates, self.cost.blocks):
            resolution = self.config.resolution(block.stage)
            active = cells[cell_of_token(resolution, self.config.cells[block.stage])]
            step = 1 << block.stage
            total += block.dense * active.reshape(resolution).repeat(step, 0).repeat(step, 1)
            weight += block.dense
        heat = np.round(total * (255 / weight)).astype(np.uint8)
        return cv2.resize(heat, self.input_size, interpolation=cv2.INTER_NEAREST)


def _number(budget: float | None) -> float:
    return math.nan if budget is None else budget


def resize(task: str, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Resize a published array to (width, height).

    Class ids and depth at its edges take the nearest pixel, the rest is interpolated bilinearly.
    """
    if TASKS[task].kind == 'classes':
        return cv2.resize(array, size, interpolation=cv2.INTER_NEAREST)
    if TASKS[task].kind == 'depth':
        return resized_depth(array, size)
    array = cv2.resize(array, size, interpolation=cv2.INTER_LINEAR)
    if TASKS[task].kind == 'normals':
        return array / np.linalg.norm(array, axis=-1, keepdims=True)
    return array


def _backend(
        model: str, name: str, device: str, num_threads: int, precision: str
) -> 'TorchBackend | OpenVinoBackend':
    # Each is imported only if it is used: torch alone takes seconds and 200 MB.
    if name not in BACKENDS:
        raise ValueError(f'backend {name!r}: choose one of {", ".join(BACKENDS)}')
    if precision not in PRECISIONS:
        raise ValueError(f'precision {precision!r}: choose one of {", ".join(PRECISIONS)}')
    installed = find_spec('openvino') is not None
    if name == 'openvino' or (name == 'auto' and device == 'cpu' and installed):
        if not installed:
            raise ValueError(
                "backend 'openvino' is not installed: pip install 'adamtl_ros[openvino]', or "
                'choose torch')
        if device != 'cpu':
            raise ValueError(
                f"device {device!r}: the backend openvino runs on 'cpu' alone; choose torch")
        from adamtl_ros.runtime.openvino_backend import OpenVinoBackend
        return OpenVinoBackend(model, num_threads, precision, cache())
    if precision != 'f32':
        raise ValueError(
            f'precision {precision!r}: the backend torch has f32 alone; choose openvino')
    from adamtl_ros.runtime.torch_backend import TorchBackend
    return TorchBackend(model, device, num_threads)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The engine: one camera frame in, the results of every wanted task out, under a budget."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
import time

import cv2
import numpy as np
import torch
from torch import Tensor

from adamtl_ros.network import checkpoint
from adamtl_ros.network.network import Trace
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.preprocess import normalise
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import confidence
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import publishable
from adamtl_ros.tasks import TASKS

BACKENDS = ('auto', 'torch')


@dataclass(frozen=True)
class GatingResult:
    """
    What a frame cost and what ran for it; the names are those of the message GatingStats.

    Budgets are shares of the dense cost of the tasks.  In mode 'shadow' the cost and the gates
    are those that the policy would have executed, NaN and empty where it was not run.  Where both
    paths ran, `task_agreement` compares their results, each in [0, 1].  Times are in
    milliseconds; `compare_ms`, what comparing took, is no part of the others.
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


@dataclass(frozen=True)
class Result:
    """
    The outputs of a frame, arrays as they are published.

    outputs: per task, uint8 (h, w) class ids, float32 (h, w) in [0, 1] or metres, or float32
    (h, w, 3) unit normals.  confidence: uint8 (h, w), probability x 255.  gating_map: uint8
    (h, w), 255 where every block ran.  raw: float32 (channels, H, W), the decoders' own outputs
    before they are brought to the network's size.
    """

    outputs: dict[str, np.ndarray]
    stats: GatingResult
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    gating_map: np.ndarray | None = None
    raw: dict[str, np.ndarray] = field(default_factory=dict)


class Engine:
    """
    A loaded model, ready for frames of any size; one caller at a time.

    model: preset or path of a weights file.  backend: 'auto' or 'torch'.
    device: 'cpu', 'cuda' or 'cuda:N'.  num_threads: of torch, for the process; 0 leaves it.
    """

    def __init__(
            self, model: str = 'glasses', *, backend: str = 'auto', device: str = 'cpu',
            num_threads: int = 0) -> None:
        """Load the model; FileNotFoundError or ValueError where that cannot be done."""
        if backend not in BACKENDS:
            raise ValueError(
                f'backend {backend!r} is not available: choose one of {", ".join(BACKENDS)}')
        if num_threads < 0:
            raise ValueError(f'num_threads {num_threads}: 0 (automatic) or the number of threads')
        self.device = device
        self._device = _device(device)
        self._network = checkpoint.load(model).to(self._device)
        if num_threads:
            torch.set_num_threads(num_threads)
        config = self._network.config
        self.model = model
        self.backend = 'torch'
        self.tasks = config.tasks
        self.class_names = {task: tuple(names) for task, names in config.classes.items()}
        self.input_size = (config.input_size[1], config.input_size[0])
        # The first run allocates and selects kernels: that is not the first frame's business.
        blank = np.zeros((*config.input_size, 3), dtype=np.uint8)
        self.infer(blank, Settings(tasks=self.tasks))

    def check(self, settings: Settings) -> None:
        """Raise ValueError where this model cannot do what the settings ask for."""
        self._known(settings.tasks)
        if settings.mode == 'static':
            return
        config = self._network.config
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
        return self._network.config.budget_input

    @property
    def modes(self) -> tuple[str, ...]:
        """Return the modes that the model can run in."""
        return MODES if self._network.config.policy != 'none' else ('static',)

    def min_budget(self, tasks: Sequence[str]) -> float:
        """Return the least budget that the policy can keep for these tasks."""
        chosen = self._known(tasks)
        cost = self._network.cost
        return cost.minimum(chosen) / cost.dense(chosen)

    def _known(self, tasks: Sequence[str]) -> tuple[str, ...]:
        names = ordered(tasks)
        for name in names:
            if name not in self.tasks:
                raise ValueError(
                    f'the model {self.model!r} has no task {name!r}: it has '
                    f'{", ".join(self.tasks)}')
        return names

    def infer(self, image: np.ndarray, settings: Settings) -> Result:
        """
        Process one frame: uint8 (h, w, 3) RGB of any size, stretched to the network's input.

        ValueError on an image of another kind or a task that the model lacks.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f'image of shape {image.shape} and type {image.dtype}: expected uint8 '
                '(height, width, 3) RGB')
        self.check(settings)
        tasks = self._known(settings.tasks)
        size = self.input_size if settings.output_size == 'network' else image.shape[1::-1]
        if not tasks:
            stats = GatingResult(settings.mode, _number(settings.budget), 0.0, 0.0, 0.0, ())
            blank = np.zeros(size[::-1], dtype=np.uint8) if settings.gating_map else None
            return Result({}, stats, gating_map=blank)
        with torch.inference_mode():
            return self._infer(image, settings, tasks, size)

    def _infer(
            self, image: np.ndarray, settings: Settings, tasks: tuple[str, ...],
            size: tuple[int, int]) -> Result:
        network, clock = self._network, time.perf_counter
        times = [clock()]
        small = shrink(image, self.input_size)
        pixels = torch.from_numpy(np.ascontiguousarray(small))[None].to(self._device)
        inputs = normalise(pixels)
        times.append(clock())
        if settings.mode == 'adaptive':
            logits, trace = network.run_policy(inputs, tasks, settings.budget, settings.weights)
        else:
            logits, trace = network.run_dense(inputs, tasks)
        # As in the reference, bringing the logits to the input's size is the network's last step.
        full = self._full(logits)
        times.append(clock())
        agreed: dict[str, float] = {}
        if settings.compares:
            if settings.mode == 'adaptive':
                other, _ = network.run_dense(inputs, tasks)
            else:
                other, trace = network.run_policy(
                    inputs, tasks, settings.budget, settings.weights)
            agreed = {
                task: agreement(task, publishable(task, full[task]), publishable(task, value))
                for task, value in self._full(other).items()}
        elif settings.mode == 'shadow':
            trace = Trace([], math.nan, [])
        times.append(clock())
        outputs = {task: publishable(task, value) for task, value in full.items()}
        confidences = {}
        if settings.confidence and 'semseg' in full:
            confidences['semseg'] = confidence(full['semseg'])
        heat = self._gating_map(trace) if settings.gating_map else None
        raw: dict[str, np.ndarray] = {}
        if settings.raw:
            raw = {
                task: np.ascontiguousarray(value[0].float().cpu().numpy())
                for task, value in logits.items()}
        if size != self.input_size:
            outputs = {task: resize(task, value, size) for task, value in outputs.items()}
            confidences = {
                task: cv2.resize(value, size, interpolation=cv2.INTER_LINEAR)
                for task, value in confidences.items()}
            if heat is not None:
                heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
        times.append(clock())
        dense = network.cost.dense(tasks)
        pre, net, compare, post = (1000 * (end - start) for start, end in zip(times, times[1:]))
        stats = GatingResult(
            settings.mode, _number(settings.budget), trace.macs / dense, trace.macs / 1e9,
            dense / 1e9, tasks,
            (1.0,) * len(tasks) if settings.mode == 'static' else tuple(trace.task_fraction),
            tuple(float(cells.any()) for cells in trace.gates), tuple(trace.token_fraction),
            float(np.mean(list(agreed.values()))) if agreed else math.nan, agreed, pre, net, post,
            compare)
        return Result(outputs, stats, confidences, heat, raw)

    def _full(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring (1, channels, H, W) to network size, channels last: (h, w, channels)."""
        full = {}
        for task, value in logits.items():
            # OpenCV does in a fifth of torch's time what `upsample` does, to rounding.
            small = value[0].float().permute(1, 2, 0).contiguous().cpu().numpy()
            large = cv2.resize(small, self.input_size, interpolation=cv2.INTER_LINEAR)
            full[task] = torch.from_numpy(large.reshape(*large.shape[:2], -1))
        return self._network.standard(full, -1)

    def _gating_map(self, trace: Trace) -> np.ndarray:
        """Return uint8 (h, w): the share, by cost, of the encoder's blocks that ran there."""
        network = self._network
        total = np.zeros(network.config.resolution(0), dtype=np.float64)
        weight = 0.0
        for cells, block in zip(trace.gates, network.cost.blocks):
            active = network.active_tokens(block.stage, cells)
            step = 1 << block.stage
            total += block.dense * active.repeat(step, 0).repeat(step, 1)
            weight += block.dense
        heat = np.round(total * (255 / weight)).astype(np.uint8)
        return cv2.resize(heat, self.input_size, interpolation=cv2.INTER_NEAREST)


def _number(budget: float | None) -> float:
    return math.nan if budget is None else budget


def resize(task: str, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a published array to (width, height): class ids by nearest, the rest bilinearly."""
    if TASKS[task].kind == 'classes':
        return cv2.resize(array, size, interpolation=cv2.INTER_NEAREST)
    array = cv2.resize(array, size, interpolation=cv2.INTER_LINEAR)
    if TASKS[task].kind == 'normals':
        return array / np.linalg.norm(array, axis=-1, keepdims=True)
    return array


def _device(name: str) -> torch.device:
    kind, _, number = name.partition(':')
    if kind == 'cpu' and not number:
        return torch.device('cpu')
    if kind != 'cuda' or (number and not number.isdigit()):
        raise ValueError(f'device {name!r}: choose cpu, cuda or cuda:N')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise ValueError(
            f'device {name!r} is not there: torch sees {count} CUDA devices; choose cpu, or '
            'install a CUDA build of torch and its driver')
    return torch.device(name)

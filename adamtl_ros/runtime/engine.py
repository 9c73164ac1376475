# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The engine: one camera frame in, the results of every wanted task out, under a budget."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import math
from threading import Lock
import time
from typing import cast
import zlib

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.network import checkpoint
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.kinds import Cost
from adamtl_ros.network.kinds import cost_of
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import nearest_size
from adamtl_ros.network.trace import Trace
from adamtl_ros.paths import cache
from adamtl_ros.processes import processors
from adamtl_ros.runtime import latency
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.backends import backend_of
from adamtl_ros.runtime.backends import BACKENDS
from adamtl_ros.runtime.backends import PRECISIONS
from adamtl_ros.runtime.backends import PricedBackend
from adamtl_ros.runtime.ego_motion import moved_logits
from adamtl_ros.runtime.ego_motion import moved_results
from adamtl_ros.runtime.geometry import geometry
from adamtl_ros.runtime.geometry import resized_depth
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.publish import confidence
from adamtl_ros.runtime.publish import lens_of
from adamtl_ros.runtime.publish import nothing
from adamtl_ros.runtime.publish import published
from adamtl_ros.runtime.settings import BLIND
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import RANDOM
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Known
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import TASKS

__all__ = ['BACKENDS', 'Engine', 'GatingResult', 'PRECISIONS', 'Result']


@dataclass(frozen=True)
class GatingResult:
    """
    What a frame cost and what ran for it; what it says is in the messages GatingStats, TaskStats.

    Budgets are shares of the dense cost of the tasks.  In mode 'shadow' the cost and the gates
    are those that the policy would have executed, NaN and empty where it was not run.  Where both
    paths ran, `task_agreement` compares their results, each in [0, 1].  Times are in
    milliseconds; `compare_ms`, what comparing took, is no part of the others.  `predicted_ms` is
    what the latency model expects the network to take, NaN unless it was measured and ran.  `lens`
    is what depth and normals rest on: 'given' intrinsics, 'extreme' ones outside of what networks
    were trained for, or, where there are none, 'nominal' ones.  Of a stream: the most that the
    frame could cost, the cap or what the mean left, the mean cost of its last frames, the price
    that gates paid, NaN where there is none, and whether the result is that of an earlier frame,
    as it was (`reused`) or moved as the picture did (`warped`), or its own, averaged with those
    before (`fused`).
    `tasks_empty` are the tasks that the frame has nothing for, whose decoders the policy's path
    did not run.  `size` is the (width, height) of the input at which the frame ran, which the
    policy may choose below that of static mode, (0, 0) where the cost is NaN.
    """

    mode: str
    budget_requested: float
    budget_achieved: float
    gmacs: float
    gmacs_dense: float
    tasks: tuple[str, ...]
    task_token_fraction: tuple[float, ...] = ()
    block_active: tuple[bool, ...] = ()
    token_fraction: tuple[float, ...] = ()
    agreement: float = math.nan
    task_agreement: dict[str, float] = field(default_factory=dict)
    preprocess_ms: float = 0.0
    network_ms: float = 0.0
    postprocess_ms: float = 0.0
    compare_ms: float = 0.0
    predicted_ms: float = math.nan
    lens: str = 'nominal'
    budget_cap: float = 1.0
    budget_mean: float = math.nan
    price: float = math.nan
    reused: bool = False
    tasks_empty: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    warped: bool = False
    fused: bool = False

    @property
    def computed(self) -> bool:
        """Return whether the frame's results are its own."""
        return not (self.reused or self.warped)


@dataclass(frozen=True)
class Result:
    """
    The outputs of a frame, arrays as they are published.

    outputs: per task, uint8 (h, w) class ids (uint16 of more than 254 classes), float32 (h, w) in
    [0, 1] or metres, or float32 (h, w, 3) unit normals.  confidence: uint8 (h, w), probability x
    255.  gating_map: uint8 (h, w), 255 where every block ran; None where the gates are not known.
    raw: float32 (channels, H, W), the decoders' own outputs, averaged where the frame is `fused`,
    of the size at which the frame ran, before they are brought to the network's; without those
    that did not run, and of none that was warped.
    """

    outputs: dict[str, np.ndarray]
    stats: GatingResult
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    gating_map: np.ndarray | None = None
    raw: dict[str, np.ndarray] = field(default_factory=dict)


class Engine:
    """
    A loaded model, ready for frames of any size; callers in several threads take turns.

    model: preset or path of a weights file.  backend: 'torch', 'openvino' (CPU alone), or 'auto':
    openvino where it is installed and the device is a CPU.  device: 'cpu', 'cuda' or 'cuda:N'.
    num_threads: of the backend, at most the processors that this process may use; 0 leaves it.
    precision: 'f32'; 'bf16' with openvino on a processor that has it, or with torch on CUDA;
    'int8' with openvino where `adamtl quantize` has measured the model.

    OpenCV runs on one thread in this process from then on.
    """

    def __init__(
            self, model: str = 'glasses', *, backend: str = 'auto', device: str = 'cpu',
            num_threads: int = 0, precision: str = 'f32') -> None:
        """Load the model; FileNotFoundError or ValueError where that cannot be done."""
        if num_threads < 0:
            raise ValueError(f'num_threads {num_threads}: 0 (automatic) or the number of threads')
        most = len(processors())
        if num_threads > most:
            # They would wait for one another, busily, and not hear a signal for minutes.
            raise ValueError(
                f'num_threads {num_threads}: this process may use {most} processors; give '
                f'0 (automatic) to {most}')
        # Its calls here are short, and its threads would wait, busily, on the network's cores.
        cv2.setNumThreads(1)
        self._backend = backend_of(model, backend, device, num_threads, precision)
        self.config = self._backend.config
        self.cost = cost_of(self.config)
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
        for mode in self.modes[::2]:
            self.infer(self._blank(), Settings(mode=mode, budget=1.0, tasks=self.tasks))

    def warm(self, settings: Settings) -> None:
        """Run blank frames: what the settings need is compiled before a real one waits."""
        self.infer(self._blank(), settings)
        if settings.mode != 'static' and settings.tasks and isinstance(self.config, LiteConfig):
            # In a stream gates have a price, and something is left to be decided.
            self.infer(self._blank(), settings, None, Stream(Known(price=1e-6)))

    def _blank(self) -> np.ndarray:
        return np.zeros((*self.config.input_size, 3), dtype=np.uint8)

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
        if settings.mode in BLIND and config.kind != 'lite':
            raise ValueError(
                f'mode {settings.mode!r}: the blocks of the model {self.model!r} run in parts; '
                'only those of networks whose blocks run whole have a best set')
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

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) at which pictures of (width, height) run."""
        if not isinstance(self.config, LiteConfig):
            return self.input_size
        return nearest_size(self.config, size)

    def infer(
            self, image: np.ndarray, settings: Settings, camera: Camera | None = None,
            stream: Stream | None = None) -> Result:
        """
        Process one frame: uint8 (h, w, 3) RGB of any size, brought to that of the network.

        camera: the intrinsics of this picture, rectified; depth and normals are as it sees them.
        Without, they are as a camera of NOMINAL_FOCAL would.
        stream: that of the frames that this one follows; without, it stands alone.  Its arrays may
        be those of later frames as well: copy them to write into them.
        ValueError on an image of another kind, a task that the model lacks, or a camera of
        another size.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f'image of shape {image.shape} and type {image.dtype}: expected uint8 '
                '(height, width, 3) RGB')
        self.check(settings)
        tasks, size = self._known(settings.tasks), self.network_size(image.shape[1::-1])
        frame = _Frame(image, settings, tasks, size, seen_by(camera, image.shape[1::-1], size))
        lens = 'nominal' if camera is None else (
            'extreme' if geometry(frame.seen, self.config.canonical).extreme else 'given')
        if not tasks:
            stats = GatingResult(
                settings.mode, _number(settings.budget), 0.0, 0.0, 0.0, (), lens=lens)
            blank = np.zeros(frame.output_size[::-1], np.uint8) if settings.gating_map else None
            return Result({}, stats, gating_map=blank)
        with self._turn:
            return self._run(frame, lens, stream)

    def _run(self, frame: '_Frame', lens: str, stream: Stream | None) -> Result:
        settings, tasks, laps = frame.settings, frame.tasks, _Laps()
        with laps('preprocess'):
            pixels = np.ascontiguousarray(shrink(frame.image, frame.size))
        # What the policy would do, or does; and the dense network beside or without it.
        policy = other = None
        if settings.mode == 'adaptive':
            policy = answer = self._policy(pixels, frame, stream, laps, 'network')
            if settings.compares:
                other = self._dense(pixels, frame, laps, 'compare')
        elif settings.mode in BLIND:
            answer = self._blind(pixels, frame, laps)
        else:
            answer = self._dense(pixels, frame, laps, 'network')
            if settings.compares:
                policy = other = self._policy(pixels, frame, stream, laps, 'compare')
        agreed: dict[str, float] = {}
        if other is not None:
            with laps('compare'):
                agreed = {task: agreement(task, answer.outputs[task], value)
                          for task, value in other.outputs.items()}
        trace = policy.trace if policy else (
            Trace([], math.nan, []) if settings.mode == 'shadow' else answer.trace)
        with laps('postprocess'):
            outputs, confidences, heat = self._sized(answer, trace, frame)
        dense = self._cost(frame.size).dense(tasks)
        stats = GatingResult(
            settings.mode, _number(settings.budget), trace.macs / dense, trace.macs / 1e9,
            dense / 1e9, tasks,
            tuple(trace.task_fraction) if policy else (
                () if settings.mode == 'shadow' else (1.0,) * len(tasks)),
            tuple(bool(cells.any()) for cells in trace.gates), tuple(trace.token_fraction),
            float(np.mean(list(agreed.values()))) if agreed else math.nan, agreed,
            laps.ms['preprocess'], laps.ms['network'], laps.ms['postprocess'], laps.ms['compare'],
            self._predicted(trace, tasks, settings.mode), lens,
            policy.cap if policy else settings.cap,
            stream.mean if stream and policy else math.nan,
            policy.price if policy else math.nan, bool(policy and policy.reused),
            policy.trace.empty if policy else (),
            (0, 0) if math.isnan(trace.macs) else _ran(trace, frame.size),
            bool(policy and policy.warped), bool(policy and policy.fused))
        return Result(outputs, stats, confidences, heat, answer.logits if settings.raw else {})

    def _dense(
            self, pixels: np.ndarray, frame: '_Frame', laps: '_Laps', lap: str) -> '_Answer':
        with laps(lap):
            logits, trace = self._backend.dense(pixels, frame.tasks)
        with laps('postprocess' if lap == 'network' else lap):
            return self._answer(logits, trace, frame)

    def _blind(self, pixels: np.ndarray, frame: '_Frame', laps: '_Laps') -> '_Answer':
        settings = frame.settings
        # What is drawn for a picture is always the same, too.
        seed = zlib.crc32(pixels.data) if settings.mode == RANDOM else None
        with laps('network'):
            logits, trace = cast(PricedBackend, self._backend).fixed(
                pixels, frame.tasks, settings.budget or 1.0, settings.weights, seed)
        with laps('postprocess'):
            return self._answer(logits, trace, frame)

    def _policy(
            self, pixels: np.ndarray, frame: '_Frame', stream: Stream | None, laps: '_Laps',
            lap: str) -> '_Answer':
        """Run what the policy chooses, or take what the stream remembers."""
        if not isinstance(self.config, LiteConfig):
            return self._tokens(pixels, frame, stream, laps, lap)
        settings, backend = frame.settings, cast(PricedBackend, self._backend)
        if stream is None:
            with laps(lap):
                cap = settings.budget or settings.cap
                ran = backend.priced(
                    pixels, frame.tasks, cap, settings.weights, 0.0, settings.skip_empty)
            with laps('postprocess' if lap == 'network' else lap):
                return replace(self._answer(*ran, frame), cap=cap)
        key = self._memory_key(frame)
        with laps(lap):
            if (kept := self._recalled(pixels, key, settings, stream)) is not None:
                return kept
            followed, due = stream.follow(
                pixels, key, settings, lambda limit: backend.expected(
                    pixels, frame.tasks, limit, settings.weights))
            if followed is None:
                earlier = stream.fused(pixels, key, settings)
                cap = stream.limit(settings)
                # All that the cap pays for, at the size that goes with it; or what is worth it.
                price = math.nan if due else stream.known.price if stream.known else backend.price(
                    pixels, frame.tasks, stream.target(settings), settings.weights,
                    settings.budget or settings.cap)
                ran = backend.priced(
                    pixels, frame.tasks, cap, settings.weights, 0.0 if due else price,
                    settings.skip_empty, cap if due else settings.budget)
        with laps('postprocess' if lap == 'network' else lap):
            if followed is not None:
                stream.spend(0.0, settings, priced=False)
                return _warped(*followed, frame.seen)
            answer = replace(self._computed(*ran, frame, earlier), price=price, cap=cap)
            self._entered(answer, pixels, key, frame, stream, best=due)
        return answer

    def _tokens(
            self, pixels: np.ndarray, frame: '_Frame', stream: Stream | None, laps: '_Laps',
            lap: str) -> '_Answer':
        """Run what a policy of blocks and tokens chooses: each frame within the budget."""
        settings, cap = frame.settings, frame.settings.budget or frame.settings.cap
        key = self._memory_key(frame)
        with laps(lap):
            if stream is not None and (
                    kept := self._recalled(pixels, key, settings, stream)) is not None:
                return kept
            earlier = stream.fused(pixels, key, settings) if stream is not None else None
            ran = self._backend.adaptive(pixels, frame.tasks, settings.budget, settings.weights)
        with laps('postprocess' if lap == 'network' else lap):
            answer = replace(self._computed(*ran, frame, earlier), cap=cap)
            if stream is not None:
                self._entered(answer, pixels, key, frame, stream, best=True)
        return answer

    def _memory_key(self, frame: '_Frame') -> tuple:
        """Return all that a result depends on beside its picture."""
        # Budgets leave a picture that stands still as it is; maps are made of what is kept.
        settings = frame.settings
        return (self, frame.image.shape, frame.seen, frame.tasks, sorted(settings.weights.items()),
                settings.confidence, settings.skip_empty)

    def _recalled(
            self, pixels: np.ndarray, key: tuple, settings: Settings, stream: Stream
    ) -> '_Answer | None':
        kept = stream.recall(pixels, key, settings)
        if kept is None:
            return None
        stream.spend(0.0, settings, priced=False)
        return replace(kept, reused=True, fused=False)

    def _computed(
            self, logits: dict[str, np.ndarray], trace: Trace, frame: '_Frame',
            earlier: 'tuple[_Answer, Motion] | None') -> '_Answer':
        """Return the results of a computed frame, averaged with what the stream remembers."""
        if earlier is None:
            return self._answer(logits, trace, frame)
        kept, motion = earlier
        before = {task: value for task, value in kept.logits.items()
                  if task in logits and logits[task].shape == value.shape}
        if self.config.canonical:
            before = moved_logits(before, motion, lens_of(
                frame.seen, frame.size[::-1], True, trace.size))
        return replace(self._answer(motion.averaged(logits, before), trace, frame), fused=True)

    def _entered(
            self, answer: '_Answer', pixels: np.ndarray, key: tuple, frame: '_Frame',
            stream: Stream, *, best: bool) -> None:
        """Enter a computed frame into the ledger and the memory."""
        settings, dense = frame.settings, self._cost(frame.size).dense(frame.tasks)
        stream.spend(
            answer.trace.macs / dense, settings, priced=not math.isnan(answer.price))
        stream.keep(pixels, key, settings, replace(
            answer, price=math.nan, cap=settings.cap, trace=_nothing(answer.trace)), best=best)

    def _answer(
            self, logits: dict[str, np.ndarray], trace: Trace, frame: '_Frame') -> '_Answer':
        config, size = self.config, frame.size[::-1]
        outputs = {
            task: published(
                task, value, size, axes=config.normals_axes, linear_depth=config.linear_depth,
                camera=frame.seen, canonical=config.canonical, ran=trace.size)
            for task, value in logits.items()}
        outputs = {
            task: outputs[task] if task in outputs else nothing(task, size, config.outputs[task])
            for task in frame.tasks}
        sure = {'semseg': confidence(logits['semseg'], size)} if (
            frame.settings.confidence and 'semseg' in logits) else {}
        return _Answer(outputs, sure, logits, trace)

    def _sized(self, answer: '_Answer', trace: Trace, frame: '_Frame') -> tuple[
            dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray | None]:
        """Return outputs, confidences and the gating map at the size that is wanted."""
        outputs, confidences, size = answer.outputs, answer.confidences, frame.output_size
        heat = None
        if frame.settings.gating_map and trace.gates:
            heat = self._gating_map(trace, frame.size)
        if size != frame.size:
            outputs = {task: resize(task, value, size) for task, value in outputs.items()}
            confidences = {
                task: cv2.resize(value, size, interpolation=cv2.INTER_LINEAR)
                for task, value in confidences.items()}
            if heat is not None:
                heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
        return outputs, confidences, heat

    def _cost(self, size: tuple[int, int]) -> Cost:
        if size == self.input_size or not isinstance(self.config, LiteConfig):
            return self.cost
        return cost_of(self.config.at(size[::-1]))

    def _predicted(self, trace: Trace, tasks: Sequence[str], mode: str) -> float:
        if self.latency_model is None or mode != 'adaptive' or not trace.macs:
            return math.nan
        return self.latency_model.predict(
            trace, [task for task in tasks if task not in trace.empty],
            latency.area(self.config, trace))

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

    def _gating_map(self, trace: Trace, size: tuple[int, int]) -> np.ndarray:
        """Return uint8 (h, w): the share, by cost, of the encoder's blocks that ran there."""
        if isinstance(self.config, LiteConfig):
            share = sum(trace.block_macs) / sum(block.dense for block in self._cost(size).blocks)
            return np.full(size[::-1], round(255 * share), np.uint8)
        total = np.zeros(self.config.resolution(0))
        weight = 0.0
        for tokens, block in zip(trace.gates, cast(CostModel, self.cost).blocks):
            resolution = self.config.resolution(block.stage)
            step = 1 << block.stage
            total += block.dense * tokens.reshape(resolution).repeat(step, 0).repeat(step, 1)
            weight += block.dense
        heat = np.round(total * (255 / weight)).astype(np.uint8)
        return cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)


@dataclass(frozen=True)
class _Frame:
    """A picture and what is wanted of it; size: (width, height) of the network's input."""

    image: np.ndarray
    settings: Settings
    tasks: tuple[str, ...]
    size: tuple[int, int]
    seen: Camera

    @property
    def output_size(self) -> tuple[int, int]:
        """Return the (width, height) of the results."""
        return self.settings.size(self.size, self.image.shape[1::-1])


@dataclass(frozen=True)
class _Answer:
    """What a run of the network gave, at the network's size."""

    outputs: dict[str, np.ndarray]
    confidences: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    trace: Trace
    price: float = math.nan
    cap: float = 1.0
    reused: bool = False
    warped: bool = False
    fused: bool = False


def _warped(answer: _Answer, motion: Motion, camera: Camera) -> _Answer:
    """Return what was kept of an earlier picture as it is after that moved."""
    outputs = moved_results(answer.outputs, motion, camera)
    return replace(
        answer, warped=True, fused=False, logits={},
        outputs={task: motion.warped(value) for task, value in outputs.items()},
        # As sure as of the class that is there.
        confidences={task: motion.warped(value) for task, value in answer.confidences.items()})


class _Laps:
    """Milliseconds by name: `with laps('network'):` adds what is inside."""

    def __init__(self) -> None:
        self.ms = dict.fromkeys(('preprocess', 'network', 'postprocess', 'compare'), 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] += 1000 * (time.perf_counter() - started)


def _nothing(trace: Trace) -> Trace:
    """Return the trace of a frame for which nothing ran."""
    return Trace(
        [np.zeros_like(cells) for cells in trace.gates], 0.0, [0.0] * len(trace.token_fraction),
        [0.0] * len(trace.task_fraction), [0] * len(trace.block_macs), trace.empty, trace.size)


def _ran(trace: Trace, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) at which a frame of that size ran."""
    return size if trace.size is None else (trace.size[1], trace.size[0])


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

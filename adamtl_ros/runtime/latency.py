# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Cost in milliseconds: what a frame takes on this device, and the budget that holds a latency.

MACs are what a budget is counted in; what they take depends on the device.  The model is linear
in what ran: a constant, a term a decoder, a term an open block and one a MAC of the blocks.  The
first two are in proportion to the area of the input, where frames can run at a smaller size.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import hashlib
from importlib import import_module
import json
from pathlib import Path
import platform

import numpy as np

from adamtl_ros.files import whole
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.kinds import Cost
from adamtl_ros.network.trace import Trace
from adamtl_ros.paths import version
from adamtl_ros.processes import processors

BUDGETS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
"""At which the pieces are timed."""

FORGETTING = 0.25
"""How much one frame counts in what the device is thought to take just now."""

Run = Callable[[np.ndarray, tuple[str, ...], float | None], tuple[Trace, float]]


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds of the network: for any frame, a task, an open block, a GMAC of the blocks."""

    fixed_ms: float
    task_ms: float
    block_ms: float
    gmac_ms: float

    def predict(self, trace: Trace, tasks: Sequence[str], area: float = 1.0) -> float:
        """
        Return the milliseconds of a frame whose gates are known.

        area: of its input, as a share of the configured one.
        """
        opened = sum(macs > 0 for macs in trace.block_macs)
        return (area * self._fixed(tasks) + self.block_ms * opened
                + self.gmac_ms * sum(trace.block_macs) / 1e9)

    def expect(self, cost: Cost, tasks: tuple[str, ...], budget: float) -> float:
        """Return the milliseconds of a frame at a budget, in proportion to what it opens."""
        least, most = self._ends(cost, tasks)
        span = cost.most(tasks) - cost.minimum(tasks)
        return least + (budget * cost.dense(tasks) - cost.minimum(tasks)) / span * (most - least)

    def budget(self, cost: Cost, tasks: tuple[str, ...], wanted_ms: float) -> float:
        """Return the budget at which `expect` gives that time; it may lie outside (0, 1]."""
        least, most = self._ends(cost, tasks)
        share = (wanted_ms - least) / max(most - least, 1e-9)
        span = cost.most(tasks) - cost.minimum(tasks)
        return (cost.minimum(tasks) + share * span) / cost.dense(tasks)

    def _ends(self, cost: Cost, tasks: tuple[str, ...]) -> tuple[float, float]:
        """Return the milliseconds of the least that frames may be, and of all of it."""
        fixed, blocks = self._fixed(tasks), sum(block.dense for block in cost.blocks)
        return cost.least_area * fixed, (
            fixed + self.block_ms * len(cost.blocks) + self.gmac_ms * blocks / 1e9)

    def _fixed(self, tasks: Sequence[str]) -> float:
        return self.fixed_ms + self.task_ms * len(tasks)


def measured(config: Config, run: Run) -> LatencyModel:
    """
    Time frames of varied gates and tasks and fit the model to them.

    run: (pixels, tasks, budget) to what ran and the milliseconds it took.
    """
    generator = np.random.default_rng(0)
    height, width = config.input_size
    frames = [np.kron(generator.integers(0, 255, (height // 16, width // 16, 3)),
                      np.ones((16, 16, 1))).astype(np.uint8) for _ in range(3)]
    every = tuple(config.tasks)
    budgets: Sequence[float | None] = BUDGETS if config.budget_input else (*BUDGETS, None)
    jobs = [(frame, every, budget) for frame in frames for budget in budgets]
    jobs += [(frames[0], (task,), budget) for task in every for budget in (0.9, 0.5)]
    rows, times = [], np.full(len(jobs), np.inf)
    for attempt in range(3):
        for number, (frame, tasks, budget) in enumerate(jobs):
            trace, taken = run(frame, tasks, budget)
            # The first round prepares shapes; of the others the quicker one was less disturbed.
            if attempt:
                times[number] = min(times[number], taken)
            else:
                size = area(config, trace)
                rows.append([
                    size, size * len(tasks), sum(macs > 0 for macs in trace.block_macs),
                    sum(trace.block_macs) / 1e9])
    fixed, task, block, gmac = _non_negative(np.array(rows), times)
    return LatencyModel(fixed, task, block, max(gmac, 1e-6))


def area(config: Config, trace: Trace) -> float:
    """Return the area of the input at which a frame ran, as a share of the configured one."""
    height, width = trace.size or config.input_size
    return height * width / (config.input_size[0] * config.input_size[1])


def _non_negative(rows: np.ndarray, values: np.ndarray) -> list[float]:
    """Return least-squares coefficients, those that would be negative left out."""
    kept = np.ones(rows.shape[1], dtype=bool)
    while True:
        found = np.zeros(rows.shape[1])
        found[kept] = np.linalg.lstsq(rows[:, kept], values, rcond=None)[0]
        if (found >= 0).all():
            return [float(value) for value in found]
        kept &= found >= 0


def load(path: Path) -> LatencyModel | None:
    """Return the model kept in a file, None if there is no usable one."""
    try:
        model = LatencyModel(**json.loads(path.read_text(encoding='utf-8')))
        return model if all(0 <= value < np.inf for value in asdict(model).values()) else None
    except (OSError, ValueError, TypeError):
        return None


def save(path: Path, model: LatencyModel) -> None:
    """Keep the model in a file; a disk that is full or read-only is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as aside:
            aside.write_text(json.dumps(asdict(model)), encoding='utf-8')
    except OSError:
        pass


def key(weights: Path, backend: str, device: str, *settings: object) -> str:
    """
    Return a name for measurements of these weights with these settings on this machine.

    Told apart: the processor and which of its cores this process may use, the GPU of a device
    that is one, and the releases of this package and of the backend.
    """
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(repr((
        backend, device, settings, processor(), processors(), _gpu(device), version(),
        _release(backend))).encode())
    return digest.hexdigest()[:16]


def processor() -> str:
    """Return the name of this machine's processor, '' where the system has none."""
    try:
        return next(
            line.partition(': ')[2] for line in Path('/proc/cpuinfo').read_text().splitlines()
            if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor()


def _gpu(device: str) -> str:
    if not device.startswith('cuda'):
        return ''
    import torch
    return str(torch.cuda.get_device_name(device))


def _release(backend: str) -> str:
    """Return the version of the backend's library, which bears its name."""
    return str(getattr(import_module(backend), '__version__', ''))


class LatencyControl:
    """
    Moves the budget so that frames take a wanted time.

    The model says what gates take on an idle device.  Three things are followed frame by frame:
    how much longer the device takes just now, how far the gates that the policy chooses for a
    budget are from ones in proportion, and what is spent outside the network.  As the budget is
    computed from them, not stepped, there is nothing that could swing.
    """

    def __init__(self, model: LatencyModel, cost: Cost) -> None:
        self._model = model
        self._cost = cost
        self._ratio = 1.0
        self._shape = 1.0
        self._expected_ms = 0.0
        self._beside_ms: float | None = None

    def budget(self, tasks: tuple[str, ...], target_ms: float, least: float, most: float) -> float:
        """Return the budget for the next frame, within [least, most]."""
        wanted = (target_ms - (self._beside_ms or 0.0)) / (self._ratio * self._shape)
        budget = min(max(self._model.budget(self._cost, tasks, wanted), least), most)
        self._expected_ms = self._model.expect(self._cost, tasks, budget)
        return budget

    def observe(self, predicted_ms: float, network_ms: float, latency_ms: float) -> None:
        """Learn from a frame: what its gates should have taken, took, and took in all."""
        beside, predicted_ms = latency_ms - network_ms, max(predicted_ms, 1e-3)
        self._shape *= (predicted_ms / max(self._expected_ms, 1e-3) / self._shape) ** FORGETTING
        if self._beside_ms is None:
            self._beside_ms = beside
            self._ratio = network_ms / predicted_ms
            return
        self._beside_ms += FORGETTING * (beside - self._beside_ms)
        # In the logarithm, and no further than twofold: one stalled frame is no new speed.
        step = np.clip(np.log(network_ms / predicted_ms / self._ratio), -0.7, 0.7)
        self._ratio *= float(np.exp(FORGETTING * step))

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The thread that answers frames, without a ROS graph: settings and stream of each frame."""

from array import array
from dataclasses import replace
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')

from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.calibration import Lens  # noqa: E402
from adamtl_ros.network import checkpoint  # noqa: E402
from adamtl_ros.nodes.parameters import Options  # noqa: E402
from adamtl_ros.nodes.parameters import PARAMETERS  # noqa: E402
from adamtl_ros.nodes.rollout import BudgetPlan  # noqa: E402
from adamtl_ros.nodes.rollout import Rollout  # noqa: E402
from adamtl_ros.nodes.slot import FrameCounter  # noqa: E402
from adamtl_ros.nodes.worker import ReceivedFrame  # noqa: E402
from adamtl_ros.nodes.worker import Worker  # noqa: E402
from adamtl_ros.runtime.engine import Engine  # noqa: E402
from networks import random_network  # noqa: E402


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'random.safetensors'
    checkpoint.save(path, random_network('lite'))
    return Engine(str(path), backend='torch')


def options(**values: Any) -> Options:
    """Return the options of parameters; '__' stands for '.' in their names."""
    known = {name: spec.default for name, spec in PARAMETERS.items()}
    given = {name.replace('__', '.'): value for name, value in values.items()}
    assert given.keys() <= known.keys()
    return Options.from_values(
        {**known, 'mode': 'adaptive', 'budget': 0.6, **given}, ('semseg', 'depth'))


class Outputs:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.stats: list[Any] = []
        self.results: list[Any] = []

    def wanted(self) -> frozenset[str]:
        return frozenset({'depth', 'semseg', 'gating_stats'})

    def publish_results(self, wanted, result, rgb, lens, options, header) -> None:
        self.results.append((header, result))

    def publish_stats(self, stats, header, counts, **beside) -> None:
        self.stats.append(stats)
        self.beside = beside


class Bench:
    """A worker whose frames are answered one by one, in this thread."""

    def __init__(self, engine: Engine, control: Any = None, **values: Any) -> None:
        self.outputs, self.warnings = Outputs(), []
        self.worker = Worker(
            engine=engine, control=control, outputs=self.outputs,
            lens=lambda header, size: Lens(), counter=FrameCounter(), options=options(**values),
            clock=lambda: 20_000_000_000,
            logger=SimpleNamespace(warning=self.warnings.append, error=self.warnings.append))
        assert self.worker.stop(10.0)

    def answer(self, stamp: float, camera: str = 'front', shade: int = 0) -> Any:
        """Return the statistics of a picture with this stamp in s."""
        noise = np.random.default_rng(0).integers(0, 128, (48, 64, 3), dtype=np.uint8)
        message = Image(encoding='rgb8', width=64, height=48, step=192,
                        data=array('B', (noise + np.uint8(shade)).tobytes()))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(
            round(stamp * 1e9), 1_000_000_000)
        message.header.frame_id = camera
        self.worker._answer(ReceivedFrame(message, 0.0), self.worker.options, self.worker.rollout)
        assert self.outputs.results[-1][0] == message.header
        return self.outputs.stats[-1]


def test_still_frames_are_reused_and_the_stream_follows_the_stamps(engine):
    # A cap of the budget: no frame is better than the others.
    bench = Bench(engine, refresh=4, budget_cap=0.6)
    reused = [bench.answer(10.0 + number / 10).reused for number in range(6)]
    assert reused == [False, True, True, True, False, True]
    assert [each.reused for each in bench.worker.times] == reused
    assert not bench.answer(10.6, shade=40).reused
    assert bench.warnings == []
    for stamp, camera in ((10.6, 'front'), (10.5, 'front'), (10.6, 'rear'), (13.0, 'rear')):
        assert not bench.answer(stamp, camera, 40).reused
        assert bench.answer(stamp + 0.05, camera, 40).reused
    assert len(bench.warnings) == 1
    assert 'a stamp of 10.600 s follows one of 10.600 s' in bench.warnings[0]
    assert not Bench(engine, reuse=False).answer(1.0).reused


def test_frames_are_as_old_as_the_clock_of_the_node_says(engine):
    bench = Bench(engine)
    for stamp, age in ((19.75, 250.0), (20.25, math.nan), (0.0, math.nan)):
        bench.answer(stamp)
        assert bench.outputs.beside['age_ms'] == pytest.approx(age, nan_ok=True)
    assert bench.outputs.beside['guard'] == 'off'


def test_parameters_of_streams_reach_the_engine(engine):
    bench = Bench(engine, budget=0.5, budget_cap=0.7, budget_horizon=10, refresh=5, reuse=False)
    stats = bench.answer(1.0)
    assert (stats.budget_requested, stats.budget_cap) == (0.5, 0.7)
    assert not bench.answer(1.1).reused
    chosen = bench.worker.options.settings
    assert (chosen.cap, chosen.horizon, chosen.refresh, chosen.reuse) == (0.7, 10, 5, False)
    with pytest.raises(ValueError, match=r'budget is 0.8 and budget_cap 0.7: .*set the cap'):
        options(budget=0.8, budget_cap=0.7)


def test_the_budget_of_the_latency_controller_is_the_cap(engine):
    seen = []
    control = SimpleNamespace(
        budget=lambda tasks, target, least, most: 0.75, observe=lambda *_: seen.append(1))
    bench = Bench(engine, control, target_latency_ms=50.0, budget=0.9)
    first, second = bench.answer(1.0), bench.answer(1.1)
    assert first.budget_cap == first.budget_requested == 0.75
    assert first.budget_achieved <= 0.75
    assert bench.worker.plan == BudgetPlan(0.3, 0.9, 0.75, 'latency controller')
    # A reused frame says nothing of how long the network takes.
    assert second.reused and seen == [1]


@pytest.mark.parametrize('agreement', [0.0, 1.0])
def test_a_remembered_result_that_agrees_too_little_is_forgotten(engine, agreement):
    bench = Bench(
        engine, mode='shadow', budget_cap=0.6, compare_share=1.0, guard__agreement=agreement)
    reused = [bench.answer(1.0 + number / 10).reused for number in range(5)]
    assert reused == [False, True, agreement == 0.0, True, agreement == 0.0]


def test_a_guard_that_acts_makes_the_stream_forget(engine):
    bench = Bench(
        engine, budget=0.5, budget_cap=0.55, compare_share=1.0, guard__action='raise_budget',
        guard__agreement=1.0, guard__window=2)
    first, second, third = (bench.answer(1.0 + number / 10) for number in range(3))
    assert [first.budget_requested, second.budget_requested] == [0.5, 0.5]
    assert (third.budget_requested, third.budget_cap) == (0.6, 0.6)
    assert not third.reused and any('budget raised to 0.6' in each for each in bench.warnings)


def test_mode_static_knows_no_stream(engine):
    bench = Bench(engine)
    bench.answer(1.0)
    bench.worker.options = options(mode='static', budget_cap=0.7)
    stats = bench.answer(1.1)
    assert (stats.reused, stats.budget_cap, stats.budget_requested) == (False, 1.0, 1.0)
    assert np.isnan(stats.budget_mean) and np.isnan(stats.price)


def test_a_frame_that_nobody_wants_is_not_of_the_stream(engine):
    bench = Bench(engine)
    bench.answer(1.0)
    mean = bench.worker.stream.mean
    bench.worker.options = replace(options(), settings=replace(options().settings, tasks=()))
    bench.worker.rollout = Rollout()
    bench.outputs.results.append((None, None))
    message = Image()
    bench.worker._answer(ReceivedFrame(message, 0.0), bench.worker.options, bench.worker.rollout)
    assert bench.worker.stream.mean == mean
    assert bench.outputs.stats[-1].budget_achieved == 0.0

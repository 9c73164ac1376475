# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself: diagnostics once a second, and lines of log that are due once."""

from collections.abc import Callable
from collections.abc import Sequence
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
import numpy as np
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from adamtl_ros.nodes.diagnostics import History
from adamtl_ros.nodes.diagnostics import LOSS_SPAN
from adamtl_ros.nodes.diagnostics import PAUSE
from adamtl_ros.nodes.diagnostics import Report
from adamtl_ros.nodes.diagnostics import span
from adamtl_ros.nodes.inputs import Inputs
from adamtl_ros.nodes.outputs import OVERRIDABLE
from adamtl_ros.nodes.parameters import Options
from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.worker import Timing
from adamtl_ros.nodes.worker import Worker
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import ADAPTIVE
from adamtl_ros.runtime.settings import SHADOW
from adamtl_ros.runtime.settings import STATIC
from adamtl_ros.tasks import TASKS

LATCHED = frozenset(f'{task}/label_info' for task in TASKS)
"""Topics that have something to say while their task is turned off."""

FAREWELL_PATIENCE = 3.5
"""
Seconds to wait for those who listen to the diagnostics, when the node could not start.

Who missed the first word of a new participant hears of it 3 s later, by default of Fast DDS.
"""


class Monitor:
    """
    Publishes what the parts of a node show, in the executor's thread.

    failure: why the last transition failed, or empty.  said: what was logged once and for all.
    """

    def __init__(self, node: Node, inputs: Inputs, counter: FrameCounter) -> None:
        """Offer the topic."""
        self.failure = ''
        self._node = node
        self._inputs = inputs
        self._counter = counter
        self.said: set[str] = set()
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', 10,
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
        self.count_anew()

    def count_anew(self) -> None:
        """Forget what was counted before."""
        self._history = History(monotonic(), self._counter.counts())

    def fail(self, reason: str) -> None:
        """Log why a transition failed, and keep it for the reports to come."""
        self.failure = reason
        self._node.get_logger().error(reason)

    def say(self, words: str, *, warn: bool = True) -> None:
        """Log words, if there are any, that were not said yet."""
        if not words or words in self.said:
            return
        self.said.add(words)
        if warn:
            self._node.get_logger().warning(words)
        else:
            self._node.get_logger().info(words)

    def farewell(self, publish: Callable[[], None]) -> None:
        """Let the last report be published, with time for those who listen to find and take it."""
        end = monotonic() + FAREWELL_PATIENCE
        while not self._publisher.get_subscription_count() and monotonic() < end:
            Clock(clock_type=ClockType.STEADY_TIME).sleep_for(Duration(seconds=0.05))
        publish()
        self._publisher.wait_for_all_acked(Duration(seconds=FAREWELL_PATIENCE))

    def publish(
            self, state: str, enabled: bool, engine: Engine | None, options: Options | None,
            worker: Worker | None) -> None:
        """Publish a report; engine and options while there is a model, worker while active."""
        now, counts, inputs, node = monotonic(), self._counter.counts(), self._inputs, self._node
        period = inputs.period
        when, before = self._history.before(now, span(period))
        _, long_before = self._history.before(now, LOSS_SPAN)
        self._history.add(now, counts)
        lost = counts.missed - long_before.missed
        silent = now - inputs.silent_since
        began = worker.began if worker is not None else None
        times = [each for each in list(worker.times) if each.when > when] if worker else []
        latencies = tuple(each.latency for each in times)
        figures: dict[str, Any] = {}
        if engine is not None and options is not None:
            figures = _model(engine, options) | inputs.figures()
        if worker is not None:
            figures |= _stream(worker, times)
        report = Report(
            state=state, counts=counts, before=before, seconds=max(now - when, 1e-3),
            failure=self.failure, last_error=self._counter.last_error, enabled=enabled,
            topic=inputs.topic, numbered=inputs.numbered, lost=lost,
            sent=lost + counts.received - long_before.received,
            remedy=inputs.loss() if lost else '', silent=silent,
            silence=inputs.silence() if silent > PAUSE else '', period=period,
            working=now - began if began else 0.0, latencies=latencies,
            beside=tuple(each.beside for each in times), figures=figures,
            warnings=self._warnings(worker, latencies) if worker is not None else ())
        level, message = report.level()
        self._publisher.publish(DiagnosticArray(
            header=Header(stamp=node.get_clock().now().to_msg()),
            status=[DiagnosticStatus(
                level=level, name=f'{node.get_fully_qualified_name().lstrip("/")}: inference',
                message=message,
                hardware_id=node.get_parameter('hardware_id').value or inputs.frame_id,
                values=[KeyValue(key=key, value=value)
                        for key, value in report.values().items()])]))

    def _warnings(self, worker: Worker, latencies: Sequence[float]) -> tuple[str, ...]:
        lens = worker.lens
        in_vain, namesake = _in_vain(worker), self._namesake()
        self.say(namesake)
        self.say(in_vain)
        if lens.refused or lens.info is not None:
            self.say(f'camera: {lens.words}', warn=lens.refused or lens.distorted)
        return tuple(filter(None, (
            f'guard: {worker.rollout.action}' if worker.rollout.action else '',
            below_least(worker.engine, worker.options), lens.words if lens.refused else '',
            namesake, in_vain, _too_slow(worker, latencies),
            f'camera: {lens.words} is a lens outside of what the network was trained for: depth '
            'and normals may be far off' if worker.extreme else '')))

    def _namesake(self) -> str:
        own = self._node.get_name(), self._node.get_namespace()
        if self._node.get_node_names_and_namespaces().count(own) < 2:
            return ''
        return (f'another node is named {self._node.get_fully_qualified_name()} as well: give '
                'each a namespace or a name of its own')


def below_least(engine: Engine, options: Options) -> str:
    """Return what is to be said of a budget that the model cannot keep, mostly nothing."""
    settings, budget = options.settings, options.settings.budget or 1.0
    if settings.mode == STATIC or not settings.tasks:
        return ''
    least = engine.min_budget(settings.tasks)
    if budget >= least:
        return ''
    return (f'budget {budget:g} is below the least that {engine.model} can keep with '
            f'{", ".join(settings.tasks)}: frames will cost {least:.3f}')


def _in_vain(worker: Worker) -> str:
    """Return what is to be said of those who listen to what is turned off."""
    wanted = {name.partition('/')[0] for name in worker.outputs.wanted() - LATCHED}
    return ', '.join(
        f'~/{task} has a listener, and tasks.{task}.enable is false'
        for task in worker.engine.tasks
        if task in wanted and task not in worker.options.settings.tasks)


def _too_slow(worker: Worker, latencies: Sequence[float]) -> str:
    """Return what is to be said of a latency that no budget keeps."""
    target, plan = worker.options.target_latency_ms, worker.plan
    if not target or worker.options.settings.mode != ADAPTIVE or not latencies:
        return ''
    median = float(np.median(latencies))
    if median <= 1.1 * target or plan.applied > plan.floor + 1e-6:
        return ''
    return (f'latency of {median:.0f} ms is above the target of {target:g} ms at the lowest '
            f'budget, {plan.applied:.3g}')


def _model(engine: Engine, options: Options) -> dict[str, Any]:
    """Return the figures of what is configured."""
    settings = options.settings
    return {
        'mode': settings.mode,
        'budget requested': 1.0 if settings.mode == STATIC else settings.budget,
        'device': engine.device, 'backend': engine.backend, 'model': engine.model}


def _stream(worker: Worker, times: Sequence[Timing]) -> dict[str, Any]:
    """Return the figures of the frames since the node is active."""
    rollout, options = worker.rollout, worker.options
    mode = options.settings.mode
    figures: dict[str, Any] = {
        'camera': worker.lens.words, 'budget achieved': rollout.achieved}
    if mode != STATIC:
        figures |= {
            'budget requested': worker.plan.applied, 'budget set by': worker.plan.why,
            'budget mean': worker.stream.mean,
            **{f'share of frames {what}': float(np.mean([getattr(each, what) for each in times]))
               if times else float('nan') for what in ('reused', 'warped')},
            'guard': rollout.action or rollout.guard(mode, options.comparing)}
    if mode == SHADOW:
        figures['share of MACs that the policy would have saved'] = rollout.saving
    return figures | {f'agreement: {task}': figure
                      for task, figure in rollout.agreement.items()}

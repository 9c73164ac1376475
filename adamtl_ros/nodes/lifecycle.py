# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The lifecycle node `adamtl`: camera frames in, the results of all wanted tasks out.

A frame walks inputs -> worker -> outputs: the executor only stores the newest one, and one worker
thread converts, infers and publishes.  Here are the transitions, parameters, services and
diagnostics around that.
"""

from collections.abc import Sequence
import ctypes
import gc
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
from rclpy import utilities
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger

from adamtl_ros import dds
from adamtl_ros.nodes import parameters
from adamtl_ros.nodes.diagnostics import History
from adamtl_ros.nodes.diagnostics import LOSS_SPAN
from adamtl_ros.nodes.diagnostics import PAUSE
from adamtl_ros.nodes.diagnostics import Report
from adamtl_ros.nodes.diagnostics import span
from adamtl_ros.nodes.inputs import Inputs
from adamtl_ros.nodes.outputs import Outputs
from adamtl_ros.nodes.outputs import OVERRIDABLE
from adamtl_ros.nodes.pacing import RateLimiter
from adamtl_ros.nodes.rollout import Rollout
from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.worker import Frame
from adamtl_ros.nodes.worker import Worker
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.runtime.settings import ADAPTIVE
from adamtl_ros.runtime.settings import SHADOW
from adamtl_ros.runtime.settings import STATIC
from adamtl_ros.tasks import TASKS

DEACTIVATION_PATIENCE = 2.0
"""Seconds that deactivating waits for the frame in work: nothing else is answered meanwhile."""

LATCHED = frozenset(f'{task}/label_info' for task in TASKS)
"""Topics that have something to say while their task is turned off."""

SHUTDOWN_PATIENCE = 10.0
"""Seconds to wait for the frame in work to be finished, at the end."""

FAREWELL_PATIENCE = 1.0
"""Seconds to wait for those who listen to the diagnostics, when the node could not start."""


class AdamtlNode(LifecycleNode):
    """Runs an Engine on the newest camera frame; docs/interface.md describes the interface."""

    def __init__(self, *, engine_class: type[Engine] = Engine, **kwargs: Any) -> None:
        """
        Declare the parameters and services; nothing is loaded before the node is configured.

        engine_class: what the worker runs.  kwargs: as for rclpy.node.Node.
        """
        super().__init__('adamtl', **kwargs)
        self._engine_class = engine_class
        self._control: LatencyControl | None = None
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._worker: Worker | None = None
        self._stuck: Worker | None = None
        self._counter = FrameCounter()
        self._limiter = RateLimiter()
        self._enabled = True
        self._failure = ''
        self._said: set[str] = set()
        self._history = History(monotonic(), self._counter.counts())

        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', 10,
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
        self._wrong = parameters.declare(self)
        for line in parameters.unknown(self):
            self.get_logger().warning(line)
        self.autostart = bool(self.get_parameter('autostart').value)
        self._options: parameters.Options | None = None
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._inputs = Inputs(self, self._receive)
        line = dds.otherwise(utilities.get_rmw_implementation_identifier())
        if line:
            self.get_logger().warning(line)

        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset_statistics', self._reset_statistics)
        # Diagnostics are about this computer: they go on while simulated time stands still.
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Parameters

    def _values(self, changed: Sequence[Parameter] = ()) -> dict[str, Any]:
        values = {name: self.get_parameter(name).value for name in parameters.PARAMETERS}
        return values | {parameter.name: parameter.value for parameter in changed}

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set the parameters one by one, as the services do too; see rclpy.node.Node."""
        return [self.set_parameters_atomically([each]) for each in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set the parameters all or none, as the services do too; see rclpy.node.Node."""
        try:
            parameter_list = parameters.checked(parameter_list)
            for each in parameter_list:
                if not self.has_parameter(each.name):
                    raise ValueError(f'parameter {each.name} is not known'
                                     f'{parameters.meant(each.name, self._values())}')
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        # A whole file, loaded into a node that runs, has those that cannot change as well.
        values = self._values()
        parameter_list = [each for each in parameter_list if not (
            each.name in values and parameters.PARAMETERS[each.name].fixed
            and each.value == values[each.name])]
        if not parameter_list:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(parameter_list)

    def _check_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        try:
            self._check(changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check(self, changed: Sequence[Parameter]) -> None:
        engine = self._engine
        model_tasks = TASKS if engine is None else engine.tasks
        before = self._values()
        for each in changed:
            task = each.name.removeprefix('tasks.').removesuffix('.enable')
            spec = parameters.PARAMETERS.get(each.name)
            if parameters.CLASS_NAMES.fullmatch(each.name) and self.has_parameter(each.name):
                raise ValueError(f'parameter {each.name} is read-only: the model decides')
            if engine is not None and spec is not None and spec.loaded and (
                    each.value != before[each.name]):
                raise ValueError(
                    f'parameter {each.name} is {before[each.name]!r} until the node is cleaned '
                    'up: deactivate it, clean it up, set the parameter, configure it')
            if task in TASKS and task not in model_tasks and each.name.endswith('.enable') and (
                    each.value):
                raise ValueError(f'the model does not have the task {task}: it has '
                                 f'{", ".join(model_tasks)}')
        options = parameters.Options.from_values(self._values(changed), model_tasks)
        if engine is not None:
            engine.check(options.settings)

    def _apply_parameters(self, changed: Sequence[Parameter]) -> None:
        names = {parameter.name for parameter in changed}
        for name in names:
            self._wrong.pop(name, None)
        if names & {'image_transport', 'image_reliability'}:
            self._inputs.look()
        if self._engine is None or not names & parameters.PARAMETERS.keys():
            return
        self._options = parameters.Options.from_values(self._values(), self._engine.tasks)
        if self._worker is not None:
            self._worker.options = self._options
            if any(name == 'mode' or name.startswith('guard.') for name in names):
                self._worker.rollout = Rollout()
                self._worker.achieved_budget = float('nan')
        warning = _below_least(self._engine, self._options)
        if warning:
            self._say(warning, True)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics; FAILURE with one log line if that cannot be."""
        try:
            self._configure()
        except Exception as error:  # whatever it is, the node must live to say so
            kind = '' if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: '
            self._fail(f'cannot configure: {kind}{_one_line(error)}')
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        return super().on_configure(state)

    def _configure(self) -> None:
        if self._wrong:
            raise ValueError('; '.join(self._wrong.values()))
        values = self._values()
        # Before the model is loaded, which takes its time: are the values right at all?
        parameters.Options.from_values(values, TASKS)
        self.get_logger().info(
            f'loading the model {values["model"]}; the first time it is compiled, for a minute or '
            'more on a small computer')
        engine = self._engine_class(
            values['model'], backend=values['backend'], device=values['device'],
            num_threads=values['num_threads'], precision=values['precision'])
        options = parameters.Options.from_values(values, engine.tasks)
        engine.check(options.settings)
        for task, names in engine.class_names.items():
            self.declare_parameter(
                f'tasks.{task}.class_names', list(names), ParameterDescriptor(
                    description=f'Names of the classes of {task}, by class id.',
                    additional_constraints='read-only: the model decides'), ignore_override=True)
        self._outputs = Outputs(
            self, engine.class_names, engine.tasks, engine.network_size)
        model = engine.calibrate()
        # Compiling a model leaves memory that the allocator would keep.
        _give_memory_back()
        self._control = None if model is None else LatencyControl(model, engine.cost)
        self._engine, self._options = engine, options
        self._said.clear()
        warning = _below_least(engine, options)
        if warning:
            self._say(warning, True)
        self.get_logger().info(
            f'model {engine.model} ({", ".join(engine.tasks)}) on {engine.device} with '
            f'{engine.backend}')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen to the camera."""
        result = super().on_activate(state)
        try:
            self._activate()
        except Exception as error:  # e.g. QoS overrides that do not exist
            self._fail(f'cannot activate: {_one_line(error)}')
            self._stop(0.0)
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        return result

    def _activate(self) -> None:
        assert self._engine is not None and self._options is not None
        assert self._outputs is not None
        # Two workers on one engine would mix up the frames of both.
        if self._stuck is not None and not self._stuck.ended(DEACTIVATION_PATIENCE):
            raise RuntimeError(
                'the frame that was in work when the node was deactivated has still not ended: '
                'try again later, or clean up and configure, which loads the model anew')
        self._stuck = None
        self._outputs.publish_labels()
        self._worker = Worker(
            engine=self._engine, control=self._control, outputs=self._outputs,
            lens=self._inputs.lens, counter=self._counter, logger=self.get_logger(),
            clock=lambda: self.get_clock().now().nanoseconds, options=self._options)
        self._inputs.open()
        for line in parameters.unknown_qos(self, self._inputs.topics()):
            self.get_logger().warning(line)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frame in work, drop the one that waits, and stop listening."""
        self._stop(DEACTIVATION_PATIENCE)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and the topics."""
        self._release()
        if not self._enabled:
            self._enabled = True
            self.get_logger().info('~/enable is on again, as at the start')
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Do what deactivating and cleaning up do."""
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to the unconfigured state, whatever failed."""
        self._release()
        return super().on_error(state)

    def end(self) -> None:
        """Shut down from whatever state the node is in."""
        if self._state_machine.current_state[1] != 'finalized':
            self.trigger_shutdown()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.get_logger().error(reason)

    def _stop(self, patience: float) -> None:
        self._inputs.close()
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if not worker.stop(patience):
            self._stuck = worker
            self._fail(f'the frame in work was not finished in {patience:.0f} s')
        counts = self._counter.counts()
        causes = ', '.join(f'{n} {cause}' for cause, n in counts.dropped_by_cause.items())
        self.get_logger().info(
            f'stopped after {counts.received} frames: {counts.processed} processed, '
            f'{counts.dropped} dropped{f" ({causes})" if causes else ""}'
            f'{f", {counts.missed} never came" if self._inputs.numbered else ""}')
        self._diagnose()

    def _release(self) -> None:
        self._stop(SHUTDOWN_PATIENCE)
        # A frame that hangs keeps its engine; the next one is loaded anew.
        self._stuck = None
        if self._outputs is not None:
            self._outputs.close()
        for task in TASKS:
            if self.has_parameter(f'tasks.{task}.class_names'):
                self.undeclare_parameter(f'tasks.{task}.class_names')
        self._outputs = self._engine = self._options = self._control = None
        _give_memory_back()

    # Frames and services

    def _receive(self, message: Any, received: float, missed: int) -> None:
        worker, options = self._worker, self._options
        if worker is None or options is None:
            return
        if missed:
            self._counter.miss(missed)
        if not self._enabled:
            self._counter.drop('disabled')
        elif not self._limiter.accepts(received, options.max_rate_hz):
            self._counter.drop('rate')
        elif worker.slot.put(Frame(message, received)) is not None:
            self._counter.drop('replaced')

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'frames are ' + ('processed' if request.data else 'dropped')
        return response

    def _reset_statistics(
            self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._counter.reset()
        self._history = History(monotonic(), self._counter.counts())
        if self._worker is not None:
            self._worker.times.clear()
        response.success = True
        response.message = 'counts are zero'
        return response

    # Reports

    def report_failure(self) -> None:
        """Publish the diagnostics, and give those who listen to them the time to take them."""
        end = monotonic() + FAREWELL_PATIENCE
        while not self._diagnostics.get_subscription_count() and monotonic() < end:
            Clock(clock_type=ClockType.STEADY_TIME).sleep_for(Duration(seconds=0.05))
        self._diagnose()
        self._diagnostics.wait_for_all_acked(Duration(seconds=FAREWELL_PATIENCE))

    def _diagnose(self) -> None:
        self._inputs.look()
        report = self._report()
        level, message = report.level()
        self._diagnostics.publish(DiagnosticArray(
            header=Header(stamp=self.get_clock().now().to_msg()),
            status=[DiagnosticStatus(
                level=level, name=f'{self.get_fully_qualified_name().lstrip("/")}: inference',
                message=message,
                hardware_id=self.get_parameter('hardware_id').value or self._inputs.frame_id,
                values=[KeyValue(key=key, value=value)
                        for key, value in report.values().items()])]))

    def _report(self) -> Report:
        now, counts, inputs, worker = monotonic(), self._counter.counts(), self._inputs, (
            self._worker)
        if self._stuck is not None and self._stuck.ended():
            self._stuck, self._failure = None, ''
        period = inputs.period
        when, before = self._history.before(now, span(period))
        _, long_before = self._history.before(now, LOSS_SPAN)
        self._history.add(now, counts)
        lost = counts.missed - long_before.missed
        silent = now - inputs.silent_since
        began = worker.began if worker is not None else None
        times = [each for each in list(worker.times) if each.when > when] if worker else []
        latencies = tuple(each.latency for each in times)
        return Report(
            state=self._state_machine.current_state[1], counts=counts, before=before,
            seconds=max(now - when, 1e-3), failure=self._failure,
            last_error=self._counter.last_error, enabled=self._enabled, topic=inputs.topic,
            numbered=inputs.numbered,
            lost=lost, sent=lost + counts.received - long_before.received,
            remedy=inputs.loss() if lost else '', silent=silent,
            silence=inputs.silence() if silent > PAUSE else '', period=period,
            working=now - began if began else 0.0, latencies=latencies,
            beside=tuple(each.beside for each in times), warnings=self._warnings(latencies),
            figures=self._figures([each.reused for each in times]))

    def _warnings(self, latencies: Sequence[float]) -> tuple[str, ...]:
        engine, options, worker = self._engine, self._options, self._worker
        if engine is None or options is None or worker is None:
            return ()
        warnings = [f'guard: {worker.rollout.action}' if worker.rollout.action else '',
                    _below_least(engine, options),
                    worker.lens.words if worker.lens.refused else '', self._namesake(),
                    self._in_vain(options)]
        target, held = options.target_latency_ms, worker.held_budget
        if target and options.settings.mode == ADAPTIVE and latencies:
            median = float(np.median(latencies))
            lowest = min(options.min_budget, options.budget)
            if median > 1.1 * target and held <= lowest + 1e-6:
                warnings.append(f'latency of {median:.0f} ms is above the target of {target:g} ms '
                                f'at the lowest budget, {held:.3g}')
        if worker.extreme:
            warnings.append(f'camera: {worker.lens.words} is a lens outside of what the network '
                            'was trained for: depth and normals may be far off')
        if worker.lens.refused or worker.lens.info is not None:
            self._say(f'camera: {worker.lens.words}',
                      worker.lens.refused or worker.lens.distorted)
        return tuple(warning for warning in warnings if warning)

    def _in_vain(self, options: parameters.Options) -> str:
        """Return what is to be said of those who listen to what is turned off."""
        assert self._engine is not None and self._outputs is not None
        wanted = self._outputs.wanted()
        off = [task for task in self._engine.tasks if task not in options.settings.tasks
               and any(name.partition('/')[0] == task for name in wanted - LATCHED)]
        if not off:
            return ''
        words = ', '.join(f'~/{task} has a listener, and tasks.{task}.enable is false'
                          for task in off)
        self._say(words, True)
        return words

    def _namesake(self) -> str:
        own = self.get_name(), self.get_namespace()
        if self.get_node_names_and_namespaces().count(own) < 2:
            return ''
        words = (f'another node is named {self.get_fully_qualified_name()} as well: give each a '
                 'namespace or a name of its own')
        self._say(words, True)
        return words

    def _say(self, words: str, warn: bool) -> None:
        """Log something once in a configuration."""
        if words in self._said:
            return
        self._said.add(words)
        if warn:
            self.get_logger().warning(words)
        else:
            self.get_logger().info(words)

    def _figures(self, reused: Sequence[bool]) -> dict[str, Any]:
        engine, options, worker = self._engine, self._options, self._worker
        if engine is None or options is None:
            return {}
        figures: dict[str, Any] = {
            'mode': options.settings.mode,
            'budget requested': 1.0 if options.settings.mode == STATIC else options.budget,
            'device': engine.device, 'backend': engine.backend, 'model': engine.model,
        } | self._inputs.figures()
        if worker is None:
            return figures
        rollout = worker.rollout
        figures |= {'camera': worker.lens.words, 'budget achieved': worker.achieved_budget}
        if options.settings.mode != STATIC:
            figures |= {
                'budget requested': worker.held_budget,
                'budget mean': worker.stream.mean,
                'share of frames reused': float(np.mean(reused)) if reused else float('nan')}
            figures['guard'] = rollout.action or rollout.guard(
                options.settings.mode, options.comparing)
        if options.settings.mode == SHADOW:
            figures['share of MACs that the policy would have saved'] = rollout.saving
        return figures | {f'agreement: {task}': figure
                          for task, figure in rollout.agreement.items()}


def _below_least(engine: Engine, options: parameters.Options) -> str:
    """Return what is to be said of a budget that the model cannot keep, mostly nothing."""
    settings = options.settings
    if settings.mode == STATIC or not settings.tasks:
        return ''
    least = engine.min_budget(settings.tasks)
    if options.budget >= least:
        return ''
    return (f'budget {options.budget:g} is below the least that {engine.model} can keep with '
            f'{", ".join(settings.tasks)}: frames will cost {least:.3f}')


def _give_memory_back() -> None:
    """Return to the system what the allocator keeps of released models, where it can be told."""
    gc.collect()
    # glibc's own; elsewhere there is nothing to call.
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())

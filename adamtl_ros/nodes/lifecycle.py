# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The lifecycle node `adamtl`: camera frames in, the results of all wanted tasks out.

A frame walks inputs -> worker -> outputs: the executor only stores the newest one, and one worker
thread converts, infers and publishes.  Here are the transitions, parameters and services around
that, all in the executor's thread; what it shares with the worker's, Worker tells.
"""

from collections.abc import Sequence
import ctypes
import gc
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
from rclpy import utilities
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger

from adamtl_ros import dds
from adamtl_ros.nodes import parameters
from adamtl_ros.nodes.inputs import Inputs
from adamtl_ros.nodes.monitor import below_least
from adamtl_ros.nodes.monitor import Monitor
from adamtl_ros.nodes.outputs import Outputs
from adamtl_ros.nodes.pacing import RateLimiter
from adamtl_ros.nodes.rollout import Rollout
from adamtl_ros.nodes.slot import Counts
from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.worker import ReceivedFrame
from adamtl_ros.nodes.worker import Worker
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.tasks import TASKS

DEACTIVATION_PATIENCE = 2.0
"""Seconds that deactivating waits for the frame in work: nothing else is answered meanwhile."""

SHUTDOWN_PATIENCE = 10.0
"""Seconds to wait for the frame in work to be finished, at the end."""


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
        self._options: parameters.Options | None = None
        self._inputs = Inputs(self, self._receive)
        self._monitor = Monitor(self, self._inputs, self._counter)

        self._wrong = parameters.declare(self)
        for line in parameters.unknown(self):
            self.get_logger().warning(line)
        self.autostart = bool(self.get_parameter('autostart').value)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
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
        self._monitor.say(below_least(self._engine, self._options))

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics; FAILURE with one log line if that cannot be."""
        try:
            self._configure()
        except Exception as error:  # whatever it is, the node must live to say so
            kind = '' if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: '
            self._monitor.fail(f'cannot configure: {kind}{_one_line(error)}')
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._monitor.failure = ''
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
        # What its settings need is compiled now, while no frame waits for it.
        engine.warm(options.settings)
        # Compiling a model leaves memory that the allocator would keep.
        _give_memory_back()
        self._control = None if model is None else LatencyControl(model, engine.cost)
        self._engine, self._options = engine, options
        self._monitor.said.clear()
        self._monitor.say(below_least(engine, options))
        self.get_logger().info(
            f'model {engine.model} ({", ".join(engine.tasks)}) on {engine.device} with '
            f'{engine.backend}')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen to the camera."""
        result = super().on_activate(state)
        try:
            self._activate()
        except Exception as error:  # e.g. QoS overrides that do not exist
            self._monitor.fail(f'cannot activate: {_one_line(error)}')
            # No frame is in work, and the thread needs a moment to see that none will come.
            self._stop(DEACTIVATION_PATIENCE)
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self._monitor.failure = ''
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
        # What failed is gone with what it failed with.
        self._monitor.failure = ''
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

    def _stop(self, patience: float) -> None:
        self._inputs.close()
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if not worker.stop(patience):
            self._stuck = worker
            self._monitor.fail(f'the frame in work was not finished in {patience:.0f} s')
        counts = self.counts
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

    @property
    def counts(self) -> Counts:
        """Return what became of the frames so far."""
        return self._counter.counts()

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
        elif worker.slot.put(ReceivedFrame(message, received)) is not None:
            self._counter.drop('replaced')

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'frames are ' + ('processed' if request.data else 'dropped')
        return response

    def _reset_statistics(
            self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._counter.reset()
        self._monitor.count_anew()
        if self._worker is not None:
            self._worker.times.clear()
        response.success = True
        response.message = 'counts are zero'
        return response

    def report_failure(self) -> None:
        """Publish the diagnostics, and give those who listen to them the time to take them."""
        self._monitor.farewell(self._diagnose)

    def _diagnose(self) -> None:
        self._inputs.look()
        if self._stuck is not None and self._stuck.ended():
            self._stuck, self._monitor.failure = None, ''
        self._monitor.publish(
            self._state_machine.current_state[1], self._enabled, self._engine, self._options,
            self._worker)


def _give_memory_back() -> None:
    """Return to the system what the allocator keeps of released models, where it can be told."""
    gc.collect()
    # glibc's own; elsewhere there is nothing to call.
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())

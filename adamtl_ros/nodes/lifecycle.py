# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The lifecycle node `adamtl`: camera frames in, the results of all wanted tasks out.

The executor only stores the newest frame; one worker thread converts, infers and publishes.
"""

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence
import ctypes
from dataclasses import dataclass
from dataclasses import replace
import gc
from threading import Thread
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecyclePublisher
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSPolicyKind
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger

from adamtl_ros import drawing
from adamtl_ros.msg import GatingStats
from adamtl_ros.nodes import parameters
from adamtl_ros.nodes.conversions import BadFrameError
from adamtl_ros.nodes.conversions import image_from_array
from adamtl_ros.nodes.conversions import rgb_from_compressed
from adamtl_ros.nodes.conversions import rgb_from_image
from adamtl_ros.nodes.conversions import scaled_camera_info
from adamtl_ros.nodes.diagnostics import Report
from adamtl_ros.nodes.pacing import RateLimiter
from adamtl_ros.nodes.rollout import Rollout
from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.slot import SequenceGaps
from adamtl_ros.nodes.slot import Slot
from adamtl_ros.published import published_images
from adamtl_ros.published import stats_fields
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.tasks import TASKS

try:
    from vision_msgs.msg import LabelInfo
    from vision_msgs.msg import VisionClass
except ImportError:  # not on PyPI; the class names are in the parameters as well
    LabelInfo = None

LOG_PERIOD = 5.0
"""Seconds between two log lines about the same cause."""

SHUTDOWN_PATIENCE = 10.0
"""Seconds to wait for the frame in work to be finished."""

DELIVERY_PATIENCE = 3.5
"""
Seconds to wait for subscribers to have the last results.

By default Fast DDS asks every 3 s for what was lost; `ros2 launch` waits 5 s for the end.
"""

OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY, QoSPolicyKind.DEADLINE, QoSPolicyKind.LIFESPAN)
"""What parameters `qos_overrides.<topic>.<publisher|subscription>.<policy>` may set."""


@dataclass(frozen=True)
class Frame:
    """A frame as it came, and when (monotonic seconds)."""

    message: Image | CompressedImage
    received: float


class AdamtlNode(LifecycleNode):
    """Runs an Engine on the newest camera frame; see DESIGN's table for the interface."""

    def __init__(self, *, engine_class: type[Engine] = Engine, **kwargs: Any) -> None:
        """
        Declare the parameters and services; nothing is loaded before the node is configured.

        engine_class: what the worker runs.  kwargs: as for rclpy.node.Node.
        """
        super().__init__('adamtl', **kwargs)
        self._engine_class = engine_class
        self._control: LatencyControl | None = None
        self._engine: Engine | None = None
        self._results: dict[str, LifecyclePublisher] = {}
        self._subscribed: list[Any] = []
        self._camera_info: CameraInfo | None = None
        self._slot: Slot[Frame] | None = None
        self._worker: Thread | None = None
        self._counter = FrameCounter()
        self._gaps = SequenceGaps()
        self._limiter = RateLimiter()
        self._enabled = True
        self._held_budget: float | None = None
        self._achieved_budget = float('nan')
        self._times: deque[tuple[float, float]] = deque(maxlen=10000)
        self._rollout = Rollout()
        self._failure = ''
        self._last_error = ''
        self._last_logged: dict[str, float] = {}
        self._seen = self._counter.counts()
        self._reported = self._last_received = monotonic()
        self._work_began: float | None = None

        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', 10,
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
        self._wrong = parameters.declare(self)
        self.autostart = bool(self.get_parameter('autostart').value)
        self._options: parameters.Options | None = None
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset_statistics', self._reset_statistics)
        # Diagnostics are about this computer: they go on while simulated time stands still.
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Parameters

    def _values(self, changed: Sequence[Parameter] = ()) -> dict[str, Any]:
        values = {name: self.get_parameter(name).value for name in parameters.PARAMETERS}
        return values | {parameter.name: parameter.value for parameter in changed}

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set the parameters all or none, as the services do too; see rclpy.node.Node."""
        try:
            parameter_list = parameters.checked(parameter_list)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return super().set_parameters_atomically(parameter_list)

    def _check_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        model_tasks = TASKS if self._engine is None else self._engine.tasks
        for task in TASKS:
            if task not in model_tasks and any(
                    parameter.name == f'tasks.{task}.enable' and parameter.value
                    for parameter in changed):
                return SetParametersResult(successful=False, reason=(
                    f'the model does not have the task {task}: it has {", ".join(model_tasks)}'))
        try:
            options = parameters.Options.from_values(self._values(changed), model_tasks)
            if self._engine is not None:
                self._engine.check(options.settings)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: Sequence[Parameter]) -> None:
        for parameter in changed:
            self._wrong.pop(parameter.name, None)
        if self._engine is not None:
            self._options = parameters.Options.from_values(self._values(), self._engine.tasks)
            if any(parameter.name == 'mode' or parameter.name.startswith('guard.')
                   for parameter in changed):
                self._rollout = Rollout()
            warning = _below_least(self._engine, self._options)
            if warning:
                self.get_logger().warning(warning)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics; FAILURE with one log line if that cannot be."""
        try:
            self._configure()
        except Exception as error:  # whatever it is, the node must live to say so
            kind = '' if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: '
            self._failure = f'cannot configure: {kind}{_one_line(error)}'
            self.get_logger().error(self._failure)
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        return super().on_configure(state)

    def _configure(self) -> None:
        if self._wrong:
            raise ValueError('; '.join(self._wrong.values()))
        values = self._values()
        if values['image_transport'] not in parameters.IMAGE_TRANSPORTS:
            raise ValueError(f'image_transport is {values["image_transport"]!r}: use one of '
                             f'{", ".join(parameters.IMAGE_TRANSPORTS)}')
        # Before the model is loaded, which takes its time: are the values right at all?
        parameters.Options.from_values(values, TASKS)
        engine = self._engine_class(
            values['model'], backend=values['backend'], device=values['device'],
            num_threads=values['num_threads'], precision=values['precision'])
        options = parameters.Options.from_values(values, engine.tasks)
        engine.check(options.settings)
        for task, names in engine.class_names.items():
            if not self.has_parameter(f'tasks.{task}.class_names'):
                self.declare_parameter(
                    f'tasks.{task}.class_names', list(names), ParameterDescriptor(
                        description=f'Names of the classes of {task}, by class id.',
                        read_only=True), ignore_override=True)

        for task in engine.tasks:
            self._offer(task, Image)
        if 'semseg' in engine.tasks:
            self._offer('semseg/confidence', Image)
        self._offer('gating_map', Image)
        self._offer('overlay', Image)
        self._offer('camera_info', CameraInfo)
        self._offer('gating_stats', GatingStats)
        if LabelInfo is not None:
            for task in engine.class_names:
                self._offer(f'{task}/label_info', LabelInfo, latched=True)
        model = engine.calibrate()
        # Compiling a model leaves memory that the allocator would keep.
        _give_memory_back()
        self._control = None if model is None else LatencyControl(model, engine.cost)
        self._engine, self._options = engine, options
        warning = _below_least(engine, options)
        if warning:
            self.get_logger().warning(warning)
        self.get_logger().info(
            f'model {engine.model} ({", ".join(engine.tasks)}) on {engine.device} with '
            f'{engine.backend}')

    def _offer(self, name: str, kind: type, *, latched: bool = False) -> None:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self._results[name] = self.create_lifecycle_publisher(
            kind, f'~/{name}',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=durability),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen to the camera."""
        result = super().on_activate(state)
        try:
            self._activate()
        except Exception as error:  # e.g. QoS overrides that do not exist
            self._failure = f'cannot activate: {_one_line(error)}'
            self.get_logger().error(self._failure)
            self._stop()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self._failure = ''
        return result

    def _activate(self) -> None:
        if LabelInfo is not None:
            self._publish_labels()
        self._slot = Slot()
        self._gaps = SequenceGaps()
        self._rollout = Rollout()
        self._last_received = monotonic()
        self._worker = Thread(target=self._work, args=(self._slot,), name='adamtl', daemon=True)
        self._worker.start()
        # Resolved here, so that `image` alone needs remapping whatever the transport.
        topic = self.resolve_topic_name('image')
        if self.get_parameter('image_transport').value == 'compressed':
            self._subscribe(CompressedImage, f'{topic}/compressed', self._receive)
        else:
            self._subscribe(Image, topic, self._receive)
        self._subscribe(CameraInfo, 'camera_info', self._receive_camera_info)
        self.get_logger().info(f'active, listening to {self._subscribed[0].topic_name}')

    def _subscribe(self, kind: type, topic: str, callback: Any) -> None:
        self._subscribed.append(self.create_subscription(
            kind, topic, callback,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE)))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frame in work, drop the one that waits, and stop listening."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and the topics."""
        self._release()
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

    def _stop(self) -> None:
        while self._subscribed:
            self.destroy_subscription(self._subscribed.pop())
        if self._slot is None or self._worker is None:
            return
        if self._slot.close() is not None:
            self._counter.drop('shutdown')
        self._worker.join(SHUTDOWN_PATIENCE)
        if self._worker.is_alive():
            self.get_logger().error(
                f'the frame in work was not finished in {SHUTDOWN_PATIENCE:.0f} s')
        self._slot = self._worker = None
        # What was published last is still on its way; without its publisher it would be lost.
        end = monotonic() + DELIVERY_PATIENCE
        for publisher in self._results.values():
            publisher.wait_for_all_acked(Duration(seconds=max(end - monotonic(), 0.0)))
        self._camera_info = self._held_budget = None
        counts = self._counter.counts()
        causes = ', '.join(f'{n} {cause}' for cause, n in counts.dropped_by_cause.items())
        self.get_logger().info(
            f'stopped after {counts.received} frames: {counts.processed} processed, '
            f'{counts.dropped} dropped{f" ({causes})" if causes else ""}')
        self._diagnose()

    def _release(self) -> None:
        self._stop()
        for publisher in self._results.values():
            self.destroy_lifecycle_publisher(publisher)
        self._results.clear()
        self._engine = self._options = None
        _give_memory_back()

    # Frames: the executor's side

    def _receive(
            self, message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
        frame = Frame(message, monotonic())
        if self._slot is None or self._options is None:
            return
        self._last_received = frame.received
        # Jazzy does not name the publisher; cameras are one to a topic.
        missed = self._gaps.missed(
            str(info.get('publisher_gid')), info['publication_sequence_number'])
        if missed:
            self._counter.drop('missed', missed)
        if not self._enabled:
            self._counter.drop('disabled')
        elif not self._limiter.accepts(frame.received, self._options.max_rate_hz):
            self._counter.drop('rate')
        elif self._slot.put(frame) is not None:
            self._counter.drop('replaced')

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'frames are ' + ('processed' if request.data else 'dropped')
        return response

    def _reset_statistics(
            self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._counter.reset()
        self._seen = self._counter.counts()
        self._times.clear()
        self._last_error = ''
        response.success = True
        response.message = 'counts are zero'
        return response

    # Frames: the worker's side

    def _work(self, slot: Slot[Frame]) -> None:
        while (frame := slot.take()) is not None:
            # Read once: a change of parameters takes effect between frames, never within one.
            engine, options = self._engine, self._options
            assert engine is not None and options is not None
            self._work_began = monotonic()
            try:
                self._answer(frame, engine, options)
            except BadFrameError as error:
                self._drop(error.cause, str(error))
            except Exception as error:  # one frame must not end the node
                self._drop('error', f'{type(error).__name__}: {_one_line(error)}')
            finally:
                self._work_began = None

    def _answer(self, frame: Frame, engine: Engine, options: parameters.Options) -> None:
        message = frame.message
        rgb = rgb_from_image(message) if isinstance(message, Image) else rgb_from_compressed(
            message)
        wanted = {name for name, publisher in self._results.items()
                  if publisher.get_subscription_count()}
        tasks = tuple(
            task for task in options.settings.tasks
            if task in wanted or (task == 'semseg' and 'semseg/confidence' in wanted)
            or ('overlay' in wanted and task in options.overlay_tasks))
        rollout = self._rollout
        settings = rollout.settings(replace(
            options.settings, tasks=tasks, confidence='semseg/confidence' in wanted,
            gating_map='gating_map' in wanted), options.comparing)
        controlled = options.target_latency_ms > 0.0 and settings.mode == 'adaptive'
        highest = max(options.budget, rollout.least)
        least = min(max(options.min_budget, rollout.least), highest)
        budget = highest
        if controlled and tasks and self._control is not None:
            budget = self._control.budget(tasks, options.target_latency_ms, least, highest)
            settings = replace(settings, budget=budget)
        result = engine.infer(rgb, settings)
        latency_ms = 1000.0 * (monotonic() - frame.received)
        self._held_budget = budget
        if controlled and tasks and self._control is not None:
            self._control.observe(
                result.stats.predicted_ms, result.stats.network_ms,
                latency_ms - result.stats.compare_ms)
        acted = rollout.note(result.stats, options.comparing)
        if acted:
            self.get_logger().warning(f'guard: {acted}')

        header = message.header
        for name, values, encoding in published_images(result):
            if name in wanted:
                self._results[name].publish(image_from_array(values, encoding, header))
        if 'overlay' in wanted:
            picture = drawing.overlay(
                rgb, result.outputs,
                [task for task in options.overlay_tasks if task in result.outputs])
            self._results['overlay'].publish(image_from_array(picture, 'rgb8', header))
        info = self._camera_info
        if info is not None and 'camera_info' in wanted:
            camera_size = (rgb.shape[1], rgb.shape[0])
            self._results['camera_info'].publish(scaled_camera_info(
                info, camera_size,
                camera_size if settings.output_size == 'camera' else engine.input_size, header))
        if settings.mode == 'shadow' or tasks:
            self._achieved_budget = result.stats.budget_achieved
        # Last, so that who has a frame's statistics knows that all of it was sent.
        self._results['gating_stats'].publish(
            _stats_message(result.stats, header, latency_ms, self._counter.process()))
        all_ms = 1000.0 * (monotonic() - frame.received)
        self._times.append((latency_ms, all_ms - result.stats.network_ms))

    def _drop(self, cause: str, reason: str) -> None:
        self._counter.drop(cause)
        self._last_error = reason
        now = monotonic()
        if now - self._last_logged.get(cause, -LOG_PERIOD) >= LOG_PERIOD:
            self._last_logged[cause] = now
            self.get_logger().error(f'frame dropped ({cause}): {reason}')

    # Reports

    def _publish_labels(self) -> None:
        assert self._engine is not None
        for task, names in self._engine.class_names.items():
            self._results[f'{task}/label_info'].publish(LabelInfo(
                header=Header(stamp=self.get_clock().now().to_msg()),
                class_map=[VisionClass(class_id=number, class_name=name)
                           for number, name in enumerate(names)]))

    def _diagnose(self) -> None:
        now = monotonic()
        began = self._work_began
        times = [self._times.popleft() for _ in range(len(self._times))]
        latencies, beside = zip(*times) if times else ((), ())
        engine = self._engine
        report = Report(
            state=self._state_machine.current_state[1], counts=self._counter.counts(),
            before=self._seen, seconds=max(now - self._reported, 1e-3), failure=self._failure,
            last_error=self._last_error, enabled=self._enabled,
            topic=self._subscribed[0].topic_name if self._subscribed else '',
            silent=now - self._last_received, working=now - began if began else 0.0,
            latencies=latencies, beside=beside, warnings=self._warnings(latencies),
            figures=self._figures())
        self._seen, self._reported = report.counts, now
        level, message = report.level()
        self._diagnostics.publish(DiagnosticArray(
            header=Header(stamp=self.get_clock().now().to_msg()),
            status=[DiagnosticStatus(
                level=level, name=f'{self.get_fully_qualified_name().lstrip("/")}: inference',
                message=message, hardware_id=engine.device if engine is not None else '',
                values=[KeyValue(key=key, value=value)
                        for key, value in report.values().items()])]))

    def _warnings(self, latencies: Sequence[float]) -> tuple[str, ...]:
        engine, options = self._engine, self._options
        if engine is None or options is None:
            return ()
        warnings = [f'guard: {self._rollout.action}' if self._rollout.action else '',
                    _below_least(engine, options)]
        target, held = options.target_latency_ms, self._held_budget or 1.0
        if target and options.settings.mode == 'adaptive' and latencies:
            median = float(np.median(latencies))
            lowest = min(options.min_budget, options.budget)
            if median > 1.1 * target and held <= lowest + 1e-6:
                warnings.append(f'latency of {median:.0f} ms is above the target of {target:g} ms '
                                f'at the lowest budget, {held:.3g}')
        return tuple(warning for warning in warnings if warning)

    def _figures(self) -> dict[str, Any]:
        engine, options, rollout = self._engine, self._options, self._rollout
        if engine is None or options is None:
            return {}
        figures: dict[str, Any] = {
            'mode': options.settings.mode,
            'budget requested': self._held_budget or options.budget,
            'budget achieved': self._achieved_budget,
            'device': engine.device, 'backend': engine.backend, 'model': engine.model,
        }
        if options.settings.mode != 'static':
            figures['guard'] = rollout.action or (
                'watching' if options.comparing.action != 'off' else 'off')
        if options.settings.mode == 'shadow':
            figures['share of MACs that the policy would have saved'] = rollout.saving
        return figures | {f'agreement: {task}': figure
                          for task, figure in rollout.agreement.items()}


def _below_least(engine: Engine, options: parameters.Options) -> str:
    """Return what is to be said of a budget that the model cannot keep, mostly nothing."""
    settings = options.settings
    if settings.mode == 'static' or not settings.tasks:
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


def _stats_message(stats: Any, header: Header, latency_ms: float, counts: Any) -> GatingStats:
    return GatingStats(
        header=header, latency_ms=latency_ms, frames_received=counts.received,
        frames_processed=counts.processed, frames_dropped=counts.dropped, **stats_fields(stats))


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())

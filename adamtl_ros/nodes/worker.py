# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The thread that answers frames: convert, infer, publish."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from threading import Thread
from time import monotonic
from typing import Any

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from adamtl_ros.calibration import Lens
from adamtl_ros.conversions import BadFrameError
from adamtl_ros.conversions import nanoseconds
from adamtl_ros.conversions import rgb_from_compressed
from adamtl_ros.nodes.messages import rgb_from_image
from adamtl_ros.nodes.outputs import Outputs
from adamtl_ros.nodes.outputs import PICTURES
from adamtl_ros.nodes.outputs import shown_in
from adamtl_ros.nodes.parameters import Options
from adamtl_ros.nodes.rollout import Rollout
from adamtl_ros.nodes.slot import FrameCounter
from adamtl_ros.nodes.slot import Slot
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.images import age_ms
from adamtl_ros.runtime.latency import LatencyControl
from adamtl_ros.runtime.settings import ADAPTIVE
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.settings import STATIC
from adamtl_ros.runtime.stream import Stream

LOG_PERIOD = 5.0
"""Seconds between two log lines about the same cause."""

STREAM_PERIOD = 60.0
"""Seconds between two log lines about what is odd of a stream: slow cameras are always so."""


@dataclass(frozen=True)
class ReceivedFrame:
    """A frame as it came, and when (monotonic seconds)."""

    message: Image | CompressedImage
    received: float


@dataclass(frozen=True)
class Timing:
    """When a frame was answered (monotonic s), what it took in ms, and whether it was computed."""

    when: float
    latency: float
    beside: float
    reused: bool
    warped: bool


class Worker:
    """
    Answers one frame after the other with an engine; one worker to an engine.

    Shared with the executor's thread, by this rule.  The executor alone sets options and rollout,
    each in one piece; they hold from the next frame on.  The worker alone sets what follows, and
    the executor reads it, a frame old or new: plan, the budget of the last frame; stream, of the
    camera's frames; lens, of the last one, and whether it is extreme, outside of what the network
    was trained for; began, when the frame in work did (monotonic s), None between frames; times,
    which the executor empties.  Slot and counter, which both change, have locks of their own.
    """

    def __init__(
            self, *, engine: Engine, control: LatencyControl | None, outputs: Outputs,
            lens: Callable[[Any, tuple[int, int]], Lens], counter: FrameCounter, logger: Any,
            clock: Callable[[], int], options: Options) -> None:
        """
        Start the thread.

        lens: what is known of the camera of a picture with that header and size.
        clock: gives the time in ns that stamps are of.
        """
        self.options = options
        self.rollout = Rollout()
        self.stream = Stream()
        self.slot: Slot[ReceivedFrame] = Slot()
        self.times: deque[Timing] = deque(maxlen=10000)
        self.plan = self.rollout.plan(options.settings, options.min_budget)
        self.began: float | None = None
        self.lens = Lens()
        self.extreme = False
        self.engine = engine
        self._control = control
        self.outputs = outputs
        self._lens = lens
        self._counter = counter
        self._logger = logger
        self._clock = clock
        self._last_logged: dict[str, float] = {}
        self._abandoned = False
        self._thread = Thread(target=self._work, name='adamtl', daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> bool:
        """
        Let the frame in work be finished, drop the one that waits; return whether that went well.

        If not, the thread goes on for as long as it takes, and what it finds is thrown away.
        """
        if self.slot.close() is not None:
            self._counter.drop('shutdown')
        return self.ended(patience)

    def ended(self, patience: float = 0.0) -> bool:
        """Return whether the thread has ended, or does within `patience` seconds."""
        self._thread.join(patience)
        self._abandoned = self._thread.is_alive()
        return not self._abandoned

    def _work(self) -> None:
        while (frame := self.slot.take()) is not None:
            self.began = monotonic()
            try:
                # Read once: a change takes effect between frames, never within one.
                self._answer(frame, self.options, self.rollout)
            except BadFrameError as error:
                self._drop(error.cause, str(error))
            except Exception as error:  # one frame must not end the node
                self._drop('error', f'{type(error).__name__}: {" ".join(str(error).split())}')
            finally:
                self.began = None

    def _answer(self, frame: ReceivedFrame, options: Options, rollout: Rollout) -> None:
        header, wanted = frame.message.header, self.outputs.wanted()
        settings = self._settings(wanted, options, rollout)
        # What nobody wants a result of is not even looked at: it costs nothing.
        rgb = _picture(frame.message) if settings.tasks or wanted & PICTURES else None
        result = Result({}, GatingResult(
            settings.mode, self.plan.applied, 0.0, 0.0, 0.0, (), budget_cap=settings.cap)
        ) if rgb is None else self._inferred(rgb, header, settings)
        latency_ms = 1000.0 * (monotonic() - frame.received)
        age = age_ms(nanoseconds(header), self._clock())
        if self._abandoned:
            self._counter.drop('shutdown')
            return
        stats = self._noted(result.stats, options, rollout, latency_ms)
        if rgb is not None:
            self.outputs.publish_results(wanted, result, rgb, self.lens, options, header)
        # Last, so that who has a frame's statistics knows that all of it was sent.
        counts = self._counter.process()
        if 'gating_stats' in wanted:
            self.outputs.publish_stats(
                stats, header, counts, latency_ms=latency_ms, age_ms=age,
                guard=rollout.guard(options.settings.mode, options.comparing))
        now = monotonic()
        self.times.append(Timing(
            now, latency_ms, 1000.0 * (now - frame.received) - stats.network_ms, stats.reused,
            stats.warped))

    def _settings(
            self, wanted: frozenset[str], options: Options, rollout: Rollout) -> Settings:
        """Return how a frame is processed: as asked, but for guard and latency controller."""
        settings = rollout.settings(replace(
            options.settings, confidence='semseg/confidence' in wanted,
            gating_map='gating_map' in wanted, tasks=tuple(
                task for task in options.settings.tasks if wanted & shown_in(task, options))),
            options.comparing)
        plan, cap = rollout.plan(options.settings, options.min_budget), settings.cap
        if self._control is not None and _controlled(settings, options):
            plan = replace(plan, why='latency controller', applied=self._control.budget(
                settings.tasks, options.target_latency_ms, plan.floor, plan.ceiling))
            # A deadline is one of every frame: what others saved does not help.
            cap = plan.applied
        self.plan = plan
        # What the guard holds to be needed is more than a limit of cost.
        return replace(settings, budget=plan.applied, cap=max(cap, plan.applied))

    def _inferred(self, rgb: Any, header: Any, settings: Settings) -> Result:
        self.lens = self._lens(header, (rgb.shape[1], rgb.shape[0]))
        self._arrived(header)
        result = self.engine.infer(rgb, settings, self.lens.camera, self.stream)
        self.extreme = result.stats.lens == 'extreme'
        return result

    def _arrived(self, header: Any) -> None:
        reason = self.stream.arrived(
            header.stamp.sec + 1e-9 * header.stamp.nanosec, header.frame_id)
        if reason and self._due('stream', STREAM_PERIOD):
            self._logger.warning(f'the frame is computed, whatever it looks like: {reason}')

    def _noted(
            self, stats: GatingResult, options: Options, rollout: Rollout, latency_ms: float
    ) -> GatingResult:
        """Let controller and guard learn from a frame; return what is to be said of it."""
        # A frame for which nothing ran says nothing of how long the network takes.
        if self._control is not None and _controlled(stats, options) and stats.computed:
            self._control.observe(
                stats.predicted_ms, stats.network_ms, latency_ms - stats.compare_ms)
        acted = rollout.note(stats, options.comparing)
        if acted:
            self._logger.warning(f'guard: {acted}')
        if acted or _outlived(stats, options):
            self.stream.forget()
        # Whatever was asked for, the dense network takes all.
        return replace(
            stats, budget_requested=1.0, budget_cap=1.0) if stats.mode == STATIC else stats

    def _drop(self, cause: str, reason: str) -> None:
        self._counter.drop(cause, reason)
        if self._due(cause, LOG_PERIOD):
            self._logger.error(f'frame dropped ({cause}): {reason}')

    def _due(self, cause: str, period: float) -> bool:
        """Return whether to log about a cause, of which was not logged for a period (s)."""
        now = monotonic()
        if now - self._last_logged.get(cause, -period) < period:
            return False
        self._last_logged[cause] = now
        return True


def _picture(message: Image | CompressedImage) -> Any:
    return rgb_from_image(message) if isinstance(message, Image) else rgb_from_compressed(message)


def _outlived(stats: GatingResult, options: Options) -> bool:
    """Return whether a result that was kept agrees less with the dense one than may be."""
    return not stats.computed and any(
        value < options.comparing.agreement for value in stats.task_agreement.values())


def _controlled(settings: Settings | GatingResult, options: Options) -> bool:
    """Return whether the latency controller chooses, or chose, the budget."""
    return options.target_latency_ms > 0.0 and settings.mode == ADAPTIVE and bool(
        settings.tasks)

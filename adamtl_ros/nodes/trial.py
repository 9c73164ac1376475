# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Play a source into a running node over ROS 2, and record what it answers.

Three processes, as on a robot: the node, the player that stands in for the camera, and this one,
which records.  While the player plays, every frame is accounted for; then some frames of the
source are asked again at three budgets, which the node is given while it runs.
"""

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field
import json
import math
from pathlib import Path
import subprocess
from tempfile import TemporaryDirectory
import time
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy import utilities
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rich.progress import Progress

from adamtl_ros import dds
from adamtl_ros import drawing
from adamtl_ros.bag.measures import percentiles
from adamtl_ros.bag.measures import Sample
from adamtl_ros.bag.measures import Series
from adamtl_ros.msg import GatingStats
from adamtl_ros.nodes.playback import FRAME_ID
from adamtl_ros.nodes.playback import Player
from adamtl_ros.nodes.recorder import image_array
from adamtl_ros.nodes.recorder import PICTURES
from adamtl_ros.nodes.recorder import Recorder
from adamtl_ros.nodes.starting import start_ros
from adamtl_ros.picture_files import write_rgb
from adamtl_ros.processes import child
from adamtl_ros.processes import end
from adamtl_ros.processes import last_lines
from adamtl_ros.processes import peak_memory
from adamtl_ros.processes import Stop
from adamtl_ros.sources import Source
from adamtl_ros.sources import SourceFrame
from adamtl_ros.tasks import TASKS

START_LIMIT = 120.0
"""Seconds in which the node must have loaded its model and answer a frame."""

ANSWER_LIMIT = 30.0
"""Seconds in which a frame must be answered that nothing else competes with."""

SAMPLES = 9
"""Frames that are asked again at every budget of the sheet."""

SHOWN = 3
"""Frames of these that the sheet shows."""

PARTS = {'moving': 'the camera moves', 'still': 'it stands still'}
"""What the sheet calls the parts of a source."""


class TrialError(Exception):
    """A step could not be done."""


@dataclass
class Answer:
    """One answered frame: its number in the source, the frame, the outputs and their cost."""

    index: int
    image: np.ndarray
    messages: dict[str, Any]

    @property
    def stats(self) -> GatingStats:
        """Return what the frame cost."""
        return self.messages['gating_stats']


@dataclass
class Account:
    """
    What happened to the frames of one run.

    `problems` says what of the source was not played, `violations` what must not be.
    """

    played: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    received: int = 0
    processed: int = 0
    dropped: int = 0
    missed: int = 0
    problems: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def check(self, recorder: Recorder) -> None:
        """Hold what was recorded against what was played."""
        played = set(self.played)
        answered = played & recorder.answers.keys()
        partly = {
            stamp: recorder.lacking(stamp) for stamp in answered if not recorder.complete(stamp)}
        complete = len(answered) - len(partly)
        for wrong, text in (
                (self.received != self.processed + self.dropped,
                 f'the node received {self.received} frames, but processed {self.processed} and '
                 f'dropped {self.dropped}'),
                (self.received + self.missed != len(played),
                 f'{len(played)} frames were played, but the node received {self.received} and '
                 f'missed {self.missed}'),
                (partly, f'{len(partly)} frames were not answered by all tasks; missing: '
                         + ', '.join(sorted(set().union(*partly.values())))),
                (complete + self.dropped + self.missed != len(played),
                 f'{len(played)} frames were played, but {complete} answered, '
                 f'{self.dropped} dropped and {self.missed} missed'),
                (self.stray(recorder),
                 f'{self.stray(recorder)} answers have a stamp that no frame had'),
                (self.misnamed(recorder),
                 f'{self.misnamed(recorder)} messages have another frame_id than {FRAME_ID}'),
                (recorder.repeated.total(),
                 f'{recorder.repeated.total()} messages answered a stamp a second time')):
            if wrong:
                self.violations.append(text)

    def stray(self, recorder: Recorder) -> int:
        """Return the number of answered stamps that no frame had."""
        return len(recorder.answers.keys() - set(self.played) - set(self.asked))

    def misnamed(self, recorder: Recorder) -> int:
        """Return the number of messages with a frame_id that the frames did not have."""
        return recorder.frame_ids.total() - recorder.frame_ids[FRAME_ID]


class Figures:
    """What frames cost, of a run of any length in memory of a fixed size."""

    def __init__(self) -> None:
        """Begin with no frames."""
        self.frames = 0
        self.reused = self.warped = 0
        self.gmacs_dense: float | None = None
        self.achieved: defaultdict[float, Sample] = defaultdict(Sample)
        self.spent, self.latency, self.network, self.beyond, self.recorded = (
            Sample() for _ in range(5))
        # Whether the cost is known, the cost, whether it was warped or reused, and the share of
        # each block that ran.
        self._series: Series | None = None
        self._unknown = 0

    def add(self, stats: GatingStats, played: bool) -> None:
        """Take in what a frame cost; of those that were not played, for the means of budgets."""
        self.achieved[round(stats.budget_requested, 4)].add(stats.budget_achieved)
        if not played:
            return
        self.frames += 1
        self.reused += stats.reused
        self.warped += stats.warped
        if self.gmacs_dense is None:
            self.gmacs_dense = stats.gmacs_dense
        self.latency.add(stats.latency_ms)
        self.network.add(stats.network_ms)
        self.beyond.add(stats.latency_ms - stats.network_ms)
        row = [0.0]
        if not math.isnan(stats.budget_achieved):
            self.spent.add(stats.budget_achieved)
            row = [1.0, stats.budget_achieved, stats.warped, stats.reused, *stats.token_fraction]
            if self._series is None:
                self._series = Series(len(row))
                for _ in range(self._unknown):
                    self._series.add([0.0])
        if self._series is None:  # how many blocks there are, such frames do not say
            self._unknown += 1
        else:
            self._series.add(row)

    def over_time(self) -> tuple[list[drawing.Stretch], int]:
        """Return stretches of the frames, and of how many frames each is."""
        if self._series is None:
            return [drawing.Stretch()], max(1, self.frames)
        return [
            drawing.Stretch(row[1] / row[0], row[2] / row[0], row[3] / row[0],
                            tuple(row[4:] / row[0])) if row[0]
            else drawing.Stretch() for row in self._series.means()], self._series.width


class Video:
    """An .mp4 at a constant rate, of pictures that have a stamp; the first sets the size."""

    def __init__(self, path: Path, rate: float) -> None:
        """Open nothing yet: without pictures there is no file."""
        self.path = path
        self.rate = rate
        self.frames = 0
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._first = 0
        self._last: np.ndarray = np.empty(0, np.uint8)

    def add(self, stamp: int, picture: np.ndarray) -> None:
        """Append uint8 (h, w, 3) RGB; the picture before stands for frames that were dropped."""
        if self._writer is None:
            self._size, self._first = picture.shape[1::-1], stamp
            self._writer = cv2.VideoWriter(
                str(self.path), cv2.VideoWriter.fourcc(*'mp4v'), self.rate, self._size)
            if not self._writer.isOpened():
                raise TrialError(f'{self.path}: cannot be written as mp4v by this OpenCV')
        due = round((stamp - self._first) / 1e9 * self.rate)
        # A long pause in a recording need not be watched in full.
        for _ in range(min(due - self.frames, round(2 * self.rate)) if self.frames else 0):
            self._writer.write(self._last)
            self.frames += 1
        self._last = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), self._size)
        self._writer.write(self._last)
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def readable_frames(self) -> int:
        """Return how many frames the finished file gives back."""
        video = cv2.VideoCapture(str(self.path))
        try:
            count = 0
            while video.grab():
                count += 1
            return count
        finally:
            video.release()


def sheet_budgets(budget: float) -> tuple[float, float, float]:
    """Return three budgets, falling, with the given one and 1.0 among them."""
    low = min(budget, 0.4)
    middle = budget if low < budget < 1.0 else round((1 + low) / 2, 2)
    return 1.0, middle, low


@dataclass(frozen=True)
class Wanted:
    """
    What is asked for.

    out: folder for the results.  node: parameters of the node, mode and budget among them.
    frames: how many of the source, None for all.  player: further arguments of the player.
    """

    out: Path
    node: dict[str, Any]
    frames: int | None = None
    player: tuple[str, ...] = ()


class Trial:
    """One run, step by step; what was recorded stays when a step fails."""

    def __init__(self, wanted: Wanted, source: Source, stop: Stop) -> None:
        """Open the files; the ROS context is initialised."""
        self.wanted = wanted
        self.source = source
        self.stop = stop
        self.out = wanted.out
        self.account = Account()
        self.samples: dict[float, list[Answer]] = {}
        self.class_names: dict[str, tuple[str, ...]] = {}
        self.figures = Figures()
        # Of a source that has parts, which is short.
        self.told: dict[int, GatingStats] = {}
        self.video = Video(self.out / 'overlay.mp4', source.rate)
        self.recorder = Recorder(self.out / 'stats.csv')
        self.recorder.on_message, self.recorder.on_complete = self._heard, self._completed
        self.recorder.filmed = lambda size: source.camera_of(size) is not None
        self.camera = Player(name='adamtl_prompter')
        self.client = AsyncParameterClient(self.recorder, 'adamtl')
        self.node: subprocess.Popen[bytes] | None = None
        self.node_peak: float | None = None
        self.node_code: int | None = None

    def close(self) -> None:
        """Close the files and the ROS nodes."""
        self.video.close()
        self.recorder.close()
        self.camera.destroy_node()

    def wait(self, done: Callable[[], Any], limit: float, what: str) -> None:
        """Receive until done(), a stop, or the node's end; TrialError if that takes too long."""
        assert self.node is not None
        node = self.node
        if not self.recorder.spin_until(
                lambda: done() or self.stop.set or not self._alive(), limit):
            raise TrialError(f'{what} took more than {limit:g} s; see {self.out / "node.log"}')
        if node.poll() is not None:
            raise TrialError(
                f'the node ended with code {node.returncode}: '
                f'{last_lines(self.out / "node.log")}')

    def ask(self, frame: SourceFrame, limit: float = ANSWER_LIMIT) -> int:
        """Send one frame to the idle node until it is answered in full; return its stamp."""
        asked: list[int] = []
        ask_again = 0.0

        def answered() -> bool:
            nonlocal ask_again
            # The camera's way may lose a frame; ask again after a while.
            if time.monotonic() > ask_again:
                asked.append(self.camera.send(
                    frame.image, self.source.camera_of(frame.image.shape[1::-1])))
                self.account.asked.append(asked[-1])
                ask_again = time.monotonic() + 5.0
            return self.recorder.complete(asked[-1])

        self.wait(answered, limit, 'the answer to a frame')
        return asked[-1]

    def start(self, first: SourceFrame) -> None:
        """Wait until the node answers with all that it has; that also warms it up."""
        self.wait(
            lambda: self.camera.images.get_subscription_count(), START_LIMIT,
            'the start of the node')
        end = time.monotonic() + START_LIMIT
        before: frozenset[str] = frozenset()
        # Discovery goes topic by topic, and a task is computed once its subscriber is known: it
        # is complete when two frames, a second apart, are answered alike and by all there is.
        while not self.stop.set and time.monotonic() < end:
            self.recorder.expected = frozenset({'gating_stats'})
            stamp = self.ask(first)
            self._idle(1.0)
            stats = self.recorder.messages.get(stamp, {}).get('gating_stats')
            topics = self.recorder.answers.get(stamp, frozenset())
            tasks = [each.name for each in stats.task_stats] if stats else []
            needed = {*PICTURES, 'gating_stats', *tasks}
            if self.source.camera:
                needed.add('camera_info')
            if topics == before and topics >= needed and tasks:
                self.recorder.expected = topics
                break
            before = topics
        else:
            if not self.stop.set:
                raise TrialError(
                    f'the node did not publish all its topics within {START_LIMIT:g} s')
        self._ask_class_names()

    def _idle(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > until, seconds + 5.0, 'waiting')

    def _ask_class_names(self) -> None:
        names = [f'tasks.{task}.class_names' for task in TASKS if TASKS[task].classes]
        answer = self.client.get_parameters(names)
        self.wait(answer.done, ANSWER_LIMIT, "reading the node's parameters")
        if (response := answer.result()) is not None:
            self.class_names = {
                name.split('.')[1]: tuple(value.string_array_value)
                for name, value in zip(names, response.values) if value.string_array_value}

    def play(self, progress: Progress) -> None:
        """Let the player play the source, and fetch the answers to the last frame."""
        recorder, account = self.recorder, self.account
        base = self._counters()
        recorder.on_overlay = self.video.add
        total, frames = self.source.length, self.wanted.frames
        if frames:
            total = min(total or frames, frames)
        bar = progress.add_task(f'playing at {self.source.rate:g} Hz', total=total)
        log = self.out / 'player.log'
        with TemporaryDirectory() as scratch:
            report = Path(scratch) / 'player.json'
            arguments = [
                # What ends with a part that stands still is the player's own.
                *(() if self.source.still else [str(self.source.path.resolve())]),
                '--wait', '30', '--report', str(report),
                *self.wanted.player, *(['--frames', str(frames)] if frames else ())]
            try:
                with child('adamtl_ros.nodes.player', arguments, log) as player:

                    def played() -> bool:
                        progress.update(bar, completed=self._counters()[0] - base[0])
                        return player.poll() is not None

                    # It ends by itself at the end of the source, however long that is.
                    self.wait(played, float('inf'), 'playing')
                    code = end(player)
            finally:  # what was played counts also when the node has ended
                if report.exists():
                    told = json.loads(report.read_text())
                    account.played = told['stamps']
                    account.problems = told['problems']
                # The newest frame is never replaced: its answer is the last that comes.
                if account.played:
                    recorder.spin_until(
                        lambda: recorder.complete(account.played[-1]) or not self._alive(),
                        ANSWER_LIMIT)
                recorder.on_overlay = None
                account.received, account.processed, account.dropped, account.missed = (
                    now - before for now, before in zip(self._counters(), base))
                if not dds.numbers_messages(utilities.get_rmw_implementation_identifier()):
                    # The node cannot know; here it is known what was played.
                    account.missed = len(account.played) - account.received
                progress.update(bar, completed=account.received)
        if code and not self.stop.set:
            raise TrialError(f'the player ended with code {code}: {last_lines(log)}')
        if self.stop.set:
            self._keep_last()
        elif not account.played:
            raise TrialError('the player played no frame')
        else:
            log.unlink()

    def _alive(self) -> bool:
        return self.node is not None and self.node.poll() is None

    def _heard(self, stamp: int, name: str, message: Any) -> None:
        if name == 'gating_stats':
            self.figures.add(message, stamp not in self.account.asked)
            if self.source.still:
                self.told[stamp] = message

    def _completed(self, stamp: int, now: int) -> None:
        if stamp not in self.account.asked:
            self.figures.recorded.add((now - stamp) / 1e6)

    def _counters(self) -> tuple[int, int, int, int]:
        """Return the node's frames received, processed, dropped and missed, by its last word."""
        stats = self.recorder.latest
        return (
            stats.frames_received, stats.frames_processed, stats.frames_dropped,
            stats.frames_missed) if stats else (0, 0, 0, 0)

    def parts(self) -> dict[str, Figures]:
        """Return what the frames of each part cost, where the source ends with a still one."""
        if not (self.source.still and self.source.length):
            return {}
        parts = {'moving': Figures(), 'still': Figures()}
        for index, stamp in enumerate(self.account.played):
            if stamp in self.told:
                still = index >= self.source.length - self.source.still
                parts['still' if still else 'moving'].add(self.told[stamp], True)
        return {name: part for name, part in parts.items() if part.frames}

    def _keep_last(self) -> None:
        """After a stop, make the sheet's only sample of the last frame that was answered."""
        for stamp in reversed(self.recorder.messages):
            if stamp in self.account.played and self.recorder.complete(stamp):
                index = self.account.played.index(stamp)
                frame = next(frame for number, frame in enumerate(self.source) if number == index)
                self.samples[self.wanted.node['budget']] = [
                    Answer(index, frame.image, self.recorder.messages[stamp])]
                return

    def compare(self, progress: Progress) -> None:
        """Ask some frames of the source again, at three budgets, changed while the node runs."""
        count = len(self.account.played)
        places = np.linspace(0, count - 1, min(SAMPLES + 2, count)).round().astype(int)
        # The ends of a video are rarely its most telling pictures.
        wanted = set(places[1:-1].tolist() or places.tolist())
        frames = {}
        for index, frame in enumerate(self.source):
            if index in wanted:
                frames[index] = frame
            if index >= max(wanted):
                break
        budgets = sheet_budgets(self.wanted.node['budget'])
        bar = progress.add_task('three budgets', total=len(budgets) * len(frames))
        for budget in budgets:
            # Each is computed, also where the source stands still.
            self.set_parameters(budget=float(budget), reuse=False)
            for index, frame in frames.items():
                stamp = self.ask(frame)
                if self.stop.set:
                    return
                self.samples.setdefault(budget, []).append(
                    Answer(index, frame.image, self.recorder.messages[stamp]))
                progress.advance(bar)

    def set_parameters(self, **values: Any) -> None:
        """Change parameters of the running node; TrialError if it refuses."""
        answer = self.client.set_parameters(
            [Parameter(name, value=value) for name, value in values.items()])
        self.wait(answer.done, ANSWER_LIMIT, 'changing parameters')
        response = answer.result()
        for name, result in zip(values, response.results if response is not None else ()):
            if not result.successful:
                raise TrialError(f'the node refused {name} {values[name]}: {result.reason}')

    def run(self, progress: Progress) -> None:
        """Run all steps."""
        with TemporaryDirectory() as scratch:
            # JSON is YAML; a file needs no quoting for the command line.
            file = Path(scratch) / 'parameters.yaml'
            file.write_text(json.dumps({'/**': {'ros__parameters': {
                'compare_share': 1.0, **self.wanted.node}}}))
            step = progress.add_task('starting the node', total=1)
            with child(
                    'adamtl_ros.nodes.node', ['--ros-args', '--params-file', str(file)],
                    self.out / 'node.log') as self.node:
                self.start(next(iter(self.source)))
                progress.advance(step)
                if not self.stop.set:
                    self.play(progress)
                if not self.stop.set:
                    self.compare(progress)
                self.node_peak = peak_memory(self.node.pid)
                self.node_code = end(self.node)

    def write_sheet(self) -> None:
        """Write sheet.png: every shown frame at every budget it was asked at."""
        if not self.samples:
            return
        tasks = [task for task in TASKS if task in self.recorder.expected]
        first = next(iter(self.samples.values()))
        step = max(1, len(first) // SHOWN)
        rows = []
        for place in range(step // 2, len(first), step)[:SHOWN]:
            for samples in self.samples.values():
                if place < len(samples):
                    rows.append(_row(samples[place], tasks))
        legend = {task: names for task, names in self.class_names.items() if task in tasks}
        sheet = drawing.sheet(['frame', *tasks, 'gating map'], rows, legend=legend)
        if self.figures.frames:
            stretches, frames = self.figures.over_time()
            parts = [
                (PARTS[name] + (f': mean cost {mean:.2f}' if (mean := part.spent.mean())
                                is not None else ''), part.frames)
                for name, part in self.parts().items()]
            sheet = np.vstack([sheet, drawing.over_time(
                stretches, self.wanted.node['budget'], sheet.shape[1], frames=frames,
                parts=parts)])
        write_rgb(self.out / 'sheet.png', sheet)

    def summary(self) -> dict[str, Any]:
        """Check the account, and return what summary.json says."""
        account, recorder = self.account, self.recorder
        account.check(recorder)
        video_frames = self.video.readable_frames() if self.video.frames else 0
        if video_frames != self.video.frames:
            account.violations.append(
                f'overlay.mp4 gives back {video_frames} of {self.video.frames} frames')
        if self.node_code:
            account.violations.append(f'the node ended with code {self.node_code}')
        figures = self.figures
        return {
            'source': str(self.source.path), 'kind': self.source.kind,
            'rate_hz': self.source.rate,
            **{name: self.wanted.node[name] for name in ('model', 'mode', 'budget')},
            'frames': {
                'played': len(account.played), 'received': account.received,
                'processed': account.processed, 'dropped': account.dropped,
                'missed': account.missed,
                'answered': sum(recorder.complete(stamp) for stamp in account.played)},
            'topics': {
                name: sum(name in recorder.answers.get(stamp, {}) for stamp in account.played)
                for name in sorted(recorder.expected)},
            'budgets': [
                {'requested': budget, 'achieved': achieved.mean(), 'frames': achieved.count}
                for budget, achieved in sorted(figures.achieved.items(), reverse=True)],
            'played': _cost(figures),
            'parts': [
                {'name': name, 'frames': part.frames, **_cost(part)}
                for name, part in self.parts().items()],
            **{name: percentiles(sample.values, (50, 95)) for name, sample in (
                ('latency_ms', figures.latency), ('network_ms', figures.network),
                ('beyond_network_ms', figures.beyond),
                ('stamp_to_recorded_ms', figures.recorded))},
            'gmacs_dense': figures.gmacs_dense,
            'node_memory_peak_mb': self.node_peak,
            'video_frames': video_frames,
            'checks': {
                'received_is_processed_plus_dropped':
                    account.received == account.processed + account.dropped,
                'every_played_frame_answered_or_dropped': len(account.played) == (
                    account.dropped + account.missed
                    + sum(recorder.complete(stamp) for stamp in account.played)),
                'stamps_match': not account.stray(recorder),
                'frame_ids_match': not account.misnamed(recorder)},
            'problems': account.problems,
            'violations': account.violations,
            'interrupted': self.stop.set,
        }


def _cost(figures: Figures) -> dict[str, Any]:
    return {
        'mean_cost': figures.spent.mean(), 'reused': figures.reused, 'warped': figures.warped}


def _row(sample: Answer, tasks: Sequence[str]) -> tuple[str, list[np.ndarray]]:
    """Return the label and the pictures of a row, all of the frame's shape."""
    stats, image = sample.stats, sample.image
    label = (
        f'frame {sample.index}, {stats.mode}: budget {stats.budget_requested:.2f} requested, '
        f'{stats.budget_achieved:.2f} achieved, {stats.gmacs:.2f} of {stats.gmacs_dense:.2f} '
        f'GMACs, {stats.latency_ms:.0f} ms')
    size = image.shape[1::-1]
    pictures = [image]
    for task in tasks:
        pictures.append(cv2.resize(
            drawing.colourise(task, image_array(sample.messages[task])), size,
            interpolation=cv2.INTER_NEAREST))
    pictures.append(drawing.gating_picture(image_array(sample.messages['gating_map']), image))
    return label, pictures


def run(wanted: Wanted, source: Source, domain: int | None, progress: Progress) -> dict[str, Any]:
    """
    Do the steps, write overlay, sheet and stats, and return the summary.

    domain: ROS domain, None for one of its own.  What went wrong is in the summary's violations.
    """
    with dds.domain(domain), closing(Stop()) as stop:
        start_ros()
        try:
            with closing(Trial(wanted, source, stop)) as trial:
                failure = ''
                try:
                    with progress:
                        trial.run(progress)
                except (TrialError, ValueError, OSError) as error:
                    failure = str(error)
                trial.video.close()
                trial.write_sheet()
                summary = trial.summary()
                if failure:
                    summary['violations'].insert(0, failure)
                return summary
        finally:
            rclpy.try_shutdown()

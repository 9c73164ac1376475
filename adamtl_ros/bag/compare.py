# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recording through the engine: dense and at budgets, frame by frame side by side."""

from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import csv
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import math
from pathlib import Path
from time import perf_counter
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING

import numpy as np

from adamtl_ros.bag.energy import Meter
from adamtl_ros.bag.measures import Difference
from adamtl_ros.bag.measures import LatestOnly
from adamtl_ros.bag.measures import Sample
from adamtl_ros.bag.measures import Scenes
from adamtl_ros.bag.measures import Series
from adamtl_ros.bag.measures import Worst
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import NOTHING_KNOWN
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.reading import Skipped
from adamtl_ros.bag.truth import FolderLabels
from adamtl_ros.bag.truth import label_of
from adamtl_ros.bag.truth import TopicLabels
from adamtl_ros.bag.truth import WAITING
from adamtl_ros.files import whole
from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.processes import processors
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.settings import FIXED
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream

if TYPE_CHECKING:
    from adamtl_ros.evaluation.metrics import TaskMetrics

WORTH = 0.02
"""Share of the dense network's time below which a saving is none to speak of."""

CHANCE = 0.05
"""With which probability a saving that is told may be chance."""

USUAL = 15, 85
"""Percentiles of the differences between which most frames are."""

STRETCHES = 20
"""Of a recording, whose means are compared."""

GATED = 'adaptive', FIXED
"""The modes of which something else is published than the dense network's results."""

EXAMPLES = 5
"""Reasons that are kept for each cause of skipping."""


class Observer(Protocol):
    """Something else that wants every frame."""

    def frame(self, frame: RecordedFrame, engine: Engine) -> None:
        """Take a frame, after it was timed."""


@dataclass(frozen=True)
class Plan:
    """
    What to evaluate.

    modes: of 'static', 'shadow', 'adaptive' and 'fixed', the best set of blocks at a budget for
    frames in general; static is always run, as the reference.
    budgets: of modes adaptive and fixed.  budget: of mode shadow.  every: one frame of so many is
    run.  max_frames: frames that are run, 0 for all.  keep: the agreement that is recommended.
    threads: what the engine was given, 0 for automatic.  known: of the camera.  reuse, warp,
    fuse: of streams.
    """

    topic: str
    tasks: tuple[str, ...]
    budgets: tuple[float, ...]
    budget: float
    modes: tuple[str, ...] = ('static', 'shadow', 'adaptive')
    every: int = 1
    max_frames: int = 0
    keep: float = 0.95
    threads: int = 0
    known: Intrinsics = NOTHING_KNOWN
    reuse: bool = True
    warp: bool = True
    fuse: bool = True

    def settings(self) -> list[Settings]:
        """Return the settings to compare, the reference first."""
        runs = [Settings(mode='static', tasks=self.tasks)]
        if 'shadow' in self.modes:
            runs.append(self.adaptive(self.budget, 'shadow'))
        if 'adaptive' in self.modes:
            runs += [self.adaptive(budget) for budget in self.budgets]
        if FIXED in self.modes:
            runs += [self.adaptive(budget, FIXED) for budget in self.budgets]
        return runs

    def adaptive(self, budget: float, mode: str = 'adaptive') -> Settings:
        """Return the settings of a budget."""
        return Settings(mode=mode, budget=budget, tasks=self.tasks, reuse=self.reuse,
            warp=self.warp, fuse=self.fuse)


@dataclass
class Run:
    """What is kept of one setting while the recording passes by."""

    settings: Settings
    difference: Difference
    stability: Difference
    metrics: dict[str, 'TaskMetrics']
    latency: Sample = field(default_factory=Sample)
    slot: LatestOnly = field(default_factory=LatestOnly)
    stream: Stream = field(default_factory=Stream)
    # achieved, agreement, latency, reused, warped
    series: Series = field(default_factory=lambda: Series(5))
    worst: Worst = field(default_factory=Worst)
    # per scene: frames, achieved, agreement, then the tasks' and the blocks' shares of tokens
    scenes: list[np.ndarray] = field(default_factory=list)
    # of the worst frames: the frame that their results were computed of, its price and its cap
    origins: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    # of these frames: what was published
    shown: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    computed: tuple[int, float, float] = (0, math.nan, 1.0)
    achieved: float = 0.0
    reused: int = 0
    warped: int = 0
    empty: int = 0
    macs: tuple[float, float] = (0.0, 0.0)
    joules: float = 0.0
    scored: Counter[str] = field(default_factory=Counter)
    before: dict[str, np.ndarray] | None = None
    work: float = 0.0


@dataclass
class Scene:
    """A stretch of frames that look alike: its first and last index and time (s)."""

    first: int
    last: int
    start: float
    end: float


def labelled(
        bag: Bag, frames: RecordedFrames, labels: TopicLabels | FolderLabels | None,
        wanted: 'Wanted', problem: Callable[[str], None],
) -> Iterator[tuple[RecordedFrame | Skipped | None, int, dict[str, np.ndarray]]]:
    """
    Yield frames with the time (ns) of their message and their labels, in order.

    Labels that were recorded after their frame are waited for, a few frames long.
    """
    waiting: deque[tuple[RecordedFrame | Skipped | None, int]] = deque()
    others = tuple(labels.tasks) if isinstance(labels, TopicLabels) else ()

    def ready(force: bool) -> Iterator[
            tuple[RecordedFrame | Skipped | None, int, dict[str, np.ndarray]]]:
        while waiting:
            frame, time = waiting[0]
            found: dict[str, np.ndarray] = {}
            if isinstance(frame, RecordedFrame) and labels is not None:
                if not (force or labels.complete(frame.stamp) or len(waiting) > WAITING):
                    return
                try:
                    found = labels.take(frame.stamp, frame.number)
                except ValueError as error:
                    problem(str(error))
            waiting.popleft()
            yield frame, time, found

    for message in bag.messages((frames.topic, *frames.infos, *others)):
        if message.topic in frames.infos:
            try:
                frames.calibrate(message)
            except ValueError as error:
                problem(f'{message.topic}: {error}')
            continue
        if isinstance(labels, TopicLabels) and message.topic in labels.tasks:
            try:
                labels.add(message)
            except ValueError as error:
                problem(f'{message.topic}: {error}')
        else:
            waiting.append((frames.read(message, decoded=wanted(frames.number + 1)), message.time))
        yield from ready(False)
    yield from ready(True)


class Wanted:
    """Says which messages of the topic are run."""

    def __init__(self, every: int) -> None:
        """Want one message of so many."""
        self.every = every

    def __call__(self, index: int) -> bool:
        """Return whether the message is run."""
        return index % self.every == 0


class Evaluation:
    """One recording, evaluated; figures() after run()."""

    def __init__(
            self, bag: Bag, engine: Engine, plan: Plan, *,
            labels: TopicLabels | FolderLabels | None = None,
            observers: Sequence[Observer] = (), table: Path | None = None,
            progress: Callable[[int], None] = lambda count: None) -> None:
        """
        Prepare.

        observers: get every frame.  table: a CSV file for a row a frame and setting.
        progress: is told the number of messages read.
        """
        self.bag, self.engine, self.plan = bag, engine, plan
        self.labels, self.observers, self.table, self.progress = labels, observers, table, progress
        self.frames = RecordedFrames(plan.topic, plan.known)
        self.lens = ''
        self.runs = [self._run(settings) for settings in plan.settings()]
        self.meter = Meter(engine.device)
        self.scenes: list[Scene] = []
        self.evaluated = 0
        self.seconds = 0.0
        self.interrupted = False
        self._splitter = Scenes()
        self._order = np.random.default_rng(0)
        self.skipped: Counter[str] = Counter()
        self.reasons: dict[str, list[dict[str, Any]]] = {}
        self._first: int | None = None
        self._last = 0
        self._places = Series(1)

    def _run(self, settings: Settings) -> Run:
        classes = {
            task: len(names) for task, names in self.engine.class_names.items()
            if task in self.plan.tasks}
        metrics = {}
        if self.labels is not None:
            # With torch, which an engine can do without.
            from adamtl_ros.evaluation.metrics import TaskMetrics
            metrics = {task: TaskMetrics(task, classes.get(task, 0)) for task in self.plan.tasks}
        return Run(settings, Difference(classes), Difference(classes), metrics)

    def run(self) -> None:
        """Read the recording to its end, or to max_frames, or to Ctrl-C."""
        start = perf_counter()
        if self.table is None:
            self._read(None)
        else:
            with whole(self.table) as aside, aside.open('w', newline='') as file:
                self._read(csv.writer(file))
        self.seconds = perf_counter() - start

    def _read(self, writer: Any) -> None:
        if writer:
            writer.writerow([
                'frame', 'stamp', 'seconds', 'scene', 'mode', 'budget', 'achieved', 'latency_ms',
                'agreement', *(f'agreement_{task}' for task in self.plan.tasks), 'reused',
                'warped', 'empty'])
        try:
            for frame, time, labels in labelled(
                    self.bag, self.frames, self.labels, Wanted(self.plan.every),
                    self.bag.problem):
                if self._first is None:
                    self._first = time
                seconds = (time - self._first) / 1e9
                self._last = max(self._last, time)
                if isinstance(frame, Skipped):
                    self.skipped[frame.cause] += 1
                    examples = self.reasons.setdefault(frame.cause, [])
                    if len(examples) < EXAMPLES:
                        examples.append({'frame': frame.number, 'reason': frame.reason})
                elif frame is not None:
                    self._frame(frame, seconds, labels, writer)
                # A frame that is not run arrives all the same, and takes what the last one took.
                if not isinstance(frame, Skipped):
                    for run in self.runs:
                        run.slot.arrive(seconds, run.work)
                self.progress(self.frames.number + 1)
                if self.plan.max_frames and self.evaluated >= self.plan.max_frames:
                    break
        except KeyboardInterrupt:
            self.interrupted = True

    def _frame(
            self, frame: RecordedFrame, seconds: float, labels: dict[str, np.ndarray],
            writer: Any) -> None:
        if not self.evaluated:
            # The first frame of each kind allocates memory: that is nobody's latency.
            for run in self.runs:
                self.engine.infer(frame.image, run.settings, frame.camera)
        results: list[Result | None] = [None] * len(self.runs)
        # In another order every frame, so that no setting always comes after the same other one.
        for number in self._order.permutation(len(self.runs)):
            run = self.runs[number]
            joules, start = self.meter.read(), perf_counter()
            run.stream.arrived(frame.stamp / 1e9, frame.header.frame_id)
            results[number] = self.engine.infer(
                frame.image, run.settings, frame.camera, run.stream)
            run.work = frame.seconds + perf_counter() - start
            run.joules += self.meter.read() - joules
        reference = results[0]
        assert reference is not None
        self.lens = reference.stats.lens
        scene = self._scene(frame, seconds)
        self._places.add([frame.number])
        size = next(iter(reference.outputs.values())).shape[1::-1]
        truth = self._truth(labels, (size[0], size[1]))
        for run, result in zip(self.runs, results):
            assert result is not None
            stats = result.stats
            latency = 1000 * run.work
            # In shadow mode what is published is dense; what would have been is compared within.
            if run.settings.mode in GATED:
                agreed = run.difference.update(result.outputs, reference.outputs)
            elif run.settings.mode == 'shadow':
                agreed = stats.task_agreement
            else:
                agreed = dict.fromkeys(stats.tasks, 1.0)
            mean = float(np.mean(list(agreed.values())))
            # A change of size is a cut; nothing is stable across it.
            if run.before is not None and _shapes(run.before) == _shapes(result.outputs):
                run.stability.update(result.outputs, run.before)
            run.before = result.outputs
            run.latency.add(latency)
            run.achieved += stats.budget_achieved
            run.macs = (run.macs[0] + stats.gmacs, run.macs[1] + stats.gmacs_dense)
            run.reused += stats.reused
            run.warped += stats.warped
            run.empty += bool(stats.tasks_empty)
            if stats.computed:
                run.computed = frame.number, stats.price, stats.budget_cap
            run.series.add(
                (stats.budget_achieved, mean, latency, stats.reused, stats.warped))
            if run.settings.mode == 'adaptive':
                run.worst.add(frame.number, mean)
                run.origins[frame.number] = run.computed
                run.shown[frame.number] = result.outputs
                worst = [index for index, _ in run.worst.frames()]
                run.origins = {index: run.origins[index] for index in worst}
                run.shown = {index: run.shown[index] for index in worst}
            shares = np.array([
                1.0, stats.budget_achieved, mean, *stats.task_token_fraction,
                *stats.token_fraction])
            if scene == len(run.scenes):
                run.scenes.append(shares)
            else:
                run.scenes[scene] += shares
            for task, label in truth.items():
                run.metrics[task].update(result.outputs[task], label)
                run.scored[task] += 1
            if writer:
                writer.writerow([
                    frame.number, f'{frame.stamp / 1e9:.9f}', f'{seconds:.6f}', scene, stats.mode,
                    run.settings.budget, f'{stats.budget_achieved:.6g}', f'{latency:.3f}',
                    f'{mean:.6g}', *(f'{agreed[task]:.6g}' for task in self.plan.tasks),
                    int(stats.reused), int(stats.warped), ' '.join(stats.tasks_empty)])
        self.evaluated += 1
        for observer in self.observers:
            observer.frame(frame, self.engine)

    def _truth(
            self, labels: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
        truth = {}
        for task, values in labels.items():
            if task in self.plan.tasks:
                try:
                    truth[task] = label_of(
                        task, values, size, len(self.engine.class_names.get(task, ())))
                except ValueError as error:
                    self.bag.problem(str(error))
        return truth

    def _scene(self, frame: RecordedFrame, seconds: float) -> int:
        number = self._splitter.add(frame.image)
        if number == len(self.scenes):
            self.scenes.append(Scene(frame.number, frame.number, seconds, seconds))
        scene = self.scenes[number]
        scene.last, scene.end = frame.number, seconds
        return number

    def shown(self) -> dict[float | None, dict[int, dict[str, np.ndarray]]]:
        """Return what was published for the worst frames of each budget, by their numbers."""
        return {run.settings.budget: run.shown
                for run in self.runs if run.settings.mode == 'adaptive'}

    def figures(self) -> dict[str, Any]:
        """Return what results.json holds, but for what the command adds."""
        expected = self.bag.expected(self.plan.topic)
        read = self.frames.number + 1
        whole = not self.interrupted and not (
            self.plan.max_frames and self.evaluated >= self.plan.max_frames)
        if whole and expected is not None and read < expected:
            self.bag.problem(
                f'{self.plan.topic}: {expected} messages were recorded, {read} could be read')
        seconds = (self._last - self._first) / 1e9 if self._first is not None else 0.0
        notes = list(self.bag.notes)
        if self.frames.zero_stamps:
            notes.append(f'{self.frames.zero_stamps} frames have no stamp (0)')
        if len(self.frames.sizes) > 1:
            notes.append('the size of the pictures changes: ' + ', '.join(
                f'{number} of {size}' for size, number in self.frames.sizes.items()))
        if self.frames.refused:
            notes.append(self.frames.refused)
        if self.lens == 'extreme':
            notes.append('the lens is outside of what networks are trained for: depth is a guess')
        if self._splitter.full:
            notes.append('there are more scenes than are told apart; the last holds the rest')
        if self.interrupted:
            notes.append('interrupted: the frames up to then count')
        return {
            'bag': str(self.bag.path), 'topic': self.plan.topic, 'frames': self.evaluated,
            'messages': read, 'skipped': dict(self.skipped), 'skipped_examples': self.reasons,
            'problems': list(self.bag.problems), 'notes': notes,
            'interrupted': self.interrupted, 'duration_s': seconds,
            'rate_hz': (read - 1) / seconds if seconds > 0 and read > 1 else None,
            'sizes': dict(self.frames.sizes), 'lens': self.lens, 'every': self.plan.every,
            'model': self.engine.model, 'backend': self.engine.backend,
            'device': self.engine.device, 'precision': self.engine.precision,
            'threads': _threads(self.engine, self.plan.threads),
            'tasks': list(self.plan.tasks), 'keep': self.plan.keep,
            'energy_source': self.meter.source, 'seconds': self.seconds,
            'min_budget': self.engine.min_budget(self.plan.tasks),
            'rows': [self._row(run) for run in self.runs],
            'scenes': [self._scene_figures(number) for number in range(len(self.scenes))],
            'series': {
                'frame': [int(round(place)) for place in self._places.means()[:, 0]],
                'width': self._places.width,
                'rows': [
                    {'mode': run.settings.mode, 'budget': run.settings.budget,
                     **{name: column.tolist() for name, column in zip(
                         ('achieved', 'agreement', 'latency_ms', 'reused', 'warped'),
                         run.series.means().T)}}
                    for run in self.runs]},
        }

    def _row(self, run: Run) -> dict[str, Any]:
        count = max(self.evaluated, 1)
        gated = run.settings.mode in GATED
        own = dict.fromkeys(self.plan.tasks, 1.0)
        accuracy = {
            task: run.metrics[task].compute() for task in run.metrics if run.scored[task]}
        return {
            'mode': run.settings.mode, 'budget': run.settings.budget,
            'achieved': run.achieved / count, **self._memory(run),
            'gmacs': run.macs[0] / count, 'gmacs_dense': run.macs[1] / count,
            'p50_ms': run.latency.percentile(50), 'p95_ms': run.latency.percentile(95),
            'p99_ms': run.latency.percentile(99), 'mean_ms': run.latency.mean(),
            'time_saved_low': saved_low(
                self.runs[0].series.means()[:, 2] - run.series.means()[:, 2],
                self.runs[0].latency.mean()) if gated else None,
            'dropped': run.slot.dropped,
            # What is published in the modes static and shadow is the reference.
            'agreement': run.difference.agreement() if gated else own,
            'difference': run.difference.compute() if gated else None,
            'stability': run.stability.agreement(),
            'energy_j': run.joules / count if self.meter.available else None,
            'accuracy': accuracy or None, 'labelled_frames': dict(run.scored) or None,
            'latency_histogram': _histogram(run.latency),
            'worst': [
                {'frame': index, 'agreement': value,
                 **dict(zip(('computed', 'price', 'cap'), run.origins[index]))}
                for index, value in run.worst.frames()],
        }

    def _memory(self, run: Run) -> dict[str, Any]:
        """
        Return the shares of frames reused and warped, what the others cost, and what that saved.

        And the share of frames in which a task was left out that had nothing to say.
        """
        count = max(self.evaluated, 1)
        if run.settings.mode == 'static':
            return {
                'reused': 0.0, 'warped': 0.0, 'computed': 1.0, 'memory_saved': 0.0, 'empty': 0.0}
        remembered = run.reused + run.warped
        computed = run.achieved / max(self.evaluated - remembered, 1)
        return {'reused': run.reused / count, 'warped': run.warped / count, 'computed': computed,
                'memory_saved': remembered / count * computed, 'empty': run.empty / count}

    def _scene_figures(self, number: int) -> dict[str, Any]:
        scene, tasks = self.scenes[number], len(self.plan.tasks)
        rows = []
        for run in self.runs:
            frames, *sums = run.scenes[number]
            achieved, agreement, *shares = (float(value / frames) for value in sums)
            rows.append({
                'mode': run.settings.mode, 'budget': run.settings.budget, 'achieved': achieved,
                'agreement': agreement, 'task_token_fraction': dict(
                    zip(self.plan.tasks, shares[:tasks])), 'token_fraction': shares[tasks:]})
        return {
            'first': scene.first, 'last': scene.last, 'start_s': scene.start,
            'end_s': scene.end, 'frames': int(self.runs[0].scenes[number][0]), 'rows': rows}


def _shapes(outputs: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return [values.shape for values in outputs.values()]


def _threads(engine: Engine, asked: int) -> int:
    """Return how many threads the network uses."""
    if engine.backend == 'torch':
        import torch
        return torch.get_num_threads()
    return asked or len(processors())


def _histogram(latency: Sample) -> dict[str, list[float]] | None:
    """Return counts between edges (ms), up to the 99.5th percentile."""
    if not latency.values:
        return None
    values = np.array(latency.values)
    counts, edges = np.histogram(values[values <= np.percentile(values, 99.5)], 40)
    return {'edges_ms': edges.tolist(), 'counts': counts.tolist()}


def agreement_of(row: dict[str, Any]) -> float:
    """Return the mean agreement of a row's tasks."""
    return float(np.mean(list(row['agreement'].values())))


def saved_low(differences: np.ndarray, reference: float | None) -> float | None:
    """
    Return the saving, as a share of the reference, that the mean is above but for CHANCE.

    differences: time saved, stretch by stretch of the recording.  Of streams some frames take all
    the time and others next to none, so that of what is long enough the means of about STRETCHES
    are looked at.  None counts as farther from the median than the percentiles USUAL from each
    other: something else ran then.  By their signs: of n values the k least lie below the median
    with more than the probability that k or fewer of n coins give.  None where there are too few
    to tell.
    """
    size = max(len(differences) // STRETCHES, 1)
    means = differences[:len(differences) // size * size]
    if len(means):
        usual, middle = np.ptp(np.percentile(means, USUAL)), np.median(means)
        means = means.clip(middle - usual, middle + usual).reshape(-1, size).mean(1)
    values, below, least = np.sort(means), 0.0, -1
    for index in range(len(values)):
        below += math.comb(len(values), index) / 2 ** len(values)
        if below > CHANCE:
            break
        least = index
    return float(values[least]) / reference if least >= 0 and reference else None


def is_faster(row: dict[str, Any]) -> bool:
    """Return whether a row's saving of time is worth it, and beyond the noise."""
    low = row['time_saved_low']
    return low is not None and low > WORTH


def recommend(figures: dict[str, Any]) -> dict[str, Any]:
    """
    Return the budget to use, and why, in words.

    Of the budgets of mode adaptive whose mean agreement is at least `keep` and that are faster
    than the dense network beyond the noise, the one with the least mean latency.
    """
    static, keep = figures['rows'][0], figures['keep']
    rows = [row for row in figures['rows'] if row['mode'] == 'adaptive']
    good = [row for row in rows if agreement_of(row) >= keep]
    faster = [row for row in good if is_faster(row)]
    best = min(faster or good, key=lambda row: row['mean_ms'], default=None)
    shown = best or max(rows, key=agreement_of, default=None)
    if shown is None:
        return {
            'mode': 'static', 'budget': None, 'shown_budget': None, 'agreement': None,
            'time_saved': None, 'time_saved_low': None, 'macs_saved': None, 'frames': [],
            'text': 'No budget was compared: only the dense network ran.'}
    saved = 1 - shown['mean_ms'] / static['mean_ms']
    macs = 1 - shown['gmacs'] / static['gmacs']
    value = agreement_of(shown)
    ranges = _drop(figures, shown)
    where = ', '.join(f'{a}' if a == b else f'{a}–{b}' for a, b in ranges)
    figure = (
        f'this recording keeps {value:.1%} agreement with the dense network, takes '
        f'{_less(saved, "less", "as much")} time a frame and '
        f'{_less(macs, "fewer", "as many")} operations')
    drop = f'; the drop is in frames {where}' if where else ''
    if best is None:
        text = (
            f'Stay with the dense network: no budget reaches the {keep:.0%} agreement that was '
            f'asked for. The nearest is budget {shown["budget"]:g}, at which {figure}{drop}.')
    elif not faster:
        text = (f'Stay with the dense network: on this machine no budget that keeps {keep:.0%} '
                'agreement is faster by more than the noise of this measurement and '
                f'{WORTH:.0%}. At budget {shown["budget"]:g} {figure}{drop}.')
    else:
        text = f'Use mode adaptive with budget {shown["budget"]:g}: {figure}{drop}.'
    return {
        'mode': 'adaptive' if faster else 'static', 'budget': shown['budget'] if faster else None,
        'shown_budget': shown['budget'], 'agreement': value, 'time_saved': saved,
        'time_saved_low': shown['time_saved_low'], 'macs_saved': macs, 'frames': ranges,
        'text': text}


def _less(saved: float, less: str, same: str) -> str:
    """Return '12% less', '3% more' or 'as much' for a share that is saved."""
    if round(abs(saved), 2) == 0:
        return same
    return f'{saved:.0%} {less}' if saved > 0 else f'{-saved:.0%} more'


def _drop(figures: dict[str, Any], row: dict[str, Any]) -> list[list[int]]:
    """Return up to three stretches of frames, [first, last], with markedly less agreement."""
    series = figures['series']
    values = np.array(next(
        each['agreement'] for each in series['rows']
        if (each['mode'], each['budget']) == (row['mode'], row['budget'])))
    if len(values) < 4:
        return []
    low = values < values.mean() - max(1.5 * values.std(), 0.005)
    half = figures['every'] * (series['width'] - 1) / 2
    stretches: list[tuple[float, list[int]]] = []
    for place in np.flatnonzero(low):
        first, last = (round(series['frame'][place] + sign * half) for sign in (-1, 1))
        # What lies a little apart is one event to the one who looks it up.
        if stretches and first - stretches[-1][1][1] <= figures['every'] * (series['width'] + 2):
            worst, stretch = stretches[-1]
            stretches[-1] = (min(worst, values[place]), [stretch[0], last])
        else:
            stretches.append((values[place], [first, last]))
    return sorted(stretch for _, stretch in sorted(stretches, key=lambda each: each[0])[:3])


def fixed(plan: Plan, mode: str, budget: float) -> Settings:
    """Return the settings of one mode and budget with all that the node can publish."""
    return replace(plan.adaptive(budget, mode), confidence=True, gating_map=True)

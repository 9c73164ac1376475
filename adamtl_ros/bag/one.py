# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One recording: from its path to its results, report and table."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
import json
from pathlib import Path
import sys
from typing import Any
from typing import Protocol

from rich.console import Console
from rich.progress import Progress
from rich.prompt import Prompt

from adamtl_ros.bag import report
from adamtl_ros.bag.compare import Evaluation
from adamtl_ros.bag.compare import fixed
from adamtl_ros.bag.compare import Observer
from adamtl_ros.bag.compare import Plan
from adamtl_ros.bag.compare import recommend
from adamtl_ros.bag.output import OutputBag
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import choose_topic
from adamtl_ros.bag.reading import intrinsics_of
from adamtl_ros.bag.reading import NOTHING_KNOWN
from adamtl_ros.bag.reading import others_than
from adamtl_ros.bag.truth import FolderLabels
from adamtl_ros.bag.truth import TopicLabels
from adamtl_ros.files import plain
from adamtl_ros.files import whole
from adamtl_ros.intrinsics import Intrinsics
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.waiting import saying


def ask_topic(console: Console) -> Any:
    """Return what asks a person at a terminal for the topic; None where nobody is there."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return None
    return lambda topics: Prompt.ask('which image topic', choices=topics, console=console)


@dataclass(frozen=True)
class Options:
    """
    What is asked for, of every recording alike; in most `Plan` says what it means.

    topic: None for the only one.  tasks: None for all of the model.  mode, budget: of `record`,
    the name of a bag to write as `node` would publish.  truth: topics of labels, by task; or
    labels: a folder of them.
    """

    budgets: tuple[float, ...]
    budget: float
    modes: tuple[str, ...]
    mode: str = 'adaptive'
    topic: str | None = None
    model: str = 'glasses'
    backend: str = 'auto'
    precision: str = 'f32'
    device: str = 'cpu'
    threads: int = 0
    tasks: tuple[str, ...] | None = None
    known: Intrinsics = NOTHING_KNOWN
    every: int = 1
    max_frames: int = 0
    reuse: bool = True
    warp: bool = True
    fuse: bool = True
    keep: float = 0.95
    truth: dict[str, str] = field(default_factory=dict)
    labels: Path | None = None
    record: Path | None = None
    node: str = '/adamtl'

    def engine(self) -> Engine:
        """Load the model."""
        return Engine(
            self.model, backend=self.backend, device=self.device, num_threads=self.threads,
            precision=self.precision)

    def plan(self, topic: str, engine: Engine, known: Intrinsics) -> Plan:
        """Return what to evaluate."""
        return Plan(
            topic=topic, tasks=self.tasks or engine.tasks, budgets=self.budgets,
            budget=self.budget, modes=self.modes, every=self.every, max_frames=self.max_frames,
            keep=self.keep, threads=self.threads, known=known, reuse=self.reuse,
            warp=self.warp, fuse=self.fuse)


class LiveObserver(Observer, Protocol):
    """One that also says what came of playing into a running node."""

    def figures(self) -> dict[str, Any]:
        """Return what results.json holds of it."""


def evaluate_bag(
        path: Path, options: Options, out: Path, engine: Engine | None = None,
        progress: Progress | None = None,
        live: Callable[[Bag, str, Options], LiveObserver] | None = None) -> dict[str, Any]:
    """
    Evaluate one recording into a folder; return what results.json holds.

    live: plays the topic into a running node first.
    FileNotFoundError or ValueError where nothing of it can be evaluated.
    """
    bag = Bag(path)
    topic = choose_topic(
        bag, options.topic, ask_topic(progress.console) if progress else None,
        tuple(options.truth.values()))
    for name in options.truth.values():
        if name not in bag.topics:
            raise ValueError(
                f'{path}: has no topic {name} for --truth; it has {", ".join(bag.topics)}')
    labels: TopicLabels | FolderLabels | None = None
    if options.truth:
        labels = TopicLabels(options.truth)
    elif options.labels:
        labels = FolderLabels(options.labels)
    with saying(f'adamtl bag: loading {options.model}'):
        engine = engine or options.engine()
    known = intrinsics_of(bag, topic) if options.known == NOTHING_KNOWN else options.known
    plan = options.plan(topic, engine, known)
    for settings in plan.settings():
        engine.check(settings)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        observers: list[Observer] = []
        played = live(bag, topic, options) if live else None
        if played:
            observers.append(played)
        if options.record:
            observers.append(stack.enter_context(OutputBag(
                options.record, engine, fixed(plan, options.mode, options.budget),
                node=options.node)))
        evaluation = Evaluation(
            bag, engine, plan, labels=labels, observers=observers, table=out / 'frames.csv')
        if progress:
            total = bag.expected(topic)
            if total and options.max_frames:
                total = min(total, options.max_frames * options.every)
            bar = progress.add_task(path.name, total=total)
            evaluation.progress = lambda count: progress.update(bar, completed=count)
        evaluation.run()
    if not evaluation.evaluated:
        if evaluation.interrupted:
            raise KeyboardInterrupt
        causes = ', '.join(f'{number} {cause}' for cause, number in evaluation.skipped.items())
        reasons = '; '.join([
            *bag.problems, *(entry['reason'] for each in evaluation.reasons.values()
                             for entry in each[:1])])
        raise ValueError(
            f'{path}: no frame of {topic} could be used'
            f'{f" (skipped: {causes})" if causes else ""}{f": {reasons}" if reasons else ""}'
            f'{others_than(bag, topic)}')
    figures = evaluation.figures()
    if played:
        figures['live'] = played.figures()
    figures['recommendation'] = recommend(figures)
    write_json(out / 'results.json', figures)
    with whole(out / 'report.html') as aside:
        aside.write_text(
            report.page(figures, report.pictures(
                bag, engine, plan, figures, evaluation.shown())), encoding='utf-8')
    return figures


def write_json(path: Path, values: Any) -> None:
    """Write a file that is there whole or not at all."""
    with whole(path) as aside:
        aside.write_text(
            json.dumps(plain(values), indent=1, allow_nan=False) + '\n', encoding='utf-8')


def damaged(figures: dict[str, Any]) -> bool:
    """Return whether some of the recording could not be used, or live answers differed."""
    return bool(
        figures['skipped'] or figures['problems'] or figures.get('live', {}).get('different'))


def complain(figures: dict[str, Any]) -> None:
    """Say on standard error what of a recording was not used, or is odd."""
    for cause, number in figures['skipped'].items():
        example = figures['skipped_examples'][cause][0]
        print(
            f'adamtl bag: {figures["bag"]}: {number} messages skipped ({cause}); the first is '
            f'{example["frame"]}: {example["reason"]}', file=sys.stderr)
    for problem in (*figures['problems'], *figures['notes']):
        print(f'adamtl bag: {figures["bag"]}: {problem}', file=sys.stderr)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Many recordings: over the cores of this machine, or the machines of a Dask cluster.

Dask, because its scheduler is plain Python that pip and conda install everywhere, and a cluster
is one command a machine (dask scheduler, dask worker ADDRESS).
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
import hashlib
import json
import logging
from pathlib import Path
import shutil
import sys
import tempfile
from threading import Lock
from typing import Any

from rich.console import Console
from rich.progress import track

from adamtl_ros.bag import report
from adamtl_ros.bag.compare import agreement_of
from adamtl_ros.bag.compare import is_faster
from adamtl_ros.bag.one import complain
from adamtl_ros.bag.one import damaged
from adamtl_ros.bag.one import evaluate_bag
from adamtl_ros.bag.one import Options
from adamtl_ros.bag.one import write_json
from adamtl_ros.files import unique_names
from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.paths import version
from adamtl_ros.processes import processors
from adamtl_ros.runtime import int8
from adamtl_ros.runtime.engine import Engine

FILES = ('results.json', 'report.html', 'frames.csv')

FORMAT = 2
"""Of results.json: what was written in another one is done again."""

_BUSY = Lock()
"""A Dask worker may have several threads; on one engine they would wait, and call it latency."""

_NEEDED = "several recordings at the same time need Dask: pip install '.[cluster]', or --jobs 1"


def fingerprint(bag: Path, options: Options, model: str) -> str:
    """
    Return what tells a finished result from one of other options, files or weights.

    options: as this recording gets them.  model: see `model_state`.
    """
    labels = [] if options.labels is None else _state(options.labels, '**/*')
    # How many threads there are changes no result.
    return json.dumps([FORMAT, _state(bag), labels, model, str(replace(options, threads=0))])


def _state(path: Path, pattern: str = '*') -> list[tuple[str, int, int]]:
    """Return names, sizes and times of the file at a path, or of those in the folder there."""
    try:
        files = sorted(file for file in path.glob(pattern) if file.is_file()) if (
            path.is_dir()) else [path]
        return [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns)
                for file in files]
    except OSError as error:  # evaluating it says so
        return [(str(error), 0, 0)]


def model_state(options: Options) -> str:
    """
    Return what tells the model from another of the same name: its files, and who runs them.

    FileNotFoundError where there is no such model.
    """
    files = [checkpoint.find(options.model)]
    if options.precision == 'int8':
        files.append(int8.path_of(options.model))
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes() if file.is_file() else b'').digest())
    return f'{version()} {digest.hexdigest()}'


@lru_cache(maxsize=1)
def _engine(
        model: str, backend: str, device: str, threads: int, precision: str, state: str) -> Engine:
    # state: a worker outlives the weights that it has read.
    return Engine(
        model, backend=backend, device=device, num_threads=threads, precision=precision)


def work(bag: Path, options: Options) -> dict[str, bytes] | str:
    """Evaluate one recording; return its files, or why there are none."""
    try:
        with _BUSY, tempfile.TemporaryDirectory(prefix='adamtl_bag_') as folder:
            engine = _engine(
                options.model, options.backend, options.device, options.threads,
                options.precision, model_state(options))
            figures = evaluate_bag(bag, options, Path(folder), engine)
            if figures['interrupted']:
                # It is no result of this recording, and is done from the start the next time.
                if options.record is not None:
                    shutil.rmtree(options.record, ignore_errors=True)
                raise KeyboardInterrupt
            return {name: Path(folder, name).read_bytes() for name in FILES}
    except (ValueError, OSError) as error:
        return ' '.join(str(error).split())
    except Exception as error:  # whatever is wrong with this one, the others go on
        return f'{bag}: {type(error).__name__}: {" ".join(str(error).split())}'


def _results(
        bags: Sequence[Path], options: Sequence[Options], jobs: int,
        scheduler: str | None, asked: bool) -> Iterator[tuple[Path, dict[str, bytes] | str]]:
    """Yield each recording with its files as they come."""
    if jobs > 1 or scheduler:
        try:
            from distributed import as_completed
            from distributed import Client
        except ImportError:
            if asked:
                raise ValueError(_NEEDED) from None
            print(f'adamtl bag: one after the other; {_NEEDED}', file=sys.stderr)
        else:
            keywords: dict[str, Any] = {'address': scheduler} if scheduler else {
                'n_workers': jobs, 'threads_per_worker': 1, 'processes': True,
                # A worker that is killed for its memory would only be tried again.
                'memory_limit': None, 'dashboard_address': None,
                'silence_logs': logging.ERROR}
            # What it says at length is said below, in a line a recording.
            for name in ('distributed', 'distributed.client'):  # both have a level of their own
                logging.getLogger(name).setLevel(logging.CRITICAL)
            with Client(**keywords) as client:
                if not client.nthreads():
                    print(f'adamtl bag: {scheduler} has no workers; they may still come: '
                          f'dask worker {scheduler} --nthreads 1', file=sys.stderr)
                futures = {
                    client.submit(work, bag, each, pure=False): bag
                    for bag, each in zip(bags, options)}
                for future in as_completed(futures):
                    bag = futures[future]
                    try:
                        result = future.result()
                    except Exception as error:  # its workers died, or the scheduler did
                        result = f'{bag}: {type(error).__name__}: {" ".join(str(error).split())}'
                    yield bag, result
            return
    for bag, each in zip(bags, options):
        yield bag, work(bag, each)


def run(
        bags: Sequence[Path], options: Options, out: Path, wanted_jobs: int,
        scheduler: str | None, fresh: bool) -> int:
    """
    Evaluate what has no result yet, write the summary; return the exit code.

    wanted_jobs: recordings at the same time, 0 for one a core.  scheduler: address of a Dask
    cluster, None for this machine.  fresh: evaluate also what has a result.
    """
    names = dict(zip(bags, unique_names([
        bag if bag.is_file() else bag.with_name(bag.name + '.bag') for bag in bags])))
    # Workers have working directories of their own.
    model = options.model if options.model in PRESETS else str(Path(options.model).resolve())
    own = {}
    for bag in bags:
        labels, record = (path and (path / names[bag]).resolve() for path in (
            options.labels, options.record))
        own[bag] = replace(options, model=model, labels=labels, record=record)
    state = model_state(options)
    prints = {bag: fingerprint(bag, own[bag], state) for bag in bags}
    todo = []
    for bag in bags:
        try:
            if fresh or json.loads((out / names[bag] / 'results.json').read_text())[
                    'fingerprint'] != prints[bag]:
                todo.append(bag)
        except (OSError, ValueError, KeyError, TypeError):
            todo.append(bag)
    cores = len(processors())
    jobs = max(1, min(wanted_jobs or cores, len(todo)))
    threads = options.threads
    if not scheduler and jobs > 1:
        threads = threads or max(1, cores // jobs)
    each = [replace(own[bag], threads=threads) for bag in todo]
    errors: dict[Path, str] = {}
    console = Console(stderr=True)
    if len(todo) < len(bags):
        console.print(f'{len(bags) - len(todo)} of {len(bags)} recordings have their results')
    results = _results(
        todo, each, jobs, scheduler, bool(wanted_jobs or scheduler)
    ) if todo else iter(())
    for bag, result in track(results, 'recordings', total=len(todo), console=console):
        folder = out / names[bag]
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(result, str):
            errors[bag] = result
            continue
        figures = json.loads(result['results.json'])
        figures |= {
            'fingerprint': prints[bag], 'parallel': None if scheduler else jobs}
        for name in FILES[1:]:
            with whole(folder / name) as aside:
                aside.write_bytes(result[name])
        # Last: it says that the others are there.
        write_json(folder / 'results.json', figures)
    finished = {
        bag: json.loads((out / names[bag] / 'results.json').read_text())
        for bag in bags if bag not in errors}
    for bag, error in errors.items():
        print(f'adamtl bag: {error or bag}', file=sys.stderr)
    for figures in finished.values():
        complain(figures)
    if not finished:
        raise ValueError(f'none of the {len(bags)} recordings could be evaluated')
    figures = summarise(finished, errors, names, options.keep)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / 'results.json', figures)
    with whole(out / 'report.html') as aside:
        aside.write_text(report.summary(figures), encoding='utf-8')
    print(figures['recommendation']['text'])
    print(f'{out / "report.html"} and results.json')
    return int(bool(errors) or any(damaged(figures) for figures in finished.values()))


def summarise(
        finished: dict[Path, dict[str, Any]], errors: dict[Path, str], names: dict[Path, str],
        keep: float) -> dict[str, Any]:
    """Return the figures of all recordings together, each frame counting the same."""
    frames = sum(figures['frames'] for figures in finished.values())
    tasks = set.intersection(*(set(figures['tasks']) for figures in finished.values()))
    rows = []
    for place, row in enumerate(next(iter(finished.values()))['rows']):
        same = [(figures['frames'] / frames, figures['rows'][place])
                for figures in finished.values()]
        joules = [each['energy_j'] for _, each in same]
        lows = [each['time_saved_low'] for _, each in same]
        rows.append({
            'mode': row['mode'], 'budget': row['budget'],
            **{name: sum(share * each[name] for share, each in same)
               for name in (
                   'achieved', 'reused', 'warped', 'computed', 'memory_saved', 'empty', 'gmacs',
                   'mean_ms')},
            'agreement': {
                task: sum(share * each['agreement'][task] for share, each in same)
                for task in row['agreement'] if task in tasks},
            'least_agreement': min(agreement_of(each) for _, each in same),
            'time_saved_low': None if None in lows else sum(
                share * each['time_saved_low'] for share, each in same),
            'dropped': sum(each['dropped'] for _, each in same),
            'energy_j': None if None in joules else sum(
                share * each['energy_j'] for share, each in same)})
    return {
        'frames': frames, 'rows': rows, 'recommendation': recommend_over_all(rows, keep),
        'bags': [
            {'name': names[bag], 'bag': str(bag), 'report': f'{names[bag]}/report.html',
             'frames': finished[bag]['frames'], 'skipped': sum(finished[bag]['skipped'].values()),
             'problems': finished[bag]['problems'],
             'recommendation': finished[bag]['recommendation']}
            if bag in finished else
            {'name': names[bag], 'bag': str(bag), 'error': errors[bag]} for bag in names]}


def recommend_over_all(rows: Sequence[dict[str, Any]], keep: float) -> dict[str, Any]:
    """Return the budget to use for all recordings, and why, as `recommend` does for one."""
    static = rows[0]
    good = [row for row in rows if row['mode'] == 'adaptive' and agreement_of(row) >= keep
            and is_faster(row) and row['mean_ms'] < static['mean_ms']]
    best = min(good, key=lambda row: row['mean_ms'], default=None)
    if best is None:
        return {'mode': 'static', 'budget': None, 'text': (
            f'Stay with the dense network: over all recordings no budget is faster beyond doubt '
            f'and keeps {keep:.0%} agreement with it.')}
    return {'mode': 'adaptive', 'budget': best['budget'], 'text': (
        f'Use mode adaptive with budget {best["budget"]:g}: over all recordings it keeps '
        f'{agreement_of(best):.1%} agreement with the dense network '
        f'({best["least_agreement"]:.1%} in the worst) and takes '
        f'{1 - best["mean_ms"] / static["mean_ms"]:.0%} less time.')}

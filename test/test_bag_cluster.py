# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag --scheduler`: machines of their own, that share a folder and may go away."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from rosbags.highlevel import AnyReader

from adamtl_ros.bag import many
from adamtl_ros.bag.many import FILES
from adamtl_ros.bag.many import work
from adamtl_ros.bag.one import Options
from adamtl_ros.bag.output import typestore
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.commands.bag import main
from adamtl_ros.files import ASIDE
from adamtl_ros.network import checkpoint
from adamtl_ros.processes import _CHILD
from networks import random_network
from processes import until

FRAMES = {'a': 20, 'b': 12, 'c': 14}
ASKED = ['--budgets', '0.5', '--modes', 'adaptive', '--tasks', 'depth', '--threads', '1']
LIMIT = 200.0

OF_TIME = {'energy_j', 'time_saved_low', 'dropped', 'recommendation'}
"""What of a summary depends on how fast the machine was, beside all that ends in _ms."""


@dataclass
class Cluster:
    """A scheduler and its workers, each in a process that has only `shared` with the others."""

    folder: Path
    shared: Path
    scheduler: subprocess.Popen[bytes] = field(init=False)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ''

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Run a module in a working folder, home, cache and folder for files of its own."""
        home = self.folder / name
        home.mkdir()
        own = dict.fromkeys(('HOME', 'TMPDIR', 'XDG_CACHE_HOME', 'ADAMTL_CACHE'), str(home))
        with (home / 'log').open('wb') as log:
            return subprocess.Popen(
                # Ends with this process, however that ends.
                [sys.executable, '-c', _CHILD, str(os.getpid()), *command], cwd=home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **own, 'PYTHONSAFEPATH': '1'})

    def log(self, name: str) -> str:
        """Return what a process has said."""
        return (self.folder / name / 'log').read_text()

    def writing(self) -> subprocess.Popen[bytes] | None:
        """Return a worker that has begun to record and is not done."""
        for worker in self.workers:
            for link in Path(f'/proc/{worker.pid}/fd').iterdir():
                try:
                    if str(self.shared / 'records' / ASIDE) in os.readlink(link):
                        return worker
                except OSError:  # closed meanwhile
                    continue
        return None


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Start `dask scheduler` and `dask worker`, as one does by hand."""
    machines = Cluster(folder, folder / 'shared')
    machines.shared.mkdir()
    place = machines.shared / 'scheduler.json'
    machines.scheduler = machines.start(
        'scheduler', 'dask', 'scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard',
        '--scheduler-file', str(place))
    try:
        until(lambda: place.exists() and place.read_text())
        machines.address = json.loads(place.read_text())['address']
        for number in range(workers):
            # Without a nanny: what is killed is gone.  One of them takes two tasks at a time.
            machines.workers.append(machines.start(
                f'worker{number}', 'dask', 'worker', '--scheduler-file', str(place), '--host',
                '127.0.0.1', '--no-nanny', '--no-dashboard', '--nthreads',
                '1' if number else '2'))
        yield machines
    finally:
        for process in (*machines.workers, machines.scheduler):
            process.kill()
            process.wait()


def lasting(value: Any) -> Any:
    """Return figures without those that are times."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items()
                if key not in OF_TIME and not key.endswith('_ms')}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def recorded(path: Path) -> list[Any]:
    """Return the messages of a bag of results, but for the latencies."""
    with AnyReader([path], default_typestore=typestore()) as reader:
        return [(connection.topic, stamp, data) for connection, stamp, data in reader.messages()
                if not connection.topic.endswith('gating_stats')]


@pytest.mark.slow
def test_machine_that_goes_away_changes_no_result(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a recording: another does it, and the summary is the same."""
    with cluster(tmp_path, workers=2) as machines:
        bags = machines.shared / 'bags'
        for number, (name, frames) in enumerate(FRAMES.items()):
            write_sample(bags / name, frames=frames, storage=('mcap', 'sqlite3')[number % 2])
        (bags / 'broken').mkdir()
        (bags / 'broken' / 'x.mcap').write_text('nothing')
        # By relative paths, which mean something to this process alone.
        monkeypatch.chdir(machines.shared)
        checkpoint.save(Path('model.safetensors'), random_network('lite'))
        asked = ['bags', *ASKED, '--model', 'model.safetensors']
        with ThreadPoolExecutor() as pool:
            done = pool.submit(main, [
                *asked, '--scheduler', machines.address, '--out', 'many', '--record', 'records'])
            victim = until(machines.writing)
            victim.send_signal(signal.SIGKILL)
            assert victim.wait(10) == -signal.SIGKILL
            assert done.result(LIMIT) == 1  # for the one that is broken
        left = [path.name for path in (machines.shared / 'records').iterdir()
                if path.name.startswith(ASIDE)]
        assert len(left) == 1, 'it was not killed in the middle'

        assert main([*asked, '--jobs', '1', '--out', 'one', '--record', 'of_one']) == 1
        found, expected = (json.loads(Path(out, 'results.json').read_text()) for out in (
            'many', 'one'))
        assert lasting(found) == lasting(expected)
        assert {bag['name']: bag.get('frames') for bag in found['bags']} == {
            **FRAMES, 'broken': None}
        for name in FRAMES:
            assert recorded(Path('records', name)) == recorded(Path('of_one', name))
            assert all(Path('many', name, file).is_file() for file in FILES)


@pytest.mark.slow
def test_scheduler_that_ends_leaves_a_line_a_recording(tmp_path: Path) -> None:
    """And one that has no workers yet says how they come."""
    with cluster(tmp_path, workers=0) as machines:
        bags = [machines.shared / name for name in ('a', 'b')]
        for bag in bags:
            write_sample(bag, frames=2)
        client = machines.start(
            'client', 'adamtl_ros.cli', 'bag', *map(str, bags), *ASKED, '--scheduler',
            machines.address, '--out', 'out')
        until(lambda: f'dask worker {machines.address}' in machines.log('client'))
        machines.scheduler.kill()
        assert client.wait(LIMIT) == 2
    said = machines.log('client')
    assert all(f'adamtl bag: {bag}: ' in said for bag in bags)
    assert 'none of the 2 recordings' in said
    assert 'Traceback' not in said


def test_engine_of_a_worker_is_used_by_one_thread_at_a_time(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Dask worker has as many threads as there are cores, if not told otherwise."""
    inside: list[Path] = []

    def evaluate(bag: Path, options: Options, out: Path, engine: Any) -> dict[str, bool]:
        inside.append(bag)
        time.sleep(0.02)
        assert inside == [bag]
        inside.remove(bag)
        for name in FILES:
            (out / name).write_text(str(bag))
        return {'interrupted': False}

    monkeypatch.setattr(many, 'evaluate_bag', evaluate)
    monkeypatch.setattr(many, '_engine', lambda *_: None)
    bags = [tmp_path / str(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, bags, [Options((0.5,), 0.5, ('adaptive',))] * 4))
    assert results == [dict.fromkeys(FILES, str(bag).encode()) for bag in bags]

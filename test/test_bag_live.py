# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag --live`: a recording played into a real node, and both ways compared."""

from collections.abc import Iterator
from contextlib import contextmanager
import json
from pathlib import Path
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from adamtl_ros.bag.sample import write_sample  # noqa: E402

pytestmark = pytest.mark.slow

LIMIT = 180.0


@contextmanager
def node(cwd: Path, *parameters: str, namespace: str = '/') -> Iterator[None]:
    """Run the node with parameters."""
    arguments = [part for each in parameters for part in ('-p', each)]
    arguments += ['-r', f'__ns:={namespace}']
    log = (cwd / 'node.log').open('wb')
    process = subprocess.Popen(
        [sys.executable, '-m', 'adamtl_ros.nodes.node', '--ros-args', *arguments], cwd=cwd,
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30.0)
        finally:
            process.kill()
            log.close()


def bag(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, '-m', 'adamtl_ros.cli', 'bag', *arguments], cwd=cwd, text=True,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)


@pytest.mark.parametrize('compressed', [False, True])
def test_live_follows_the_node_that_follows_the_transport(
        compressed: bool, tmp_path: Path) -> None:
    """A node that takes what is published is played into, whatever it listens to at first."""
    write_sample(tmp_path / 'bag', frames=6, compressed=compressed)
    with node(tmp_path, 'mode:=adaptive', 'budget:=0.6'):
        done = bag(tmp_path, 'bag', '--live', '--rate', '0.2', '--budgets', '0.6', '--modes',
                   'adaptive', '--out', 'out')
    assert done.returncode == 0, done.stderr + (tmp_path / 'node.log').read_text()
    live = json.loads((tmp_path / 'out' / 'results.json').read_text())['live']
    assert live['played'] == 6
    assert live['identical'] >= 2, live
    assert live['different'] == 0, live


@pytest.mark.parametrize('compressed', [False, True])
def test_live_and_offline_agree_bit_for_bit(compressed: bool, tmp_path: Path) -> None:
    """Of the frames that both processed; pictures of the other kind are refused."""
    write_sample(tmp_path / 'bag', frames=12, compressed=compressed)
    write_sample(tmp_path / 'other', frames=2, compressed=not compressed)
    transport = 'compressed' if compressed else 'raw'
    with node(tmp_path, 'mode:=adaptive', 'budget:=0.6', f'image_transport:={transport}',
              'tasks.edges.weight:=2.0'):
        done = bag(tmp_path, 'bag', '--live', '--rate', '0.5', '--budgets', '0.6', '--modes',
                   'adaptive', '--max-frames', '8', '--out', 'out')
        other = bag(tmp_path, 'other', '--live', '--out', 'other_out')
    assert other.returncode == 2
    assert f'image_transport:={"raw" if compressed else "compressed"}' in other.stderr
    assert 'Traceback' not in other.stderr
    assert done.returncode == 0, done.stderr + (tmp_path / 'node.log').read_text()
    live = json.loads((tmp_path / 'out' / 'results.json').read_text())['live']
    assert live['played'] == 8
    assert live['played'] == live['answered'] + live['dropped']
    assert live['identical'] >= 2, live
    assert live['different'] == 0, live
    assert live['rate'] == 0.5
    assert live['latency_ms']['p50'] > 0
    assert 'bit for bit' in (tmp_path / 'out' / 'report.html').read_text()


def test_live_with_a_node_in_a_namespace(tmp_path: Path) -> None:
    """Named with its namespace it is found; without, no other node is taken for it."""
    write_sample(tmp_path / 'bag', frames=6)
    arguments = ['bag', '--live', '--rate', '0.2', '--tasks', 'depth', '--budgets', '0.6',
                 '--modes', 'adaptive', '--out', 'out']
    with node(tmp_path, 'mode:=adaptive', 'budget:=0.6', namespace='/left'):
        done = bag(tmp_path, *arguments, '--node', 'left/adamtl')
        other = bag(tmp_path, *arguments)
        others = bag(tmp_path, *arguments, '--node', 'left/adamtl', '--backend', 'torch')
    assert done.returncode == 0, done.stderr + (tmp_path / 'node.log').read_text()
    live = json.loads((tmp_path / 'out' / 'results.json').read_text())['live']
    assert live['played'] == 6
    assert live['identical'] >= 2, live
    assert live['different'] == 0, live
    assert others.returncode == 2
    assert 'runs backend auto: give --backend auto' in others.stderr
    assert json.loads((tmp_path / 'out' / 'results.json').read_text())['lens'] == 'given'
    assert other.returncode == 2
    assert 'no active node /adamtl listens to images' in other.stderr

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag --live`: a recording played into a real node, and both ways compared."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import ExitStack
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

rclpy = pytest.importorskip('rclpy')

from adamtl_ros import cli  # noqa: E402
from adamtl_ros import dds  # noqa: E402
from adamtl_ros.bag.sample import write_sample  # noqa: E402
from adamtl_ros.nodes import live  # noqa: E402
from adamtl_ros.nodes.recorder import Recorder  # noqa: E402

pytestmark = pytest.mark.slow


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


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the command and its node be in a folder of the test, with the shared memory of both."""
    monkeypatch.chdir(tmp_path)
    with dds.domain(int(os.environ['ROS_DOMAIN_ID'])):
        yield


def bag(*arguments: str) -> int:
    """Run the command; return its exit code."""
    return cli.main(['bag', *arguments])


def results(played: int) -> dict[str, Any]:
    """Return the results of a recording of which some frames were answered, all alike."""
    found = json.loads(Path('out', 'results.json').read_text())
    assert found['live']['played'] == played
    assert found['live']['identical'] >= 2, found['live']
    assert found['live']['different'] == 0, found['live']
    return found


def test_live_follows_the_node_that_follows_the_transport(
        tmp_path: Path, weights: str) -> None:
    """A node that takes what is published is played into, whatever it listens to at first."""
    with node(tmp_path, f'model:={weights}', 'mode:=adaptive', 'budget:=0.6'):
        for name, compressed in (('packed', True), ('raw', False)):
            write_sample(tmp_path / name, frames=6, compressed=compressed)
            code = bag(name, '--model', weights, '--live', '--rate', '0.2', '--budgets', '0.6',
                       '--modes', 'adaptive', '--out', 'out')
            assert code == 0, (tmp_path / 'node.log').read_text()
            results(6)


@pytest.mark.parametrize('compressed, namespace', [(False, '/left'), (True, '/')])
def test_live_and_offline_agree_bit_for_bit(
        compressed: bool, namespace: str, tmp_path: Path, weights: str,
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of the frames that both processed; pictures of the other kind are refused.

    In a namespace a node is found by its full name; no other is taken for it.
    """
    write_sample(tmp_path / 'bag', frames=12, compressed=compressed)
    write_sample(tmp_path / 'other', frames=2, compressed=not compressed)
    transport = 'compressed' if compressed else 'raw'
    named = ['--model', weights, '--live', '--node', f'{namespace}/adamtl'.lstrip('/')]
    with node(tmp_path, f'model:={weights}', 'mode:=adaptive', 'budget:=0.6',
              f'image_transport:={transport}', 'tasks.edges.weight:=2.0', namespace=namespace):
        code = bag('bag', *named, '--rate', '0.5', '--budgets', '0.6', '--modes', 'adaptive',
                   '--max-frames', '8', '--out', 'out')
        assert code == 0, (tmp_path / 'node.log').read_text()
        capsys.readouterr()
        for said, *asked in (
                (f'image_transport:={"raw" if compressed else "compressed"}', 'other'),
                ('runs backend auto: give --backend auto', 'bag', '--backend', 'torch')):
            assert bag(*named, *asked, '--out', 'refused') == 2
            assert said in capsys.readouterr().err
        if namespace != '/':
            monkeypatch.setattr(live, 'DISCOVERY', 2.0)
            assert bag('bag', '--live', '--out', 'refused') == 2
            assert 'no active node /adamtl listens to images' in capsys.readouterr().err
    found = results(8)
    assert found['live']['played'] == found['live']['answered'] + found['live']['dropped']
    assert found['live']['rate'] == 0.5
    assert found['live']['latency_ms']['p50'] > 0
    assert found['lens'] == 'given'
    assert 'bit for bit' in (tmp_path / 'out' / 'report.html').read_text()


def test_two_nodes_of_the_name_are_told(
        tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them one asks is chance."""
    write_sample(tmp_path / 'bag', frames=2)
    spin = Recorder.spin_until

    def once_known(recorder: Recorder, done: Callable[[], bool], limit: float) -> bool:
        assert spin(recorder, lambda: recorder.get_node_names().count('adamtl') == 2, 60.0)
        return spin(recorder, done, limit)

    # However long it takes to find them.
    monkeypatch.setattr(Recorder, 'spin_until', once_known)
    monkeypatch.setattr(live, 'DISCOVERY', 0.1)
    with ExitStack() as stack:
        for _ in range(2):
            context = rclpy.Context()
            context.init()
            stack.callback(context.shutdown)
            stack.callback(rclpy.create_node('adamtl', context=context).destroy_node)
        assert bag('bag', '--live', '--out', 'out') == 2
    assert '2 nodes of this ROS domain are named /adamtl' in capsys.readouterr().err

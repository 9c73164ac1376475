# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The soak run: its fit, its random changes, and a short one over ROS."""

from collections import Counter
import json
import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from adamtl_ros.cli import main  # noqa: E402
from adamtl_ros.commands import soak  # noqa: E402
from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.nodes import parameters  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from processes import children  # noqa: E402


def test_slope_of_a_noisy_line():
    times = np.arange(0, 1800)
    noise = np.random.default_rng(0).normal(0, 2.0, len(times))
    fit = soak.slope(times, 400 + 5 * times / 3600 + noise)
    assert fit['residual'] == pytest.approx(2.0, rel=0.1)
    assert fit['per_hour'] == pytest.approx(5.0, abs=3 * fit['standard_error'])
    # Of a line over an even hour fraction T with n points: residual * sqrt(12 / n) / T.
    assert fit['standard_error'] == pytest.approx(2.0 * (12 / 1800) ** 0.5 / 0.5, rel=0.1)
    assert soak.slope([1.0, 2.0], [1.0, 2.0]) is None
    assert soak.slope([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_random_changes_are_valid_and_reach_every_live_parameter():
    generator = random.Random(0)
    values = {name: spec.default for name, spec in parameters.PARAMETERS.items()}
    reached = set()
    for _ in range(1000):
        changed = parameters.checked(soak.random_change(generator))
        values |= {each.name: each.value for each in changed}
        reached |= {each.name for each in changed}
        parameters.Options.from_values(values, TASKS)
    assert reached == {name for name, spec in parameters.PARAMETERS.items()
                       if not (spec.fixed or spec.loaded)}


@pytest.mark.slow
def test_a_short_run_accounts_for_every_frame(tmp_path):
    report = tmp_path / 'report.json'
    assert main(['soak', '--minutes', '0.05', '--rate', '10', '--changes', '12', '--size',
                 '320x240', '--threads', '1', '--json', str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures['frames']['sent'] == 30
    assert figures['frames']['unexplained'] == 0
    assert figures['frames']['processed'] > 0
    assert figures['changes']['accepted'] > 0
    assert figures['changes']['refused'] == 0
    assert figures['memory_mb']['peak'] > 0
    assert figures['problems'] == []


@pytest.mark.parametrize(('told', 'missed', 'unexplained'), [(2, 2, 1), (None, 3, 0)])
def test_what_the_node_cannot_know_is_counted_here(told, missed, unexplained):
    """Ten were sent, four answered and three dropped; the node knows of two that never came."""
    run = SimpleNamespace(
        options=soak.parse([]), last=GatingStats(frames_received=6, frames_processed=4,
                                            frames_dropped=2),
        missed=told, drops={'replaced': 3}, rows=[], memory=[], begin=0.0, beyond=[], beside=[],
        answers=Counter(), accepted=0, refused=[], levels=Counter())
    run.answers.update(dict.fromkeys(run.options.tasks, 4))
    figures = soak.Soak._report(run, 10, True, 0)
    assert (figures['frames']['missed'], figures['frames']['unexplained']) == (missed, unexplained)
    assert len(figures['problems']) == bool(unexplained)


@pytest.mark.parametrize(('arguments', 'word'), [
    (['--minutes', '0'], 'minutes'), (['--rate', '-1'], 'rate'), (['--size', '640'], '640x480'),
    (['--budget', '0'], 'budget'), (['--tasks', 'pose'], 'pose'), (['--changes', '-1'], 'changes'),
    (['--mode', 'fast'], 'fast')])
def test_bad_arguments(arguments, word, capsys):
    try:
        code = main(['soak', *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert word in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('while_it_starts', [True, False])
def test_one_that_is_interrupted_ends_with_130(ros, ended, tmp_path, while_it_starts):
    report = tmp_path / 'report.json'
    answers = []
    ros.client.create_subscription(GatingStats, '/adamtl/gating_stats', answers.append, 10)
    process = subprocess.Popen(
        [sys.executable, '-m', 'adamtl_ros.cli', 'soak', '--minutes', '5', '--rate', '5',
         '--size', '64x48', '--threads', '1', '--domain', os.environ['ROS_DOMAIN_ID'],
         '--json', str(report)],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ended.append(process)
    # The node comes first.
    ros.until(lambda: children(process.pid) if while_it_starts else answers, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert 'Traceback' not in errors
    if not while_it_starts:
        assert 0 < json.loads(report.read_text())['frames']['sent'] < 1500

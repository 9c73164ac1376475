# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The terminal view: what it shows of what it heard."""

from io import StringIO
import math

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rich.console import Console  # noqa: E402

from adamtl_ros.cli import main  # noqa: E402
from adamtl_ros.commands import top  # noqa: E402
from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.msg import TaskStats  # noqa: E402
from adamtl_ros.nodes.diagnostics import UNKNOWN  # noqa: E402

STATS = GatingStats(
    mode='adaptive', budget_requested=0.6, budget_achieved=0.5, gmacs=0.7, gmacs_dense=1.4,
    latency_ms=30.0, task_stats=[TaskStats(name='semseg', token_fraction=0.5), TaskStats(
        name='depth', token_fraction=0.25)],
    block_active=[True, False, True], token_fraction=[1.0, 0.0, 0.5], frames_received=12,
    frames_processed=10, frames_dropped=2, frames_missed=3)
VALUES = {'input rate (Hz)': '15', 'dropped: replaced': '2', 'device': 'cpu', 'model': 'glasses',
          'backend': 'torch', 'memory (MB)': '480', 'agreement: depth': '0.91',
          'guard': 'budget raised to 0.6: depth', 'last error': ''}


def shown(watched: top.Watched, now: float) -> str:
    """Return the picture as text."""
    console = Console(width=120, record=True, file=StringIO())
    console.print(top.picture('left/adamtl', watched, now))
    return console.export_text()


def test_all_that_is_known_is_shown():
    watched = top.Watched(level=1, message='guard', values=VALUES)
    for number in range(50):
        watched.add(STATS, 100.0 + number / 10)
    text = shown(watched, 105.0)
    for part in ('/left/adamtl', 'WARN', 'in 15 Hz', 'out 10.0 Hz', 'median 30.0 ms', 'adaptive',
                 '0.60 asked, 0.50 achieved', '12 received = 10 processed + 2 dropped',
                 '3 never came', '2 replaced', 'glasses on cpu with torch, 480 MB', '0.25', '0.91',
                 'budget raised', '█·▅'):
        assert part in text, part


def test_what_nobody_can_tell_is_not_shown_as_a_number():
    watched = top.Watched(values={**VALUES, 'frames missed': UNKNOWN})
    watched.add(STATS, 100.0)
    text = shown(watched, 101.0)
    assert '12 received = 10 processed + 2 dropped' in text
    assert 'never came' not in text


def test_what_is_long_ago_counts_no_more():
    watched = top.Watched()
    watched.add(STATS, 100.0)
    watched.heard = 100.0 + top.WINDOW  # by its diagnostics
    text = shown(watched, 100.0 + top.WINDOW + 1)
    assert 'out 0.0 Hz' in text
    assert 'median' not in text


def test_a_node_that_is_gone_is_shown_as_gone():
    watched = top.Watched(level=0, message='15.0 frames/s', values=VALUES)
    watched.add(STATS, 100.0)
    assert ' OK ' in shown(watched, 100.0 + top.GONE)
    text = shown(watched, 107.0)
    assert 'GONE' in text
    assert 'not a word for 7 s; the last was: 15.0 frames/s' in text
    assert 'OK' not in text
    assert 'in 15 Hz' not in text
    watched.add(STATS, 108.0)
    assert ' OK ' in shown(watched, 108.0)


def test_frames_without_a_policy_have_no_gates():
    watched = top.Watched()
    unknown = GatingStats(
        mode='shadow', task_stats=[TaskStats(name='depth', token_fraction=math.nan)],
        budget_requested=0.6, budget_achieved=math.nan)
    watched.add(unknown, 1.0)
    assert 'depth' in shown(watched, 1.5)
    assert '0.60 asked' in shown(watched, 1.5) and 'achieved' not in shown(watched, 1.5)
    # What is known stands, however long ago the last compared frame was.
    watched.add(STATS, 2.0)
    watched.add(unknown, 3.0 + top.WINDOW)
    assert '0.60 asked, 0.50 achieved' in shown(watched, 3.0 + top.WINDOW)


@pytest.mark.parametrize(('share', 'text'), [
    (0.0, '····'), (0.5, '██··'), (1.0, '████'), (1.2, '████'), (float('nan'), '')])
def test_bars(share, text):
    assert top.bar(share, 4) == text


def test_nodes_are_found_and_one_can_be_chosen(ros):
    publishers = {name: ros.client.create_publisher(GatingStats, f'/{name}/gating_stats', 10)
                  for name in ('left/adamtl', 'right/adamtl')}
    every, one = ros.add(top.Top()), ros.add(top.Top('/right/adamtl'))

    def found():
        for publisher in publishers.values():
            publisher.publish(STATS)
        return len(every.watched) == 2 and one.watched

    ros.until(found)
    assert set(every.watched) == set(publishers)
    assert set(one.watched) == {'right/adamtl'}


@pytest.mark.parametrize(('arguments', 'word'), [
    (['--once', '0'], '--once'), (['--healthy'], '--once'),
    (['--svg', 'x.svg'], '--once'), (['--once', 'soon'], 'soon')])
def test_bad_arguments(arguments, word, capsys):
    with pytest.raises(SystemExit) as end:
        main(['top', *arguments])
    assert end.value.code == 2
    assert word in capsys.readouterr().err


def test_a_node_that_nobody_listens_to_is_explained():
    watched = top.Watched()
    watched.add(GatingStats(mode='adaptive', budget_achieved=0.0), 1.0)
    assert 'nobody subscribes' in shown(watched, 1.5)


@pytest.mark.parametrize(('value', 'words'), [
    ('0.4', '40.0% of the MACs'), ('-0.0085', 'nothing: the policy itself costs 0.9%')])
def test_what_would_be_saved_is_said_in_words(value, words):
    watched = top.Watched(values={'share of MACs that the policy would have saved': value})
    assert words in shown(watched, 1.0)


def test_a_look_at_nothing_says_why(capsys):
    assert main(['top', '--once', '0.5', '/left/adamtl']) == 1
    said = capsys.readouterr().err
    assert 'the node /left/adamtl said nothing within 0.5 s' in said
    assert 'ROS_DOMAIN_ID' in said


@pytest.mark.parametrize(('level', 'code', 'healthy'), [
    (DiagnosticStatus.OK, 0, 0), (DiagnosticStatus.STALE, 0, 0), (DiagnosticStatus.ERROR, 0, 1)])
def test_exit_code_tells_health(level, code, healthy, monkeypatch):
    """As the container asks for it, from diagnostics that come while it listens."""
    message = DiagnosticArray(status=[DiagnosticStatus(name='adamtl: inference', level=level)])
    spin = SingleThreadedExecutor.spin_once

    def hear(executor, timeout):
        for node in executor.get_nodes():
            node._diagnose(message)
        spin(executor, timeout)

    monkeypatch.setattr(SingleThreadedExecutor, 'spin_once', hear)
    assert main(['top', '--once', '0.2']) == code
    assert main(['top', '--once', '0.2', '--healthy']) == healthy
    assert main(['top', 'other', '--once', '0.2', '--healthy']) == 1

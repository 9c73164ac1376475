# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demo, its player and its recorder, over real ROS 2 topics and in real processes."""

import csv
import itertools
import json
import math
from pathlib import Path
import signal
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from adamtl_ros import cli  # noqa: E402
from adamtl_ros.bag.sample import write_sample  # noqa: E402
from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.msg import TaskStats  # noqa: E402
from adamtl_ros.nodes import playback  # noqa: E402
from adamtl_ros.nodes import player  # noqa: E402
from adamtl_ros.nodes import trial  # noqa: E402
from adamtl_ros.nodes.messages import image_from_array  # noqa: E402
from adamtl_ros.nodes.playback import Player  # noqa: E402
from adamtl_ros.nodes.recorder import image_array  # noqa: E402
from adamtl_ros.nodes.recorder import Recorder  # noqa: E402
from adamtl_ros.nodes.recorder import scalar_fields  # noqa: E402
from adamtl_ros.sources import DEMO  # noqa: E402
from adamtl_ros.sources import open_source  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from processes import blocks  # noqa: E402
from processes import children  # noqa: E402
from processes import until  # noqa: E402

LIMIT = 120.0


def start(*command: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a module of the package as a process."""
    return subprocess.Popen(
        [sys.executable, '-m', *command], cwd=cwd, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return code and output of a process; it is killed where it does not end."""
    try:
        output, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return process.returncode, output + errors


# End to end


@pytest.mark.slow
def test_demo_accounts_for_every_frame(ros: Any, tmp_path: Path) -> None:
    """
    All four results, of a camera at its rate, with three budgets in one running node.

    It walks, and then stands still: what it sees then is answered without being computed.
    """
    out = tmp_path / 'out'
    heard: list[Any] = []
    for kind, topic in ((Image, 'image'), (GatingStats, 'adamtl/gating_stats')):
        ros.client.create_subscription(kind, topic, heard.append, 50)
    code, written = finish(start(
        'adamtl_ros.cli', 'demo', '--frames', '110', '--rate', '20', '--out', str(out),
        cwd=tmp_path))
    assert code == 0, written
    # What comes now comes after all that they might have sent into this domain.
    ros.met(ros.client.create_publisher(Image, 'image', 10)).publish(Image(encoding='last'))
    ros.until(lambda: heard)
    assert [each.encoding for each in heard] == ['last'], 'met in the domain of ROS_DOMAIN_ID'
    summary = json.loads((out / 'summary.json').read_text())
    frames = summary['frames']
    assert frames['played'] == frames['received'] + frames['missed'] == 110
    assert frames['received'] == frames['processed'] + frames['dropped']
    assert frames['answered'] == frames['processed'] > 0
    moving, still = summary['parts']
    assert (moving['name'], still['name']) == ('moving', 'still')
    assert moving['frames'] + still['frames'] == frames['answered']
    assert moving['frames'] <= 90
    assert 0 < still['reused'] == summary['played']['reused']
    assert still['mean_cost'] < moving['mean_cost'] / 2
    assert 'still part' in written
    assert summary['violations'] == []
    assert all(summary['checks'].values())
    assert not summary['interrupted']
    assert {'semseg', 'human_parts', 'saliency', 'normals', 'edges', 'depth', 'gating_stats',
            'gating_map', 'overlay', 'camera_info'} == set(summary['topics'])
    assert set(summary['topics'].values()) == {frames['answered']}
    assert [row['requested'] for row in summary['budgets']] == [1.0, 0.6, 0.4]
    achieved = [row['achieved'] for row in summary['budgets']]
    assert achieved == sorted(achieved, reverse=True)
    assert summary['latency_ms']['p50'] > 0
    assert summary['node_memory_peak_mb'] > 50

    with (out / 'stats.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['stamp', 'frame_id', *scalar_fields()]
    assert len(rows) >= frames['processed'] + sum(
        row['frames'] for row in summary['budgets'] if row['requested'] != 0.6)
    assert {row['frame_id'] for row in rows} == {'camera_optical_frame'}
    assert {row['mode'] for row in rows} == {'adaptive'}

    video = cv2.VideoCapture(str(out / 'overlay.mp4'))
    there, picture = video.read()
    assert there
    assert picture.shape == (192, 256, 3)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)
    sheet = cv2.imread(str(out / 'sheet.png'))
    assert sheet.shape[1] == 256 * 8
    assert sheet.shape[0] > 9 * 192


@pytest.mark.slow
def test_demos_beside_each_other_end_in_their_own_ways(
        tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    """
    Each in a domain of its own: one with its source, one at SIGINT while it plays, one killed.

    Of a short recording the last frame is neither lost nor missing, though nothing comes after it.
    At SIGINT results are written.  Killed or not, no process stays.
    """
    write_sample(tmp_path / 'bag', frames=2)
    short = start('adamtl_ros.cli', 'demo', '--source', 'bag', '--rate', '20', '--out', 'short',
                  cwd=tmp_path)
    outs = [tmp_path / name / 'out' for name in ('interrupted', 'killed')]
    processes = []
    for out in outs:
        out.parent.mkdir()
        processes.append(start(
            'adamtl_ros.cli', 'demo', '--rate', '3', '--out', str(out), cwd=out.parent))
    interrupted, killed = processes
    ended.extend((short, interrupted))
    started = []
    for process, out in zip(processes, outs):
        # The video begins with the first frame that the player plays.
        until((out / 'overlay.mp4').exists, process)
        started.append(children(process.pid))
        assert len(started[-1]) == 2
    killed.kill()
    interrupted.send_signal(signal.SIGINT)
    code, written = finish(interrupted)
    assert code == 130, written
    assert 'Traceback' not in written
    assert not any(Path(f'/proc/{pid}').exists() for pid in started[0])
    until(lambda: not any(Path(f'/proc/{pid}').exists() for pid in started[1]))
    killed.communicate()
    summary = json.loads((outs[0] / 'summary.json').read_text())
    assert summary['interrupted']
    assert 0 < summary['frames']['answered'] <= summary['frames']['played'] < 90
    assert cv2.VideoCapture(str(outs[0] / 'overlay.mp4')).read()[0]
    assert cv2.imread(str(outs[0] / 'sheet.png')) is not None
    rows = (outs[0] / 'stats.csv').read_text().splitlines()
    assert len(rows) > summary['frames']['answered']

    code, written = finish(short)
    assert code == 0, written
    summary = json.loads((tmp_path / 'short' / 'summary.json').read_text())
    assert summary['parts'] == []
    counted = summary['frames']
    assert counted['played'] == 2
    assert counted['answered'] + counted['dropped'] + counted['missed'] == 2
    assert counted['answered'] > 0


@pytest.mark.slow
def test_demo_says_why_the_node_did_not_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """The node's own reason, and exit code 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.safetensors').write_bytes(b'x' * 100)
    assert cli.main(['demo', '--model', 'broken.safetensors', '--out', 'out']) == 1
    written = ''.join(capfd.readouterr())
    assert 'cannot load the weights' in written
    assert 'broken.safetensors' in written
    assert 'Traceback' not in written
    assert json.loads((tmp_path / 'out' / 'summary.json').read_text())['violations']


# Player


@pytest.mark.slow
def test_player_ends_in_good_order(ros: Any, tmp_path: Path) -> None:
    """Exit code 0, no traceback, and a report of what it sent."""
    report = tmp_path / 'report.json'
    process = start(
        'adamtl_ros.nodes.player', '--loop', '--rate', '50', '--report', str(report),
        '--ros-args', '-r', 'image:=/cam/image', '-r', 'camera_info:=/cam/info', cwd=tmp_path)
    images = ros.hear('/cam/image', Image)
    infos = ros.hear('/cam/info', CameraInfo)
    ros.until(lambda: len(images) > 2 and infos, process)
    process.send_signal(signal.SIGTERM)
    code, written = finish(process)
    assert code == 0, written
    assert 'Traceback' not in written
    stamps = json.loads(report.read_text())['stamps']
    first = images[0]
    assert (first.encoding, first.width, first.height) == ('rgb8', 256, 192)
    assert first.header.frame_id == infos[0].header.frame_id == 'camera_optical_frame'
    assert first.header.stamp.sec * 10**9 + first.header.stamp.nanosec in stamps
    assert infos[0].k[0] == pytest.approx(158.0668, abs=1e-3)
    assert infos[0].p[0] == infos[0].k[0]


def test_player_says_what_of_a_recording_it_left_out(tmp_path: Path) -> None:
    """A file that is cut off is played as far as it goes; the report tells the rest."""
    write_sample(tmp_path / 'bag', frames=8)
    with (tmp_path / 'bag' / 'bag.mcap').open('r+b') as stream:
        stream.truncate(stream.seek(0, 2) // 2)
    report = tmp_path / 'report.json'
    code, written = finish(start(
        'adamtl_ros.nodes.player', str(tmp_path / 'bag'), '--rate', '50', '--report', str(report),
        cwd=tmp_path))
    assert code == 0, written
    told = json.loads(report.read_text())
    assert 2 <= len(told['stamps']) < 8
    for text in (' '.join(told['problems']), written):
        assert 'ends in the middle' in text
        assert f'8 messages of /camera/image_raw were recorded, {len(told["stamps"])}' in text


def test_player_told_to_end_while_it_starts(tmp_path: Path) -> None:
    """A signal during the imports is heard after them."""
    report = tmp_path / 'report.json'
    process = start(
        'adamtl_ros.nodes.player', '--loop', '--report', str(report), cwd=tmp_path)
    until(lambda: blocks(process.pid, signal.SIGINT), process)
    process.send_signal(signal.SIGINT)
    code, written = finish(process)
    assert code == 0, written
    assert 'Traceback' not in written
    assert report.exists()


@pytest.mark.parametrize('arguments, said', [
    (['/nowhere'], '/nowhere: there is no such source'),
    (['--rate', 'nan'], 'rate: nan'),
    (['--ros-args', '-r', 'a b:=:'], 'a b:=:'),
    *(([f'--wait={value}'], '--wait') for value in ('-1', 'nan', 'soon')),
])
def test_player_names_what_is_wrong(
        signals_kept: None, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str,
) -> None:
    """One line, exit code 2."""
    try:
        code = player.main(arguments)
    except SystemExit as end:
        code = end.code
    written = ''.join(capfd.readouterr())
    assert code == 2
    assert said in written
    assert written.startswith('adamtl_player: ')
    assert written.count('\n') == 1


def test_player_sends_the_pixels_in_either_order(ros: Any) -> None:
    """rgb8 and bgr8 are the same picture; every frame has a stamp of its own."""
    sent: list[Image] = []
    for encoding in ('rgb8', 'bgr8'):
        player = Player(encoding)
        player.images = SimpleNamespace(publish=sent.append)
        player.play(open_source(DEMO, rate=500.0), frames=2)
        assert len(set(player.stamps)) == 2
        player.destroy_node()
    pixels = [image_array(message) for message in sent]
    assert np.array_equal(pixels[0], next(iter(open_source(DEMO))).image)
    assert np.array_equal(pixels[2], pixels[0][..., ::-1])
    assert [message.encoding for message in sent] == ['rgb8', 'rgb8', 'bgr8', 'bgr8']


@pytest.mark.slow
def test_player_stamps_no_frame_before_there_is_a_time(ros: Any, tmp_path: Path) -> None:
    """With use_sim_time, the clock's; until it ticks, the player says what it waits for."""
    report = tmp_path / 'report.json'
    process = start(
        'adamtl_ros.nodes.player', '--loop', '--frames', '3', '--report', str(report),
        '--ros-args', '-p', 'use_sim_time:=true', '-r', 'image:=/sim/image', cwd=tmp_path)
    images = ros.hear('/sim/image', Image)
    clock = ros.met(ros.client.create_publisher(Clock, '/clock', 1))
    for _ in range(9):  # at which it is still no time
        clock.publish(Clock())
        assert clock.wait_for_all_acked(Duration(seconds=LIMIT))
    assert images == []
    tick = itertools.count(7)

    def over() -> bool:
        clock.publish(Clock(clock=Time(sec=next(tick))))
        return process.poll() is not None

    ros.until(over)
    code, written = finish(process)
    assert code == 0, written
    stamps = json.loads(report.read_text())['stamps']
    assert len(stamps) == 3
    assert min(stamps) >= 7 * 10**9


def test_player_says_what_it_waits_for(
        ros: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Again and again, and as long as it may."""
    monkeypatch.setattr(playback, 'REMINDER', 0.05)
    player = Player()
    assert not player.await_subscriber(0.3)
    player.destroy_node()
    assert capfd.readouterr().err.count('waiting for a subscriber of /image (') >= 2


# Recorder


def header(stamp: int, frame_id: str = 'camera_optical_frame') -> Header:
    """Return a header of a stamp in ns."""
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(stamp, 10**9)
    return made


def stats(stamp: int, received: int = 1, dropped: int = 0) -> GatingStats:
    """Return statistics of a frame."""
    return GatingStats(
        header=header(stamp), mode='adaptive', budget_requested=0.6, agreement=math.nan,
        block_active=[True], frames_received=received, frames_processed=received - dropped,
        frames_dropped=dropped)


@pytest.fixture
def recorder(ros: Any, tmp_path: Path) -> Any:
    """Give a recorder that expects depth and the statistics."""
    made = Recorder(tmp_path / 'stats.csv')
    made.expected = frozenset({'depth', 'gating_stats'})
    yield made
    made.close()


def give(recorder: Recorder, topic: str, message: Any) -> None:
    """Let the recorder receive a message."""
    recorder._receiver(topic)(message)


def answer(recorder: Recorder, stamp: int, **kwargs: int) -> None:
    """Let the recorder receive all that it expects."""
    depth = np.zeros((2, 3), np.float32)
    give(recorder, 'depth', image_from_array(depth, '32FC1', header(stamp)))
    give(recorder, 'gating_stats', stats(stamp, **kwargs))


@pytest.mark.parametrize('encoding, array', [
    ('mono8', np.arange(6, dtype=np.uint8).reshape(2, 3)),
    ('32FC1', np.arange(6, dtype=np.float32).reshape(2, 3)),
    ('32FC3', np.arange(18, dtype=np.float32).reshape(2, 3, 3)),
    ('rgb8', np.arange(18, dtype=np.uint8).reshape(2, 3, 3)),
    ('mono8', np.zeros((1, 1), np.uint8)),
])
def test_published_arrays_come_back(encoding: str, array: np.ndarray) -> None:
    """The inverse of what the node does."""
    back = image_array(image_from_array(array, encoding, Header()))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_stats_file_has_the_scalar_fields(recorder: Recorder, tmp_path: Path) -> None:
    """A row a message, written as it comes; arrays and the header are no columns."""
    give(recorder, 'gating_stats', stats(1_500_000_000, received=7))
    with (tmp_path / 'stats.csv').open() as file:
        (row,) = csv.DictReader(file)
    assert row['stamp'] == '1.500000000'
    assert row['budget_requested'] == '0.6'
    assert row['frames_received'] == '7'
    assert row['agreement'] == 'nan'
    assert {'age_ms', 'guard', 'input_width', 'input_height'} <= set(row)
    assert not {'header', 'task_stats', 'block_active', 'token_fraction'} & set(row)


def test_answers_are_complete_with_all_topics_and_few_are_kept(recorder: Recorder) -> None:
    """Memory does not grow with the pictures."""
    give(recorder, 'gating_stats', stats(1))
    assert not recorder.complete(1)
    for stamp in range(1, 20):
        answer(recorder, stamp)
        assert recorder.complete(stamp)
    assert len(recorder.answers) == 19
    assert len(recorder.messages) < 5
    assert 19 in recorder.messages


def test_memory_does_not_grow_with_what_frames_cost(recorder: Recorder) -> None:
    """Some 0.1 kB a frame stay: an hour at 30 Hz has 108,000."""
    figures = trial.Figures()

    def heard(stamp: int, name: str, message: Any) -> None:
        if name == 'gating_stats':
            figures.add(message, True)

    recorder.on_message, recorder.on_complete = heard, lambda stamp, now: None
    message = stats(0)
    message.token_fraction, message.block_active = [0.5] * 14, [True] * 14
    message.task_stats = [TaskStats(name=task) for task in TASKS]
    data = serialize_message(message)
    recorder.expected = frozenset({'gating_stats'})

    def record(stamps: range) -> None:
        for stamp in stamps:
            answer = deserialize_message(data, GatingStats)
            answer.header.stamp.nanosec = stamp
            give(recorder, 'gating_stats', answer)

    record(range(1, 1000))
    tracemalloc.start()
    record(range(1000, 4000))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert figures.frames == len(recorder.answers) == 3999
    assert kept / 3000 < 300


def test_figures_of_a_run_are_those_of_its_frames(recorder: Recorder) -> None:
    """Frames asked again count for their budget alone; unknown cost is no cost."""
    figures = trial.Figures()
    costs = [math.nan, 0.5, 0.25, math.nan, 0.75]
    for place, cost in enumerate(costs):
        message = stats(place + 1)
        message.budget_achieved, message.latency_ms, message.network_ms = cost, 10.0 + place, 8.0
        message.token_fraction = [] if math.isnan(cost) else [1.0, cost]
        message.reused, message.gmacs_dense = place == 2, 2.0 + place
        message.warped = place == 4
        figures.add(message, True)
    asked = stats(9)
    asked.budget_requested, asked.budget_achieved, asked.latency_ms = 0.4, 0.375, 99.0
    figures.add(asked, False)
    assert (figures.frames, figures.reused, figures.gmacs_dense) == (5, 1, 2.0)
    assert (figures.spent.mean(), figures.achieved[0.4].mean()) == (0.5, 0.375)
    assert list(figures.latency.values) == [10, 11, 12, 13, 14]
    assert list(figures.beyond.values) == [2, 3, 4, 5, 6]
    stretches, frames = figures.over_time()
    assert frames == 1
    np.testing.assert_array_equal([each.cost for each in stretches], costs)
    assert [each.blocks for each in stretches] == [(), (1.0, 0.5), (1.0, 0.25), (), (1.0, 0.75)]
    assert [(each.warped, each.reused) for each in stretches] == [
        (0, 0), (0, 0), (0, 1), (0, 0), (1, 0)]


def test_parts_are_of_the_frames_that_were_answered(recorder: Recorder) -> None:
    """A dropped frame is in none; what was asked again is no part; other sources have none."""
    told = {}
    for stamp, cost in enumerate((1.0, 0.5, 0.0, 0.0, 0.25)):
        told[stamp] = stats(stamp)
        told[stamp].budget_achieved, told[stamp].reused = cost, cost == 0
    of = SimpleNamespace(
        source=SimpleNamespace(still=3, length=6), told=told,
        account=trial.Account(played=[0, 10, 1, 2, 3]))
    found = trial.Trial.parts(of)
    assert {name: (part.frames, part.spent.mean(), part.reused)
            for name, part in found.items()} == {
        'moving': (2, 0.75, 0), 'still': (2, 0.0, 2)}
    of.account.played = [0, 10, 1]
    assert list(trial.Trial.parts(of)) == ['moving']
    of.source.still = 0
    assert trial.Trial.parts(of) == {}


# Account


def test_a_full_account_has_no_violations(recorder: Recorder) -> None:
    """Two frames answered, one dropped."""
    answer(recorder, 10)
    answer(recorder, 30)
    account = trial.Account(played=[10, 20, 30, 40], received=3, processed=2, dropped=1, missed=1)
    account.check(recorder)
    assert account.violations == []


@pytest.mark.parametrize('account, said', [
    (trial.Account(played=[10, 20], received=3, processed=2, dropped=0), 'received 3 frames, but'),
    (trial.Account(played=[10, 20, 30], received=2, processed=2), 'the node received 2'),
    (trial.Account(played=[10, 20, 30], received=1, processed=1, missed=1), 'missed 1'),
    (trial.Account(played=[10, 20, 30], received=3, processed=2, dropped=0), '2 answered'),
    (trial.Account(played=[10], received=1, processed=1), 'a stamp that no frame had'),
])
def test_a_frame_that_is_missing_is_said(
        recorder: Recorder, account: trial.Account, said: str) -> None:
    """Lost on the way, not accounted for, or an answer to nothing."""
    answer(recorder, 10)
    answer(recorder, 20)
    account.check(recorder)
    assert any(said in violation for violation in account.violations), account.violations


def test_partial_repeated_and_renamed_answers_are_said(recorder: Recorder) -> None:
    """Each task must answer, once, with the frame's own header."""
    answer(recorder, 10)
    give(recorder, 'gating_stats', stats(20))
    give(recorder, 'gating_stats', stats(10))
    depth = image_from_array(np.zeros((2, 3), np.float32), '32FC1', header(10, 'other'))
    give(recorder, 'depth', depth)
    account = trial.Account(played=[10, 20], received=2, processed=2)
    account.check(recorder)
    said = ' '.join(account.violations)
    assert '1 frames were not answered by all tasks; missing: depth' in said
    assert 'a second time' in said
    assert 'another frame_id' in said


# Pieces


@pytest.mark.parametrize('budget', [1.0, 0.95, 0.6, 0.41, 0.4, 0.3, 0.05])
def test_sheet_budgets(budget: float) -> None:
    """Three, falling, with the requested one and dense among them."""
    budgets = trial.sheet_budgets(budget)
    assert budgets[0] == 1.0 > budgets[1] > budgets[2] > 0
    assert budget in budgets


def test_video_keeps_time(tmp_path: Path) -> None:
    """A dropped frame is filled with the one before; odd sizes and other sizes are taken."""
    video = trial.Video(tmp_path / 'v.mp4', 10.0)
    assert video.readable_frames() == 0
    grey = np.full((47, 63, 3), 50, np.uint8)
    for place in (0, 1, 4):  # two are missing
        video.add(1_000_000_000 + place * 100_000_000, grey + 40 * place)
    video.add(1_500_000_000, np.zeros((10, 10, 3), np.uint8))
    video.close()
    assert video.frames == video.readable_frames() == 6
    film = cv2.VideoCapture(str(tmp_path / 'v.mp4'))
    means = [film.read()[1].mean() for _ in range(6)]
    assert means == pytest.approx([50, 90, 90, 90, 210, 0], abs=12)

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The executable: its command line, its signals, and what it says where it cannot start."""

from collections.abc import Callable
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from adamtl_ros.msg import GatingStats  # noqa: E402
from adamtl_ros.nodes import monitor  # noqa: E402
from adamtl_ros.nodes import node  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from processes import blocks  # noqa: E402
from processes import until  # noqa: E402
from ros_graph import picture  # noqa: E402
from ros_graph import WAIT  # noqa: E402

PROC = pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='needs /proc')
SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM

MAIN = 'import sys; from adamtl_ros.nodes.node import main; sys.exit(main())'


@pytest.fixture
def start(ended: list[subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the executable's main(), or other code with its arguments."""
    def start(*arguments: str, code: str = MAIN,
              environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        # As the launch file does.
        profiles = {f'{name}_DEFAULT_PROFILES_FILE': str(share('config', 'fastdds.xml'))
                    for name in ('FASTDDS', 'FASTRTPS')}
        process = subprocess.Popen(
            [sys.executable, '-c', code, '--ros-args', *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=(environment or dict(os.environ)) | profiles)
        ended.append(process)
        return process
    return start


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    """Read the output up to a line with the word in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f'the node ended before it said {word!r}')


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Return what a process, which ends in good order, still says."""
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == code, output
    assert 'Traceback' not in output
    return output


# The command line


@pytest.mark.parametrize(('arguments', 'code', 'words'), [
    (['--help'], 0, ['usage: adamtl_node', '--ros-args']),
    (['--bogus'], 2, ["'--bogus'", '--help']),
    (['budget:=0.5'], 2, ['--ros-args -p budget:=0.5']),
    (['--ros-args', '--bogus'], 1, ['--bogus']),
    (['--ros-args', '--params-file', '/'], 1, ['--params-file /', 'a folder']),
    (['--ros-args', '--params-file', '/nope.yaml'], 1, ['/nope.yaml', 'no such file']),
    (['--ros-args', '-p', 'budget:=['], 1, ['budget:=[']),
    (['--ros-args', '-p', 'budget:=.nan'], 1, ['budget is nan']),
])
def test_a_command_line_that_is_wrong_is_one_line(
        signals_kept, monkeypatch, capfd, arguments, code, words):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', str(node.MAX_PIXELS))
    # Nobody listens to why it could not start.
    monkeypatch.setattr(monitor, 'FAREWELL_PATIENCE', 0.0)
    assert node.main(arguments) == code
    output = ''.join(capfd.readouterr())
    assert all(word in output for word in words), output
    assert code == 0 or output.count('\n') == 1, output


# Signals


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'frames'), [(SIGINT, True), (SIGTERM, True), (SIGINT, False)])
def test_signals_end_the_node_in_good_order(stage, weights, start, number, frames):
    process = start('-p', f'model:={weights}')
    wait_for_line(process, 'active')
    stats = stage.hear('/adamtl/gating_stats', GatingStats)
    results = {task: stage.hear(f'/adamtl/{task}', Image) for task in TASKS}
    if frames:
        large = picture(width=640, height=480)  # faster than it can answer: always busy
        stage.met(stage.camera)

        def answered():
            stage.camera.publish(stage.header(large))
            return len(stats) > 2

        stage.until(answered)
        for _ in range(3):
            stage.camera.publish(stage.header(large))
    process.send_signal(number)
    output = finish(process)
    _, found, counts = output.partition('stopped after ')
    assert found
    processed = int(counts.partition(' processed')[0].rpartition(' ')[2])
    assert bool(processed) == frames
    if frames:
        # The last frame that was processed was sent whole.
        stage.until(lambda: stats[-1].frames_processed == processed and all(
            got[-1].header == stats[-1].header for got in results.values()))


@PROC
@pytest.mark.slow
@pytest.mark.parametrize(('number', 'autostart'), [
    (SIGINT, True), (SIGTERM, True), (SIGTERM, False)])
def test_signals_while_starting_end_the_node_in_good_order(weights, start, number, autostart):
    process = start('-p', f'model:={weights}', '-p', f'autostart:={autostart}')
    # The first thing that it does is to hold them back, for as long as it imports.
    until(lambda: blocks(process.pid, SIGTERM), process)
    process.send_signal(number)
    output = finish(process)
    assert autostart or 'model' not in output


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'autostart', 'words'), [
    (SIGINT, True, 'stopped while it was being started'),
    (SIGTERM, False, 'stopped in the middle of a transition')])
def test_a_signal_while_the_model_is_loaded_ends_it_soon(start, number, autostart, words):
    process = start('-p', f'autostart:={autostart}', code="""
import sys, threading, time
# Neither this thread nor those of what is imported hold signals back: they may get them.
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from adamtl_ros.nodes import lifecycle, node
node.PATIENCE = 0.5
class Slow(lifecycle.Engine):
    def __init__(self, *args, **kwargs):
        print('now it loads', flush=True)
        time.sleep(60)
class AdamtlNode(lifecycle.AdamtlNode):
    def __init__(self):
        super().__init__(engine_class=Slow)
        # Where it does not start by itself: as when a service asks for it.
        if not self.autostart:
            self.create_timer(0.1, self.trigger_configure)
lifecycle.AdamtlNode = AdamtlNode
sys.exit(node.main(sys.argv[1:]))
""")
    wait_for_line(process, 'now it loads')
    process.send_signal(number)
    began = time.monotonic()
    assert words in finish(process)
    assert time.monotonic() - began < 10.0


# Where it cannot start, or not as others


@pytest.mark.slow
def test_a_home_without_a_place_for_logs(start, tmp_path):
    (tmp_path / 'file').touch()
    environment = {name: value for name, value in os.environ.items() if name != 'ROS_LOG_DIR'}
    process = start('-p', 'autostart:=false',
                    environment=environment | {'HOME': str(tmp_path / 'file')})
    assert 'logs go to the terminal alone' in process.stdout.readline()
    process.terminate()
    finish(process)


@pytest.mark.slow
def test_a_user_without_a_home(start):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('HOME', 'ROS_LOG_DIR', 'ROS_HOME', 'XDG_CACHE_HOME',
                                   'ADAMTL_CACHE')}
    process = start('-p', 'model:=nothing', environment=environment, code="""
import pwd, sys
from adamtl_ros.nodes import monitor, node
def nobody(user): raise KeyError(user)
pwd.getpwuid = nobody
monitor.FAREWELL_PATIENCE = 0.0
from adamtl_ros.paths import cache
print('kept in', cache())
sys.exit(node.main(sys.argv[1:]))
""")
    output = finish(process, 1)  # for there is no such model
    for words in ('logs go to the terminal alone', 'kept in /dev/null/adamtl_ros',
                  'cannot configure'):
        assert words in output


@pytest.mark.slow
def test_why_it_did_not_start_is_in_the_diagnostics(stage, start):
    process = start('-p', 'backend:=tvm')
    stage.until(lambda: any(each.level == DiagnosticStatus.ERROR and 'tvm' in each.message
                            for each in stage.reports))
    assert finish(process, 1).count("'tvm'") == 1

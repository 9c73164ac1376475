# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a ROS graph of their own, and a limit to how long a test may hang."""

from collections.abc import Iterator
import faulthandler
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from hypothesis import settings
import pytest

from adamtl_ros import dds
from adamtl_ros.missing import lacking
from adamtl_ros.processes import processors

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before any test imports torch: where others compute beside these tests, threads that wait for
# their next small share by spinning take the processors from those that have one.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
# Where several processes test, each has its share of the processors, and so have those it starts.
if workers := os.environ.get('PYTEST_XDIST_WORKER_COUNT'):
    os.environ.setdefault(
        'OMP_NUM_THREADS', str(max(1, len(processors()) // int(workers))))
# How long an example takes is the machine's business.
settings.register_profile('untimed', deadline=None)
settings.load_profile('untimed')
# Before any test imports rclpy.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Held as long as the tests run: what chooses a domain in the process beside must not meet them.
HELD = socket.socket(socket.AF_UNIX)
os.environ['ROS_DOMAIN_ID'] = str(dds.free_domain(HELD))

# What a ROS machine may lack, as no rosdep key installs it, and which files are about it.
OPTIONAL = {
    'test_bag.py': ('rosbags', 'mcap', 'zstandard'),
    'test_bag_changes.py': ('rosbags', 'mcap', 'zstandard', 'safetensors'),
    'test_bag_cluster.py': ('distributed', 'rosbags', 'mcap', 'zstandard', 'safetensors'),
    'test_bag_live.py': ('rosbags', 'mcap', 'zstandard'),
    'test_bag_reading.py': ('rosbags', 'mcap', 'zstandard'),
    'test_checkpoint.py': ('safetensors',),
    'test_metrics.py': ('torchmetrics',),
    'test_privacy.py': ('rosbags', 'mcap', 'zstandard', 'safetensors'),
    'test_sources.py': ('rosbags', 'mcap', 'zstandard'),
    'test_trainer.py': ('safetensors', 'torchmetrics'),
    'test_training.py': ('safetensors', 'torchmetrics'),
}
collect_ignore = [name for name, packages in OPTIONAL.items() if lacking(packages)]

HANG = 300.0
"""Seconds after which a test is taken to hang; it then ends the run with all stacks printed."""


@pytest.fixture(scope='module', params=['torch', 'openvino'])
def engine(model, request):
    """Return an engine of each backend for the weights file `model` of a test's own module."""
    from adamtl_ros.runtime.engine import Engine
    if request.param == 'openvino':
        pytest.importorskip('openvino')
    return Engine(model, backend=request.param)


@pytest.fixture(scope='session')
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file of random weights: what the node does is the same for good ones."""
    from dataclasses import replace

    from adamtl_ros.network import checkpoint
    from networks import CONFIGS
    from networks import random_network
    # As the shipped one from outside, and a tenth of its work.
    config = replace(
        CONFIGS['lite'], name='glasses', input_size=(192, 256), reduced=(0.73, 0.62, 0.42))
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    checkpoint.save(path, random_network(config))
    return str(path)


@pytest.fixture
def ros() -> Iterator[Any]:
    """Return a ROS graph, with a client in it, that is closed after the test."""
    from ros_graph import Graph
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def stage() -> Iterator[Any]:
    """Return a stage for nodes whose engine computes nothing."""
    from ros_graph import Stage
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def bench(weights: str) -> Iterator[Any]:
    """Return a stage for nodes whose engine has a network of random weights."""
    from adamtl_ros.runtime.engine import Engine
    from ros_graph import Stage
    stage = Stage(Engine, model=weights)
    yield stage
    stage.close()


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Take processes that must not outlive the test, those that they lead included."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        process.communicate(timeout=HANG)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Bring back what main() of an executable does to the signals of this process."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """Take away what wakes the main() of an executable up for a signal."""
    yield
    signal.set_wakeup_fd(-1)


def pytest_report_header() -> list[str]:
    """Tell what is left out."""
    return [f'{name} is left out, without {", ".join(lacking(OPTIONAL[name]))}'
            for name in collect_ignore]


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _threads_of_torch() -> Iterator[None]:
    """Bring back the number of threads that torch had: a test may set it for the process."""
    torch = sys.modules.get('torch')
    before = torch.get_num_threads() if torch else 0
    yield
    if before:
        torch.set_num_threads(before)


@pytest.fixture(scope='session', autouse=True)
def _ros_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ['ROS_LOG_DIR'] = str(tmp_path_factory.mktemp('ros_log'))

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that we start calls out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from adamtl_ros.bag.sample import write_sample
from adamtl_ros.network import checkpoint
from corpus import write_corpus

pytestmark = pytest.mark.slow

COMMANDS = {
    'infer': ['infer', '{picture}', '--out', '{out}'],
    'bag': ['bag', '{bag}', '--budgets', '0.5', '--modes', 'adaptive', '--out', '{out}'],
    'bench': ['bench', '--rounds', '2', '--warm-up', '1', '--budgets', '0.5'],
    'evaluate': ['evaluate', '{corpus}', '--limit', '2', '--budgets', '0.5'],
    'quantize': ['quantize', '{model}', '--source', '{bag}', '--frames', '2'],
    'demo': ['demo', '--frames', '2', '--out', '{out}'],
    'convert': ['convert', '--help'],
    'train': ['train', '--help'],
    'top': ['top', '--once', '1'],
    'soak': ['soak', '--help'],
    # Their traced and converted networks, which tell of themselves as well.
    'bench --reference': ['bench', '--rounds', '1', '--warm-up', '0', '--turn', '1', '--budgets',
                          '0.5', '--reference', 'openvino'],
}
NEEDED = {'demo': 'rclpy', 'top': 'rclpy', 'soak': 'rclpy', 'quantize': 'nncf',
          'evaluate': 'torch', 'train': 'torch', 'convert': 'torch', 'bench --reference': 'torch'}
PLACES = {'picture': 'picture.png', 'bag': 'bag', 'corpus': 'corpus', 'out': 'out',
          'model': 'copy.safetensors'}


class Proxy:
    """Notes the first line of what is asked for, and refuses it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server = socket.create_server(('127.0.0.1', 0))
        self.address = f'http://127.0.0.1:{self._server.getsockname()[1]}'
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).decode(errors='replace').split('\r\n')[0])
                connection.sendall(b'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def environment(proxy: Proxy, home: Path) -> dict[str, str]:
    """Return an environment of a user at home, not in CI, whose ways out are the proxy."""
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items()
            if key not in ('CI', 'TF_BUILD', 'JENKINS_URL', 'NO_PROXY', 'no_proxy')}
    ways = dict.fromkeys(
        ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'),
        proxy.address)
    return {**kept, **ways, 'HOME': str(home)}


# What ends a command's part of the notes: it comes after all that was sent before, in one queue.
SCRIPT = """
import json, socket, sys
from adamtl_ros.cli import main
port = int(sys.argv[1].rpartition(':')[2])
codes = {}
for name, arguments in json.load(sys.stdin).items():
    try:
        codes[name] = main(arguments)
    except SystemExit as end:
        codes[name] = end.code or 0
    with socket.create_connection(('127.0.0.1', port)) as last:
        last.sendall(f'end of {name}'.encode())
        last.recv(1)
print('\\n' + json.dumps(codes))
"""


@pytest.fixture(scope='module')
def noted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str]]]:
    """Run the commands one after the other; return their codes and what each asked for."""
    folder = tmp_path_factory.mktemp('work')
    cv2.imwrite(str(folder / 'picture.png'), np.zeros((48, 64, 3), np.uint8))
    write_sample(folder / 'bag', frames=3)
    write_corpus(folder / 'corpus')
    shutil.copy(checkpoint.find('glasses'), folder / 'copy.safetensors')
    (folder / 'out').mkdir()
    places = {name: str(folder / place) for name, place in PLACES.items()}
    calls = {name: [part.format(**places) for part in parts] for name, parts in COMMANDS.items()
             if name not in NEEDED or find_spec(NEEDED[name])}
    # Those over ROS wait for one another most of the time: beside them the others compute.
    waiting = {name: calls.pop(name) for name in ('demo', 'top', 'soak') if name in calls}
    found: dict[str, tuple[int, list[str]]] = {}

    def run(calls: dict[str, list[str]]) -> None:
        proxy, home = Proxy(), folder / f'home_of_{next(iter(calls))}'
        ended = subprocess.run(
            [sys.executable, '-c', SCRIPT, proxy.address], env=environment(proxy, home),
            cwd=folder, input=json.dumps(calls), capture_output=True, text=True, timeout=280)
        proxy.close()
        assert ended.returncode == 0, ended.stderr
        assert {path.name for path in home.iterdir()} <= {'.cache', '.ros', '.config'}
        asked = iter(proxy.asked)
        for name, code in json.loads(ended.stdout.splitlines()[-1]).items():
            found[name] = code, list(iter(lambda: next(asked), f'end of {name}'))

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, filter(None, (calls, waiting))))
    return found


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_calls_nobody(command, noted):
    if command not in noted:
        pytest.skip(f'{NEEDED[command]} is not installed')
    assert noted[command] == (1 if command == 'top' else 0, [])


def test_the_proxy_would_have_noted_it(proxy, tmp_path):
    code = ('import urllib.request\n'
            'try:\n'
            '    urllib.request.urlopen("http://example.org/collect")\n'
            'except OSError:\n'
            '    pass\n')
    subprocess.run([sys.executable, '-c', code], env=environment(proxy, tmp_path / 'home'),
                   check=True, timeout=60)
    assert proxy.asked == ['GET http://example.org/collect HTTP/1.1']

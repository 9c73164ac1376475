# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that we start calls out."""

from collections.abc import Iterator
from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import threading
import time

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
    'evaluate': ['evaluate', '{corpus}', '--limit', '2'],
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


@pytest.fixture(scope='module')
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('inputs')
    cv2.imwrite(str(folder / 'picture.png'), np.zeros((48, 64, 3), np.uint8))
    write_sample(folder / 'bag', frames=3)
    write_corpus(folder / 'corpus')
    shutil.copy(checkpoint.find('glasses'), folder / 'copy.safetensors')
    return folder


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_calls_nobody(command, inputs, proxy, tmp_path):
    needed = {'demo': 'rclpy', 'top': 'rclpy', 'soak': 'rclpy', 'quantize': 'nncf',
              'evaluate': 'torch', 'train': 'torch', 'convert': 'torch',
              'bench --reference': 'torch'}
    if command in needed and find_spec(needed[command]) is None:
        pytest.skip(f'{needed[command]} is not installed')
    folder = tmp_path / 'work'
    shutil.copytree(inputs, folder)
    (folder / 'out').mkdir()
    places = {name: str(folder / place) for name, place in PLACES.items()}
    home = tmp_path / 'home'
    ended = subprocess.run(
        [sys.executable, '-m', 'adamtl_ros.cli', *(
            part.format(**places) for part in COMMANDS[command])],
        env=environment(proxy, home), cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == (1 if command == 'top' else 0), ended.stderr
    time.sleep(0.5)  # what a thread of it may still have sent
    assert proxy.asked == []
    assert {path.name for path in home.iterdir()} <= {'.cache', '.ros', '.config'}


def test_the_proxy_would_have_noted_it(proxy, tmp_path):
    code = ('import urllib.request\n'
            'try:\n'
            '    urllib.request.urlopen("http://example.org/collect")\n'
            'except OSError:\n'
            '    pass\n')
    subprocess.run([sys.executable, '-c', code], env=environment(proxy, tmp_path / 'home'),
                   check=True, timeout=60)
    assert proxy.asked == ['GET http://example.org/collect HTTP/1.1']

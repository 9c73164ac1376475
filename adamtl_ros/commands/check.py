# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Look at this machine: what is installed, what each backend takes and whether its numbers are right.

Exit code 0: the node can run here, and every figure is as it should be.  1: something is missing
or wrong; the page names the command that mends it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from importlib import import_module
from importlib import metadata
import json
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys
from typing import Any

from adamtl_ros import dds
from adamtl_ros.arguments import Parser
from adamtl_ros.files import try_file
from adamtl_ros.files import whole
from adamtl_ros.missing import lacking
from adamtl_ros.missing import OPTIONAL
from adamtl_ros.paths import cache
from adamtl_ros.paths import share
from adamtl_ros.paths import version
from adamtl_ros.processes import processors

NEEDED = {
    'numpy': ('numpy', 'python3-numpy'),
    'cv2': ('opencv-python-headless', 'python3-opencv'),
    'yaml': ('pyyaml', 'python3-yaml'),
    'rich': ('rich', 'python3-rich'),
}
"""What the node imports beside ROS: its names on PyPI and in Debian and Ubuntu."""

RATHER = {
    'jinja2': ('jinja2', 'python3-jinja2', 'reports'),
    'matplotlib': ('matplotlib', 'python3-matplotlib', 'figures'),
    'PIL': ('pillow', 'python3-pil', 'data sets'),
    'scipy': ('scipy', 'python3-scipy', 'measuring edges'),
}
"""What commands want, with what for."""

PROBES = (('openvino', 'f32'), ('openvino', 'bf16'), ('openvino', 'int8'), ('torch', 'f32'))
PATIENCE = 120.0
"""Seconds for one of them."""

FEATURES = {
    'avx2': 'AVX2', 'avx512f': 'AVX-512', 'avx_vnni': 'VNNI', 'avx512_vnni': 'VNNI',
    'avx512_bf16': 'bf16', 'amx_bf16': 'AMX bf16', 'amx_int8': 'AMX int8', 'asimd': 'NEON',
    'asimddp': 'dot product', 'i8mm': 'int8 matrices', 'bf16': 'bf16', 'sve': 'SVE'}
"""Flags of /proc/cpuinfo that matter for the network."""

SEGMENT_BYTES = 2**26
"""Of config/fastdds.xml, for every process that sends images."""

DISTRIBUTIONS = {'jazzy': 'tested', 'kilted': 'tested', 'lyrical': 'written for, untested'}

_MARKS = {'ok': '+', 'note': '-', 'bad': 'X'}

_CROSS = """
import time
import rclpy
from rclpy.utilities import get_rmw_implementation_identifier
from adamtl_ros.msg import GatingStats
rclpy.init()
node = rclpy.create_node('adamtl_check')
came = []
node.create_subscription(GatingStats, '~/stats', came.append, 1)
sender = node.create_publisher(GatingStats, '~/stats', 1)
end = time.monotonic() + 8
while not came and time.monotonic() < end:
    sender.publish(GatingStats(mode='check'))
    rclpy.spin_once(node, timeout_sec=0.1)
print(get_rmw_implementation_identifier() if came else '')
"""


@dataclass(frozen=True)
class Line:
    """A finding: its part of the page, 'ok', 'note' or 'bad', what it says, what mends it."""

    part: str
    state: str
    text: str
    remedy: str = ''


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parse = Parser(prog='adamtl check', description=__doc__)
    parse.add_argument('--model', default='glasses', help='preset or weights file')
    parse.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    parse.add_argument('--threads', type=int, default=0, help='0: as the backends like')
    parse.add_argument('--json', type=Path, metavar='F', help='write the page to F as well')
    parse.add_argument(
        '--write-reference', action='store_true',
        help='instead: run the shipped picture on torch, and keep what the model gives, beside '
             'its weights, as right')
    return parse


def distribution() -> str:
    """Return the ROS distribution: of the shell, else of the wheels, else ''."""
    if os.environ.get('ROS_DISTRO'):
        return os.environ['ROS_DISTRO']
    for name in DISTRIBUTIONS:
        try:
            metadata.distribution(f'ros-{name}-rclpy')
        except metadata.PackageNotFoundError:
            continue
        return name
    return ''


def machine() -> list[Line]:
    """Return what kind of machine this is."""
    part, text = 'machine', ''
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        pass
    entries = [line.partition(':')[::2] for line in text.splitlines() if ':' in line]
    found = {key.strip().lower(): value.strip() for key, value in entries}
    flags = set((found.get('flags') or found.get('features') or '').split())
    features = list(dict.fromkeys(name for flag, name in FEATURES.items() if flag in flags))
    cores = len(processors())
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    return [
        Line(part, 'ok', f'adamtl {version()}, Python {platform.python_version()}, '
             f'{platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())}, '
             f'{platform.machine()}'),
        Line(part, 'ok', f'{found.get("model name") or platform.processor() or "processor"}: '
             f'{cores} of {os.cpu_count()} cores for this process, {memory:.0f} GB of memory'),
        Line(part, 'ok' if features else 'note',
             'features: ' + (', '.join(features) or 'none that are known'))]


def packages() -> list[Line]:
    """Return which Python packages there are, and how to get those that are not."""
    part, lines = 'packages', []
    on_ros = bool(os.environ.get('ROS_DISTRO'))
    present = []
    for name, (wheel, debian) in NEEDED.items():
        if lacking((name,)):
            lines.append(Line(
                part, 'bad', f'{name} is missing, and the node needs it',
                f'sudo apt-get install {debian}' if on_ros else f'pip install {wheel}'))
        else:
            present.append(f'{wheel} {_version(wheel, name)}')
    backends = [name for name in ('openvino', 'torch') if not lacking((name,))]
    present += [f'{name} {_version(name, name)}' for name in backends]
    if not backends:
        lines.append(Line(
            part, 'bad', 'neither openvino nor torch is there to run the network',
            'sudo apt-get install python3-torch' if on_ros else 'pip install openvino'))
    lines.insert(0, Line(part, 'ok', ', '.join(present)))
    for name, (wheel, debian, purpose) in RATHER.items():
        if lacking((name,)):
            lines.append(Line(
                part, 'note', f'without {name}: {purpose}',
                f'sudo apt-get install {debian}' if on_ros else f'pip install {wheel}'))
    lines += [Line(part, 'note', f'without {name}: {OPTIONAL[name]}', f'pip install {name}')
              for name in lacking(OPTIONAL)]
    return lines


def _version(wheel: str, module: str) -> str:
    try:
        return metadata.version(wheel)
    except metadata.PackageNotFoundError:  # from the distribution's packages, say
        return str(getattr(import_module(module), '__version__', '?'))


def ros() -> list[Line]:
    """Return whether a message crosses ROS, over which middleware, and with what memory."""
    part, name = 'ROS 2', distribution()
    if not name or lacking(('rclpy',)):
        return [Line(
            part, 'bad', 'there is no ROS 2 in this environment, which the node needs',
            "pip install '.[jazzy]' in the package's folder, or . /opt/ros/jazzy/setup.sh")]
    lines = [Line(part, 'ok' if name in DISTRIBUTIONS else 'note',
                  f'{name}: {DISTRIBUTIONS.get(name, "untested, see docs/install.md")}')]
    # A domain of its own: nobody else is to hear it.
    done = _child(['-c', _CROSS], {
        'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'})
    middleware = done.stdout.strip() if done else ''
    if middleware:
        lines.append(Line(part, 'ok', f'a message crosses {middleware}'))
    elif done and done.returncode:
        reason = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
        lines.append(Line(
            part, 'bad', f'a message cannot be sent: {reason}',
            'build this package for this distribution: pip install . or colcon build'))
    else:
        lines.append(Line(
            part, 'bad', 'a message does not come back within 8 s',
            'unset RMW_IMPLEMENTATION and *_PROFILES_FILE, and look at the firewall'))
    if middleware and not middleware.startswith('rmw_fastrtps'):
        lines.append(Line(part, 'note', dds.otherwise(middleware)))
    return lines + (shared_memory() if middleware.startswith('rmw_fastrtps') else [])


def shared_memory() -> list[Line]:
    """Return whether Fast DDS has shared memory enough for images."""
    part, lines = 'ROS 2', []
    try:
        free = shutil.disk_usage('/dev/shm').free
    except OSError:
        free = 0
    lines.append(Line(
        part, 'ok' if free >= 2 * SEGMENT_BYTES else 'note',
        f'/dev/shm has {free / 2**20:.0f} MB free, a process that sends images takes '
        f'{SEGMENT_BYTES >> 20}',
        '' if free >= 2 * SEGMENT_BYTES else 'docker run --shm-size=512m, or a larger /dev/shm'))
    variable = f'{"FASTRTPS" if distribution() == "jazzy" else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    if os.environ.get(variable):
        lines.append(Line(part, 'ok', f'{variable} is {os.environ[variable]}'))
    else:
        lines.append(Line(
            part, 'note', f'{variable} is not set: images between processes that you start by '
            'hand are slow or lost (the launch file and the demo set it)',
            f'export {variable}={share("config", "fastdds.xml")}'))
    return lines


def network(model: str, device: str, threads: int) -> tuple[list[Line], list[dict[str, Any]]]:
    """
    Return how fast and how right the network is with every backend and precision, and figures.

    Each in a process of its own: one that crashes ends no other, and none warms another's caches.
    """
    part, lines, rows = 'network', [], []
    for backend, precision in PROBES:
        if device != 'cpu' and backend != 'torch' or lacking((backend,)):
            continue
        done = _child(['-m', 'adamtl_ros.reference', model, backend, precision, device,
                       str(threads)], {})
        row: dict[str, Any] = {'backend': backend, 'precision': precision}
        try:
            row |= json.loads(done.stdout.splitlines()[-1]) if done else {
                'crash': f'no answer within {PATIENCE:.0f} s'}
        except (ValueError, IndexError):
            assert done is not None
            ended = (f'signal {-done.returncode}' if done.returncode < 0 else
                     f'exit code {done.returncode}')
            row['crash'] = ' '.join([ended, *done.stderr.strip().splitlines()[-1:]])
        rows.append(row)
        lines.append(_judged(part, f'{backend} {precision}', row))
    if not any('static_ms' in row for row in rows):
        lines.append(Line(part, 'bad', f'nothing runs the model {model!r} on {device}'))
    try:
        cache().mkdir(parents=True, exist_ok=True)
        writable = os.access(cache(), os.W_OK)
    except OSError:
        writable = False
    lines.append(Line(
        part, 'ok' if writable else 'note', f'compiled models are kept in {cache()}' if writable
        else f'{cache()} cannot be written: every start compiles anew',
        '' if writable else 'export ADAMTL_CACHE=FOLDER'))
    return lines, rows


def _judged(part: str, name: str, row: dict[str, Any]) -> Line:
    if 'crash' in row:
        return Line(part, 'bad', f'{name}: ended by {row["crash"]}', 'choose another precision or '
                    'backend, and report it with this page')
    if 'error' in row:
        return Line(part, 'note', f'{name}: {" ".join(row["error"].split())}')
    times = f'{name}: {row["static_ms"]:.1f} ms a frame static'
    if row['adaptive_ms'] is not None:
        times += f', {row["adaptive_ms"]:.1f} ms at budget 0.5'
    if 'unknown' in row:
        return Line(part, 'note', f'{times}; not compared: {row["unknown"]}')
    if row['deviation'] <= row['limit']:
        return Line(part, 'ok', f'{times}; right to {row["deviation"]:.1g}')
    return Line(
        part, 'bad', f'{times}; WRONG: {row["of"]} deviates by {row["deviation"]:.2g}, more than '
        f'{row["limit"]:g}', 'choose another precision or backend, or another version of it')


def _child(arguments: list[str], extra: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    """Run Python as this one, outside the working directory; None if it takes too long."""
    try:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, 'PYTHONSAFEPATH': '1', **extra})
    except subprocess.TimeoutExpired:
        return None


def show(lines: Sequence[Line]) -> None:
    """Print the page."""
    part = ''
    for line in lines:
        if line.part != part:
            part = line.part
            print(part)
        print(f'  {_MARKS[line.state]} {line.text}')
        if line.remedy:
            print(f'      {line.remedy}')
    bad = sum(line.state == 'bad' for line in lines)
    print('all is well' if not bad else
          f'{bad} thing{"s are" if bad > 1 else " is"} wrong, marked {_MARKS["bad"]}')


def main(argv: Sequence[str]) -> int:
    """Run `adamtl check`; return its exit code."""
    options = parser().parse_args(argv)
    if options.threads < 0:
        raise ValueError(f'--threads {options.threads}: 0 or more')
    try_file(options.json)
    if not options.write_reference:
        lines = [*machine(), *packages(), *ros()]
        findings, rows = network(options.model, options.device, options.threads)
        lines += findings
        show(lines)
        if options.json:
            page = {'lines': [asdict(line) for line in lines], 'network': rows}
            with whole(options.json) as aside:
                aside.write_text(json.dumps(page, indent=1) + '\n', encoding='utf-8')
        return int(any(line.state == 'bad' for line in lines))
    from adamtl_ros import reference
    from adamtl_ros.picture_files import read_picture
    from adamtl_ros.sources import DEMO
    picture = sorted(DEMO.glob('*.jpg'))[30]
    print(reference.write(options.model, read_picture(picture)))
    return 0

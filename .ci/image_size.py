#!/usr/bin/env python3
# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Compute what the container takes on a disk, layer by layer, where no container can be built.

Reads the Dockerfile.  Wheels are those that pip would install there, unpacked and compiled; Debian
packages are summed by Installed-Size from an empty system, so what the base image has already
counts twice.  To be run in an environment that has this package:

    .venv/bin/python .ci/image_size.py
"""

from collections.abc import Sequence
import os
from pathlib import Path
import re
import subprocess
import sys
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent

BASE_MB = 492
"""ros:jazzy-ros-core unpacked, by the repo-info of Docker's official images, July 2026."""

UNKNOWN_MB = 10
"""For each package that apt does not know here: those of ROS, with messages alone."""

PYTHON = '3.12'
"""Of Ubuntu 24.04."""


def run(*command: str, **environment: str) -> str:
    """Return what a command prints; it must not fail."""
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, **environment}).stdout


def megabytes(folder: Path) -> float:
    """Return the size of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob('*') if not path.is_dir()) / 1e6


def debian(names: Sequence[str]) -> float:
    """Return the size of these packages with all that they need, from nothing."""
    known = set(run('apt-cache', 'pkgnames').split())
    missing = [name for name in names if name not in known]
    planned = run(
        'apt-get', '-s', '-o', 'Dir::State::status=/dev/null', '--no-install-recommends',
        'install', *(name for name in names if name in known))
    packages = re.findall(r'^Inst (\S+)', planned, re.MULTILINE)
    shown = run('apt-cache', 'show', '--no-all-versions', *packages)
    sizes = re.findall(r'^Installed-Size: (\d+)', shown, re.MULTILINE)
    if len(sizes) != len(packages):
        raise ValueError(f'{len(packages)} Debian packages, but {len(sizes)} sizes')
    for name in missing:
        print(f'{name}: apt does not know it here; {UNKNOWN_MB} MB assumed', file=sys.stderr)
    return sum(map(int, sizes)) * 1024 / 1e6 + UNKNOWN_MB * len(missing)


def main() -> int:
    """Print a line a layer and the sum."""
    stage = (ROOT / 'Dockerfile').read_text().rpartition('\nFROM ')[2]
    wheels = re.findall(r'[\w.-]+==[\w.]+', stage)
    names = [name.replace('$ROS_DISTRO', 'jazzy').strip('"') for name in re.findall(
        r'(?<=\s)(?:python3-|"ros-)[\w$"-]+', stage)]
    with TemporaryDirectory() as scratch:
        site, cache, venv = (Path(scratch, name) for name in ('site', 'cache', 'venv'))
        platforms = [f'--platform=manylinux{kind}_x86_64' for kind in ('_2_28', '_2_17', '2014')]
        run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', str(site),
            '--only-binary=:all:', f'--python-version={PYTHON}', *platforms, *wheels)
        run(sys.executable, '-m', 'venv', str(venv))
        run(sys.executable, '-m', 'adamtl_ros.cli', 'warm', ADAMTL_CACHE=str(cache),
            PYTHONSAFEPATH='1')
        own = run('git', 'ls-files', '-z', 'adamtl_ros', 'config', 'launch', 'msg').split('\0')
        layers = {
            'base image': float(BASE_MB),
            f'Debian packages ({len(names)} and what they need)': debian(names),
            'environment with pip': megabytes(venv),
            f'wheels ({len(wheels)})': megabytes(site),
            'this package': sum((ROOT / name).stat().st_size for name in own if name) / 1e6,
            'compiled model': megabytes(cache)}
    for name, size in layers.items():
        print(f'{size:7.0f} MB  {name}')
    print(f'{sum(layers.values()):7.0f} MB  in all')
    return 0


if __name__ == '__main__':
    sys.exit(main())

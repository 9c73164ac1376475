# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What a model gave for one picture where it was made, so that another machine can be held to it.

`MODEL.reference.npz` lies beside the weights: 'weights' their sha256, 'picture' uint8 (h, w, 3),
'achieved' the share of the dense cost at BUDGET, and by 'MODE.TASK' every fourth value of the
decoders' outputs, float32 (channels, rows, columns), of the backend torch.
"""

import hashlib
import json
from pathlib import Path
import statistics
import sys
from typing import Any
import zipfile

import numpy as np

from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings

BUDGET = 0.5
"""Of the frame in mode adaptive."""

LIMITS = {'f32': 1e-3, 'bf16': 0.05, 'int8': 0.15}
"""
Largest deviation by precision: in f32 of any value, relative to the largest of its task; in the
others of the mean value, relative to the mean: what they round is no fault.
"""

FRAMES = 12
"""Frames that are timed; the first two do not count."""

MOST_MS = 1500.0
"""Of the timed frames together, from the third on."""

Outputs = dict[str, np.ndarray]


def path_of(model: str) -> Path:
    """Return where the reference of a model lies, there or not; FileNotFoundError: no model."""
    return checkpoint.find(model).with_suffix('.reference.npz')


def outputs(engine: Engine, picture: np.ndarray) -> tuple[Outputs, float]:
    """Return what a reference holds of an engine: outputs by 'MODE.TASK', and the cost."""
    found: Outputs = {}
    achieved = 1.0
    for mode in engine.modes[::2]:
        budget = BUDGET if mode == 'adaptive' else 1.0
        result = engine.infer(picture, Settings(
            mode, budget, engine.tasks, raw=True, skip_empty=False))
        achieved = result.stats.budget_achieved
        found |= {f'{mode}.{task}': np.ascontiguousarray(value[:, 1::4, 1::4])
                  for task, value in result.raw.items()}
    return found, achieved


def write(model: str, picture: np.ndarray) -> Path:
    """Run a picture, uint8 (h, w, 3) RGB, on the backend torch and keep the results."""
    found, achieved = outputs(Engine(model, backend='torch'), picture)
    path = path_of(model)
    with whole(path) as part:
        np.savez_compressed(
            part, weights=_digest(model), picture=picture, achieved=achieved,
            **found)  # type: ignore[arg-type]
    return path


def read(model: str) -> tuple[np.ndarray, Outputs, float]:
    """Return picture, outputs and cost; ValueError: there are none for these weights."""
    path = path_of(model)
    if not path.is_file():
        raise ValueError(f'there is no {path}: make it where the results are known to be right, '
                         f'`adamtl check --model {model} --write-reference`')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        weights, picture = str(arrays.pop('weights')), arrays.pop('picture')
        achieved = float(arrays.pop('achieved'))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is damaged ({error})') from error
    if weights != _digest(model):
        raise ValueError(
            f'{path} is of other weights: make it anew, `adamtl check --model {model} '
            '--write-reference`')
    return picture, arrays, achieved


def deviation(found: Outputs, expected: Outputs, precision: str) -> tuple[float, str]:
    """Return the largest deviation (see LIMITS) of all outputs, and whose it is."""
    worst, name = 0.0, ''
    for each, wanted in expected.items():
        value = found.get(each)
        if value is None or value.shape != wanted.shape:
            return float('inf'), each
        wrong, size = np.abs(value - wanted), np.abs(wanted)
        share = float(wrong.max() / size.max() if precision == 'f32' else
                      wrong.mean() / size.mean())
        if not share <= worst:  # so that NaN counts
            worst, name = (share if np.isfinite(share) else float('inf')), each
    return worst, name


def probe(model: str, backend: str, precision: str, device: str, threads: int) -> dict[str, Any]:
    """
    Time an engine and hold it to the reference; ValueError where it cannot be had.

    Returns 'backend', 'precision', medians 'static_ms' and 'adaptive_ms' of the network (None
    without a policy), and 'deviation', 'of' and 'limit', or 'unknown', why there is no reference.
    """
    engine = Engine(
        model, backend=backend, device=device, num_threads=threads, precision=precision)
    figures: dict[str, Any] = {
        'backend': backend, 'precision': precision, 'adaptive_ms': None}
    try:
        picture, expected, achieved = read(model)
    except ValueError as error:
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        figures['unknown'] = str(error)
    else:
        found, cost = outputs(engine, picture)
        wrong, whose = deviation(found, expected, precision)
        # Rounding may move a gate; it must not move the cost.
        if abs(cost - achieved) > 0.02:
            wrong, whose = float('inf'), 'the cost at a budget'
        figures |= {'deviation': wrong, 'of': whose, 'limit': LIMITS[precision]}
    for mode in engine.modes[::2]:
        settings = Settings(mode, BUDGET if mode == 'adaptive' else 1.0, engine.tasks)
        times: list[float] = []
        # Slow boards are not kept waiting: what takes a second needs no twelve of it.
        while len(times) < FRAMES and (len(times) < 3 or sum(times) < MOST_MS):
            times.append(engine.infer(picture, settings).stats.network_ms)
        figures[f'{mode}_ms'] = statistics.median(times[2:])
    return figures


def main() -> int:
    """Print what `probe` returns for the arguments, or {'error': why not}, as a line of JSON."""
    model, backend, precision, device, threads = sys.argv[1:]
    try:
        figures = probe(model, backend, precision, device, int(threads))
    except (ValueError, OSError) as error:
        figures = {'backend': backend, 'precision': precision, 'error': str(error)}
    print(json.dumps(figures))
    return 0


def _digest(model: str) -> str:
    return hashlib.sha256(checkpoint.find(model).read_bytes()).hexdigest()


if __name__ == '__main__':
    sys.exit(main())

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl infer`: single images through the engine, without ROS."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from adamtl_ros import drawing
from adamtl_ros import intrinsics
from adamtl_ros.files import try_folder
from adamtl_ros.files import whole
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import read_picture
from adamtl_ros.waiting import saying

BUDGET = 0.6
"""Budget of models that need one, unless another is given."""

ENDINGS = ('.npz', '.png', '.json')
"""Of the files that are written for an image."""


def unique_names(paths: Sequence[Path]) -> list[str]:
    """
    Return a file stem for each path: its own where that is free, else with a number.

    a/x.png, b/x.png, x_2.png give x, x_3, x_2: a name that a path has of itself stays its own.
    """
    own = {path.stem for path in paths}
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken or (number > 1 and name in own):
            number += 1
            name = f'{path.stem}_{number}'
        taken.add(name)
        names.append(name)
    return names


def plain(value: Any) -> Any:
    """Return the value as JSON has it: NaN and infinity become null, tuples lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 (h, w, 3) RGB picture, whole or not at all; OSError where that fails."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    with whole(path) as aside:
        aside.write_bytes(encoded.tobytes())


def picture(image: np.ndarray, result: Result, class_names: dict[str, tuple[str, ...]]) -> (
        np.ndarray):
    """Return the frame, its overlay, its tasks and where the encoder ran, side by side."""
    stats = result.stats
    columns = {'frame': image, 'overlay': drawing.overlay(image, result.outputs)}
    columns |= {task: drawing.colourise(task, array) for task, array in result.outputs.items()}
    if result.gating_map is not None:
        columns['gating map'] = drawing.gating_picture(result.gating_map, image)
    asked = stats.budget_requested
    label = (
        f'{stats.mode}: budget ' + ('' if math.isnan(asked) else f'{asked:.2f} requested, ') +
        f'{stats.budget_achieved:.2f} achieved, {stats.gmacs:.2f} of {stats.gmacs_dense:.2f} '
        'GMACs')
    # All cells have the frame's shape; the network's own may differ from it.
    size = image.shape[1::-1]
    cells = [
        cell if cell is image else cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST)
        for cell in columns.values()]
    legend = {task: names for task, names in class_names.items() if task in result.outputs}
    return drawing.sheet(list(columns), [(label, cells)], legend=legend)


def run(options: argparse.Namespace) -> int:
    """
    Write NAME.npz, NAME.png and NAME.json into options.out for every image of options.images.

    ValueError or OSError name what is wrong; images before an unreadable one are written.
    """
    # Everything that can be wrong is looked at before the model is loaded.
    Settings(mode=options.mode or 'static', budget=options.budget)
    tasks = Settings(tasks=tuple(options.tasks)).tasks if options.tasks is not None else None
    if tasks == ():
        raise ValueError('tasks: name at least one')
    paths = list(dict.fromkeys(Path(path).resolve() for path in options.images))
    known = intrinsics.given(options)
    for path in paths:
        height, width = read_picture(path).shape[:2]
        known.camera((width, height))
    names = unique_names(paths)
    try_folder(options.out, [f'{name}{ending}' for name in names for ending in ENDINGS])
    with saying(f'adamtl infer: loading {options.model}'):
        engine = Engine(
            options.model, backend=options.backend, device=options.device,
            num_threads=options.threads, precision=options.precision)
    mode = options.mode or ('adaptive' if 'adaptive' in engine.modes else 'static')
    budget = BUDGET if options.budget is None and engine.needs_budget else options.budget
    settings = Settings(
        mode=mode, budget=budget, tasks=tasks or engine.tasks, gating_map=True, raw=options.raw)
    engine.check(settings)
    console = Console()
    for path, name in zip(paths, names):
        image = read_picture(path)
        result = engine.infer(image, settings, known.camera((image.shape[1], image.shape[0])))
        arrays: dict[str, Any] = dict(result.raw if options.raw else result.outputs)
        with whole(options.out / f'{name}.npz') as aside:
            np.savez_compressed(aside, **arrays)
        write_rgb(options.out / f'{name}.png', picture(image, result, engine.class_names))
        gating = {
            'image': str(path), 'width': image.shape[1], 'height': image.shape[0],
            'model': options.model, **asdict(result.stats)}
        with whole(options.out / f'{name}.json') as aside:
            aside.write_text(json.dumps(plain(gating), indent=2, allow_nan=False) + '\n')
        console.print(
            f'{path}: {options.out / name}.npz .png .json, budget '
            f'{result.stats.budget_achieved:.2f}, {result.stats.network_ms:.0f} ms',
            highlight=False, soft_wrap=True)
        if result.stats.lens == 'extreme':
            console.print(
                '  its lens is outside of what the network was trained for: do not trust depth',
                highlight=False, soft_wrap=True)
    return 0

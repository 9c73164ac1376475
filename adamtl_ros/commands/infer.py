# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl infer`: single images through the engine, without ROS."""

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
from adamtl_ros.arguments import add_camera
from adamtl_ros.arguments import add_engine
from adamtl_ros.arguments import folder
from adamtl_ros.arguments import given_camera
from adamtl_ros.arguments import Parser
from adamtl_ros.files import plain
from adamtl_ros.files import try_folder
from adamtl_ros.files import unique_names
from adamtl_ros.files import whole
from adamtl_ros.picture_files import read_picture
from adamtl_ros.picture_files import write_rgb
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import ordered
from adamtl_ros.waiting import saying

BUDGET = 0.6
"""Budget of models that need one, unless another is given."""

ENDINGS = ('.npz', '.png', '.json')
"""Of the files that are written for an image."""


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


def parser() -> Parser:
    """Return the parser of the command's arguments."""
    parse = Parser(
        prog='adamtl infer',
        description='Write for every image NAME.npz (an array per task, as the node publishes '
                    'it), NAME.png (a picture of all) and NAME.json (what ran and what it cost).')
    parse.add_argument('images', nargs='+', metavar='IMAGE', help='picture files')
    add_engine(parse)
    parse.add_argument(
        '--tasks', metavar='A,B', help='tasks to compute (default: all of the model)')
    parse.add_argument(
        '--raw', action='store_true',
        help="store the decoders' own outputs, channels first and before they are brought to the "
             "network's size, in place of what the node publishes")
    add_camera(parse, 'a camera of 73 degrees')
    parse.add_argument(
        '--out', type=folder, required=True, metavar='DIR', help='folder for the results')
    return parse


def main(argv: Sequence[str]) -> int:
    """
    Run `adamtl infer`: write NAME.npz, NAME.png and NAME.json for every image.

    ValueError or OSError name what is wrong; images before an unreadable one are written.
    """
    options = parser().parse_args(argv)
    # Everything that can be wrong is looked at before the model is loaded.
    Settings(mode=options.mode or 'static', budget=options.budget)
    tasks = None if options.tasks is None else ordered(
        name.strip() for name in options.tasks.split(',') if name.strip())
    if tasks == ():
        raise ValueError('tasks: name at least one')
    paths = list(dict.fromkeys(Path(path).resolve() for path in options.images))
    known = given_camera(options)
    for path in paths:
        height, width = read_picture(path).shape[:2]
        known.camera((width, height))
    names = unique_names(paths)
    written = {(options.out / f'{name}{ending}').resolve() for name in names for ending in ENDINGS}
    for path in paths:
        if path in written:
            raise ValueError(f'{path}: results would be written over it; give another --out')
    try_folder(options.out, [f'{name}{ending}' for name in names for ending in ENDINGS])
    with saying(f'adamtl infer: loading {options.model}'):
        engine = Engine(
            options.model, backend=options.backend, device=options.device,
            num_threads=options.threads, precision=options.precision)
    mode = options.mode or ('adaptive' if 'adaptive' in engine.modes else 'static')
    budget = BUDGET if options.budget is None and engine.needs_budget else options.budget
    settings = Settings(
        mode=mode, budget=budget, tasks=tasks or engine.tasks, gating_map=True, raw=options.raw,
        # Whoever wants the decoders' own outputs wants them of all.
        skip_empty=not options.raw)
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

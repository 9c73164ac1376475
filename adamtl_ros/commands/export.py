# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Write the static network as ONNX and OpenVINO IR, with a manifest, checked against torch.

For runtimes that this package does not drive.  The graph takes a picture as cameras give it,
uint8 (1, height, width, 3) RGB of the network's input size, and gives for every task the
decoder's output, float32 (1, channels, H, W); manifest.json says how to read those.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
import hashlib
from importlib import import_module
from itertools import islice
import json
import logging
from pathlib import Path
import shutil
import tempfile
from typing import Any
from typing import TYPE_CHECKING
import warnings

import numpy as np

from adamtl_ros.arguments import Parser
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.files import try_folder
from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source
from adamtl_ros.tasks import NOMINAL_FOCAL
from adamtl_ros.tasks import TASKS

if TYPE_CHECKING:
    from torch import nn

FORMAT = 'adamtl_ros-export-1'
NEEDED = {'onnx': ('onnx', 'onnxscript'), 'openvino': ('openvino',)}
"""The formats, and the packages that write them."""
OPSET = 18
LIMIT = 1e-4
"""Largest difference from torch, relative to the largest value of the task's output."""

READ = {
    'classes': 'resize bilinearly, then the channel with the largest value is the class',
    'map': 'resize bilinearly, then 1 / (1 + exp(-x)), in [0, 1]',
    'normals': 'resize bilinearly, scale to unit length; optical frame (x right, y down, z '
               'forward) of a camera of focal_px; turn those that do not face it',
    'depth': 'resize bilinearly, then exp(x), metres along the optical axis of a camera of '
             'focal_px; times the focal length of another, in pixels of this input, over focal_px',
}
"""How the outputs of a kind of task become what the node publishes."""

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Runs uint8 (1, h, w, 3), returns outputs by task."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parse = Parser(prog='adamtl export', description=__doc__)
    parse.add_argument('--model', default='glasses', help='preset or weights file')
    parse.add_argument('--tasks', help='comma-separated (default: all of the model)')
    parse.add_argument(
        '--format', action='append', choices=tuple(NEEDED), help='one alone (default: both)')
    parse.add_argument(
        '--source', help='pictures to check with: video, folder or bag (default: those shipped)')
    parse.add_argument('--frames', type=int, default=4, help='how many of them')
    parse.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for the files')
    return parse


def static_network(model: str, tasks: Sequence[str]) -> 'nn.Module':
    """Return a torch module from uint8 (1, h, w, 3) to a tuple of outputs, one a task."""
    import torch

    network = checkpoint.load(model)

    class Static(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self.network(self.network.inputs(pixels).contiguous(), tuple(tasks))
            return tuple(outputs[task].contiguous() for task in tasks)

    return Static().eval()


def torch_run(
        static: 'nn.Module', tasks: Sequence[str], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs (channels, H, W) of the module for uint8 (1, h, w, 3)."""
    import torch

    with torch.no_grad():
        values = static(torch.from_numpy(pixels))
    return {task: value[0].numpy() for task, value in zip(tasks, values)}


def write_onnx(static: 'nn.Module', pixels: np.ndarray, tasks: Sequence[str], path: Path) -> None:
    """Write ONNX, the weights within."""
    import onnx
    import torch

    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            static, (torch.from_numpy(pixels),), input_names=['pixels'],
            output_names=list(tasks), opset_version=OPSET, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


def write_openvino(
        static: 'nn.Module', pixels: np.ndarray, tasks: Sequence[str], path: Path) -> None:
    """Write OpenVINO IR, FILE.xml and FILE.bin, in float32."""
    import openvino as ov
    import torch

    with _quiet(), torch.no_grad():
        example = torch.from_numpy(pixels)
        static(example)  # what modules keep for inference is no part of the trace then
        traced = torch.jit.trace(static, example, check_trace=False)
        model = ov.convert_model(traced, input=[('pixels', list(pixels.shape), ov.Type.u8)])
    model.inputs[0].get_tensor().set_names({'pixels'})
    for output, task in zip(model.outputs, tasks):
        output.get_tensor().set_names({task})
    ov.save_model(model, str(path), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters warn of; what counts is how the result compares."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def onnx_run(path: Path) -> tuple[str, Run]:
    """Return what runs an ONNX file here, and a call that does."""
    try:
        import onnxruntime
    except ImportError:
        return openvino_run(path)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return f'onnxruntime {onnxruntime.__version__}', lambda pixels: dict(
        zip(names, session.run(names, {'pixels': pixels})))


def openvino_run(path: Path) -> tuple[str, Run]:
    """Return OpenVINO's name and version, and a call that runs a file with it."""
    import openvino as ov

    from adamtl_ros.runtime.openvino_parts import core

    compiled = core().compile_model(str(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled({'pixels': pixels})
        return {output.any_name: results[output] for output in compiled.outputs}

    return f'openvino {ov.__version__.split("-")[0]}', run


def differences(
        run: Run, pictures: Sequence[np.ndarray],
        expected: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Return, by task, the largest difference over the largest value expected."""
    worst: dict[str, float] = {}
    for picture, wanted in zip(pictures, expected):
        found = run(picture[None])
        if found.keys() != wanted.keys():
            raise ValueError(f'it gives {", ".join(found)}, not {", ".join(wanted)}')
        for task, value in wanted.items():
            share = float(np.abs(found[task][0] - value).max() / np.abs(value).max())
            worst[task] = max(worst.get(task, 0.0), share)
    return worst


def run(options: argparse.Namespace) -> dict[str, Any]:
    """
    Write the files into options.out, return the manifest.

    ValueError names what is wrong; nothing is left in the folder that does not compare.
    """
    formats = options.format or list(NEEDED)
    if options.frames < 1:
        raise ValueError(f'--frames {options.frames}: 1 or more')
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f'--out {options.out}: it is a file; give a folder')
    for name in (name for kind in formats for name in NEEDED[kind]):
        import_module(name)  # before the work
    engine = Engine(options.model, backend='torch')
    named = tuple(options.tasks.split(',')) if options.tasks else engine.tasks
    settings = Settings(tasks=named)
    engine.check(settings)
    tasks = settings.tasks
    pictures = [
        np.ascontiguousarray(shrink(frame.image, engine.input_size)) for frame in islice(
            open_source(options.source or DEMO).read(), options.frames)]
    if not pictures:
        raise ValueError(f'{options.source}: there are no pictures in it')
    names = {'onnx': ['network.onnx'], 'openvino': ['network.xml', 'network.bin']}
    try_folder(options.out, [
        *(name for kind in dict.fromkeys(formats) for name in names[kind]), 'manifest.json'])
    static = static_network(options.model, tasks)
    expected = [torch_run(static, tasks, picture[None]) for picture in pictures]
    files = {}
    with tempfile.TemporaryDirectory(prefix='adamtl_export_') as folder:
        for kind in dict.fromkeys(formats):
            name = 'network.onnx' if kind == 'onnx' else 'network.xml'
            path = Path(folder, name)
            write = write_onnx if kind == 'onnx' else write_openvino
            write(static, pictures[0][None], tasks, path)
            runtime, call = (onnx_run if kind == 'onnx' else openvino_run)(path)
            found = differences(call, pictures, expected)
            worst = max(found, key=lambda task: found[task])
            if not found[worst] <= LIMIT:
                raise ValueError(
                    f'{name} is not written: run by {runtime}, {worst} differs from torch by '
                    f'{found[worst]:.1e}, more than {LIMIT:g}')
            files[kind] = {
                'file': name, 'checked_with': runtime, 'difference': found,
                'sha256': {each.name: _sha256(each) for each in (
                    [path] if kind == 'onnx' else [path, path.with_suffix('.bin')])}}
        for each in files.values():
            for name in each['sha256']:
                with whole(options.out / name) as part:
                    shutil.copyfile(Path(folder, name), part)
    manifest = {
        'format': FORMAT, 'model': options.model,
        'weights_sha256': _sha256(checkpoint.find(options.model)),
        'input': {
            'name': 'pixels', 'dtype': 'uint8', 'shape': [1, *pictures[0].shape],
            'layout': 'batch, height, width, RGB',
            'focal_px': CANONICAL_FOCAL if engine.config.canonical else
            NOMINAL_FOCAL * engine.input_size[0]},
        'outputs': [{
            'name': task, 'dtype': 'float32', 'shape': [1, *expected[0][task].shape],
            'kind': TASKS[task].kind, 'read': READ[TASKS[task].kind],
            **({'class_names': list(engine.class_names[task])}
               if task in engine.class_names else {})} for task in tasks],
        'gmacs': engine.infer(pictures[0], settings).stats.gmacs_dense,
        'frames': len(pictures), 'limit': LIMIT,
        'files': files}
    with whole(options.out / 'manifest.json') as part:
        part.write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: Sequence[str]) -> int:
    """Run `adamtl export`; return its exit code."""
    options = parser().parse_args(argv)
    manifest = run(options)
    for each in manifest['files'].values():
        print(f'{options.out / each["file"]}: largest difference from torch '
              f'{max(each["difference"].values()):.1e} ({each["checked_with"]})')
    print(options.out / 'manifest.json')
    return 0

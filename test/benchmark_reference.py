# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Time the AdaMTL reference beside ours: the same weights, frames and gates, interleaved.

    python test/benchmark_reference.py ADAMTL_CLONE --budget 0.5 --rounds 30

needs a clone of github.com/scale-lab/AdaMTL (commit 5875898 was used), torch and openvino. Swin-T
at 224 x 224 with four tasks and the weights of reference/recipe.py. Our policy chooses the gates
for each frame; the reference computes its own policy, as it does in use, and then runs those.
"""

import argparse
from functools import partial
from itertools import cycle
from itertools import islice
from pathlib import Path
import statistics
import sys
import tempfile
import time

import numpy as np

from adamtl_ros.commands.convert import run as convert
from adamtl_ros.network.normalise import normalise
from adamtl_ros.runtime.backends import openvino_backend
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source

NAMES = {'saliency': 'sal'}


def follow(network, tasks, masks):
    """Let the reference compute its controllers, and run masks (by stage, block) anyway."""
    import torch

    backbone = network.backbone
    for stage, layer in enumerate(backbone.layers):
        for task in tasks:
            blocks, tokens = backbone.layers_controllers[task][stage], layer.tokens_select[task]
            turn = [0]

            def opened(x, hard=True, own=blocks.forward, stage=stage, turn=turn):
                own(x, hard)
                turn[0] = 0
                return torch.tensor([[float(mask.any()) for mask in masks[stage]]])

            def active(x, hard=True, own=tokens.forward, stage=stage, turn=turn):
                own(x, hard)
                # It is asked once for every open block, in order.
                mask = [mask for mask in masks[stage] if mask.any()][turn[0]]
                turn[0] += 1
                return torch.from_numpy(mask).float()[None, :, None]

            blocks.forward, tokens.forward = opened, active


def main():
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('clone', help='of github.com/scale-lab/AdaMTL')
    parser.add_argument('--budget', type=float, default=0.5)
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--precision', nargs='+', default=['f32'], choices=PRECISIONS)
    options = parser.parse_args()
    sys.argv[1:] = [options.clone]
    sys.path.insert(0, str(Path(__file__).parent / 'reference'))
    import make_reference as official
    import torch

    torch.manual_seed(0)
    parts = official.TINY, 64, official.PASCAL, 'per_task', True, True
    network, _ = official.build('tiny_task_aware', *parts)
    static, _ = official.build(
        'tiny_static', official.TINY, 64, official.PASCAL, None, False, False)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'reference.pth', Path(folder) / 'ours.safetensors'
        torch.save({'model': network.state_dict()}, source)
        convert(source, target)
        ours = {name: openvino_backend(str(target), precision=name) for name in options.precision}
    first = next(iter(ours.values()))
    config, tasks = first.config, first.config.tasks
    masks = [[np.ones(0)] * depth for depth in config.depths]
    follow(network, [NAMES.get(task, task) for task in tasks], masks)
    frames = [np.ascontiguousarray(shrink(frame.image, config.input_size[::-1]))
              for frame in open_source(DEMO).read()]
    times: dict[str, list[float]] = {}
    # What the decoders of the reference give, before the last upsampling.
    kept: dict[str, np.ndarray] = {}
    for task, decoder in network.decoders.items():
        decoder.register_forward_hook(
            lambda _, __, out, task=task: kept.update({task: out[0].numpy()}))
    worst = 0.0

    def timed(name, call):
        started = time.perf_counter()
        result = call()
        times.setdefault(name, []).append(1000 * (time.perf_counter() - started))
        return result

    for pixels in islice(cycle(frames), options.rounds + 3):
        image = normalise(torch.from_numpy(pixels)[None]).contiguous()
        for name, backend in ours.items():
            timed(f'ours, {name}, static', partial(backend.dense, pixels, tasks))
            logits, trace = timed(
                f'ours, {name}, adaptive',
                partial(backend.adaptive, pixels, tasks, options.budget, {}))
            gates = iter(trace.gates)
            for stage, depth in enumerate(config.depths):
                masks[stage][:] = islice(gates, depth)
            kept.clear()
            with torch.inference_mode():
                timed(f'reference, at the gates of {name}', partial(network, image))
            for task, value in logits.items() if name == 'f32' else ():
                other = kept[NAMES.get(task, task)]
                worst = max(worst, float(np.abs(value - other).max() / np.abs(other).max()))
        with torch.inference_mode():
            timed('reference, static', partial(static, image))
    medians = {name: statistics.median(values[3:]) for name, values in times.items()}
    for name, value in medians.items():
        print(f'{name:36} {value:8.2f} ms')
    for name in ours:
        adaptive = medians[f'ours, {name}, adaptive']
        share = adaptive / medians[f'ours, {name}, static']
        ratio = medians[f'reference, at the gates of {name}'] / adaptive
        print(f'{name}: {share:.3f} of our static; the reference takes {ratio:.2f} times as long')
    print(f'largest difference of an output (f32), of its largest value: {worst:.1e}')


if __name__ == '__main__':
    main()

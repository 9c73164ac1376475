# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure the ranges that precision int8 needs, after training, on pictures that need no labels.

NNCF runs the dense network over the pictures and finds the range of every layer's input.  They are
written beside the weights, MODEL.int8.json; running the model needs no NNCF.
"""

from collections.abc import Sequence
from itertools import islice
import math
import re
import sys
from typing import Any

import numpy as np
import openvino as ov

from adamtl_ros.arguments import Parser
from adamtl_ros.datasets import open_dataset
from adamtl_ros.evaluation.accuracy import evaluate
from adamtl_ros.evaluation.accuracy import table
from adamtl_ros.files import try_file
from adamtl_ros.network import checkpoint
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.runtime import int8
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.graphs import Graphs
from adamtl_ros.runtime.lite_graphs import LiteGraphs
from adamtl_ros.runtime.openvino_parts import core
from adamtl_ros.runtime.preprocess import shrink
from adamtl_ros.runtime.settings import check_budget
from adamtl_ros.sources import open_source

FLOAT = r'encoder\.stem(\..*)?|pyramid\.context|decoders\..*\.(segment\.3|out)'
"""The layers that stay in float unless told otherwise."""
_PASSED = {'Reshape', 'Transpose', 'Gather', 'Squeeze', 'Unsqueeze'}
"""Operations that move values without changing them: a range before them is one after them."""
_STORED = {'Constant', 'Convert'}


def ranges(model: ov.Model, inputs: Sequence[Any]) -> dict[str, tuple[float, float]]:
    """Return the range of the input of every layer of a graph that has a name and weights."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters

    # Both would change the weights, which are the same in every precision.
    kept = AdvancedQuantizationParameters(
        disable_bias_correction=True,
        smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1))
    quantised = nncf.quantize(
        model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED, subset_size=len(inputs), advanced_parameters=kept)
    found = {}
    for node in quantised.get_ordered_ops():
        if node.get_type_name() not in ('MatMul', 'Convolution', 'GroupConvolution'):
            continue
        for value in node.input_values()[:2]:
            source = value.get_node()
            while source.get_type_name() in _PASSED:
                source = source.input_value(0).get_node()
            # Of the two inputs, the weights are a constant.
            if source.get_type_name() == 'FakeQuantize' and source.input_value(
                    0).get_node().get_type_name() not in _STORED:
                # A depthwise convolution's have one a channel.
                low, high = (source.input_value(i).get_node().get_data() for i in (1, 2))
                found[node.get_friendly_name()] = (float(low.min()), float(high.max()))
    return found


def _answers(model: ov.Model, inputs: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the outputs, by name, for each of the inputs of a model that has one."""
    request = core().compile_model(
        model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}).create_infer_request()
    return [{port.any_name: np.array(value) for port, value in request.infer([each]).items()}
            for each in inputs]


def calibrate(
        model: str, pictures: Sequence[np.ndarray], keep: str = FLOAT
) -> dict[str, tuple[float, float]]:
    """
    Return the ranges of a model's layers.

    pictures: uint8 (h, w, 3) RGB of any size.  keep: regular expression of the layers that stay
    in float.
    """
    config, weights, _ = checkpoint.read(model)
    size = config.input_size[1], config.input_size[0]
    pixels = [np.ascontiguousarray(shrink(picture, size))[None] for picture in pictures]
    found = _of_lite(LiteGraphs(config, weights), pixels) if isinstance(
        config, LiteConfig) else _of_swin(Graphs(config, weights), pixels)
    return {name: found[name] for name in sorted(found) if not re.fullmatch(keep, name)}


def _of_lite(
        graphs: LiteGraphs, pixels: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    encoder, outputs = graphs.encoder(), graphs.outputs(graphs.config.tasks)
    return ranges(encoder, pixels) | ranges(outputs, _answers(encoder, pixels))


def _of_swin(
        graphs: Graphs, pixels: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    config = graphs.config
    found = ranges(graphs.stem(), pixels)
    answers = _answers(graphs.stem(), pixels)
    taps: list[dict[str, np.ndarray]] = [{} for _ in pixels]
    for stage in range(len(config.depths)):
        maps = [answer['y'] for answer in answers]
        found |= ranges(graphs.dense(stage), maps)
        answers = _answers(graphs.dense(stage), maps)
        for tap, answer in zip(taps, answers):
            tap[f'tap{stage}'] = answer['y']
    for task in config.tasks:
        found |= ranges(graphs.decoder(task), taps)
    return found


def check(model: str, dataset: str, budgets: Sequence[float], limit: int = 0) -> dict[str, Any]:
    """Return the report of `evaluate` for int8, with Δm to f32 at the same budget."""
    engine = Engine(model, backend='openvino')
    chosen = budgets if 'adaptive' in engine.modes else []
    data = open_dataset(dataset, engine.tasks)
    exact = evaluate(engine, data, chosen, limit)
    return evaluate(
        Engine(model, backend='openvino', precision='int8'), data, chosen, limit,
        counterpart=exact)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl quantize MODEL ...`; 2 on bad arguments, 1 where int8 loses too much."""
    parser = Parser(prog='adamtl quantize', description=__doc__)
    parser.add_argument('model', help='preset or weights file')
    parser.add_argument(
        '--source', required=True, help='video, folder of pictures or bag, like those to come')
    parser.add_argument('--frames', type=int, default=300, help='how many pictures to use')
    parser.add_argument('--every', type=int, default=1, help='of the source, use each n-th')
    parser.add_argument(
        '--float', default=FLOAT, metavar='REGEX', help='layers that stay in float')
    parser.add_argument('--check', metavar='DATASET', help='compare the accuracy with f32 on it '
                        '(default: none)')
    parser.add_argument('--budgets', default='0.75,0.5', help='that the check tries')
    parser.add_argument('--limit', type=int, default=0, help='frames of the check, 0: all')
    parser.add_argument(
        '--most', type=float, default=0.5, metavar='PERCENT', help='Δm that may be lost')
    options = parser.parse_args(argv)
    try:
        if options.frames < 1 or options.every < 1 or options.limit < 0:
            raise ValueError('--frames and --every: 1 or more; --limit: 0 or more')
        budgets = [check_budget(each) for each in options.budgets.split(',') if each]
        try_file(int8.path_of(options.model))
        pictures = [frame.image for frame in islice(
            open_source(options.source).read(), 0, options.frames * options.every,
            options.every)]
        if not pictures:
            raise ValueError(f'{options.source}: there are no pictures in it')
        found = calibrate(options.model, pictures, options.float)
        path = int8.write(options.model, found)
        print(f'{path}: {len(found)} layers, from {len(pictures)} pictures')
        if not options.check:
            return 0
        report = check(options.model, options.check, budgets, options.limit)
    except (ValueError, OSError, re.error) as error:
        print(f'adamtl quantize: {error}', file=sys.stderr)
        return 2
    from rich.console import Console
    Console(width=180).print(table(report))
    lost = [row['delta_m'] for row in report['rows'] if not row['delta_m'] >= -options.most]
    if any(map(math.isnan, lost)):
        print(f'adamtl quantize: Δm cannot be told: {options.check} has no labels of the tasks, '
              'or int8 gives no numbers. Check on frames with labels, or leave more layers in '
              'float (--float)', file=sys.stderr)
        return 1
    if lost:
        print(f'adamtl quantize: Δm {min(lost):+.2f} %, more than {options.most} % are lost: '
              'leave more layers in float (--float), or use more and other pictures',
              file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())

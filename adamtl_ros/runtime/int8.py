# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The ranges of the layers' inputs that precision int8 computes with, kept beside the weights.

`MODEL.int8.json` holds {'weights': sha256 of the weights file, 'ranges': {layer: [least,
largest]}}.  A layer without a range is computed in float.
"""

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path

from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint

Ranges = Mapping[str, tuple[float, float]]


def path_of(model: str) -> Path:
    """Return where the ranges of a model lie, there or not; FileNotFoundError: no such model."""
    return checkpoint.find(model).with_suffix('.int8.json')


def read(model: str) -> dict[str, tuple[float, float]]:
    """Return the ranges of a model; ValueError where there are none for these weights."""
    path = path_of(model)
    make = f'make them, `adamtl quantize {model} --source PICTURES`, or choose precision f32'
    if not path.is_file():
        raise ValueError(f"precision 'int8': the model has no ranges ({path} is missing): {make}")
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        weights = content['weights']
        ranges = {name: (float(low), float(high))
                  for name, (low, high) in content['ranges'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"precision 'int8': the ranges {path} are damaged ({error!r}): {make}") from error
    if weights != _digest(model):
        raise ValueError(f"precision 'int8': the ranges {path} are of other weights: {make}")
    return ranges


def write(model: str, ranges: Ranges) -> Path:
    """Write the ranges beside the weights; return the file."""
    path = path_of(model)
    content = {'weights': _digest(model), 'ranges': ranges}
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    return path


def _digest(model: str) -> str:
    return hashlib.sha256(checkpoint.find(model).read_bytes()).hexdigest()

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: safetensors that carry their configuration as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adamtl_ros.files import whole
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.config import read_config
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.kinds import network_of
from adamtl_ros.network.tensors import read as read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from adamtl_ros.network.lite_network import LiteNetwork
    from adamtl_ros.network.network import AdaMTL

FORMAT = 'adamtl_ros-1'
ENCODER_FORMAT = 'adamtl_ros-encoder-1'
"""Of a file with the encoder alone, to start a training from."""
WEIGHTS = Path(__file__).resolve().parent.parent / 'weights'


class EncoderOnlyError(ValueError):
    """A file to train from, not to run."""


def save(path: str | Path, network: LiteNetwork | AdaMTL, half: bool = True,
         notes: Mapping[str, str] | None = None) -> None:
    """
    Write the weights and the configuration.

    half: store as float16 what fits it; they are float32 again once loaded.
    notes: further metadata, such as the licence and the origin of the weights.
    """
    import torch

    tensors = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        small = half and 'running_' not in name and bool(value.abs().max() < 6e4)
        tensors[name] = value.to(torch.float16 if small else torch.float32).contiguous()
    write(path, tensors, network.config, notes=notes)


def write(path: str | Path, tensors: Mapping[str, Tensor], config: Config,
          encoder_only: bool = False, notes: Mapping[str, str] | None = None) -> None:
    """
    Write tensors under the network's names in one move.

    OSError names the file where it cannot be written, as on a full disk; what was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {**(notes or {}), 'format': ENCODER_FORMAT if encoder_only else FORMAT,
                'config': config.to_json()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole(path, durable=True) as part:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()}, part, metadata)
    except (OSError, SafetensorError) as error:
        raise OSError(f'cannot write {path}: {error.__cause__ or error}') from error


def find(model: str) -> Path:
    """Return the file of a preset's shipped weights or of a path; FileNotFoundError if none."""
    if model in PRESETS:
        path = WEIGHTS / f'{model}.safetensors'
        if not path.is_file():
            shipped = ', '.join(sorted(file.stem for file in WEIGHTS.glob('*.safetensors')))
            raise FileNotFoundError(
                f'the preset {model!r} has no weights in this package (shipped: {shipped}): '
                'give the path of a .safetensors file instead')
        return path
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(
            f'no model {model!r}: give a preset ({", ".join(PRESETS)}) or the path of a '
            '.safetensors file that `adamtl train` wrote')
    return path


def read(
        model: str, to_train: bool = False) -> tuple[Config, dict[str, np.ndarray], bool]:
    """
    Return configuration, weights (float32 arrays by name) and whether they are an encoder alone.

    to_train: take a file with an encoder alone as well.  FileNotFoundError: neither preset nor
    file.  ValueError: a file that is damaged, not ours, or not to be run.
    """
    path = find(model)
    try:
        metadata, stored = read_tensors(path)
        encoder_only = metadata.get('format') == ENCODER_FORMAT
        if encoder_only and not to_train:
            raise EncoderOnlyError(
                f'{path} holds an encoder alone, without trained decoders: train it first, '
                f'`adamtl train CONFIG start={path}`')
        if metadata.get('format') != FORMAT and not encoder_only:
            raise ValueError(f'its format is {metadata.get("format")!r}, not {FORMAT!r}')
        config = read_config(metadata['config'])
        # Copied where they are float32 already: torch wants arrays that may be written.
        arrays = {name: array.astype(np.float32) for name, array in stored.items()}
        return config, arrays, encoder_only
    except EncoderOnlyError:
        raise
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> ValueError:
    """Return the error that says that a weights file cannot be used, and why."""
    return ValueError(
        f'cannot load the weights {path}: {error}. The file is damaged or was not written '
        'by adamtl_ros: fetch or train it again')


def load(model: str, to_train: bool = False) -> LiteNetwork | AdaMTL:
    """
    Return the network of a preset or of a file, in evaluation mode; arguments as for `read`.

    to_train: policy and decoders are new where the file has an encoder alone.
    """
    import torch

    config, arrays, encoder_only = read(model, to_train)
    try:
        network = network_of(config)
        expected = {
            name for name, value in network.state_dict().items()
            if value.is_floating_point() and (not encoder_only or name.startswith('encoder.'))}
        missing = expected ^ set(arrays)
        if missing:
            raise ValueError(f'its tensors do not match, {sorted(missing)[0]} for one')
        network.load_state_dict(
            {name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    except (ValueError, RuntimeError) as error:
        raise unusable(find(model), error) from error
    return network.eval()

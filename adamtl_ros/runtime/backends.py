# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which backend runs a model; each is imported only if it is used."""

from collections.abc import Mapping
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from adamtl_ros.network import checkpoint
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.trace import Trace
from adamtl_ros.paths import cache

BACKENDS = ('auto', 'torch', 'openvino')
PRECISIONS = ('f32', 'bf16', 'int8')

Logits = dict[str, np.ndarray]


class Backend(Protocol):
    """
    What runs pixels through a network.

    Pixels are uint8 (h, w, 3) of a size that the network takes; logits are, by task, the outputs
    of the decoders, float32 (channels, H, W).  The trace tells at which size they ran.
    """

    name: str

    @property
    def config(self) -> Config:
        """Return that of the network."""

    def dense(self, pixels: np.ndarray, tasks: Sequence[str]) -> tuple[Logits, Trace]:
        """Run all blocks."""

    def adaptive(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float]) -> tuple[Logits, Trace]:
        """Run what the policy chooses."""


class PricedBackend(Backend, Protocol):
    """A backend of a network whose policy compares frames: LiteConfig."""

    def price(
            self, pixels: np.ndarray, tasks: Sequence[str], target: float,
            weights: Mapping[str, float], mean: float) -> float:
        """See BlockPolicy.price."""

    def expected(
            self, pixels: np.ndarray, tasks: Sequence[str], limit: float,
            weights: Mapping[str, float]) -> tuple[float, float]:
        """See BlockPolicy.expected."""

    def priced(
            self, pixels: np.ndarray, tasks: Sequence[str], cap: float,
            weights: Mapping[str, float], price: float, skip_empty: bool = False,
            mean: float | None = None
    ) -> tuple[Logits, Trace]:
        """
        Run what is worth its price, and costs no more than the cap, maybe at a smaller size.

        skip_empty: but for decoders of tasks that the frame has nothing for; the trace names them.
        mean: what frames cost on average, see BlockPolicy.begin.
        """

    def fixed(
            self, pixels: np.ndarray, tasks: Sequence[str], budget: float,
            weights: Mapping[str, float], seed: int | None = None) -> tuple[Logits, Trace]:
        """Run size and blocks that BlockPolicy.fixed or, with a seed, .random returns."""


def backend_of(
        model: str, name: str, device: str, num_threads: int, precision: str) -> Backend:
    """Return the backend of a model; arguments as for Engine, ValueError on what cannot be."""
    if name not in BACKENDS:
        raise ValueError(f'backend {name!r}: choose one of {", ".join(BACKENDS)}')
    if precision not in PRECISIONS:
        raise ValueError(f'precision {precision!r}: choose one of {", ".join(PRECISIONS)}')
    installed = find_spec('openvino') is not None
    if name == 'openvino' or (name == 'auto' and device == 'cpu' and installed):
        if not installed:
            raise ValueError(
                "backend 'openvino' is not installed: pip install 'adamtl_ros[openvino]', or "
                'choose torch')
        if device != 'cpu':
            raise ValueError(
                f"device {device!r}: the backend openvino runs on 'cpu' alone; choose torch")
        return openvino_backend(model, num_threads, precision, cache())
    from adamtl_ros.runtime.torch_backend import TorchBackend
    return TorchBackend(model, device, num_threads, precision)


def openvino_backend(
        model: str, num_threads: int = 0, precision: str = 'f32',
        folder: Path | None = None) -> Backend:
    """
    Return the backend that runs a model in OpenVINO, on the CPU.

    num_threads: of this model; 0 leaves it to OpenVINO.  precision: 'f32', 'bf16' on a processor
    that has it, or 'int8' where `adamtl quantize` has measured the model.  folder: of compiled
    models; None compiles anew.  ValueError where the model's file cannot be used.
    """
    from adamtl_ros.runtime import int8
    from adamtl_ros.runtime.openvino_parts import Compiler

    config, weights, _ = checkpoint.read(model)
    ranges = int8.read(model) if precision == 'int8' else None
    compiler = Compiler(precision, num_threads, folder)
    try:
        if isinstance(config, LiteConfig):
            from adamtl_ros.runtime.lite_backend import LiteBackend
            return LiteBackend(config, weights, ranges, compiler)
        from adamtl_ros.runtime.openvino_backend import OpenVinoBackend
        return OpenVinoBackend(config, weights, ranges, compiler)
    except KeyError as error:
        raise checkpoint.unusable(
            checkpoint.find(model),
            ValueError(f'its tensors do not match, {error} is missing')) from error

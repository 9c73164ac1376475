# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An engine for tests of what is around it."""

from typing import Any

import numpy as np

from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.preprocess import shrink


class InstantEngine(Engine):
    """Takes frames as the real one does, and computes nothing."""

    def __init__(self, model: str, **_: Any) -> None:
        """Load nothing."""
        self.model, self.backend, self.device = model, 'none', 'cpu'
        self.tasks, self.class_names, self.input_size = ('depth',), {}, (256, 192)

    def check(self, settings: Any) -> None:
        """Accept everything."""

    def min_budget(self, tasks: Any) -> float:
        """Keep any budget."""
        return 0.1

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Have one size for all pictures."""
        return self.input_size

    def warm(self, settings: Any) -> None:
        """Compile nothing."""

    def calibrate(self) -> None:
        """Take no time that could be predicted."""

    def infer(
            self, image: np.ndarray, settings: Any, camera: Any = None, stream: Any = None
    ) -> Result:
        """Bring the frame to the network's size, and answer with its brightness."""
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        small = shrink(image, self.input_size)
        outputs = {task: small.mean(-1, dtype=np.float32) for task in settings.tasks}
        return Result(outputs, GatingResult(
            settings.mode, settings.budget, 1.0, 1.0, 1.0, settings.tasks))

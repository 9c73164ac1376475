# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What ran for a frame, whatever the network."""

from dataclasses import dataclass
from dataclasses import field

import numpy as np

Gates = list[np.ndarray]
"""For each block, bool (n): which tokens run, or (1) of one that runs whole or not at all."""


@dataclass
class Trace:
    """
    What ran for one frame.

    gates: see Gates; frames share the arrays, so that they may be read-only.
    macs: everything that was executed, policy included.
    token_fraction: per block, share of its tokens executed.  task_fraction: share of tokens,
    over all blocks, that each enabled task asks for by itself: those whose logit exceeds the
    threshold in force, and of a block that runs whole all or none, as its logit of the block does.
    block_macs: per block, what was executed of it, its controller not counted.
    empty: the tasks that the frame has nothing for, whose decoders did not run.
    size: (height, width) of the input, where that can be another one than the frame's.
    """

    gates: Gates
    macs: float
    token_fraction: list[float]
    task_fraction: list[float] = field(default_factory=list)
    block_macs: list[int] = field(default_factory=list)
    empty: tuple[str, ...] = ()
    size: tuple[int, int] | None = None

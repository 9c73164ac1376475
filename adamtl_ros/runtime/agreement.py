# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How far two results of a task agree, as a share of pixels that a user would call the same."""

import numpy as np

from adamtl_ros.tasks import TASKS

MAP_TOLERANCE = 0.1
NORMALS_TOLERANCE_DEG = 11.25
DEPTH_RATIO = 1.1


def agreement(task: str, one: np.ndarray, other: np.ndarray) -> float:
    """
    Return the share of pixels, in [0, 1], on which two published arrays of a task agree.

    Classes: the same id.  Maps: within 0.1.  Normals: within 11.25 degrees, or none (NaN) in both.
    Depth: within a factor of 1.1.
    """
    kind = TASKS[task].kind
    if kind == 'classes':
        same = one == other
    elif kind == 'map':
        same = np.abs(one - other) <= MAP_TOLERANCE
    elif kind == 'normals':
        same = (one * other).sum(-1) >= np.cos(np.deg2rad(NORMALS_TOLERANCE_DEG))
        same |= np.isnan(one).any(-1) & np.isnan(other).any(-1)
    else:
        same = np.abs(np.log(one / other)) <= np.log(DEPTH_RATIO)
    return float(same.mean())

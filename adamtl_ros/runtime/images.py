# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is published of a result, for the node and for bags alike; it needs no ROS."""

import math
from typing import Any

import numpy as np

from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.engine import Result
from adamtl_ros.tasks import TASKS


def published_images(result: Result) -> list[tuple[str, np.ndarray, str]]:
    """Return the topic (below the node's name), array and encoding of every image of a result."""
    images = []
    for task, values in result.outputs.items():
        encoding = 'mono16' if values.dtype == np.uint16 else TASKS[task].encoding
        images.append((task, values, encoding))
    images += [(f'{task}/confidence', values, 'mono8')
               for task, values in result.confidence.items()]
    if result.gating_map is not None:
        images.append(('gating_map', result.gating_map, 'mono8'))
    return images


def stats_fields(stats: GatingResult) -> dict[str, Any]:
    """Return what a frame's GatingStats says of the frame: all but header, latency and counts."""
    return {
        'mode': stats.mode, 'tasks': list(stats.tasks), 'reused': stats.reused,
        'tasks_empty': list(stats.tasks_empty),
        **{name: float(getattr(stats, name)) for name in (
            'budget_requested', 'budget_cap', 'budget_mean', 'price', 'budget_achieved', 'gmacs',
            'gmacs_dense', 'preprocess_ms', 'network_ms', 'postprocess_ms')},
        # In mode adaptive comparing is a check now and then, not a property of the frame.
        'agreement': float(stats.agreement) if stats.mode == 'shadow' else math.nan,
        **{name: [float(value) for value in getattr(stats, name)] for name in (
            'task_token_fraction', 'block_active', 'token_fraction')}}

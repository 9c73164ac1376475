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


AGE_LIMIT_MS = 60_000.0
"""A frame that is older was stamped by a clock that differs, as that of a recording does."""


def age_ms(stamp: int, now: int) -> float:
    """Return how old a frame of that stamp is now, both in ns; NaN where that cannot be known."""
    age = (now - stamp) / 1e6
    return age if stamp and 0.0 <= age <= AGE_LIMIT_MS else math.nan


def stats_fields(stats: GatingResult) -> dict[str, Any]:
    """
    Return what a frame's GatingStats says of the frame: all but header, times beside and counts.

    task_stats: what each TaskStats says, in a dict.
    """
    asked = stats.task_token_fraction or (math.nan,) * len(stats.tasks)
    return {
        'mode': stats.mode, 'reused': stats.reused, 'warped': stats.warped,
        'fused': stats.fused,
        'input_width': stats.size[0], 'input_height': stats.size[1],
        **{name: float(getattr(stats, name)) for name in (
            'budget_requested', 'budget_cap', 'budget_mean', 'price', 'budget_achieved',
            'gmacs', 'gmacs_dense', 'preprocess_ms', 'network_ms', 'postprocess_ms', 'agreement')},
        'task_stats': [
            {'name': task, 'token_fraction': float(share), 'empty': task in stats.tasks_empty,
             'agreement': float(stats.task_agreement.get(task, math.nan))}
            for task, share in zip(stats.tasks, asked, strict=True)],
        'block_active': list(stats.block_active),
        'token_fraction': [float(value) for value in stats.token_fraction]}

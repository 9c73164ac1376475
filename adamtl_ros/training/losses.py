# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A loss per kind of task, on decoder outputs of any resolution."""

from collections.abc import Mapping

import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.encoder import upsample
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

WEIGHTS = {
    'semseg': 1.0, 'human_parts': 1.0, 'saliency': 2.0, 'normals': 3.0, 'edges': 2.0,
    'depth': 1.5}
"""How much each task counts in the sum; chosen so that the terms start at similar size."""

STRIDE = {'edges': 1}
"""Spacing of the label pixels that are compared (2 unless given): edges are one pixel thin."""

EDGE_WEIGHT = 4.0
"""How much an edge pixel counts: about a twelfth of all pixels are edges."""


def task_loss(
        task: str, outputs: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """
    Return the scalar loss of one task.

    outputs: (B, channels, H, W).  label: (B, h, w) or (B, h, w, 3), as the reader gives it.
    Cross-entropy for classes, binary cross-entropy for maps (soft targets for saliency),
    1 - cosine for normals, absolute difference of ln metres for depth.
    """
    step = STRIDE.get(task, 2)
    label = label[:, ::step, ::step]
    outputs = upsample(outputs.float(), label.shape[1:3])
    kind = TASKS[task].kind
    if kind == 'classes':
        return functional.cross_entropy(
            outputs, label.long(), class_weights, ignore_index=IGNORE)
    if task == 'edges':
        target = label.float()
        return functional.binary_cross_entropy_with_logits(
            outputs[:, 0], target, weight=1 + (EDGE_WEIGHT - 1) * target)
    if kind == 'map':
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], label.float() / 255)
    if kind == 'normals':
        target, valid = normals_of(label)
        cosine = functional.cosine_similarity(outputs, target, 1)
        return ((1 - cosine) * valid).sum() / valid.sum().clamp(min=1)
    metres = label.float() / 1000
    valid = metres > 0
    error = (outputs[:, 0] - metres.clamp(min=1e-3).log()).abs()
    return (error * valid).sum() / valid.sum().clamp(min=1)


def normals_of(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit normals (B, 3, h, w) and bool (B, h, w) where valid, of uint8 (B, h, w, 3)."""
    vectors = label.float().permute(0, 3, 1, 2) / 127.5 - 1
    return functional.normalize(vectors, dim=1), (label > 0).any(-1)


def total_loss(
        outputs: Mapping[str, Tensor], frames: Mapping[str, Tensor],
        class_weights: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted sum over the tasks, and each task's own loss."""
    losses = {
        task: task_loss(task, value, frames[task], class_weights.get(task))
        for task, value in outputs.items()}
    total = torch.stack([WEIGHTS[task] * value for task, value in losses.items()]).sum()
    return total, {task: float(value.detach()) for task, value in losses.items()}

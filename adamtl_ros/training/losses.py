# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A loss per kind of task, on decoder outputs of any resolution."""

from collections.abc import Mapping
from collections.abc import Sequence
import math

import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.encoder import upsample
from adamtl_ros.tasks import DEPTH_RANGE
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.training.pictures import UNKNOWN

WEIGHTS = {
    'plain': {
        'semseg': 1.0, 'human_parts': 1.0, 'saliency': 2.0, 'normals': 3.0, 'edges': 2.0,
        'depth': 1.5},
    'robust': {
        'semseg': 1.0, 'human_parts': 1.0, 'saliency': 1.5, 'normals': 2.5, 'edges': 2.0,
        'depth': 2.0},
    'paper': {
        'semseg': 1.0, 'human_parts': 2.0, 'saliency': 5.0, 'normals': 10.0, 'edges': 50.0,
        'depth': 1.0}}
"""How much each task counts in the sum; but for the paper's, the terms start at similar size."""

STRIDE = {'edges': 1}
"""Spacing of the label pixels that the plain losses compare (2 unless given): edges are thin."""

EDGE_WEIGHT = 4.0
"""How much an edge pixel counts in the plain loss: about a twelfth of all pixels are edges."""

FAR_WEIGHT = 0.1
"""How much a metre counts beside one of the logarithm, in the robust loss of depth."""

MOST_LOG_METRES = 4.0
"""What is said beyond this counts as this, so that nothing overflows."""

EDGE_SHARE = 0.95
"""Weight of edge pixels, and 1 - this of the others, in the paper's loss."""


def plain_loss(
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
        return _cross_entropy(outputs, label, class_weights)
    if task == 'edges':
        target = (label == 1).float()
        return _mean(functional.binary_cross_entropy_with_logits(
            outputs[:, 0], target, weight=1 + (EDGE_WEIGHT - 1) * target, reduction='none'),
            label != IGNORE)
    if kind == 'map':
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], label.float() / 255)
    if kind == 'normals':
        target, valid = normals_of(label)
        return _mean(1 - functional.cosine_similarity(outputs, target, 1), valid)
    metres = label.float() / 1000
    return _mean((outputs[:, 0] - metres.clamp(min=1e-3).log()).abs(), metres > 0)


def robust_loss(
        task: str, outputs: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """
    Return the scalar loss of one task, with terms that do not vanish where it is nearly right.

    As `plain_loss`, but for maps with soft targets the absolute difference is added, and normals
    are compared by the distance of unit vectors; centimetres do not count in depth, metres do.
    """
    kind = TASKS[task].kind
    if kind not in ('map', 'normals', 'depth') or task == 'edges':
        return plain_loss(task, outputs, label, class_weights)
    label = label[:, ::2, ::2]
    outputs = upsample(outputs.float(), label.shape[1:3])
    if kind == 'map':
        target, logits = label.float() / 255, outputs[:, 0]
        return functional.binary_cross_entropy_with_logits(logits, target) + (
            logits.sigmoid() - target).abs().mean()
    if kind == 'normals':
        vectors, valid = normals_of(label)
        squares = (functional.normalize(outputs, dim=1) - vectors).square().sum(1)
        return _mean((squares + 1e-4).sqrt(), valid)
    metres, said = label.float() / 1000, outputs[:, 0]
    error = (said - metres.clamp(min=1e-2).log()).abs()
    return _mean(
        error + FAR_WEIGHT * (said.clamp(max=MOST_LOG_METRES).exp() - metres).abs(), metres > 0)


def person_loss(outputs: Tensor, person: Tensor, classes: Sequence[int]) -> Tensor:
    """
    Return the scalar loss of one task's classes against what is known of people alone.

    outputs: (B, channels, H, W).  person: uint8 (B, h, w), how likely each pixel is of a person,
    and UNKNOWN.  classes: those that are of people.  Of the loss of the frames of which something
    is known the share of these frames counts.
    """
    person = person[:, ::2, ::2]
    known, share = (person != UNKNOWN).float(), person.float() / 255
    logits = upsample(outputs.float(), person.shape[1:]).log_softmax(1)
    others = [number for number in range(outputs.shape[1]) if number not in classes]
    yes, no = (logits[:, list(part)].logsumexp(1) for part in (classes, others))
    error = -(share * yes + (1 - share) * no) * (1 + 2 * share)
    return _mean(error, known) * known.flatten(1).amax(1).mean()


def paper_loss(
        task: str, outputs: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """
    Return the scalar loss of one task as AdaMTL defines it (after ASTMT and MTI-Net).

    As `plain_loss`, but cross-entropy without class weights, balanced binary cross-entropy for
    maps (Xie & Tu, ICCV 2015, equation 2: saliency by the batch's share, edges by EDGE_SHARE), L1
    on unit normals, L1 on metres.
    """
    outputs = upsample(outputs.float(), label.shape[1:3])
    kind = TASKS[task].kind
    if kind == 'classes':
        return _cross_entropy(outputs, label, None)
    if kind == 'map':
        target = (label == 1 if task == 'edges' else label >= 128).float()
        valid = (label != IGNORE) if task == 'edges' else torch.ones_like(target)
        positive = EDGE_SHARE if task == 'edges' else 1 - target.mean()
        weight = torch.where(target > 0, positive, 1 - positive)
        return _mean(functional.binary_cross_entropy_with_logits(
            outputs[:, 0], target, weight, reduction='none'), valid)
    if kind == 'normals':
        target, valid = normals_of(label)
        return _mean((functional.normalize(outputs, dim=1) - target).abs().mean(1), valid)
    metres = label.float() / 1000
    predicted = outputs[:, 0].clamp(*(math.log(limit) for limit in DEPTH_RANGE)).exp()
    return _mean((predicted - metres).abs(), metres > 0)


LOSSES = {'plain': plain_loss, 'robust': robust_loss, 'paper': paper_loss}


def _cross_entropy(outputs: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    if not bool((label != IGNORE).any()):
        # Nothing is labelled: no loss, but a gradient of zero for everyone.
        return outputs.sum() * 0
    return functional.cross_entropy(outputs, label.long(), weights, ignore_index=IGNORE)


def _mean(error: Tensor, valid: Tensor) -> Tensor:
    return (error * valid).sum() / valid.sum().clamp(min=1)


def normals_of(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit normals (B, 3, h, w) and bool (B, h, w) where valid, of uint8 (B, h, w, 3)."""
    vectors = label.float().permute(0, 3, 1, 2) / 127.5 - 1
    return functional.normalize(vectors, dim=1), (label > 0).any(-1)


def total_loss(
        outputs: Mapping[str, Tensor], frames: Mapping[str, Tensor],
        class_weights: Mapping[str, Tensor], kind: str = 'plain',
        people: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """
    Return the weighted sum over the tasks, and each task's own loss.

    people: by task the classes that are of people; frames have a 'person' then.
    """
    losses = {
        task: LOSSES[kind](task, value, frames[task], class_weights.get(task))
        for task, value in outputs.items()}
    for task, classes in (people or {}).items():
        losses[task] = losses[task] + person_loss(outputs[task], frames['person'], classes)
    total = torch.stack([WEIGHTS[kind][task] * value for task, value in losses.items()]).sum()
    return total, {task: float(value.detach()) for task, value in losses.items()}


def distances(outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """
    Return (B,), the weighted sum, over the tasks, of how far outputs are from those of a teacher.

    Both (B, channels, H, W).  Kullback-Leibler divergence for classes and maps, 1 - cosine for
    normals, absolute difference for depth.
    """
    losses = []
    for task, value in outputs.items():
        value, kind = value.float(), TASKS[task].kind
        goal = upsample(teacher[task].detach().float(), value.shape[-2:])
        if kind == 'classes':
            loss = functional.kl_div(
                value.log_softmax(1), goal.log_softmax(1), reduction='none',
                log_target=True).sum(1)
        elif kind == 'map':
            share = goal.sigmoid()
            loss = functional.binary_cross_entropy_with_logits(value, share, reduction='none')
            loss = loss - functional.binary_cross_entropy_with_logits(
                goal, share, reduction='none')
        elif kind == 'normals':
            loss = 1 - functional.cosine_similarity(value, goal, 1)
        else:
            loss = (value - goal).abs()
        losses.append(WEIGHTS['plain'][task] * loss.flatten(1).mean(1))
    return torch.stack(losses).sum(0)

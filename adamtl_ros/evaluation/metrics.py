# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Accuracy metrics per task, accumulated over frames, as multi-task learning defines them.

After the evaluation of ASTMT (Maninis et al., CVPR 2019) and MTI-Net (Vandenhende et al., ECCV
2020).  Shares are in [0, 1].
"""

from collections.abc import Iterable
from collections.abc import Mapping
import math
from typing import Protocol

import numpy as np
import torch
from torchmetrics import MeanAbsoluteError
from torchmetrics import MeanMetric
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassJaccardIndex

from adamtl_ros.evaluation.edges import EdgeCounts
from adamtl_ros.evaluation.edges import TOLERANCE
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import MOST_IDS
from adamtl_ros.tasks import TASKS
from adamtl_ros.tasks import WIDE_IGNORE
from adamtl_ros.training.losses import normals_of

LOWER_IS_BETTER = {'mae', 'mean_deg', 'median_deg', 'rmse_m', 'log_rmse', 'abs_rel'}

HEADLINE = {
    'semseg': 'miou', 'human_parts': 'miou', 'saliency': 'mae', 'normals': 'mean_deg',
    'edges': 'f_strict', 'depth': 'rmse_m'}
"""The metric of each task that enters the mean relative change (delta_m)."""

PUBLISHED = {**HEADLINE, 'saliency': 'max_miou', 'edges': 'ods_f'}
"""The same as the literature has it, for results on its data sets."""


class _Meter(Protocol):
    def update(self, predicted: np.ndarray, label: np.ndarray) -> None: ...

    def compute(self) -> dict[str, float]: ...


class TaskMetrics:
    """
    Metrics of one task.

    semseg, human_parts: `miou` over the classes that occur, background being one; images without
    people do not count for human_parts.  saliency: `mae`; `max_f` and `max_miou`, the best over
    thresholds of F (of mean precision and mean recall over images) and of the mean IoU over
    images.  normals: `mean_deg`, `median_deg`, and `within_11_25`, `within_22_5`, `within_30`,
    over pixels.  edges: `ods_f`, F at the best threshold for the whole data set with a tolerance,
    and `f_strict`, where a pixel counts only where it lies exactly.  depth: `rmse_m` in metres,
    `log_rmse`, and `abs_rel`, over pixels.

    classes: their number.  tolerance: of edges, as a share of the picture's diagonal.
    """

    def __init__(self, task: str, classes: int = 0, tolerance: float = TOLERANCE) -> None:
        self.task = task
        kind = TASKS[task].kind
        self.meter: _Meter
        if kind == 'classes':
            self.meter = _Classes(classes, people=task == 'human_parts')
        elif task == 'edges':
            self.meter = _Edges(tolerance)
        elif kind == 'map':
            self.meter = _Saliency()
        else:
            self.meter = _Normals() if kind == 'normals' else _Depth()

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        """
        Add a frame: the array as published, the label as the readers give it.

        ValueError: they are not of the same size.
        """
        if predicted.shape[:2] != label.shape[:2]:
            raise ValueError(
                f'{self.task}: the result is {predicted.shape[1]}x{predicted.shape[0]} pixels, '
                f'the label {label.shape[1]}x{label.shape[0]}: bring one to the size of the other')
        self.meter.update(predicted, label)

    def compute(self) -> dict[str, float]:
        """Return the metrics over all frames so far; NaN where no pixel had a label."""
        return self.meter.compute()


class _Classes:
    def __init__(self, classes: int, people: bool) -> None:
        self.none = WIDE_IGNORE if classes > MOST_IDS else IGNORE
        self.jaccard = MulticlassJaccardIndex(classes, ignore_index=self.none)
        self.people = people
        self.counted = False

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        if not (label != self.none).any() or (
                self.people and not ((label > 0) & (label != self.none)).any()):
            return
        self.counted = True
        self.jaccard.update(
            *(torch.from_numpy(ids.astype(np.int64))[None] for ids in (predicted, label)))

    def compute(self) -> dict[str, float]:
        return {'miou': float(self.jaccard.compute()) if self.counted else float('nan')}


class _Saliency:
    thresholds = np.linspace(0.2, 0.9, 15)

    def __init__(self) -> None:
        self.error = MeanAbsoluteError()
        self.rows: list[np.ndarray] = []

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        self.error.update(torch.from_numpy(predicted), torch.from_numpy(label).float() / 255)
        salient = label > 127
        # How many pixels, salient ones and others, lie above each threshold.
        above = [
            (predicted[part][:, None] > self.thresholds).sum(0) for part in (salient, ~salient)]
        hits, false = above
        union = salient.sum() + false
        self.rows.append(np.stack((
            np.where(union > 0, hits / np.maximum(union, 1), 1.0),
            hits / np.maximum(hits + false, 1), hits / max(int(salient.sum()), 1))))

    def compute(self) -> dict[str, float]:
        if not self.rows:
            return dict.fromkeys(('mae', 'max_f', 'max_miou'), float('nan'))
        iou, precision, recall = np.mean(self.rows, 0)
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return {'mae': float(self.error.compute()), 'max_f': float(f.max()),
                'max_miou': float(iou.max())}


class _Normals:
    shares = {'within_11_25': 11.25, 'within_22_5': 22.5, 'within_30': 30.0}
    step = 0.01

    def __init__(self) -> None:
        self.total = 0.0
        self.within = dict.fromkeys(self.shares, 0)
        # Of angles, so that the median needs no list of all pixels.
        self.histogram = np.zeros(round(180 / self.step) + 1, dtype=np.int64)

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        target, valid = normals_of(torch.from_numpy(label)[None])
        cosine = (torch.from_numpy(predicted).permute(2, 0, 1) * target[0]).sum(0)[valid[0]]
        # No answer counts as the worst one.
        degrees = torch.rad2deg(cosine.clamp(-1, 1).acos()).nan_to_num(180.0).double().numpy()
        self.total += float(degrees.sum())
        self.histogram += np.bincount(
            (degrees / self.step).astype(np.int64), minlength=len(self.histogram))
        for name, limit in self.shares.items():
            self.within[name] += int((degrees < limit).sum())

    def compute(self) -> dict[str, float]:
        count = int(self.histogram.sum())
        if not count:
            return dict.fromkeys(('mean_deg', 'median_deg', *self.shares), float('nan'))
        # The mean of the two middle ones, where they are two.
        middle = np.searchsorted(
            self.histogram.cumsum(), [(count - 1) // 2 + 1, count // 2 + 1]).mean()
        return {'mean_deg': self.total / count, 'median_deg': float((middle + 0.5) * self.step),
                **{name: number / count for name, number in self.within.items()}}


class _Depth:
    def __init__(self) -> None:
        self.metrics = {
            'rmse_m': MeanSquaredError(squared=False), 'log_rmse': MeanSquaredError(squared=False),
            'abs_rel': MeanMetric()}
        self.counted = False

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        metres = torch.from_numpy(label.astype(np.float32)) / 1000
        valid = metres > 0
        if valid.any():
            self.counted = True
            output, metres = torch.from_numpy(predicted)[valid].clamp(min=1e-9), metres[valid]
            self.metrics['rmse_m'].update(output, metres)
            self.metrics['log_rmse'].update(output.log(), metres.log())
            self.metrics['abs_rel'].update((output / metres - 1).abs())

    def compute(self) -> dict[str, float]:
        return {name: float(metric.compute()) if self.counted else float('nan')
                for name, metric in self.metrics.items()}


class _Edges:
    # What torchmetrics has for `f_strict` takes ten times as long.
    thresholds = np.linspace(0, 1, 101, dtype=np.float32)

    def __init__(self, tolerance: float) -> None:
        self.counts = EdgeCounts(tolerance)
        # Pixels by the highest threshold that they reach: labelled ones, and all.
        self.right, self.found = np.zeros((2, len(self.thresholds)), dtype=np.int64)

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        self.counts.update(predicted, label)
        reached = np.searchsorted(self.thresholds, predicted, side='right') - 1
        for total, part in ((self.right, reached[label > 0]), (self.found, reached.reshape(-1))):
            total += np.bincount(part, minlength=len(total))

    def compute(self) -> dict[str, float]:
        right, found = (total[::-1].cumsum() for total in (self.right, self.found))
        strict = 2 * right / np.maximum(found + self.right.sum(), 1)
        return {'f_strict': float(strict.max()), 'ods_f': self.counts.ods_f()}


def delta_m(
        values: Mapping[str, Mapping[str, float]],
        reference: Mapping[str, Mapping[str, float]],
        headline: Mapping[str, str] = HEADLINE) -> float:
    """
    Return the mean relative change of one metric a task against a reference, in per cent.

    Positive is better (Maninis et al., CVPR 2019, section 5).  reference: of networks for single
    tasks, as the literature has it, or any other result with the same tasks, as the dense
    network's.  headline: the metric of each task.  Tasks that are `undefined` do not count; NaN
    where that leaves none, or where a task has no value although the reference has one.
    ValueError: the reference lacks a task.
    """
    lacking = [task for task in values if task not in reference]
    if lacking or not values:
        raise ValueError(
            f'no reference for {", ".join(lacking)}' if lacking else 'no task to compare')
    changes = []
    for task, metrics in values.items():
        name = headline[task]
        now, before = metrics[name], reference[task][name]
        if math.isnan(before):
            continue
        change = 0.0
        if now != before:
            # From 0, any change is without bounds.
            change = (now - before) / before if before else math.inf * (now - before)
        changes.append(-change if name in LOWER_IS_BETTER else change)
    return 100 * float(np.mean(changes)) if changes else math.nan


def undefined(
        reference: Mapping[str, Mapping[str, float]], tasks: Iterable[str],
        headline: Mapping[str, str] = HEADLINE) -> list[str]:
    """Return the tasks whose metric in a reference is NaN, as where no frame has a label."""
    return [task for task in tasks if math.isnan(reference[task][headline[task]])]

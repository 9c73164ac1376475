# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy metrics per kind of task, accumulated over frames."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError
from torchmetrics import MeanSquaredError
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import BinaryPrecisionRecallCurve
from torchmetrics.classification import MulticlassJaccardIndex

from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.training.losses import normals_of

LOWER_IS_BETTER = {'mae', 'mean_deg', 'rmse_m', 'abs_rel'}

HEADLINE = {
    'semseg': 'miou', 'human_parts': 'miou', 'saliency': 'mae', 'normals': 'mean_deg',
    'edges': 'f_strict', 'depth': 'rmse_m'}
"""The metric of each task that enters the mean relative change (delta_m)."""


class TaskMetrics:
    """
    Metrics of one task.

    classes: mIoU in [0, 1] over the classes that occur.  saliency: mean absolute error of values
    in [0, 1].  normals: mean angle in degrees.  edges: F-measure at the best threshold for the
    whole data set, a pixel counting only where it lies exactly.  depth: RMSE in metres and mean
    relative error.
    """

    def __init__(self, task: str, classes: int = 0) -> None:
        self.task = task
        self.metrics: dict[str, Metric] = {}
        kind = TASKS[task].kind
        if kind == 'classes':
            self.metrics['miou'] = MulticlassJaccardIndex(classes, ignore_index=IGNORE)
        elif task == 'edges':
            self.metrics['f_strict'] = BinaryPrecisionRecallCurve(thresholds=101)
        elif kind == 'map':
            self.metrics['mae'] = MeanAbsoluteError()
        elif kind == 'normals':
            self.metrics['mean_deg'] = MeanMetric()
        else:
            self.metrics['rmse_m'] = MeanSquaredError(squared=False)
            self.metrics['abs_rel'] = MeanMetric()

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        """Add a frame: the array as published, the label as the corpus reader gives it."""
        output, kind = torch.from_numpy(predicted), TASKS[self.task].kind
        if kind == 'classes':
            self.metrics['miou'].update(output[None].long(), torch.from_numpy(label)[None].long())
        elif self.task == 'edges':
            self.metrics['f_strict'].update(output, torch.from_numpy(label).long())
        elif kind == 'map':
            self.metrics['mae'].update(output, torch.from_numpy(label).float() / 255)
        elif kind == 'normals':
            target, valid = normals_of(torch.from_numpy(label)[None])
            cosine = (output.permute(2, 0, 1) * target[0]).sum(0)[valid[0]]
            degrees = torch.rad2deg(cosine.clamp(-1, 1).acos())
            # No answer counts as the worst one.
            self.metrics['mean_deg'].update(degrees.nan_to_num(180.0))
        else:
            metres = torch.from_numpy(label.astype(np.float32)) / 1000
            valid = metres > 0
            if valid.any():
                self.metrics['rmse_m'].update(output[valid], metres[valid])
                self.metrics['abs_rel'].update((output / metres - 1).abs()[valid])

    def compute(self) -> dict[str, float]:
        """Return the metrics over all frames so far."""
        values = {}
        for name, metric in self.metrics.items():
            value = metric.compute()
            values[name] = float(_best_f(value) if name == 'f_strict' else value)
        return values


def _best_f(curve: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    precision, recall, _ = curve
    # Above the highest score there is no precision (0 / 0) and no recall.
    return (2 * precision * recall / (precision + recall)).nan_to_num(0.0).max()


def delta_m(
        values: Mapping[str, Mapping[str, float]],
        reference: Mapping[str, Mapping[str, float]]) -> float:
    """
    Return the mean relative change of the tasks' headline metrics, in per cent.

    Positive is better than the reference (Maninis et al., CVPR 2019, section 5, without the
    single-task part: the reference here is any other result).
    """
    changes = []
    for task, metrics in values.items():
        name = HEADLINE[task]
        change = (metrics[name] - reference[task][name]) / reference[task][name]
        changes.append(-change if name in LOWER_IS_BETTER else change)
    return 100 * float(np.mean(changes))

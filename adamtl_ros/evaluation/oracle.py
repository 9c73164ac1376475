# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What a policy could gain at most: one that knows the labels gives each frame its set of blocks.

Each frame runs under the best fixed sets of several budgets.  Of these it gets the one that, at
one price for all frames, is worth most to it by its own errors, so that the mean cost is a given
one.  Part of what that gains is luck, which no policy can know beforehand.
"""

from collections.abc import Mapping

import numpy as np

from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

RUNGS = (0.35, 0.4, 0.5, 0.57, 0.65, 0.75, 0.85, 1.0)
"""The budgets whose fixed sets a frame may get."""


def errors(outputs: Mapping[str, np.ndarray], frame: Mapping[str, np.ndarray]) -> list[float]:
    """
    Return, by task, how wrong outputs (h, w) of a frame are; NaN where nothing is labelled.

    Share of wrong pixels of classes, 1 - F of edges from 0.5 on, mean difference of saliency,
    mean angle of normals, mean squared difference of depth.
    """
    found = []
    for task, value in outputs.items():
        label, kind = frame[task], TASKS[task].kind
        if kind == 'classes':
            wrong = (value != label)[label != IGNORE]
        elif task == 'edges':
            said, true = value >= 0.5, label == 1
            known = label != IGNORE
            said, true = said[known], true[known]
            both = int(said.sum() + true.sum())
            found.append(1 - 2 * float((said & true).sum()) / both if both else np.nan)
            continue
        elif kind == 'map':
            wrong = np.abs(value - label / np.float32(255))
        elif kind == 'normals':
            vectors = label.astype(np.float32) / 127.5 - 1
            vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
            cosine = (value * vectors).sum(-1).clip(-1, 1)
            wrong = np.degrees(np.arccos(cosine))[label.any(-1) & np.isfinite(cosine)]
        else:
            wrong = np.square(value - label / np.float32(1000))[label > 0]
        found.append(float(wrong.mean()) if wrong.size else np.nan)
    return found


def choose(wrong: np.ndarray, costs: np.ndarray, budget: float) -> np.ndarray:
    """
    Return (N,), which of K runs each frame gets, so that the mean cost is the budget at most.

    wrong (N, K, tasks): errors, relative to those of the last run.  costs (N, K).
    """
    known = np.isfinite(wrong)
    errors = np.where(known, wrong, 0.0)
    scale = errors[:, -1].sum(0) / np.maximum(known[:, -1].sum(0), 1)
    # A task of which nothing is known, or in which nothing is wrong, says nothing.
    known &= scale > 0
    errors = np.where(known, errors / np.where(scale > 0, scale, 1.0), 0.0)
    worth = errors.sum(2) / np.maximum(known.sum(2), 1)
    best = costs.argmin(1)
    for price in np.concatenate((np.geomspace(100, 1e-4, 400), [0.0])):
        chosen = (worth + price * costs).argmin(1)
        if np.take_along_axis(costs, chosen[:, None], 1).mean() > budget:
            break
        best = chosen
    return best

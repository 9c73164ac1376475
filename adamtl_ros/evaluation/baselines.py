# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What constant answers achieve: the least that a trained network has to beat."""

import numpy as np

from adamtl_ros.datasets.frames import Frames
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

FRAMES = 400
"""Frames of the training split that the constants are taken from, evenly spaced."""


def constants(train: Frames) -> dict[str, np.ndarray]:
    """
    Return, per task, the best constant answer of a training split, as it would be published.

    The most frequent class, the median saliency, the mean normal, an edge everywhere (its
    F-measure is the highest of any constant) and the mean depth, each of the frame's size.
    """
    chosen = np.linspace(0, len(train) - 1, min(FRAMES, len(train))).astype(int)
    frames = [train[index] for index in chosen]
    shape = frames[0]['image'].shape[:2]
    answers = {}
    for task in train.tasks:
        labels = np.stack([frame[task] for frame in frames])
        kind = TASKS[task].kind
        if kind == 'classes':
            counts = np.bincount(labels.reshape(-1), minlength=256)
            counts[IGNORE] = 0
            answers[task] = np.full(shape, counts.argmax(), dtype=np.uint8)
        elif kind == 'normals':
            vectors = labels[labels.any(-1)].astype(np.float32) / 127.5 - 1
            mean = vectors.mean(0)
            answers[task] = np.broadcast_to(
                (mean / np.linalg.norm(mean)).astype(np.float32), (*shape, 3)).copy()
        elif task == 'edges':
            answers[task] = np.ones(shape, dtype=np.float32)
        elif kind == 'map':
            answers[task] = np.full(shape, np.median(labels) / 255, dtype=np.float32)
        else:
            answers[task] = np.full(shape, labels[labels > 0].mean() / 1000, dtype=np.float32)
    return answers

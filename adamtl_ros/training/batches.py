# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Batches for training: which frames a step sees, and how they are changed, depends on its number.

So a resumed run, and one that is spread over processes, sees what an uninterrupted one would.
"""

from collections.abc import Sequence
import signal
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset

from adamtl_ros.datasets import augment as published
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

COUNTED = 400
"""Frames, evenly spaced, from which the frequencies of the classes are taken."""


class StepBatches(Dataset):
    """
    Maps a step to its batch: {'ids': names, 'image': (B, h, w, 3), task: labels}.

    size: (height, width) of the network's input.  batch: over all `world` processes, of which
    this is number `rank`.  Files that cannot be read give {'error': words} instead.
    """

    def __init__(
            self, data: Frames, size: tuple[int, int], batch: int, seed: int,
            rank: int = 0, world: int = 1) -> None:
        self.data = data
        self.size = size
        self.batch = batch
        self.seed = seed
        self.mine = slice(rank, None, world)
        if batch > len(data):
            raise ValueError(f'batch={batch}: {data.root} has fewer frames ({len(data)})')
        if batch % world:
            raise ValueError(f'batch={batch} does not divide among {world} processes')

    @property
    def per_epoch(self) -> int:
        """Return the number of steps that see every frame once."""
        return len(self.data) // self.batch

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, position = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data))
        chosen = list(enumerate(order[position * self.batch:][:self.batch]))[self.mine]
        frames = []
        for place, index in chosen:
            rng = np.random.default_rng((self.seed, step, place))
            try:
                frames.append(augmented(self.data, int(index), rng, self.size))
            except (OSError, ValueError) as error:
                return {'error': str(error)}
        return stack(frames, [self.data.ids[index] for _, index in chosen])

    def loader(self, first: int, last: int, workers: int) -> DataLoader:
        """Return what yields the batches of the steps from `first` up to `last`."""
        return DataLoader(
            self, batch_size=None, sampler=range(first, last), num_workers=workers,
            prefetch_factor=4 if workers else None, worker_init_fn=_worker)


def _worker(_: int) -> None:
    # Ctrl-C reaches all processes: it is for the trainer to say when these end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def validation_batches(
        data: Frames, size: tuple[int, int], batch: int, count: int) -> list[dict[str, Any]]:
    """Return unchanged frames, evenly spaced, in batches; count 0 is all."""
    chosen = np.linspace(0, len(data) - 1, min(count, len(data)) or len(data)).astype(int)
    parts = [chosen[start:start + batch] for start in range(0, len(chosen), batch)]
    fit = resize if data.augmentation is None else (
        lambda frame, size: published.resize(frame, size[::-1]))
    return [stack([fit(data[int(i)], size) for i in part], [data.ids[i] for i in part])
            for part in parts]


def stack(frames: Sequence[dict[str, np.ndarray]], ids: list[str]) -> dict[str, Any]:
    """Stack frames of one size to tensors; `ids` stays a list of names."""
    stacked = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
    if 'depth' in stacked:
        # torch does little with 16-bit unsigned numbers.
        stacked['depth'] = stacked['depth'].astype(np.int32)
    return {'ids': ids, **{key: torch.from_numpy(value) for key, value in stacked.items()}}


def augmented(
        data: Frames, index: int, rng: np.random.Generator, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Return a frame at (height, width), changed as published for the data set or as here."""
    if data.augmentation is not None:
        return data.augmentation(data[index], rng, size[::-1])
    return resize(augment(data[index], rng), size)


def resize(frame: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Bring a frame to (height, width)."""
    if frame['image'].shape[:2] == tuple(size):
        return frame
    return {
        key: cv2.resize(
            value, size[::-1],
            interpolation=cv2.INTER_AREA if key == 'image' else cv2.INTER_NEAREST)
        for key, value in frame.items()}


def augment(frame: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirror, zoom in (up to 1.3) and change brightness, contrast and colour balance."""
    frame = dict(frame)
    if rng.random() < 0.5:
        frame = {key: value[:, ::-1] for key, value in frame.items()}
        if 'normals' in frame:
            normals = frame['normals'].copy()
            valid = normals.any(-1)
            normals[..., 0] = np.where(valid, 255 - normals[..., 0], 0)
            frame['normals'] = normals
    height, width = frame['image'].shape[:2]
    if rng.random() < 0.5:
        zoom = rng.uniform(1.0, 1.3)
        rows, columns = round(height / zoom), round(width / zoom)
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        for key, value in frame.items():
            part = np.ascontiguousarray(value[top:top + rows, left:left + columns])
            how = cv2.INTER_LINEAR if key == 'image' else cv2.INTER_NEAREST
            frame[key] = cv2.resize(part, (width, height), interpolation=how)
        if 'depth' in frame:
            # The same picture from a camera of the nominal focal length is this much nearer.
            frame['depth'] = (frame['depth'] / zoom).astype(np.uint16)
    gain = rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, 3)
    image = frame['image'].astype(np.float32)
    mean = image.mean()
    image = ((image - mean) * rng.uniform(0.7, 1.3) + mean) * gain
    frame['image'] = np.clip(image, 0, 255).astype(np.uint8)
    return {key: np.ascontiguousarray(value) for key, value in frame.items()}


def class_weights(data: Frames, outputs: dict[str, int]) -> dict[str, Tensor]:
    """
    Return, per task with classes, (classes,) loss weights.

    Inverse square root of a class's frequency in the data, mean 1, at most 5.
    """
    counts = {task: np.zeros(256) for task in data.tasks if TASKS[task].kind == 'classes'}
    if counts:
        for index in np.linspace(0, len(data) - 1, min(COUNTED, len(data))).astype(int):
            frame = data[int(index)]
            for task, count in counts.items():
                count += np.bincount(frame[task].reshape(-1), minlength=256)
    weights = {}
    for task, count in counts.items():
        count[IGNORE] = 0
        share = count[:outputs[task]] / max(count.sum(), 1)
        weight = 1 / np.sqrt(np.maximum(share, 1e-4))
        weight /= max((weight * share).sum(), 1e-4)
        weights[task] = torch.tensor(np.minimum(weight, 5.0), dtype=torch.float32)
    return weights

# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Batches for training: which frames a step sees, and how they are changed, depends on its number.

So a resumed run sees what an uninterrupted one would; one that is spread over processes sees the
same frames.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import signal
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.datasets import augment as published
from adamtl_ros.datasets import open_dataset
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.training.augment import augmented as far_augmented
from adamtl_ros.training.augment import canonical
from adamtl_ros.training.augment import Strength
from adamtl_ros.training.pictures import Pictures

COUNTED = 400
"""Frames, evenly spaced, from which the frequencies of the classes are taken."""


class Pool:
    """
    The frames of several data sets as one, in items: an epoch sees one frame of each.

    per_clip: frames of a clip that an epoch sees, each drawn from its own part; 0: all.
    lens: the network is taught what the canonical camera sees, so that frames come with a camera.
    ValueError: the data sets have different classes.
    """

    def __init__(self, sets: Sequence[Frames], per_clip: int = 0, lens: bool = False) -> None:
        self.sets, self.lens = sets, lens
        self.tasks, self.classes = sets[0].tasks, sets[0].classes
        self.items: list[tuple[Frames, Sequence[int]]] = []
        for data in sets:
            for task in self.tasks:
                if data.classes.get(task) != self.classes.get(task):
                    raise ValueError(
                        f'data: {data.root} and {sets[0].root} have other classes of {task}: '
                        'only data sets with the same classes can be trained on together')
            parts: Iterable[Sequence[int]] = ([index] for index in range(len(data)))
            if per_clip:
                parts = (part.tolist() for clip in data.clips()
                         for part in np.array_split(clip, min(per_clip, len(clip))))
            self.items += [(data, part) for part in parts]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def root(self) -> str:
        """Return the names of the folders."""
        return ', '.join(str(data.root) for data in self.sets)

    def pick(self, item: int, epoch: int) -> tuple[Frames, int]:
        """Return the data set and the frame of an item in an epoch."""
        data, part = self.items[item]
        chosen = 0
        if len(part) > 1:
            chosen = int(np.random.default_rng((epoch, item)).integers(len(part)))
        return data, part[chosen]


def open_pool(
        folders: Sequence[str], tasks: Sequence[str], split: str, lens: bool = False,
        per_clip: int = 0) -> Pool:
    """Return the pool of data sets; raises as `open_dataset` does, also where no lens is known."""
    cameras = lens and bool({'depth', 'normals'} & set(tasks))
    return Pool(
        [open_dataset(folder, tasks, split, cameras=cameras) for folder in folders], per_clip,
        lens)


class StepBatches(Dataset):
    """
    Maps a step to its batch: {'ids': names, 'image': (B, h, w, 3), task: labels}.

    sizes: (height, width) of the network's input, of which each step draws one.  batch: over all
    `world` processes, of which this is number `rank`.  later: frames for the canonical camera
    come as they were read, for `changed` to work on where the network is.  pictures: real ones,
    so many of which (over all processes) end the batch.  Files that cannot be read give
    {'error': words} instead.
    """

    def __init__(
            self, pool: Pool, sizes: Sequence[tuple[int, int]], batch: int, seed: int,
            rank: int = 0, world: int = 1, later: bool = False,
            pictures: tuple[Pictures, int] | None = None) -> None:
        self.pool = pool
        self.sizes = sizes
        self.batch = batch
        self.seed = seed
        self.later = later
        self.mine = slice(rank, None, world)
        self.pictures = pictures[0] if pictures else None
        self.pictured = pictures[1] if pictures else 0
        self.batch = batch - self.pictured
        if self.pictured and (not pool.lens or not 0 < self.pictured < batch):
            raise ValueError(
                f'{self.pictured} of batch={batch} are pictures: at least one of each kind, and a '
                'network of the canonical camera')
        if self.pictured % world:
            raise ValueError(
                f'{self.pictured} pictures in a batch do not divide among {world} processes')
        if batch > len(pool):
            raise ValueError(f'batch={batch}: {pool.root} has fewer frames ({len(pool)})')
        if batch % world:
            raise ValueError(f'batch={batch} does not divide among {world} processes')

    @property
    def per_epoch(self) -> int:
        """Return the number of steps that see every item once."""
        return len(self.pool) // self.batch

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, position = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pool))
        chosen = list(enumerate(order[position * self.batch:][:self.batch]))[self.mine]
        size = self.sizes[int(np.random.default_rng((self.seed, step)).integers(len(self.sizes)))]
        ids = [self.pool.pick(int(item), epoch) for _, item in chosen]
        names = [data.ids[index] for data, index in ids]
        try:
            if self.pool.lens:
                batch = self._read([int(item) for _, item in chosen], epoch, step, size)
                return {'ids': names, **(batch if self.later else changed(batch))}
            return stack([
                augmented(self.pool, int(item), epoch,
                          np.random.default_rng((self.seed, step, place)), size)
                for place, item in chosen], names)
        except (OSError, ValueError) as error:
            return {'error': str(error)}

    def _read(self, items: Sequence[int], epoch: int, step: int, size: tuple[int, int]) -> Any:
        """Return what `changed` works on: frames, others to take things from, and a seed."""
        seed = self.seed, step, self.mine.start
        rng = np.random.default_rng((*seed, 1))
        rows = np.flatnonzero(rng.random(len(items)) < Strength().pasted).tolist()
        picked = [*items, *rng.integers(len(self.pool), size=len(rows)).tolist()]
        seen = [_seen(*self.pool.pick(item, epoch)) for item in picked]
        # Frames of several data sets are brought to the size of the first.
        first = seen[0][1]
        frames = stack([
            resize_frame(frame, (first.height, first.width)) for frame, _ in seen], [])
        frames.pop('ids')
        pictures: dict[str, Any] | None = None
        if self.pictures is not None:
            share = len(range(self.pictured)[self.mine])
            pictures = stack([
                self.pictures.read(int(number), rng)
                for number in rng.integers(len(self.pictures), size=share)], [])
            pictures.pop('ids')
        return {
            'frames': frames, 'pictures': pictures, 'rows': rows, 'size': size, 'seed': seed,
            'cameras': [camera.resized(first.width, first.height) for _, camera in seen]}

    def loader(self, first: int, last: int, workers: int) -> DataLoader:
        """Return what yields the batches of the steps from `first` up to `last`."""
        return DataLoader(
            self, batch_size=None, sampler=range(first, last), num_workers=workers,
            prefetch_factor=4 if workers else None, worker_init_fn=_worker)


def changed(batch: dict[str, Any], device: torch.device | str = 'cpu') -> dict[str, Tensor]:
    """Return the frames of StepBatches(later=True), changed as `training.augment` does, there."""
    frames = {
        key: value.to(device, non_blocking=True) for key, value in batch['frames'].items()}
    count = len(batch['cameras']) - len(batch['rows'])
    others = {key: value[count:] for key, value in frames.items()}
    pictures = batch['pictures'] and {
        key: value.to(device, non_blocking=True) for key, value in batch['pictures'].items()}
    return far_augmented(
        {key: value[:count] for key, value in frames.items()}, batch['cameras'][:count],
        np.random.default_rng(batch['seed']), batch['size'],
        (batch['rows'], others, batch['cameras'][count:]), pictures)


def _worker(_: int) -> None:
    # Ctrl-C reaches all processes: it is for the trainer to say when these end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def unchanged(
        pool: Pool, size: tuple[int, int], batch: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield unchanged frames, evenly spaced, in batches; count 0 is all."""
    chosen = np.linspace(0, len(pool) - 1, min(count, len(pool)) or len(pool)).astype(int)
    for start in range(0, len(chosen), batch):
        picked = [pool.pick(int(item), 0) for item in chosen[start:start + batch]]
        ids = [data.ids[index] for data, index in picked]
        if not pool.lens:
            yield stack([_fitted(data, index, size) for data, index in picked], ids)
            continue
        seen = [_seen(data, index) for data, index in picked]
        frames = stack([resize_frame(frame, size) for frame, _ in seen], ids)
        frames.pop('ids')
        yield {'ids': ids, **canonical(
            frames, [camera.resized(*size[::-1]) for _, camera in seen])}


def _fitted(data: Frames, index: int, size: tuple[int, int]) -> Any:
    if data.augmentation is not None:
        return published.to_test_size(data[index], size[::-1])
    return resize_frame(data[index], size)


def _seen(data: Frames, index: int) -> tuple[dict[str, np.ndarray], Camera]:
    """Return a frame and its camera; where none is known no label depends on it."""
    frame = data[index]
    height, width = frame['image'].shape[:2]
    return frame, data.camera(index) or Camera.nominal(width, height, CANONICAL_FOCAL)


def stack(frames: Sequence[dict[str, np.ndarray]], ids: list[str]) -> dict[str, Any]:
    """Stack frames of one size to tensors; `ids` stays a list of names."""
    stacked = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
    if 'depth' in stacked:
        # torch does little with 16-bit unsigned numbers.
        stacked['depth'] = stacked['depth'].astype(np.int32)
    return {'ids': ids, **{key: torch.from_numpy(value) for key, value in stacked.items()}}


def augmented(
        pool: Pool, item: int, epoch: int, rng: np.random.Generator, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """
    Return the frame of an item at (height, width), changed.

    As published for the data set, or where nothing was as here.
    """
    data, index = pool.pick(item, epoch)
    if data.augmentation is not None:
        return data.augmentation(data[index], rng, size[::-1])
    return resize_frame(augment(data[index], rng), size)


def resize_frame(frame: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
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


def class_weights(pool: Pool, outputs: dict[str, int]) -> dict[str, Tensor]:
    """
    Return, per task with classes, (classes,) loss weights.

    Inverse square root of a class's frequency in the data, mean 1, at most 5.
    """
    counts = {task: np.zeros(256) for task in pool.tasks if TASKS[task].kind == 'classes'}
    if counts:
        for item in np.linspace(0, len(pool) - 1, min(COUNTED, len(pool))).astype(int):
            data, index = pool.pick(int(item), 0)
            frame = data[index]
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

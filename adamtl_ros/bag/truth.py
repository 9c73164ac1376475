# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels for the frames of a recording: from topics of the bag, or from a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from adamtl_ros.bag.reading import decode
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import Message
from adamtl_ros.conversions import nanoseconds
from adamtl_ros.datasets.frames import read_grey
from adamtl_ros.datasets.frames import read_stored
from adamtl_ros.paths import natural_key
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import MOST_IDS
from adamtl_ros.tasks import TASKS
from adamtl_ros.tasks import WIDE_IGNORE

FOLDERS = {task: (task, 'edge') if task == 'edges' else (task,) for task in TASKS}
"""Folders of a task's labels, the data sets' names for it included."""

WAITING = 15
"""Frames that wait for labels which were recorded after them."""

_ELEMENTS = {
    'mono8': np.uint8, '8UC1': np.uint8, 'mono16': np.uint16, '16UC1': np.uint16,
    '32FC1': np.float32, '32FC3': np.float32, 'rgb8': np.uint8, 'bgr8': np.uint8,
    '8UC3': np.uint8}


def array_of(message: Any) -> np.ndarray:
    """Return the array (h, w) or (h, w, 3) of an Image; ValueError on one that is no label."""
    element = _ELEMENTS.get(message.encoding)
    if element is None:
        raise ValueError(
            f'encoding {message.encoding!r} is no label: publish one of {", ".join(_ELEMENTS)}')
    channels = 3 if message.encoding in ('rgb8', 'bgr8', '8UC3', '32FC3') else 1
    row = message.width * channels * np.dtype(element).itemsize
    data = np.frombuffer(message.data, np.uint8)
    if not message.height or message.step < row or data.size < message.step * message.height:
        raise ValueError(
            f'label of {message.width} x {message.height} pixels has {data.size} bytes in steps '
            f'of {message.step}')
    rows = data[:message.step * message.height].reshape(message.height, -1)[:, :row]
    values = np.ascontiguousarray(rows).view(element)
    if message.is_bigendian:
        values = values.byteswap()
    values = values.reshape(message.height, message.width, channels)
    if message.encoding in ('bgr8', '8UC3'):
        values = values[..., ::-1]
    return values[..., 0] if channels == 1 else values


def label_of(
        task: str, values: np.ndarray, size: tuple[int, int], classes: int = 0) -> np.ndarray:
    """
    Bring a label to the form that the metrics take, at the results' size (width, height).

    Classes: ids, 255 (of 16 bits 65535 too) for none, with more than MOST_IDS classes 65535 alone;
    classes: how many there are, 0: unknown.
    Saliency: uint8 of 255, or float in [0, 1].  Edges: above the middle.  Normals: uint8
    (n + 1) * 127.5, or float unit vectors, zero or NaN for none.  Depth: uint16 millimetres, or
    float metres, 0 or NaN for none.  ValueError on another shape, and on values out of range:
    none is wrapped, cut or rescaled.
    """
    kind = TASKS[task].kind
    if (values.ndim == 3) != (kind == 'normals'):
        raise ValueError(f'a label of {task} cannot have the shape {values.shape}')
    bits = 8 * values.dtype.itemsize
    real = np.issubdtype(values.dtype, np.floating)
    fits = real or bits == (16 if kind == 'depth' else 8)
    if kind == 'classes':
        values = _ids(task, values, classes)
    elif not fits:
        raise ValueError(f'a label of {task} cannot have {bits} bits: give {_FORMS[kind]}')
    elif real:
        values = _FROM_FLOAT[kind](task, values)
    if values.shape[1::-1] != size:
        values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
    return (values > 127).astype(np.uint8) if task == 'edges' else np.ascontiguousarray(values)


_FORMS = {
    'normals': 'bytes, (n + 1) * 127.5, or unit vectors of 32FC3',
    'depth': '16 bits of millimetres, or metres of 32FC1',
    'map': 'bytes, or 32FC1 from 0 to 1'}


def _ids(task: str, values: np.ndarray, classes: int) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f'a label of {task} cannot be of {values.dtype}: give class ids')
    none = WIDE_IGNORE if classes > MOST_IDS else IGNORE
    if values.dtype.itemsize > 1:
        values = np.where(values == WIDE_IGNORE, none, values)
    most = min(classes or none, none)
    wrong = values[(values >= most) & (values != none)]
    if wrong.size:
        raise ValueError(
            f'a label of {task} has the value {wrong[0]}: the classes are 0 to {most - 1}, and '
            f'{none} where there is none')
    return values.astype(np.uint8 if none == IGNORE else np.uint16)


def _normals(task: str, values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values).all(-1, keepdims=True) & values.any(-1, keepdims=True)
    values = np.where(known, values, 0)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)[known]
    _check_range(task, lengths, 0.9, 1.1, 'lengths')
    return np.where(known, np.round((values.clip(-1, 1) + 1) * 127.5), 0).astype(np.uint8)


def _depth(task: str, values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    _check_range(task, values, 0, 65.535, 'metres')
    return np.round(values * 1000).astype(np.uint16)


def _map(task: str, values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    _check_range(task, values, 0, 1, 'values')
    return (values * 255).astype(np.uint8)


def _check_range(task: str, values: np.ndarray, low: float, high: float, what: str) -> None:
    if values.size and not (values.min() >= low and values.max() <= high):
        raise ValueError(
            f'a label of {task} has {what} from {values.min():g} to {values.max():g}: they must '
            f'lie within {low:g} and {high:g}')


_FROM_FLOAT = {'normals': _normals, 'depth': _depth, 'map': _map}


class TopicLabels:
    """Labels from topics, matched by stamp; a few messages around the frame are kept."""

    def __init__(self, topics: Mapping[str, str]) -> None:
        """Begin with none; topics: the topic of each task."""
        self.tasks = {topic: task for task, topic in topics.items()}
        self._labels: dict[int, dict[str, np.ndarray]] = {}

    def add(self, message: Message) -> None:
        """Keep a label; ValueError where it cannot be read."""
        if message.kind != IMAGE:
            raise ValueError(f'{message.topic} is of type {message.kind}: give one of {IMAGE}')
        content = decode(message)
        stamp = nanoseconds(content.header)
        self._labels.setdefault(stamp, {})[self.tasks[message.topic]] = array_of(content)
        while len(self._labels) > 4 * WAITING:
            del self._labels[next(iter(self._labels))]

    def complete(self, stamp: int) -> bool:
        """Return whether all tasks have their label for the frame of this stamp."""
        return len(self._labels.get(stamp, ())) == len(self.tasks)

    def take(self, stamp: int, index: int) -> dict[str, np.ndarray]:
        """Return the labels, by task, of the frame; those that there are."""
        return self._labels.pop(stamp, {})


class FolderLabels:
    """
    Labels from DIR/TASK/NAME.png (`edge` also for edges).

    NAME is the frame's stamp in ns; where names are no stamps, the labels belong to the topic's
    messages in the order of their names.
    """

    def __init__(self, folder: Path) -> None:
        """Find the files; FileNotFoundError where there are none."""
        self.files: dict[str, list[Path]] = {}
        self.by_stamp: dict[str, dict[int, Path]] = {}
        for task, names in FOLDERS.items():
            for name in names:
                files = sorted((folder / name).glob('*.png'), key=natural_key)
                if files:
                    self.files[task] = files
                    if all(file.stem.isdecimal() and len(file.stem) > 15 for file in files):
                        self.by_stamp[task] = {int(file.stem): file for file in files}
        if not self.files:
            raise FileNotFoundError(
                f'{folder}: holds no labels; give a folder with TASK/NAME.png, TASK one of '
                f'{", ".join(TASKS)}')

    def complete(self, stamp: int) -> bool:
        """Return True: nothing has to be waited for."""
        return True

    def take(self, stamp: int, index: int) -> dict[str, np.ndarray]:
        """Read the labels, by task, of the frame; ValueError where a file is damaged."""
        labels = {}
        for task, files in self.files.items():
            file = files[index] if index < len(files) else None
            if task in self.by_stamp:
                file = self.by_stamp[task].get(stamp)
            if file is None:
                continue
            kind = TASKS[task].kind
            labels[task] = read_stored(file) if kind == 'normals' else read_grey(
                file, 16 if kind == 'depth' else 8, palette=kind == 'classes')
        return labels

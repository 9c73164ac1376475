# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Reader of the egocentric indoor corpus: a folder per label kind, a file per frame.

    image/ID.jpg  semseg/ID.png  human_parts/ID.png  normals/ID.png  depth/ID.png  edge/ID.png
    saliency/ID.png

The files hold labels as `frames` describes them, but for edges, which are 0 or 255.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from adamtl_ros.datasets.frames import Frames
from adamtl_ros.datasets.frames import read_grey
from adamtl_ros.datasets.frames import read_picture
from adamtl_ros.tasks import TASKS

_FOLDERS = {'edges': 'edge'}


class EgoRooms(Frames):
    """Frames of one split: `root` is the split's own folder."""

    layout = 'egorooms'
    labelled = tuple(TASKS)
    classes = {name: task.classes for name, task in TASKS.items() if task.classes}

    def __init__(self, root: str | Path, tasks: Iterable[str] = tuple(TASKS)) -> None:
        """Find the frames; FileNotFoundError where the folder does not have the layout."""
        ids = sorted(path.stem for path in (Path(root) / 'image').glob('*.jpg'))
        if not ids:
            raise FileNotFoundError(
                f'no frames in {root}: expected image/ID.jpg and a folder of labels per task')
        super().__init__(root, tasks, ids)

    def files(self, name: str) -> list[Path]:
        """Return the image and the label of each task."""
        return [self.root / 'image' / f'{name}.jpg', *(self._path(name, t) for t in self.tasks)]

    def _path(self, name: str, task: str) -> Path:
        return self.root / _FOLDERS.get(task, task) / f'{name}.png'

    def image(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        return read_picture(self.root / 'image' / f'{name}.jpg', colour=True)

    def label(self, name: str, task: str) -> np.ndarray:
        """Return the stored label."""
        path = self._path(name, task)
        if task == 'normals':
            return read_picture(path, colour=True)
        label = read_grey(path)
        if task == 'depth':
            return label.astype(np.uint16)
        return (label > 127).astype(np.uint8) if task == 'edges' else label
